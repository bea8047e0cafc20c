"""`tinycore rules COMMAND`: the table of commands; each handler is imported when its command is typed.

A handler is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``; ``FILES = False`` in it says that
it takes no rule files. Exit status: 0 fine, 1 something
is wrong with the rules, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tinycore.cli import UsageError
from tinycore.errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Command:
    """Where a handler is, and what the overview says."""

    module: str
    help: str
    examples: tuple[str, ...]


COMMANDS: Final[dict[str, Command]] = {
    "check": Command(
        "tinycore_tools_rules.check_command",
        "look for mistakes: names, types, unused captures, rules that can never fire",
        ("tinycore rules check my.rules", "tinycore rules check my_package.algebra --json"),
    ),
    "verify": Command(
        "tinycore_tools_rules.verify_command",
        "prove rules, or try them on many instances, and show where one is wrong",
        ("tinycore rules verify my.rules", "tinycore rules verify tinycore.passes.index --only div_mod"),
    ),
    "termination": Command(
        "tinycore_tools_rules.termination_command",
        "find an order in which every rule makes terms smaller",
        ("tinycore rules termination my.rules",),
    ),
    "test": Command(
        "tinycore_tools_rules.test_command",
        "run inline tests, derived cases and random orders of rules",
        ("tinycore rules test my.rules", "tinycore rules test --seed 7"),
    ),
    "fmt": Command(
        "tinycore_tools_rules.fmt_command",
        "lay files out in the one way; comments and meaning stay",
        (
            "tinycore rules fmt my.rules",
            "tinycore rules fmt --check my.rules",
            "tinycore rules fmt - < my.rules",
        ),
    ),
    "coverage": Command(
        "tinycore_tools_rules.coverage_command",
        "show which rules fired on a workload",
        (
            "tinycore rules coverage --run 'Input(4, 4).exp().sum()' --html coverage.html",
            "tinycore rules coverage my.rules --run my_model.py --missing --fail-under 80",
            "tinycore rules coverage --run '-m pytest -q tests/passes' --json",
        ),
    ),
    "profile": Command(
        "tinycore_tools_rules.profile_command",
        "show how often each rule was tried, and what that cost",
        (
            "tinycore rules profile --run 'Input(64, 64) @ Input(64, 64)'",
            "tinycore rules profile my.rules --run my_model.py --sort attempts --json",
        ),
    ),
    "explain": Command(
        "tinycore_tools_rules.explain_command",
        "show step by step what rules make of an expression",
        (
            "tinycore rules explain '(i * 8 + j) // 8 where i: index in 0..9, j: index in 0..7'",
            "tinycore rules explain 'x * 2 where x: int32' --with my.rules --pass my_group",
        ),
    ),
    "trace": Command(
        "tinycore_tools_rules.trace_command",
        "show every rewrite on a tensor expression's way to code",
        (
            "tinycore rules trace 'Input(4, 4).exp().sum()'",
            "tinycore rules trace my_model.py --rules my.rules --rule my_rule --json",
        ),
    ),
    "doc": Command(
        "tinycore_tools_rules.doc_command",
        "write reference pages from rules, their reasons and their tests",
        ("tinycore rules doc my.rules > rules.md", "tinycore rules doc my.rules --html -o rules.html"),
    ),
    "compile": Command(
        "tinycore_tools_rules.compile_command",
        "compile rule files for a wheel, so that nobody's machine has to",
        ("tinycore rules compile my_package/my.rules", "tinycore rules compile my_package.my"),
    ),
    "lsp": Command(
        "tinycore_tools_rules.lsp_command",
        "serve editors: diagnostics, hover, definitions, completion, formatting",
        ("tinycore rules lsp", "tinycore rules lsp --counts coverage.json"),
    ),
}
"""The commands by name."""


def add_command(subparsers: Any) -> None:
    """Add `rules` to the commands of tinycore."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = subparsers.add_parser(
        "rules",
        help="check, prove and test rewrite rules",
        description="Tools for authors of rewrite rules.",
        epilog=f"commands:\n{table}\n\n{_examples(command.examples[0] for command in COMMANDS.values())}"
        "\n\n`tinycore rules COMMAND --help` says more about each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="see below")
    parser.set_defaults(run=lambda arguments: run(parser, arguments.words))


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run one of the commands. Raises UsageError when there is none of that name."""
    if not words:
        parser.print_help()
        return 2
    name, *rest = words
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command 'rules {name}'", hint=hint)
    handler = importlib.import_module(COMMANDS[name].module)
    arguments = parser_of(name, handler).parse_args(rest)
    return int(handler.run(arguments))


def parser_of(name: str, handler: Any) -> argparse.ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"tinycore rules {name}",
        description=command.help[0].upper() + command.help[1:] + ".",
        epilog=_examples(command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if getattr(handler, "FILES", True):
        parser.add_argument(
            "files",
            nargs="*",
            metavar="FILE",
            help="a .rules file or the dotted name of an installed one; all files of the core when there is none",
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    handler.add_arguments(parser)
    return parser


def _examples(lines: Iterable[str]) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)

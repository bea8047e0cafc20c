"""The `tinycore` command.

Each command is a module with `add_arguments(parser)` and `run(arguments) -> int`, imported only when it is
typed. Exit status: 0 fine, 1 something is wrong with what was looked at, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from tinycore.errors import TinycoreError, did_you_mean


@dataclass(frozen=True, slots=True)
class Command:
    """A built-in command: where its handler is, and what the overview says."""

    module: str
    help: str
    example: str


COMMANDS: Final = {
    "plugins": Command(
        "tinycore.cli.plugins", "list, inspect, check and switch plugins", "tinycore plugins list"
    ),
    "devices": Command("tinycore.cli.devices", "which devices there are, and which open", "tinycore devices"),
    "doctor": Command("tinycore.cli.doctor", "look for whatever is wrong on this machine", "tinycore doctor"),
    "compile": Command(
        "tinycore.cli.compile",
        "compile for a target with no such device present",
        "tinycore compile --help",
    ),
    "completion": Command(
        "tinycore.cli.completion", "print a completion script for your shell", "tinycore completion bash"
    ),
}


ELSEWHERE: Final = {
    "explain": "tinycore-tools-explain",
    "rules": "tinycore-tools-rules",
    "search": "tinycore-pass-search",
}
"""Commands that people expect, and the distribution that brings them."""


class UsageError(TinycoreError):
    """The command line asks for something impossible; ends with status 2."""


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the chosen command only: the others stay unimported."""
    from tinycore import __version__

    examples = "\n".join(f"  {command.example}" for command in COMMANDS.values())
    parser = argparse.ArgumentParser(
        prog="tinycore",
        description="A compiler framework for tensor programs.",
        epilog=f"examples:\n{examples}\n\n`tinycore COMMAND --help` says more about each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tinycore {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            handler = importlib.import_module(command.module)
            handler.add_arguments(sub)
            sub.set_defaults(run=handler.run)
    if chosen not in COMMANDS:
        _add_plugin_commands(subparsers)
        if chosen is not None and chosen not in subparsers.choices:
            hint = did_you_mean(chosen, subparsers.choices) or "tinycore --help lists all commands"
            if chosen in ELSEWHERE:
                hint = f"pip install {ELSEWHERE[chosen]}"
            raise UsageError(f"there is no command {chosen!r}", hint=hint)
    return parser


def _add_plugin_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Commands that plugins bring. Not reached by built-in commands, so no plugin can stand in their way."""
    from tinycore.plugin.hooks import Hooks
    from tinycore.plugin.registry import installed

    hooks = Hooks(installed())
    for _ in hooks.call("tinycore_add_commands", subparsers=subparsers):
        pass


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(error: TinycoreError, stream: TextIO) -> int:
    print(f"error: {error}", file=stream)
    return 2 if isinstance(error, UsageError) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    >>> main(["plugins", "info", "no-such-plugin"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            parser = build_parser(chosen)
            arguments = _parse(parser, words)
            if not hasattr(arguments, "run"):
                parser.print_help()
                return 2
            status = int(_run(arguments))
            sys.stdout.flush()
            return status
    except TinycoreError as error:
        return _fail(error, sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `tinycore ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    try:
        return parser.parse_args(words)
    except SystemExit:  # --help has been printed: a closed pipe is noticed here, not when Python exits
        sys.stdout.flush()
        raise


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in COMMANDS:
        return int(arguments.run(arguments))
    try:
        return int(arguments.run(arguments) or 0)
    except (TinycoreError, BrokenPipeError):
        raise
    except Exception as error:
        what = f"command {arguments.command!r} of a plugin failed: {type(error).__name__}: {error}"
        raise TinycoreError(what, hint="tinycore plugins list; tinycore plugins disable ID") from error

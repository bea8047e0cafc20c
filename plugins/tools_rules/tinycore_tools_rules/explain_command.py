"""`tinycore rules explain`: what rules do to one expression, rewrite by rewrite."""

from __future__ import annotations

import argparse

from tinycore.cli import UsageError
from tinycore.cli.output import print_json
from tinycore.errors import did_you_mean
from tinycore.rules import Pass, RuleModule
from tinycore_tools_rules.explain import Explained, explain
from tinycore_tools_rules.sources import open_source

FILES = False
"""The words are no files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "expression",
        metavar="EXPRESSION",
        help="as in an inline test: `(i * 8 + j) // 8 where i: index, j: index in 0..7`; int32 unless `where` says",
    )
    parser.add_argument(
        "--with",
        dest="file",
        default="tinycore.passes.kernel",
        metavar="FILE",
        help="the rules: a .rules file or an installed one (default tinycore.passes.kernel)",
    )
    parser.add_argument(
        "--pass",
        dest="passes",
        action="append",
        metavar="NAME",
        help="only this pass or group of the file (repeatable); all of its passes, else all groups, when not given",
    )


def run(arguments: argparse.Namespace) -> int:
    """Explain the expression."""
    passes = choose(open_source(arguments.file).module, arguments.passes)
    found = explain(arguments.expression, passes)
    if arguments.json:
        print_json(to_data(found))
    else:
        report(found)
    return 0


def choose(module: RuleModule, names: list[str] | None) -> list[Pass]:
    """The named passes and groups; all when none is named. Raises UsageError."""
    every: dict[str, Pass] = {name: group.alone for name, group in module.groups.items()}
    every.update(module.passes)
    if names is None:
        return list(module.passes.values() or every.values())
    for name in names:
        if name not in every:
            hint = did_you_mean(name, every) or f"there are {', '.join(every)}"
            raise UsageError(f"{module.name} has no pass or group {name!r}", hint=hint)
    return [every[name] for name in names]


def report(found: Explained) -> None:
    """Print the steps."""
    print(found.before)
    for number, step in enumerate(found.steps, 1):
        print(f"\n{number}. {step.rule.name}  ({step.rule.path}:{step.rule.line}, pass {step.pass_name})")
        if step.rule.why:
            print(f"   why: {step.rule.why}")
        print(f"   {step.before}\n   -> {step.after}")
        if step.whole != step.after:
            print(f"   = {step.whole}")
    print(f"\n{found.after}" if found.steps else "\nno rule matches")


def to_data(found: Explained) -> dict[str, object]:
    """The same as plain data."""
    return {
        "before": found.before,
        "after": found.after,
        "steps": [
            {
                "rule": step.rule.name,
                "group": step.rule.group,
                "path": step.rule.path,
                "line": step.rule.line,
                "pass": step.pass_name,
                "why": step.rule.why,
                "before": step.before,
                "after": step.after,
                "whole": step.whole,
            }
            for step in found.steps
        ],
    }

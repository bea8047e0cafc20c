"""`tinycore rules trace`: every rewrite on a tensor expression's way to code."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinycore.cli.expression import evaluate, with_rules
from tinycore.cli.output import print_json
from tinycore.config import override
from tinycore.rules import Event
from tinycore_tools_rules.infix import infix

FILES = False
"""The words are no rule files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "expression",
        metavar="EXPRESSION",
        help="an expression over Tensor, nn and Input(shape...), or a Python file that sets `result`",
    )
    parser.add_argument(
        "--rules",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="let this file take part (repeatable)",
    )
    parser.add_argument("--rule", metavar="NAME", help="only rules with this in their name")
    parser.add_argument(
        "--pass", dest="pass_name", metavar="NAME", help="only passes with this in their name"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N rewrites")
    parser.add_argument("--device", metavar="NAME", help="compile for this device instead of the default one")


def run(arguments: argparse.Namespace) -> int:
    """Compile the expression and print the rewrites."""
    from tinycore_tools_explain import explain

    changes: dict[str, Any] = {"device": arguments.device.upper()} if arguments.device else {}
    with override(**changes), with_rules(arguments.rules):
        found = explain(evaluate(arguments.expression), run=False)
    places = [("tensors", stage) for stage in found.stages]
    places += [
        (f"kernel {kernel.number} {kernel.name}", stage)
        for kernel in found.kernels
        for stage in kernel.stages
    ]
    rows: list[tuple[str, str, Event]] = []
    for place, stage in places:
        if arguments.pass_name and arguments.pass_name not in stage.name:
            continue
        rows += [
            (place, stage.name, event)
            for event in stage.events
            if not arguments.rule or arguments.rule in event.rule.name
        ]
    total, rows = len(rows), rows[: arguments.limit or None]
    if arguments.json:
        print_json({"rewrites": [_data(*row) for row in rows], "total": total})
    else:
        print("\n".join(_lines(rows)))
        left = f", the first {len(rows)} shown" if len(rows) < total else ""
        print(f"{total} rewrite{'' if total == 1 else 's'}{left}")
    return 0


def _lines(rows: list[tuple[str, str, Event]]) -> Iterator[str]:
    last = ("", "")
    for place, stage, event in rows:
        if (place, stage) != last:
            yield f"{place}, {stage}"
            last = (place, stage)
        yield f"  {event.rule.name}  ({event.rule.path}:{event.rule.line})"
        yield f"    {infix(event.before, depth=4)}"
        yield f"    -> {infix(event.after, depth=4)}"


def _data(place: str, stage: str, event: Event) -> dict[str, object]:
    return {
        "place": place,
        "pass": stage,
        "rule": event.rule.name,
        "group": event.rule.group,
        "path": event.rule.path,
        "line": event.rule.line,
        "before": infix(event.before, depth=4),
        "after": infix(event.after, depth=4),
    }

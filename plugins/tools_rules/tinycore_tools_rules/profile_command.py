"""`tinycore rules profile`: how often each rule was tried and what it cost."""

from __future__ import annotations

import argparse

from tinycore.cli.output import print_json, print_table
from tinycore_tools_rules import workload
from tinycore_tools_rules.instrument import Cost, profiling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    workload.add_arguments(parser)
    parser.add_argument(
        "--top", type=int, default=25, metavar="N", help="show the N dearest rules (default 25)"
    )
    parser.add_argument("--sort", choices=("time", "attempts", "fired"), default="time", help="the order")


def run(arguments: argparse.Namespace) -> int:
    """Run the workload with a clock around every rule, and report.

    Rules are tried one at a time here, where compiled groups share tests among rules: the sum is more than what
    the same workload costs otherwise, and the order of the rules by cost is what it tells.
    """
    with workload.in_force(arguments.files) as files, profiling(files) as profile:
        workload.run_all(arguments.run, arguments.device)
    keys = {"time": "seconds"}
    order = keys.get(arguments.sort, arguments.sort)
    costs = sorted(profile.costs.values(), key=lambda cost: -getattr(cost, order))
    tried = [cost for cost in costs if cost.attempts]
    if arguments.json:
        print_json({"seconds": sum(cost.seconds for cost in tried), "rules": [_data(cost) for cost in tried]})
        return 0
    total = sum(cost.seconds for cost in tried)
    rows = [
        [
            cost.rule.name,
            f"{cost.seconds * 1e3:.2f}",
            f"{100 * cost.seconds / total:.1f}",
            str(cost.attempts),
            str(cost.fired),
            f"{1e6 * cost.seconds / cost.attempts:.2f}",
            f"{cost.rule.path}:{cost.rule.line}",
        ]
        for cost in tried[: arguments.top]
    ]
    print_table(["rule", "ms", "%", "tried", "fired", "us a try", "where"], rows)
    fired = sum(cost.fired for cost in tried)
    attempts = sum(cost.attempts for cost in tried)
    print(
        f"{len(tried)} of {len(costs)} rules were tried, {attempts} times; {fired} rewrites; "
        f"{total * 1e3:.1f} ms in rules"
    )
    return 0


def _data(cost: Cost) -> dict[str, object]:
    return {
        "group": cost.rule.group,
        "rule": cost.rule.name,
        "path": cost.rule.path,
        "line": cost.rule.line,
        "attempts": cost.attempts,
        "fired": cost.fired,
        "seconds": cost.seconds,
    }

"""`tinycore rules coverage`: which rules fired on a workload."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinycore.cli.output import print_json, print_table
from tinycore_tools_rules import workload
from tinycore_tools_rules.coverage import Covered, measure, page, percent
from tinycore_tools_rules.instrument import counting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    workload.add_arguments(parser)
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the files as a page with marked rules"
    )
    parser.add_argument(
        "--fail-under",
        "--floor",
        type=float,
        metavar="N",
        help="status 1 when less than N percent of the rules fired",
    )
    parser.add_argument("--missing", action="store_true", help="list the rules that did not fire")


def run(arguments: argparse.Namespace) -> int:
    """Run the workload and report."""
    with workload.in_force(arguments.files) as files, counting([code for _, code in files]) as counters:
        workload.run_all(arguments.run, arguments.device)
    found = measure(files, counters)
    share = percent(found)
    if arguments.html is not None:
        arguments.html.write_text(page(found), encoding="utf-8")
    failed = arguments.fail_under is not None and share < arguments.fail_under
    if arguments.json:
        print_json({"percent": round(share, 2), "failed": failed, "files": [_data(file) for file in found]})
    else:
        report(found, arguments.missing)
        if failed:
            print(f"less than the floor of {arguments.fail_under:g} %")
    return 1 if failed else 0


def report(files: Sequence[Covered], missing: bool) -> None:
    """Print the figures."""
    rows = [
        [file.name, str(len(file.lines)), str(file.fired), f"{percent([file]):.0f} %"]
        for file in files
        if file.lines
    ]
    total = [str(sum(len(file.lines) for file in files)), str(sum(file.fired for file in files))]
    print_table(["file", "rules", "fired", "share"], [*rows, ["all", *total, f"{percent(files):.1f} %"]])
    for file in files if missing else ():
        for line in file.lines:
            never = [name for name, count in line.counts.items() if not count]
            if line.state == "missed":
                print(f"{file.path}:{line.line}: {line.name} did not fire")
            elif never:
                print(f"{file.path}:{line.line}: {', '.join(never)} did not fire")


def _data(file: Covered) -> dict[str, object]:
    return {
        "file": file.name,
        "path": file.path,
        "percent": round(percent([file]), 2),
        "rules": [
            {
                "group": line.group,
                "rule": line.name,
                "line": line.line,
                "state": line.state,
                "counts": line.counts,
            }
            for line in file.lines
        ],
    }

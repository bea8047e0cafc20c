"""`tinycore doctor`: what is wrong on this machine, and what to type about it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from tinycore.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds that one plugin may take (60)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print all findings; 1 when one of them is an error."""
    from tinycore.plugin.doctor import examine

    findings = list(examine(timeout=arguments.timeout))
    errors = sum(finding.level == "error" for finding in findings)
    if arguments.json:
        print_json([asdict(finding) for finding in findings])
        return 1 if errors else 0
    for finding in findings:
        where = f"  [{finding.where}]" if finding.where else ""
        print(f"{finding.level:8} {finding.what}{where}")
        if finding.hint:
            print(f"{'':8} hint: {finding.hint}")
    print(f"\n{errors} error(s)" if errors else "\nall is well")
    return 1 if errors else 0

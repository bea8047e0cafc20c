"""`tinycore rules test`: inline tests, derived tests, random orders."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from tinycore.cli.output import print_json
from tinycore_tools_rules.derive import Derived, derive
from tinycore_tools_rules.fuzz import Fuzzed, fuzz
from tinycore_tools_rules.inline import run_inline_tests
from tinycore_tools_rules.parallel import each_rule, watched
from tinycore_tools_rules.sources import open_sources, units_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the random instances (default 0)"
    )
    parser.add_argument(
        "--rounds", type=int, default=300, metavar="N", help="graphs a file for random orders"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; all cores when it is not given")
    parser.add_argument("--inline-only", action="store_true", help="run the tests in the files only")


def run(arguments: argparse.Namespace) -> int:
    """Run all tests and report those that fail."""
    sources = open_sources(arguments.files)
    inline = [result for source in sources for result in run_inline_tests(source.module)]
    derived: list[Derived] = []
    fuzzed: dict[str, Fuzzed] = {}
    if not arguments.inline_only:
        units = [unit for source in sources for unit in units_of(source)]
        work = each_rule(derive, units, arguments.jobs, seed=arguments.seed)
        for _, results in watched(work, len(units), "testing"):
            derived += results
        fuzzed = {source.name: fuzz(units_of(source), arguments.rounds, arguments.seed) for source in sources}
    failures = [
        f"{result.path}:{result.line}: {result.rule}: {result.problem}"
        for result in inline
        if not result.passed
    ]
    failures += [_shown(result) for result in derived if result.problem]
    failures += [
        f"{name}: {found.problem}\n{found.refutation}" for name, found in fuzzed.items() if found.problem
    ]
    counts: dict[str, int] = {"inline": len(inline), **Counter(result.kind for result in derived)}
    counts["random orders"] = sum(found.graphs for found in fuzzed.values())
    if arguments.json:
        data: dict[str, Any] = {"counts": counts, "failures": failures, "seed": arguments.seed}
        data["endless orders"] = sum(found.endless for found in fuzzed.values())
        print_json(data)
    else:
        for failure in failures:
            print(failure)
        print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f": {len(failures)} failed")
    return 1 if failures else 0


def _shown(result: Derived) -> str:
    detail = "".join(f"\n    {line}" for line in result.detail.splitlines())
    return f"{result.where}: {result.identity.rpartition(':')[2]} ({result.kind}): {result.problem}{detail}"

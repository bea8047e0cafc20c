"""How many seeded faults in the rules of the core do `verify` and `test` catch?

    python plugins/tools_rules/benchmarks/seeded_faults.py [--count 500] [--seed 0] [--jobs 2] [--by rule|line]

Every rule that `tinycore rules verify` counts is drawn with equal chance, then an operator and a place. With
`--by line` the rules of a loop count once, so that long and rare rules weigh more. Type errors and equivalent mutants
are counted apart.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

from tinycore_tools_rules.mutate import OPERATORS, Outcome, draw, judge, mutants
from tinycore_tools_rules.sources import Unit, core_names, open_source, units_of


@functools.cache
def units(name: str) -> dict[str, Unit]:
    """The rules of a file by name."""
    return {unit.identity: unit for unit in units_of(open_source(name))}


def work(name: str, identity: str, number: int) -> tuple[Outcome, float]:
    """One mutant, judged, and the seconds that it took."""
    start = time.perf_counter()
    unit = units(name)[identity]
    return judge(unit, mutants(unit)[number]), time.perf_counter() - start


def main() -> int:
    """Draw, judge, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--by", choices=["rule", "line"], default="rule")
    parser.add_argument("--json")
    options = parser.parse_args()
    start = time.perf_counter()
    every = [unit for name in core_names() for unit in units(name).values()]
    drawn = draw(every, options.count, options.seed, by_line=options.by == "line")
    chosen = [(unit.source.name, unit.identity, number) for unit, number in drawn]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for outcome, seconds in pool.map(work, *zip(*chosen, strict=True), chunksize=4):
            outcomes.append(outcome)
            if outcome.outcome == "survived" or seconds > 20:
                print(
                    f"{outcome.outcome}: {outcome.identity}: {outcome.operator}: {outcome.what} ({outcome.by})",
                    flush=True,
                )
    counts = Counter(outcome.outcome for outcome in outcomes)
    left = counts["caught"] + counts["survived"]
    print(dict(counts), "caught by", dict(Counter(o.by for o in outcomes if o.outcome == "caught")))
    for operator in OPERATORS:
        mine = Counter(o.outcome for o in outcomes if o.operator == operator)
        print(f"{operator:20} {dict(mine)}")
    print(f"{counts['caught']} of {left} caught ({100 * counts['caught'] / max(1, left):.1f} %), "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(outcome) for outcome in outcomes], file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

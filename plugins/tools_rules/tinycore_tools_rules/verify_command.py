"""`tinycore rules verify`: how every rule ends, and Python that shows what is wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tinycore.cli import UsageError
from tinycore.cli.output import print_json
from tinycore.errors import did_you_mean
from tinycore_tools_rules.parallel import each_rule, watched
from tinycore_tools_rules.sources import Unit, open_sources, units_of
from tinycore_tools_rules.store import key_of, open_store
from tinycore_tools_rules.verify import STATUSES, Result, summary, verify_unit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="rules with this in their name (repeatable)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; all cores when it is not given")
    parser.add_argument("--fresh", action="store_true", help="do not use results of earlier runs")
    parser.add_argument("--all", action="store_true", help="list every rule, not only the findings")
    parser.add_argument(
        "--patience",
        type=float,
        default=1.0,
        metavar="X",
        help="give z3 X times as long as usual (default 1)",
    )
    parser.add_argument(
        "--min-proved",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="fail when fewer of the integer and bool rules without natives are proved",
    )


def select(units: list[Unit], only: Sequence[str] | None) -> list[Unit]:
    """The rules whose identity has one of the words in it. Raises UsageError when there is none."""
    found = [unit for unit in units if not only or any(word in unit.identity for word in only)]
    if only and not found:
        names = {unit.rule.name.split("[")[0] for unit in units}
        raise UsageError(f"there is no rule {only[0]!r}", hint=did_you_mean(only[0], names))
    return found


def verify(
    units: Sequence[Unit], *, jobs: int | None = None, fresh: bool = False, patience: float = 1.0
) -> list[Result]:
    """The results of these rules in order, from the store where it has them."""
    store = open_store(fresh)
    known: dict[str, Result] = {}
    left: list[Unit] = []
    keys = {unit.identity: key_of(unit, patience) for unit in units}
    for unit in units:
        found = store.get(keys[unit.identity])
        if found is None:
            left.append(unit)
        else:
            known[unit.identity] = found
    done = each_rule(verify_unit, left, jobs, patience=patience)
    for unit, result in watched(done, len(left), "verifying"):
        known[unit.identity] = result
        store.put(keys[unit.identity], result)
    return [known[unit.identity] for unit in units]


def run(arguments: argparse.Namespace) -> int:
    """Verify, report, and say by the exit status whether all is well."""
    start = time.perf_counter()
    units = [unit for source in open_sources(arguments.files) for unit in units_of(source)]
    chosen = select(units, arguments.only)
    results = verify(chosen, jobs=arguments.jobs, fresh=arguments.fresh, patience=arguments.patience)
    seconds = time.perf_counter() - start
    if arguments.json:
        print_json(
            {
                "rules": [asdict(result) for result in results],
                "counts": summary(results),
                "files": by_file(results),
                "integral": integral(results),
                "seconds": round(seconds, 2),
                "processor seconds": round(sum(result.seconds for result in results), 2),
            }
        )
    else:
        report(results, seconds, everything=arguments.all or bool(arguments.only))
    found = integral(results)
    few = 100 * found["proved"] < arguments.min_proved * found["rules"]
    if few:
        print(f"fewer than {arguments.min_proved:g} % are proved", file=sys.stderr)
    return 1 if few or any(result.bad for result in results) else 0


def integral(results: Sequence[Result]) -> dict[str, int]:
    """Of the integer and boolean rules without a native: how many there are, and how many are proved."""
    plain = [r for r in results if r.integral and not r.native and r.status != "excepted"]
    return {"rules": len(plain), "proved": sum(r.status == "proved" for r in plain)}


def report(results: Sequence[Result], seconds: float, everything: bool = False) -> None:
    """Print the findings, the exceptions by reason, and the counts."""
    for result in results:
        if result.bad or everything:
            print(f"{result.path}:{result.line}: {result.identity.rpartition(':')[2]}: {result.describe()}")
            if result.counterexample:
                print("\n".join(f"    {line}" for line in result.counterexample.splitlines()))
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.status == "excepted":
            reasons.setdefault(result.reason, []).append(result.identity.rpartition(":")[2])
    for reason, names in reasons.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        print(f"not verified: {shown}: {reason}")
    if len({result.path for result in results}) > 1:
        print("\n".join(_table(by_file(results))))
    counts = summary(list(results))
    print(
        f"{len(results)} rules: " + ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name])
    )
    found = integral(results)
    if found["rules"]:
        share = 100 * found["proved"] / found["rules"]
        print(
            f"integers and bools without natives: {found['proved']} of {found['rules']} proved ({share:.0f} %)"
        )
    computed = sum(result.seconds for result in results)
    print(f"{seconds:.1f} s, for what took processors {computed:.0f} s when it was not known yet")


def by_file(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """How many rules of each file ended how, and the instances that were compared."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.identity.rpartition(":")[0], []).append(result)
    return {
        name: {"rules": len(mine), **summary(mine), "instances": sum(result.instances for result in mine)}
        for name, mine in found.items()
    }


def _table(files: dict[str, dict[str, int]]) -> list[str]:
    """The counts as lines of equal columns; kinds that did not come up are left out."""
    total = {key: sum(counts[key] for counts in files.values()) for key in next(iter(files.values()))}
    shown = [key for key in total if total[key]]
    rows: list[tuple[str, list[Any]]] = [("file", [*shown])]
    rows += [(name, [counts[key] for key in shown]) for name, counts in files.items()]
    rows.append(("all", [total[key] for key in shown]))
    left = max(len(name) for name, _ in rows)
    widths = [max(len(key), len(str(total[key]))) for key in shown]
    return [
        name.ljust(left) + "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))
        for name, values in rows
    ]

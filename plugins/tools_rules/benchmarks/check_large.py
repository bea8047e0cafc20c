"""How long `tinycore rules check` takes for files of many rules.

    python plugins/tools_rules/benchmarks/check_large.py [--rules 2500 5000 10000] [--check]

The rules are of six kinds with guards, commutative operands, nested patterns and constants of their own, in
groups of a thousand. One command line each, elapsed and processor seconds. ``--check`` fails when a file of
10,000 rules takes longer than the limit.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 20.0
"""Seconds for 10,000 rules."""

KINDS = (
    "x:Int * {c} + y * {c} => (x + y) * {c}",
    "x:Int // {c} if x.vmin >= 0 and x.vmax < {c} => 0",
    "(x:Index * {c} + y) % $b if b > 0 and {c} % b == 0 => y % b",
    "MAX(x:Int, {c}) if x.vmax <= {c} => {c}",
    "WHERE(a < {c}, x:Int + {c}, x) => x + WHERE(a < {c}, {c}, 0)",
    "(x:Int - {c}) - $d => x - (d + {c})",
)


def large_file(count: int, seed: int = 1) -> str:
    """The text of a file of so many different rules, none of which shadows another."""
    chance = random.Random(seed)
    lines: list[str] = []
    for number in range(count):
        if number % 1000 == 0:
            lines += ["}"] * bool(lines) + [f"group g{number // 1000}(bottom_up) {{"]
        lines.append(f"  r{number}: {chance.choice(KINDS).format(c=number + 2)}")
    return "\n".join([*lines, "}", ""])


def seconds(count: int) -> tuple[float, float]:
    """Elapsed and processor seconds of the command for a file of so many rules."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.rules")
        path.write_text(large_file(count), encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        command = [sys.executable, "-m", "tinycore.cli", "rules", "check", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        elapsed = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print a line for each size; 1 when it takes too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=int, nargs="*", default=[2500, 10_000])
    parser.add_argument("--check", action="store_true", help="fail above the limit")
    options = parser.parse_args()
    late = False
    for count in options.rules:
        elapsed, processor = seconds(count)
        late |= count >= 10_000 and processor > LIMIT * count / 10_000
        print(
            f"{count:7} rules: {elapsed:6.1f} s elapsed, {processor:6.1f} s of the processor (limit {LIMIT:.0f} s)"
        )
    return 1 if options.check and late else 0


if __name__ == "__main__":
    sys.exit(main())

"""How the time and the memory of a first call grow with the size of the graph.

    python benchmarks/growth.py [--sizes 100,1000,10000] [--rounds 2] [--json]

Chains, fan-outs and diamonds of elementwise ops, as in the rows `compile.*`. Every figure comes from a
process of its own that is up, with an empty cache: building the graph, scheduling, compiling and running it.
Time is the best of the rounds, processor time of all threads; memory is the peak of what Python allocated
since the start of the call, in a process of its own because tracing is slow. The slope is the least squares
line through the logarithms: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("chain", "fanout", "diamond")
GOAL = 1.1


def child(kind: str, size: int, traced: bool) -> None:
    """One first call, in this process, whose settings name the cache."""
    import numpy as np

    from benchmarks import kits, runner
    from benchmarks.rows import ROWS

    row, kit = ROWS[f"compile.{kind}.10"], kits.load("tinycore")
    assert kit is not None
    from benchmarks.rows import graphs

    compute = getattr(graphs, kind)(size)
    given = kits.put(kit, row.arguments(np.random.default_rng(runner.SEED))[0])
    runner._wake(kit)
    call = kit.fresh(lambda x: compute(kit, x), [given])
    if traced:
        tracemalloc.start()
    processor, clock = time.process_time(), time.perf_counter()
    result = call()
    found = {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock}
    if traced:
        found = {"bytes": float(tracemalloc.get_traced_memory()[1])}
    assert np.isfinite(kit.get(result)).all()
    print(json.dumps(found))


def one(kind: str, size: int, *options: str) -> dict[str, float]:
    """One process."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--child", kind, str(size), *options],
            cwd=ROOT,
            env={**os.environ, "TINYCORE_CACHE_DIR": folder},
            check=True,
            capture_output=True,
            text=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The exponent of the power of the size that fits best.

    >>> round(slope([10, 100, 1000], [2, 20, 200]), 6)
    1.0
    """
    line = statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(each) for each in values]
    )
    return line.slope


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,300,1000,3000,10000", help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        child(options.child[0], int(options.child[1]), options.traced)
        return
    sizes = [int(size) for size in options.sizes.split(",")]
    found: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        runs = [
            [*[one(kind, size) for _ in range(options.rounds)], one(kind, size, "--traced")] for size in sizes
        ]
        found[kind] = {
            name: [min(run[name] for run in rounds if name in run) for rounds in runs]
            for name in ("processor", "clock", "bytes")
        }
    if options.json:
        print(json.dumps({"sizes": sizes, **found}))
        return
    print(f"{'ops':22}" + "".join(f"{size:>10}" for size in sizes) + f"{'slope':>9}")
    for kind, columns in found.items():
        _line(f"{kind}, ms", sizes, columns["processor"], 1e3)
        _line(f"{kind}, MB", sizes, columns["bytes"], 1e-6)


def _line(title: str, sizes: Sequence[int], values: Sequence[float], unit: float) -> None:
    exponent = slope(sizes, values)
    cells = "".join(f"{value * unit:10.1f}" for value in values)
    print(f"{title:22}{cells}{exponent:9.2f}{'' if exponent <= GOAL else '  missed'}")


if __name__ == "__main__":
    main()

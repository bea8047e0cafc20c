"""How fast this project starts: imports, first results with empty caches and with warm ones.

    python benchmarks/start.py [--rounds 3] [--rows resnet50.1,train.cnn128,...] [--json]

Every figure comes from processes of its own. "cold" rows start from an empty cache in a process that is up: it has
run one small program, so that the compiler is loaded. "warm" rows run in a new process that has done nothing yet
but import its libraries and load its weights, with the disk cache that a process before it left behind.
The best of the rounds is shown beside the median, and what is aimed at; on a machine that does something else,
too, the seconds of processor time of the best round say more (of all threads: a parallel kernel counts twice).
Modules are compiled to bytecode before, as pip does it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = {"resnet50.1": 3.0, "train.cnn128": 3.0}
SINGLE_SECONDS = 0.15
WARM = {"resnet50.1": 0.5}

Sample = tuple[float, float]
"""Seconds of the clock, and of the processor."""

CLOCKS = "(time.perf_counter(), time.process_time())"
IMPORT = f"import time; s = {CLOCKS}; import tinycore; e = {CLOCKS}; print(e[0] - s[0], e[1] - s[1])"
ADD = "from tinycore import Tensor; assert (Tensor([1, 2, 3]) + 1).tolist() == [2, 3, 4]"


def python(arguments: Sequence[str], cache: Path) -> str:
    """What a new Python process prints. Raises CalledProcessError when it fails."""
    environment = {**os.environ, "TINYCORE_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


def import_seconds(cache: Path) -> Sample:
    """`import tinycore` in a process that has started."""
    return _last_two(python(["-c", IMPORT], cache))


def process_seconds(cache: Path) -> Sample:
    """A whole process that adds two tensors, interpreter included."""
    before, start = _children(), time.perf_counter()
    python(["-c", ADD], cache)
    return time.perf_counter() - start, _children() - before


def _children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def first_seconds(row: str, cache: Path, wake: bool) -> Sample:
    """The first result of a benchmark row, in a new process."""
    return _last_two(python([__file__, "--first", row, *(["--wake"] if wake else [])], cache))


def _last_two(printed: str) -> Sample:
    clock, processor = printed.split()[-2:]
    return float(clock), float(processor)


def child(name: str, wake: bool) -> None:
    """Measure one row in this process, whose settings name the cache."""
    import numpy as np

    from benchmarks import kits, runner
    from benchmarks.rows import ROWS

    row, kit = ROWS[name], kits.load("tinycore")
    assert kit is not None
    arguments = row.arguments(np.random.default_rng(runner.SEED))
    weights = runner.random_weights(row) if row.model is not None else None
    given = [kits.put(kit, array) for array in arguments]
    function = runner._function(row, kit, weights)
    if wake:
        runner._wake(kit)
    call = kit.reused(function, None, given) if row.training or not row.fresh else kit.fresh(function, given)
    start, used = time.perf_counter(), time.process_time()
    result = call()
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    assert np.isfinite(kit.get(result)).all()
    print(seconds, processor)


def repeated(measure: Callable[[], Sample], rounds: int) -> dict[str, float]:
    """The best and the median of some rounds."""
    samples = [measure() for _ in range(rounds)]
    return {
        "best": min(clock for clock, _ in samples),
        "median": statistics.median(clock for clock, _ in samples),
        "processor": min(processor for _, processor in samples),
    }


def cold(row: str) -> Sample:
    """The first result of a row with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return first_seconds(row, Path(folder), wake=True)


def measure(rows: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """All figures, with what is aimed at."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        process_seconds(cache)
        found["import tinycore"] = {**repeated(lambda: import_seconds(cache), 5 * rounds), "goal": 0.06}
        found["new process, one addition, warm"] = {
            **repeated(lambda: process_seconds(cache), 3 * rounds), "goal": 0.25,
        }  # fmt: skip
        for row in [row for row in rows if row in WARM]:
            first_seconds(row, cache, wake=False)
            samples = repeated(lambda row=row: first_seconds(row, cache, wake=False), rounds)  # type: ignore[misc]
            found[f"{row}, warm"] = {**samples, "goal": WARM[row]}
    for row in rows:
        goal = NETWORKS.get(row, SINGLE_SECONDS)
        found[f"{row}, cold"] = {**repeated(lambda row=row: cold(row), rounds), "goal": goal}  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--rows", help="separated by commas; default: two networks and all single operations")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--first", metavar="ROW", help=argparse.SUPPRESS)
    parser.add_argument("--wake", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.first:
        child(options.first, options.wake)
        return
    if options.rows:
        rows = options.rows.split(",")
    else:
        from benchmarks.rows import ROWS

        single = [name for name, row in ROWS.items() if row.suite == "design" and row.model is None]
        rows = [*NETWORKS, *single]
    found = measure(rows, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':40}{'best':>9}{'median':>9}{'processor':>11}{'goal':>9}   ms")
    for name, figures in found.items():
        late = "" if figures["best"] <= figures["goal"] else "  missed"
        print(
            f"{name:40}{_ms(figures['best'])}{_ms(figures['median'])}  {_ms(figures['processor'])}"
            f"{_ms(figures['goal'])}{late}"
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:9.1f}"


if __name__ == "__main__":
    main()

"""What a call costs that computes next to nothing: Python, dispatch and allocation, beside other libraries.

    python benchmarks/eager.py [--peers numpy,torch,jax] [--json]

Arrays of 8x8 elements, outputs fresh at every call, inputs stored. Processor time of one call, the best of several
rounds, each library in a process of its own; how many times what the quickest peer needs is in brackets. `build` is
the part of this project's time that goes into writing the graph down; the rest is to find its plan, to allocate and
to launch.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("numpy", "torch", "jax")
ROUNDS, SECONDS = 7, 0.1


def network(kit: Any) -> Callable[..., Any]:
    """Three linear layers, with weights of the library."""
    layers = [kit.nn.Linear(8, 8) for _ in range(3)]
    random = np.random.default_rng(1)
    for layer in layers:
        kit.assign(layer, "weight", random.standard_normal((8, 8)).astype(np.float32))
        kit.assign(layer, "bias", random.standard_normal(8).astype(np.float32))
    return lambda x: layers[2](kit.relu(layers[1](kit.relu(layers[0](x)))))


def chain(kit: Any) -> Callable[..., Any]:
    """Twenty additions, one after the other."""

    def add(x: Any, y: Any) -> Any:
        for _ in range(20):
            x = kit.add(x, y)
        return x

    return add


ROWS: dict[str, tuple[Callable[[Any], Callable[..., Any]], int]] = {
    "add": (lambda kit: kit.add, 2),
    "sum": (lambda kit: kit.sum, 1),
    "matmul": (lambda kit: kit.matmul, 2),
    "softmax": (lambda kit: kit.softmax, 1),
    "three layers": (network, 1),
    "twenty additions": (chain, 2),
}
"""What makes the function of a row for a library, and how many matrices the function takes."""


def best(call: Callable[[], Any]) -> float:
    """Seconds of processor time of one call, at best."""
    for _ in range(20):
        call()
    found, count = float("inf"), 1
    for _ in range(ROUNDS):
        while True:
            start = time.process_time()
            for _ in range(count):
                call()
            taken = time.process_time() - start
            if taken > SECONDS / 4:
                break
            count *= 2
        found = min(found, taken / count)
    return found


def measure(name: str) -> dict[str, float]:
    """Seconds of each row in this process, for one library."""
    from benchmarks import kits

    kit = kits.load(name)
    found: dict[str, float] = {}
    if kit is None:
        return found
    random = np.random.default_rng(0)
    for row, (make, count) in ROWS.items():
        given = [kit.put(random.standard_normal((8, 8)).astype(np.float32)) for _ in range(count)]
        try:
            function = make(kit)
            found[row] = best(kit.fresh(function, given))
        except (kits.NotSupported, AttributeError):
            continue
        if name == "tinycore":
            found[f"{row}, build"] = best(functools.partial(function, *given))
    return found


def child(name: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    arguments = [sys.executable, __file__, "--measure", name]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that spin would count as work
    done = subprocess.run(arguments, cwd=ROOT, env=alone, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, dict[str, float]], peers: Sequence[str]) -> str:
    """The times of all libraries as text, in microseconds."""
    lines = [f"{'':20}{'tinycore':>20}{'build':>9}" + "".join(f"{peer:>9}" for peer in peers) + "   us"]
    ours = found["tinycore"]
    for row in ROWS:
        times = [found[peer].get(row) for peer in peers]
        known = [seconds for seconds in times if seconds is not None]
        ratio = f"({ours[row] / min(known):.0f}x)" if known else ""
        cells = "".join(f"{seconds * 1e6:9.1f}" if seconds is not None else f"{'':9}" for seconds in times)
        lines.append(f"{row:20}{ours[row] * 1e6:10.1f} {ratio:>9}{ours[f'{row}, build'] * 1e6:9.1f}{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object, in seconds")
    parser.add_argument("--measure", metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    peers = [peer for peer in options.peers.split(",") if peer]
    found = {name: child(name) for name in ("tinycore", *peers)}
    installed = [peer for peer in peers if found[peer]]
    print(json.dumps(found) if options.json else table(found, installed))


if __name__ == "__main__":
    main()

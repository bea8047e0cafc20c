"""The kernels of one row: where its time goes.

python3 dev.py bench --profile softmax.4096
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import kits
from benchmarks.limits import Limits
from benchmarks.model import Row
from benchmarks.report import duration
from benchmarks.runner import SEED, _function, random_weights
from tinycore import Tensor
from tinycore.runtime.report import KernelTime, collect


@dataclass(frozen=True, slots=True)
class Place:
    """One launch of the row's program: the fastest of several runs."""

    name: str
    seconds: float
    operations: float
    traffic: float


def profile(row: Row, rounds: int = 5) -> list[Place]:
    """The launches of a row in order, each with the least time of some rounds.

    The same kernel at another place is another launch: its data may be in another cache.
    """
    kit = kits.load("tinycore")
    assert kit is not None
    given = [kits.put(kit, array) for array in row.arguments(np.random.default_rng(SEED))]
    weights = random_weights(row) if row.model is not None else None
    function = _function(row, kit, weights)
    runs: list[list[KernelTime]] = []
    for number in range(rounds + 1):
        with collect() as times:
            if row.training:
                function(*given).realize()
            else:
                with Tensor.no_grad():
                    function(*given).realize()
        if number:  # the first run compiles, and touches memory for the first time
            runs.append(list(times))
    names = [time.name for time in runs[0]]
    alike = [run for run in runs if [time.name for time in run] == names]
    return [
        Place(each[0].name, min(time.seconds for time in each), each[0].operations, each[0].traffic)
        for each in zip(*alike, strict=True)
    ]


def table(row: Row, places: Sequence[Place], limits: Limits | None) -> Table:
    """The launches, the longest first; their order in the program is the first column."""
    total = sum(place.seconds for place in places)
    made = Table(
        title=f"{row.name}: {row.what}; {len(places)} kernels, {duration(total)}", title_justify="left"
    )
    made.add_column("#", justify="right")
    made.add_column("kernel", no_wrap=True)
    for name in ("time", "share", "GFLOP/s", "GB/s", "of the limit"):
        made.add_column(name, justify="right")
    for number, place in sorted(enumerate(places), key=lambda entry: -entry[1].seconds):
        least = limits.seconds(place.operations, place.traffic, row.width) if limits is not None else None
        seconds = max(place.seconds, 1e-9)
        made.add_row(
            str(number),
            place.name,
            duration(place.seconds),
            f"{100 * place.seconds / total:.1f} %",
            f"{place.operations / seconds / 1e9:.2f}",
            f"{place.traffic / seconds / 1e9:.2f}",
            "" if least is None else f"{100 * least / seconds:.0f} %",
        )
    return made


def show(row: Row, limits: Limits | None) -> None:
    """Measure and print."""
    Console(width=160).print(table(row, profile(row), limits))

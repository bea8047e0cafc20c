"""What DEBUG prints, and the times of kernels as data.

=======  ====================================================================================================
DEBUG    prints
=======  ====================================================================================================
1        the plugins and the device that were chosen; how many kernels and copies each `realize` runs
2        also one line a kernel: time, GFLOP/s, GB/s; and how long each new kernel took to compile
3        also the tiling actions of each new kernel, and why it is a kernel
4        also its generated code
5        also the graph after every pass
=======  ====================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinycore.config import config
from tinycore.ir import UOp
from tinycore.ir.text import print_graph
from tinycore.rules.doors import PassRun
from tinycore.runtime.environment import environment

if TYPE_CHECKING:
    from tinycore.schedule import Schedule

_introduced: set[str] = set()


def _print(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One timed launch: seconds, floating point operations, bytes touched."""

    name: str
    device: str
    seconds: float
    operations: int
    traffic: int

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-9)
        return (
            f"{self.device:<12} {self.name:<44} {self.seconds * 1e6:10.1f} us "
            f"{self.operations / seconds / 1e9:9.2f} GFLOP/s {self.traffic / seconds / 1e9:9.2f} GB/s"
        )


class Statistics:
    """Times of kernels: printed at DEBUG=2, collected inside ``with collect() as rows``."""

    def __init__(self) -> None:
        self.active: list[list[KernelTime]] = []

    def report(self, row: KernelTime) -> None:
        """One launch took so long."""
        for rows in self.active:
            rows.append(row)
        if config().debug >= 2:
            _print(str(row))


statistics = Statistics()


class collect:
    """Collect the times of all kernels in a block.

    >>> with collect() as rows:
    ...     pass
    >>> rows
    []
    """

    def __enter__(self) -> list[KernelTime]:
        self.rows: list[KernelTime] = []
        statistics.active.append(self.rows)
        return self.rows

    def __exit__(self, *exception: object) -> None:
        statistics.active.remove(self.rows)


# --- DEBUG ------------------------------------------------------------------------------------------------


def introduce(device: str) -> None:
    """DEBUG=1: the plugins in use, once; the default device, once for each."""
    if not _introduced:
        plugins = ", ".join(f"{name} {version}" for name, version in environment().versions) or "none"
        _print(f"plugins: {plugins}")
        for name, reason in environment().missing.items():
            _print(f"not usable: {name}: {reason}")
    if device not in _introduced:
        _introduced.add(device)
        _print(f"device: {device}")


def scheduled(schedule: Schedule) -> None:
    """DEBUG=1: how much there is to do."""
    from tinycore.schedule import KernelStep, nbytes

    kernels = [step for step in schedule.steps if isinstance(step, KernelStep)]
    copies = len(schedule.steps) - len(kernels)
    different = len({step.kernel for step in kernels})
    sizes: dict[int, int] = {}
    for node, slot in schedule.slots:
        sizes[slot] = max(sizes.get(slot, 0), nbytes(node))
    parts = [f"{len(kernels)} kernels" + (f" ({different} different)" if different != len(kernels) else "")]
    if copies:
        parts.append(f"{copies} copies")
    if sizes:
        parts.append(f"{show_bytes(sum(sizes.values()))} of temporary memory")
    _print("schedule: " + ", ".join(parts))


def compiled(name: str, device: str, seconds: float, how: str) -> None:
    """DEBUG=2: a kernel became code."""
    _print(f"{device:<12} {name:<44} {seconds * 1e3:10.1f} ms {how}")


def actions(name: str, found: Iterable[Any]) -> None:
    """DEBUG=3: what tiling did to a kernel."""
    words = [str(action) for action in found]
    _print(f"{'':<12} {name}: " + ("; ".join(words) if words else "not tiled"))


def code(source: str) -> None:
    """DEBUG=4: the generated code."""
    _print(source)


def passed(seen: PassRun) -> None:
    """DEBUG=5: the graph after a pass."""
    unchanged = " unchanged" if seen.after is seen.before else ""
    _print(
        f"--- {seen.name} ({seen.gives}, {nodes(seen.after)} nodes, {seen.seconds * 1e3:.1f} ms){unchanged}"
    )
    if not unchanged:
        _print(print_graph(seen.after))


def nodes(graph: UOp) -> int:
    """How many nodes a graph has."""
    return len(graph.toposort())


def show_bytes(count: float) -> str:
    """Bytes for people.

    >>> show_bytes(12), show_bytes(4_300_000)
    ('12 B', '4.3 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    power = min(3, int(math.log(count, 1000)))
    return f"{count / 1000**power:.1f} {' kMG'[power]}B"

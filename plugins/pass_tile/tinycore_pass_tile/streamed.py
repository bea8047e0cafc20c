"""Reductions whose operand comes from memory: memory sets their pace, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinycore.codegen.tiling import Action, Prefetch
from tinycore.ir import Capabilities, UOp
from tinycore_pass_tile.analysis import Access, Nest, bound


def streamed_load(nest: Nest, capabilities: Capabilities) -> Access | None:
    """The access that reads more than the near caches of all threads hold, or None.

    None, too, where several reductions read in turns.
    """
    if len(nest.reductions) != 1 or not capabilities.cache_bytes:
        return None
    reduction, consumed = nest.reductions[0]
    ranges = [*consumed, *[node for node in nest.loops if node in reduction.ranges]]
    loads = nest.within(reduction)
    if not loads:
        return None
    largest = max(loads, key=lambda load: _elements(load, ranges))
    size = _elements(largest, ranges) * largest.node.dtype.itemsize
    return largest if size > capabilities.threads * near_cache(capabilities) else None


def _elements(load: Access, ranges: list[UOp]) -> int:
    return math.prod([bound(node) for node in ranges if load.stride(node) != 0])


def near_cache(capabilities: Capabilities) -> int:
    """Bytes of the second cache, or of the only one."""
    return capabilities.cache_bytes[:2][-1]


def next_rows(load: Access, tile: Sequence[tuple[UOp, int]], capabilities: Capabilities) -> list[Action]:
    """Ask for the rows that a tile of rows will read next, while this one is read.

    Processors fetch ahead along a few rows by themselves, and begin anew with each. Where the next rows are too
    far away to stay in the cache until they are read, they are long enough for that.
    """
    distance = sum(rows * abs(load.stride(row) or 0) for row, rows in tile) * load.node.dtype.itemsize
    return [Prefetch(loop=1, steps=1)] if 0 < distance <= near_cache(capabilities) // 2 else []

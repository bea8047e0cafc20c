"""Reductions down the columns of something large that is read once: sums over rows, vectors times matrices.

A register for every result would walk down a few columns at a time, touching a new page with every step. Here
whole pieces of rows are read in the order in which they lie in memory; the partial results of a piece wait in
a near cache. A step of 8 rows reads them once and writes them once, so the second cache is near enough, and
long pieces are what memory delivers fastest: every thread has one. What a step reads is asked for one step
before, because processors that fetch ahead by themselves do so along a row, and stop where a piece ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tinycore.codegen.carry import Carry
from tinycore.codegen.tiling import Action, Bind, Order, Prefetch, Split, Tail
from tinycore.ir import Capabilities, UOp
from tinycore_pass_tile.analysis import Nest, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.streamed import near_cache

SERIAL_WORK = 1 << 14
"""Kernels of fewer iterations are not worth waking a thread for."""
CHUNKS_PER_THREAD = 4
LEAST_CHUNK = 1 << 13
MOST_RESULTS = 12
"""More results an element read, and a register tile reads it often enough to be worth gathering columns."""
STEPS = 8
"""Rows that are combined in registers before they meet the partial results in memory."""


@dataclass(frozen=True)
class Columns:
    """A nest of this shape.

    Attributes
    ----------
    outer: loops around everything (a batch).
    rows: loops along which the elements read are reused: a few results for every column.
    columns: the loop that gets the lanes.
    steps: the ranges that are reduced.
    itemsize: bytes of an element that is read.
    """

    outer: tuple[UOp, ...]
    rows: tuple[UOp, ...]
    columns: UOp
    steps: tuple[UOp, ...]
    itemsize: int

    @property
    def bytes_read(self) -> int:
        """How much is read down all columns, once."""
        return bound(self.columns) * math.prod(map(bound, self.steps)) * self.itemsize

    @property
    def results(self) -> int:
        """How many results a column has."""
        return math.prod(map(bound, self.rows))


def columns_of(nest: Nest, columns: UOp | None, capabilities: Capabilities) -> Columns | None:
    """How a nest reduces down columns, or None where it does not, or where all of it stays in the near cache."""
    if len(nest.reductions) != 1 or columns is None or not capabilities.cache_bytes:
        return None
    reduction, steps = nest.reductions[0]
    if not steps or not set(nest.loops) <= reduction.ranges or columns not in nest.loops:
        return None
    loads = nest.within(reduction)
    streamed = [load for load in loads if load.stride(columns) == 1]
    if not streamed or any(load.stride(columns) not in (0, 1) for load in loads):
        return None
    rows: list[UOp] = []
    outer: list[UOp] = []
    for node in nest.loops:
        if node is columns:
            continue
        reused = all(load.stride(node) == 0 for load in streamed)
        (rows if reused and is_static(node) else outer).append(node)
        if reused and not is_static(node):
            return None
    # The rows must lie apart: neighbouring steps in one line of the cache are no columns.
    if any((load.stride(step) or 0) * load.node.dtype.itemsize < 64 for load in streamed for step in steps):
        return None
    found = Columns(tuple(outer), tuple(rows), columns, steps, streamed[0].node.dtype.itemsize)
    fits = found.bytes_read <= capabilities.cache_bytes[0]
    return None if fits or found.results > MOST_RESULTS or nest.accesses[0].stride(columns) != 1 else found


def choose_columns(
    nest: Nest, shape: Columns, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action]:
    """The actions for a nest of this shape."""
    itemsize = largest_itemsize(nest)
    lanes = max(1, capabilities.vector_bytes // itemsize)
    while lanes > bound(shape.columns) and lanes > 1:
        lanes //= 2
    actions: list[Action] = []
    columns, nest_order = _chunks(nest, shape, capabilities, lanes, itemsize, ids, parallel, actions)
    *others, last = shape.steps
    outer, inner, rest = next(ids), next(ids), next(ids)
    actions += [Split(number(last), STEPS, outer, inner, "peel", rest), Bind(inner, "unroll")]
    if is_static(last):
        actions.append(Bind(rest, "unroll"))
    stepped = [*map(number, others), outer]
    if is_static(last) and bound(last) < 2 * STEPS:
        stepped = list(map(number, others))
    inside = (*map(number, shape.rows), columns)
    if stepped:
        actions.append(Carry(tuple(stepped), inside))
    actions += [Bind(number(node), "unroll") for node in shape.rows]
    tiles, vector, rest, more, masked = (next(ids) for _ in range(5))
    actions += [
        Split(columns, lanes, tiles, vector, "peel", rest),
        Bind(vector, "vector"),
        Split(rest, lanes, more, masked, "mask"),
        Bind(masked, "vector"),
        Order((*nest_order, *stepped, tiles, more)),
    ]
    everything = shape.bytes_read * math.prod(map(bound, shape.outer))
    if everything > capabilities.threads * near_cache(capabilities):
        actions.append(Prefetch(loop=1, steps=1))
    return actions


def _chunks(
    nest: Nest,
    shape: Columns,
    capabilities: Capabilities,
    step: int,
    itemsize: int,
    ids: Iterator[int],
    parallel: bool,
    actions: list[Action],
) -> tuple[int, list[int]]:
    """Pieces of rows, of which a step takes a quarter of the second cache, and chunks for every thread.

    Answers the range of the columns of a piece, and the loops around it.
    """
    outer = [number(node) for node in shape.outer]
    parallel = parallel and capabilities.threads > 1 and nest.work >= SERIAL_WORK
    spread = parallel and bool(shape.outer) and bound(shape.outer[0]) >= 2 * capabilities.threads
    if spread:
        count = bound(shape.outer[0])
        size = max(count // (capabilities.threads * CHUNKS_PER_THREAD), LEAST_CHUNK * count // nest.work, 1)
        grid, inner = next(ids), next(ids)
        actions += [Split(outer[0], size, grid, inner, "bound"), Bind(grid, "global"), Bind(inner, "loop")]
        outer[:1] = [grid, inner]
    total = bound(shape.columns)
    most = max(step, near_cache(capabilities) // 4 // (itemsize * max(STEPS, shape.results)))
    wanted = min(most, total, -(-total // capabilities.threads) if parallel and not spread else total)
    tail: Tail = "bound"
    size = most // step * step
    if is_static(shape.columns):
        count = -(-total // wanted)
        if parallel and not spread:
            count = -(-count // capabilities.threads) * capabilities.threads
        size = -(-total // (count * step)) * step
        if size >= total:
            return number(shape.columns), outer
        # Pieces of whole vectors: the last one begins earlier, and does some columns once more.
        read = {access.node.src[0] for access in nest.accesses[1:]}
        tail = "bound" if nest.accesses[0].node.src[0] in read else "overlap"
    piece, inner = next(ids), next(ids)
    actions += [Split(number(shape.columns), size, piece, inner, tail), Bind(inner, "loop")]
    if parallel and not spread:
        actions.append(Bind(piece, "global"))
        return inner, [piece, *outer]
    return inner, [*outer, piece]

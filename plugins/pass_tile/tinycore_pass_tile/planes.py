"""Windows that slide over one plane of an image at a time: depthwise convolutions with channels first.

Every plane has weights of its own, so that lanes can only lie along the pixels of a row. A plane, or a block of
its rows, is copied to memory of the thread first, with its zero padding, so that the sums need no guards. Then
some rows of a vector of pixels are summed over a window that is written out: a vector that was loaded serves
all rows whose windows it lies in, and the lanes of strides are picked out of neighbours by shuffles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from tinycore.codegen.footprint import Dimension, footprint
from tinycore.codegen.nest import TRUE
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Bind, Order, Split
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore_pass_tile.analysis import Access, Nest, balanced, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.plan import Plan
from tinycore_pass_tile.strips import LEAST_CACHE, best_rows

LEAST_COLUMNS = 4
"""Shorter rows are not worth lanes."""
MOST_STRIDE = 4
"""Of larger strides too little of what is copied is used."""
MOST_PLACES = 64
"""Larger windows are not written out."""
MOST_PRODUCTS = 128
"""Products of a register tile that are written out, unless that leaves too few independent sums."""
LEAST_ROWS, MOST_ROWS = 4, 8
"""Independent sums that hide the latency of a product, and as many as leave registers for weights."""
LEAST_L1 = 1 << 15
"""Bytes of a first-level cache where none is known."""
SHARE = 6
"""A copy takes that part of it: memory idles while a larger one is summed up."""
CHUNKS_PER_THREAD = 4
LEAST_CHUNK = 1 << 13
"""Products that are worth a chunk of their own."""


@dataclass(frozen=True, slots=True)
class _Planes:
    """What was recognised.

    Attributes
    ----------
    image: the load that slides.
    columns, rows: the loops over the pixels; there may be no rows.
    others: the remaining loops, outermost first.
    window: the ranges that are summed over.
    """

    image: Access
    columns: UOp
    rows: UOp | None
    others: tuple[UOp, ...]
    window: tuple[UOp, ...]

    @property
    def places(self) -> int:
        return prod(bound(each) for each in self.window)


def choose_planes(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for such sums; None where the nest is none."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = _recognise(nest) if lanes >= 2 * LEAST_COLUMNS else None
    if found is None:
        return None
    plan = Plan(ids)
    grid = _grid(plan, nest, found, capabilities) if parallel and capabilities.threads > 1 else []
    if grid is None:
        return None
    blocks, rows, count = _stage(plan, found, lanes, capabilities) or (-1, -1, 0)
    if not count:
        return None
    tile: list[int] = []
    loops = [blocks, -1, rows]
    if found.rows is not None:
        wanted = max(LEAST_ROWS, min(MOST_ROWS, MOST_PRODUCTS // found.places))
        loops[2], *unrolled = plan.split(rows, best_rows(count, wanted), count)
        plan.bind("unroll", *unrolled)
        tile += unrolled
    loops[1], vectors = _vectorize(plan, found.columns, lanes)
    plan.bind("unroll", *map(number, found.window))
    others = [number(loop) for loop in found.others]
    renamed = {each: inner for each, inner in [grid[1:]] if inner >= 0} if grid else {}
    order = [*grid[:1], *[renamed.get(each, each) for each in others], *loops]
    order += [*map(number, found.window), *tile, *vectors]
    plan.actions.append(Order(tuple([each for each in order if each >= 0])))
    return plan.actions


# --- recognising ------------------------------------------------------------------------------------------


def _recognise(nest: Nest) -> _Planes | None:
    if len(nest.reductions) != 1 or nest.ordered or nest.others:
        return None
    reduction, window = nest.reductions[0]
    loads = nest.within(reduction)
    if reduction.arg[0] is not ops.ADD or len(loads) != 2 or not window:
        return None
    if not all(is_static(each) for each in (*nest.loops, *window)):
        return None
    if prod(bound(each) for each in window) > MOST_PLACES:
        return None
    for image, weights in (loads, loads[::-1]):
        found = _sliding(nest, image, weights, window)
        if found is not None:
            return found
    return None


def _sliding(nest: Nest, image: Access, weights: Access, window: tuple[UOp, ...]) -> _Planes | None:
    """With one load as the image: all loops move it, and all of the window slides."""
    if image.node.src[0].op is not ops.PARAM or image.node.src[0] is weights.node.src[0]:
        return None
    if not {*nest.loops, *window} <= image.node.ranges:
        return None
    columns = [loop for loop in nest.loops if nest.accesses[0].stride(loop) == 1]
    if len(columns) != 1 or bound(columns[0]) < LEAST_COLUMNS:
        return None
    stride = image.stride(columns[0])
    if stride is None or not 1 <= stride <= MOST_STRIDE:
        return None
    if stride == 1 and image.node.src[2] is TRUE:
        return None  # there is nothing that a copy would help
    dimensions = footprint(image.node, [*nest.loops, *window])
    if dimensions is None or dimensions[-1].unit != 1 or columns[0] not in dict(dimensions[-1].ranges):
        return None
    slides = [d for d in dimensions if d.slides]
    loops = [node for d in slides for node, _ in d.ranges if node in nest.loops]
    if {node for d in slides for node, _ in d.ranges} != {*loops, *window} or columns[0] not in loops:
        return None
    rows = [loop for loop in loops if loop is not columns[0]]
    if len(rows) > 1 or weights.node.ranges & {columns[0], *rows}:
        return None
    others = tuple([loop for loop in nest.loops if loop not in loops])
    return _Planes(image, columns[0], rows[0] if rows else None, others, window)


# --- writing actions --------------------------------------------------------------------------------------


def _grid(plan: Plan, nest: Nest, found: _Planes, capabilities: Capabilities) -> list[int] | None:
    """Chunks of planes for threads: (the range of the chunks, the loop, what remains of it); None where there are
    too few planes, nothing where they are too little work."""
    if nest.work < 2 * LEAST_CHUNK:
        return []
    shared = max(found.others, key=bound, default=None)
    if shared is None or bound(shared) < 2 * capabilities.threads:
        return None
    total = bound(shared)
    chunks = min(capabilities.threads * CHUNKS_PER_THREAD, nest.work // LEAST_CHUNK)
    size = balanced(total, max(1, total // chunks), 1, capabilities.threads)
    outer, inner = next(plan.ids), next(plan.ids)
    plan.actions += [Split(number(shared), size, outer, inner, "bound"), Bind(outer, "global")]
    return [outer, number(shared), inner]


def _stage(plan: Plan, found: _Planes, lanes: int, capabilities: Capabilities) -> tuple[int, int, int] | None:
    """Copy blocks of rows: (the range over blocks, the one inside, its length); None where they are too large."""
    caches = capabilities.cache_bytes
    total = bound(found.rows) if found.rows is not None else 1
    sizes = [
        size for size in range(total, 0, -1) if total % size == 0 and (size >= LEAST_ROWS or size == total)
    ]
    boxes = [(size, _dimensions(found, size)) for size in sizes]
    fitting = [(size, box, _bytes(found, box)) for size, box in boxes if box is not None]
    near = (caches[0] if caches else LEAST_L1) // SHARE
    far = max(caches[1] if len(caches) > 1 else LEAST_CACHE, LEAST_CACHE) // 4
    best = next((each for each in fitting if each[2] <= near), fitting[0] if fitting else None)
    if best is None or best[2] > far:
        return None
    size, box, _ = best
    blocks, rows = -1, number(found.rows) if found.rows is not None else -1
    if size < total:
        blocks, rows, _ = plan.split(rows, size, total)
    inside = [rows, number(found.columns), *map(number, found.window)]
    copies = tuple([next(plan.ids) for _ in box])
    slot = int(found.image.node.src[0].arg[0])
    plan.actions.append(StageInThread(slot, tuple(sorted(each for each in inside if each >= 0)), copies))
    outer, inner = next(plan.ids), next(plan.ids)
    plan.actions.append(Split(copies[-1], lanes, outer, inner, "mask"))
    plan.bind("vector", inner)
    return blocks, rows, size


def _dimensions(found: _Planes, size: int) -> tuple[Dimension, ...] | None:
    """The dimensions of a copy for some rows."""
    pixels, load = [found.columns], found.image.node
    if found.rows is not None:
        fewer = found.rows.replace(src=(UOp.const(dtypes.index, size),))
        load = load.substitute({found.rows: fewer})
        pixels.append(fewer)
    return footprint(load, {*pixels, *found.window} & load.ranges)


def _bytes(found: _Planes, box: tuple[Dimension, ...]) -> int:
    return found.image.node.dtype.itemsize * prod(dimension.extent for dimension in box)


def _vectorize(plan: Plan, columns: UOp, lanes: int) -> tuple[int, list[int]]:
    """Lanes for a row, and as few as possible for what is left over: the outer range, and those with lanes."""
    total = bound(columns)
    size = min(lanes, _power_above(total))
    if size >= total:
        outer, inner = next(plan.ids), next(plan.ids)
        plan.actions.append(Split(number(columns), size, outer, inner, "mask"))
        plan.bind("vector", inner)
        return outer, [inner]
    outer, inner, rest = plan.split(number(columns), size, total)
    plan.bind("vector", inner)
    if rest < 0:
        return outer, [inner]
    unrolled, last = next(plan.ids), next(plan.ids)
    plan.actions.append(Split(rest, _power_above(total % size), unrolled, last, "mask"))
    plan.bind("unroll", unrolled)
    plan.bind("vector", last)
    return outer, [inner, unrolled, last]


def _power_above(count: int) -> int:
    return 1 << (count - 1).bit_length()

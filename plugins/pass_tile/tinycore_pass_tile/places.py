"""Sums over pixels for every place of a window: the gradient of a convolution by its weights.

One operand (the image) slides over the places, the other one (the cotangent) has the filters and stands still. What
a thread sums up at once, some images or a part of one, is copied to its memory with the zeros around it; then a tile of
channels by filters is summed over all of its pixels for one place after the other: a broadcast of a channel for
every vector of filters, and no guards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from tinycore.codegen.footprint import Dimension, footprint
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Order, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Access, Nest, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.plan import Plan
from tinycore_pass_tile.strips import LEAST_CACHE, best_rows

LEAST_ROWS = 4
"""With fewer channels, the places of the window are the better tile."""
CHUNKS_PER_THREAD = 4


@dataclass(frozen=True, slots=True)
class _Sums:
    """What was recognised.

    Attributes
    ----------
    image: the load that slides.
    filters: the loop that gets the lanes.
    channels: the loop along which a register tile has its rows.
    places: loops over the places of the window.
    shared: loops that both operands depend on.
    others: the remaining loops.
    steps: the ranges that are summed over.
    """

    image: Access
    filters: UOp
    channels: UOp
    places: tuple[UOp, ...]
    shared: tuple[UOp, ...]
    others: tuple[UOp, ...]
    steps: tuple[UOp, ...]


def choose_places(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for such a sum; None where the nest is none."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = _recognise(nest, lanes) if lanes >= 2 and not nest.ordered else None
    block = _block(found, capabilities) if found is not None else None
    if found is None or block is None:
        return None
    plan = Plan(ids)
    channels, blocks = number(found.channels), list[int]()
    if block < bound(found.channels):
        outer, channels, _ = plan.split(channels, block, bound(found.channels))
        blocks.append(outer)
    grid = [*map(number, found.shared), *blocks] if parallel and capabilities.threads > 1 else []
    plan.bind("global", *grid[:3])
    _stage(plan, found, channels, lanes)
    vectors = 2 if bound(found.filters) >= 2 * lanes else 1
    rows = best_rows(block, max(1, (capabilities.vector_registers - vectors - 1) // vectors))
    tiles, *tile = plan.split(channels, rows, block)
    plan.bind("unroll", *tile)
    filters, *parts = plan.split(number(found.filters), lanes * vectors, bound(found.filters))
    for part in [part for part in parts if part >= 0]:
        unrolled, vector = next(plan.ids), next(plan.ids)
        plan.actions.append(Split(part, lanes, unrolled, vector, "mask"))
        plan.bind("unroll", unrolled)
        plan.bind("vector", vector)
        tile += [unrolled, vector]
    outermost = [*map(number, found.shared), *map(number, found.others), *blocks]
    order = [*grid, *[each for each in outermost if each not in grid], filters, tiles]
    order += [*map(number, found.places), *map(number, found.steps), *tile]
    plan.actions.append(Order(tuple([each for each in order if each >= 0])))
    return plan.actions


# --- recognising ------------------------------------------------------------------------------------------


def _recognise(nest: Nest, lanes: int) -> _Sums | None:
    if len(nest.reductions) != 1 or not all(is_static(loop) for loop in nest.loops):
        return None
    reduction, steps = nest.reductions[0]
    loads = nest.within(reduction)
    if reduction.arg[0] is not ops.ADD or len(loads) != 2 or not all(is_static(each) for each in steps):
        return None
    if any(load.node.src[0].op is not ops.PARAM for load in loads):
        return None
    if loads[0].node.src[0] is loads[1].node.src[0]:
        return None
    for image, still in (loads, loads[::-1]):
        found = _sliding(nest, image, still, steps, lanes)
        if found is not None:
            return found
    return None


def _sliding(nest: Nest, image: Access, still: Access, steps: tuple[UOp, ...], lanes: int) -> _Sums | None:
    filters = [
        r for r in nest.loops if still.stride(r) == 1 and r not in image.node.ranges and bound(r) >= lanes
    ]
    dimensions = footprint(image.node, [*nest.loops, *steps])
    if not filters or dimensions is None:
        return None
    sliding = {node for each in dimensions if each.slides for node, _ in each.ranges}
    places = tuple([r for r in nest.loops if r in sliding and r not in still.node.ranges])
    own = [r for r in nest.loops if r in image.node.ranges and r not in still.node.ranges and r not in places]
    own = [r for r in own if bound(r) >= LEAST_ROWS]
    if not places or not own or not sliding & set(steps):
        return None
    channels = max(own, key=bound)
    shared = tuple([r for r in nest.loops if r in image.node.ranges and r in still.node.ranges])
    if not sliding <= {*places, *steps}:
        shared_sliding = sliding - {*places, *steps}
        if not shared_sliding <= set(shared):
            return None
    known = {filters[-1], channels, *places, *shared}
    others = tuple([r for r in nest.loops if r not in known])
    return _Sums(image, filters[-1], channels, places, shared, others, steps)


# --- sizes ------------------------------------------------------------------------------------------------


def _block(found: _Sums, capabilities: Capabilities) -> int | None:
    """Channels whose copy leaves room in the second cache, and which leave enough work to share; None if none."""
    caches = capabilities.cache_bytes
    room = max(caches[1] if len(caches) > 1 else LEAST_CACHE, LEAST_CACHE) // 4
    total = bound(found.channels)
    each = _copied(found, 1)
    sizes = [size for size in range(LEAST_ROWS, total + 1) if total % size == 0]
    fitting = [size for size in sizes if size * each <= 2 * room]
    if not fitting:
        return None
    chunks = prod(map(bound, found.shared))
    enough = [
        size for size in fitting if chunks * (total // size) >= CHUNKS_PER_THREAD * capabilities.threads
    ]
    small = [size for size in enough if size * each <= room and size >= 2 * LEAST_ROWS]
    return max(small or enough, default=min(fitting))


def _dimensions(found: _Sums) -> tuple[Dimension, ...]:
    dimensions = footprint(found.image.node, _inside(found))
    assert dimensions is not None  # it was for more ranges
    return dimensions


def _inside(found: _Sums) -> list[UOp]:
    wanted = {*found.places, *found.steps, found.channels}
    return [node for node in found.image.node.ranges if node in wanted]


def _copied(found: _Sums, channels: int) -> int:
    """Bytes of the copy of so many channels."""
    total = prod(dimension.extent for dimension in _dimensions(found))
    return total // bound(found.channels) * channels * found.image.node.dtype.itemsize


def _stage(plan: Plan, found: _Sums, channels: int, lanes: int) -> None:
    dimensions = _dimensions(found)
    inside = {number(node) for node in _inside(found)} - {number(found.channels)} | {channels}
    copies = tuple([next(plan.ids) for _ in dimensions])
    slot = int(found.image.node.src[0].arg[0])
    plan.actions.append(StageInThread(slot, tuple(sorted(inside)), copies, lanes))
    if dimensions[-1].unit == 1 and dimensions[-1].extent >= lanes // 2:
        outer, inner = next(plan.ids), next(plan.ids)
        plan.actions.append(Split(copies[-1], lanes, outer, inner, "mask"))
        plan.bind("vector", inner)

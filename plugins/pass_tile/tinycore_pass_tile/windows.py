"""Sliding windows under a contraction: convolutions, with lanes on the filters.

A convolution is a contraction whose one operand (the image) walks overlapping windows and is the same for
all filters. Lanes go to the filters, so that strides, borders and odd widths cost nothing: every pixel is one
broadcast. What a block of rows needs of the image is copied to memory of the thread first, with its zero
padding, so that the inner loop has no guards. Then a register tile of pixels by filters is summed over the
windows (outer loops) and the channels (inner loop, unrolled).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tinycore.codegen.carry import Carry
from tinycore.codegen.footprint import Dimension, footprint
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Bind, Order, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Access, Nest, bound, is_static, largest_itemsize, number

UNROLL = 4
"""Steps of the channel loop that are written out."""
LEAST_STEPS = 8
"""Channels of a strip, where it is too large with all of them."""
LEAST_CACHE = 1 << 18
"""Bytes of a second-level cache where none is known."""


@dataclass(frozen=True)
class _Windows:
    """What was recognised.

    Attributes
    ----------
    filters: the loop that gets the lanes.
    spatial: loops over pixels, the one that moves least first.
    others: the remaining loops, outermost first.
    sliding: reduced ranges that share a dimension with a pixel loop.
    plain: the other reduced ranges.
    images: the loads to stage.
    """

    filters: UOp
    spatial: tuple[UOp, ...]
    others: tuple[UOp, ...]
    sliding: tuple[UOp, ...]
    plain: tuple[UOp, ...]
    images: tuple[Access, ...]
    weights: tuple[Access, ...]


@dataclass
class _Plan:
    ids: Iterator[int]
    actions: list[Action] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def split(self, target: int, size: int, total: int) -> tuple[int, int, int]:
        """(outer, inner, rest) of a range; the rest is -1 where there is none."""
        outer, inner = next(self.ids), next(self.ids)
        if total % size == 0:
            self.actions.append(Split(target, size, outer, inner, "mask"))
            return outer, inner, -1
        rest = next(self.ids)
        self.actions.append(Split(target, size, outer, inner, "peel", rest))
        return outer, inner, rest

    def bind(self, kind: str, *targets: int) -> None:
        """Bind those ranges that exist."""
        self.actions += [Bind(target, kind) for target in targets if target >= 0]


def choose_windows(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for a convolution; None where the nest is none."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = _recognise(nest, lanes) if lanes >= 2 and not nest.ordered else None
    if found is None:
        return None
    vectors = 2 if bound(found.filters) >= 2 * lanes else 1
    budget = max(1, (capabilities.vector_registers - vectors - 1) // vectors)
    rows = _rows(found.spatial, budget)
    strip = _strip(found, rows, capabilities)
    if strip is None:
        return None
    plan = _Plan(ids)
    grid = _grid(plan, found, strip.rows, capabilities) if parallel else []
    staged = _stage(plan, found, strip, lanes)
    _carry(plan, found, strip, staged, grid)
    _tile(plan, found, strip, staged, rows, grid, lanes, vectors)
    return plan.actions


# --- recognising ------------------------------------------------------------------------------------------


def _recognise(nest: Nest, lanes: int) -> _Windows | None:
    if len(nest.reductions) != 1:
        return None
    reduction, ranges = nest.reductions[0]
    if reduction.arg[0] is not ops.ADD or not all(is_static(each) for each in ranges):
        return None
    for candidate in reversed(nest.loops):
        if is_static(candidate) and bound(candidate) >= lanes // 2:
            found = _with_lanes_on(candidate, nest, nest.within(reduction), ranges)
            if found is not None:
                return found
    return None


def _with_lanes_on(filters: UOp, nest: Nest, loads: list[Access], ranges: tuple[UOp, ...]) -> _Windows | None:
    """Along the filters all loads either stand still or walk neighbours, both kinds present."""
    if {access.stride(filters) for access in loads} != {0, 1}:
        return None
    images = [access for access in loads if access.stride(filters) == 0]
    weights = [access for access in loads if access.stride(filters) != 0]
    walked: list[tuple[Dimension, ...]] = []
    for image in images:
        dimensions = footprint(image.node, [*filter(is_static, nest.loops), *ranges])
        if dimensions is None:
            return None
        walked.append(dimensions)
    slides = [d for d in walked[0] if d.slides] if walked else []
    spatial = [node for d in reversed(slides) for node, _ in d.ranges if node in nest.loops]
    sliding = [node for d in slides for node, _ in d.ranges if node in ranges]
    if walked and not slides and nest.accesses[0].stride(filters) != 1:
        spatial = _apart(walked[0], ranges, nest.accesses[0])
    if not spatial:
        return None
    if any(loop in access.node.ranges for access in weights for loop in spatial):
        return None
    if any(not set(spatial) <= image.node.ranges for image in images):
        return None
    others = [loop for loop in nest.loops if loop is not filters and loop not in spatial]
    plain = [each for each in ranges if each not in sliding]
    return _Windows(
        filters, tuple(spatial), tuple(others), tuple(sliding), tuple(plain), tuple(images), tuple(weights)
    )


def _apart(walked: tuple[Dimension, ...], ranges: tuple[UOp, ...], store: Access) -> list[UOp]:
    """The loops over pixels that lie apart in memory, loaded or stored: windows of one pixel. The innermost first."""
    spatial: list[UOp] = []
    for dimension in reversed(walked):
        ((node, _),) = dimension.ranges
        if node in ranges or (not spatial and dimension.unit == 1 and store.stride(node) == 1):
            break
        spatial.append(node)
    return spatial[:2]


# --- sizes ------------------------------------------------------------------------------------------------


def _rows(spatial: tuple[UOp, ...], budget: int) -> tuple[int, ...]:
    """How many pixels of each loop a register tile has."""
    first = best_rows(bound(spatial[0]), budget)
    if len(spatial) < 2 or first * 2 > budget:
        return (first,)
    return first, min(bound(spatial[1]), budget // first)


def best_rows(total: int, most: int) -> int:
    """Rows of a register tile: as many as wanted, so that as few as possible are left over.

    >>> best_rows(56, 14), best_rows(57, 14), best_rows(7, 14)
    (14, 12, 7)
    """
    if total <= most:
        return total
    sizes = range(max(1, most // 2), most + 1)
    return max(sizes, key=lambda size: (_efficiency(total, size, most), size))


def _efficiency(total: int, size: int, most: int) -> float:
    """A tile of few rows reads more than it computes; a rest is such a tile."""

    def cost(rows: int) -> float:
        return max(rows, most / 2) if rows else 0.0

    return total / (total // size * cost(size) * (1 + 0.3 * (most - size) / most) + cost(total % size))


@dataclass(frozen=True)
class _Strip:
    """What is staged at once: rows of the image, and steps of the last of the plain ranges."""

    rows: int
    steps: int


def _strip(found: _Windows, rows: tuple[int, ...], capabilities: Capabilities) -> _Strip | None:
    """Strips of all channels leave most of the second cache free; else they have fewer channels, whose partial
    results wait in the cache, too."""
    caches = capabilities.cache_bytes
    room = max(caches[1] if len(caches) > 1 else LEAST_CACHE, LEAST_CACHE) // 4
    total = bound(found.plain[-1]) if found.plain else 1
    for steps in [total, *[n for n in range(total - 1, LEAST_STEPS - 1, -1) if total % n == 0]]:
        strip = _Strip(_block(found, rows, steps, capabilities, room), steps)
        if strip.rows and (steps == total or _carried_bytes(found, strip.rows, capabilities) <= 2 * room):
            return strip
    return None


def _block(found: _Windows, rows: tuple[int, ...], steps: int, capabilities: Capabilities, room: int) -> int:
    """Rows of the image that are staged at once: a divisor; 0 where none fits."""
    if len(found.spatial) < 2:
        return int(_strip_bytes(found, 1, steps) <= 2 * room)
    total = bound(found.spatial[1])
    step = rows[1] if len(rows) > 1 else 1
    sizes = [size for size in range(1, total + 1) if total % size == 0 and (size >= step or size == total)]
    fitting = [size for size in sizes if _strip_bytes(found, size, steps) <= room]
    if fitting:
        return max(fitting, key=lambda size: _balance(found, size, capabilities))
    return sizes[0] if _strip_bytes(found, sizes[0], steps) <= 2 * room else 0


def _carried_bytes(found: _Windows, rows: int, capabilities: Capabilities) -> int:
    """Memory for the partial results of a strip."""
    size = found.weights[0].node.dtype.itemsize * rows * bound(found.filters) * bound(found.spatial[0])
    if not _over_filters(found, capabilities):
        size *= math.prod(bound(loop) for loop in _filter_loops(found))
    return size


def _filter_loops(found: _Windows) -> list[UOp]:
    """The loops that all images are the same for."""
    return [loop for loop in found.others if not any(loop in image.node.ranges for image in found.images)]


def _balance(found: _Windows, size: int, capabilities: Capabilities) -> tuple[bool, int]:
    """Enough blocks for all threads first, then few copied borders."""
    blocks = bound(found.spatial[1]) // size
    for loop in found.others:
        if all(loop in image.node.ranges for image in found.images):
            blocks *= bound(loop)
    enough = blocks >= 4 * capabilities.threads or _over_filters(found, capabilities)
    return enough, size if enough else -size


def _strip_bytes(found: _Windows, rows: int, steps: int) -> int:
    shorter = {found.spatial[1]: rows} if len(found.spatial) > 1 else {}
    if found.plain:
        shorter[found.plain[-1]] = steps
    total = 0
    for image in found.images:
        size = image.node.dtype.itemsize
        for dimension in _staged_dimensions(found, image):
            left_out = sum((bound(r) - shorter[r]) * ratio for r, ratio in dimension.ranges if r in shorter)
            size *= dimension.extent - left_out
        total += size
    return total


def _staged_dimensions(found: _Windows, image: Access) -> tuple[Dimension, ...]:
    dimensions = footprint(image.node, _inside(found, image))
    assert dimensions is not None  # it was for more ranges
    return dimensions


def _inside(found: _Windows, image: Access) -> list[UOp]:
    spatial = found.spatial[:2]
    return [node for node in image.node.ranges if node in (*spatial, *found.sliding, *found.plain)]


# --- writing actions --------------------------------------------------------------------------------------


def _over_filters(found: _Windows, capabilities: Capabilities) -> bool:
    """Whether threads share the image rather than the weights, because those are more to read."""
    count = math.prod(bound(loop) for loop in _filter_loops(found))
    return count >= 2 * capabilities.threads and _bytes(found.weights) > _bytes(found.images)


def _bytes(accesses: tuple[Access, ...]) -> int:
    total = 0
    for access in accesses:
        size = access.node.dtype.itemsize
        for node in access.node.ranges:
            size *= bound(node)
        total += size
    return total


def _grid(plan: _Plan, found: _Windows, block: int, capabilities: Capabilities) -> list[int]:
    """Bind chunks of work to threads; the ids of the grid's ranges."""
    if capabilities.threads < 2:
        return []
    if _over_filters(found, capabilities):
        chosen = [number(loop) for loop in _filter_loops(found)]
    else:
        chosen = [
            number(loop) for loop in found.others if all(loop in image.node.ranges for image in found.images)
        ]
        if len(found.spatial) > 1 and block < bound(found.spatial[1]):
            outer, _, _ = plan.split(number(found.spatial[1]), block, bound(found.spatial[1]))
            chosen.append(outer)
    chosen = chosen[:3]
    plan.bind("global", *chosen)
    return chosen


@dataclass(frozen=True)
class _Staged:
    """The ranges of a strip: over its rows, over blocks of channels (-1: there is one) and inside those."""

    rows: int | None
    chunks: int
    steps: int


def _stage(plan: _Plan, found: _Windows, strip: _Strip, lanes: int) -> _Staged:
    """Copy the strips."""
    renamed: dict[int, int] = {}
    rows: int | None = None
    chunks = steps = -1
    if len(found.spatial) > 1:
        rows = renamed[number(found.spatial[1])] = _inner_rows(plan, found.spatial[1], strip.rows)
    if found.plain:
        steps = number(found.plain[-1])
        if strip.steps < bound(found.plain[-1]):
            chunks, steps, _ = plan.split(steps, strip.steps, bound(found.plain[-1]))
            renamed[number(found.plain[-1])] = steps
    for image in found.images:
        dimensions = _staged_dimensions(found, image)
        if rows is not None and strip.rows == 1:  # a row alone is no dimension
            dimensions = tuple(
                [d for d in dimensions if [node for node, _ in d.ranges] != [found.spatial[1]]]
            )
        inside = {number(node) for node in _inside(found, image)}
        copies = tuple([next(plan.ids) for _ in dimensions])
        slot = int(image.node.src[0].arg[0])
        staged = tuple(sorted(renamed.get(each, each) for each in inside))
        plan.actions.append(StageInThread(slot, staged, copies, lanes))
        if dimensions[-1].unit == 1 and dimensions[-1].extent >= lanes // 2:
            outer, inner = next(plan.ids), next(plan.ids)
            plan.actions.append(Split(copies[-1], lanes, outer, inner, "mask"))
            plan.bind("vector", inner)
    return _Staged(rows, chunks, steps)


def _inner_rows(plan: _Plan, rows: UOp, block: int) -> int:
    """The range over the rows of a block."""
    for action in plan.actions:
        if isinstance(action, Split) and action.range == number(rows):
            return action.inner
    return plan.split(number(rows), block, bound(rows))[1] if block < bound(rows) else number(rows)


def _carry(plan: _Plan, found: _Windows, strip: _Strip, staged: _Staged, grid: list[int]) -> None:
    """Strips of some channels: their loop lies outside the loops over results, which wait meanwhile."""
    if staged.chunks < 0:
        return
    results = [number(loop) for loop in _filter_loops(found) if number(loop) not in grid]
    results += [staged.rows] if staged.rows is not None and strip.rows > 1 else []
    results += [number(found.spatial[0]), number(found.filters)]
    plan.actions.append(Carry((staged.chunks,), tuple(results)))


def _tile(
    plan: _Plan,
    found: _Windows,
    strip: _Strip,
    staged: _Staged,
    rows: tuple[int, ...],
    grid: list[int],
    lanes: int,
    vectors: int,
) -> None:
    """The register tile, and the order of everything."""
    inner_rows = staged.rows
    while lanes > bound(found.filters):
        lanes //= 2
    spatial = found.spatial
    loops: list[int] = []
    tile: list[int] = []
    if inner_rows is not None:
        if len(rows) > 1:
            outer, inner, rest = plan.split(inner_rows, rows[1], strip.rows)
            plan.bind("unroll", inner, rest)
            loops.append(outer)
            tile += [inner, rest]
        else:
            loops.append(inner_rows)
    outer, inner, rest = plan.split(number(spatial[0]), rows[0], bound(spatial[0]))
    plan.bind("unroll", inner, rest)
    loops.append(outer)
    tile += [inner, rest]
    outer, inner, rest = plan.split(number(found.filters), lanes * vectors, bound(found.filters))
    filters = outer
    for part in (inner, rest):
        if part >= 0:
            unrolled, vector = next(plan.ids), next(plan.ids)
            plan.actions.append(Split(part, lanes, unrolled, vector, "mask"))
            plan.bind("unroll", unrolled)
            plan.bind("vector", vector)
            tile += [unrolled, vector]
    reduced = [number(node) for node in (*found.sliding, *found.plain[:-1])]
    if found.plain:
        reduced += _unroll(plan, staged.steps, strip.steps)
    filter_loops = [number(loop) for loop in _filter_loops(found)]
    images = [number(loop) for loop in found.others if number(loop) not in filter_loops]
    images += [number(loop) for loop in spatial[2:]]
    blocks = [a.outer for a in plan.actions if isinstance(a, Split) and a.inner == inner_rows]
    order = [*grid, *images, *blocks, staged.chunks, *filter_loops, filters, *loops, *reduced, *tile]
    plan.actions.append(Order(tuple([each for each in dict.fromkeys(order) if each >= 0])))


def _unroll(plan: _Plan, steps: int, total: int) -> list[int]:
    """The innermost reduced range, some steps of it written out."""
    if total <= UNROLL:
        plan.bind("unroll", steps)
        return [steps]
    if total % UNROLL:
        return [steps]
    outer, inner, _ = plan.split(steps, UNROLL, total)
    plan.bind("unroll", inner)
    return [outer, inner]

"""Sliding windows under a contraction: convolutions, with lanes on the filters.

A convolution is a contraction whose one operand (the image) walks overlapping windows and is the same for
all filters. Lanes go to the filters, so that strides, borders and odd widths cost nothing: every pixel is one
broadcast. What a block of rows needs of the image is copied to memory of the thread first, with its zero
padding, so that the inner loop has no guards. Then a register tile of pixels by filters is summed over the
windows (outer loops) and the channels (inner loop, unrolled).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinycore.codegen.carry import Carry
from tinycore.codegen.footprint import Dimension, footprint
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Order, Split
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore_pass_tile.analysis import Access, Nest, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.plan import Plan
from tinycore_pass_tile.strips import Strip, Windows, best_strip, over_filters

UNROLL = 4
"""Steps of the channel loop that are written out."""


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
    strip = best_strip(found, budget, lanes, capabilities)
    if strip is None:
        return None
    plan = Plan(ids)
    staged = _stage(plan, found, strip, lanes)
    if staged is None:
        return None
    grid = _grid(plan, found, staged, capabilities) if parallel else []
    _carry(plan, found, staged, grid)
    _tile(plan, found, strip, staged, grid, lanes, vectors)
    return plan.actions


# --- recognising ------------------------------------------------------------------------------------------


def _recognise(nest: Nest, lanes: int) -> Windows | None:
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


def _with_lanes_on(filters: UOp, nest: Nest, loads: list[Access], ranges: tuple[UOp, ...]) -> Windows | None:
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
    inside = {*spatial[:2], *ranges}
    staged = [footprint(image.node, [r for r in image.node.ranges if r in inside]) for image in images]
    return Windows(
        filters,
        tuple(spatial),
        tuple(others),
        tuple(sliding),
        tuple(plain),
        tuple(images),
        tuple([dimensions for dimensions in staged if dimensions is not None]),  # it was for more ranges
        tuple(weights),
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


# --- writing actions --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Staged:
    """The ranges of a strip.

    Attributes
    ----------
    blocks: over strips of an image.
    columns, rows: over the pixels of a strip; -1: there is one row.
    chunks, steps: over blocks of channels and inside those; -1: there is no such.
    """

    blocks: tuple[int, ...]
    columns: int
    rows: int
    chunks: int
    steps: int


def _cut(plan: Plan, node: UOp, size: int) -> tuple[int, int]:
    """(over blocks, inside of one) of a range; -1 for what does not come to be."""
    if size == bound(node):
        return -1, number(node)
    outer, inner, _ = plan.split(number(node), size, bound(node))
    return outer, inner if size > 1 else -1


def _dimensions(found: Windows, image: Access, sizes: dict[UOp, int]) -> tuple[Dimension, ...] | None:
    """The dimensions of a strip: shorter loops may walk more of them. None where it is no box."""
    shorter = {
        node: node.replace(src=(UOp.const(dtypes.index, size),)) if size > 1 else UOp.const(dtypes.index, 0)
        for node, size in sizes.items()
    }
    inside = {*found.spatial[:2], *found.sliding, *found.plain}
    load = image.node.substitute(shorter)
    return footprint(load, {shorter.get(node, node) for node in inside} & load.ranges)


def _stage(plan: Plan, found: Windows, strip: Strip, lanes: int) -> _Staged | None:
    """Cut the loops into strips, and copy those."""
    sizes = {found.spatial[0]: strip.columns}
    if len(found.spatial) > 1:
        sizes[found.spatial[1]] = strip.rows
    if found.plain:
        sizes[found.plain[-1]] = strip.steps
    cut = {node: _cut(plan, node, size) for node, size in sizes.items()}
    for image in found.images:
        dimensions = _dimensions(found, image, sizes)
        if dimensions is None:
            return None
        copies = tuple([next(plan.ids) for _ in dimensions])
        inside = {number(node) for dimension in dimensions for node, _ in dimension.ranges}
        renamed = {number(node): inner for node, (_, inner) in cut.items()}
        staged = tuple(sorted(renamed.get(each, each) for each in inside))
        plan.actions.append(StageInThread(int(image.node.src[0].arg[0]), staged, copies, lanes))
        if dimensions[-1].unit == 1 and dimensions[-1].extent >= lanes // 2:
            outer, inner = next(plan.ids), next(plan.ids)
            plan.actions.append(Split(copies[-1], lanes, outer, inner, "mask"))
            plan.bind("vector", inner)
    none = -1, -1
    columns, rows = cut[found.spatial[0]], cut[found.spatial[1]] if len(found.spatial) > 1 else none
    chunks, steps = cut[found.plain[-1]] if found.plain else none
    blocks = tuple([outer for outer, _ in (rows, columns) if outer >= 0])
    return _Staged(blocks, columns[1], rows[1], chunks, steps)


def _grid(plan: Plan, found: Windows, staged: _Staged, capabilities: Capabilities) -> list[int]:
    """Bind chunks of work to threads; the ids of the grid's ranges."""
    if capabilities.threads < 2:
        return []
    if over_filters(found, capabilities):
        chosen = [number(loop) for loop in found.filter_loops]
    else:
        chosen = [
            number(loop) for loop in found.others if all(loop in image.node.ranges for image in found.images)
        ]
        chosen += staged.blocks
    chosen = chosen[:3]
    plan.bind("global", *chosen)
    return chosen


def _carry(plan: Plan, found: Windows, staged: _Staged, grid: list[int]) -> None:
    """Strips of some channels: their loop lies outside the loops over results, which wait meanwhile."""
    if staged.chunks < 0:
        return
    results = [number(loop) for loop in found.filter_loops if number(loop) not in grid]
    results += [each for each in (staged.rows, staged.columns, number(found.filters)) if each >= 0]
    plan.actions.append(Carry((staged.chunks,), tuple(results)))


def _tile(
    plan: Plan,
    found: Windows,
    strip: Strip,
    staged: _Staged,
    grid: list[int],
    lanes: int,
    vectors: int,
) -> None:
    """The register tile, and the order of everything."""
    while lanes > bound(found.filters):
        lanes //= 2
    loops: list[int] = []
    tile: list[int] = []
    pixels = [(staged.rows, strip.rows, strip.tile[1:]), (staged.columns, strip.columns, strip.tile[:1])]
    for target, total, sizes in pixels:
        if target >= 0 and sizes:
            outer, inner, rest = plan.split(target, sizes[0], total)
            plan.bind("unroll", inner, rest)
            loops.append(outer)
            tile += [inner, rest]
        else:
            loops.append(target)
    filters, inner, rest = plan.split(number(found.filters), lanes * vectors, bound(found.filters))
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
    filter_loops = [number(loop) for loop in found.filter_loops]
    images = [number(loop) for loop in found.others if number(loop) not in filter_loops]
    images += [number(loop) for loop in found.spatial[2:]]
    order = [*grid, *images, *staged.blocks, staged.chunks, *filter_loops, filters, *loops, *reduced, *tile]
    plan.actions.append(Order(tuple([each for each in dict.fromkeys(order) if each >= 0])))


def _unroll(plan: Plan, steps: int, total: int) -> list[int]:
    """The innermost reduced range, some steps of it written out."""
    if total <= UNROLL:
        plan.bind("unroll", steps)
        return [steps]
    if total % UNROLL:
        return [steps]
    outer, inner, _ = plan.split(steps, UNROLL, total)
    plan.bind("unroll", inner)
    return [outer, inner]

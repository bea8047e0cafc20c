"""Tiling for devices with work-groups: a grid of groups, work-items, shared memory.

Three shapes: a contraction gets a square tile a group, staged through shared memory; a reduction to few
results is shared by the work-items of a group; everything else gets one work-item an element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tinycore.codegen.staging import GroupReduce, Stage
from tinycore.codegen.tiling import Action, Bind, Flatten, Order, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Nest, bound, is_static, number

ITEMS = 64
"""Work-items of a group in one dimension."""
TILE = 16
"""Elements of a contraction's tile in each direction, and steps of its reduction that are staged at once."""
FEW_RESULTS = 512
LONG_REDUCTION = 256


@dataclass
class _Plan:
    ids: Iterator[int]
    actions: list[Action] = field(default_factory=list)
    grid: list[int] = field(default_factory=list)


def choose_workgroups(nest: Nest, capabilities: Capabilities, ids: Iterator[int]) -> list[Action]:
    """The actions for one store (its ranges are merged already)."""
    plan = _Plan(ids)
    tile = _contraction(nest, capabilities)
    if tile is not None:
        _tile(plan, nest, *tile)
    elif _shared_reduction(nest, capabilities):
        _share_reduction(plan, nest, capabilities)
    else:
        _one_each(plan, nest, capabilities)
    _at_most_three(plan)
    return plan.actions


# --- contraction ------------------------------------------------------------------------------------------


def _contraction(nest: Nest, capabilities: Capabilities) -> tuple[UOp, UOp, tuple[UOp, ...], UOp] | None:
    """(rows, columns, reduced ranges, reduction) of a kernel with one reduction over two reused operands.

    The last of the reduced ranges is the one whose steps are staged: the longest.
    """
    if len(nest.reductions) != 1 or capabilities.local_size < 64:
        return None
    reduction, ranges = nest.reductions[0]
    loads = nest.within(reduction)
    if not ranges or len(loads) != 2 or math.prod(map(bound, ranges)) <= TILE:
        return None
    if any(node.op is not ops.PARAM for load in loads for node in (load.node.src[0],)):
        return None
    own = []
    for one, other in (loads, loads[::-1]):
        private = [
            r
            for r in nest.loops
            if one.stride(r) not in (0, None) and other.stride(r) == 0 and bound(r) >= TILE and is_static(r)
        ]
        if not private:
            return None
        own.append(private[-1])
    if loads[0].node.src[0] is loads[1].node.src[0]:
        return None
    shared = 2 * TILE * 4 * TILE * loads[0].node.dtype.itemsize
    if shared > capabilities.shared_bytes:
        return None
    rows, columns = sorted(own, key=number)  # the inner one last: neighbours in memory, neighbouring items
    longest = max(ranges, key=bound)
    return rows, columns, (*[r for r in ranges if r is not longest], longest), reduction


def _tile(plan: _Plan, nest: Nest, rows: UOp, columns: UOp, reduced: tuple[UOp, ...], reduction: UOp) -> None:
    """Each group computes (8 * 4) x (8 * 4) results, each work-item 4 x 4 of them."""
    outer_ids: list[int] = []
    for node in (rows, columns):
        group, rest, local, unrolled = (next(plan.ids) for _ in range(4))
        plan.actions += [
            Split(number(node), 32, group, rest, "mask"),
            Bind(group, "global"),
            Split(rest, 4, local, unrolled, "mask"),
            Bind(local, "local"),
            Bind(unrolled, "unroll"),
        ]
        # A range with one iteration goes away, and `Order` does not count it.
        outer_ids += [group, local] if bound(node) > 32 else [local]
        plan.grid += [group] if bound(node) > 32 else []
    *repeated, longest = reduced
    steps = [number(node) for node in repeated]
    inside = number(longest)
    if bound(longest) > TILE:
        step, inside = next(plan.ids), next(plan.ids)
        plan.actions.append(Split(number(longest), TILE, step, inside, "mask"))
        steps.append(step)
    others = [number(node) for node in nest.loops if node not in (rows, columns)]
    plan.actions += [Bind(other, "global") for other in others]
    plan.grid[:0] = others
    order = [*others, *outer_ids, *steps, inside]
    plan.actions.append(Order(tuple(order)))
    slots = sorted({int(load.node.src[0].arg[0]) for load in nest.within(reduction)})
    # `Order` renumbers: from here on a range is called by its place.
    plan.grid = [order.index(number_) for number_ in plan.grid]
    for slot in slots:
        plan.actions.append(Stage(slot, order.index(steps[-1]), 1000 + slot))


# --- reductions across a group ----------------------------------------------------------------------------


def _results(nest: Nest) -> int:
    total = 1
    for node in nest.loops:
        total *= bound(node)
    return total


def _shared_reduction(nest: Nest, capabilities: Capabilities) -> bool:
    if len(nest.reductions) != 1 or capabilities.local_size < ITEMS or capabilities.shared_bytes < 8 * ITEMS:
        return False
    _, ranges = nest.reductions[0]
    return bool(ranges) and _results(nest) <= FEW_RESULTS and max(bound(r) for r in ranges) >= LONG_REDUCTION


def _share_reduction(plan: _Plan, nest: Nest, capabilities: Capabilities) -> None:
    _, ranges = nest.reductions[0]
    longest = max(ranges, key=bound)
    step, local, final = next(plan.ids), next(plan.ids), next(plan.ids)
    plan.actions += [
        Split(number(longest), ITEMS, step, local, "mask"),
        Bind(local, "local"),
        GroupReduce(local, final),
    ]
    for node in nest.loops:
        plan.actions.append(Bind(number(node), "global"))
        plan.grid.append(number(node))


# --- one work-item an element -----------------------------------------------------------------------------


def _one_each(plan: _Plan, nest: Nest, capabilities: Capabilities) -> None:
    """Work-items along the innermost ranges until a group is full; everything else is the grid."""
    items = min(ITEMS, capabilities.local_size)
    grid: list[int] = []
    dimensions = 0
    for node in reversed(nest.loops):
        if items < 2 or dimensions == 3:
            plan.actions.append(Bind(number(node), "global"))
            grid.append(number(node))
        elif is_static(node) and 0 < bound(node) <= items:
            plan.actions.append(Bind(number(node), "local"))
            items //= bound(node)
            dimensions += 1
        else:
            group, local = next(plan.ids), next(plan.ids)
            plan.actions += [
                Split(number(node), items, group, local, "mask"),
                Bind(group, "global"),
                Bind(local, "local"),
            ]
            grid.append(group)
            items = 1
            dimensions += 1
    plan.grid.extend(reversed(grid))


def _at_most_three(plan: _Plan) -> None:
    """A grid has three dimensions: the outermost ones are joined."""
    while len(plan.grid) > 3:
        outer, inner = plan.grid[0], plan.grid[1]
        joined = next(plan.ids)
        plan.actions.append(Flatten(outer, inner, joined))
        plan.grid[:2] = [joined]

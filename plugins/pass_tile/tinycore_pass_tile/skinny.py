"""Products with so few columns that the sum over the steps gets the lanes: what lies column beside column is
turned first.

Rows of the first operand are contiguous along the steps; those of the second hold a few columns each. It is
copied once to memory of the thread, column after column, and both are read by whole vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tinycore.codegen.affine import affine
from tinycore.codegen.footprint import footprint
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Bind, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Access, Nest, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.lanes import choose_lanes

LEAST_ROWS = 16
"""Fewer rows use the copy too rarely to pay for it."""
LEAST_STEPS = 4
"""Vectors of steps: fewer are summed up too often."""


def choose_skinny(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for such a product; None for any other nest."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = _recognise(nest, lanes, capabilities) if lanes >= 4 and not nest.ordered else None
    if found is None:
        return None
    right, columns, steps = found
    order = (number(columns), number(steps))
    down, along = next(ids), next(ids)
    outer, vector, rest = next(ids), next(ids), next(ids)
    turned = Access(right.node, affine(columns * bound(steps) + steps), right.inside)
    accesses = tuple([turned if access is right else access for access in nest.accesses])
    return [
        StageInThread(int(right.node.src[0].arg[0]), order, (down, along), 0, order),
        Bind(down, "unroll"),
        Split(along, lanes, outer, vector, "peel mask", rest),
        Bind(vector, "vector"),
        Bind(rest, "vector"),
        *choose_lanes(replace(nest, accesses=accesses), capabilities, ids, parallel),
    ]


def _recognise(nest: Nest, lanes: int, capabilities: Capabilities) -> tuple[Access, UOp, UOp] | None:
    """(the operand to turn, its columns, the steps)."""
    if len(nest.reductions) != 1 or not all(map(is_static, nest.loops)) or not capabilities.cache_bytes:
        return None
    reduction, ranges = nest.reductions[0]
    if len(ranges) != 1 or not is_static(ranges[0]) or bound(ranges[0]) < LEAST_STEPS * lanes:
        return None
    (steps,), loads = ranges, nest.within(reduction)
    right = [load for load in loads if load.stride(steps) not in (0, 1)]
    left = [load for load in loads if load.stride(steps) == 1]
    if len(right) != 1 or not left or right[0].node.src[0].op is not ops.PARAM:
        return None
    columns = [loop for loop in nest.loops if right[0].stride(loop) == 1]
    if len(columns) != 1 or not 1 < bound(columns[0]) <= lanes // 2:
        return None
    rows = [loop for loop in nest.loops if right[0].stride(loop) == 0 and left[0].stride(loop) != 0]
    size = bound(columns[0]) * bound(steps) * right[0].node.dtype.itemsize
    if max(map(bound, rows), default=0) < LEAST_ROWS or size > max(capabilities.cache_bytes[:2]) // 2:
        return None
    dimensions = footprint(right[0].node, (columns[0], steps))
    return (right[0], columns[0], steps) if dimensions is not None and len(dimensions) == 2 else None

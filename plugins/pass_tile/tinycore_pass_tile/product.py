"""Recognises products of matrices among loop nests, and says which of their operands are worth a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tinycore.codegen.footprint import footprint
from tinycore.codegen.nest import TRUE
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore_pass_tile.analysis import Access, Nest, bound, is_static

LEAST_ROWS = 13
"""Fewer rows use a copy too rarely to pay for it."""
WAYS = 8
"""Lines of one set of a cache, where nothing better is known."""


@dataclass(frozen=True)
class Product:
    """What was recognised.

    Attributes
    ----------
    rows, columns: loops of the result; the columns get the lanes.
    steps: the range that is reduced.
    outer: the other loops (a batch).
    right: the load to copy.
    transposed: whether its neighbours lie along the steps rather than the columns.
    group: how many steps one instruction does.
    offset: whether the bytes of the right operand are to become unsigned for it.
    wide: whether the copy of the right operand holds what its elements are cast to.
    left: the load of the other operand where that is to be copied, too; None where it is read in place.
    left_wide: the same of that.
    """

    rows: UOp
    columns: UOp
    steps: UOp
    outer: tuple[UOp, ...]
    right: Access
    transposed: bool
    group: int = 1
    offset: bool = False
    wide: bool = False
    left: Access | None = None
    left_wide: bool = False

    @property
    def count(self) -> int:
        """Steps of the reduction, in whole groups."""
        return bound(self.steps) // self.group


def recognise(nest: Nest, lanes: int, capabilities: Capabilities) -> Product | None:
    """The product that a nest is, where a copy of its second operand pays; else None."""
    found = product_of(nest, lanes) if lanes >= 4 and len(capabilities.cache_bytes) > 1 else None
    if found is None:
        return None
    if lanes * nest.reductions[0][0].dtype.itemsize == capabilities.vector_bytes:  # whole registers of sums
        found = grouped(found, nest, capabilities)
    if found.group == 1:
        found = widened(found, nest)
    worth = found.group > 1 or found.wide or bound(found.columns) < lanes
    return found if worth or _worth_a_copy(found, capabilities) else None


def product_of(nest: Nest, lanes: int) -> Product | None:
    """The parts of a product of matrices; None where a nest is none, or too small for lanes and tiles."""
    if len(nest.reductions) != 1 or nest.ordered or not all(map(is_static, nest.loops)):
        return None
    reduction, ranges = nest.reductions[0]
    if len(ranges) != 1 or not is_static(ranges[0]) or not set(nest.loops) <= reduction.ranges:
        return None
    loads = nest.within(reduction)
    columns = next((loop for loop in nest.loops if nest.accesses[0].stride(loop) == 1), None)
    if columns is None or 2 * bound(columns) <= lanes:
        return None
    right = [load for load in loads if load.stride(columns) != 0]
    left = [load for load in loads if load.stride(columns) == 0]
    if len(right) != 1 or not left or right[0].node.src[0].op is not ops.PARAM:
        return None
    rows = [r for r in nest.loops if right[0].stride(r) == 0 and any(load.stride(r) != 0 for load in left)]
    if not rows or bound(rows[-1]) < LEAST_ROWS or not _has_a_box(right[0], columns, ranges[0]):
        return None
    if bound(columns) < lanes and any(load.stride(rows[-1]) == 1 for load in left):
        return None  # the rows fill all lanes
    outer = tuple([loop for loop in nest.loops if loop not in (columns, rows[-1])])
    return Product(rows[-1], columns, ranges[0], outer, right[0], right[0].stride(columns) != 1)


def _has_a_box(load: Access, neighbours: UOp, steps: UOp) -> bool:
    """Whether neighbours lie along one range or the steps, and what is read is a box."""
    if 1 not in (load.stride(neighbours), load.stride(steps)):
        return False
    dimensions = footprint(load.node, (neighbours, steps))
    return dimensions is not None and len(dimensions) == 2


def _worth_a_copy(found: Product, capabilities: Capabilities) -> bool:
    """Whether columns cannot be read in place: transposed, larger than a cache, or crowding into few of its sets."""
    itemsize = found.right.node.dtype.itemsize
    second = capabilities.cache_bytes[1]
    stride = (found.right.stride(found.steps) or 0) * itemsize
    if found.transposed or stride * bound(found.steps) > second:
        return True
    way = second // WAYS
    return bound(found.steps) > WAYS * (way // math.gcd(stride, way))


def grouped(found: Product, nest: Nest, capabilities: Capabilities) -> Product:
    """The product in groups of steps, where an instruction of the target sums them up.

    Groups of the left operand must lie as they are read: where they do not, it is copied, too.
    """
    reduction, _ = nest.reductions[0]
    value = reduction.src[0]
    if reduction.arg[0] is not ops.ADD or value.op is not ops.MUL:
        return found
    factors = [factor.src[0] for factor in value.src if factor.op is ops.CAST]
    if len(factors) != 2 or any(f.op is not ops.LOAD or f.src[2] is not TRUE for f in factors):
        return found
    right = found.right.node
    if right not in factors:
        return found
    left = _access(nest, factors[0] if factors[1] is right else factors[1])
    slots = {node.src[0] for node in (left.node, right, nest.store)}
    strided = left.stride(found.steps) != 1
    if len(slots) < 3 or (strided and not _has_a_box(left, found.rows, found.steps)):
        return found
    for kind in capabilities.dots:
        if kind.accumulator is not reduction.dtype or bound(found.steps) < 4 * kind.size:
            continue
        copied = left if strided else None
        if [factor.dtype for factor in factors] == [kind.left, kind.right]:
            return replace(found, group=kind.size, left=copied)
        if [left.node.dtype, right.dtype, kind.left] == [kind.right, dtypes.int8, dtypes.uint8]:
            return replace(found, group=kind.size, offset=True, left=copied)
    return found


def widened(found: Product, nest: Nest) -> Product:
    """The product with copies of what narrow elements are cast to: one conversion for all products of each."""
    value = nest.reductions[0][0].src[0]
    for factor in value.src if value.op is ops.MUL else ():
        load = factor.src[0]
        if factor.op is not ops.CAST or load.op is not ops.LOAD or load.src[0].op is not ops.PARAM:
            continue
        access = _access(nest, load)
        if load is found.right.node:
            found = replace(found, wide=True)
        elif _has_a_box(access, found.rows, found.steps):
            found = replace(found, left=access, left_wide=True)
    return found if found.wide else replace(found, left=None, left_wide=False)


def _access(nest: Nest, load: UOp) -> Access:
    return next(access for access in nest.accesses if access.node is load)

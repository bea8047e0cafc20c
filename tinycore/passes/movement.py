"""Natives of movement.rules: index tuples, which rules cannot take apart by pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tinycore.ir import Dim, Shape, UOp, dims, dtypes, ops

ZERO = UOp.const(dtypes.index, 0)
TRUE = UOp.const(dtypes.bool_, True)


class RangeSource(Protocol):
    """The context of movement rules: whoever lowers a kernel hands out its ranges."""

    def reduce_ranges(self, node: UOp) -> dict[int, UOp]:
        """A RANGE (or a constant 0 for size 1) for each axis of the REDUCE that an INDEX node reads."""

    def kept(self, node: UOp) -> UOp:
        """The element of a kept value that an INDEX node reads, from memory that is filled before."""


def dimension(size: Dim) -> UOp:
    """A dimension as an `index` node."""
    return dims.to_node(size)


def scalar(c: UOp) -> UOp:
    """One element of a constant."""
    return UOp.from_bits(c.dtype, c.arg[0])


def reduce_ranges(context: RangeSource, n: UOp) -> dict[int, UOp]:
    """See `RangeSource`."""
    return context.reduce_ranges(n)


def kept(context: RangeSource, n: UOp) -> UOp:
    """See `RangeSource`."""
    return context.kept(n)


def loops_of(r: dict[int, UOp]) -> tuple[UOp, ...]:
    """The ranges among what `reduce_ranges` answers."""
    return tuple([item for item in r.values() if item.op is ops.RANGE])


def ravel(indices: Sequence[UOp], shape: Shape) -> UOp:
    """The row-major position of an element.

    >>> i, j = UOp.variable("i", 0, 3), UOp.variable("j", 0, 7)
    >>> ravel((i, j), (4, 8)) is i * 8 + j
    True
    """
    result: UOp | None = None
    for index, stride in zip(indices, dims.strides(shape), strict=True):
        if index is ZERO:
            continue
        term = index if stride == 1 else index * dims.to_node(stride)
        result = term if result is None else result + term
    return ZERO if result is None else result


def inside(indices: Sequence[UOp], padding: Sequence[tuple[Dim, Dim]], shape: Shape) -> UOp:
    """Where an index into a padded array meets the array itself; sides without padding need no test."""
    result = TRUE
    for index, (before, after), size in zip(indices, padding, shape, strict=True):
        if before != 0:
            result = result & (index >= dims.to_node(before))
        if after != 0:
            result = result & (index < dims.to_node(dims.add(before, size)))
    return result.src[1] if result.op is ops.AND and result.src[0] is TRUE else result


def reshape_indices(indices: Sequence[UOp], before: Shape, after: Shape) -> tuple[UOp, ...]:
    """Indices into `before` as indices into `after`, both row-major over the same elements.

    Axes are matched group by group (the smallest runs of equal product), so an axis that a reshape leaves
    alone keeps its index, and a merge or a split touches only its own axes.
    """
    result: list[UOp] = []
    left, right = 0, 0
    while left < len(before) or right < len(after):
        left_end, right_end = _group(before, left, after, right)
        position = ravel(indices[left:left_end], before[left:left_end])
        result.extend(_unravel(position, after[right:right_end]))
        left, right = left_end, right_end
    return tuple(result)


def _group(before: Shape, left: int, after: Shape, right: int) -> tuple[int, int]:
    """Ends of the smallest non-empty groups from `left` and `right` that have equal products."""
    if left < len(before) and before[left] == 1:
        return left + 1, right
    if right < len(after) and after[right] == 1:
        return left, right + 1
    i, j = left + 1, right + 1
    a, b = before[left], after[right]
    while a != b:
        if _smaller(a, b) and i < len(before):
            a, i = dims.multiply(a, before[i]), i + 1
        elif j < len(after):
            b, j = dims.multiply(b, after[j]), j + 1
        elif i < len(before):
            a, i = dims.multiply(a, before[i]), i + 1
        else:  # only symbolic products that are equal but do not look it: take everything
            return len(before), len(after)
    return i, j


def _smaller(a: Dim, b: Dim) -> bool:
    return dims.upper(a) < dims.upper(b)


def _unravel(position: UOp, shape: Shape) -> list[UOp]:
    result: list[UOp] = []
    strides = dims.strides(shape)
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        if size == 1:
            result.append(ZERO)
            continue
        part = position if stride == 1 else position // dims.to_node(stride)
        first = all(other == 1 for other in shape[:axis])
        result.append(part if first else part % dims.to_node(size))
    return result


def is_arange(node: UOp) -> bool:
    """Whether a value is ``c, 2 c, 3 c, ...`` along an axis, in integers."""
    return node.op is ops.SCAN and node.arg[0] is ops.ADD and node.src[0].is_const and node.dtype.is_int

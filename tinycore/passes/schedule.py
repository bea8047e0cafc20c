"""Natives of schedule.rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinycore.ir import Dim, Shape, UOp, dims, ops, toposort
from tinycore.ir.ops import MOVEMENT

Pairs = tuple[tuple[Dim, Dim], ...]

SPLIT_SIZE = 1 << 15
"""An axis is split when each result combines at least this many elements."""
SPLIT_PIECES = 64
"""Into how many pieces: enough for many cores, few enough that the second step costs nothing."""
LINE, ROWS = 64, 16
"""Elements that pieces are multiples of along the innermost axis, and along others: then all start at cache lines."""
REST_WORK = 1 << 17
"""Fewer elements are not split where pieces leave a rest: that may be a kernel more."""
FEW_RESULTS = 16
"""Reductions with more results have enough parallel work as they are."""
FEW_COLUMNS = 512
"""The same where the outermost axes are reduced: the results are neighbours, too few to be shared among cores."""


def merged_shrink(inner: Pairs, outer: Pairs) -> Pairs:
    """The box `outer` of the box `inner`, in the coordinates of the array.

    >>> merged_shrink(((2, 8),), ((1, 3),))
    ((3, 5),)
    """
    return tuple(
        [
            (dims.add(start, low), dims.add(start, high))
            for (start, _), (low, high) in zip(inner, outer, strict=True)
        ]
    )


def merged_pad(inner: Pairs, outer: Pairs) -> Pairs:
    """Padding twice as one padding.

    >>> merged_pad(((1, 0),), ((2, 3),))
    ((3, 3),)
    """
    return tuple([(dims.add(a, c), dims.add(b, d)) for (a, b), (c, d) in zip(inner, outer, strict=True)])


def is_identity(axes: Sequence[int]) -> bool:
    """Whether a permutation leaves everything in place."""
    return all(axis == position for position, axis in enumerate(axes))


def same_box(limits: Pairs, shape: Shape) -> bool:
    """Whether a SHRINK keeps everything."""
    return all(start == 0 and stop == size for (start, stop), size in zip(limits, shape, strict=True))


def no_padding(padding: Pairs) -> bool:
    """Whether a PAD adds nothing."""
    return all(before == 0 and after == 0 for before, after in padding)


def device_of(n: UOp) -> str | None:
    """The device that a value was stored on last, or None for values made of constants."""
    for node in reversed(toposort((n,))):
        if node.op is ops.BUFFER:
            return str(node.arg[2])
        if node.op is ops.COPY:
            return str(node.arg)
    return None


def const_of_shape(c: UOp, shape: Shape) -> UOp:
    """A constant in another shape. Why a native: bits must stay exact."""
    return UOp.from_bits(c.dtype, c.arg[0], shape)


def split_reduce(n: UOp) -> UOp | None:
    """A reduction of many elements to few results, as pieces that are stored and then combined.

    Why a native: the axis and the pieces are chosen by size and divisibility.
    """
    op, axes = n.arg
    (x,) = n.src
    if any(isinstance(size, UOp) for size in x.shape):
        return None
    sizes = [int(size) for size in x.shape]  # type: ignore[arg-type]
    results = math.prod([size for axis, size in enumerate(sizes) if axis not in axes])
    work = math.prod([sizes[axis] for axis in axes])
    few = FEW_COLUMNS if axes == tuple(range(len(axes))) else FEW_RESULTS
    if results > few or work < SPLIT_SIZE:
        return None
    outer = next((axis for axis in axes if sizes[axis] >= SPLIT_PIECES), max(axes, key=lambda k: sizes[k]))
    unit = LINE if all(size == 1 for size in sizes[outer + 1 :]) else ROWS
    pieces, size = pieces_of(sizes[outer], unit, work * results >= REST_WORK)
    rest = rest_of(x, outer, pieces * size) if pieces * size < sizes[outer] else None
    if rest is None and pieces * size < sizes[outer]:
        pieces, size = pieces_of(sizes[outer], unit, False)
    if not pieces:
        return None
    whole = x if rest is None else UOp(ops.SHRINK, x.dtype, (x,), _box(x, outer, 0, pieces * size))
    split = (*sizes[:outer], pieces, size, *sizes[outer + 1 :])
    inner_axes = tuple([axis + (axis >= outer) for axis in axes])
    partial = UOp(ops.REDUCE, n.dtype, (UOp(ops.RESHAPE, n.dtype, (whole,), split),), (op, inner_axes))
    stored = UOp(ops.CONTIGUOUS, n.dtype, (partial,))
    joined = UOp(ops.RESHAPE, n.dtype, (UOp(ops.REDUCE, n.dtype, (stored,), (op, (outer,))),), n.shape)
    return joined if rest is None else UOp(op, n.dtype, (joined, UOp(ops.REDUCE, n.dtype, (rest,), n.arg)))


def pieces_of(size: int, unit: int, rest: bool) -> tuple[int, int]:
    """(how many pieces an axis is split into, their size); (0, 0) where that does not pay.

    Pieces are multiples of `unit` where they can be. What is left over, if there may be a `rest`, is less than
    a piece.

    >>> pieces_of(1 << 24, 64, True), pieces_of((1 << 24) + 1, 64, True), pieces_of(97, 16, False)
    ((64, 262144), (64, 262144), (0, 0))
    """
    while unit > 1 and size < SPLIT_PIECES * unit:
        unit //= 2
    dividing = [pieces for pieces in range(4, SPLIT_PIECES + 1) if size % pieces == 0]
    even = [pieces for pieces in dividing if 4 * pieces >= SPLIT_PIECES and size // pieces % unit == 0]
    if not even and rest and size >= SPLIT_PIECES:
        length = size // (SPLIT_PIECES * unit) * unit
        return size // length, length
    pieces = max(even or dividing, default=0)
    return pieces, size // pieces if pieces else 0


def rest_of(x: UOp, axis: int, start: int) -> UOp | None:
    """What a value is from `start` on along an axis; elementwise ops are repeated for it.

    A value with a second user would be stored. None where that would still happen: something large that is
    computed from memory lies below movement.
    """
    known: dict[UOp, UOp] = {}
    stack = [x]
    while stack:
        node = stack[-1]
        if node.op.elementwise:
            missing = [operand for operand in node.src if operand not in known]
            if missing:
                stack += missing
                continue
            known[node] = node.replace(src=tuple([known[operand] for operand in node.src]))
        elif node.op is ops.CONST:
            shape = (*node.shape[:axis], dims.subtract(node.shape[axis], start), *node.shape[axis + 1 :])
            known[node] = const_of_shape(node, shape)
        else:
            below = node.under(*MOVEMENT)
            computed = (below.op.elementwise or below.op is ops.GATHER) and below.mask & ops.BUFFER.bit
            if computed and dims.upper(dims.product(below.shape)) > FEW_COLUMNS:
                return None
            known[node] = UOp(ops.SHRINK, node.dtype, (node,), _box(node, axis, start, node.shape[axis]))
        stack.pop()
    return known[x]


def _box(x: UOp, axis: int, start: Dim, stop: Dim) -> Pairs:
    """The limits of a SHRINK along one axis."""
    return tuple([(start, stop) if k == axis else (0, size) for k, size in enumerate(x.shape)])

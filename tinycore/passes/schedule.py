"""Natives of schedule.rules."""

from __future__ import annotations

from collections.abc import Sequence

from tinycore.ir import Dim, Shape, UOp, dims, ops, toposort

Pairs = tuple[tuple[Dim, Dim], ...]

SPLIT_SIZE = 1 << 15
"""An axis is split when each result combines at least this many elements."""
SPLIT_PIECES = 64
"""Into how many pieces: enough for many cores, few enough that the second step costs nothing."""
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

    Why a native: the axis and the number of pieces are chosen by divisibility.
    """
    op, axes = n.arg
    (x,) = n.src
    shape = x.shape
    if any(isinstance(size, UOp) for size in shape):
        return None
    sizes = [int(size) for size in shape]  # type: ignore[arg-type]
    results = 1
    for axis, size in enumerate(sizes):
        results *= 1 if axis in axes else size
    work = 1
    for axis in axes:
        work *= sizes[axis]
    few = FEW_COLUMNS if axes == tuple(range(len(axes))) else FEW_RESULTS
    if results > few or work < SPLIT_SIZE:
        return None
    outer = next(axis for axis in axes if sizes[axis] > 1)
    pieces = max((p for p in range(2, SPLIT_PIECES + 1) if sizes[outer] % p == 0), default=0)
    if pieces < 4:
        return None
    split = (*sizes[:outer], pieces, sizes[outer] // pieces, *sizes[outer + 1 :])
    inner_axes = tuple([axis + (axis >= outer) for axis in axes])
    partial = UOp(ops.REDUCE, n.dtype, (UOp(ops.RESHAPE, n.dtype, (x,), split),), (op, inner_axes))
    stored = UOp(ops.CONTIGUOUS, n.dtype, (partial,))
    joined = UOp(ops.REDUCE, n.dtype, (stored,), (op, (outer,)))
    return UOp(ops.RESHAPE, n.dtype, (joined,), n.shape)

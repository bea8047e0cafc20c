"""Axes that are parts of others: of an input seen through movement ops, and on the way up to what is stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tinycore.ir import Shape, UOp, ops
from tinycore.ir.ops import MOVEMENT
from tinycore.schedule.axes import MIXED, STILL, Trace, aligned, below


def view(value: UOp) -> Trace:
    """Follow the axes down as far as none is mixed: the base may be a movement op, whose axes are the value's.

    >>> from tinycore.ir import dtypes
    >>> a = UOp(ops.BUFFER, dtypes.float32, (), (1, (6, 3), "X"))
    >>> parts = UOp(ops.RESHAPE, a.dtype, (a,), (2, 3, 3))
    >>> view(UOp(ops.PERMUTE, a.dtype, (parts,), (2, 0, 1))).axes, view(parts).base is parts
    ((1, 2, 0), True)
    """
    entries = [axis if size != 1 else STILL for axis, size in enumerate(value.shape)]
    node = value
    while node.op in MOVEMENT or node.op is ops.CAST:
        deeper = below(node, entries, set())
        if MIXED in deeper:
            break
        entries, node = deeper, node.src[0]
    return Trace(node, tuple(entries), frozenset())


def above(path: Sequence[UOp], axis: int) -> int | None:
    """The axis of the first node of a path that an axis of its last becomes, if only as its innermost part.

    Each node is an operand of the one before it. None where no axis is it.
    """
    for node, operand in reversed(list(itertools.pairwise(path))):
        if node.op is ops.PERMUTE:
            axis = node.arg.index(axis)
        elif node.op is ops.RESHAPE:
            found = _joined(operand.shape, node.shape, axis)
            if found is None:
                return None
            axis = found
        elif node.op in (ops.PAD, ops.SHRINK) and node.shape[axis] != operand.shape[axis]:
            return None
    return axis


def _joined(source: Shape, target: Shape, axis: int) -> int | None:
    """The axis of a RESHAPE whose innermost part an axis of the source is."""
    for before, after in aligned(source, target):
        here = [each for each in before if source[each] != 1]
        there = [each for each in after if target[each] != 1]
        if axis in here:
            return there[0] if len(there) == 1 and axis == here[-1] else None
    return None

"""Which statements of a kernel happen together.

Several ASSIGNs of one shape in a kernel at tensor level, and neighbouring STOREs with the same loops in a kernel over
ranges, are *joint*: each iteration computes the values of all of them before it stores any. The statements of any
other kernel happen one after the other, each from end to end.
"""

from __future__ import annotations

import itertools

from tinycore.ir.ops import ops
from tinycore.ir.uop import UOp


def joint_statements(kernel: UOp) -> list[tuple[UOp, ...]]:
    """The statements of a kernel in order, those that are joint in one group.

    >>> from tinycore.ir import dtypes
    >>> a, b = (UOp(ops.PARAM, dtypes.int32, (), (slot, (4,))) for slot in (0, 1))
    >>> swap = [UOp(ops.ASSIGN, dtypes.int32, (a, a, b)), UOp(ops.ASSIGN, dtypes.int32, (b, b, a))]
    >>> [len(group) for group in joint_statements(UOp(ops.SINK, dtypes.void, tuple(swap)))]
    [2]
    """
    return [tuple(group) for _, group in itertools.groupby(kernel.src, _loops)]


def _loops(statement: UOp) -> object:
    """What joint statements have in common; others have it for themselves."""
    if statement.op is ops.ASSIGN and statement.src[2].op is not ops.SCAN:
        return statement.src[1].shape
    return (statement.op is ops.STORE and statement.ranges) or statement

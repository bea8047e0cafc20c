"""Program: what a renderer is given, a linear list of UOps with its arguments and its grid."""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.codegen.tiling import Prefetch
from tinycore.ir import Dim, UOp


@dataclass(frozen=True, slots=True)
class Program:
    """One kernel, lowered to statements; see "Program level" in the architecture document.

    Attributes
    ----------
    name: a C identifier, unique for the content.
    linear: the LINEAR node.
    parameters: the PARAM nodes by slot.
    variables: the VARIABLE nodes in the order of the integer arguments.
    written: the slots that are stored to.
    grid: bounds of the global ranges, at most 3; symbolic bounds are evaluated at launch.
    group: bounds of the local ranges, at most 3; () without work-groups.
    operations: floating point operations of one launch (an estimate for reports).
    streaming: whether the results are not read again soon, and may be stored past the caches.
    prefetch: how far ahead loads are asked for, or None.
    traffic: bytes of all buffers touched once (an estimate for reports).
    """

    name: str
    linear: UOp
    parameters: tuple[UOp, ...]
    variables: tuple[UOp, ...]
    written: frozenset[int]
    grid: tuple[Dim, ...] = ()
    group: tuple[int, ...] = ()
    operations: Dim = 0
    traffic: Dim = 0
    streaming: bool = False
    prefetch: Prefetch | None = None


def leaves(linear: UOp) -> list[UOp]:
    """What the nodes of a LINEAR read that stands in no list (CONST, PARAM, VARIABLE, ...), by first use.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> size = UOp.variable("n", 1, 8)
    >>> leaves(UOp(ops.LINEAR, dtypes.void, (size + size, size + 1))) == [size, UOp.const(dtypes.index, 1)]
    True
    """
    return list(dict.fromkeys([leaf for node in linear.src for leaf in node.src if not leaf.src]))

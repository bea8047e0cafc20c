"""What a schedule is: kernels and copies in an order in which they can run."""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.ir import UOp


@dataclass(frozen=True, slots=True)
class KernelStep:
    """One kernel at tensor level, in canonical form: equal kernels are the same node.

    Attributes
    ----------
    kernel: SINK of ASSIGNs (or SCATTER, SCAN) over PARAMs; the first slots are written. Several ASSIGNs of one
        shape share their loops.
    buffers: the BUFFER node of each slot.
    device: where it runs.
    nodes: the values of the tensor graph that it stores, by slot (for reports).
    remember: whether it is a function of one input of the graph that is worth keeping: while that input is
        unchanged the result of the last time is as good.
    """

    kernel: UOp
    buffers: tuple[UOp, ...]
    device: str
    nodes: tuple[UOp, ...] = ()
    remember: bool = False

    @property
    def outputs(self) -> int:
        """How many of its buffers are written."""
        return len({statement.src[0] for statement in self.kernel.src})


@dataclass(frozen=True, slots=True)
class CopyStep:
    """Bytes from one buffer to another, usually of another device."""

    source: UOp
    target: UOp


Step = KernelStep | CopyStep


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps that compute some roots.

    Buffers with a negative id are inputs (the k-th is ``-1 - k``); the others are made by the schedule, and have
    ids that no stored buffer has.

    Attributes
    ----------
    steps: in order of execution.
    results: for every root a BUFFER, or a RESHAPE of one.
    slots: for every made buffer that is no result, the number of the memory slot it shares with others
        whose lifetimes do not overlap.
    """

    steps: tuple[Step, ...]
    results: tuple[UOp, ...]
    slots: tuple[tuple[UOp, int], ...] = ()

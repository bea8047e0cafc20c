"""Reductions whose loop lies outside the loops of their results: the partial results wait in private memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tinycore.codegen.nest import TRUE
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.monoids import identity

ZERO = UOp.const(dtypes.index, 0)


@dataclass(frozen=True, slots=True)
class Carry:
    """The reduction over `ranges` steps outside the loops `inside`: its partial results, one for every
    iteration of those, wait in private memory from step to step.

    What else the reduction consumes (an unrolled part, say) is combined in registers first. Whole rows of a
    matrix are then read as they lie in memory, where a register for each result would read columns.
    """

    ranges: tuple[int, ...]
    inside: tuple[int, ...]

    def __str__(self) -> str:
        outer, inner = (", ".join(f"r{number}" for number in part) for part in (self.ranges, self.inside))
        return f"carry partial results of {inner} over {outer}"


def carry(kernel: UOp, action: Carry) -> UOp:
    """See `Carry`. Raises CompileError when a range does not exist, or the results have no constant number."""
    order = kernel.toposort()
    known = {int(node.arg[0]): node for node in order if node.op is ops.RANGE}
    missing = [number for number in (*action.ranges, *action.inside) if number not in known]
    if missing:
        raise CompileError(f"the kernel has no range r{missing[0]}")
    steps = [known[number] for number in action.ranges]
    inside = [known[number] for number in action.inside]
    scratches = sum(node.op is ops.SCRATCH for node in order)
    mapping: dict[UOp, UOp] = {}
    for node in order:
        if node.op is ops.REDUCE and any(step in node.src[1:] for step in steps):
            mapping[node] = _carried(node.substitute(mapping), steps, inside, scratches + len(mapping))
    return kernel.substitute(mapping)


def _carried(reduction: UOp, steps: list[UOp], inside: list[UOp], number: int) -> UOp:
    op, dtype = reduction.arg[0], reduction.dtype
    steps = [step for step in steps if step in reduction.src[1:]]
    results = [node for node in inside if node in reduction.ranges]
    place, size = ZERO, 1
    for node in results:
        place = place * node.src[0].vmax + node if place is not ZERO else node
        size *= node.src[0].vmax
    # The steps see what earlier ones left, so they run in order.
    ordered = {step: step.replace(arg=(step.arg[0], "ordered")) for step in steps}
    rest = tuple([node for node in reduction.src[1:] if node not in ordered])
    partial = reduction.src[0].substitute(ordered)
    if rest:
        partial = reduction.replace(src=(partial, *rest))
    scratch = UOp(ops.SCRATCH, dtype, (), ("private", number, (size,)))
    before = UOp(ops.LOAD, dtype, (scratch, place, TRUE), 1)
    first = functools.reduce(UOp.__and__, [node.eq(0) for node in ordered.values()])
    neutral = UOp.const(dtype, identity(op, dtype))
    before = first.where(neutral, before)
    step = UOp(ops.STORE, dtypes.void, (scratch, place, UOp(op, dtype, (before, partial)), TRUE))
    done = UOp(ops.END, dtypes.void, (step, *ordered.values(), *results))
    result = UOp(ops.LOAD, dtype, (UOp(ops.AFTER, dtype, (scratch, done)), place, TRUE), 1)
    for node in steps:
        if node.src[0].vmin <= 0:  # no step at all leaves no result
            result = UOp(ops.LT, dtypes.bool_, (ZERO, node.src[0])).where(result, neutral)
    return result

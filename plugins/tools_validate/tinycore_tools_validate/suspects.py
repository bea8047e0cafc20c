"""Which rule is wrong: a pass is run again under a trace, and each rewrite is executed before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinycore.codegen.nest import TRUE
from tinycore.errors import InterpretError, TinycoreError
from tinycore.interpret import interpret, interpret_kernel
from tinycore.interpret.arrays import Bindings
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import Event, trace
from tinycore.rules.doors import PassRun
from tinycore.rules.module import FAST
from tinycore.rules.tracing import show
from tinycore_tools_validate.samples import LARGEST, Precision, Sample, difference, signed_zeros

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

INEXACT = frozenset({"approx", *FAST})
"""What a rule that is right, but not bit for bit, says of itself."""
ZERO = UOp.const(dtypes.index, 0)


def find_wrong_rule(seen: PassRun, sample: Sample) -> str | None:
    """The first rewrite of a pass that changed a value: rule, file, line, rewrite. None if all are right.

    Parameters
    ----------
    seen: the pass.
    sample: inputs under which its result differs.
    """
    for event in events_of(seen):
        if event.before.op in (ops.LINEAR, ops.END, ops.BARRIER, ops.AFTER) or seen.takes == "program":
            continue
        what = _judge(event, seen, sample)
        if what:
            return f"{event.rule}\n{show(event.before)} -> {show(event.after)}\n{what}"
    return None


def rules_that_fired(seen: PassRun) -> str:
    """The rules of a pass that fired at all, for when none can be convicted; empty for a pass in Python."""
    names = list(dict.fromkeys(str(event.rule) for event in events_of(seen)))
    if not names:
        return ""
    return (
        names[0]
        if len(names) == 1
        else "one of: " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    )


def events_of(seen: PassRun) -> list[Event]:
    """Every rewrite of a pass: it runs once more."""
    with trace() as recorded:
        try:
            seen.again()
        except TinycoreError:
            return recorded.events  # what happened before it broke off counts
    return recorded.events


def _judge(event: Event, seen: PassRun, sample: Sample) -> str:
    """What is different after a rewrite, in words; empty when nothing is, or when it cannot be told."""
    run = (
        _tensors if seen.gives == "tensor" else _statements if event.before.dtype is dtypes.void else _scalars
    )
    try:
        before = run(event.before, event.before, sample)
    except InterpretError:
        return ""  # a part that has no meaning by itself
    if before is None:
        return ""
    try:
        after = run(event.after, event.before, sample)
    except InterpretError as error:
        return f"it cannot be executed any more: {error.what}"
    if after is None:
        return ""
    wanted = _precision(event)
    for old, new in zip(before, after, strict=True):
        what = difference(old, new, wanted)
        if what:
            return what
    return ""


def _precision(event: Event) -> Precision:
    """A rewrite must be exact unless it says otherwise, or sums floats in another way."""
    if event.rule.requires and INEXACT.intersection(event.rule.requires):
        return Precision.REORDERED if FAST.intersection(event.rule.requires) else Precision.APPROXIMATE
    before, after = (
        {n for n in node.toposort() if n.op is ops.REDUCE and n.dtype.is_float}
        for node in (event.before, event.after)
    )
    return signed_zeros(event.before.toposort()) if before == after else Precision.REORDERED


def _tensors(node: UOp, _: UOp, sample: Sample) -> list[Array]:
    roots: Sequence[UOp] = node.src if node.op is ops.SINK else (node,)
    return interpret(roots, sample.inputs, sample.bindings)


def _statements(node: UOp, _: UOp, sample: Sample) -> list[Array] | None:
    """What is in memory after a STORE or a SINK."""
    if node.op not in (ops.STORE, ops.SINK):
        return None
    arrays = sample.slots()
    interpret_kernel(
        node if node.op is ops.SINK else UOp(ops.SINK, dtypes.void, (node,)), arrays, sample.bindings
    )
    return list(arrays.values())


def _scalars(node: UOp, original: UOp, sample: Sample) -> list[Array] | None:
    """All values of a scalar over the ranges of the original, stored by a kernel made for the purpose."""
    import numpy as np

    ranges = sorted(original.ranges | node.ranges, key=lambda r: int(r.arg[0]))
    known = Bindings(sample.bindings)
    sizes = [known.value(r.src[0]) for r in ranges]
    total = 1
    for size in sizes:
        total *= size
    if total > LARGEST:
        return None
    position = ZERO
    for r in ranges:
        position = position * r.src[0] + r
    value = node.cast(dtypes.int64) if node.dtype is dtypes.index else node
    arrays = sample.slots()
    slot = max(arrays, default=-1) + 1
    arrays[slot] = np.zeros(total, value.dtype.numpy)
    result = UOp(ops.PARAM, value.dtype, (), (slot, (total,)))
    store = UOp(ops.STORE, dtypes.void, (result, position, value, TRUE))
    interpret_kernel(UOp(ops.SINK, dtypes.void, (store,)), arrays, sample.bindings)
    return [arrays[slot]]

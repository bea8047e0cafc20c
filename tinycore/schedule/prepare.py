"""What joined the scheduler: passes over the tensor graph before fusion, and over its placement after it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import Pass, load
from tinycore.rules.doors import Door, Observer, PassRun
from tinycore.schedule.placement import Placement, ScheduleContext


@functools.cache
def _simplify() -> Pass:
    return load("tinycore.passes.schedule").passes["prepare"]


def prepare(
    roots: list[UOp], context: ScheduleContext, doors: Sequence[Door] = (), observers: Sequence[Observer] = ()
) -> list[UOp]:
    """The same values from a simpler graph; the number and order of roots stay.

    Raises CompileError for a pass that answers something else than a SINK of the same roots.
    """
    sink = UOp(ops.SINK, dtypes.void, tuple(roots), None)
    for door in doors:
        result = _observed(door.id, door.run, sink, context, observers)
        _check(door, sink, result)
        sink = result
    return list(_observed("prepare", _simplify(), sink, context, observers).src)


def place(
    placement: Placement,
    context: ScheduleContext,
    doors: Sequence[Door] = (),
    observers: Sequence[Observer] = (),
) -> Placement:
    """What the passes of the stage `schedule` make of a placement. Raises CompileError for what is none."""
    for door in doors:
        before, start = placement, time.perf_counter()
        placement = door.run(before, context)
        if not isinstance(placement, Placement):
            raise CompileError(f"the pass {door.id!r} must answer a Placement", where=repr(placement))
        placement.check(door.id, before)
        again = partial(_replaced, door, before, context)
        _tell(door.id, again, before.sink, placement.sink, start, observers)
    return placement


def _replaced(door: Door, placement: Placement, context: ScheduleContext) -> UOp:
    replaced: Placement = door.run(placement, context)
    return replaced.sink


def _observed(
    name: str, run: Callable[..., Any], sink: UOp, context: ScheduleContext, observers: Sequence[Observer]
) -> UOp:
    start = time.perf_counter()
    result: UOp = run(sink, context)
    _tell(name, partial(run, sink, context), sink, result, start, observers)
    return result


def _tell(
    name: str, again: Callable[[], UOp], before: UOp, after: UOp, start: float, observers: Sequence[Observer]
) -> None:
    if observers:
        seen = PassRun(name, "tensor", "tensor", before, after, time.perf_counter() - start, again)
        for observer in observers:
            observer(seen)


def _check(door: Door, before: UOp, after: UOp) -> None:
    def outline(sink: UOp) -> list[object]:
        return [(root.dtype, root.shape) for root in sink.src]

    if not isinstance(after, UOp) or after.op is not ops.SINK or outline(before) != outline(after):
        raise CompileError(
            f"the pass {door.id!r} must answer a SINK of roots of the same dtypes and shapes",
            where=f"{outline(before)} became {outline(after) if isinstance(after, UOp) else after!r}",
        )

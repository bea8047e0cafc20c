"""The tensor graph before fusion: what joined the stage `tensor`, then rules that simplify and split it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import Pass, load
from tinycore.rules.doors import Door, Observer, PassRun


@dataclass(frozen=True, slots=True)
class TensorContext:
    """What a pass of the stage `tensor` may ask for.

    Attributes
    ----------
    device: where values made of constants only will be stored.
    """

    device: str


@functools.cache
def _simplify() -> Pass:
    return load("tinycore.passes.schedule").passes["prepare"]


def prepare(
    roots: list[UOp], context: TensorContext, doors: Sequence[Door] = (), observers: Sequence[Observer] = ()
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


def _observed(
    name: str, run: Callable[..., Any], sink: UOp, context: TensorContext, observers: Sequence[Observer]
) -> UOp:
    start = time.perf_counter()
    result: UOp = run(sink, context)
    if observers:
        seconds = time.perf_counter() - start
        seen = PassRun(name, "tensor", "tensor", sink, result, seconds, partial(run, sink, context))
        for observer in observers:
            observer(seen)
    return result


def _check(door: Door, before: UOp, after: UOp) -> None:
    def outline(sink: UOp) -> list[object]:
        return [(root.dtype, root.shape) for root in sink.src]

    if not isinstance(after, UOp) or after.op is not ops.SINK or outline(before) != outline(after):
        raise CompileError(
            f"the pass {door.id!r} must answer a SINK of roots of the same dtypes and shapes",
            where=f"{outline(before)} became {outline(after) if isinstance(after, UOp) else after!r}",
        )

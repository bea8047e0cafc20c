"""The memory plan: buffers whose lifetimes do not overlap share memory."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from tinycore.ir import UOp, dims
from tinycore.schedule.steps import CopyStep, Step


def nbytes(buffer: UOp) -> int:
    """Bytes that a BUFFER occupies; symbolic dimensions count with their maximum."""
    count = 1
    for dim in buffer.arg[1]:
        count *= dims.upper(dim)
    return count * buffer.dtype.itemsize


def plan(steps: Sequence[Step], keep: set[UOp]) -> tuple[tuple[UOp, int], ...]:
    """(buffer, slot) for every buffer that the steps make and nobody keeps.

    Linear scan over the steps: a slot is free again after the last use of its buffer. The smallest free slot
    that is large enough is taken, unless it is so large that a new one is better.
    """
    first: dict[UOp, int] = {}
    last: dict[UOp, int] = {}
    for position, step in enumerate(steps):
        touched = (step.source, step.target) if isinstance(step, CopyStep) else step.buffers
        for buffer in touched:
            if buffer.arg[0] >= 0 and buffer not in keep:
                first.setdefault(buffer, position)
                last[buffer] = position
    starting: dict[int, list[UOp]] = {}
    ending: dict[int, list[UOp]] = {}
    for buffer, position in first.items():
        starting.setdefault(position, []).append(buffer)
    for buffer, position in last.items():
        ending.setdefault(position, []).append(buffer)
    free: dict[str, list[tuple[int, int]]] = {}
    """By device: (bytes, slot), sorted."""
    sizes: list[int] = []
    slots: dict[UOp, int] = {}
    for position in range(len(steps)):
        for buffer in starting.get(position, ()):
            size, pool = nbytes(buffer), free.setdefault(buffer.arg[2], [])
            place = bisect.bisect_left(pool, (size, 0))
            if place < len(pool) and pool[place][0] <= max(4 * size, 4096):
                slots[buffer] = pool.pop(place)[1]
            else:
                slots[buffer] = len(sizes)
                sizes.append(size)
        for buffer in ending.get(position, ()):
            bisect.insort(free[buffer.arg[2]], (sizes[slots[buffer]], slots[buffer]))
    return tuple(slots.items())

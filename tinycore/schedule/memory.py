"""The memory plan: buffers whose lifetimes do not overlap share memory."""

from __future__ import annotations

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

    Linear scan over the steps: a slot is free again after the last use of its buffer. The best fit is taken,
    and a slot grows when nothing fits well.
    """
    first: dict[UOp, int] = {}
    last: dict[UOp, int] = {}
    for position, step in enumerate(steps):
        touched = (step.source, step.target) if isinstance(step, CopyStep) else step.buffers
        for buffer in touched:
            if buffer.arg[0] >= 0 and buffer not in keep:
                first.setdefault(buffer, position)
                last[buffer] = position
    free: dict[str, list[tuple[int, int]]] = {}
    slots: dict[UOp, int] = {}
    count = 0
    ending: dict[int, list[UOp]] = {}
    for buffer, position in last.items():
        ending.setdefault(position, []).append(buffer)
    for position in range(len(steps)):
        for buffer in [b for b, start in first.items() if start == position]:
            size, pool = nbytes(buffer), free.setdefault(buffer.arg[2], [])
            fitting = [entry for entry in pool if size <= entry[0] <= max(4 * size, 4096)]
            if fitting:
                entry = min(fitting)
                pool.remove(entry)
                slots[buffer] = entry[1]
            else:
                slots[buffer] = count
                count += 1
        for buffer in ending.get(position, []):
            free[buffer.arg[2]].append((_slot_size(slots, buffer), slots[buffer]))
    return tuple(slots.items())


def _slot_size(slots: dict[UOp, int], buffer: UOp) -> int:
    number = slots[buffer]
    return max(nbytes(other) for other, slot in slots.items() if slot == number)

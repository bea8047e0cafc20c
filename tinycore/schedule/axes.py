"""Following axes through movement ops: which axis of a source an axis of a value is.

An axis that a RESHAPE, PAD or SHRINK mixes or moves has no source axis of its own; sliding windows are made of
such. A FLIP walks the same axis backwards.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from tinycore.ir import Shape, UOp, dims, ops
from tinycore.ir.ops import MOVEMENT

STILL = -1
"""The value does not vary along this axis of its source."""
MIXED = -2
"""The axis of the source is walked by several axes of the value, or not from end to end."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where the axes of a value come from.

    Attributes
    ----------
    base: the node below the movement ops.
    axes: for every axis of the base, the axis of the value that walks it; or STILL or MIXED.
    mixed: the axes of the value that walk a MIXED one.
    parts: those of them that take one apart, end to end, and do nothing else: groups of channels, blocks.
    """

    base: UOp
    axes: tuple[int, ...]
    mixed: frozenset[int]
    parts: frozenset[int] = frozenset()

    @property
    def varying(self) -> frozenset[int]:
        """The axes of the value along which it varies (as far as movement ops show)."""
        return self.mixed | {axis for axis in self.axes if axis >= 0}


def trace(value: UOp) -> Trace:
    """Follow the axes of a value down through movement ops and casts.

    >>> from tinycore.ir import dtypes
    >>> a = UOp(ops.BUFFER, dtypes.float32, (), (1, (5, 3), "X"))
    >>> wide = UOp(ops.EXPAND, a.dtype, (UOp(ops.RESHAPE, a.dtype, (a,), (5, 1, 3)),), (5, 7, 3))
    >>> trace(wide).axes, sorted(trace(wide).varying)
    ((0, 2), [0, 2])
    """
    entries = [axis if size != 1 else STILL for axis, size in enumerate(value.shape)]
    mixed: set[int] = set()
    parts: set[int] = set()
    node = value
    while node.op in MOVEMENT or node.op is ops.CAST:
        known = frozenset(mixed)
        deeper = below(node, entries, mixed)
        if node.op is ops.RESHAPE:
            parts |= mixed - known - _walked_in_part(node, entries)
        entries, node = deeper, node.src[0]
    return Trace(node, tuple(entries), frozenset(mixed), frozenset(parts))


def _walked_in_part(node: UOp, entries: Sequence[int]) -> set[int]:
    """The axes that a RESHAPE joins with one that is MIXED already."""
    found: set[int] = set()
    for _, after in aligned(node.src[0].shape, node.shape):
        if any(entries[axis] == MIXED for axis in after):
            found.update(entries[axis] for axis in after)
    return found


def along(path: Sequence[UOp]) -> Trace:
    """The axes of the first node of a path in its last: each node is an operand of the one before it."""
    entries = [axis if size != 1 else STILL for axis, size in enumerate(path[0].shape)]
    mixed: set[int] = set()
    for node in path[:-1]:
        if node.op in MOVEMENT:
            entries = below(node, entries, mixed)
    return Trace(path[-1], tuple(entries), frozenset(mixed))


def below(node: UOp, entries: list[int], mixed: set[int]) -> list[int]:
    """The entries of a movement op's source, from those of its result; `mixed` collects what is walked in parts."""
    source = node.src[0].shape
    if node.op in (ops.CAST, ops.FLIP):
        return entries
    if node.op is ops.PERMUTE:
        result = [STILL] * len(entries)
        for axis, origin in enumerate(node.arg):
            result[origin] = entries[axis]
        return result
    if node.op is ops.RESHAPE:
        return _reshaped(source, node.shape, entries, mixed)
    if node.op is ops.EXPAND:
        return [STILL if size == 1 else entry for entry, size in zip(entries, source, strict=True)]
    return [entry if _whole(node, axis) else _mix(mixed, [entry]) for axis, entry in enumerate(entries)]


def _whole(node: UOp, axis: int) -> bool:
    """Whether a PAD or SHRINK leaves an axis alone."""
    return bool(node.arg[axis] == ((0, 0) if node.op is ops.PAD else (0, node.src[0].shape[axis])))


def _mix(mixed: set[int], entries: Sequence[int]) -> int:
    """The entry of a source axis that these axes walk together."""
    walking = [entry for entry in entries if entry != STILL]
    mixed.update(entry for entry in walking if entry >= 0)
    return MIXED if walking else STILL


def _reshaped(source: Shape, target: Shape, entries: list[int], mixed: set[int]) -> list[int]:
    result = [STILL] * len(source)
    for before, after in aligned(source, target):
        here = [axis for axis in before if source[axis] != 1]
        there = [axis for axis in after if target[axis] != 1]
        if len(here) == 1 and len(there) == 1:
            result[here[0]] = entries[there[0]]
        elif here:
            entry = _mix(mixed, [entries[axis] for axis in there])
            for axis in here:
                result[axis] = entry
    return result


@functools.lru_cache(maxsize=1024)
def aligned(source: Shape, target: Shape) -> Sequence[tuple[Sequence[int], Sequence[int]]]:
    """The smallest groups of neighbouring axes that a RESHAPE turns into one another.

    >>> aligned((6, 4), (2, 3, 4))
    [([0], [0, 1]), ([1], [2])]
    """
    groups: list[tuple[list[int], list[int]]] = []
    if 0 in source:
        return [(list(range(len(source))), list(range(len(target))))]
    i = j = 0
    while i < len(source) or j < len(target):
        before, after = [], []
        if i < len(source):
            before.append(i)
            i += 1
        if j < len(target):
            after.append(j)
            j += 1
        while True:
            left = dims.product(source[axis] for axis in before)
            right = dims.product(target[axis] for axis in after)
            if left == right:
                break
            if not (isinstance(left, int) and isinstance(right, int)):
                return [*groups, ([*before, *range(i, len(source))], [*after, *range(j, len(target))])]
            if left < right:
                before.append(i)
                i += 1
            else:
                after.append(j)
                j += 1
        groups.append((before, after))
    return groups

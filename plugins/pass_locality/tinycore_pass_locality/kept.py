"""Values that a kernel keeps to itself instead of storing them for another one.

Where each row of a value is computed for one iteration of its only user, and computing it reads little that
other rows do not read, both are one kernel: rows wait in memory of the thread and never see a buffer. Scores,
softmax and the sum of an attention become one kernel so. What is kept is wrapped in CONTIGUOUS in the kernel.
Only devices whose threads have caches of their own (those with lanes) do this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from tinycore.ir import UOp, dims, ops, toposort
from tinycore.ir.ops import MOVEMENT
from tinycore.schedule.axes import MIXED, STILL, below
from tinycore.schedule.fuse import LEAVES

MOST_ROW = 1 << 14
"""Bytes of a row: many of them must fit into a cache."""
MOST_OPERANDS = 1 << 18
"""Bytes that all rows read: they are read again for every few rows."""
ROWS = 128
"""Operands no larger than so many rows are cheaper to read again than rows, some dozens at a time, are to store
and to load, where the user reduces them: that takes time in a cache. A user that does not is better off with rows
that lie as it likes."""
MOST_KEPT = 4
"""Values that one kernel keeps: kernels must not grow with the graph."""
LEAST_BYTES = 1 << 14
"""Smaller values are not worth it."""

Entries = tuple[int, ...]


def choose_kept(
    roots: Iterable[UOp],
    stored: Collection[UOp],
    special: Collection[UOp],
    lane_bytes_of: Callable[[UOp], int],
) -> dict[UOp, UOp]:
    """Those stored values that their only user keeps, with the user. `special` have a layout of their own."""
    visible = set(roots)
    for root in roots:
        while root.op is ops.RESHAPE:
            root = root.src[0]
            visible.add(root)
    uses: dict[UOp, list[tuple[UOp, Entries]]] = {}
    cones: dict[UOp, dict[UOp, Entries]] = {}
    for user in toposort(roots):
        if user in stored:
            cones[user] = _cone(user, stored)
            for node, entries in cones[user].items():
                if node in stored and node is not user:
                    uses.setdefault(node, []).append((user, entries))
    kept: dict[UOp, tuple[UOp, int, Entries]] = {}
    for node, users in uses.items():
        if node in visible or node in special or len(users) != 1 or not _is_computed(node):
            continue
        user, entries = users[0]
        if user in special or not _is_computed(user) or not lane_bytes_of(node):
            continue
        outer = _outer(user, node, entries)
        rows = entries[:outer]
        most = MOST_OPERANDS
        computed = [each for each in _members(user, stored) if each is user or each not in stored]
        if any(each.op is ops.REDUCE for each in computed):
            most = max(most, ROWS * _bytes(node, outer))
        if (
            outer
            and _is_local(cones[node], stored, range(outer), most)
            and _is_local(cones[user], stored, rows, most)
        ):
            kept[node] = user, outer, rows
    return _few({node: user for node, (user, _, _) in kept.items() if _inside(node, kept)}, cones)


def _few(kept: dict[UOp, UOp], order: Iterable[UOp]) -> dict[UOp, UOp]:
    """As many as one kernel may keep, directly or in what it keeps; `order` has operands before users."""
    result: dict[UOp, UOp] = {}
    counts: dict[UOp, int] = {}
    for node in order:
        user = kept.get(node)
        if user is not None:
            count = counts.get(user, 0) + 1 + counts.get(node, 0)
            if count <= MOST_KEPT:
                result[node], counts[user] = user, count
    return result


def _inside(node: UOp, kept: dict[UOp, tuple[UOp, int, Entries]]) -> bool:
    """Whether the rows of a value lie inside the rows of its user, where that is kept, too."""
    user, _, rows = kept[node]
    return user not in kept or all(entry < kept[user][1] for entry in rows)


def _is_computed(node: UOp) -> bool:
    return node.op.elementwise or node.op is ops.REDUCE


def _cone(user: UOp, stored: Collection[UOp]) -> dict[UOp, Entries]:
    """What the kernel of a stored value computes and reads: which axis of the value each axis of a node is.

    Several ways to a node that do not agree leave an axis MIXED, and so does a reduction.
    """
    nodes = list(_members(user, stored))
    entries: dict[UOp, Entries] = {
        user: tuple([axis if size != 1 else STILL for axis, size in enumerate(user.shape)])
    }
    for node in reversed(nodes):
        if (node in stored and node is not user) or node.op in LEAVES or node not in entries:
            continue
        for operand in node.src:
            found = _through(node, operand, entries[node])
            known = entries.get(operand)
            entries[operand] = found if known is None else tuple(map(_agreed, known, found))
    return entries


def _members(user: UOp, stored: Collection[UOp]) -> Iterator[UOp]:
    """The nodes of a kernel, operands before users."""
    stack: list[tuple[UOp, bool]] = [(user, False)]
    seen: set[UOp] = set()
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node is user or not (node in stored or node.op in LEAVES):
                stack.extend((operand, False) for operand in node.src)


def _agreed(one: int, other: int) -> int:
    return one if one == other else MIXED


def _through(node: UOp, operand: UOp, entries: Entries) -> Entries:
    if node.op in MOVEMENT and node.op is not ops.FLIP:
        return tuple(below(node, list(entries), set()))
    if node.op is ops.REDUCE:
        sizes = operand.shape
        return tuple(
            [
                (MIXED if sizes[axis] != 1 else STILL) if axis in node.arg[1] else entry
                for axis, entry in enumerate(entries)
            ]
        )
    if node.op.elementwise or node.op is ops.DETACH:
        return entries
    return tuple([MIXED if size != 1 else STILL for size in operand.shape])


def _outer(user: UOp, node: UOp, entries: Entries) -> int:
    """How many leading axes of a value its user's outermost loops walk; 0 where the value is better stored."""
    if not all(isinstance(size, int) for size in node.shape):
        return 0
    outer = 0
    while outer < len(entries) and entries[outer] != MIXED:
        outer += 1
    walked = [entry for entry in entries[:outer] if entry != STILL]
    rows = dims.upper(dims.product(node.shape[:outer]))
    row = _bytes(node, outer)
    inner = [size for size in node.shape[outer:] if size != 1]
    leading = [axis for axis, size in enumerate(user.shape) if size != 1][: len(walked)]
    if len(inner) != 1 or not walked or sorted(walked) != leading or rows * row < LEAST_BYTES:
        return 0
    return outer if row <= MOST_ROW else 0


def _bytes(node: UOp, outer: int) -> int:
    """Of a row of a value, whose axes are those after the `outer` ones."""
    return dims.upper(dims.product(node.shape[outer:])) * node.dtype.itemsize


def _is_local(cone: dict[UOp, Entries], stored: Collection[UOp], outer: Iterable[int], most: int) -> bool:
    """Whether what a kernel reads again for every few rows is at most so many bytes. `outer` are its axes that rows
    are made of."""
    first = next(iter(cone))
    axes = set(outer)
    for node, entries in cone.items():
        if node is not first and (node in stored or node.op in (ops.BUFFER, ops.PARAM)):
            size = node.dtype.itemsize
            for entry, length in zip(entries, node.shape, strict=True):
                if entry not in axes and entry != STILL:
                    size *= dims.upper(length)
            if size > most:
                return False
    return True

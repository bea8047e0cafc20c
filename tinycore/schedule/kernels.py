"""Stored values to canonical kernels: what each reads and writes, with buffers as numbered parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinycore.ir import UOp, dtypes, ops, substitute, toposort
from tinycore.schedule.fuse import LEAVES
from tinycore.schedule.placement import Layout, Placement, device_of


@dataclass(slots=True, eq=False)
class Task:
    """One stored value on its way to becoming a step.

    Attributes
    ----------
    node: the stored value in the tensor graph.
    buffer: the BUFFER that it is written to; for an ASSIGN the one that stands for the version before it.
    reads: the stored values and BUFFERs (versions!) that its kernel reads.
    body: the statements, over BUFFER nodes.
    others: the values that its other statements store, where several tasks were joined.
    """

    node: UOp
    buffer: UOp
    reads: tuple[UOp, ...]
    body: tuple[UOp, ...]
    others: tuple[UOp, ...] = ()


_FIRST_ID = 1 << 32
"""Buffers that a schedule makes have ids of their own: a remembered schedule must not keep real ones alive."""


class Builder:
    """Turns stored values into tasks; one replacement memo serves the whole graph."""

    def __init__(self, placement: Placement, default_device: str) -> None:
        self.stored = placement.stored
        self.kept = placement.kept
        self.default_device = default_device
        self.layouts = placement.layouts
        self.devices: dict[UOp, str | None] = {}
        self.buffers: dict[UOp, UOp] = {}
        self.homes: dict[UOp, UOp] = {}
        """Every version of a buffer but the first has a BUFFER of its own here: the buffer that it lives in."""
        self.replaced: dict[UOp, UOp] = {}
        self.made = _FIRST_ID

    def fresh_buffer(self, node: UOp) -> UOp:
        """A new BUFFER of that value's dtype and device, its axes in the order of memory."""
        device = device_of(node, self.devices) or self.default_device
        order = self._order(node)
        shape = tuple([node.shape[axis] for axis in order]) if order else node.shape
        buffer = UOp(ops.BUFFER, node.dtype, (), (self.made, shape, device))
        self.made += 1
        return buffer

    def _order(self, node: UOp) -> tuple[int, ...] | None:
        layout = self.layouts.get(node)
        return layout.order if layout is not None else None

    def _seen(self, node: UOp) -> UOp:
        """A stored value as its users see it: its buffer, the axes back in their places."""
        buffer, order = self.buffer_of(node), self._order(node)
        if order is None:
            return buffer
        back = tuple(sorted(range(len(order)), key=order.__getitem__))
        return UOp(ops.PERMUTE, node.dtype, (buffer,), back)

    def buffer_of(self, node: UOp) -> UOp:
        """The BUFFER that stands for a stored value; every version of a buffer has one (see `homes`)."""
        if node.op is ops.BUFFER:
            return node
        known = self.buffers.get(node)
        if known is None:
            known = self.buffers[node] = self.fresh_buffer(node)
            if node.op is ops.ASSIGN:
                before = node.src[0]
                while before.op is ops.ASSIGN and before not in self.buffers:
                    before = before.src[0]
                version = self.buffer_of(before)
                self.homes[known] = self.homes.get(version, version)
        return known

    def replace(self, node: UOp) -> UOp:
        """The value as its user's kernel sees it: stored values became buffers."""
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self.replaced:
                stack.pop()
            elif current in self.stored or current.op in LEAVES:
                self.replaced[current] = (
                    self._seen(current) if current in self.stored or current.op is ops.BUFFER else current
                )
                stack.pop()
            else:
                missing = [operand for operand in current.src if operand not in self.replaced]
                if missing:
                    stack.extend(missing)
                    continue
                src = tuple([self.replaced[operand] for operand in current.src])
                value = current if src == current.src else current.replace(src=src)
                if current in self.kept:
                    value = UOp(ops.CONTIGUOUS, value.dtype, (value,))
                self.replaced[current] = value
                stack.pop()
        return self.replaced[node]

    def task(self, node: UOp) -> Task:
        """The statements that compute one stored value into its buffer."""
        buffer = self.buffer_of(node.src[0] if node.op is ops.ASSIGN else node)
        operands = node.src
        body: tuple[UOp, ...]
        if node.op is ops.ASSIGN:
            _, view, value = operands
            body = (_assign(buffer, self.replace(view), self.replace(value)),)
        elif node.op is ops.SCATTER:
            base, index, updates = [self.replace(operand) for operand in operands]
            body = (_assign(buffer, buffer, base), node.replace(src=(buffer, index, updates)))
        elif node.op is ops.COPY:
            body = (_assign(buffer, buffer, self.replace(operands[0])),)
        else:
            src = tuple([self.replace(operand) for operand in operands])
            value = (
                src[0] if node.op is ops.CONTIGUOUS else node if src == node.src else node.replace(src=src)
            )
            body = (_assign_laid_out(buffer, value, self.layouts.get(node)),)
        return Task(node, buffer, self._reads(operands), body)

    def _reads(self, operands: tuple[UOp, ...]) -> tuple[UOp, ...]:
        found: dict[UOp, None] = {}
        seen: set[UOp] = set()
        stack = list(operands)
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.stored or current.op is ops.BUFFER:
                found[current] = None
            else:
                stack.extend(current.src)
        return tuple(found)


def _assign(buffer: UOp, view: UOp, value: UOp) -> UOp:
    return UOp(ops.ASSIGN, buffer.dtype, (buffer, view, value))


def _assign_laid_out(buffer: UOp, value: UOp, layout: Layout | None) -> UOp:
    """The loops of the kernel walk the axes as they lie in memory, a split axis in blocks."""
    if layout is None:
        return _assign(buffer, buffer, value)
    if layout.order is not None:
        value = UOp(ops.PERMUTE, value.dtype, (value,), layout.order)
    view = buffer
    if layout.split is not None:
        axis, block = layout.split
        place = layout.order.index(axis) if layout.order is not None else axis
        shape = value.shape
        size = shape[place]
        assert isinstance(size, int)
        blocked = (*shape[:place], size // block, block, *shape[place + 1 :])
        view = UOp(ops.RESHAPE, buffer.dtype, (buffer,), blocked)
        value = UOp(ops.RESHAPE, value.dtype, (value,), blocked)
    return _assign(buffer, view, value)


def canonical_kernel(task: Task, homes: Mapping[UOp, UOp]) -> tuple[UOp, tuple[UOp, ...]]:
    """(kernel, buffers): the statements with BUFFERs exchanged for PARAMs; what is written has the first slots."""
    written = [statement.src[0] for statement in task.body]
    read = [node for node in toposort(task.body) if node.op is ops.BUFFER]
    order = list(dict.fromkeys([homes.get(buffer, buffer) for buffer in (*written, *read)]))
    slots = {buffer: slot for slot, buffer in enumerate(order)}
    mapping = {
        buffer: UOp(ops.PARAM, buffer.dtype, (), (slots[homes.get(buffer, buffer)], buffer.arg[1]))
        for buffer in (*written, *read)
    }
    body = substitute(task.body, mapping)
    return UOp(ops.SINK, dtypes.void, tuple(body), None), tuple(order)


def unaligned_read(task: Task) -> bool:
    """Whether an ASSIGN reads its own buffer anywhere else than at the element that it writes."""
    if task.node.op is not ops.ASSIGN:
        return False
    (statement,) = task.body
    _, view, value = statement.src
    if not value.mask & ops.BUFFER.bit:
        return False
    stack, seen = [value], set[UOp]()
    while stack:
        node = stack.pop()
        if node in seen or node is view:
            continue
        seen.add(node)
        if node is task.buffer:
            return True
        if node.op.elementwise:
            stack.extend(node.src)
        elif any(below is task.buffer for below in toposort((node,))):
            return True
    return False

"""How a kernel is executed: which ranges every value varies with, and the order of its stores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tinycore.errors import InterpretError
from tinycore.interpret.arrays import Bindings
from tinycore.ir.ops import ops
from tinycore.ir.statements import joint_statements
from tinycore.ir.uop import UOp, toposort

MAX_AXES = 30
"""numpy 1.26 arrays have at most 32 axes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Stores that are evaluated together: none of them reads what another one writes.

    `outer` is the outermost range that all of them have, or None; `volume` is the most elements that any
    value below them has.
    """

    stores: tuple[UOp, ...]
    outer: UOp | None
    volume: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that are repeated in order for every iteration of an `ordered` range."""

    over: UOp
    steps: tuple[Loop | Batch, ...]


def check_inside(node: UOp, index: NDArray[Any], size: int) -> None:
    """Raises InterpretError where an index that is used lies outside the memory."""
    if not index.size:
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise InterpretError(
            f"{node.op.name} reaches element {wrong} of a buffer of {size} elements",
            where=repr(node),
            hint="the gate must be false for indices outside the buffer",
        )


class Plan:
    """The facts about one kernel that its execution needs.

    Attributes
    ----------
    nodes: everything below the SINK, operands first.
    axes: the numpy axis of every RANGE; outer loops first.
    bounds: how many iterations every RANGE has.
    closed: the ranges that an END closes around a store.
    free: the ranges that each node varies with.
    copies: the ranges in whose iterations a SCRATCH is filled anew: it has one copy for each.
    steps: what to do, in order.
    """

    def __init__(self, kernel: UOp, bindings: Bindings) -> None:
        self.nodes = toposort((kernel,))
        ranges = sorted([node for node in self.nodes if node.op is ops.RANGE], key=lambda node: node.arg[0])
        if len(ranges) > MAX_AXES:
            raise InterpretError(f"a kernel has {len(ranges)} ranges, more than {MAX_AXES}")
        self.axes = {node: axis for axis, node in enumerate(ranges)}
        self.bounds = {node: bindings.value(node.src[0]) for node in ranges}
        self.copies: dict[UOp, list[UOp]] = {}
        self.free: dict[UOp, frozenset[UOp]] = {}
        self.closed = {node.src[0]: frozenset(node.src[1:]) for node in self.nodes if node.op is ops.END}
        for node in self.nodes:
            self.free[node] = self._varies_with(node)
        self.joint = {store: group[0] for group in joint_statements(kernel) for store in group}
        self.steps = self._order([node for node in self.nodes if node.op is ops.STORE], frozenset())

    def outermost(self, ranges: frozenset[UOp]) -> UOp | None:
        """The outermost of some ranges, None of none."""
        return min(ranges, key=self.axes.__getitem__, default=None)

    def _varies_with(self, node: UOp) -> frozenset[UOp]:
        """What an AFTER waits for is no part of its value."""
        if node.op is ops.RANGE:
            return frozenset({node})
        if node.op is ops.AFTER:
            return self.free[node.src[0]]
        if node.op in (ops.REDUCE, ops.END):
            return self.free[node.src[0]] - frozenset(node.src[1:])
        free: frozenset[UOp] = frozenset().union(*[self.free[operand] for operand in node.src])
        if node.op is ops.STORE and node.src[0].under(ops.AFTER).op is ops.SCRATCH:
            # Without an END, the ranges that the index walks over are taken for closed.
            self._privatize(
                node.src[0].under(ops.AFTER), free - self.closed.get(node, self.free[node.src[1]])
            )
        if node.op is ops.LOAD:
            return free | frozenset(self.copies.get(node.src[0].under(ops.AFTER), ()))
        return free

    def _privatize(self, scratch: UOp, ranges: frozenset[UOp]) -> None:
        """Scratch has one copy for every iteration in which it is filled anew.

        Those are the open ranges of its store; except `ordered` ones, which see what earlier iterations
        left, and work-items of a group, which share `local` scratch.
        """
        shared = ("ordered", "local") if scratch.arg[0] == "local" else ("ordered",)
        own = self.copies.setdefault(scratch, [])
        own.extend(
            node
            for node in sorted(ranges, key=self.axes.__getitem__)
            if node.arg[1] not in shared and node not in own
        )

    def _order(self, stores: Sequence[UOp], opened: frozenset[UOp]) -> tuple[Loop | Batch, ...]:
        """Stores in order; neighbours that share an `ordered` loop run in it together."""
        steps: list[Loop | Batch] = []
        position = 0
        while position < len(stores):
            loop = self._next_loop(stores[position], opened)
            end = position + 1
            while end < len(stores) and self._next_loop(stores[end], opened) is loop:
                end += 1
            group = stores[position:end]
            if loop is None:
                steps.extend(self._batches(group))
            else:
                steps.append(Loop(loop, self._order(group, opened | {loop})))
            position = end
        return tuple(steps)

    def _next_loop(self, store: UOp, opened: frozenset[UOp]) -> UOp | None:
        closed = self.free[store] - opened
        return self.outermost(frozenset(node for node in closed if node.arg[1] == "ordered"))

    def _batches(self, stores: Sequence[UOp]) -> list[Batch]:
        """A store begins a new batch when it reads what one before it in the batch writes; joint ones share one."""
        batches: list[list[UOp]] = []
        for store in stores:
            others = [each for each in batches[-1] if not self._is_joint(store, each)] if batches else []
            if batches and not _reads_after(store, others):
                batches[-1].append(store)
            else:
                batches.append([store])
        return [self._batch(batch) for batch in batches]

    def _is_joint(self, store: UOp, other: UOp) -> bool:
        return store in self.joint and self.joint[store] is self.joint.get(other)

    def _batch(self, stores: Sequence[UOp]) -> Batch:
        common = frozenset.intersection(*[self.free[store] for store in stores])
        outer = self.outermost(frozenset(node for node in common if node.arg[1] != "ordered"))
        parallel = {node: 1 if node.arg[1] == "ordered" else bound for node, bound in self.bounds.items()}
        values = {value for store in stores for value in toposort(store.src)}
        volume = max(math.prod([parallel[node] for node in self.free[value]]) for value in values)
        return Batch(tuple(stores), outer, volume)


def _reads_after(store: UOp, earlier: Sequence[UOp]) -> bool:
    """Whether a store reads memory that earlier ones write, or waits for one of them."""
    written = {other.src[0].under(ops.AFTER) for other in earlier}
    return any(
        node in earlier or (node.op is ops.LOAD and node.src[0].under(ops.AFTER) in written)
        for node in toposort(store.src)
    )

"""The drivers: three ways to take rules over a graph, none of which recurses.

All of them work on a dispatch table, a list indexed by `Op.number` of functions ``f(node, context)`` that
answer a replacement or None, and skip subtrees that hold no root op of the table (`UOp.mask`). They keep two
maps: `memo` (node -> its final form) and `forward` (node -> what it was rewritten to, not final yet). Meeting
a node that is in `forward` but not in `memo` means that its form depends on itself: that is a loop, and the
chain of `forward` is its trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tinycore.ir.uop import UOp, toposort

Matcher = Callable[[UOp, Any], UOp | None]
Table = list[Matcher | None]

FUEL, FUEL_A_NODE = 20_000, 400
"""Rewrites that a call may do: this many, or this many for every node of the input."""


class Monitor(Protocol):
    """What a driver tells about: loops, exhausted fuel, origins."""

    def loop(self, chain: list[tuple[UOp, UOp]]) -> Exception:
        """The error for rewrites that came back to where they were."""
        ...

    def exhausted(self, table: Table, context: Any, node: UOp, count: int) -> Exception:
        """The error for more rewrites than the fuel allows."""
        ...


def fuel_of(root: UOp) -> int:
    """How many rewrites of a graph are still plausible."""
    return max(FUEL, FUEL_A_NODE * len(toposort((root,))))


def _chain(
    forward: dict[UOp, UOp], memo: dict[UOp, UOp], start: UOp, stack: list[UOp]
) -> list[tuple[UOp, UOp]]:
    """The pending rewrites from the first visit of `start` on."""
    pending = [node for node in dict.fromkeys(stack) if node in forward and node not in memo]
    if start in pending:
        pending = pending[pending.index(start) :]
    return [(node, forward[node]) for node in pending]


def fixpoint(
    root: UOp,
    table: Table,
    mask: int,
    context: Any,
    monitor: Monitor,
    memo: dict[UOp, UOp],
    unite: Callable[[UOp, UOp], None] | None,
) -> tuple[UOp, int]:
    """Bottom-up to normal form: results are rewritten again until no rule matches anywhere."""
    forward: dict[UOp, UOp] = {}
    stack = [root]
    known = memo.get
    count, limit, measured = 0, FUEL, False
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if node in forward:
            memo[node] = memo[forward[node]]
            stack.pop()
            continue
        ready, changed = True, False
        for operand in node.src:
            if operand.mask & mask:
                final = known(operand)
                if final is None:
                    if operand in forward:
                        raise monitor.loop(_chain(forward, memo, operand, stack))
                    stack.append(operand)
                    ready = False
                elif final is not operand:
                    changed = True
        if not ready:
            continue
        current = node
        if changed:
            current = UOp(
                node.op, node.dtype, tuple([known(operand, operand) for operand in node.src]), node.arg
            )
            if unite is not None:
                unite(node, current)
            final = known(current)
            if final is not None:
                memo[node] = final
                stack.pop()
                continue
            if current in forward:
                forward[node] = current
                raise monitor.loop(_chain(forward, memo, current, stack))
        match = table[current.op.number]
        result = match(current, context) if match is not None else None
        if result is None:
            memo[node] = memo[current] = current
            stack.pop()
            continue
        count += 1
        if count > limit:
            if measured:
                raise monitor.exhausted(table, context, current, count)
            limit, measured = fuel_of(root), True
        if unite is not None:
            unite(current, result)
        final = known(result) if result.mask & mask else result
        if final is not None:
            memo[node] = memo[current] = final
            stack.pop()
            continue
        if current is not node:
            forward[node] = current
            stack.append(current)
        forward[current] = result
        if result in forward:
            raise monitor.loop(_chain(forward, memo, result, stack))
        stack.append(result)
    return memo[root], count


def bottom_up(
    root: UOp,
    table: Table,
    mask: int,
    context: Any,
    monitor: Monitor,
    memo: dict[UOp, UOp],
    unite: Callable[[UOp, UOp], None] | None,
) -> tuple[UOp, int]:
    """Operands first, then the first rule that matches, once; results are not looked at again."""
    count = 0
    known = memo.get
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if not node.mask & mask:
            memo[node] = node
            stack.pop()
            continue
        missing = [operand for operand in node.src if known(operand) is None]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        src = tuple([memo[operand] for operand in node.src])
        current = node
        if any(map(_differs, src, node.src)):
            current = UOp(node.op, node.dtype, src, node.arg)
            if unite is not None:
                unite(node, current)
        match = table[current.op.number]
        result = match(current, context) if match is not None else None
        if result is None:
            memo[node] = current
            continue
        count += 1
        memo[node] = result
        if unite is not None:
            unite(current, result)
    return memo[root], count


def top_down(
    root: UOp,
    table: Table,
    mask: int,
    context: Any,
    monitor: Monitor,
    memo: dict[UOp, UOp],
    unite: Callable[[UOp, UOp], None] | None,
) -> tuple[UOp, int]:
    """A node first, again and again until no rule matches it; then the operands of the result."""
    forward: dict[UOp, UOp] = {}
    count, limit, measured = 0, FUEL, False
    known = memo.get
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if not node.mask & mask:
            memo[node] = node
            stack.pop()
            continue
        current = forward.get(node)
        if current is None:
            current = node
            steps: dict[UOp, UOp] = {}
            while (match := table[current.op.number]) is not None:
                result = match(current, context)
                if result is None:
                    break
                count += 1
                if count > limit:
                    if measured:
                        raise monitor.exhausted(table, context, current, count)
                    limit, measured = fuel_of(root), True
                if unite is not None:
                    unite(current, result)
                steps[current] = result
                if result in steps:
                    chain = list(steps.items())
                    raise monitor.loop(chain[list(steps).index(result) :])
                current = result
            forward[node] = current
        missing = []
        for operand in current.src:
            if known(operand) is None:
                if operand in forward:
                    raise monitor.loop(_chain(forward, memo, operand, stack))
                missing.append(operand)
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        src = tuple([memo[operand] for operand in current.src])
        if any(map(_differs, src, current.src)):
            rebuilt = UOp(current.op, current.dtype, src, current.arg)
            if unite is not None:
                unite(current, rebuilt)
            current = rebuilt
        memo[node] = current
    return memo[root], count


def _differs(a: UOp, b: UOp) -> bool:
    return a is not b


DRIVERS = {"fixpoint": fixpoint, "bottom_up": bottom_up, "top_down": top_down}

"""The drivers: three ways to take rules over a graph, none of which recurses.

All of them work on a dispatch table, a list indexed by `Op.number` of functions ``f(node, context)`` that
answer a replacement or None, and skip subtrees that hold no root op of the table (`UOp.mask`). They keep two
maps: `memo` (node -> its final form) and `forward` (node -> what it was rewritten to, not final yet). Meeting
a node that is in `forward` but not in `memo` means that its form depends on itself: that is a loop, and the
chain of `forward` is its trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinycore.ir.uop import UOp, toposort

Matcher = Callable[[UOp, Any], UOp | None]
Table = list[Matcher | None]
Chain = list[tuple[UOp, UOp]]

FUEL, FUEL_A_NODE = 20_000, 400
"""Rewrites that a call may do: this many, or this many for every node of the input."""


class Monitor(Protocol):
    """Makes the errors of a driver."""

    def loop(self, run: Run, chain: Chain) -> Exception:
        """The error for rewrites that came back to where they were."""

    def exhausted(self, run: Run, node: UOp, count: int) -> Exception:
        """The error for more rewrites than the fuel allows."""


@dataclass(slots=True)
class Run:
    """What one call of a driver works with.

    Attributes
    ----------
    table, mask: the dispatch table, and the bits of the ops that have an entry.
    context: handed to every function of the table.
    monitor: makes the errors.
    unite: told about every node and what replaces it, while origins are recorded.
    memo: the final forms that are known; filled.
    limit: rewrites until `more_fuel` is asked.
    """

    table: Table
    mask: int
    context: Any
    monitor: Monitor
    unite: Callable[[UOp, UOp], None] | None = None
    memo: dict[UOp, UOp] = field(default_factory=dict)
    limit: int = FUEL

    def more_fuel(self, root: UOp, node: UOp, count: int) -> None:
        """Set how many rewrites of a graph are plausible; raises when that many are done."""
        if self.limit == FUEL:
            self.limit = max(FUEL + 1, FUEL_A_NODE * len(toposort((root,))))
        if count > self.limit:
            raise self.monitor.exhausted(self, node, count)

    def pending(self, forward: dict[UOp, UOp], start: UOp) -> Exception:
        """The error for a node whose final form needs itself: the fewest rewrites among them that lead in a circle."""
        around = _cycle(forward, start)
        inner = [_cycle(forward, node) for node, _ in around[1:100]]
        return self.monitor.loop(self, min([around, *inner], key=len))


def _cycle(rewrites: dict[UOp, UOp], start: UOp) -> Chain:
    """The shortest chain of rewrites from a node to one that contains it; going to operands is no rewrite."""
    came: dict[UOp, UOp | None] = {}  # node -> the one whose rewrite led to it
    layer: list[tuple[UOp, UOp | None]] = [(start, None)]
    while layer:
        following: list[tuple[UOp, UOp | None]] = []
        for entered, previous in layer:
            stack = [entered]
            while stack:
                node = stack.pop()
                if node is start and previous is not None:
                    return _back(rewrites, came, previous)
                if node in came:
                    continue
                came[node] = previous
                stack += node.src
                if rewrites.get(node, node) is not node:
                    following.append((rewrites[node], node))
        layer = following
    return [(start, rewrites[start])]


def _back(rewrites: dict[UOp, UOp], came: dict[UOp, UOp | None], last: UOp | None) -> Chain:
    chain: Chain = []
    while last is not None:
        chain.append((last, rewrites[last]))
        last = came[last]
    return chain[::-1]


def fixpoint(root: UOp, run: Run) -> UOp:
    """Bottom-up to normal form: results are rewritten again until no rule matches anywhere."""
    table, mask, context, unite, memo = run.table, run.mask, run.context, run.unite, run.memo
    forward: dict[UOp, UOp] = {}
    stack, known, count = [root], memo.get, 0
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
                        raise run.pending(forward, operand)
                    stack.append(operand)
                    ready = False
                elif final is not operand:
                    changed = True
        if not ready:
            continue
        current = node
        if changed:
            current = UOp(node.op, node.dtype, tuple([known(x, x) for x in node.src]), node.arg)
            if unite is not None:
                unite(node, current)
            final = known(current)
            if final is not None:
                memo[node] = final
                continue
        match = table[current.op.number]
        result = match(current, context) if match is not None else None
        if result is None:
            memo[node] = memo[current] = current
            stack.pop()
            continue
        count += 1
        if count > run.limit:
            run.more_fuel(root, current, count)
        if unite is not None:
            unite(current, result)
        final = known(result) if result.mask & mask else result
        if final is not None:
            memo[node] = memo[current] = final
            continue
        if current is not node:
            forward[node] = current
            stack.append(current)
        forward[current] = result
        if result in forward:
            raise run.pending(forward, result)
        stack.append(result)
    return memo[root]


def bottom_up(root: UOp, run: Run) -> UOp:
    """Operands first, then the first rule that matches, once; results are not looked at again."""
    table, mask, context, unite, memo = run.table, run.mask, run.context, run.unite, run.memo
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if not node.mask & mask:
            memo[node] = node
            continue
        missing = [operand for operand in node.src if operand not in memo]
        if missing:
            stack.extend(missing)
            continue
        current = _rebuilt(node, run)
        match = table[current.op.number]
        result = match(current, context) if match is not None else None
        memo[node] = current if result is None else result
        if result is not None and unite is not None:
            unite(current, result)
    return memo[root]


def top_down(root: UOp, run: Run) -> UOp:
    """A node first, again and again until no rule matches it; then the operands of the result."""
    mask, memo = run.mask, run.memo
    forward: dict[UOp, UOp] = {}
    steps: dict[UOp, UOp] = {}
    count = 0
    stack = [root]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if not node.mask & mask:
            memo[node] = node
            continue
        current = forward.get(node)
        if current is None:
            forward[node] = node
            current, count = _head_normal(root, node, run, count, steps)
            forward[node] = current
        missing = []
        for operand in current.src:
            if operand not in memo:
                if operand in forward:
                    raise run.pending(steps, operand)
                missing.append(operand)
        if missing:
            stack.extend(missing)
        else:
            memo[node] = _rebuilt(current, run)
    return memo[root]


def _head_normal(root: UOp, node: UOp, run: Run, count: int, steps: dict[UOp, UOp]) -> tuple[UOp, int]:
    """The node rewritten until no rule matches it, and how many rewrites there have been; `steps` gets them all."""
    passed = {node}
    while (match := run.table[node.op.number]) is not None:
        result = match(node, run.context)
        if result is None:
            break
        count += 1
        if count > run.limit:
            run.more_fuel(root, node, count)
        if run.unite is not None:
            run.unite(node, result)
        steps[node] = result
        node = result
        if node in passed:
            raise run.pending(steps, node)
        passed.add(node)
    return node, count


def _rebuilt(node: UOp, run: Run) -> UOp:
    """The node on the final forms of its operands."""
    src = tuple([run.memo[operand] for operand in node.src])
    if all(map(_is, src, node.src)):
        return node
    result = UOp(node.op, node.dtype, src, node.arg)
    if run.unite is not None:
        run.unite(node, result)
    return result


def _is(a: UOp, b: UOp) -> bool:
    return a is b


DRIVERS: dict[str, Callable[[UOp, Run], UOp]] = {
    "fixpoint": fixpoint,
    "bottom_up": bottom_up,
    "top_down": top_down,
}
"""The drivers by the names that strategies use."""

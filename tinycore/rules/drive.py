"""The drivers: three ways to take rules over a graph, none of which recurses.

All of them work on a dispatch table, a list indexed by `Op.number` of functions ``f(node, context)`` that
answer a replacement or None, and skip subtrees that hold no root op of the table (`UOp.mask`). The functions may
be given a `draft` of a node and must `adopt` it before they hand it on, as generated ones do. Drivers keep two
maps: `memo` (node -> its final form) and `forward` (node -> what it was rewritten to, not final yet). Meeting
a node that is in `forward` but not in `memo` means that its form depends on itself: that is a loop, and the
chain of `forward` is its trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import is_
from typing import Any, Protocol, cast

from tinycore.ir.uop import UOp, adopt, draft, toposort

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
    mask, context, unite, memo = run.mask, run.context, run.unite, run.memo
    table = run.table if unite is None else [match and _uniting(match, unite) for match in run.table]
    known = memo.get
    forward: dict[UOp, UOp] = {}
    # Nodes whose operands are final when they are taken; below a None, one that waits for what it became.
    todo: list[UOp | None] = _planned(root, run, forward)
    while todo:
        node = todo.pop()
        if node is None:
            node = cast(UOp, todo.pop())
            memo[node] = memo[forward[node]]
            continue
        while node not in memo:
            op, src = node.op, node.src
            if len(src) == 2:
                a, b = src
                x, y = known(a, a), known(b, b)
                new: tuple[UOp, ...] = src if x is a and y is b else (x, y)
            else:
                new = tuple([known(operand, operand) for operand in src])
                new = src if all(map(is_, new, src)) else new
            match = table[op.number]
            if new is src:
                result = match(node, context) if match is not None else None
                if result is None:
                    memo[node] = node
                    break
            elif match is None or unite is not None:
                result = _rebuilt(node, run)
                if match is None:
                    memo[node] = memo[result] = result
                    break
            else:
                current = draft(op, node.dtype, new, node.arg)
                result = match(current, context)
                if result is None:
                    current = memo[node] = memo[current] = adopt(current)
                    break
            if not result.mask & mask or result in memo:
                memo[node] = known(result, result)
                break
            # A result that is what the draft would have become is no match; it is tried as a node of its own.
            forward[node] = result
            if len(forward) > run.limit:
                run.more_fuel(root, node, len(forward))
            todo += (node, None)
            for operand in result.src:
                if operand.mask & mask and operand not in memo:
                    todo += _planned(result, run, forward)
                    break
            else:
                if result in forward:
                    raise run.pending(_rewrites(forward, run), result)
                node = result
                continue
            break
    return known(root, root)


def _uniting(match: Matcher, unite: Callable[[UOp, UOp], None]) -> Matcher:
    """The function, and every node is united with what it is rewritten to."""

    def uniting(node: UOp, context: Any) -> UOp | None:
        result = match(node, context)
        if result is not None:
            unite(node, result)
        return result

    return uniting


def _rewrites(forward: dict[UOp, UOp], run: Run) -> dict[UOp, UOp]:
    """What was rewritten to what, with the drafts in between as nodes."""
    found: dict[UOp, UOp] = {}
    for node, result in forward.items():
        before = _rebuilt(node, run)
        found[node] = before
        if before is not result:
            found[before] = result
    return found


def _planned(root: UOp, run: Run, forward: dict[UOp, UOp]) -> list[UOp | None]:
    """The nodes below this one that have no final form yet, users before operands."""
    mask, memo = run.mask, run.memo
    unseen = not (memo or forward)
    order: list[UOp | None] = []
    seen: set[UOp] = set()
    stack: list[UOp | None] = [root]
    while stack:
        node = stack.pop()
        if node is None:
            order.append(stack.pop())
        elif node.mask & mask and node not in seen and (unseen or node not in memo):
            if not unseen and node in forward:
                raise run.pending(_rewrites(forward, run), node)
            seen.add(node)
            stack += (node, None)
            stack += node.src
    order.reverse()
    return order


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
    src = tuple([run.memo.get(operand, operand) for operand in node.src])
    if all(map(is_, src, node.src)):
        return node
    result = UOp(node.op, node.dtype, src, node.arg)
    if run.unite is not None:
        run.unite(node, result)
    return result


DRIVERS: dict[str, Callable[[UOp, Run], UOp]] = {
    "fixpoint": fixpoint,
    "bottom_up": bottom_up,
    "top_down": top_down,
}
"""The drivers by the names that strategies use."""

"""Values of a row that several passes over it compute: they are kept in memory of the thread instead.

``exp(x[j] - m) / sum_k exp(x[k] - m)`` computes every exponential twice, once in the loop of the sum and once
in the loop of the results. Both loops walk the same row, so that one more loop can compute them for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinycore.codegen.nest import TRUE
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.uop import substitute
from tinycore.schedule.fuse import COSTLY

COSTLY_OPERATION, DIVISION = 16, 4
"""What an op costs beside an addition."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What costs at least `least` additions and is computed for the elements of the loop `range` of a STORE, and in
    reductions over as many elements again, is computed once, by the loops `copies`, and kept in memory of the
    thread."""

    range: int
    least: int
    copies: tuple[int, ...]

    def __str__(self) -> str:
        copies = ", ".join(f"r{number}" for number in self.copies)
        return f"keep what is computed again for r{self.range}, filled by {copies}"


@dataclass(frozen=True, slots=True)
class Repeated:
    """One value of every element of a row, as the STORE's loop has it and as each pass over the row has it."""

    value: UOp
    places: tuple[tuple[UOp, UOp], ...]


def repeated(store: UOp, row: UOp, least: int) -> list[Repeated]:
    """The values that are worth keeping, those that others are computed from first.

    A value that occurs in more passes goes before a larger one that occurs in fewer.
    """
    order = store.toposort()
    around = store.ranges - {row}
    passes = [node.src[1] for node in order if node.op is ops.REDUCE and len(node.src) == 2]
    found: dict[UOp, dict[UOp, UOp]] = {}
    for walked in dict.fromkeys((row, *passes)):
        if walked.op is not ops.RANGE or walked.src[0] is not row.src[0]:
            continue
        values = [n for n in order if n.op.elementwise and n.dtype.is_float and walked in n.ranges]
        values = [node for node in values if node.ranges - {walked} <= around]
        for node, value in zip(values, substitute(values, {walked: row}), strict=True):
            found.setdefault(value, {})[walked] = node
    candidates = {value: places for value, places in found.items() if len(places) > 1}
    chosen: list[UOp] = []
    for count in sorted({len(places) for places in candidates.values()}, reverse=True):
        several = [value for value, places in candidates.items() if len(places) == count]
        inner = {node for value in several for node in value.toposort() if node is not value}
        for value in several:
            if value not in inner and _cost(value, row, chosen) >= least:
                chosen.append(value)
    return [Repeated(value, tuple(candidates[value].items())) for value in chosen]


def _cost(value: UOp, row: UOp, known: Iterable[UOp]) -> int:
    """Additions that a value costs an element, where some values are known."""
    total, stack, seen = 0, [value], set(known)
    while stack:
        node = stack.pop()
        if node in seen or row not in node.ranges or not node.op.elementwise:
            continue
        seen.add(node)
        if node.dtype is not dtypes.index:
            dear = DIVISION if node.op in (ops.DIV, ops.SQRT) else 1
            total += COSTLY_OPERATION if node.op in COSTLY else dear
        stack.extend(node.src)
    return total


def keep(kernel: UOp, action: Keep) -> UOp:
    """See `Keep`. Raises CompileError where another number of values is kept than there are copies."""
    statements: list[UOp] = []
    scratches = sum(node.op is ops.SCRATCH for node in kernel.toposort())
    copies = list(action.copies)
    for store in kernel.src:
        rows = [r for r in store.ranges if r.arg[0] == action.range and r.src[0].is_const]
        mapping: dict[UOp, UOp] = {}
        for value in repeated(store, rows[0], action.least) if rows else ():
            if not copies:
                break
            number = scratches + len(action.copies) - len(copies)
            mapping.update(_kept(value, rows[0], number, copies.pop(0), mapping))
        statements.append(store.substitute(mapping))
    if copies:
        raise CompileError(f"nothing else is computed again for r{action.range}")
    return kernel.replace(src=tuple(statements))


def _kept(found: Repeated, row: UOp, number: int, copy: int, known: dict[UOp, UOp]) -> dict[UOp, UOp]:
    """The loads that stand for a value in every pass."""
    value = found.value.substitute(known)
    loop = row.replace(arg=(copy, "loop"))
    scratch = UOp(ops.SCRATCH, value.dtype, (), ("private", number, (row.src[0].vmax,)))
    store = UOp(ops.STORE, dtypes.void, (scratch, loop, value.substitute({row: loop}), TRUE))
    filled = UOp(ops.AFTER, value.dtype, (scratch, UOp(ops.END, dtypes.void, (store, loop))))
    return {node: UOp(ops.LOAD, value.dtype, (filled, walked, TRUE), 1) for walked, node in found.places}

"""Loops that end early for a block of rows, because none of its rows needs what comes later (a causal mask)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinycore.ir import UOp, dtypes, ops

if TYPE_CHECKING:
    from tinycore.codegen.tiling import Split


@dataclass(frozen=True, slots=True)
class Shorten:
    """Row r of the range `rows` needs the steps up to r + `offset` only, of all the other ranges named here.

    Ranges are named as they were before they were split. What `filled` computes is read by `readers`: those must
    not go further, so that nothing happens where their tiles do not fit into its tiles. `others` may read what
    was never computed: whoever writes this action knows that a condition drops it. It comes behind all splits and
    before the order.
    """

    rows: int
    filled: int
    readers: tuple[int, ...]
    others: tuple[int, ...]
    offset: int

    def __str__(self) -> str:
        ranges = ", ".join(f"r{number}" for number in (self.filled, *self.readers, *self.others))
        return f"end {ranges} behind r{self.rows} + {self.offset}"


def shorten(kernel: UOp, action: Shorten, splits: Iterable[Split]) -> UOp:
    """See `Shorten`; `splits` are those that the kernel has undergone."""
    parts = {split.range: split for split in splits}
    found = {int(node.arg[0]): node for node in kernel.toposort() if node.op is ops.RANGE}
    rows = parts.get(action.rows)
    if rows is None or rows.outer not in {*found, *parts}:
        return kernel  # one block of rows
    steps: dict[UOp, int] = {}
    sizes = []
    for number in (action.filled, *action.readers, *action.others):
        size = 1
        while number in parts:
            size, number = size * parts[number].size, parts[number].outer
        if number not in found or found[number].arg[1] not in ("loop", "reduce"):
            return kernel
        steps[found[number]] = size
        sizes.append(size)
    if any(sizes[0] % size for size in sizes[1 : 1 + len(action.readers)]):
        return kernel
    unit = math.lcm(*sizes)
    limit = (_position(rows.outer, parts, found) + 1) * rows.size + action.offset
    units = (limit + (unit - 1)) // unit
    mapping = {
        node: node.replace(src=(UOp(ops.MIN, dtypes.index, (node.src[0], units * (unit // size))),))
        for node, size in steps.items()
    }
    return kernel.substitute(mapping)


def _position(number: int, parts: dict[int, Split], found: dict[int, UOp]) -> UOp:
    """What a range was before it was split."""
    if number not in parts:
        return found.get(number, UOp.const(dtypes.index, 0))
    split = parts[number]
    return _position(split.outer, parts, found) * split.size + _position(split.inner, parts, found)

"""Rows that are stored line by line of a cache, although each of them begins at another place of a line.

Where the length of a row is no multiple of a line, blocks of whole rows and columns have borders inside lines,
and every such border is two stores of a part of a line, many times as dear as one of a whole line. `Skew`
moves the borders of the blocks in every row to where lines begin, `Align` does the same with vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.codegen.affine import affine
from tinycore.codegen.footprint import footprint
from tinycore.codegen.nest import TRUE
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

ZERO = UOp.const(dtypes.index, 0)


@dataclass(frozen=True, slots=True)
class Align:
    """Two bodies of a STORE along one range of stride 1: `head`, up to where its address is a multiple of `size`
    elements, and `rest` from there on. Where rows have an odd length that is another place in every row."""

    range: int
    size: int
    head: int
    rest: int

    def __str__(self) -> str:
        return f"align r{self.range} to {self.size} -> r{self.head}, r{self.rest}"


@dataclass(frozen=True, slots=True)
class Skew:
    """Blocks of `size` neighbours of a STORE whose borders lie, in every row, at multiples of `line` elements.

    ``range = max(outer * size - begin, 0) + inner``, where `begin` is how far into a line a row begins. Rows
    are shifted against one another by less than a line. What the kernel loads from the buffers `slots` for the
    block of all rows of the range `row`, and for a line before it, is copied to memory of the thread first, by
    loops of the numbers `copies` (over rows, over neighbours in them): where it lies in memory along the rows,
    this transposes it.
    """

    range: int
    row: int
    size: int
    line: int
    outer: int
    inner: int
    slots: tuple[int, ...]
    copies: tuple[int, int]

    def __str__(self) -> str:
        slots, copies = (", ".join(map(str, numbers)) for numbers in (self.slots, self.copies))
        return (
            f"split r{self.range} by {self.size} at multiples of {self.line} -> r{self.outer}, r{self.inner}, "
            f"buffers {slots} staged for all r{self.row} by {copies}"
        )


def neighbours(kernel: UOp, number: int) -> UOp:
    """A range along which every STORE that depends on it stores neighbours. Raises CompileError for others."""
    order = kernel.toposort()
    found = next((node for node in order if node.op is ops.RANGE and node.arg[0] == number), None)
    if found is None:
        raise CompileError(f"the kernel has no range r{number}")
    inside = any(node.op in (ops.REDUCE, ops.END) and found in node.src[1:] for node in order)
    dependent = any(node.op is ops.RANGE and found in node.src[0].ranges for node in order)
    stores = [statement for statement in kernel.src if found in statement.ranges]
    if inside or dependent or any(affine(store.src[1]).factor(found) != 1 for store in stores):
        raise CompileError(f"r{number} cannot be aligned: it is no range of neighbours in a store")
    return found


def aligned_parts(store: UOp, old: UOp, action: Align) -> tuple[UOp, UOp]:
    """The two bodies of a STORE: see `Align`."""
    (bound,), kind = old.src, old.arg[1]
    start = store.src[1].substitute({old: ZERO})
    first = (start + (action.size - 1)) // action.size * action.size - start
    head = UOp(ops.RANGE, dtypes.index, (UOp(ops.MIN, dtypes.index, (first, bound)),), (action.head, kind))
    rest = UOp(ops.RANGE, dtypes.index, (_positive(bound - first),), (action.rest, kind))
    return store.substitute({old: head}), store.substitute({old: first + rest})


def skew(kernel: UOp, action: Skew) -> UOp:
    """See `Skew`. Raises CompileError where there is no such range, or what a slot is read for is no box."""
    old = neighbours(kernel, action.range)
    mapping: dict[UOp, UOp] = {}
    scratches = sum(node.op is ops.SCRATCH for node in kernel.toposort())
    for store in kernel.src:
        if old in store.ranges:
            mapping[store] = _skewed(store, old, action, scratches)
            scratches += len(action.slots)
    return kernel.replace(src=tuple([mapping.get(store, store) for store in kernel.src]))


def _skewed(store: UOp, old: UOp, action: Skew, scratches: int) -> UOp:
    (bound,), kind = old.src, old.arg[1]
    blocks = (bound + (action.line + action.size - 2)) // action.size
    outer = UOp(ops.RANGE, dtypes.index, (blocks,), (action.outer, kind))
    start = outer * action.size
    staged: dict[UOp, UOp] = {}
    for load in store.toposort():
        if load.op is ops.LOAD and load.src[0].op is ops.PARAM and load.src[0].arg[0] in action.slots:
            staged[load] = _staged(load, old, start, action, scratches + len(staged))
    begin = store.src[1].substitute({old: ZERO}) % action.line
    first = _positive(start - begin)
    end = UOp(ops.MIN, dtypes.index, (start - begin + action.size, bound))
    inner = UOp(ops.RANGE, dtypes.index, (_positive(end - first),), (action.inner, kind))
    return store.substitute(staged).substitute({old: first + inner})


def _staged(load: UOp, old: UOp, start: UOp, action: Skew, number: int) -> UOp:
    """The load of a block and the line before it from memory of the thread."""
    rows = next((node for node in load.ranges if node.arg[0] == action.row), None)
    dimensions = footprint(load, (old, rows)) if rows is not None else None
    if rows is None or dimensions is None or len(dimensions) != 2:
        raise CompileError(f"buffer {load.src[0].arg[0]} cannot be staged along rows", where=repr(load))
    pitch, before = action.size + action.line, start - action.line
    first = _positive(UOp.const(dtypes.index, action.line) - start)
    end = UOp(ops.MIN, dtypes.index, (UOp.const(dtypes.index, pitch), old.src[0] - before))
    down, along = (
        UOp(ops.RANGE, dtypes.index, (bound,), (copy, "loop"))
        for copy, bound in zip(action.copies, (rows.src[0], _positive(end - first)), strict=True)
    )
    place = first + along
    index, guard = (operand.substitute({old: before + place, rows: down}) for operand in load.src[1:])
    scratch = UOp(ops.SCRATCH, load.dtype, (), ("private", number, (rows.src[0].vmax * pitch,)))
    source = load.replace(src=(load.src[0], index, guard))
    store = UOp(ops.STORE, dtypes.void, (scratch, down * pitch + place, source, TRUE))
    filled = UOp(ops.AFTER, load.dtype, (scratch, UOp(ops.END, dtypes.void, (store, down, along))))
    return UOp(ops.LOAD, load.dtype, (filled, rows * pitch + (old - before), TRUE), 1)


def _positive(value: UOp) -> UOp:
    return UOp(ops.MAX, dtypes.index, (value, ZERO))

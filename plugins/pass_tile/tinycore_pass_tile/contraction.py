"""Products of matrices whose second operand should be copied first: it is large, strided badly, transposed, or
narrower than what is computed with.

What a block of the result reads of the second operand, some columns over some steps of the reduction, is
copied to memory of the thread: neighbours along the columns, rows without gaps, no two of which share sets of
a cache. Rows of the first operand then meet the copy a register tile at a time. A reduction too long for the
copy goes in blocks of steps, its partial results waiting in memory of the thread, too. Where the first operand
has to be converted or regrouped as well, some rows of it are copied in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinycore.codegen.carry import Carry
from tinycore.codegen.dots import Offset
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Bind, Order, Split, Tail
from tinycore.ir import Capabilities
from tinycore_pass_tile.analysis import DYNAMIC, Nest, bound, largest_itemsize, number
from tinycore_pass_tile.blocks import Blocks, blocks_of
from tinycore_pass_tile.product import Product, recognise

SUMMED = 16
"""Lanes for the sums of rows that offsets are taken back by."""
SERIAL_WORK = 1 << 14
"""Kernels of fewer iterations are not worth waking a thread for."""


@dataclass
class _Plan:
    ids: Iterator[int]
    actions: list[Action] = field(default_factory=list)

    def split(self, target: int, size: int, total: int, tail: Tail = "peel") -> tuple[int, int, int]:
        """(outer, inner, rest) of a range; -1 for what does not come to be."""
        if target < 0 or size == total or (size > total and tail != "mask"):
            return -1, target, -1
        if size == 1:
            return target, -1, -1
        outer, inner, rest = next(self.ids), next(self.ids), next(self.ids)
        peeled = tail == "peel" and (total % size or total == DYNAMIC)
        self.actions.append(Split(target, size, outer, inner, tail, rest))
        return outer if size < total else -1, inner, rest if peeled else -1

    def share(self, target: int, size: int, total: int) -> tuple[int, int, int]:
        """(parts, rows of one, how many those are): the last part may have fewer."""
        if size >= total:
            return -1, target, total
        part, inner = next(self.ids), next(self.ids)
        even = total % size == 0 and total != DYNAMIC
        self.actions.append(Split(target, size, part, inner, "mask" if even else "bound"))
        return part, inner, size if even else DYNAMIC

    def bind(self, kind: str, *targets: int) -> None:
        """Bind those ranges that exist."""
        self.actions += [Bind(target, kind) for target in targets if target >= 0]


def choose_contraction(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for a product whose second operand is worth a copy; None for any other nest."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = recognise(nest, lanes, capabilities)
    if found is None:
        return None
    parallel = parallel and nest.work >= SERIAL_WORK
    return _actions(
        found, blocks_of(found, lanes, capabilities, parallel), capabilities, _Plan(ids), parallel
    )


def _actions(
    found: Product, blocks: Blocks, capabilities: Capabilities, plan: _Plan, parallel: bool
) -> list[Action]:
    columns, rows = number(found.columns), number(found.rows)
    width = blocks.lanes * blocks.vectors
    tiles, inside, _ = plan.split(columns, width, bound(found.columns), "mask")
    pieces, across, _ = plan.split(tiles, blocks.columns // width, -(-bound(found.columns) // width), "bound")
    part, rows, rows_count = plan.share(rows, blocks.part, bound(found.rows))
    steps, group = _group(found, plan)
    chunks, steps, _ = plan.split(steps, blocks.steps, found.count)
    copied = _copy(found, blocks, plan, across, inside, steps, group)
    block = -1
    if blocks.rows < blocks.part:
        block, rows, rows_count = plan.share(rows, blocks.rows, rows_count)
    copied_left = _copy_left(found, blocks, plan, rows, steps, group)
    if chunks >= 0:
        plan.actions.append(Carry((chunks,), _existing(block, rows, across, inside)))
    tiles, tile, tile_rest = plan.split(rows, blocks.tile, rows_count)
    plan.bind("unroll", tile, *([] if rows_count == DYNAMIC else [tile_rest]))
    unrolled, vector, _ = plan.split(inside, blocks.lanes, width)
    plan.bind("unroll", unrolled)
    plan.bind("vector", vector)
    inner = _unrolled_steps(plan, steps, blocks.steps)
    outer = [number(loop) for loop in found.outer]
    if parallel:
        outer = _grid(plan, outer, [*_existing(pieces, part)])
    else:
        outer += [*_existing(pieces, part)]
    results = (tiles, tile, tile_rest, across, unrolled, vector)
    plan.actions.append(Order(_existing(*outer, chunks, *copied, block, *copied_left, *results, *inner)))
    return plan.actions


def _existing(*ranges: int) -> tuple[int, ...]:
    return tuple([each for each in ranges if each >= 0])


def _group(found: Product, plan: _Plan) -> tuple[int, int]:
    """(steps in whole groups, the group): what is left over is reduced step by step."""
    steps, total = number(found.steps), bound(found.steps)
    if found.group == 1:
        return steps, -1
    if found.offset:
        sums, outer, vector = (next(plan.ids) for _ in range(3))
        plan.actions += [
            Offset(int(found.right.node.src[0].arg[0]), steps, sums),
            Split(sums, SUMMED, outer, vector, "mask"),
            Bind(vector, "vector"),
        ]
    outer, inner, rest = plan.split(steps, found.group, total)
    plan.bind("group", inner)
    plan.bind("unroll", rest)
    return outer, inner


def _copy(
    found: Product, blocks: Blocks, plan: _Plan, across: int, inside: int, steps: int, group: int
) -> list[int]:
    """Copy the box, tile after tile of columns: rows of vectors, or squares that are transposed on the way."""
    order = _existing(across, steps, inside, group)
    copies = tuple([next(plan.ids) for _ in order])
    *tiles, down, row = copies[:-1] if group >= 0 else copies
    slot = int(found.right.node.src[0].arg[0])
    plan.actions.append(StageInThread(slot, order, copies, 0, order, found.wide))
    if group >= 0:
        plan.bind("unroll", copies[-1])
    vectors, vector, _ = plan.split(row, blocks.lanes, blocks.lanes * blocks.vectors)
    plan.bind("vector", vector)
    if not found.transposed:
        plan.bind("unroll", vectors)
        return [down, *tiles, vectors, vector]
    if group >= 0:
        return [*tiles, vectors, down, vector]
    squares, square, last = plan.split(down, blocks.lanes, blocks.steps)
    plan.bind("unroll", square, last)
    return [*tiles, vectors, squares, square, last, vector]


def _copy_left(
    found: Product, blocks: Blocks, plan: _Plan, rows: int, steps: int, group: int
) -> tuple[int, ...]:
    """Copy some rows: as they lie, converted, or step by step in groups."""
    if found.left is None:
        return ()
    turned = found.left.stride(found.rows) == 1
    order = _existing(steps, rows, group) if turned else _existing(rows, steps, group)
    copies = tuple([next(plan.ids) for _ in order])
    slot = int(found.left.node.src[0].arg[0])
    plan.actions.append(StageInThread(slot, order, copies, blocks.lanes, order, found.left_wide))
    if group >= 0:
        plan.bind("unroll", copies[-1])
    vectors, vector, last = (next(plan.ids) for _ in range(3))
    plan.actions.append(Split(copies[1], blocks.lanes, vectors, vector, "peel mask", last))
    plan.bind("vector", vector, last)
    return copies[0], vectors, vector, last


def _unrolled_steps(plan: _Plan, steps: int, total: int) -> list[int]:
    if total < 8:
        return [steps]
    outer, inner, rest = plan.split(steps, 4, total)
    plan.bind("unroll", inner, rest)
    return [outer, inner, rest]


def _grid(plan: _Plan, outer: list[int], parts: list[int]) -> list[int]:
    """Everything that can run at once is a dimension of the grid, three at most; the rest are loops in it."""
    chosen = [*parts, *reversed(outer)][:3] if parts else list(reversed(outer))[:3]
    plan.bind("global", *chosen)
    return [*chosen, *[each for each in outer if each not in chosen]]

"""Products of matrices whose second operand should be copied first: it is large, strided badly or transposed.

What a block of the result reads of the second operand, some columns over some steps of the reduction, is
copied to memory of the thread: neighbours along the columns, rows without gaps, no two of which share sets of
a cache. Rows of the first operand then meet the copy a register tile at a time. A reduction too long for the
copy goes in blocks of steps, its partial results waiting in memory of the thread, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tinycore.codegen.carry import Carry
from tinycore.codegen.dots import Offset
from tinycore.codegen.footprint import footprint
from tinycore.codegen.nest import TRUE
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Action, Bind, Order, Split, Tail
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore_pass_tile.analysis import DYNAMIC, Access, Nest, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.windows import best_rows

LEAST_ROWS = 13
"""Fewer rows use a copy too rarely to pay for it."""
FEW_ROWS = 48
"""Fewer rows use a copy so seldom that it need not stay in the second cache: it is one block of steps."""
COPIED_FOR = 96
"""Rows that pay for a copy of their own in each thread."""
MOST_STEPS = 1024
"""Steps of one block: long enough that partial results are seldom exchanged."""
SUMMED = 16
"""Lanes for the sums of rows that offsets are taken back by."""
WAYS = 8
"""Lines of one set of a cache, where nothing better is known."""
PIECES_PER_THREAD = 2
SERIAL_WORK = 1 << 14


@dataclass(frozen=True)
class Product:
    """What was recognised.

    Attributes
    ----------
    rows, columns: loops of the result; the columns get the lanes.
    steps: the range that is reduced.
    outer: the other loops (a batch).
    right: the load to copy.
    transposed: whether its neighbours lie along the steps rather than the columns.
    group: how many steps one instruction does.
    offset: whether the bytes of the right operand are to become unsigned for it.
    """

    rows: UOp
    columns: UOp
    steps: UOp
    outer: tuple[UOp, ...]
    right: Access
    transposed: bool
    group: int = 1
    offset: bool = False

    @property
    def count(self) -> int:
        """Steps of the reduction, in whole groups."""
        return bound(self.steps) // self.group


@dataclass(frozen=True)
class Blocks:
    """Sizes: columns and steps of a copy, rows that share its partial results, rows and vectors of a register
    tile."""

    columns: int
    steps: int
    rows: int
    tile: int
    lanes: int
    vectors: int


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

    def bind(self, kind: str, *targets: int) -> None:
        """Bind those ranges that exist."""
        self.actions += [Bind(target, kind) for target in targets if target >= 0]


def choose_contraction(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action] | None:
    """The actions for a product whose second operand is worth a copy; None for any other nest."""
    lanes = capabilities.vector_bytes // largest_itemsize(nest)
    found = product_of(nest, lanes) if lanes >= 4 and len(capabilities.cache_bytes) > 1 else None
    if found is None:
        return None
    if lanes * nest.reductions[0][0].dtype.itemsize == capabilities.vector_bytes:  # whole registers of sums
        found = grouped(found, nest, capabilities)
    if found.group == 1 and not _worth_a_copy(found, capabilities):
        return None
    blocks = blocks_of(found, lanes, capabilities)
    return _actions(found, blocks, capabilities, _Plan(ids), parallel and nest.work >= SERIAL_WORK)


# --- recognising ------------------------------------------------------------------------------------------


def product_of(nest: Nest, lanes: int) -> Product | None:
    """The parts of a product of matrices; None where a nest is none, or too small for lanes and tiles."""
    if len(nest.reductions) != 1 or nest.ordered or not all(map(is_static, nest.loops)):
        return None
    reduction, ranges = nest.reductions[0]
    if len(ranges) != 1 or not is_static(ranges[0]) or not set(nest.loops) <= reduction.ranges:
        return None
    loads = nest.within(reduction)
    columns = next((loop for loop in nest.loops if nest.accesses[0].stride(loop) == 1), None)
    if columns is None or bound(columns) < lanes:
        return None
    right = [load for load in loads if load.stride(columns) != 0]
    left = [load for load in loads if load.stride(columns) == 0]
    if len(right) != 1 or not left or right[0].node.src[0].op is not ops.PARAM:
        return None
    rows = [r for r in nest.loops if right[0].stride(r) == 0 and any(load.stride(r) != 0 for load in left)]
    if not rows or bound(rows[-1]) < LEAST_ROWS or not _has_a_box(right[0], columns, ranges[0]):
        return None
    outer = tuple([loop for loop in nest.loops if loop not in (columns, rows[-1])])
    return Product(rows[-1], columns, ranges[0], outer, right[0], right[0].stride(columns) != 1)


def _has_a_box(load: Access, columns: UOp, steps: UOp) -> bool:
    """Whether neighbours lie along the columns or the steps, and what is read is a box."""
    if 1 not in (load.stride(columns), load.stride(steps)):
        return False
    dimensions = footprint(load.node, (columns, steps))
    return dimensions is not None and len(dimensions) == 2


def _worth_a_copy(found: Product, capabilities: Capabilities) -> bool:
    """Whether columns cannot be read in place: transposed, larger than a cache, or crowding into few of its sets."""
    itemsize = found.right.node.dtype.itemsize
    second = capabilities.cache_bytes[1]
    stride = (found.right.stride(found.steps) or 0) * itemsize
    if found.transposed or stride * bound(found.steps) > second:
        return True
    way = second // WAYS
    return bound(found.steps) > WAYS * (way // math.gcd(stride, way))


def grouped(found: Product, nest: Nest, capabilities: Capabilities) -> Product:
    """The product in groups of steps, where an instruction of the target sums them up."""
    reduction, _ = nest.reductions[0]
    value = reduction.src[0]
    if reduction.arg[0] is not ops.ADD or value.op is not ops.MUL:
        return found
    factors = [factor.src[0] for factor in value.src if factor.op is ops.CAST]
    if len(factors) != 2 or any(f.op is not ops.LOAD or f.src[2] is not TRUE for f in factors):
        return found
    right = found.right.node
    left = factors[0] if factors[1] is right else factors[1]
    slots = {node.src[0] for node in (left, right, nest.store)}
    contiguous = [access.stride(found.steps) for access in nest.accesses if access.node is left] == [1]
    if right not in factors or len(slots) < 3 or not contiguous:
        return found
    for kind in capabilities.dots:
        if kind.accumulator is not reduction.dtype or bound(found.steps) < 4 * kind.size:
            continue
        if [factor.dtype for factor in factors] == [kind.left, kind.right]:
            return replace(found, group=kind.size)
        if [left.dtype, right.dtype, kind.left] == [kind.right, dtypes.int8, dtypes.uint8]:
            return replace(found, group=kind.size, offset=True)
    return found


# --- sizes ------------------------------------------------------------------------------------------------


def blocks_of(found: Product, lanes: int, capabilities: Capabilities) -> Blocks:
    """A copy takes half of the second cache, the partial results of its rows a quarter."""
    itemsize = max(found.right.node.dtype.itemsize * found.group, capabilities.vector_bytes // lanes)
    second = capabilities.cache_bytes[1]
    total = bound(found.columns)
    few = bound(found.rows) < FEW_ROWS
    steps = _steps(found.count, MOST_STEPS * 8 if few else MOST_STEPS)
    spared = 1.1 if found.group == 1 else 1.25  # what a tile of one vector costs beside one of two
    vectors = 2 if _padded(total, 2 * lanes) <= spared * _padded(total, lanes) else 1
    width = lanes * vectors
    tile_bytes = steps * itemsize * width
    room = min(4, max(1, 2 * second // tile_bytes)) if few else max(2, second // 2 // tile_bytes)
    columns = width * _share(-(-total // width), room, capabilities.threads * PIECES_PER_THREAD)
    tile = best_rows(
        bound(found.rows), max(1, min((capabilities.vector_registers - vectors - 1) // vectors, WAYS))
    )
    rows = bound(found.rows)
    if steps < found.count:
        rows = min(rows, max(1, second // 4 // (columns * itemsize * tile)) * tile)
    return Blocks(columns, steps, rows, tile, lanes, vectors)


def _steps(total: int, most: int) -> int:
    """Steps of a block: all of them, or so many that as few as possible are left over.

    >>> _steps(1100, 1024), _steps(4097, 1024), _steps(4096, 1024)
    (1100, 1024, 1024)
    """
    if total <= most + most // 4:
        return total
    return min(range(most // 2, most + 1), key=lambda size: (total % size, -size))


def _padded(total: int, size: int) -> int:
    return -(-total // size) * size


def _share(tiles: int, most: int, wanted: int) -> int:
    """Tiles of one piece: at most so many, and enough pieces for all threads where there are enough tiles.

    >>> _share(32, 8, 4), _share(33, 4, 4), _share(3, 16, 4)
    (8, 4, 3)
    """
    pieces = max(-(-tiles // most), wanted if tiles >= wanted else 1)
    return -(-tiles // pieces)


# --- writing actions --------------------------------------------------------------------------------------


def _actions(
    found: Product, blocks: Blocks, capabilities: Capabilities, plan: _Plan, parallel: bool
) -> list[Action]:
    columns, rows = number(found.columns), number(found.rows)
    width = blocks.lanes * blocks.vectors
    tiles, inside, _ = plan.split(columns, width, bound(found.columns), "mask")
    pieces, across, _ = plan.split(tiles, blocks.columns // width, -(-bound(found.columns) // width), "bound")
    part, rows, rows_count = _parts(found, blocks, pieces, capabilities, plan, rows, parallel)
    steps, group = _group(found, plan)
    chunks, steps, _ = plan.split(steps, blocks.steps, found.count)
    copied = _copy(found, blocks, plan, across, inside, steps, group)
    if chunks >= 0:
        plan.actions.append(Carry((chunks,), tuple([each for each in (rows, across, inside) if each >= 0])))
    tiles, tile, tile_rest = plan.split(rows, blocks.tile, rows_count)
    plan.bind("unroll", tile, *([] if rows_count == DYNAMIC else [tile_rest]))
    unrolled, vector, _ = plan.split(inside, blocks.lanes, blocks.lanes * blocks.vectors)
    plan.bind("unroll", unrolled)
    plan.bind("vector", vector)
    inner = _unrolled_steps(plan, steps, blocks.steps)
    outer = [number(loop) for loop in found.outer]
    if parallel:
        outer = _grid(plan, outer, [each for each in (pieces, part) if each >= 0], found, capabilities)
    else:
        outer += [each for each in (pieces, part) if each >= 0]
    order = (*outer, chunks, *copied, tiles, tile, tile_rest, across, unrolled, vector, *inner)
    plan.actions.append(Order(tuple([each for each in order if each >= 0])))
    return plan.actions


def _parts(
    found: Product,
    blocks: Blocks,
    pieces: int,
    capabilities: Capabilities,
    plan: _Plan,
    rows: int,
    parallel: bool,
) -> tuple[int, int, int]:
    """Split the rows where partial results or threads ask for it: (parts, rows of one, how many at most)."""
    size, total = blocks.rows, bound(found.rows)
    shares = math.prod(map(bound, found.outer)) * -(-bound(found.columns) // blocks.columns)
    wanted = 2 * PIECES_PER_THREAD * capabilities.threads
    if parallel and shares < wanted:
        share = max(-(-total // -(-wanted // shares)), COPIED_FOR)
        size = min(size, -(-share // blocks.tile) * blocks.tile)
    if size >= total:
        return -1, rows, total
    part, inner = next(plan.ids), next(plan.ids)
    plan.actions.append(Split(rows, size, part, inner, "mask" if total % size == 0 else "bound"))
    return part, inner, size if total % size == 0 else DYNAMIC


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
    order = tuple([each for each in (across, steps, inside, group) if each >= 0])
    copies = tuple([next(plan.ids) for _ in order])
    *tiles, down, row = copies[:-1] if group >= 0 else copies
    slot = int(found.right.node.src[0].arg[0])
    plan.actions.append(StageInThread(slot, order, copies, 0, order))
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


def _unrolled_steps(plan: _Plan, steps: int, total: int) -> list[int]:
    if total < 8:
        return [steps]
    outer, inner, rest = plan.split(steps, 4, total)
    plan.bind("unroll", inner, rest)
    return [outer, inner, rest]


def _grid(
    plan: _Plan, outer: list[int], parts: list[int], found: Product, capabilities: Capabilities
) -> list[int]:
    """Everything that can run at once is a dimension of the grid, three at most; the rest are loops in it."""
    chosen = [*parts, *reversed(outer)][:3] if parts else list(reversed(outer))[:3]
    plan.bind("global", *chosen)
    return [*chosen, *[each for each in outer if each not in chosen]]

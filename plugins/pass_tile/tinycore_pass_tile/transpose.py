"""Nests that walk some memory along one range and other memory along another: transposes, changes of layout.

One of the two ranges gets the lanes, the other is unrolled as often, so that each body handles a square in
registers whose rows are accessed as a whole (`tinycore.codegen.relayout`). Squares lie in blocks: those
pages and cache lines that the short side touches are touched again soon.

Where rows of the result begin anywhere in a line of the cache, the squares of a block are put together in
memory of the thread, and its rows are stored line by line (`tinycore.codegen.skew`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tinycore.codegen.footprint import footprint
from tinycore.codegen.skew import Skew
from tinycore.codegen.tiling import Action, Bind, Order, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Nest, balanced, bound, is_static, largest_itemsize, number
from tinycore_pass_tile.lines import LINE, along_lines, is_long, streams, unaligned

MOST_LANES = 16
"""Larger squares of narrow elements do not fit into the registers."""
BLOCK = 8
"""Squares of a block in each direction."""
SMALL_EXPRESSION = 40
"""Nodes up to which as many copies as lanes are not too much code."""
SERIAL_WORK = 1 << 14
CHUNKS_PER_THREAD = 4
LEAST_CHUNK = 1 << 13
ACROSS, ALONG = 512, 1024
"""Bytes of a block that is transposed in memory of the thread: some lines of every row read, and more of every
row to be stored. With the line before it these are an odd number, so that columns share no sets of a cache."""
STAGED_WORK = 1 << 13
"""Smaller results are rather stored in parts of lines."""
WIDE = 256
"""Rows of the result beside one another that read enough of every row of the operand at a time."""
WAYS = 8
"""Lines of one set of a cache, where nothing better is known."""
VECTORS = 2
"""Vectors of a row that are stored at a time."""


@dataclass(frozen=True, slots=True)
class Square:
    """The two ranges, `stored` first along which the result is contiguous, and the tile: lanes by copies."""

    vector: UOp
    unrolled: UOp
    stored: UOp
    lanes: int
    copies: int

    @property
    def across(self) -> UOp:
        """The one of the two that is not `stored`."""
        return self.vector if self.stored is self.unrolled else self.unrolled


def square_of(nest: Nest, capabilities: Capabilities) -> Square | None:
    """The two ranges of a transposing nest; None where a nest is of another kind."""
    if nest.reductions or nest.ordered or ops.SHUFFLE not in capabilities.ops:
        return None
    lanes = min(MOST_LANES, capabilities.vector_bytes // largest_itemsize(nest))
    walks = _walks(nest)
    if lanes < 4 or len(walks) != 2 or nest.store not in walks.values():
        return None
    stored, other = sorted(walks, key=lambda r: walks[r] is not nest.store)
    # The fewer accesses need shuffles the better; but lanes want to be full.
    vector, unrolled = sorted((stored, other), key=lambda r: (-min(bound(r), lanes), -_walking(nest, r)))
    while lanes > bound(vector):
        lanes //= 2
    if lanes < 4 or bound(unrolled) < 2:
        return None
    copies = lanes if len(nest.store.toposort()) <= SMALL_EXPRESSION else 4
    return Square(vector, unrolled, stored, lanes, min(copies, bound(unrolled)))


def _walks(nest: Nest) -> dict[UOp, UOp]:
    """Ranges along which some access is contiguous while it jumps along another one, with such an access."""
    found: dict[UOp, UOp] = {}
    for access in nest.accesses:
        strides = {r: access.stride(r) for r in nest.loops}
        along = [r for r, stride in strides.items() if stride == 1]
        if len(along) == 1 and is_static(along[0]) and None not in strides.values():
            found.setdefault(along[0], access.node)
    return {
        walked: node
        for walked, node in found.items()
        if all(
            access.stride(walked) != 1
            or all(access.stride(r) not in (0, 1) for r in found if r is not walked)
            for access in nest.accesses
        )
    }


def _walking(nest: Nest, along: UOp) -> int:
    return sum(access.stride(along) == 1 for access in nest.accesses)


def choose_transpose(
    nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool
) -> list[Action]:
    """The actions for one store (its ranges are merged already); none where it is no transpose."""
    square = square_of(nest, capabilities)
    if square is None:
        return []
    slots = _staged(nest, square, capabilities) if parallel else {}
    if slots:
        return _through_blocks(nest, square, slots, capabilities, ids, parallel)
    sizes = {square.vector: square.lanes, square.unrolled: square.copies}
    actions, renamed, order = _shared(nest, square, sizes, capabilities, ids, parallel)
    others = [r for r in nest.loops if r not in (square.vector, square.unrolled)]
    order += [renamed[r] for r in others]
    blocks: list[int] = []
    inside: list[int] = []
    for r in (square.across, square.stored):
        tile, lane, rest, block, place = (next(ids) for _ in range(5))
        kind = "vector" if r is square.vector else "unroll"
        actions += [
            Split(renamed[r], sizes[r], tile, lane, "peel mask", rest),
            Bind(lane, kind),
            Bind(rest, kind),
            Split(tile, BLOCK, block, place, "bound"),
        ]
        blocks.append(block)
        inside.append(place)
    actions.append(Order((*order, *blocks, *inside)))
    return actions


def _staged(nest: Nest, square: Square, capabilities: Capabilities) -> dict[int, int]:
    """The buffers whose blocks are to be transposed in memory of the thread first, with the sizes of their elements."""
    if len(capabilities.cache_bytes) < 2 or nest.work < STAGED_WORK or bound(square.across) < square.copies:
        return {}
    if not is_long(nest, square.stored) or not _stores_parts(nest, square, capabilities):
        return {}
    slots: dict[UOp, bool] = {}
    for access in nest.accesses[1:]:
        if {square.across, square.stored} <= access.node.ranges:
            jumps = access.stride(square.across) == 1 and access.stride(square.stored) != 1
            box = footprint(access.node, (square.across, square.stored)) if jumps else None
            memory = access.node.src[0]
            slots[memory] = slots.get(memory, True) and box is not None and len(box) == 2
    found = [memory for memory, staged in slots.items() if staged and memory.op is ops.PARAM]
    return {int(memory.arg[0]): memory.dtype.itemsize for memory in found}


def _stores_parts(nest: Nest, square: Square, capabilities: Capabilities) -> bool:
    """Whether squares store parts of lines that meet only in memory: because they are not read again soon, or
    because those that a square stores crowd into few sets of the first cache."""
    vector = nest.store.src[2].dtype.itemsize * square.lanes
    streamed = streams(nest.store, capabilities)
    if not unaligned(nest, square.stored) and (vector >= LINE // 2 if streamed else vector >= LINE):
        return False
    wide = bound(square.across) >= WIDE or vector < LINE // 2
    return (wide and streamed) or _crowded(nest, square, capabilities)


def _crowded(nest: Nest, square: Square, capabilities: Capabilities) -> bool:
    """Whether the lines that a square stores to share few sets of the first cache: parts of lines are thrown out
    before the rest of them is stored."""
    stride = (nest.accesses[0].stride(square.across) or 0) * nest.store.src[2].dtype.itemsize
    way = capabilities.cache_bytes[0] // WAYS
    rows = square.copies if square.across is square.unrolled else square.lanes
    sets = Counter(row * stride % way // LINE for row in range(rows))
    return max(sets.values()) > WAYS // 2


def _through_blocks(
    nest: Nest,
    square: Square,
    slots: dict[int, int],
    capabilities: Capabilities,
    ids: Iterator[int],
    parallel: bool,
) -> list[Action]:
    """Blocks are transposed into memory of the thread; their rows are stored from there line by line."""
    itemsize = largest_itemsize(nest)
    size = ALONG // itemsize
    sizes = {square.across: square.copies, square.stored: size}
    actions, renamed, order = _shared(nest, square, sizes, capabilities, ids, parallel)
    chunks = [a.size for a in actions if isinstance(a, Split) and a.range == number(square.across)]
    height = _height((chunks or [bound(square.across)])[0], square.copies, itemsize, capabilities)
    order += [renamed[r] for r in nest.loops if r not in sizes]
    rows, row, block, inner, down, along = (next(ids) for _ in range(6))
    stored, line = renamed[square.stored], LINE // nest.store.src[2].dtype.itemsize
    actions += [
        Split(renamed[square.across], height, rows, row, "bound"),
        Skew(stored, row, size, line, block, inner, tuple(slots), (down, along)),
    ]
    order += [block, rows]
    lanes = min(MOST_LANES, capabilities.vector_bytes // max(slots.values()))
    for target, kind, each in ((along, "vector", lanes), (down, "unroll", square.copies)):
        tiles, tile, rest, more, last = (next(ids) for _ in range(5))
        actions += [
            Split(target, each, tiles, tile, "peel", rest),
            Bind(tile, kind),
            Split(rest, each, more, last, "mask"),
            Bind(last, kind),
        ]
        order += [tiles, more]
    lines, loops = along_lines(inner, capabilities.vector_bytes // itemsize, VECTORS, ids)
    return [*actions, *lines, Order((*order, row, *loops))]


def _height(total: int, copies: int, itemsize: int, capabilities: Capabilities) -> int:
    """Rows of a block: about as many as are read at once, in pieces of one size, in half of the second cache."""
    room = capabilities.cache_bytes[1] // 2 // (ALONG + LINE)
    wanted = max(1, min(ACROSS // itemsize, room))
    pieces = max(1, round(total / wanted))
    return -(-total // pieces // copies) * copies


def _shared(
    nest: Nest,
    square: Square,
    sizes: dict[UOp, int],
    capabilities: Capabilities,
    ids: Iterator[int],
    parallel: bool,
) -> tuple[list[Action], dict[UOp, int], list[int]]:
    """Hand out one range to threads: the actions, what each range is called then, and the loops of the grid."""
    renamed = {r: number(r) for r in nest.loops}
    chosen = _chunks(nest, square, sizes, capabilities) if parallel else None
    if chosen is None:
        return [], renamed, []
    outer, inner = next(ids), next(ids)
    split = Split(number(chosen), _chunk_size(nest, chosen, sizes, capabilities), outer, inner, "bound")
    renamed[chosen] = inner
    return [split, Bind(outer, "global"), Bind(inner, "loop")], renamed, [outer]


def _chunks(nest: Nest, square: Square, sizes: dict[UOp, int], capabilities: Capabilities) -> UOp | None:
    """The range that is handed out to threads: the outermost with enough to share; of the square's two ranges the
    one that is stored last, unless the other is much shorter."""
    if capabilities.threads < 2 or nest.work < SERIAL_WORK:
        return None
    first = square.stored if bound(square.stored) > 4 * bound(square.across) else square.across
    inner = (square.stored, square.across)
    candidates = sorted(nest.loops, key=lambda r: (r in inner, r is not first))

    def units(r: UOp) -> int:
        return bound(r) // sizes.get(r, 1)

    enough = [r for r in candidates if units(r) >= 2 * capabilities.threads]
    best = enough[0] if enough else max(candidates, key=units)
    return best if units(best) >= 2 else None


def _chunk_size(nest: Nest, chosen: UOp, sizes: dict[UOp, int], capabilities: Capabilities) -> int:
    chunks = min(capabilities.threads * CHUNKS_PER_THREAD, max(2, nest.work // LEAST_CHUNK))
    step, total = sizes.get(chosen, 1), bound(chosen)
    if not is_static(chosen):
        return max(step, -(-total // chunks // step) * step)
    return balanced(total, max(1, total // chunks // step) * step, step, capabilities.threads)

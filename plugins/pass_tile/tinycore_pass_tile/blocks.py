"""Sizes of the blocks of a product of matrices: what is copied at once, and how threads share the result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinycore.ir import Capabilities
from tinycore_pass_tile.analysis import bound
from tinycore_pass_tile.product import WAYS, Product
from tinycore_pass_tile.strips import best_rows

FEW_ROWS = 48
"""Fewer rows use a copy so seldom that it need not stay in the second cache: it is one block of steps."""
COPY_ROWS = 8
"""A copy of columns costs about as much as so many rows of their products."""
READ_ROW, COPIED_ROW = 0.25, 0.75
"""Reading and copying a row costs about as much as its products with so many tiles of columns."""
UNSTEADY = 0.1
"""How much longer one piece of work for each thread takes than many."""
MOST_STEPS = 1024
"""Steps of one block: long enough that partial results are seldom exchanged."""
PIECES_PER_THREAD = 2


@dataclass(frozen=True)
class Blocks:
    """Sizes.

    Attributes
    ----------
    columns, steps: of a copy of the right operand.
    part: rows of one piece of work, which share partial results.
    rows: rows of a copy of the left operand, where that is copied.
    tile, lanes, vectors: rows and vectors of a register tile.
    """

    columns: int
    steps: int
    part: int
    rows: int
    tile: int
    lanes: int
    vectors: int


def blocks_of(found: Product, lanes: int, capabilities: Capabilities, parallel: bool) -> Blocks:
    """A copy takes half of the second cache, the partial results of its rows a quarter, the rows another."""
    rows = bound(found.rows)
    itemsize = max(found.right.node.dtype.itemsize * found.group, capabilities.vector_bytes // lanes)
    second = capabilities.cache_bytes[1]
    few = rows < FEW_ROWS
    steps = steps_of(found.count, MOST_STEPS * 8 if few else MOST_STEPS)
    spared = 1.1 if found.group == 1 else 1.25  # what a tile of one vector costs beside one of two
    total = bound(found.columns)
    vectors = 2 if _padded(total, 2 * lanes) <= spared * _padded(total, lanes) else 1
    width = lanes * vectors
    tile_bytes = steps * itemsize * width
    room = min(4, max(1, 2 * second // tile_bytes)) if few else max(2, second // 2 // tile_bytes)
    tile = best_rows(rows, max(1, min((capabilities.vector_registers - vectors - 1) // vectors, WAYS)))
    threads = capabilities.threads if parallel else 1
    across, part = _share(found, -(-total // width), room, tile, threads)
    columns = across * width
    if steps < found.count:
        part = min(part, max(1, second // 4 // (columns * itemsize * tile)) * tile)
    copied = rows
    if found.left:
        copied = even_part(part, max(1, second // 4 // (steps * itemsize * tile)) * tile, tile)
    return Blocks(columns, steps, part, copied, tile, lanes, vectors)


def steps_of(total: int, most: int) -> int:
    """Steps of a block: all of them, or so many that as few as possible are left over.

    >>> steps_of(1100, 1024), steps_of(4097, 1024), steps_of(4096, 1024)
    (1100, 1024, 1024)
    """
    if total <= most + most // 4:
        return total
    return min(range(most // 2, most + 1), key=lambda size: (total % size, -size))


def even_part(total: int, most: int, multiple: int) -> int:
    """The largest part that is not larger than wanted, one that divides the whole if there is one near.

    >>> even_part(384, 80, 8), even_part(127, 80, 8), even_part(40, 80, 8)
    (64, 64, 40)
    """
    least = -(-total // most)
    if least == 1:
        return total
    sizes = [_padded(-(-total // count), multiple) for count in range(least, 2 * least + 1)]
    return next((size for size in sizes if total % size == 0), sizes[0])


def _padded(total: int, size: int) -> int:
    return -(-total // size) * size


def _share(found: Product, tiles: int, most: int, tile: int, threads: int) -> tuple[int, int]:
    """(tiles of columns, rows) of one piece of work: the sharing that should end first.

    What a piece costs beside its products: the copy of its columns, and reading (or copying) its rows.
    """
    rows, outer = bound(found.rows), math.prod(map(bound, found.outer))
    if threads == 1 or outer >= 2 * PIECES_PER_THREAD * threads:
        return -(-tiles // -(-tiles // most)), rows
    reading = COPIED_ROW if found.left else READ_ROW
    least = -(-tiles // most)
    best = (math.inf, 0, tiles, rows)
    for wanted in range(least, max(least, min(tiles, 2 * PIECES_PER_THREAD * threads)) + 1):
        across = -(-tiles // wanted)
        pieces = -(-tiles // across) * outer
        for count in range(1, 2 * PIECES_PER_THREAD * threads + 1):
            part = min(rows, _padded(-(-rows // count), tile))
            work = pieces * -(-rows // part)
            time = -(-work // threads) * (across * (part + COPY_ROWS) + part * reading)
            # More pieces than threads even out what else a processor does.
            best = min(best, (time * (1 + UNSTEADY * threads / work), work, across, part))
    return best[2], best[3]

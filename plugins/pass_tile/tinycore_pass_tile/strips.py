"""How much of an image a convolution copies at once, and the sizes of its register tile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tinycore.codegen.footprint import Dimension
from tinycore.ir import Capabilities, UOp
from tinycore_pass_tile.analysis import Access, bound

LEAST_STEPS = 8
"""Channels of a strip, where it is too large with all of them."""
LEAST_CACHE = 1 << 18
"""Bytes of a second-level cache where none is known."""
COPYING = 3.0
"""Cycles to copy a vector of a strip; a vector of products takes one."""
CARRYING = 4.0
"""Cycles to put a vector of partial results aside and take it up again."""


@dataclass(frozen=True)
class Windows:
    """What was recognised.

    Attributes
    ----------
    filters: the loop that gets the lanes.
    spatial: loops over pixels, the one that moves least first.
    others: the remaining loops, outermost first.
    sliding: reduced ranges that share a dimension with a pixel loop.
    plain: the other reduced ranges.
    images: the loads to stage.
    walked: for each of them the dimensions that two pixel loops and the reduced ranges walk.
    weights: the other loads.
    """

    filters: UOp
    spatial: tuple[UOp, ...]
    others: tuple[UOp, ...]
    sliding: tuple[UOp, ...]
    plain: tuple[UOp, ...]
    images: tuple[Access, ...]
    walked: tuple[tuple[Dimension, ...], ...]
    weights: tuple[Access, ...]

    @property
    def filter_loops(self) -> list[UOp]:
        """The loops that all images are the same for."""
        return [loop for loop in self.others if not any(loop in image.node.ranges for image in self.images)]

    @property
    def channels(self) -> int:
        """Steps of the last plain range."""
        return bound(self.plain[-1]) if self.plain else 1

    @property
    def rows(self) -> int:
        """Rows of an image."""
        return bound(self.spatial[1]) if len(self.spatial) > 1 else 1


@dataclass(frozen=True)
class Strip:
    """What is staged at once, and the register tile inside.

    Attributes
    ----------
    columns, rows: of the image: iterations of the first and of the second pixel loop.
    steps: of the last of the plain ranges.
    tile: pixels of a register tile along the first loop, and along the second one.
    """

    columns: int
    rows: int
    steps: int
    tile: tuple[int, ...]


def best_strip(found: Windows, budget: int, lanes: int, capabilities: Capabilities) -> Strip | None:
    """Strips of whole rows and all channels leave most of the second cache free, and are as large as threads
    allow. Where those are too large the strip with the least to copy is taken; None where none fits.

    Strips of some channels leave partial results behind, which wait in the cache, too.
    """
    caches = capabilities.cache_bytes
    room = max(caches[1] if len(caches) > 1 else LEAST_CACHE, LEAST_CACHE) // 4
    whole = [strip for strip in _whole_strips(found, budget) if strip_bytes(found, strip) <= room]
    if whole:
        return max(whole, key=lambda strip: _balance(found, strip, capabilities))
    parts = [
        strip
        for strip in _parts(found, budget)
        if strip_bytes(found, strip) <= (room if strip.steps < found.channels else 2 * room)
        and _carried_bytes(found, strip, capabilities) <= 2 * room
    ]
    return min(parts, key=lambda strip: _cost(found, strip, lanes, capabilities), default=None)


def over_filters(found: Windows, capabilities: Capabilities) -> bool:
    """Whether threads share the image rather than the weights, because those are more to read."""
    count = math.prod(bound(loop) for loop in found.filter_loops)
    return count >= 2 * capabilities.threads and _bytes(found.weights) > _bytes(found.images)


def strip_bytes(found: Windows, strip: Strip) -> int:
    """Memory for the copy, with the borders that windows reach into."""
    shorter = {found.spatial[0]: strip.columns}
    if len(found.spatial) > 1:
        shorter[found.spatial[1]] = strip.rows
    if found.plain:
        shorter[found.plain[-1]] = strip.steps
    total = 0
    for image, dimensions in zip(found.images, found.walked, strict=True):
        size = image.node.dtype.itemsize
        for dimension in dimensions:
            left_out = sum((bound(r) - shorter[r]) * ratio for r, ratio in dimension.ranges if r in shorter)
            size *= dimension.extent - left_out
        total += size
    return total


# --- candidates -------------------------------------------------------------------------------------------


def _whole_strips(found: Windows, budget: int) -> Iterator[Strip]:
    """Strips of all channels: whole rows, or parts of the only row."""
    columns = bound(found.spatial[0])
    tile = _tile(columns, found.rows, len(found.spatial), budget)
    if len(found.spatial) > 1:
        for rows in _divisors(found.rows, tile[1] if len(tile) > 1 else 1):
            yield Strip(columns, rows, found.channels, tile)
    else:
        for size in _divisors(columns, tile[0]):
            yield Strip(size, 1, found.channels, _tile(size, 1, 1, budget))


def _parts(found: Windows, budget: int) -> Iterator[Strip]:
    """Those, and strips of some channels; where rows are long, parts of a row."""
    total = bound(found.spatial[0])
    steps = _divisors(found.channels, min(LEAST_STEPS, found.channels))
    for columns in _divisors(total, best_rows(total, budget)):
        tile = _tile(columns, found.rows, len(found.spatial), budget)
        for rows in _divisors(found.rows, tile[1] if len(tile) > 1 else 1):
            for count in steps:
                yield Strip(columns, rows, count, tile)


def _divisors(total: int, least: int) -> list[int]:
    """The divisors from a number on; `total` in any case."""
    return [size for size in range(max(1, least), total // 2 + 1) if total % size == 0] + [total]


# --- judging ----------------------------------------------------------------------------------------------


def _balance(found: Windows, strip: Strip, capabilities: Capabilities) -> tuple[bool, int]:
    """Enough blocks for all threads first, then few copied borders."""
    size = strip.rows * strip.columns
    blocks = bound(found.spatial[0]) * found.rows // size
    for loop in found.others:
        if all(loop in image.node.ranges for image in found.images):
            blocks *= bound(loop)
    enough = blocks >= 4 * capabilities.threads or over_filters(found, capabilities)
    return enough, size if enough else -size


def _cost(found: Windows, strip: Strip, lanes: int, capabilities: Capabilities) -> tuple[bool, float]:
    """Enough blocks first; then cycles for a pixel and a channel, beside those for its products."""
    vectors = -(-_filters(found, capabilities) // lanes)
    taps = math.prod(bound(each) for each in (*found.sliding, *found.plain[:-1]))
    elements = strip_bytes(found, strip) / found.images[0].node.dtype.itemsize
    copied = COPYING / lanes * elements / (strip.columns * strip.rows * strip.steps)
    carried = CARRYING * vectors / strip.steps if strip.steps < found.channels else 0.0
    enough, _ = _balance(found, strip, capabilities)
    return not enough, (copied + carried) / (taps * vectors)


def _filters(found: Windows, capabilities: Capabilities) -> int:
    """Filters that one strip meets."""
    count = bound(found.filters)
    if not over_filters(found, capabilities):
        count *= math.prod(bound(loop) for loop in found.filter_loops)
    return count


def _carried_bytes(found: Windows, strip: Strip, capabilities: Capabilities) -> int:
    """Memory for the partial results of a strip."""
    if strip.steps == found.channels:
        return 0
    size = found.weights[0].node.dtype.itemsize * strip.rows * strip.columns
    return size * _filters(found, capabilities)


def _bytes(accesses: tuple[Access, ...]) -> int:
    total = 0
    for access in accesses:
        size = access.node.dtype.itemsize
        for node in access.node.ranges:
            size *= bound(node)
        total += size
    return total


# --- register tiles ---------------------------------------------------------------------------------------


def _tile(columns: int, rows: int, loops: int, budget: int) -> tuple[int, ...]:
    """How many pixels of each loop a register tile has."""
    first = best_rows(columns, budget)
    if loops < 2 or first * 2 > budget:
        return (first,)
    return first, min(rows, budget // first)


def best_rows(total: int, most: int) -> int:
    """Rows of a register tile: as many as wanted, so that as few as possible are left over.

    >>> best_rows(56, 14), best_rows(57, 14), best_rows(7, 14)
    (14, 12, 7)
    """
    if total <= most:
        return total
    sizes = range(max(1, most // 2), most + 1)
    return max(sizes, key=lambda size: (_efficiency(total, size, most), size))


def _efficiency(total: int, size: int, most: int) -> float:
    """A tile of few rows reads more than it computes; a rest is such a tile."""

    def cost(rows: int) -> float:
        return max(rows, most / 2) if rows else 0.0

    return total / (total // size * cost(size) * (1 + 0.3 * (most - size) / most) + cost(total % size))

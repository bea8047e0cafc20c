"""Rows that are stored line by line of the cache, wherever in a line each of them begins.

A result that is not read again soon goes past the caches, which needs whole lines. Where the length of a row
is no multiple of a line, every row begins at another place of one: a part of a vector up to the first line,
whole vectors from there on, and a part of a vector at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinycore.codegen.skew import Align
from tinycore.codegen.tiling import Action, Bind, Split
from tinycore.ir import Capabilities, UOp, dims, ops
from tinycore_pass_tile.analysis import Nest, bound, is_static

LINE = 64
"""Bytes of a line of a cache."""
LEAST_LINES = 6
"""Shorter rows have more edges than lines."""


def streams(store: UOp, capabilities: Capabilities) -> bool:
    """Whether a result is too large to be found in a cache by who reads it next.

    A buffer that the kernel reads, too, is in the caches already.
    """
    if capabilities.workgroups or not capabilities.cache_bytes:
        return False
    size = dims.upper(dims.product(store.src[0].shape)) * store.src[2].dtype.itemsize
    reads = any(node.op is ops.LOAD and node.src[0] is store.src[0] for node in store.toposort())
    return size > capabilities.cache_bytes[-1] // 2 and not reads


def is_long(nest: Nest, row: UOp, lines: int = LEAST_LINES) -> bool:
    """Whether a range walks rows of the result that are many lines long."""
    long = bound(row) * nest.store.src[2].dtype.itemsize >= lines * LINE
    return long and is_static(row) and nest.accesses[0].stride(row) == 1


def unaligned(nest: Nest, row: UOp) -> bool:
    """Whether rows of the result begin anywhere in a line."""
    strides = [nest.accesses[0].stride(loop) for loop in nest.loops if loop is not row]
    itemsize = nest.store.src[2].dtype.itemsize
    return None not in strides and any(int(stride or 0) * itemsize % LINE for stride in strides)


def along_lines(target: int, lanes: int, vectors: int, ids: Iterator[int]) -> tuple[list[Action], list[int]]:
    """The actions for a range whose stores are to be whole lines, and its loops in order."""
    head, rest, first, lane = (next(ids) for _ in range(4))
    tiles, tile, remainder, copy, vector, more, last = (next(ids) for _ in range(7))
    actions: list[Action] = [
        Align(target, lanes, head, rest),
        Split(head, lanes, first, lane, "mask"),
        Bind(lane, "vector"),
        Split(rest, lanes * vectors, tiles, tile, "peel", remainder),
        Split(tile, lanes, copy, vector, "mask"),
        Bind(copy, "unroll"),
        Bind(vector, "vector"),
        Split(remainder, lanes, more, last, "mask"),
        Bind(last, "vector"),
    ]
    return actions, [first, tiles, more]

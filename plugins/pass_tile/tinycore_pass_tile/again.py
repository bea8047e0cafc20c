"""Kernels that pass over the same row several times and compute something dear in each of the passes: softmax.

What is dear is computed in one more pass of its own and kept in memory of the thread, in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinycore.codegen.keep import Keep, repeated
from tinycore.codegen.tiling import Action, Bind, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import Nest, bound, is_static, number

LEAST_COST = 12
"""Additions that storing a value and loading it again costs."""
VECTORS = 2


def choose_again(nest: Nest, capabilities: Capabilities, ids: Iterator[int]) -> Keep | None:
    """The action for a store whose rows are walked several times; None where nothing is worth keeping."""
    row = nest.loops[-1] if nest.loops else None
    if row is None or nest.ordered or not nest.reductions or len(capabilities.cache_bytes) < 2:
        return None
    if not is_static(row) or any(row in reduction.ranges for reduction, _ in nest.reductions):
        return None
    found = repeated(nest.store, row, LEAST_COST)
    size = sum(bound(row) * each.value.dtype.itemsize for each in found)
    if not found or size > capabilities.cache_bytes[1] // 4:
        return None
    return Keep(number(row), LEAST_COST, tuple([next(ids) for _ in found]))


def filled(keep: Keep, kernel: UOp, capabilities: Capabilities, ids: Iterator[int]) -> list[Action]:
    """Lanes for the loops that fill what is kept."""
    actions: list[Action] = []
    for node in kernel.toposort():
        if node.op is not ops.END or node.src[1].arg[0] not in keep.copies:
            continue
        loop, lanes = node.src[1], capabilities.vector_bytes // node.src[0].src[2].dtype.itemsize
        while lanes > bound(loop) and lanes > 1:
            lanes //= 2
        vectors = VECTORS if bound(loop) >= 2 * lanes * VECTORS else 1
        outer, tile, rest = next(ids), next(ids), next(ids)
        actions.append(Split(number(loop), lanes * vectors, outer, tile, "peel", rest))
        for part in (tile, rest):
            unrolled, vector = next(ids), next(ids)
            actions += [
                Split(part, lanes, unrolled, vector, "mask"),
                Bind(unrolled, "unroll"),
                Bind(vector, "vector"),
            ]
    return actions

"""Chooses tiling actions by rules of thumb: lanes, register tiles, threads, work-groups.

The pass reads the kernel and the target's capabilities, writes a list of actions and applies it. The actions
stay in the kernel as data: `tinycore explain` prints them, and a search starts from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tinycore.codegen.pipeline import Context
from tinycore.codegen.tiling import Action, Merge, Order, Stream, apply, ranges_of
from tinycore.ir import Capabilities, UOp, dims, ops
from tinycore_pass_tile.analysis import Nest, mergeable, nest_of, number
from tinycore_pass_tile.lanes import choose_lanes
from tinycore_pass_tile.transpose import choose_transpose
from tinycore_pass_tile.windows import choose_windows
from tinycore_pass_tile.workgroups import choose_workgroups


def run(kernel: UOp, context: Context) -> UOp:
    """The kernel with its tiling actions applied; one that an earlier pass has tiled is left as it is."""
    if kernel.arg:
        return kernel
    ids = itertools.count(max(ranges_of(kernel), default=-1) + 1)
    kernel = merge_ranges(kernel, ids)
    if not ranges_of(kernel):
        return kernel
    actions: list[Action] = []
    parallel = len(kernel.src) == 1
    capabilities = context.target.capabilities
    for statement in kernel.src:
        nest = nest_of(statement)
        if not capabilities.workgroups:
            shared = parallel and not nest.ordered
            actions += (
                choose_transpose(nest, capabilities, ids, shared)
                or choose_windows(nest, capabilities, ids, shared)
                or choose_lanes(nest, capabilities, ids, shared)
            )
        elif parallel and not nest.ordered:
            actions += choose_workgroups(nest, capabilities, ids)
    if any(streams(statement, capabilities) for statement in kernel.src):
        actions.insert(0, Stream())  # later actions name ranges by the places that `Order` gives them
    return apply(kernel, actions if parallel else _one_order(actions))


def streams(store: UOp, capabilities: Capabilities) -> bool:
    """Whether a result is too large to be found in a cache by who reads it next.

    A buffer that the kernel reads, too, is in the caches already.
    """
    if capabilities.workgroups or not capabilities.cache_bytes:
        return False
    size = dims.upper(dims.product(store.src[0].shape)) * store.src[2].dtype.itemsize
    reads = any(node.op is ops.LOAD and node.src[0] is store.src[0] for node in store.toposort())
    return size > capabilities.cache_bytes[-1] // 2 and not reads


def _one_order(actions: list[Action]) -> list[Action]:
    """`Order` renumbers every range, so several statements are ordered together, at the end."""
    orders = [action for action in actions if isinstance(action, Order)]
    joined = Order(tuple(itertools.chain.from_iterable(order.ranges for order in orders)))
    return [*[action for action in actions if not isinstance(action, Order)], joined]


def merge_ranges(kernel: UOp, ids: Iterator[int]) -> UOp:
    """Neighbouring ranges that every address walks as one become one range."""
    changed = True
    while changed:
        changed = False
        for statement in kernel.src:
            pair = _pair(nest_of(statement))
            if pair is not None:
                outer, inner = pair
                kernel = apply(kernel, [Merge(number(outer), number(inner), next(ids))])
                changed = True
                break
    return kernel


def _pair(nest: Nest) -> tuple[UOp, UOp] | None:
    groups = [nest.loops, *[ranges for _, ranges in nest.reductions]]
    for group in groups:
        ordered = sorted(group, key=number)
        for outer, inner in itertools.pairwise(ordered):
            if mergeable(nest, outer, inner):
                return outer, inner
    return None

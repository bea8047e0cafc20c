"""Chooses tiling actions by rules of thumb: lanes, register tiles, threads, work-groups.

The pass reads the kernel and the target's capabilities, writes a list of actions and applies it. The actions
stay in the kernel as data: `tinycore explain` prints them, and a search starts from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tinycore.codegen.pipeline import Context
from tinycore.codegen.tiling import Action, Merge, Order, Split, Stream, apply, ranges_of
from tinycore.ir import Capabilities, UOp, ops
from tinycore.rules import load
from tinycore_pass_tile.again import choose_again, filled
from tinycore_pass_tile.analysis import Nest, bound, is_static, mergeable, nests_of, number, separate_rows
from tinycore_pass_tile.contraction import choose_contraction
from tinycore_pass_tile.kept import choose_kept
from tinycore_pass_tile.lanes import choose_lanes
from tinycore_pass_tile.lines import streams
from tinycore_pass_tile.places import choose_places
from tinycore_pass_tile.planes import choose_planes
from tinycore_pass_tile.skinny import choose_skinny
from tinycore_pass_tile.transpose import choose_transpose
from tinycore_pass_tile.windows import choose_windows
from tinycore_pass_tile.workgroups import choose_workgroups


def run(kernel: UOp, context: Context) -> UOp:
    """The kernel with its tiling actions applied; one that an earlier pass has tiled is left as it is."""
    if kernel.arg:
        return kernel
    kernel = merge_ranges(separate_ranges(kernel))
    if not ranges_of(kernel):
        return kernel
    ids = itertools.count(max(ranges_of(kernel)) + 1)
    capabilities = context.target.capabilities
    nests = nests_of(kernel)
    parallel = len(nests) == 1
    whole = choose_kept(kernel, capabilities, ids, partial(_in_thread, capabilities)) if parallel else []
    actions = list(whole)
    if parallel and not whole and not capabilities.workgroups:
        actions, nests = _kept_again(kernel, nests, capabilities, ids)
    for nest in nests if not whole else ():
        if not capabilities.workgroups:
            shared = parallel and (not nest.ordered or separate_rows(nest))
            actions += _on_lanes(nest, capabilities, ids, shared)
        elif parallel and not nest.ordered:
            actions += choose_workgroups(nest, capabilities, ids)
    if any(streams(statement, capabilities) for statement in kernel.src):
        actions.insert(0, Stream())  # later actions name ranges by the places that `Order` gives them
    return apply(kernel, actions if parallel else _one_order(actions))


def _kept_again(
    kernel: UOp, nests: list[Nest], capabilities: Capabilities, ids: Iterator[int]
) -> tuple[list[Action], list[Nest]]:
    """What is computed in several passes over a row is kept: the actions, and the nest that remains."""
    action = None if nests[0].others else choose_again(nests[0], capabilities, ids)
    if action is None:
        return [], nests
    kept = apply(kernel, [action])
    return [action, *filled(action, kept, capabilities, ids)], nests_of(kept)


def _on_lanes(nest: Nest, capabilities: Capabilities, ids: Iterator[int], shared: bool) -> list[Action]:
    if nest.others:  # elementwise, each its own element
        return choose_lanes(nest, capabilities, ids, shared)
    return (
        choose_transpose(nest, capabilities, ids, shared)
        or choose_places(nest, capabilities, ids, shared)
        or choose_windows(nest, capabilities, ids, shared)
        or choose_planes(nest, capabilities, ids, shared)
        or choose_contraction(nest, capabilities, ids, shared)
        or choose_skinny(nest, capabilities, ids, shared)
        or choose_lanes(nest, capabilities, ids, shared)
    )


def _in_thread(capabilities: Capabilities, nest: Nest, ids: Iterator[int]) -> list[Action]:
    """The actions of a statement inside of loops that are shared by threads already."""
    return [] if nest.ordered else _on_lanes(nest, replace(capabilities, threads=1), ids, False)


def _one_order(actions: list[Action]) -> list[Action]:
    """`Order` renumbers every range, so several statements are ordered together, at the end."""
    orders = [action for action in actions if isinstance(action, Order)]
    joined = Order(tuple(itertools.chain.from_iterable(order.ranges for order in orders)))
    return [*[action for action in actions if not isinstance(action, Order)], joined]


def separate_ranges(kernel: UOp) -> UOp:
    """Ranges that addresses take apart by division become two: what was reshaped is walked axis by axis."""
    while (found := _divided(kernel)) is not None:
        node, size = found
        ranges = sorted(ranges_of(kernel))
        outer, inner = ranges[-1] + 1, ranges[-1] + 2
        place = ranges.index(number(node))
        order = Order((*ranges[:place], outer, inner, *ranges[place + 1 :]))
        kernel = apply(kernel, [Split(number(node), size, outer, inner, "mask"), order])
        kernel = load("tinycore.passes.kernel").passes["simplify"](kernel)
    return kernel


def _divided(kernel: UOp) -> tuple[UOp, int] | None:
    """A range and a divisor of it by which an address divides it; the smallest divisor first."""
    found: list[tuple[int, int, UOp]] = []
    for node in kernel.toposort():
        if node.op not in (ops.FLOORDIV, ops.FLOORMOD) or not node.src[1].is_const:
            continue
        divided, size = node.src[0], int(node.src[1].arg[0])
        if divided.op is not ops.RANGE or divided.arg[1] == "ordered" or not is_static(divided):
            continue
        if 1 < size < bound(divided) and bound(divided) % size == 0:
            found.append((size, number(divided), divided))
    if not found:
        return None
    size, _, node = min(found, key=lambda entry: entry[:2])
    return node, size


def merge_ranges(kernel: UOp) -> UOp:
    """Neighbouring ranges that every address walks as one become one range, in the place of the outer one."""
    changed = True
    while changed:
        changed = False
        for nest in nests_of(kernel):
            pair = _pair(nest)
            if pair is not None:
                outer, inner = pair
                kernel = apply(kernel, [Merge(number(outer), number(inner), number(outer))])
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

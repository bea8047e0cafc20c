"""Sums over whole images, for each place of a window: one image at a time.

The gradient of a convolution by its weights sums, for every filter, channel and place of the window, over all
pixels of all images. Summed at once, each result would read the images from end to end, with nothing left in
a cache for the next. So each image is summed by itself, with one copy of it in memory of a thread serving all
results; the sums of the images are added afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from tinycore.ir import UOp, dims, ops, toposort
from tinycore.schedule.axes import trace

MOST_BYTES = 1 << 26
"""The sums of all images must not need more memory than this."""


def split_by_image(roots: list[UOp], applies: Callable[[UOp], bool]) -> list[UOp]:
    """The roots with such sums in two steps, where `applies` says so of a value."""
    memo: dict[UOp, UOp] = {}
    for node in toposort(roots):
        src = tuple([memo[operand] for operand in node.src])
        memo[node] = changed = node if src == node.src else node.replace(src=src)
        if node.op is ops.REDUCE and applies(node):
            axis = image_axis(changed)
            if axis is not None:
                rest = tuple([each for each in changed.arg[1] if each != axis])
                inner = changed.replace(arg=(changed.arg[0], rest))
                memo[node] = UOp(ops.REDUCE, node.dtype, (inner,), (node.arg[0], (axis,)))
    return [memo[root] for root in roots]


def image_axis(reduction: UOp) -> int | None:
    """The summed axis that counts images, where windows slide over what is summed beside it; else None.

    In a convolution itself the places of the window are summed and the pixels stay: that is no such sum.
    """
    product = reduction.src[0]
    while product.op is ops.CAST:
        product = product.src[0]
    if reduction.arg[0] is not ops.ADD or product.op is not ops.MUL:
        return None
    shape, summed = product.shape, frozenset(reduction.arg[1])
    traces = [trace(operand) for operand in product.src]
    for moving, still in (traces, traces[::-1]):
        inside, outside = moving.mixed & summed, moving.mixed - summed
        if not inside or not outside or still.mixed or still.varying & outside:
            continue
        pixels, places = (
            dims.upper(dims.product(shape[axis] for axis in axes)) for axes in (inside, outside)
        )
        images = sorted((moving.varying & still.varying & summed) - inside)
        if pixels <= places or len(images) != 1:
            continue
        results = [size for axis, size in enumerate(shape) if axis not in summed or axis == images[0]]
        if dims.upper(dims.product(results)) * reduction.dtype.itemsize <= MOST_BYTES:
            return images[0]
    return None

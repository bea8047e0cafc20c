"""Sums in two steps: the sums of pieces, then the sum of those.

**Image by image**: the gradient of a convolution by its weights sums, for every filter, channel and place of
the window, over all pixels of all images. Summed at once, each result would read the images from end to end,
with nothing left in a cache for the next. So each image is summed by itself, with one copy of it in memory of a
thread serving all results; the sums of the images are added afterwards.

**Long sums of products**: a product of matrices with few rows and columns, but a long way to sum over, leaves
threads without work. Each then sums a piece of the way for all results.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinycore.ir import Capabilities, UOp, dims, ops, toposort
from tinycore.schedule.axes import trace

MOST_BYTES = 1 << 26
"""The sums of all images must not need more memory than this."""


LEAST_STEPS = 512
"""Steps of one piece of a long sum."""
LEAST_SIDE = 8
"""A matrix of fewer rows or columns is none: its product is read, not computed."""
RESULTS_PER_THREAD = 1024
"""With more results than this for every thread there is enough to share without splitting sums."""
LEAST_WORK = 1 << 20
"""Fewer products are done before a second kernel has started."""


def split_sums(roots: list[UOp], split: Callable[[UOp, UOp], UOp | None]) -> list[UOp]:
    """The roots with what `split` makes of a REDUCE, told as it was and with operands that are split already."""
    memo: dict[UOp, UOp] = {}
    for node in toposort(roots):
        src = tuple([memo[operand] for operand in node.src])
        memo[node] = changed = node if src == node.src else node.replace(src=src)
        if node.op is ops.REDUCE and node.arg[0] is ops.ADD:
            several = split(node, changed)
            memo[node] = changed if several is None else several
    return [memo[root] for root in roots]


def by_image(reduction: UOp) -> UOp | None:
    """A sum over whole images as the sum of the sums of each; None for any other."""
    axis = image_axis(reduction)
    if axis is None:
        return None
    rest = tuple([each for each in reduction.arg[1] if each != axis])
    inner = reduction.replace(arg=(ops.ADD, rest))
    return UOp(ops.REDUCE, reduction.dtype, (inner,), (ops.ADD, (axis,)))


def by_steps(reduction: UOp, capabilities: Capabilities) -> UOp | None:
    """A long sum of products, few for all threads, as the sum of the sums of pieces; None for any other.

    What pieces of one length leave over is summed in the second step.
    """
    product = reduction.src[0]
    axes, shape = reduction.arg[1], product.shape
    if product.op is not ops.MUL or len(axes) != 1 or not all(isinstance(size, int) for size in shape):
        return None
    sizes = [int(size) for size in shape]  # type: ignore[arg-type]
    axis, total = axes[0], sizes[axes[0]]
    results = math.prod(sizes) // max(1, total)
    if results > RESULTS_PER_THREAD * capabilities.threads or results * total < LEAST_WORK:
        return None
    left, right = (trace(operand).varying for operand in product.src)
    sides = [math.prod([sizes[each] for each in side - {axis}]) for side in (left - right, right - left)]
    pieces = _pieces(total, capabilities.threads)
    if min(sides) < LEAST_SIDE or axis not in left & right or pieces < 2:
        return None
    steps = total // pieces
    parts = [_in_pieces(operand, axis, pieces, steps) for operand in product.src]
    inner = product.replace(src=tuple(parts))
    inner = UOp(ops.REDUCE, reduction.dtype, (inner,), (ops.ADD, (len(sizes),)))
    result = UOp(ops.REDUCE, reduction.dtype, (inner,), (ops.ADD, (0,)))
    result = UOp(ops.RESHAPE, reduction.dtype, (result,), reduction.shape)
    if pieces * steps == total:
        return result
    rest = product.replace(src=tuple([_cut(operand, axis, pieces * steps, total) for operand in product.src]))
    return result + UOp(ops.REDUCE, reduction.dtype, (rest,), (ops.ADD, axes))


def _pieces(total: int, threads: int) -> int:
    """Into how many pieces: a few for every thread, those that leave as little over as possible."""
    most = min(4 * threads, total // LEAST_STEPS)
    if threads < 2 or most < threads:
        return 1
    return min(range(max(2, most // 2), most + 1), key=lambda count: (total % count, -count))


def _cut(operand: UOp, axis: int, start: int, stop: int) -> UOp:
    limits = [(0, size) for size in operand.shape]
    limits[axis] = (start, stop)
    return UOp(ops.SHRINK, operand.dtype, (operand,), tuple(limits))


def _in_pieces(operand: UOp, axis: int, pieces: int, steps: int) -> UOp:
    """The operand with the pieces of an axis first and the steps of a piece last."""
    if pieces * steps < operand.shape[axis]:
        operand = _cut(operand, axis, 0, pieces * steps)
    shape = operand.shape
    split = (*shape[:axis], pieces, steps, *shape[axis + 1 :])
    others = [each for each in range(len(split)) if each not in (axis, axis + 1)]
    wide = UOp(ops.RESHAPE, operand.dtype, (operand,), split)
    return UOp(ops.PERMUTE, operand.dtype, (wide,), (axis, *others, axis + 1))


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

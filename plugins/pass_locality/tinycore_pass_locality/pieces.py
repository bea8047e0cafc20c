"""Sums in two steps: the sums of pieces, then the sum of those.

**Image by image**: the gradient of a convolution by its weights sums, for every filter, channel and place of
the window, over all pixels of all images. Summed at once, each result would read the images from end to end,
with nothing left in a cache for the next. So as many images as stay in a cache are summed by themselves, or strips
of one; the sums of the pieces are added afterwards.

**Long sums of products**: a product of matrices with few rows and columns, but a long way to sum over, leaves
threads without work. Each then sums a piece of the way for all results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinycore.ir import Capabilities, UOp, dims, ops, toposort
from tinycore.schedule.axes import trace

MOST_BYTES = 1 << 26
"""The sums of all pieces must not need more memory than this."""
LEAST_CACHE = 1 << 18
"""Bytes of a second-level cache where none is known."""
PIECES_PER_THREAD = 4
BLOCK, LEAST_BLOCK = 32, 64
"""Channels, and filters, that are summed up for while a piece is in a cache; how few a thread may have of them."""
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


@dataclass(frozen=True, slots=True)
class SumOfImages:
    """A sum over whole images for each place of a window, by the axes of what is summed.

    Attributes
    ----------
    images: the axis that counts images.
    rows: the outermost axis of pixels.
    filters: the axes that only the operand without windows walks, and that stay.
    channels: the axes that only the operand with windows walks, and that stay, without the places.
    pixels: the axes of pixels of one image.
    given: whether the operand without windows is an input, which is packed as it is.
    """

    images: int
    rows: int
    filters: tuple[int, ...]
    channels: tuple[int, ...]
    pixels: tuple[int, ...]
    given: bool = False


def by_image(reduction: UOp, capabilities: Capabilities) -> UOp | None:
    """A sum over whole images as the sum of the sums of some, or of strips of them; None for any other.

    In the sums of a piece the filters come last: they get the lanes of who computes them.
    """
    found = sum_of_images(reduction)
    if found is None:
        return None
    if not all(isinstance(size, int) for size in reduction.src[0].shape):
        rest = tuple([each for each in reduction.arg[1] if each != found.images])
        inner = reduction.replace(arg=(ops.ADD, rest))
        return UOp(ops.REDUCE, reduction.dtype, (inner,), (ops.ADD, (found.images,)))
    shape = [int(size) for size in reduction.src[0].shape]  # type: ignore[arg-type]
    group, strips = _sizes(found, shape, reduction, capabilities)
    total = shape[found.images]
    whole = total // group * group
    result = _by_pieces(reduction, found, (0, whole), group, strips)
    if whole < total:
        result = result + _by_pieces(reduction, found, (whole, total), total - whole, strips)
    return result


def _sizes(
    found: SumOfImages, shape: Sequence[int], reduction: UOp, capabilities: Capabilities
) -> tuple[int, int]:
    """(images of a piece, strips of an image): what some channels and filters of a piece are fits into a part of a
    thread's cache. Channels are shared by threads, too, so that there are no more pieces than these need.
    """
    itemsize, caches = reduction.dtype.itemsize, capabilities.cache_bytes
    room = (caches[1] if len(caches) > 1 else LEAST_CACHE) // 3
    if found.given:
        return 1, 1

    def size(axes: Sequence[int]) -> int:
        return math.prod([shape[axis] for axis in axes])

    image = (
        itemsize
        * size(found.pixels)
        * sum(min(size(axes), BLOCK) for axes in (found.channels, found.filters))
    )
    results = itemsize * math.prod([n for axis, n in enumerate(shape) if axis not in reduction.arg[1]])
    images, rows = shape[found.images], shape[found.rows]
    least = min(images, -(-images * results // MOST_BYTES))
    blocks = -(-size(found.channels) // LEAST_BLOCK)
    pieces = -(-PIECES_PER_THREAD * capabilities.threads // blocks)
    most = max(min(room // image, images // pieces), 1)
    most = most if least <= most else min(images, 2 * least)
    group = min(range(max(least, most // 2, 1), most + 1), key=lambda size: (images % size, -size))
    if group > 1:
        return group, 1
    fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * images * results <= MOST_BYTES]
    return 1, min([n for n in fitting if image // n <= room], default=max(fitting, default=1))


def _by_pieces(reduction: UOp, found: SumOfImages, span: tuple[int, int], group: int, strips: int) -> UOp:
    """The sum over some of the images, in pieces of so many or in strips."""
    summed = frozenset(reduction.arg[1])
    stays = [axis for axis in range(len(reduction.shape)) if axis not in summed]
    order = [*[axis for axis in stays if axis not in found.filters], *found.filters]
    inside = [axis for axis in range(len(reduction.shape)) if axis in summed]

    def moved(node: UOp) -> UOp:
        """An operand with the pieces and strips first, what stays next, and what a piece sums last."""
        if node.op is ops.CAST or node.op is ops.MUL:
            return node.replace(src=tuple([moved(operand) for operand in node.src]))
        if span != (0, node.shape[found.images]):
            node = _cut(node, found.images, *span)
        split, places = list[int | UOp](), dict[int, int]()
        for axis, size in enumerate(node.shape):
            if axis == found.images:
                split.append((span[1] - span[0]) // group)
            elif axis == found.rows:
                split.append(strips)
            places[axis] = len(split)
            split.append(group if axis == found.images else size // strips if axis == found.rows else size)
        first = [places[found.images] - 1, places[found.rows] - 1]
        wide = UOp(ops.RESHAPE, node.dtype, (node,), tuple(split))
        rest = [places[axis] for axis in (*order, *inside)]
        return UOp(ops.PERMUTE, node.dtype, (wide,), (*first, *rest))

    product = reduction.src[0]
    last = tuple(range(2 + len(order), 2 + len(order) + len(inside)))
    inner = UOp(ops.REDUCE, reduction.dtype, (moved(product),), (ops.ADD, last))
    result = UOp(ops.REDUCE, reduction.dtype, (inner,), (ops.ADD, (0, 1)))
    result = UOp(ops.RESHAPE, reduction.dtype, (result,), tuple([reduction.shape[axis] for axis in order]))
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    result = UOp(ops.PERMUTE, reduction.dtype, (result,), back)
    return UOp(ops.RESHAPE, reduction.dtype, (result,), reduction.shape)


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


def sum_of_images(reduction: UOp) -> SumOfImages | None:
    """What windows slide over where they are summed for each of their places; None for any other sum.

    In a convolution itself the places of the window are summed and the pixels stay: that is no such sum.
    """
    product = reduction.src[0].under(ops.CAST)
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
        results = [size for axis, size in enumerate(shape) if axis not in summed]
        given = still.base.op is ops.BUFFER
        if given:
            results.append(shape[images[0]])
        if dims.upper(dims.product(results)) * reduction.dtype.itemsize <= MOST_BYTES:
            filters = tuple(sorted(still.varying - moving.varying - summed))
            channels = tuple(sorted(moving.varying - still.varying - outside - summed))
            return SumOfImages(images[0], min(inside), filters, channels, tuple(sorted(inside)), given)
    return None

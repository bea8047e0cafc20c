"""The gradient of sliding windows: windows over the cotangents, or a transposed convolution of them. UOps only."""

from __future__ import annotations

from collections.abc import Sequence, Set

from tinycore.ir import UOp, ops
from tinycore.schedule.axes import trace
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.strided import Slide, fixed
from tinycore_frontend_tensor.transposed import (
    Axis,
    Phases,
    by_phases,
    spread_taps,
    sum_of_windows,
    taps_of,
    windows_of,
)


def unslide(cotangent: UOp, slide: Slide) -> UOp:
    """The cotangent of the source of windows: for each element the sum over the windows that hold it.

    With a stride, the elements of each phase (equal remainders) are in the same places of their windows: windows
    slide over the cotangents in turn, of which each place is wanted for one of them only: a diagonal. Every index
    in it is a sum of ranges.

    Where the cotangent is itself a sum of products, one factor of which is the same for all windows (the weights
    of a convolution) and the other for all places of one, both sums become one: the gradient of a convolution is
    a transposed convolution.
    """
    source, count = slide.source, len(slide.specs)
    first = len(source.shape) - count
    axes = [
        Axis(stride, dilation, before, fixed(size))
        for (_, stride, dilation), (before, _), size in zip(
            slide.specs, slide.padding, source.shape[first:], strict=True
        )
    ]
    factors = _factors(cotangent, range(first, first + count), range(first + count, first + 2 * count))
    if factors is not None:
        moving, still, summed = factors
        return graph.reshape(sum_of_windows(moving, still, summed, axes), source.shape)
    cotangent = spread_taps(cotangent, axes)
    node = by_phases(cotangent.shape, axes, lambda chosen: _turned(cotangent, axes, chosen))
    return graph.reshape(node, source.shape)


def _turned(node: UOp, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """``(*lead, *windows, *places)`` to ``(*lead, *q, *s)``: what the elements of some phases got."""
    count, rank = len(axes), len(node.shape)
    first = rank - 2 * count
    lead, taps, phases = (
        range(first),
        range(first + count, rank + count, 2),
        range(first + count + 1, rank + count, 2),
    )
    node = taps_of(node, axes, chosen)
    node = graph.permute(node, [*lead, *phases, *taps, *range(first, first + count)])
    node = windows_of(node, axes, chosen)  # (*lead, *s, *t, *q, *t)
    pairs = [axis for k in range(first + count, first + 2 * count) for axis in (k, k + 2 * count)]
    node = graph.permute(
        node, [*lead, *range(first + 2 * count, first + 3 * count), *range(first, first + count), *pairs]
    )
    for place, each in enumerate(chosen, first + 2 * count):
        node = _diagonal(node, place, each.taps)
    return graph.reduce(node, ops.ADD, range(first + 2 * count, len(node.shape)))


def _factors(cotangent: UOp, sliding: range, places: range) -> tuple[UOp, UOp, int] | None:
    """(a, b, n) where the cotangent is a sum of products ``a * b``; a is the same for all places, b for all windows.

    The axes `sliding`, of the windows, and `places` come last. What is returned is without what it does not vary
    along: a is ``(*lead, *summed, *windows)`` and b ``(*lead, *summed, *places)`` with n summed axes, and a leading
    or summed axis may have one element in one of them.
    """
    steps: list[UOp] = []
    node = cotangent
    while node.op in (ops.RESHAPE, ops.PERMUTE):
        steps.append(node)
        node = node.src[0]
    axes: tuple[int, ...] = ()  # what is one channel in, one out, is a product without a sum
    product, shape = node, node.shape
    if node.op is ops.REDUCE and node.arg[0] is ops.ADD:
        axes, product = tuple(node.arg[1]), node.src[0]
    if product.op is not ops.MUL:
        return None
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    sizes = tuple([product.shape[axis] for axis in axes])
    operands: list[UOp] = []
    for operand in product.src:
        lifted = graph.reshape(graph.permute(operand, (*axes, *rest)), (*sizes, *shape))
        for step in reversed(steps):
            if step.op is ops.RESHAPE:
                lifted = graph.reshape(lifted, (*sizes, *step.shape))
            else:
                lifted = graph.permute(lifted, (*range(len(axes)), *[axis + len(axes) for axis in step.arg]))
        operands.append(lifted)
    summed, lead = len(axes), sliding.start
    at_windows, at_places = ([axis + summed for axis in each] for each in (sliding, places))
    order = [*range(summed, summed + lead), *range(summed)]
    for still, moving in (operands, operands[::-1]):
        same, other = trace(still).varying, trace(moving).varying
        if same.isdisjoint(at_windows) and other.isdisjoint(at_places):
            moving = graph.permute(_narrow(moving, same - other), [*order, *at_windows, *at_places])
            still = graph.permute(_narrow(still, other - same), [*order, *at_places, *at_windows])
            return _without(moving, len(places)), _without(still, len(places)), summed
    return None


def _narrow(node: UOp, axes: Set[int]) -> UOp:
    """The first element along some axes."""
    return graph.shrink(node, [(0, 1 if axis in axes else size) for axis, size in enumerate(node.shape)])


def _without(node: UOp, count: int) -> UOp:
    """The first element along so many last axes, which are left out."""
    rank = len(node.shape) - count
    node = _narrow(node, set(range(rank, rank + count)))
    return graph.reshape(node, node.shape[:rank])


def _diagonal(node: UOp, axis: int, size: int) -> UOp:
    """Two neighbouring axes of a size as one: the elements at equal places."""
    before, after = node.shape[:axis], node.shape[axis + 2 :]
    node = graph.reshape(node, (*before, size * size, *after))
    padding = [(0, 0)] * len(node.shape)
    padding[axis] = (0, size)
    node = graph.reshape(graph.pad(node, padding), (*before, size, size + 1, *after))
    limits = [(0, extent) for extent in node.shape]
    limits[axis + 1] = (0, 1)
    return graph.reshape(graph.shrink(node, limits), (*before, size, *after))

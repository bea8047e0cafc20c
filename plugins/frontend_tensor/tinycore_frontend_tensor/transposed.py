"""Transposed convolution, phase by phase, so that nobody multiplies by the zeros between spread elements. UOps only.

Along an axis of stride `s` element ``s * q + r`` of the result is ``sum(x[q - t] * weight[r + s * t] for t)``: for
each phase `r` a convolution with every s-th element of the weight. Phases with equally many taps (there are two
kinds at most) are one convolution with that many times the filters. The gradient of a convolution by its
image is the same sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinycore.ir import Shape, UOp, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.strided import fixed, moved, spread, windows


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its stride, how far its taps lie apart, and the part ``start : start + length`` that is wanted."""

    stride: int
    dilation: int
    start: int
    length: int

    @property
    def first(self) -> int:
        """The first `q` that is wanted."""
        return self.start // self.stride

    @property
    def count(self) -> int:
        """How many `q` are wanted: one at least."""
        return (self.start + max(self.length, 1) - 1) // self.stride + 1 - self.first


@dataclass(frozen=True, slots=True)
class Phases:
    """Neighbouring phases of an axis that have equally many taps."""

    first: int
    count: int
    taps: int


def phases_of(size: int, stride: int) -> tuple[Phases, ...]:
    """The phases of a weight of `size` taps.

    >>> phases_of(4, 2)
    (Phases(first=0, count=2, taps=2),)
    >>> phases_of(3, 2)
    (Phases(first=0, count=1, taps=2), Phases(first=1, count=1, taps=1))
    """
    taps, longer = divmod(size, stride)
    parts = (Phases(0, longer, taps + 1), Phases(longer, stride - longer, taps))
    return tuple([part for part in parts if part.count])


def transposed(image: UOp, weight: UOp, groups: int, axes: Sequence[Axis]) -> UOp:
    """(n, c, *d) with (c, outputs / groups, *k) to (n, outputs, *lengths)."""
    inner, per_group = fixed(weight.shape[0]) // groups, fixed(weight.shape[1])
    batch, sizes = image.shape[0], weight.shape[2:]
    image = graph.reshape(image, (batch, groups, 1, inner, *image.shape[2:]))
    weight = graph.reshape(weight, (groups, inner, per_group, *sizes))
    weight = graph.permute(weight, (0, 2, 1, *range(3, len(weight.shape))))
    weight = graph.reshape(weight, (1, *weight.shape))
    node = sum_of_windows(image, weight, 1, axes)
    return graph.reshape(node, (batch, groups * per_group, *node.shape[3:]))


def sum_of_windows(image: UOp, weight: UOp, summed: int, axes: Sequence[Axis]) -> UOp:
    """(*lead, *inner, *d) with (*lead, *inner, *k) to (*lead, *lengths); there are `summed` inner axes.

    Element `d` of the image times element `k` of the weight is a part of element ``d * stride + k * dilation``.
    Leading and inner axes are broadcast.
    """
    weight = spread_taps(weight, axes)
    return by_phases(weight.shape, axes, lambda chosen: _part(image, weight, summed, axes, chosen))


def spread_taps(weight: UOp, axes: Sequence[Axis]) -> UOp:
    """Where there is a stride, too, zeros between the taps, so that those of a phase are neighbours."""
    for place, axis in enumerate(axes, len(weight.shape) - len(axes)):
        if axis.stride > 1:
            weight = spread(weight, place, axis.dilation)
    return weight


def by_phases(shape: Shape, axes: Sequence[Axis], part: Callable[[Sequence[Phases]], UOp]) -> UOp:
    """(*lead, *lengths) for taps of a shape (..., *k), where `part` is (*lead, *q, *s) for some phases of each axis."""
    count = len(axes)
    sizes = [fixed(size) for size in shape[-count:]]
    kinds = [phases_of(size, axis.stride) for size, axis in zip(sizes, axes, strict=True)]
    parts = [
        _beside_zeros(part(chosen), axes, chosen)
        for chosen in itertools.product(*kinds)
        if all(phases.taps for phases in chosen)
    ]
    joined = _sum(parts)
    before = joined.shape[: len(joined.shape) - 2 * count]
    node = graph.reshape(joined, (*before, *[axis.count * axis.stride for axis in axes]))
    limits: list[tuple[int | UOp, int | UOp]] = [(0, size) for size in before]
    for axis in axes:
        start = axis.start - axis.first * axis.stride
        limits.append((start, start + axis.length))
    return graph.shrink(node, limits)


def windows_of(image: UOp, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """(..., *d) to (..., *q, *t): what the taps of some phases of each axis meet, the last tap first."""
    gaps = [axis.dilation if axis.stride == 1 else 1 for axis in axes]
    first = len(image.shape) - len(axes)
    for place, (axis, phases, gap) in enumerate(zip(axes, chosen, gaps, strict=True), first):
        reach = (phases.taps - 1) * gap
        image = moved(image, place, reach - axis.first, axis.count + reach)
    return windows(image, [(phases.taps, 1, gap) for phases, gap in zip(chosen, gaps, strict=True)])


def _part(image: UOp, weight: UOp, summed: int, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """What some phases of each axis are: (*lead, *q, *s)."""
    count = len(axes)
    first = len(image.shape) - count
    lead = first - summed
    pieces = windows_of(image, axes, chosen)
    # (*lead, *windows, *phases, *inner, *taps): what is summed comes last.
    inner, rank = range(lead, first), first + 2 * count
    order = [*range(lead), *range(first, first + count), *inner, *range(first + count, rank)]
    pieces = graph.permute(pieces, order)
    at = lead + count
    pieces = graph.reshape(pieces, (*pieces.shape[:at], *(1,) * count, *pieces.shape[at:]))
    scale = taps_of(weight, axes, chosen)  # (*lead, *inner, t1, s1, t2, s2, ...)
    scale = graph.permute(scale, [*range(lead), *range(first + 1, rank, 2), *inner, *range(first, rank, 2)])
    scale = graph.reshape(scale, (*scale.shape[:lead], *(1,) * count, *scale.shape[lead:]))
    product = graph.elementwise(ops.MUL, pieces, scale)
    return graph.reduce(product, ops.ADD, range(at + count, len(product.shape)))


def _beside_zeros(node: UOp, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """(*lead, *q, *s) to (*lead, q1, s1, q2, s2, ...) with all phases, zeros in the place of others."""
    count = len(axes)
    lead = len(node.shape) - 2 * count
    order = [*range(lead), *[k for axis in range(lead, lead + count) for k in (axis, count + axis)]]
    padding: list[tuple[int | UOp, int | UOp]] = [(0, 0)] * lead
    for axis, phases in zip(axes, chosen, strict=True):
        padding += [(0, 0), (phases.first, axis.stride - phases.first - phases.count)]
    return graph.pad(graph.permute(node, order), padding)


def taps_of(weight: UOp, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """(..., k1, k2) to (..., t1, s1, t2, s2): every axis as (taps, phases), the last tap first."""
    first = len(weight.shape) - len(axes)
    for place, (axis, phases) in enumerate(zip(axes, chosen, strict=True)):
        at = first + 2 * place
        size, wanted = fixed(weight.shape[at]), phases.taps * axis.stride
        padding: list[tuple[int | UOp, int | UOp]] = [(0, 0)] * len(weight.shape)
        padding[at] = (0, max(0, wanted - size))
        weight = graph.pad(weight, padding)
        limits: list[tuple[int | UOp, int | UOp]] = [(0, extent) for extent in weight.shape]
        limits[at] = (0, wanted)
        weight = graph.shrink(weight, limits)
        before, after = weight.shape[:at], weight.shape[at + 1 :]
        weight = graph.reshape(weight, (*before, phases.taps, axis.stride, *after))
        limits = [(0, extent) for extent in weight.shape]
        limits[at + 1] = (phases.first, phases.first + phases.count)
        weight = graph.flip(graph.shrink(weight, limits), (at,))
    return weight


def _sum(parts: Sequence[UOp]) -> UOp:
    result = parts[0]
    for part in parts[1:]:
        result = graph.elementwise(ops.ADD, result, part)
    return result

"""Transposed convolution, phase by phase, so that nobody multiplies by the zeros between spread elements. UOps only.

Along an axis of stride `s` element ``s * q + r`` of the result is ``sum(x[q - t] * weight[r + s * t] for t)``: for
each phase `r` a convolution with every s-th element of the weight. Phases with equally many taps (there are two
kinds at most) are one convolution with that many times the filters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tinycore.ir import UOp, ops
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
    for place, axis in enumerate(axes, 2):
        if axis.stride > 1:  # taps between the taps, so that they are neighbours
            weight = spread(weight, place, axis.dilation)
    sizes = [fixed(size) for size in weight.shape[2:]]
    kinds = [phases_of(size, axis.stride) for size, axis in zip(sizes, axes, strict=True)]
    parts = [
        _part(image, weight, groups, axes, chosen)
        for chosen in itertools.product(*kinds)
        if all(phases.taps for phases in chosen)
    ]
    joined = _sum(parts)
    shape = joined.shape[:2]
    node = graph.reshape(joined, (*shape, *[axis.count * axis.stride for axis in axes]))
    limits: list[tuple[int | UOp, int | UOp]] = [(0, size) for size in shape]
    for axis in axes:
        start = axis.start - axis.first * axis.stride
        limits.append((start, start + axis.length))
    return graph.shrink(node, limits)


def _part(image: UOp, weight: UOp, groups: int, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """What some phases of each axis are, zeros in the place of the others: (n, outputs, q1, s1, q2, s2, ...)."""
    count = len(axes)
    gaps = [axis.dilation if axis.stride == 1 else 1 for axis in axes]
    for place, (axis, phases, gap) in enumerate(zip(axes, chosen, gaps, strict=True), 2):
        reach = (phases.taps - 1) * gap
        image = moved(image, place, reach - axis.first, axis.count + reach)
    pieces = windows(image, [(phases.taps, 1, gap) for phases, gap in zip(chosen, gaps, strict=True)])
    batch, out = pieces.shape[0], tuple([axis.count for axis in axes])
    taps, several = tuple([phases.taps for phases in chosen]), tuple([phases.count for phases in chosen])
    inner, per_group = fixed(weight.shape[0]) // groups, fixed(weight.shape[1])
    pieces = graph.reshape(pieces, (batch, groups, 1, inner, *out, *taps))
    order = [0, 1, 2, *range(4, 4 + count), 3, *range(4 + count, 4 + 2 * count)]
    pieces = graph.permute(pieces, order)
    pieces = graph.reshape(pieces, (batch, groups, 1, *out, *(1,) * count, inner, *taps))
    scale = _weights(weight, axes, chosen)  # (c, per_group, t1, s1, t2, s2, ...)
    scale = graph.reshape(scale, (groups, inner, per_group, *scale.shape[2:]))
    order = [0, 2, *range(4, 4 + 2 * count, 2), 1, *range(3, 3 + 2 * count, 2)]
    scale = graph.permute(scale, order)
    scale = graph.reshape(scale, (1, groups, per_group, *(1,) * count, *several, inner, *taps))
    shape = (batch, groups, per_group, *out, *several, inner, *taps)
    product = graph.expand(pieces, shape) * graph.expand(scale, shape)
    node = graph.reduce(product, ops.ADD, range(len(shape) - 1 - count, len(shape)))
    node = graph.reshape(node, (batch, groups * per_group, *out, *several))
    node = graph.permute(node, [0, 1, *[k for axis in range(count) for k in (2 + axis, 2 + count + axis)]])
    padding: list[tuple[int | UOp, int | UOp]] = [(0, 0), (0, 0)]
    for axis, phases in zip(axes, chosen, strict=True):
        padding += [(0, 0), (phases.first, axis.stride - phases.first - phases.count)]
    return graph.pad(node, padding)


def _weights(weight: UOp, axes: Sequence[Axis], chosen: Sequence[Phases]) -> UOp:
    """Every axis of taps as (taps, phases), the last tap first."""
    for place, (axis, phases) in enumerate(zip(axes, chosen, strict=True)):
        at = 2 + 2 * place
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

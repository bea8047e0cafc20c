"""Convolutions and pooling: padding, windows (movement only), multiply, REDUCE."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import Dim, Op, Shape, UOp, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.random import Random
from tinycore_frontend_tensor.strided import Spec, fixed, windows
from tinycore_frontend_tensor.transposed import Axis, transposed

Pair = int | Sequence[int]


class Convolution(Random):
    """The methods of `Tensor` that slide windows."""

    __slots__ = ()

    def conv2d(
        self,
        weight: Self,
        bias: Self | None = None,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Self:
        """Convolution over two axes, or as many as the weight has beyond the first two.

        Parameters
        ----------
        weight: (outputs, inputs / groups, height, width).
        padding: zeros on both sides of each axis, or "same" for stride 1.

        Raises ShapeError where channels, groups or sizes do not fit.

        >>> from tinycore import Tensor
        >>> Tensor.ones(1, 1, 4, 4).conv2d(Tensor.ones(1, 1, 3, 3)).shape
        (1, 1, 2, 2)
        """
        return self._convolve(weight, bias, stride, padding, dilation, groups)

    conv1d = conv2d

    def _convolve(
        self, weight: Self, bias: Self | None, stride: Pair, padding: Pair | str, dilation: Pair, groups: int
    ) -> Self:
        image, kernel = self.uop, weight.uop
        recipe = _recipe(image.shape, kernel.shape, _fixed(stride), _fixed(padding), _fixed(dilation), groups)
        common = dtypes.promote(image.dtype, kernel.dtype)
        wide = graph.ACCUMULATE.get(common, common)
        pieces = windows(graph.follow(image, recipe.padding).cast(wide), recipe.specs)
        left, right = graph.follow(pieces, recipe.image), graph.follow(kernel.cast(wide), recipe.weight)
        total = UOp(ops.REDUCE, wide, (left.alu(ops.MUL, right),), recipe.reduction)
        result = self._derive(graph.reshape(total, recipe.result).cast(common), weight)
        return result if bias is None else result + bias.reshape(1, -1, *(1,) * (weight.ndim - 2))

    def conv_transpose2d(
        self,
        weight: Self,
        bias: Self | None = None,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
    ) -> Self:
        """The gradient of `conv2d` by its input, as a layer; weight (inputs, outputs / groups, h, w)."""
        spatial = weight.ndim - 2
        what = f"conv_transpose{spatial}d"
        strides, spacing = _each(stride, spatial, what), _each(dilation, spatial, what)
        cut, extra = _each(padding, spatial, what), _each(output_padding, spatial, what)
        if (
            self.ndim != weight.ndim
            or int(self.shape[1]) != int(weight.shape[0])
            or int(self.shape[1]) % groups
        ):
            raise ShapeError(
                f"{what}: input {graph.text(self.shape)}, weight {graph.text(weight.shape)}, groups {groups}",
                hint="the weight is (inputs, outputs / groups, height, width)",
            )
        sizes = [int(size) for size in weight.shape[2:]]
        reach = [d * (k - 1) + 1 for k, d in zip(sizes, spacing, strict=True)]
        lengths = [
            (int(size) - 1) * step + far + more - 2 * less
            for size, step, far, more, less in zip(self.shape[2:], strides, reach, extra, cut, strict=True)
        ]
        if min(lengths) < 0 or min(*strides, *spacing) < 1:
            raise ShapeError(
                f"{what}: {graph.text(self.shape)} with strides {strides}, dilation {spacing} and padding {cut}",
                hint="nothing is left; use less padding, strides and dilation of at least 1",
            )
        common = dtypes.promote(self.dtype, weight.dtype)
        wide = graph.ACCUMULATE.get(common, common)
        axes = [Axis(*each) for each in zip(strides, spacing, cut, lengths, strict=True)]
        node = transposed(self.uop.cast(wide), weight.uop.cast(wide), groups, axes).cast(common)
        result = self._derive(node, weight)
        return result if bias is None else result + bias.reshape(1, -1, *(1,) * spatial)

    def max_pool2d(
        self, kernel_size: Pair = 2, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1
    ) -> Self:
        """The greatest element of each window over the last two axes; padding is minus infinity."""
        lowest = self.dtype.min
        return self._pool(
            "max_pool2d",
            kernel_size,
            stride,
            padding,
            dilation,
            lowest,
            lambda pieces, axes: graph.reduce(pieces, ops.MAX, axes),
        )

    def avg_pool2d(
        self,
        kernel_size: Pair = 2,
        stride: Pair | None = None,
        padding: Pair = 0,
        count_include_pad: bool = True,
    ) -> Self:
        """The mean of each window over the last two axes."""
        self._require_float("avg_pool2d")
        size = math.prod(_each(kernel_size, 2, "avg_pool2d"))
        total = self._pool("avg_pool2d", kernel_size, stride, padding, 1, 0, graph.total)
        if count_include_pad or not any(_each(padding, 2, "avg_pool2d")):
            return total / size
        ones = self.ones_like()
        return total / ones._pool("avg_pool2d", kernel_size, stride, padding, 1, 0, graph.total)

    def adaptive_avg_pool2d(self, output: Pair = 1) -> Self:
        """Means over a grid of equal cells. Raises ShapeError where the sizes do not divide."""
        grid = _each(output, 2, "adaptive_avg_pool2d")
        height, width = (int(size) for size in self.shape[-2:])
        if height % grid[0] or width % grid[1]:
            raise ShapeError(f"adaptive_avg_pool2d: {height}x{width} into {grid[0]}x{grid[1]} unequal cells")
        return self.avg_pool2d((height // grid[0], width // grid[1]))

    def _pool(
        self,
        what: str,
        kernel: Pair,
        stride: Pair | None,
        padding: Pair,
        dilation: Pair,
        fill: Any,
        combine: Callable[[UOp, Sequence[int]], UOp],
    ) -> Self:
        if self.ndim < 2:
            raise ShapeError(
                f"{what}: input of shape {graph.text(self.shape)}", hint="two spatial axes are needed"
            )
        sizes = _each(kernel, 2, what)
        strides = sizes if stride is None else _each(stride, 2, what)
        amounts = [(0, 0)] * (self.ndim - 2) + [(p, p) for p in _each(padding, 2, what)]
        padded = self.pad(amounts, fill)
        pieces = windows(
            padded.uop, _specs(padded.shape[-2:], sizes, strides, _each(dilation, 2, what), what)
        )
        rank = len(pieces.shape)
        return self._derive(combine(pieces, (rank - 2, rank - 1)))

    def interpolate(
        self, size: Pair | None = None, scale_factor: float | None = None, mode: str = "nearest"
    ) -> Self:
        """Another size of the last two axes by repeating or leaving out elements."""
        if mode != "nearest":
            raise DTypeError(f"interpolate: mode {mode!r} is not there", hint="use mode='nearest'")
        old = [int(s) for s in self.shape[-2:]]
        if size is None:
            if scale_factor is None:
                raise ShapeError("interpolate: give a size or a scale_factor")
            new = [math.floor(s * scale_factor) for s in old]
        else:
            new = list(_each(size, 2, "interpolate"))
        result = self
        for axis, before, after in zip((-2, -1), old, new, strict=True):
            if after != before and after % before == 0:
                result = result.repeat_interleave(after // before, axis)
            elif after != before:
                index = type(self).arange(after) * before // after
                result = result.index_select(axis, index)
        return result


def _each(value: Pair, count: int, what: str) -> tuple[int, ...]:
    """One number for all axes, or one for each."""
    if isinstance(value, int):
        return (value,) * count
    if len(value) != count:
        raise ShapeError(f"{what}: {tuple(value)} does not give one number for each of {count} axes")
    return tuple(value)


def _fixed(value: Pair | str) -> int | str | tuple[int, ...]:
    """An argument that a recipe can be found by."""
    return value if isinstance(value, (int, str)) else tuple(value)


def _amounts(
    padding: Pair | str, sizes: Sequence[int], dilation: Sequence[int], what: str
) -> list[tuple[int, int]]:
    """How many elements are put before and after each axis."""
    if padding == "same":
        total = [gap * (size - 1) for size, gap in zip(sizes, dilation, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    if isinstance(padding, str):
        if padding != "valid":
            raise ShapeError(f"{what}: padding {padding!r}", hint="use numbers, 'same' or 'valid'")
        padding = 0
    return [(p, p) for p in _each(padding, len(sizes), what)]


def _padded(node: UOp, amounts: Sequence[tuple[int, int]]) -> UOp:
    """The last axes with zeros around them; negative amounts cut."""
    first = len(node.shape) - len(amounts)
    limits: list[tuple[Dim, Dim]] = [(0, size) for size in node.shape]
    for axis, (before, after) in enumerate(amounts, first):
        limits[axis] = (max(0, -before), fixed(node.shape[axis]) + min(0, after))
    node = graph.shrink(node, limits)
    return graph.pad(node, [(0, 0)] * first + [(max(0, before), max(0, after)) for before, after in amounts])


def _specs(
    shape: Sequence[Any], sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int], what: str
) -> list[tuple[int, int, int]]:
    for length, size, step, gap in zip(shape, sizes, strides, dilation, strict=True):
        if size < 1 or step < 1 or gap < 1 or gap * (size - 1) + 1 > int(length):
            raise ShapeError(
                f"{what}: a window of {size} (stride {step}, dilation {gap}) does not fit {length} elements",
                hint="pad the input or use a smaller window",
            )
    return list(zip(sizes, strides, dilation, strict=True))


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a convolution does to values of certain shapes: the same for each of the many that a network has."""

    padding: graph.Steps
    specs: tuple[Spec, ...]
    image: graph.Steps
    """From the windows, (n, c, *out, *k), to all products: (n, groups, outputs / groups, *out, c / groups, *k)."""
    weight: graph.Steps
    reduction: tuple[Op, tuple[int, ...]]
    result: Shape


@functools.lru_cache(maxsize=1024)
def _recipe(
    shape: Shape, weight: Shape, stride: Pair, padding: Pair | str, dilation: Pair, groups: int
) -> _Recipe:
    """Raises ShapeError where channels, groups or sizes do not fit."""
    spatial = len(weight) - 2
    what = f"conv{spatial}d"
    if spatial < 1 or len(shape) != len(weight):
        raise ShapeError(
            f"{what}: input {graph.text(shape)} and weight {graph.text(weight)}",
            hint="the input is (batch, channels, ...), the weight (outputs, channels / groups, ...)",
        )
    inputs, outputs, inner = fixed(shape[1]), fixed(weight[0]), fixed(weight[1])
    if inputs != groups * inner or outputs % groups:
        raise ShapeError(
            f"{what}: {inputs} input channels, weight {graph.text(weight)}, groups {groups}",
            hint=f"the weight needs {inputs // groups if groups else '?'} channels in axis 1, and "
            "outputs divisible by groups",
        )
    sizes = tuple([fixed(size) for size in weight[2:]])
    strides, spacing = _each(stride, spatial, what), _each(dilation, spatial, what)
    amounts = _amounts(padding, sizes, spacing, what)
    lengths = [fixed(size) + sum(pair) for size, pair in zip(shape[2:], amounts, strict=True)]
    specs = tuple(_specs(lengths, sizes, strides, spacing, what))
    out = [
        (length - gap * (size - 1) - 1) // step + 1
        for length, (size, step, gap) in zip(lengths, specs, strict=True)
    ]
    products = (shape[0], groups, outputs // groups, *out, inner, *sizes)

    def aligned(pieces: UOp) -> UOp:
        node = graph.reshape(pieces, (shape[0], groups, 1, inner, *out, *sizes))
        # What is summed comes last.
        order = [0, 1, 2, *range(4, 4 + spatial), 3, *range(4 + spatial, 4 + 2 * spatial)]
        return graph.expand(graph.permute(node, order), products)

    def scale(kernel: UOp) -> UOp:
        spread = (1, groups, outputs // groups, *(1,) * spatial, inner, *sizes)
        return graph.expand(graph.reshape(kernel, spread), products)

    return _Recipe(
        graph.steps_of(shape, lambda node: _padded(node, amounts)),
        specs,
        graph.steps_of((shape[0], inputs, *out, *sizes), aligned),
        graph.steps_of(weight, scale),
        (ops.ADD, tuple(range(3 + spatial, 4 + 2 * spatial))),
        (shape[0], outputs, *out),
    )

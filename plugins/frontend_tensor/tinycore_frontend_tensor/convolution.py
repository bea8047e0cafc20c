"""Convolutions and pooling: padding, windows (movement only), multiply, REDUCE."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import UOp, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.random import Random
from tinycore_frontend_tensor.strided import windows
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
        spatial = weight.ndim - 2
        what = f"conv{spatial}d"
        if spatial < 1 or self.ndim != weight.ndim:
            raise ShapeError(
                f"{what}: input {graph.text(self.shape)} and weight {graph.text(weight.shape)}",
                hint="the input is (batch, channels, ...), the weight (outputs, channels / groups, ...)",
            )
        inputs, outputs = int(self.shape[1]), int(weight.shape[0])
        if inputs != groups * int(weight.shape[1]) or outputs % groups:
            raise ShapeError(
                f"{what}: {inputs} input channels, weight {graph.text(weight.shape)}, groups {groups}",
                hint=f"the weight needs {inputs // groups if groups else '?'} channels in axis 1, and "
                "outputs divisible by groups",
            )
        sizes = tuple(int(size) for size in weight.shape[2:])
        strides, spacing = _each(stride, spatial, what), _each(dilation, spatial, what)
        padded = self.pad(_same(sizes, spacing) if padding == "same" else _amounts(padding, spatial, what))
        specs = _specs(padded.shape[2:], sizes, strides, spacing, what)
        common = dtypes.promote(self.dtype, weight.dtype)
        wide = graph.ACCUMULATE.get(common, common)
        pieces = windows(padded.uop.cast(wide), specs)
        node = _contract(pieces, weight.uop.cast(wide), groups, spatial).cast(common)
        result = self._derive(node, weight)
        return result if bias is None else result + bias.reshape(1, outputs, *(1,) * spatial)

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


def _amounts(padding: Pair | str, spatial: int, what: str) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        if padding != "valid":
            raise ShapeError(f"{what}: padding {padding!r}", hint="use numbers, 'same' or 'valid'")
        padding = 0
    return [(0, 0), (0, 0), *((p, p) for p in _each(padding, spatial, what))]


def _same(sizes: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    total = [d * (k - 1) for k, d in zip(sizes, dilation, strict=True)]
    return [(0, 0), (0, 0), *((t // 2, t - t // 2) for t in total)]


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


def _contract(pieces: UOp, weight: UOp, groups: int, spatial: int) -> UOp:
    """(n, c, *out, *k) with (outputs, c / groups, *k) to (n, outputs, *out)."""
    batch, channels = pieces.shape[:2]
    out, kernel = pieces.shape[2 : 2 + spatial], pieces.shape[2 + spatial :]
    outputs = weight.shape[0]
    assert isinstance(channels, int) and isinstance(outputs, int)
    inner, per_group = channels // groups, outputs // groups
    node = graph.reshape(pieces, (batch, groups, 1, inner, *out, *kernel))
    # (n, g, per_group, *out, inner, *k): what is summed comes last.
    order = [0, 1, 2, *range(4, 4 + spatial), 3, *range(4 + spatial, 4 + 2 * spatial)]
    node = graph.permute(node, order)
    scale = graph.reshape(weight, (1, groups, per_group, *(1,) * spatial, inner, *kernel))
    shape = (batch, groups, per_group, *out, inner, *kernel)
    product = graph.expand(node, shape) * graph.expand(scale, shape)
    total = graph.reduce(product, ops.ADD, range(3 + spatial, 4 + 2 * spatial))
    return graph.reshape(total, (batch, outputs, *out))

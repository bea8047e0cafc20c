"""Reductions and running combinations along axes.

Narrow floats are summed in float32; sums of integers and bools are int64, as PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from tinycore.errors import ShapeError
from tinycore.ir import DType, Op, dims, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.conversion import as_dtype
from tinycore_frontend_tensor.core import DEFAULT_INT
from tinycore_frontend_tensor.creation import Creation

Axis = int | Sequence[int] | None


class Reduction(Creation):
    """The methods of `Tensor` that combine elements."""

    __slots__ = ()

    def sum(self, dim: Axis = None, keepdim: bool = False, dtype: DType | str | None = None) -> Self:
        """The sum over axes (all of them for None)."""
        axes = self._axes(dim, "sum")
        target = as_dtype(dtype) if dtype is not None else self._sum_dtype()
        return self._node(graph.total(self.uop.cast(target), axes, keepdim))

    def _sum_dtype(self) -> DType:
        return self.dtype if self.dtype.is_float else DEFAULT_INT

    def prod(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The product over axes."""
        axes = self._axes(dim, "prod")
        target = self._sum_dtype()
        wide = graph.ACCUMULATE.get(target, target)
        return self._node(graph.reduce(self.uop.cast(wide), ops.MUL, axes, keepdim).cast(target))

    def _count(self, axes: Sequence[int]) -> Self:
        """The number of elements that a reduction combines, in this float dtype."""
        count = graph.size_of([self.uop.shape[axis] for axis in axes])  # type: ignore[arg-type]
        return type(self).of_node(graph.dim_value(count, self.dtype), self.bindings)

    def mean(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The mean over axes. Raises DTypeError for integers and bools, as PyTorch."""
        self._require_float("mean")
        axes = self._axes(dim, "mean")
        return self._node(graph.mean(self.uop, axes, keepdim))

    def _extremum(self, op: Op, dim: Axis, keepdim: bool, what: str) -> Self:
        axes = self._axes(dim, what)
        if any(isinstance(size, int) and size == 0 for k, size in enumerate(self.uop.shape) if k in axes):
            raise ShapeError(
                f"{what} over no elements: shape {graph.text(self.shape)}, axes {axes}",
                hint="there is no identity to answer with",
            )
        return self._node(graph.reduce(self.uop, op, axes, keepdim))

    def max(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The greatest element over axes; NaN where there is one. (Indices: `argmax`.)"""
        return self._extremum(ops.MAX, dim, keepdim, "max")

    def min(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """The least element over axes; NaN where there is one."""
        return self._extremum(ops.MIN, dim, keepdim, "min")

    amax, amin = max, min

    def any(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """Whether one element is not zero."""
        return self._node(graph.reduce(self.uop.cast(dtypes.bool_), ops.OR, self._axes(dim, "any"), keepdim))

    def all(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """Whether no element is zero."""
        return self._node(graph.reduce(self.uop.cast(dtypes.bool_), ops.AND, self._axes(dim, "all"), keepdim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The first index of the greatest element (of a NaN, where there is one), int64."""
        return self._arg_extremum("argmax", dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The first index of the least element (of a NaN, where there is one), int64."""
        return self._arg_extremum("argmin", dim, keepdim)

    def _arg_extremum(self, what: str, dim: int | None, keepdim: bool) -> Self:
        if dim is None:
            flat = self.reshape(-1)._arg_extremum(what, 0, False)
            return flat.reshape((1,) * self.ndim) if keepdim else flat
        axis = self._axis(dim, what)
        best = self.detach()._extremum(ops.MAX if what == "argmax" else ops.MIN, axis, True, what)
        hit = self == best
        if self.dtype.is_float:
            hit = hit | self.isnan()
        shape = [1] * self.ndim
        shape[axis] = self.shape[axis]
        # Half as wide as the answer, so that twice as many fit into a register.
        wide = dims.upper(self.uop.shape[axis]) > dtypes.int32.max
        index = type(self).arange_of(self.shape[axis], dtypes.int64 if wide else dtypes.int32).reshape(shape)
        first = hit.where(index, index.dtype.max).min(axis, keepdim)
        return self._derive(first.cast(dtypes.int64).uop, differentiable=False)

    def var(self, dim: Axis = None, keepdim: bool = False, correction: int = 1) -> Self:
        """The variance over axes, divided by count - correction."""
        self._require_float("var")
        axes = self._axes(dim, "var")
        wide = self.cast(graph.ACCUMULATE.get(self.dtype, self.dtype))
        centred = wide - wide.mean(axes, True)
        count = wide._count(axes)
        return ((centred * centred).sum(axes, keepdim) / (count - correction if correction else count)).cast(
            self.dtype
        )

    def std(self, dim: Axis = None, keepdim: bool = False, correction: int = 1) -> Self:
        """The standard deviation over axes."""
        return self.var(dim, keepdim, correction).sqrt()

    def norm(self, p: float = 2.0, dim: Axis = None, keepdim: bool = False) -> Self:
        """The p-norm over axes (inf: the greatest absolute value)."""
        self._require_float("norm")
        if p == 2:
            return (self * self).sum(dim, keepdim).sqrt()
        if p == 1:
            return self.abs().sum(dim, keepdim)
        if p == math.inf:
            return self.abs().max(dim, keepdim)
        return (self.abs() ** p).sum(dim, keepdim) ** (1 / p)

    def logsumexp(self, dim: Axis = None, keepdim: bool = False) -> Self:
        """``log(sum(exp(x)))`` without overflow."""
        self._require_float("logsumexp")
        axes = self._axes(dim, "logsumexp")
        peak = self._finite_peak(axes)
        total = (self - peak).exp().sum(axes, True).log() + peak
        return total if keepdim else total.squeeze(axes)

    def _finite_peak(self, axes: Sequence[int]) -> Self:
        """The greatest element over axes, 0 where it is infinite; gradients do not pass."""
        peak = self.detach().max(axes, True)
        return peak.isinf().where(0.0, peak)

    def softmax(self, dim: int = -1, dtype: DType | str | None = None) -> Self:
        """``exp(x) / sum(exp(x))`` along an axis."""
        x = self if dtype is None else self.cast(dtype)
        x._require_float("softmax")
        axis = x._axis(dim, "softmax")
        grown = (x - x.detach().max(axis, True)).exp()
        return grown / grown.sum(axis, True)

    def log_softmax(self, dim: int = -1, dtype: DType | str | None = None) -> Self:
        """The logarithm of `softmax`, without the loss of accuracy."""
        x = self if dtype is None else self.cast(dtype)
        x._require_float("log_softmax")
        axis = x._axis(dim, "log_softmax")
        centred = x - x.detach().max(axis, True)
        return centred - centred.exp().sum(axis, True).log()

    # --- running combinations -----------------------------------------------------------------------------

    def cumsum(self, dim: int = 0) -> Self:
        """The running sum along an axis."""
        axis = self._axis(dim, "cumsum")
        target = self._sum_dtype()
        wide = graph.ACCUMULATE.get(target, target)
        return self._node(graph.scan(self.uop.cast(wide), ops.ADD, axis).cast(target))

    def cumprod(self, dim: int = 0) -> Self:
        """The running product along an axis."""
        axis = self._axis(dim, "cumprod")
        return self._node(graph.scan(self.uop.cast(self._sum_dtype()), ops.MUL, axis))

    # --- counts that other layers need --------------------------------------------------------------------

    def count_nonzero(self, dim: Axis = None) -> Self:
        """How many elements are not zero, int64."""
        return self.ne(0).sum(dim)

    def _axis_shape(self, axis: int, size: Any) -> list[Any]:
        shape: list[Any] = [1] * self.ndim
        shape[axis] = size
        return shape

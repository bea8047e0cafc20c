"""Making tensors of constants and counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import DType, UOp, dtypes
from tinycore_frontend_tensor import execution, graph
from tinycore_frontend_tensor.conversion import as_dtype, scalar_dtype
from tinycore_frontend_tensor.core import DEFAULT_FLOAT, Scalar, flatten_args
from tinycore_frontend_tensor.device import Device
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.mathematics import Mathematics
from tinycore_frontend_tensor.symbolic import NO_BINDINGS, Dimension, Size, sizes


class Creation(Mathematics):
    """The constructors of `Tensor`."""

    __slots__ = ()

    @classmethod
    def full(
        cls,
        shape: Size | Sequence[Size],
        value: Scalar,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> Self:
        """A tensor of one value; no memory is used until it is needed."""
        given = (shape,) if isinstance(shape, (int, Dimension)) else tuple(shape)
        dims, bindings = sizes(given)
        if any(isinstance(size, int) and size < 0 for size in dims):
            raise ShapeError(f"full: negative size in {graph.text(given)}")
        wanted = as_dtype(dtype) if dtype is not None else scalar_dtype(value)
        result = cls.of_node(
            UOp.const(wanted, value, dims), bindings, None if device is None else Device.canonical(device)
        )
        return result.requires_grad_() if requires_grad else result

    @classmethod
    def zeros(cls, *shape: Any, dtype: DType | str | None = None, **options: Any) -> Self:
        """Zeros, float32 unless another dtype is given."""
        return cls.full(flatten_args(shape), 0, dtype=dtype or DEFAULT_FLOAT, **options)

    @classmethod
    def ones(cls, *shape: Any, dtype: DType | str | None = None, **options: Any) -> Self:
        """Ones, float32 unless another dtype is given."""
        return cls.full(flatten_args(shape), 1, dtype=dtype or DEFAULT_FLOAT, **options)

    @classmethod
    def empty(cls, *shape: Any, dtype: DType | str | None = None, **options: Any) -> Self:
        """A tensor to be written to; its elements are zeros, never somebody else's memory."""
        return cls.zeros(*shape, dtype=dtype, **options)

    @classmethod
    def arange(
        cls,
        start: Scalar,
        stop: Scalar | None = None,
        step: Scalar = 1,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
    ) -> Self:
        """``start, start + step, ...`` below `stop`; int64 for ints, float32 when one number is a float."""
        if stop is None:
            start, stop = 0, start
        if step == 0:
            raise ShapeError("arange: the step is 0")
        count = max(0, int(np.ceil((stop - start) / step)))
        wanted = (
            as_dtype(dtype)
            if dtype is not None
            else scalar_dtype(0.0 if any(isinstance(x, float) for x in (start, stop, step)) else 0)
        )
        counter = cls.of_node(
            graph.arange(count, wanted if wanted.is_int else dtypes.int64),
            NO_BINDINGS,
            None if device is None else Device.canonical(device),
        )
        if wanted.kind == "bool":
            raise DTypeError("arange of bools has no meaning")
        result = counter.cast(wanted)
        if step != 1:
            result = result * step
        return (result + start if start != 0 else result).cast(wanted)

    @classmethod
    def arange_of(cls, size: Size, dtype: DType = dtypes.int64) -> Self:
        """0, 1, ... size-1 for a size that may be symbolic."""
        (dim,), bindings = sizes((size,))
        return cls.of_node(graph.arange(dim, dtype), bindings)

    @classmethod
    def linspace(
        cls,
        start: float,
        stop: float,
        steps: int,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
    ) -> Self:
        """`steps` numbers from start to stop, both included."""
        wanted = as_dtype(dtype) if dtype is not None else DEFAULT_FLOAT
        counter = cls.arange(steps, dtype=dtypes.int64, device=device).cast(wanted)
        if steps < 2:
            return counter + start
        step = (stop - start) / (steps - 1)
        # From the nearer end, so that both ends are exact.
        back = stop - ((steps - 1) - counter) * step
        return (counter < steps / 2).where(counter * step + start, back)

    @classmethod
    def eye(
        cls,
        rows: int,
        columns: int | None = None,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
    ) -> Self:
        """Ones on the diagonal."""
        wide = rows if columns is None else columns
        row = cls.arange(rows, dtype=dtypes.int32, device=device).reshape(rows, 1)
        return (row == cls.arange(wide, dtype=dtypes.int32)).cast(as_dtype(dtype) if dtype else DEFAULT_FLOAT)

    @classmethod
    def from_numpy(cls, array: Any, **options: Any) -> Self:
        """A tensor of a numpy array's elements and dtype."""
        return cls(np.asarray(array), **options)

    def full_like(self, value: Scalar, *, dtype: DType | str | None = None) -> Self:
        """One value, in this shape, dtype and device."""
        wanted = as_dtype(dtype) if dtype is not None else self.dtype
        return type(self).of_node(UOp.const(wanted, value, self.uop.shape), self.bindings, self._device)

    def zeros_like(self, *, dtype: DType | str | None = None) -> Self:
        """Zeros in this shape."""
        return self.full_like(0, dtype=dtype)

    def ones_like(self, *, dtype: DType | str | None = None) -> Self:
        """Ones in this shape."""
        return self.full_like(1, dtype=dtype)

    def owned(self) -> Self:
        """The value in a buffer that nothing else shares, to be written in place later (optimizer state)."""
        result = self._derive(execution.own(self.uop, self.device))
        result._device = self.device
        return result

    def tril(self, diagonal: int = 0) -> Self:
        """Zero above the diagonal of the last two axes."""
        return self._triangle(diagonal, lower=True)

    def triu(self, diagonal: int = 0) -> Self:
        """Zero below the diagonal of the last two axes."""
        return self._triangle(diagonal, lower=False)

    def _triangle(self, diagonal: int, lower: bool) -> Self:
        if self.ndim < 2:
            raise ShapeError(f"tril/triu of shape {graph.text(self.shape)}", hint="two axes are needed")
        rows, columns = self.shape[-2:]
        row = type(self).arange_of(rows, dtypes.int32).reshape(rows, 1) + diagonal
        column = type(self).arange_of(columns, dtypes.int32)
        keep = column <= row if lower else column >= row
        return keep.where(self, 0)

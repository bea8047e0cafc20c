"""Conversions between dtypes, and the fused multiply-add: the places where rounding once takes care."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.ir.dtypes import DType

Array = NDArray[Any]

_MINIFLOAT = ("bfloat16", "float8_e4m3", "float8_e5m2")


def cast(dtype: DType, x: Array) -> Array:
    """Values of another dtype: integers wrap, floats saturate to integers (NaN gives 0), to bool is x != 0.

    Float results are rounded once, to nearest even, whatever the source.

    >>> import numpy
    >>> from tinycore.ir import dtypes
    >>> cast(dtypes.uint8, numpy.array([300.0, -1.0, 2.9, numpy.nan])).tolist()
    [255, 0, 2, 0]
    """
    x = np.asarray(x)
    target = dtype.numpy
    if x.dtype == target:
        return x
    if dtype.kind == "bool":
        return np.asarray(x != np.zeros((), x.dtype))
    from_float = x.dtype.kind in "fV"
    if from_float and x.dtype.itemsize < 4:
        x = x.astype(np.float32)  # exact
    if not dtype.is_float:
        return _saturate(x, target) if from_float else x.astype(target)
    if dtype.name in _MINIFLOAT and x.dtype.itemsize > 2 and x.dtype != np.float32:
        x = _odd_float32(x)
    return x.astype(target)


def _saturate(x: Array, target: np.dtype[Any]) -> Array:
    limits = np.iinfo(target)
    whole = np.trunc(x.astype(np.float64))
    # Both powers of two are exact in float64 where max itself is not (int64, uint64).
    high = whole >= float(limits.max + 1)
    low = whole < float(limits.min)
    inside = ~(high | low | np.isnan(whole))
    result = np.where(inside, whole, 0.0).astype(target)
    return np.where(high, limits.max, np.where(low, limits.min, result)).astype(target)


def _odd_float32(x: Array) -> Array:
    """A float32 that rounds to any narrower format as `x` itself would: if inexact, its last bit is odd."""
    if x.dtype.kind in "iu":
        if x.dtype.itemsize == 8:
            # Fold what float64 cannot hold into a sticky bit far below what a float32 keeps.
            big = (x >= 1 << 50) | ((x <= -(1 << 50)) if x.dtype.kind == "i" else False)
            x = np.where(big, (x >> 12 | ((x & 0xFFF) != 0).astype(x.dtype)) << 12, x)
        x = x.astype(np.float64)
    near = np.asarray(x.astype(np.float32))
    error = x - near.astype(np.float64)
    even = (near.view(np.uint32) & 1) == 0
    fix = (error != 0) & even & np.isfinite(near)
    towards = np.where(error > 0, np.float32(np.inf), np.float32(-np.inf))
    return np.where(fix, np.nextafter(near, towards), near)


def bitcast(dtype: DType, x: Array) -> Array:
    """The same bits as another dtype of the same size.

    >>> import numpy
    >>> from tinycore.ir import dtypes
    >>> hex(bitcast(dtypes.uint32, numpy.array(1.0, "float32"))[()])
    '0x3f800000'
    """
    return np.asarray(x).view(dtype.numpy)


def fused_multiply_add(dtype: DType, a: Array, b: Array, c: Array) -> Array:
    """a * b + c with one rounding.

    >>> import numpy
    >>> from tinycore.ir import dtypes
    >>> x = numpy.array(1 + 2.0**-12, "float32")
    >>> float(fused_multiply_add(dtypes.float32, x, x, numpy.array(-1.0, "float32"))) == 2.0**-11 + 2.0**-24
    True
    """
    if dtype.itemsize == 8:
        return _exact_fma64(a, b, c)
    # The product of two floats of up to 24 bits is exact in float64; the sum is rounded to odd, so that
    # rounding it again is rounding once.
    product = a.astype(np.float64) * b.astype(np.float64)
    total = _odd_sum(product, c.astype(np.float64))
    if dtype.itemsize == 4 or dtype.name == "float16":
        return np.asarray(total).astype(dtype.numpy)
    return cast(dtype, np.asarray(total))


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b in float64, rounded to odd when inexact."""
    total = np.asarray(a + b)
    shift = total - a
    error = (a - (total - shift)) + (b - shift)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    fix = (error != 0) & even & np.isfinite(total) & np.isfinite(error)
    return np.where(fix, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)


def _exact_fma64(a: Array, b: Array, c: Array) -> Array:
    """float64: in rational arithmetic, an element at a time; slow, but only FMA of float64 needs it."""
    a, b, c = np.broadcast_arrays(a, b, c)
    result = np.asarray(a * b + c).copy()
    flat = result.reshape(-1)
    for position, (x, y, z) in enumerate(zip(a.flat, b.flat, c.flat, strict=True)):
        if np.isfinite(x) and np.isfinite(y) and np.isfinite(z):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            if exact:  # an exact zero has the sign that the float sum has
                flat[position] = _to_float64(exact)
        elif (
            np.isinf(z) and np.isfinite(x) and np.isfinite(y)
        ):  # the product does not overflow: nothing is rounded
            flat[position] = z
    return flat.reshape(result.shape)


def _to_float64(value: Fraction) -> float:
    try:
        return value.numerator / value.denominator  # int / int is correctly rounded
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")

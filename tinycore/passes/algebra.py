"""Natives of ``algebra.rules``: folding of constants with the exact meaning of the op table.

The language itself folds constants (`tinycore.rules.fold`); what it leaves alone because one rounding of a
double is not enough (integers to narrower floats, fused multiply-add) is rounded from exact fractions here.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from tinycore.ir import DType, UOp, ops
from tinycore.ir.dtypes import Scalar
from tinycore.rules.fold import fold as fold_constants

if TYPE_CHECKING:
    from fractions import Fraction


def fold(node: UOp) -> UOp | None:
    """The constant that an elementwise node over constants is; None for ops without an exact result.

    >>> from tinycore.ir import UOp, dtypes
    >>> fold(UOp.const(dtypes.int8, 100) + UOp.const(dtypes.int8, 100)).value
    -56
    """
    dtype = node.dtype
    if node.op is ops.CAST and dtype.is_float and node.src[0].dtype.is_int:
        return UOp.const(dtype, _rounded(dtype, int(node.src[0].value)), node.src[0].shape)
    if node.op is ops.FMA:
        a, b, c = [float(operand.value) for operand in node.src]
        return UOp.const(dtype, _fused(dtype, a, b, c), node.src[0].shape)
    result = fold_constants(node.op, dtype, node.src)
    return None if result is node else result


def _rounded(dtype: DType, value: int) -> float:
    if abs(value) <= 1 << 53:  # a double exactly
        return float(value)
    from fractions import Fraction

    return round_fraction(dtype, Fraction(value))


def _fused(dtype: DType, a: float, b: float, c: float) -> float:
    if math.isinf(c) and math.isfinite(a) and math.isfinite(b):
        return c  # a product that overflows as a double is still finite
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return a * b + c
    from fractions import Fraction

    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return round_fraction(dtype, exact) if exact else a * b + c


def round_fraction(dtype: DType, value: Fraction) -> float:
    """A double that rounds to `dtype` as the exact value does: rounded to odd if a second rounding follows.

    >>> from fractions import Fraction
    >>> from tinycore.ir import dtypes
    >>> round_fraction(dtypes.float32, Fraction(2**53 + 1)) == 2.0**53 + 2
    True
    """
    from fractions import Fraction

    try:
        near = float(value)
    except OverflowError:
        return math.copysign(math.inf, value)
    if dtype.name == "float64" or not math.isfinite(near) or Fraction(near) == value:
        return near
    bits = struct.unpack("<q", struct.pack("<d", near))[0]
    if not bits & 1:
        grows = (Fraction(near) < value) == (near > 0 or (near == 0 and value > 0))
        bits += 1 if grows else -1
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


# --- facts about constants ----------------------------------------------------------------------------------


def is_negative_zero(value: Scalar) -> bool:
    """Whether a constant is -0.0, the exact identity of float addition (0.0 is not: -0.0 + 0.0 is 0.0)."""
    return value == 0 and math.copysign(1.0, value) < 0


def is_positive_zero(value: Scalar) -> bool:
    """Whether a constant is +0.0 (or an integer 0)."""
    return value == 0 and math.copysign(1.0, value) > 0


def has_exact_reciprocal(value: float, dtype: DType) -> bool:
    """Whether x / value and x * (1 / value) agree for every x: a power of two with a normal reciprocal."""
    if not math.isfinite(value) or value == 0 or math.frexp(abs(value))[0] != 0.5:
        return False
    exponent = math.frexp(1 / value)[1] - 1
    limit = {"float64": 1022, "float32": 126, "bfloat16": 126, "float16": 14}.get(dtype.name, 0)
    return -limit <= exponent <= limit

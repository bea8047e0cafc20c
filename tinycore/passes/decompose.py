"""Natives of ``decompose.rules``: polynomials with or without fused multiply-add, facts about operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinycore.ir import DType, UOp, ops


def mad(context: Any, a: UOp, b: UOp | float, c: UOp | float) -> UOp:
    """a * b + c, as one FMA where the target has it. Approximations keep their bounds either way."""
    factor = b if isinstance(b, UOp) else a.const_like(b)
    addend = c if isinstance(c, UOp) else a.const_like(c)
    if context.target.has(ops.FMA):
        return UOp(ops.FMA, a.dtype, (a, factor, addend))
    return a * factor + addend


def polynomial(context: Any, x: UOp, coefficients: Sequence[float]) -> UOp:
    """The polynomial with these coefficients (constant term first) at x, by Horner's rule."""
    result = x.const_like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = mad(context, result, x, coefficient)
    return result


def log2_exact(value: int) -> int | None:
    """The exponent of a power of two, else None.

    >>> log2_exact(8), log2_exact(12), log2_exact(-4)
    (3, None, None)
    """
    return value.bit_length() - 1 if value > 0 and value & (value - 1) == 0 else None


def is_power_of_two(value: int) -> bool:
    """Whether a number is 1, 2, 4, ..."""
    return log2_exact(value) is not None


def width(dtype: DType) -> int:
    """Bits of an integer; 64 for `index`."""
    return dtype.bits or 64


def may_trap(x: UOp, y: UOp) -> bool:
    """Whether a machine may trap on x / y: y may be 0, or the quotient may not be representable.

    A divisor that a rule has already made safe has the form ``WHERE(unsafe, 1, y)``.
    """
    if y.op is ops.WHERE and y.src[1].is_const and y.src[1].value == 1:
        return False
    least = x.dtype.kind != "uint" and y.vmin <= -1 <= y.vmax and x.vmin <= int(x.dtype.min)
    return y.vmin <= 0 <= y.vmax or least

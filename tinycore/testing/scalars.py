"""What elementwise ops mean for single Python numbers; the obvious way. Used by the oracle only."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops

Function = Callable[..., Any]

_FORMATS = {  # fraction bits, exponent of the smallest normal number, largest finite value
    "float8_e4m3": (3, -6, 448.0),
    "float8_e5m2": (2, -14, 57344.0),
    "float16": (10, -14, 65504.0),
    "bfloat16": (7, -126, 3.3895313892515355e38),
    "float32": (23, -126, 3.4028234663852886e38),
    "float64": (52, -1022, 1.7976931348623157e308),
}


def wrap(dtype: DType, number: int) -> int:
    """An integer modulo 2**width, signed where the dtype is.

    >>> from tinycore.ir import dtypes
    >>> wrap(dtypes.int8, 200)
    -56
    """
    width = dtype.bits or 64
    number %= 1 << width
    return number - (1 << width) if dtype.kind in ("int", "index") and number >> (width - 1) else number


def round_to(dtype: DType, number: float | Fraction) -> float:
    """The nearest value of a float dtype, halves to even; overflow is infinite (e4m3 has only NaN).

    >>> from tinycore.ir import dtypes
    >>> round_to(dtypes.bfloat16, 1.00390625), round_to(dtypes.float16, 1e6)
    (1.0, inf)
    """
    fraction, lowest, largest = _FORMATS[dtype.name]
    if isinstance(number, float):
        if not math.isfinite(number) or number == 0.0:
            return math.nan if math.isinf(number) and dtype.name == "float8_e4m3" else number
        if dtype.name == "float64":
            return number
        exponent = math.frexp(number)[1] - 1
        quantum = math.ldexp(1.0, max(exponent, lowest) - fraction)
        rounded = math.copysign(round(abs(number) / quantum) * quantum, number)
    else:
        if not number:
            return 0.0
        size = abs(number)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        if Fraction(2) ** exponent > size:
            exponent -= 1
        power = Fraction(2) ** (max(exponent, lowest) - fraction)
        whole = round(size / power) * power
        rounded = math.inf if whole > Fraction(largest) else float(whole)
        rounded = -rounded if number < 0 else rounded
    if abs(rounded) > largest:
        return math.nan if dtype.name == "float8_e4m3" else math.copysign(math.inf, rounded)
    return rounded


def _guarded(function: Callable[..., float]) -> Callable[..., float]:
    """math functions raise where IEEE answers NaN or an infinity; the special cases come before."""

    def result(*values: float) -> float:
        try:
            return function(*values)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return result


def _divide(a: float, b: float) -> float:
    if b == 0.0:
        if a == 0.0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _logarithm(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: -math.inf if x == 0.0 else math.nan if x < 0.0 or math.isnan(x) else function(x)


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def _greater(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _lesser(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        if a == 0.0:
            return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
        return math.nan


def _fma(a: float, b: float, c: float) -> float | Fraction:
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return exact if exact else a * b + c


UNARY: dict[Op, Function] = {
    ops.SQRT: _guarded(math.sqrt),
    ops.EXP: _guarded(math.exp),
    ops.EXP2: _guarded(lambda x: 2.0**x),
    ops.LOG: _logarithm(math.log),
    ops.LOG2: _logarithm(math.log2),
    ops.SIN: _guarded(math.sin),
    ops.COS: _guarded(math.cos),
    ops.TANH: math.tanh,
    ops.ERF: math.erf,
    ops.FLOOR: _whole(math.floor),
    ops.TRUNC: _whole(math.trunc),
    ops.ROUND: _whole(round),
}
"""Functions of one float."""

FLOAT: dict[Op, Function] = {
    ops.NEG: lambda a: -a,
    ops.ADD: lambda a, b: a + b,
    ops.SUB: lambda a, b: a - b,
    ops.MUL: lambda a, b: a * b,
    ops.DIV: _divide,
    ops.POW: _power,
    ops.MAX: _greater,
    ops.MIN: _lesser,
    ops.FMA: _fma,
}
"""Functions of floats, before rounding to the dtype."""


def _truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _shift_left(dtype: DType, a: int, b: int) -> int:
    return a << b if 0 <= b < (dtype.bits or 64) else 0


def _shift_right(dtype: DType, a: int, b: int) -> int:
    return a >> b if 0 <= b < (dtype.bits or 64) else (-1 if a < 0 else 0)


INTEGER: dict[Op, Function] = {
    ops.NEG: lambda t, a: -a,
    ops.ADD: lambda t, a, b: a | b if t.kind == "bool" else a + b,
    ops.SUB: lambda t, a, b: a - b,
    ops.MUL: lambda t, a, b: a * b,
    ops.FLOORDIV: lambda t, a, b: a // b if b else 0,
    ops.FLOORMOD: lambda t, a, b: a % b if b else 0,
    ops.TRUNCDIV: lambda t, a, b: _truncated(a, b) if b else 0,
    ops.TRUNCMOD: lambda t, a, b: a - _truncated(a, b) * b if b else 0,
    ops.MAX: lambda t, a, b: max(a, b),
    ops.MIN: lambda t, a, b: min(a, b),
    ops.AND: lambda t, a, b: a & b,
    ops.OR: lambda t, a, b: a | b,
    ops.XOR: lambda t, a, b: a ^ b,
    ops.SHL: _shift_left,
    ops.SHR: _shift_right,
}
"""Functions of (dtype, integers), before wrapping."""

"""What every elementwise op means, one entry an op, with numpy.

Integers wrap and divide by zero to 0; floats follow IEEE 754 and round once. The narrow floats (float16,
bfloat16, 8-bit) are computed as float32 and rounded. Transcendental functions of float32 are computed in
float64 and rounded, so that they are correctly rounded but for about one argument in 10**8.

>>> import numpy
>>> from tinycore.ir import dtypes, ops
>>> with quiet():
...     MEANING[ops.FLOORDIV](dtypes.int32, numpy.array([7, -7, 1], "int32"), numpy.array([2, 2, 0], "int32"))
array([ 3, -4,  0], dtype=int32)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.interpret.conversions import bitcast, cast, fused_multiply_add
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops

Array = NDArray[Any]
Function = Callable[..., Any]
Meaning = Callable[..., Any]


def _narrow(array: Array) -> bool:
    return array.dtype.itemsize < 4 and array.dtype.kind in "fV"


def _widened(function: Function) -> Meaning:
    """Narrow floats are computed as float32 and rounded; everything else as it is."""

    def meaning(dtype: DType, *operands: Array) -> Any:
        if dtype.is_float and dtype.itemsize < 4:
            return cast(dtype, function(*[operand.astype(np.float32) for operand in operands]))
        return function(*operands)

    return meaning


def _transcendental(function: Function) -> Meaning:
    """float32 is computed in float64 and rounded; narrower floats are the float32 result, rounded."""

    def meaning(dtype: DType, *operands: Array) -> Any:
        exact = function(*[operand.astype(np.float64) for operand in operands])
        if dtype.itemsize == 8:
            return exact
        return cast(dtype, np.asarray(exact).astype(np.float32))

    return meaning


def _plain(function: Function) -> Meaning:
    return lambda dtype, *operands: function(*operands)


def _truncdiv(dtype: DType, a: Array, b: Array) -> Any:
    # a - fmod(a, b) is a multiple of b and lies between 0 and a: it cannot overflow.
    return np.floor_divide(a - np.fmod(a, b), b)


def _width(dtype: DType) -> int:
    return dtype.bits or 64


def _shl(dtype: DType, a: Array, b: Array) -> Any:
    valid = (b >= 0) & (b < _width(dtype))
    return np.where(valid, np.left_shift(a, np.where(valid, b, 0).astype(b.dtype)), np.zeros((), a.dtype))


def _shr(dtype: DType, a: Array, b: Array) -> Any:
    # Shifting by all but one bit leaves only copies of the sign: what a shift out of range gives.
    valid = (b >= 0) & (b < _width(dtype))
    if dtype.kind == "uint":
        shifted = np.right_shift(a, np.where(valid, b, 0).astype(b.dtype))
        return np.where(valid, shifted, np.zeros((), a.dtype))
    return np.right_shift(a, np.where(valid, b, _width(dtype) - 1).astype(b.dtype))


_erf = np.frompyfunc(math.erf, 1, 1)


def _error_function(x: Array) -> Any:
    return np.asarray(_erf(x)).astype(np.float64)


MEANING: dict[Op, Meaning] = {
    ops.NEG: _plain(np.negative),
    ops.SQRT: _widened(np.sqrt),
    ops.EXP: _transcendental(np.exp),
    ops.EXP2: _transcendental(np.exp2),
    ops.LOG: _transcendental(np.log),
    ops.LOG2: _transcendental(np.log2),
    ops.SIN: _transcendental(np.sin),
    ops.COS: _transcendental(np.cos),
    ops.TANH: _transcendental(np.tanh),
    ops.ERF: _transcendental(_error_function),
    ops.FLOOR: _widened(np.floor),
    ops.TRUNC: _widened(np.trunc),
    ops.ROUND: _widened(np.rint),
    ops.CAST: cast,
    ops.BITCAST: bitcast,
    ops.ADD: _widened(np.add),
    ops.SUB: _widened(np.subtract),
    ops.MUL: _widened(np.multiply),
    ops.DIV: _widened(np.divide),
    ops.FLOORDIV: _plain(np.floor_divide),
    ops.FLOORMOD: _plain(np.remainder),
    ops.TRUNCDIV: _truncdiv,
    ops.TRUNCMOD: _plain(np.fmod),
    ops.POW: _transcendental(np.power),
    ops.MAX: _widened(np.maximum),
    ops.MIN: _widened(np.minimum),
    ops.AND: _plain(np.bitwise_and),
    ops.OR: _plain(np.bitwise_or),
    ops.XOR: _plain(np.bitwise_xor),
    ops.SHL: _shl,
    ops.SHR: _shr,
    ops.LT: _plain(np.less),
    ops.LE: _plain(np.less_equal),
    ops.EQ: _plain(np.equal),
    ops.NE: _plain(np.not_equal),
    ops.WHERE: _plain(np.where),
    ops.FMA: fused_multiply_add,
}
"""Every elementwise op: ``MEANING[op](result dtype, *operand arrays)``. Call it under `quiet()`."""


def quiet() -> np.errstate:
    """The context in which meanings are evaluated: overflow, division by zero and NaN are not errors.

    >>> import numpy
    >>> with quiet():
    ...     print(numpy.float32(1) / numpy.float32(0))
    inf
    """
    return np.errstate(all="ignore")

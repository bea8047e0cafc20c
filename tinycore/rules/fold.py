"""Constant folding: what the ops of the table answer for constants, bit for bit.

Only ops whose result is the correctly rounded one are folded, so that folding never changes a bit:
transcendentals are left to the device. float16, bfloat16 and float32 are computed in double precision and
rounded once more, which is exact for ``+ - * /`` and the square root (53 >= 2 * 24 + 2).

>>> from tinycore.ir import UOp, dtypes, ops
>>> fold(ops.ADD, dtypes.int8, (UOp.const(dtypes.int8, 100), UOp.const(dtypes.int8, 100))).value
-56
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinycore.ir.dtypes import DType, Scalar, int64
from tinycore.ir.ops import Op, ops
from tinycore.ir.uop import UOp


def fold(op: Op, dtype: DType, src: tuple[UOp, ...]) -> UOp:
    """The constant that an elementwise op of constants is; the plain node where it is not folded."""
    fast = _ON_INTEGERS.get(op)
    if fast is not None and dtype.kind in _INTEGER_KINDS:
        second, shape = src[1].arg
        exact = fast(src[0].arg[0], second)
        wrapped = exact if dtype.kind == "index" else dtype.to_bits(exact)
        return UOp.__new__(UOp, ops.CONST, dtype, (), (wrapped, shape))
    bits = _fold_bits(op, dtype, src)
    return UOp(op, dtype, src) if bits is None else UOp(ops.CONST, dtype, (), (bits, src[-1].arg[1]))


def _fold_bits(op: Op, dtype: DType, src: tuple[UOp, ...]) -> int | None:
    if op is ops.WHERE:
        return int(src[1 if src[0].arg[0] else 2].arg[0])
    if op is ops.BITCAST:
        source = src[0].dtype
        if (
            source.kind == "index"
            or dtype.kind == "index"
            or (source.kind == "bool") != (dtype.kind == "bool")
        ):
            return None
        bits = int(src[0].arg[0]) & ((1 << source.bits) - 1)
        return bits if dtype.is_float else int(dtype.to_bits(bits))
    if op is ops.NEG and dtype.is_float:
        return int(src[0].arg[0]) ^ (1 << (dtype.bits - 1))
    value = fold_values(op, src[0].dtype, dtype, tuple([operand.value for operand in src]))
    return None if value is None else dtype.to_bits(value)


def fold_values(op: Op, source: DType, dtype: DType, values: tuple[Scalar, ...]) -> Scalar | None:
    """The number that an op answers for operands of dtype `source`, still to be converted to `dtype`."""
    if op is ops.CAST:
        return _cast(source, dtype, values[0])
    rule = _RULES.get(op)
    if rule is None or (op.dtype != "bool" and not source.is_float and op in _FLOAT_ONLY):
        return None
    if source.kind == "bool" and op in (ops.ADD, ops.MUL):
        return any(values) if op is ops.ADD else all(values)
    if op in (ops.SHL, ops.SHR):
        return _shift(op, source, int(values[0]), int(values[1]))
    return rule(*values)  # type: ignore[no-any-return]


def _cast(source: DType, dtype: DType, value: Any) -> Scalar | None:
    if dtype.kind == "bool":
        return bool(value != 0)
    if dtype.is_float and not source.is_float:
        exact = -(1 << 53) <= value <= 1 << 53
        return float(value) if exact or dtype.itemsize == 8 else None  # else it would be rounded twice
    if dtype.kind == "index" and not source.is_float:
        return int64.to_bits(value)  # 64 bits: the upper half of uint64 becomes negative
    if not source.is_float or dtype.is_float:
        return value  # type: ignore[no-any-return]
    if math.isnan(value):
        return 0
    low, high = int(dtype.min), int(dtype.max)
    return low if value <= low else high if value >= high else int(value)


def _shift(op: Op, dtype: DType, a: int, b: int) -> int | None:
    if dtype.kind == "index" and not 0 <= b < 64:
        return None
    if not 0 <= b < (dtype.bits or 64):
        return -1 if op is ops.SHR and a < 0 else 0
    return a << b if op is ops.SHL else a >> b


def _div(a: float, b: float) -> float:
    if b != 0 or math.isnan(b):
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _float_operation(function: Callable[..., float]) -> Callable[..., float]:
    def guarded(*values: float) -> float:
        return values[0] if not math.isfinite(values[0]) else math.copysign(function(values[0]), values[0])

    return guarded


def _truncdiv(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _extreme(greater: bool) -> Callable[[Any, Any], Any]:
    def choose(a: Any, b: Any) -> Any:
        if a != a or b != b:
            return math.nan
        return (a if a >= b else b) if greater else (a if a <= b else b)

    return choose


_RULES: dict[Op, Callable[..., Any]] = {
    ops.NEG: lambda a: -a,
    ops.ADD: lambda a, b: a + b,
    ops.SUB: lambda a, b: a - b,
    ops.MUL: lambda a, b: a * b,
    ops.DIV: _div,
    ops.FLOORDIV: lambda a, b: a // b if b else 0,
    ops.FLOORMOD: lambda a, b: a % b if b else 0,
    ops.TRUNCDIV: _truncdiv,
    ops.TRUNCMOD: lambda a, b: a - _truncdiv(a, b) * b if b else 0,
    ops.MAX: _extreme(True),
    ops.MIN: _extreme(False),
    ops.AND: lambda a, b: a & b,
    ops.OR: lambda a, b: a | b,
    ops.XOR: lambda a, b: a ^ b,
    ops.SHL: lambda a, b: None,  # see _shift
    ops.SHR: lambda a, b: None,
    ops.LT: lambda a, b: a < b,
    ops.LE: lambda a, b: a <= b,
    ops.EQ: lambda a, b: a == b,
    ops.NE: lambda a, b: a != b,
    ops.SQRT: lambda a: math.nan if a != a or a < 0 else math.sqrt(a),
    ops.FLOOR: _float_operation(math.floor),
    ops.TRUNC: _float_operation(math.trunc),
    ops.ROUND: _float_operation(round),
}
_FLOAT_ONLY = frozenset({ops.DIV, ops.SQRT, ops.FLOOR, ops.TRUNC, ops.ROUND})
_ON_INTEGERS: dict[Op, Callable[[int, int], int]] = {
    ops.ADD: int.__add__,
    ops.SUB: int.__sub__,
    ops.MUL: int.__mul__,
}
"""The commonest ones, without the detour over values."""
_INTEGER_KINDS = ("index", "int", "uint")

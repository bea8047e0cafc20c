"""What nodes mean, as z3 terms: `index` as unbounded integers, sized integers as bit-vectors, floats as IEEE.

An op without an exact meaning here raises Unsupported; transcendental functions are uninterpreted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import z3

from tinycore.ir import UOp, dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore_tools_rules.symbols import BitSymbol, IntSymbol, Symbol, Unsupported, floor_division, resize

_FLOATS = {
    "float8_e4m3": (5, 4),  # holds all its values; conversions see to range and NaN
    "float8_e5m2": (5, 3),
    "float16": (5, 11),
    "bfloat16": (8, 8),
    "float32": (8, 24),
    "float64": (11, 53),
}
_ROUNDING = {ops.FLOOR: z3.RTN, ops.TRUNC: z3.RTZ, ops.ROUND: z3.RNE}
_UNINTERPRETED = frozenset(
    {ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF, ops.POW}
)


def float_sort(dtype: DType) -> Any:
    """The z3 sort whose values a float has (for e4m3, which is not IEEE: one that has more)."""
    return z3.FPSort(*_FLOATS[dtype.name])


def to_float(x: Any, dtype: DType) -> Any:
    """A z3 float rounded to another format."""
    sort = float_sort(dtype)
    if dtype.name != "float8_e4m3":
        return z3.fpToFP(z3.RNE(), x, sort)
    # No infinity, 448 is the greatest number, below 2**-6 all multiples of 2**-9 and nothing between.
    wide = z3.FPSort(max(x.sort().ebits(), 8), max(x.sort().sbits(), 24))
    value, unit = z3.fpToFP(z3.RNE(), x, wide), z3.FPVal(512, wide)
    steps = z3.fpRoundToIntegral(z3.RNE(), z3.fpMul(z3.RNE(), value, unit))
    tiny = z3.fpToFP(z3.RNE(), z3.fpDiv(z3.RNE(), steps, unit), sort)
    rounded = z3.fpToFP(z3.RNE(), x, sort)
    small = z3.fpLT(z3.fpAbs(value), z3.FPVal(0.015625, wide))
    over = z3.Or(z3.fpIsInf(rounded), z3.fpGT(z3.fpAbs(rounded), z3.FPVal(448, sort)))
    return z3.If(small, tiny, z3.If(over, z3.fpNaN(sort), rounded))


def from_bits(bits: Any, dtype: DType) -> Any:
    """The z3 float that the bits of a format stand for."""
    sort = float_sort(dtype)
    if dtype.name != "float8_e4m3":
        return z3.fpBVToFP(bits, sort)
    exponent, mantissa = z3.Extract(6, 3, bits), z3.Extract(2, 0, bits)
    normal = z3.Concat(z3.Extract(7, 7, bits), z3.ZeroExt(1, exponent) + 8, mantissa)
    steps = z3.fpUnsignedToFP(z3.RNE(), mantissa, z3.FPSort(8, 24))
    size = z3.fpToFP(z3.RNE(), z3.fpDiv(z3.RNE(), steps, z3.FPVal(512, z3.FPSort(8, 24))), sort)
    denormal = z3.If(z3.Extract(7, 7, bits) == 1, z3.fpNeg(size), size)
    nan = z3.Extract(6, 0, bits) == 0x7F
    return z3.If(nan, z3.fpNaN(sort), z3.If(exponent == 0, denormal, z3.fpBVToFP(normal, sort)))


Encoding = Literal["words", "machine", "integers", "reals"]
"""How integers are encoded.

words: sized integers as bit-vectors, `index` as unbounded integers.
machine: `index` as a 64-bit vector too, for bitwise ops; a difference proves nothing then.
integers: sized integers as unbounded ones that are wrapped after every op; good at division.
reals: as words, and floats as real numbers: for rules that may round differently.
"""


def sort_width(dtype: DType, encoding: Encoding) -> int | None:
    """The bits of the vector that encodes an integer dtype; None when a z3 integer does."""
    if encoding == "integers" and not dtype.is_float:
        return None
    return (dtype.bits or None) if encoding in ("words", "reals") else (dtype.bits or 64)


def wrap(dtype: DType, term: Any) -> Any:
    """A z3 integer as what a sized dtype keeps of it."""
    if not dtype.bits:
        return term
    size = 1 << dtype.bits
    if dtype.kind == "uint":
        return term % size
    return (term + size // 2) % size - size // 2


class Terms:
    """Terms of the nodes of one instance.

    `leaf(node)` gives what stands for a leaf: an integer, a bit-vector (for sized integers and floats) or a
    truth value.
    """

    def __init__(self, leaf: Callable[[UOp], Any], encoding: Encoding = "words") -> None:
        self.leaf, self.encoding = leaf, encoding
        self.memo: dict[UOp, Any] = {}
        self.side: list[Any] = []
        self.abstract = False
        """Whether something uninterpreted took part: then a counterexample means nothing."""

    def of(self, root: UOp) -> Any:
        """The term of a node."""
        for node in root.toposort():
            if node not in self.memo:
                self.memo[node] = self._term(node)
        return self.memo[root]

    # --- leaves -------------------------------------------------------------------------------------------

    def _term(self, node: UOp) -> Any:
        if node.op is ops.CONST:
            return self.constant(node.dtype, node.arg[0])
        if not node.src:
            return self.of_bits(node.dtype, self.leaf(node))
        if not node.op.elementwise:
            raise Unsupported(f"{node.op.name} has no term")
        operands = [self.memo[operand] for operand in node.src]
        if node.op is ops.CAST:
            return self.cast(node.src[0].dtype, node.dtype, operands[0])
        if node.op is ops.BITCAST:
            return self.of_bits(node.dtype, self.bits_of(node.src[0], operands[0]))
        if node.op is ops.WHERE:
            return z3.If(operands[0], operands[1], operands[2])
        kind = node.src[-1].dtype.kind
        if node.op in _UNINTERPRETED:
            return self._uninterpreted(node, operands)
        if kind == "float" and self.encoding == "reals":
            return _apply(_REAL, node.op, operands)
        if kind == "float" and node.src[-1].dtype.name == "float8_e4m3":
            return self._narrow(node, operands)
        if kind == "float":
            return self._float(node.op, operands)
        if kind == "bool":
            return _apply(_BOOL, node.op, operands)
        if sort_width(node.src[-1].dtype, self.encoding) is None:
            return self._index(node, operands)
        return _apply(_SIGNED if kind != "uint" else _UNSIGNED, node.op, operands)

    def constant(self, dtype: DType, bits: Any) -> Any:
        """The term of a CONST."""
        if dtype.kind == "bool":
            return z3.BoolVal(bool(bits))
        if dtype.is_float and self.encoding == "reals":
            value = float(dtype.from_bits(bits))
            if not math.isfinite(value):
                raise Unsupported(f"{value} is no real number")
            return z3.RealVal(Fraction(value))
        width = sort_width(dtype, self.encoding)
        if isinstance(bits, IntSymbol) and width is None:
            return bits.term
        if isinstance(bits, BitSymbol) and width is not None:
            return bits.make(width)
        if isinstance(bits, Symbol):
            raise Unsupported("a number of one encoding where another one is used")
        return z3.IntVal(bits) if width is None else self.of_bits(dtype, z3.BitVecVal(bits, width))

    def of_bits(self, dtype: DType, bits: Any) -> Any:
        """The value that the bits of a leaf stand for."""
        if self.encoding == "reals":
            return bits
        return from_bits(bits, dtype) if dtype.is_float else bits

    def bits_of(self, node: UOp, term: Any) -> Any:
        """The bits of a value; those of a computed NaN are any that stand for NaN."""
        if self.encoding == "reals":
            raise Unsupported("the bits of a real number")
        if not node.dtype.is_float:
            return term
        if not node.src and node.op is not ops.CONST:
            return self.leaf(node)
        fresh = z3.FreshConst(z3.BitVecSort(node.dtype.bits), "bits")
        self.side.append(from_bits(fresh, node.dtype) == term)
        return fresh

    # --- ops ----------------------------------------------------------------------------------------------

    def cast(self, source: DType, target: DType, x: Any) -> Any:
        """The term of a CAST."""
        if source is target:
            return x
        if self.encoding == "reals" and (source.is_float or target.is_float):
            raise Unsupported("a conversion rounds")
        if target.kind == "bool":
            zero = z3.FPVal(0, x.sort()) if source.is_float else 0
            return z3.Not(z3.fpEQ(x, zero)) if source.is_float else x != zero
        if target.is_float:
            return self._to_float(source, target, x)
        if source.is_float:
            return self._from_float(target, x)
        width, own = sort_width(target, self.encoding), sort_width(source, self.encoding)
        if source.kind == "bool":
            return z3.If(x, self.constant(target, 1), self.constant(target, 0))
        if own is None:
            return (
                wrap(dtypes.int64 if target.kind == "index" and source.kind == "uint" else target, x)
                if (width is None)
                else z3.Int2BV(x, width)
            )
        signed = source.kind != "uint"
        if width is None:  # machine integers have 64 bits: the upper half of uint64 becomes negative
            return z3.BV2Int(resize(x, 64, signed), is_signed=True)
        return resize(x, width, signed)

    def _to_float(self, source: DType, target: DType, x: Any) -> Any:
        sort = float_sort(target)
        if source.is_float:
            return to_float(x, target)
        if source.kind == "bool":
            return z3.If(x, z3.FPVal(1, sort), z3.FPVal(0, sort))
        if sort_width(source, self.encoding) is None:
            raise Unsupported("an unbounded integer to float")
        convert = z3.fpUnsignedToFP if source.kind == "uint" else z3.fpSignedToFP
        if target.name == "float8_e4m3":  # exact in a format of enough bits, then rounded once
            return to_float(convert(z3.RNE(), x, z3.FPSort(11, max(24, source.bits + 1))), target)
        return convert(z3.RNE(), x, sort)

    def _from_float(self, target: DType, x: Any) -> Any:
        if sort_width(target, self.encoding) is None:
            raise Unsupported("float to an unbounded integer")
        width = target.bits or 64
        low, high = int(target.min), int(target.max)
        sort = x.sort()
        convert = z3.fpToUBV if target.kind == "uint" else z3.fpToSBV
        wide = z3.FPSort(max(sort.ebits(), 8), max(sort.sbits(), width + 2))
        exact = z3.fpToFP(z3.RNE(), x, wide)
        inside = convert(z3.RTZ(), x, z3.BitVecSort(width))
        return z3.If(
            z3.fpIsNaN(x),
            z3.BitVecVal(0, width),
            z3.If(
                z3.fpLEQ(exact, z3.FPVal(low, wide)),
                z3.BitVecVal(low, width),
                z3.If(z3.fpGEQ(exact, z3.FPVal(high, wide)), z3.BitVecVal(high, width), inside),
            ),
        )

    def _uninterpreted(self, node: UOp, operands: list[Any]) -> Any:
        self.abstract = True
        sorts = [operand.sort() for operand in operands]
        return z3.Function(f"{node.op.name}_{node.dtype.name}", *sorts, operands[0].sort())(*operands)

    def _float(self, op: Op, operands: list[Any]) -> Any:
        if op in _ROUNDING:
            return z3.fpRoundToIntegral(_ROUNDING[op](), operands[0])
        return _apply(_FLOAT, op, operands)

    def _narrow(self, node: UOp, operands: list[Any]) -> Any:
        """e4m3 is computed as float32 and rounded."""
        wide = [z3.fpToFP(z3.RNE(), operand, z3.FPSort(8, 24)) for operand in operands]
        if node.op is ops.FMA:
            raise Unsupported("FMA of e4m3")
        result = self._float(node.op, wide)
        return to_float(result, node.dtype) if z3.is_fp(result) else result

    def _index(self, node: UOp, operands: list[Any]) -> Any:
        if node.op in (ops.SHL, ops.SHR):
            return _shifted_index(node, operands)
        found = _apply(_INDEX, node.op, operands)
        return wrap(node.dtype, found) if node.dtype.kind in ("int", "uint") else found


def _shifted_index(node: UOp, operands: list[Any]) -> Any:
    width = node.dtype.bits or 64
    amount = node.src[1].arg[0] if node.src[1].op is ops.CONST else None
    if not isinstance(amount, int):
        raise Unsupported("a shift of index by an unknown amount")
    x = operands[0]
    if not 0 <= amount < width:
        return z3.IntVal(0) if node.op is ops.SHL else z3.If(x < 0, z3.IntVal(-1), z3.IntVal(0))
    return wrap(node.dtype, x * (1 << amount)) if node.op is ops.SHL else x / (1 << amount)


def _apply(table: dict[Op, Callable[..., Any]], op: Op, operands: list[Any]) -> Any:
    if op not in table:
        raise Unsupported(f"{op.name} has no term for these dtypes")
    return table[op](*operands)


def _guarded(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A quotient or remainder that is 0 where the divisor is."""

    def divide(a: Any, b: Any) -> Any:
        zero = z3.IntVal(0) if z3.is_int(a) else z3.BitVecVal(0, a.size())
        return z3.If(b == zero, zero, function(a, b))

    return divide


def _int_truncdiv(a: Any, b: Any) -> Any:
    magnitude = z3.If(a < 0, -a, a) / z3.If(b < 0, -b, b)
    return z3.If((a < 0) == (b < 0), magnitude, -magnitude)


def _shift(
    function: Callable[[Any, Any], Any], signed: bool, outside: Callable[[Any], Any]
) -> Callable[..., Any]:
    def shift(a: Any, b: Any) -> Any:
        width = a.size()
        limit = z3.BitVecVal(min(width, (1 << width) - 1), width)
        valid = z3.And(b >= 0, b < limit) if signed else z3.ULT(b, limit)
        return z3.If(valid, function(a, b), outside(a))

    return shift


def _nothing(a: Any) -> Any:
    return z3.BitVecVal(0, a.size())


def _sign(a: Any) -> Any:
    return z3.If(a < 0, z3.BitVecVal(-1, a.size()), z3.BitVecVal(0, a.size()))


def _float_extreme(less: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: z3.If(z3.fpIsNaN(a), a, z3.If(z3.fpIsNaN(b), b, z3.If(less(a, b), b, a)))


_SAME: dict[Op, Callable[..., Any]] = {
    ops.NEG: lambda a: -a,
    ops.ADD: lambda a, b: a + b,
    ops.SUB: lambda a, b: a - b,
    ops.MUL: lambda a, b: a * b,
    ops.EQ: lambda a, b: a == b,
    ops.NE: lambda a, b: a != b,
}
_ORDERED: dict[Op, Callable[..., Any]] = {
    ops.LT: lambda a, b: a < b,
    ops.LE: lambda a, b: a <= b,
    ops.MAX: lambda a, b: z3.If(a < b, b, a),
    ops.MIN: lambda a, b: z3.If(b < a, b, a),
}
_BITS: dict[Op, Callable[..., Any]] = {
    ops.AND: lambda a, b: a & b,
    ops.OR: lambda a, b: a | b,
    ops.XOR: lambda a, b: a ^ b,
}
_INDEX: dict[Op, Callable[..., Any]] = {
    **_SAME,
    **_ORDERED,
    ops.FLOORDIV: _guarded(lambda a, b: z3.If(b > 0, a / b, (-a) / (-b))),
    ops.FLOORMOD: _guarded(lambda a, b: z3.If(b > 0, a % b, -((-a) % (-b)))),
    ops.TRUNCDIV: _guarded(_int_truncdiv),
    ops.TRUNCMOD: _guarded(lambda a, b: a - b * _int_truncdiv(a, b)),
}
_SIGNED: dict[Op, Callable[..., Any]] = {
    **_SAME,
    **_ORDERED,
    **_BITS,
    ops.FLOORDIV: _guarded(lambda a, b: floor_division(a, b)[0]),
    ops.FLOORMOD: _guarded(lambda a, b: floor_division(a, b)[1]),
    ops.TRUNCDIV: _guarded(lambda a, b: a / b),
    ops.TRUNCMOD: _guarded(z3.SRem),
    ops.SHL: _shift(lambda a, b: a << b, True, _nothing),
    ops.SHR: _shift(lambda a, b: a >> b, True, _sign),
}
_UNSIGNED: dict[Op, Callable[..., Any]] = {
    **_SAME,
    **_BITS,
    ops.LT: z3.ULT,
    ops.LE: z3.ULE,
    ops.MAX: lambda a, b: z3.If(z3.ULT(a, b), b, a),
    ops.MIN: lambda a, b: z3.If(z3.ULT(b, a), b, a),
    ops.FLOORDIV: _guarded(z3.UDiv),
    ops.FLOORMOD: _guarded(z3.URem),
    ops.TRUNCDIV: _guarded(z3.UDiv),
    ops.TRUNCMOD: _guarded(z3.URem),
    ops.SHL: _shift(lambda a, b: a << b, False, _nothing),
    ops.SHR: _shift(z3.LShR, False, _nothing),
}
_BOOL: dict[Op, Callable[..., Any]] = {
    ops.ADD: z3.Or,
    ops.MUL: z3.And,
    ops.MAX: z3.Or,
    ops.MIN: z3.And,
    ops.AND: z3.And,
    ops.OR: z3.Or,
    ops.XOR: z3.Xor,
    ops.LT: lambda a, b: z3.And(z3.Not(a), b),
    ops.LE: z3.Implies,
    ops.EQ: lambda a, b: a == b,
    ops.NE: z3.Xor,
}
_FLOAT: dict[Op, Callable[..., Any]] = {
    ops.NEG: z3.fpNeg,
    ops.SQRT: lambda a: z3.fpSqrt(z3.RNE(), a),
    ops.ADD: lambda a, b: z3.fpAdd(z3.RNE(), a, b),
    ops.SUB: lambda a, b: z3.fpSub(z3.RNE(), a, b),
    ops.MUL: lambda a, b: z3.fpMul(z3.RNE(), a, b),
    ops.DIV: lambda a, b: z3.fpDiv(z3.RNE(), a, b),
    ops.FMA: lambda a, b, c: z3.fpFMA(z3.RNE(), a, b, c),
    ops.MAX: _float_extreme(z3.fpLT),
    ops.MIN: _float_extreme(z3.fpGT),
    ops.LT: z3.fpLT,
    ops.LE: z3.fpLEQ,
    ops.EQ: z3.fpEQ,
    ops.NE: lambda a, b: z3.Not(z3.fpEQ(a, b)),
}
_REAL: dict[Op, Callable[..., Any]] = {
    **_SAME,
    **_ORDERED,
    ops.DIV: lambda a, b: a / b,
    ops.FMA: lambda a, b, c: a * b + c,
}
_MAXIMUM = (ops.MAX, ops.MIN)


def signless(*nodes: UOp) -> bool:
    """Whether the sign of a zero is unspecified in these graphs (MAX or MIN of floats take part)."""
    return any(part.op in _MAXIMUM and part.dtype.is_float for node in nodes for part in node.toposort())


__all__ = ["Terms", "dtypes", "float_sort", "signless"]

"""Elementwise arithmetic: promotion, comparison, casting, functions of one element.

Two tensors meet in `dtypes.promote` of theirs; a Python number is weak and takes the dtype of the tensor,
unless it cannot be one of its values (a float with an int tensor makes the default float).
"""

from __future__ import annotations

import math
from typing import Any, Self, TypeVar, cast

from tinycore.errors import DTypeError
from tinycore.ir import DType, Op, UOp, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.conversion import as_dtype, scalar_dtype
from tinycore_frontend_tensor.core import DEFAULT_FLOAT, DEFAULT_INT, Scalar, TensorCore
from tinycore_frontend_tensor.movement import Movement
from tinycore_frontend_tensor.symbolic import Dimension

Kind = TypeVar("Kind", bound="Elementwise")


class Elementwise(Movement):
    """The methods of `Tensor` that work element by element."""

    __slots__ = ()

    # --- operands -----------------------------------------------------------------------------------------

    def _operand(self, other: object, what: str) -> Self:
        """The other operand as a tensor; a Python number becomes a weak constant."""
        if isinstance(other, TensorCore):
            return other  # type: ignore[return-value]
        if isinstance(other, Dimension):
            return self._dimension(other)
        if isinstance(other, (bool, int, float)):
            return type(self).of_node(UOp.const(self._weak_dtype(other), other))
        if hasattr(other, "__array__") or isinstance(other, (list, tuple)):
            return type(self)(other, device=self._device)
        raise DTypeError(f"{what}: {type(other).__name__} is neither a tensor nor a number")

    def _node_of(self, other: object, what: str) -> tuple[UOp, TensorCore | None]:
        """The node of the other operand, and the tensor that it belongs to; a number belongs to none."""
        if isinstance(other, TensorCore):
            return other.uop, other
        if isinstance(other, (bool, int, float)):
            return UOp.const(self._weak_dtype(other), other, self.uop.shape), None
        right = self._operand(other, what)
        return right.uop, right

    def _dimension(self, size: Dimension) -> Self:
        dtype = self.dtype if self.dtype.kind != "bool" else DEFAULT_INT
        return type(self).of_node(graph.dim_value(size.node, dtype), size.bindings)

    def _weak_dtype(self, value: Scalar) -> DType:
        dtype = self.uop.dtype
        if dtype.kind == "float" or isinstance(value, bool):
            return dtype
        if isinstance(value, float):
            return DEFAULT_FLOAT
        if self.dtype.kind == "bool" or (self.dtype.is_int and not self.dtype.min <= value <= self.dtype.max):
            return DEFAULT_INT
        return self.dtype

    def _binary(
        self,
        op: Op,
        other: object,
        *,
        reverse: bool = False,
        dtype: DType | None = None,
        what: str | None = None,
    ) -> Self:
        what = what or op.name.lower()
        a = self.uop
        b, right = self._node_of(other, what)
        common = dtype or dtypes.promote(a.dtype, b.dtype)
        a, b = a.cast(common), b.cast(common)
        if reverse:
            a, b = b, a
        if a.shape != b.shape:
            shape = graph.broadcast_shape(a.shape, b.shape, what=what)
            a, b = graph.broadcast(a, shape), graph.broadcast(b, shape)
        result = a.alu(op, b)
        return self._derive(result) if right is None else self._derive(result, right)

    def _unary(self, op: Op, what: str | None = None) -> Self:
        """A float function; integers are converted to the default float first."""
        node = self.uop
        if not node.dtype.is_float:
            node = node.cast(DEFAULT_FLOAT)
        return self._node(node.alu(op))

    def _number(self, what: str) -> None:
        if self.dtype.kind == "bool":
            raise DTypeError(
                f"{what} has no meaning for bool tensors", hint="use ~, ^ or logical_*(), or cast: x.int()"
            )

    # --- arithmetic ---------------------------------------------------------------------------------------

    def __add__(self, other: object) -> Self:
        return self._binary(ops.ADD, other)

    def __radd__(self, other: object) -> Self:
        return self._binary(ops.ADD, other, reverse=True)

    def __sub__(self, other: object) -> Self:
        return self._subtract(other, False)

    def __rsub__(self, other: object) -> Self:
        return self._subtract(other, True)

    def _subtract(self, other: object, reverse: bool) -> Self:
        if self.uop.dtype.is_float and isinstance(other, (int, float)):
            return self._binary(ops.SUB, other, reverse=reverse)
        right = self._operand(other, "sub")
        if dtypes.promote(self.dtype, right.dtype).kind == "bool":
            self._number("subtraction")
        return self._binary(ops.SUB, right, reverse=reverse)

    def __mul__(self, other: object) -> Self:
        return self._binary(ops.MUL, other)

    def __rmul__(self, other: object) -> Self:
        return self._binary(ops.MUL, other, reverse=True)

    def __truediv__(self, other: object) -> Self:
        return self._divide(other, False)

    def __rtruediv__(self, other: object) -> Self:
        return self._divide(other, True)

    def _divide(self, other: object, reverse: bool) -> Self:
        if self.uop.dtype.is_float and isinstance(other, (int, float)):
            return self._binary(ops.DIV, other, reverse=reverse)
        right = self._operand(other, "div")
        common = dtypes.promote(self.dtype, right.dtype)
        return self._binary(
            ops.DIV, right, reverse=reverse, dtype=common if common.is_float else DEFAULT_FLOAT
        )

    def __floordiv__(self, other: object) -> Self:
        return self._floor_divide(other, False)

    def __rfloordiv__(self, other: object) -> Self:
        return self._floor_divide(other, True)

    def _floor_divide(self, other: object, reverse: bool) -> Self:
        right = self._operand(other, "floordiv")
        common = dtypes.promote(self.dtype, right.dtype)
        if common.is_float:
            return self._binary(ops.DIV, right, reverse=reverse, dtype=common)._unary(ops.FLOOR)
        return self._binary(
            ops.FLOORDIV, right, reverse=reverse, dtype=DEFAULT_INT if common.kind == "bool" else None
        )

    def __mod__(self, other: object) -> Self:
        return self._remainder(other, False)

    def __rmod__(self, other: object) -> Self:
        return self._remainder(other, True)

    def _remainder(self, other: object, reverse: bool) -> Self:
        right = self._operand(other, "mod")
        common = dtypes.promote(self.dtype, right.dtype)
        if common.is_float:
            a, b = (right, self) if reverse else (self, right)
            return a - (a._binary(ops.DIV, b, dtype=common)._unary(ops.FLOOR)) * b
        return self._binary(
            ops.FLOORMOD, right, reverse=reverse, dtype=DEFAULT_INT if common.kind == "bool" else None
        )

    def div(self, other: object, rounding_mode: str | None = None) -> Self:
        """Division; ``rounding_mode`` "floor" or "trunc" rounds the quotient."""
        if rounding_mode is None:
            return self / other
        if rounding_mode == "floor":
            return self // other
        if rounding_mode != "trunc":
            raise DTypeError(f"div: rounding_mode {rounding_mode!r} is not None, 'floor' or 'trunc'")
        right = self._operand(other, "div")
        common = dtypes.promote(self.dtype, right.dtype)
        return (self / right)._unary(ops.TRUNC) if common.is_float else self._binary(ops.TRUNCDIV, right)

    def __neg__(self) -> Self:
        self._number("negation")
        return self._node(-self.uop)

    def __pos__(self) -> Self:
        return self

    def __pow__(self, other: object) -> Self:
        if isinstance(other, (int, float)) and not isinstance(other, bool):
            return self._power_of_number(other)
        return self._power(other, False)

    def __rpow__(self, other: object) -> Self:
        return self._power(other, True)

    def _power_of_number(self, exponent: int | float) -> Self:
        if exponent == 0.5 and self.dtype.is_float:
            return self._unary(ops.SQRT)
        if exponent == -0.5 and self.dtype.is_float:
            return 1.0 / self._unary(ops.SQRT)
        if exponent != int(exponent) or abs(exponent) > 64 or (exponent < 0 and self.dtype.is_float is False):
            return self._power(exponent, False)
        if isinstance(exponent, float) and not self.dtype.is_float:
            return self.cast(DEFAULT_FLOAT)._power_of_number(exponent)
        source = self.cast(DEFAULT_INT) if self.dtype.kind == "bool" else self
        result: Self | None = None
        square, left = source, abs(int(exponent))
        while left:  # repeated squaring
            if left & 1:
                result = square if result is None else result * square
            left >>= 1
            square = square * square if left else square
        if result is None:
            return source * 0 + 1 if not source.dtype.is_float else source._node(source.uop.const_like(1.0))
        return 1.0 / result if exponent < 0 else result

    def _power(self, other: object, reverse: bool) -> Self:
        right = self._operand(other, "pow")
        base, exponent = (right, self) if reverse else (self, right)
        common = dtypes.promote(self.dtype, right.dtype)
        if common.is_float:
            return base._binary(ops.POW, exponent, dtype=common)
        if isinstance(other, int) and not reverse and other < 0:
            raise DTypeError("integers to negative integer powers are not allowed", hint="use x.float() ** n")
        return _integer_power(base.cast(common), exponent.cast(common))

    def add(self, other: object, alpha: Scalar = 1) -> Self:
        """``self + alpha * other``."""
        return self + (other if alpha == 1 else self._operand(other, "add") * alpha)

    def sub(self, other: object, alpha: Scalar = 1) -> Self:
        """``self - alpha * other``."""
        return self - (other if alpha == 1 else self._operand(other, "add") * alpha)

    def mul(self, other: object) -> Self:
        """``self * other``."""
        return self * other

    def pow(self, other: object) -> Self:
        """``self ** other``."""
        return self**other

    # --- comparison and logic -----------------------------------------------------------------------------

    def _compare(self, op: Op, other: object, reverse: bool = False) -> Self:
        return self._binary(op, other, reverse=reverse)

    def __lt__(self, other: object) -> Self:
        return self._compare(ops.LT, other)

    def __le__(self, other: object) -> Self:
        return self._compare(ops.LE, other)

    def __gt__(self, other: object) -> Self:
        return self._compare(ops.LT, other, True)

    def __ge__(self, other: object) -> Self:
        return self._compare(ops.LE, other, True)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return self._compare(ops.EQ, other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return self._compare(ops.NE, other)

    __hash__ = TensorCore.__hash__

    def eq(self, other: object) -> Self:
        """``self == other``, element by element."""
        return self._compare(ops.EQ, other)

    def ne(self, other: object) -> Self:
        """``self != other``, element by element."""
        return self._compare(ops.NE, other)

    def _bits(self, op: Op, other: object, reverse: bool = False) -> Self:
        right = self._operand(other, op.name.lower())
        common = dtypes.promote(self.dtype, right.dtype)
        if common.is_float:
            raise DTypeError(
                f"bitwise {op.name} of {self.dtype.name} and {right.dtype.name}",
                hint="floats have no bits here: compare first, or cast to an integer",
            )
        return self._binary(op, right, reverse=reverse)

    def __and__(self, other: object) -> Self:
        return self._bits(ops.AND, other)

    __rand__ = __and__

    def __or__(self, other: object) -> Self:
        return self._bits(ops.OR, other)

    __ror__ = __or__

    def __xor__(self, other: object) -> Self:
        return self._bits(ops.XOR, other)

    __rxor__ = __xor__

    def __invert__(self) -> Self:
        if self.dtype.is_float:
            raise DTypeError(f"~ of a {self.dtype.name} tensor", hint="use logical_not()")
        ones = True if self.dtype.kind == "bool" else -1
        return self._node(self.uop ^ UOp.const(self.dtype, ones, self.uop.shape))

    def __lshift__(self, other: object) -> Self:
        return self._bits(ops.SHL, other)

    def __rshift__(self, other: object) -> Self:
        return self._bits(ops.SHR, other)

    def logical_not(self) -> Self:
        """True where the element is zero."""
        return ~self.bool()

    def logical_and(self, other: object) -> Self:
        """True where both are not zero."""
        return self.bool() & self._operand(other, "logical_and").bool()

    def logical_or(self, other: object) -> Self:
        """True where one is not zero."""
        return self.bool() | self._operand(other, "logical_or").bool()

    def isnan(self) -> Self:
        """True where the element is NaN."""
        return self._node(self.uop.ne(self.uop))

    def isinf(self) -> Self:
        """True where the element is an infinity."""
        if not self.dtype.is_float:
            return self._node(UOp.const(dtypes.bool_, False, self.uop.shape))
        return self.eq(math.inf) | self.eq(-math.inf)

    def isfinite(self) -> Self:
        """True where the element is neither NaN nor infinite."""
        return ~(self.isnan() | self.isinf())

    def maximum(self, other: object) -> Self:
        """The greater of two; NaN where either is."""
        return self._binary(ops.MAX, other, what="maximum")

    def minimum(self, other: object) -> Self:
        """The lesser of two; NaN where either is."""
        return self._binary(ops.MIN, other, what="minimum")

    def clamp(self, min: Any = None, max: Any = None) -> Self:
        """Limited to min..max; NaN stays."""
        result = self
        if min is not None:
            low = result._operand(min, "clamp")
            result = (result < low).where(low, result)
        if max is not None:
            high = result._operand(max, "clamp")
            result = (result > high).where(high, result)
        return result

    clip = clamp

    def where(self, yes: object, no: object) -> Self:
        """`yes` where this bool tensor holds, else `no`; both broadcast."""
        if self.dtype.kind != "bool":
            raise DTypeError(
                f"where: the condition is {self.dtype.name}, not bool", hint="compare it first: x != 0"
            )
        others: list[TensorCore | None]
        if isinstance(yes, Elementwise):
            a = yes.uop
            b, right = yes._node_of(no, "where")
            others = [yes, right]
        elif isinstance(no, Elementwise):
            b = no.uop
            a, left = no._node_of(yes, "where")
            others = [left, no]
        else:
            common = dtypes.promote(scalar_dtype(cast(Scalar, yes)), scalar_dtype(cast(Scalar, no)))
            a, b = (UOp.const(common, cast(Scalar, value)) for value in (yes, no))
            others = []
        common = dtypes.promote(a.dtype, b.dtype)
        node = graph.where(self.uop, a.cast(common), b.cast(common))
        return self._derive(node, *[other for other in others if other is not None])

    def masked_fill(self, mask: Self, value: Scalar) -> Self:
        """`value` where the mask holds."""
        return mask.where(self._operand(value, "masked_fill").cast(self.dtype), self)

    # --- dtypes -------------------------------------------------------------------------------------------

    def cast(self, dtype: DType | str) -> Self:
        """Converted to another dtype: floats to integers truncate and saturate, integers wrap."""
        target = as_dtype(dtype)
        return self if target is self.dtype else self._node(self.uop.cast(target))

    type = cast

    def bitcast(self, dtype: DType | str) -> Self:
        """The same bits as another dtype of the same size."""
        target = as_dtype(dtype)
        if target.itemsize != self.dtype.itemsize:
            raise DTypeError(f"bitcast from {self.dtype.name} to {target.name}: the sizes differ")
        return self._derive(self.uop.bitcast(target), differentiable=False)

    def float(self) -> Self:
        """As float32."""
        return self.cast(dtypes.float32)

    def half(self) -> Self:
        """As float16."""
        return self.cast(dtypes.float16)

    def bfloat16(self) -> Self:
        """As bfloat16."""
        return self.cast(dtypes.bfloat16)

    def double(self) -> Self:
        """As float64."""
        return self.cast(dtypes.float64)

    def int(self) -> Self:
        """As int32."""
        return self.cast(dtypes.int32)

    def long(self) -> Self:
        """As int64."""
        return self.cast(dtypes.int64)

    def bool(self) -> Self:
        """True where the element is not zero."""
        return self.cast(dtypes.bool_)


def _integer_power(base: Kind, exponent: Kind) -> Kind:
    """Exact integer powers (they wrap) by squaring, a bit at a time; 0 for negative exponents."""
    result = base * 0 + 1
    square = base
    for bit in range(base.dtype.bits - (base.dtype.kind == "int")):
        taken = ((exponent >> bit) & 1).eq(1)
        result = taken.where(result * square, result)
        square = square * square
    return (exponent < 0).where(0, result)

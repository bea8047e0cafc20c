"""Functions of one element."""

from __future__ import annotations

import math
from operator import index
from typing import Self, SupportsIndex, TypeVar

from tinycore.ir import ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.core import DEFAULT_FLOAT
from tinycore_frontend_tensor.elementwise import Elementwise

Kind = TypeVar("Kind", bound="Mathematics")


class Mathematics(Elementwise):
    """The mathematical functions of `Tensor`."""

    __slots__ = ()

    def abs(self) -> Self:
        """Absolute value; its gradient at 0 is 0."""
        if self.dtype.kind in ("bool", "uint"):
            return self
        return (self < 0).where(-self, self.eq(0).where(0, self))

    __abs__ = abs

    def sign(self) -> Self:
        """-1, 0 or 1; NaN for NaN."""
        if self.dtype.kind == "bool":
            return self
        result = (self > 0).where(self._operand(1, "sign"), (self < 0).where(self._operand(-1, "sign"), 0))
        result = result.cast(self.dtype)
        return self.isnan().where(self, result).detach() if self.dtype.is_float else result

    def sqrt(self) -> Self:
        """Square root."""
        return self._unary(ops.SQRT)

    def rsqrt(self) -> Self:
        """One over the square root."""
        return 1.0 / self.sqrt()

    def square(self) -> Self:
        """``x * x``."""
        return self * self

    def reciprocal(self) -> Self:
        """``1 / x``."""
        return 1.0 / self

    def exp(self) -> Self:
        """e to the x."""
        return self._unary(ops.EXP)

    def exp2(self) -> Self:
        """2 to the x."""
        return self._unary(ops.EXP2)

    def log(self) -> Self:
        """Natural logarithm."""
        return self._unary(ops.LOG)

    def log2(self) -> Self:
        """Logarithm to base 2."""
        return self._unary(ops.LOG2)

    def log10(self) -> Self:
        """Logarithm to base 10."""
        return self.log() * (1 / math.log(10))

    def log1p(self) -> Self:
        """``log(1 + x)``, accurate near 0."""
        x = self if self.dtype.is_float else self.cast(DEFAULT_FLOAT)
        plain = (x + 1.0).log()
        fixed = x.detach()
        rounded = fixed + 1.0
        # The rounding error of 1 + x is undone (Kahan); the gradient stays that of log(1 + x).
        exact = rounded.eq(1.0).where(fixed, rounded.log() * (fixed / (rounded - 1.0)))
        exact = rounded.isinf().where(rounded, exact)
        return _value_of(exact, plain)

    def expm1(self) -> Self:
        """``exp(x) - 1``, accurate near 0."""
        x = self if self.dtype.is_float else self.cast(DEFAULT_FLOAT)
        plain = x.exp() - 1.0
        fixed = x.detach()
        raised = fixed.exp()
        less = raised - 1.0
        exact = raised.eq(1.0).where(fixed, less.eq(-1.0).where(-1.0, less * (fixed / raised.log())))
        exact = raised.isinf().where(raised, exact)
        return _value_of(exact, plain)

    def sin(self) -> Self:
        """Sine of radians."""
        return self._unary(ops.SIN)

    def cos(self) -> Self:
        """Cosine of radians."""
        return self._unary(ops.COS)

    def tan(self) -> Self:
        """Tangent of radians."""
        return self.sin() / self.cos()

    def sinh(self) -> Self:
        """Hyperbolic sine."""
        below = self < 0
        grown = below.where(-self, self).expm1()
        half = below.where(-0.5, 0.5)
        return half * (grown + grown / (grown + 1.0))

    def cosh(self) -> Self:
        """Hyperbolic cosine."""
        return 0.5 * (self.exp() + (-self).exp())

    def tanh(self) -> Self:
        """Hyperbolic tangent."""
        return self._unary(ops.TANH)

    def erf(self) -> Self:
        """Error function."""
        return self._unary(ops.ERF)

    def floor(self) -> Self:
        """Greatest integer not above."""
        return self._unary(ops.FLOOR) if self.dtype.is_float else self

    def ceil(self) -> Self:
        """Least integer not below."""
        return -((-self)._unary(ops.FLOOR)) if self.dtype.is_float else self

    def trunc(self) -> Self:
        """Towards zero to an integer."""
        return self._unary(ops.TRUNC) if self.dtype.is_float else self

    def round(self, decimals: SupportsIndex = 0) -> Self:
        """Nearest integer (or decimal), halves to even."""
        if not self.dtype.is_float:
            return self
        if index(decimals):
            scale = 10.0 ** index(decimals)
            return (self * scale)._unary(ops.ROUND) / scale
        return self._unary(ops.ROUND)

    def lerp(self, end: object, weight: object) -> Self:
        """``self + weight * (end - self)``."""
        return self + (self._operand(end, "lerp") - self) * weight

    def fma(self, multiplier: Self, summand: Self) -> Self:
        """``self * multiplier + summand`` with one rounding."""
        shape = graph.broadcast_shape(self.uop.shape, multiplier.uop.shape, summand.uop.shape, what="fma")
        a, b, c = (graph.broadcast(t.uop, shape) for t in (self, multiplier, summand))
        return self._derive(a.alu(ops.FMA, b, c), multiplier, summand)


def _value_of(exact: Kind, gradient_of: Kind) -> Kind:
    """The value of one expression with the gradient of another that means the same."""
    corrected = gradient_of + (exact - gradient_of.detach()).detach()
    return gradient_of.isfinite().where(corrected, exact)

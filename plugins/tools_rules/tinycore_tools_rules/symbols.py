"""Numbers that stand for any number, so that compiled rules can be run once for all constants.

The proof runs the very Python that the rule was compiled to. Captured constants and bounds are `Symbol`s:
arithmetic on them makes z3 terms, and the truth of a comparison is a fork that `explore` follows both ways.

Two kinds: `IntSymbol` for dtype `index`, an unbounded z3 integer; `BitSymbol` for sized integers, exact
integer arithmetic over bit-vectors that are as wide as the result needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import z3

from tinycore_tools_rules.effort import solver_for

T = TypeVar("T")
MAXIMUM_PATHS = 96
FEASIBLE_MS = 300


class Unsupported(Exception):
    """Something that has no symbolic meaning was asked of a symbol."""


class Path:
    """One run: the decisions that it has taken, and what they assume."""

    def __init__(self, assumptions: list[z3.BoolRef], prefix: list[bool]) -> None:
        self.solver = solver_for(FEASIBLE_MS)
        self.prefix = prefix
        self.taken: list[bool] = []
        self.conditions: list[z3.BoolRef] = []
        self.pending: list[list[bool]] = []
        self.assume(*assumptions)

    def assume(self, *conditions: z3.BoolRef) -> None:
        """Facts about the symbols of this run."""
        self.conditions.extend(conditions)
        self.solver.add(*conditions)

    def branch(self, condition: z3.BoolRef) -> bool:
        """The truth of a condition on this path; the other one, if possible, is left for later."""
        simple = z3.simplify(condition)
        if z3.is_true(simple) or z3.is_false(simple):
            return bool(z3.is_true(simple))
        position = len(self.taken)
        if position < len(self.prefix):
            answer = self.prefix[position]
        else:
            answer = self._possible(simple)
            if answer and self._possible(z3.Not(simple)):
                self.pending.append([*self.taken, False])
        self.taken.append(answer)
        self.assume(simple if answer else z3.Not(simple))
        return answer

    def _possible(self, condition: z3.BoolRef) -> bool:
        return bool(self.solver.check(condition) != z3.unsat)


def explore(run: Callable[[Path], T]) -> Iterator[tuple[Path, T]]:
    """Every path through `run`, which gets a fresh `Path`. Raises Unsupported for too many of them."""
    stack: list[list[bool]] = [[]]
    for _ in range(MAXIMUM_PATHS):
        if not stack:
            return
        path = Path([], stack.pop())
        yield path, run(path)
        stack.extend(path.pending)
    raise Unsupported("too many paths")


class Truth:
    """The truth of a comparison: asking for it forks."""

    __slots__ = ("path", "term")

    def __init__(self, path: Path, term: z3.BoolRef) -> None:
        self.path, self.term = path, term

    def __bool__(self) -> bool:
        return self.path.branch(self.term)


class Symbol:
    """What both kinds of numbers share: Python's operators."""

    __slots__ = ("path",)
    path: Path
    __hash__ = object.__hash__

    def _binary(self, operator: str, other: Any) -> Any:
        raise NotImplementedError

    def _compare(self, operator: str, other: Any) -> Any:
        raise NotImplementedError

    def _refuse(self, *_: Any) -> Any:
        raise Unsupported("a symbolic number is used as a concrete one")

    __int__ = __index__ = __float__ = __lshift__ = __rshift__ = __rlshift__ = __rrshift__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __pow__ = __rpow__ = _refuse
    __truediv__ = __rtruediv__ = _refuse

    def __add__(self, other: Any) -> Any:
        return self._binary("+", other)

    def __sub__(self, other: Any) -> Any:
        return self._binary("-", other)

    def __mul__(self, other: Any) -> Any:
        return self._binary("*", other)

    def __floordiv__(self, other: Any) -> Any:
        return self._divide("//", self, other)

    def __mod__(self, other: Any) -> Any:
        return self._divide("%", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._binary("+", other)

    def __rmul__(self, other: Any) -> Any:
        return self._binary("*", other)

    def __rsub__(self, other: Any) -> Any:
        return (-self)._binary("+", other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._divide("//", other, self)

    def __rmod__(self, other: Any) -> Any:
        return self._divide("%", other, self)

    def __neg__(self) -> Any:
        return self._binary("*", -1)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __eq__(self, other: object) -> Any:
        return self._compare("==", other)

    def __ne__(self, other: object) -> Any:
        return self._compare("!=", other)

    def __lt__(self, other: Any) -> Any:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Any:
        return self._compare("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._compare(">=", other)

    def _divide(self, operator: str, a: Any, b: Any) -> Any:
        if not isinstance(a, (int, Symbol)) or not isinstance(b, (int, Symbol)):
            raise Unsupported(f"{operator} of {type(a).__name__} and {type(b).__name__}")
        if b == 0:
            raise ZeroDivisionError("integer division or modulo by zero")
        return self._quotient(operator, a, b)

    def _quotient(self, operator: str, a: Any, b: Any) -> Any:
        raise NotImplementedError


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_RING: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def floor_quotient(a: Any, b: Any) -> Any:
    """Floor division of z3 integers, b not 0; z3's own rounds so that the remainder is not negative."""
    return z3.If(b > 0, a / b, (-a) / (-b))


class IntSymbol(Symbol):
    """An unbounded integer."""

    __slots__ = ("term",)

    def __init__(self, path: Path, term: Any) -> None:
        self.path, self.term = path, term

    def _term(self, other: Any) -> Any:
        if isinstance(other, IntSymbol):
            return other.term
        if isinstance(other, int):
            return z3.IntVal(int(other))
        return None

    def _binary(self, operator: str, other: Any) -> Any:
        term = self._term(other)
        if term is None:
            raise Unsupported(f"a symbol {operator} {type(other).__name__}")
        return IntSymbol(self.path, _RING[operator](self.term, term))

    def _compare(self, operator: str, other: Any) -> Any:
        term = self._term(other)
        if term is None:
            return operator == "!="
        return Truth(self.path, _RELATIONS[operator](self.term, term))

    def _quotient(self, operator: str, a: Any, b: Any) -> Any:
        x, y = self._term(a), self._term(b)
        if x is None or y is None:
            raise Unsupported("a quotient of different kinds of numbers")
        quotient = floor_quotient(x, y)
        return IntSymbol(self.path, quotient if operator == "//" else x - y * quotient)


class BitSymbol(Symbol):
    """An integer between `low` and `high`; `make(width)` is it modulo ``2 ** width``.

    Sums and products are made at the width that is asked for: what wraps in the end needs no wider terms.
    """

    __slots__ = ("high", "low", "make")

    def __init__(self, path: Path, low: int, high: int, make: Callable[[int], Any]) -> None:
        self.path, self.low, self.high, self.make = path, low, high, make

    @staticmethod
    def of_term(path: Path, term: Any, signed: bool) -> BitSymbol:
        """The number that a bit-vector holds."""
        width = term.size()
        low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        return BitSymbol(path, low, high, lambda wanted: resize(term, wanted, signed))

    def _other(self, other: Any) -> BitSymbol | None:
        if isinstance(other, BitSymbol):
            return other
        if isinstance(other, int):
            value = int(other)
            return BitSymbol(self.path, value, value, lambda width: z3.BitVecVal(value, width))
        return None

    def _binary(self, operator: str, other: Any) -> Any:
        right = self._other(other)
        if right is None:
            raise Unsupported(f"a symbol {operator} {type(other).__name__}")
        function = _RING[operator]
        corners = [function(x, y) for x in (self.low, self.high) for y in (right.low, right.high)]
        first, second = self.make, right.make
        return BitSymbol(
            self.path, min(corners), max(corners), lambda width: function(first(width), second(width))
        )

    def _compare(self, operator: str, other: Any) -> Any:
        right = self._other(other)
        if right is None:
            return operator == "!="
        if self.high < right.low or right.high < self.low:
            return _RELATIONS[operator](self.low, right.low)
        width = max(_width(self.low, self.high), _width(right.low, right.high))
        return Truth(self.path, _RELATIONS[operator](self.make(width), right.make(width)))

    def _quotient(self, operator: str, a: Any, b: Any) -> Any:
        left, right = self._other(a), self._other(b)
        if left is None or right is None:
            raise Unsupported("a quotient of different kinds of numbers")
        most = max(abs(left.low), abs(left.high)) + 1
        limit = max(abs(right.low), abs(right.high))
        low, high = (-most, most) if operator == "//" else (-limit, limit)
        width = max(_width(left.low, left.high), _width(right.low, right.high)) + 1
        x, y = left.make(width), right.make(width)
        quotient, remainder = floor_division(x, y)
        term = quotient if operator == "//" else remainder
        return BitSymbol(self.path, low, high, lambda wanted: resize(term, wanted, True))


def floor_division(x: Any, y: Any) -> tuple[Any, Any]:
    """Quotient and remainder of signed bit-vectors, rounded down; y not 0."""
    quotient, remainder = x / y, z3.SRem(x, y)
    zero, one = z3.BitVecVal(0, x.size()), z3.BitVecVal(1, x.size())
    adjust = z3.And(remainder != zero, (remainder < zero) != (y < zero))
    return z3.If(adjust, quotient - one, quotient), z3.If(adjust, remainder + y, remainder)


def resize(term: Any, width: int, signed: bool) -> Any:
    """A bit-vector of another width: extended by its sign or by zeros, or cut off."""
    size = term.size()
    if width == size:
        return term
    if width < size:
        return z3.Extract(width - 1, 0, term)
    return z3.SignExt(width - size, term) if signed else z3.ZeroExt(width - size, term)


def _width(low: int, high: int) -> int:
    return max((low if low >= 0 else ~low).bit_length(), (high if high >= 0 else ~high).bit_length()) + 1

"""The meaning of C-like text: expressions and statements, with everything that C leaves undefined as an error.

Types are named as dtypes are (``int32``, ``uint64``, ``bool``, ``float32``). Integers narrower than 32 bits are
computed as int32, operands of two types are converted as C says, and signed numbers never overflow.

>>> names = {"a": dtypes.int8, "b": dtypes.uint32}
>>> dtype, run = expression("(a < 0 ? -a : a) + b", names)
>>> dtype, run({"a": -3, "b": 4})
(uint32, 7)
>>> compare, run = expression("a < b", names)
>>> run({"a": -3, "b": 4})
0
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.ir import dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops

Values = dict[str, Any]
Run = Callable[[Values], Any]
Typed = tuple[DType, Run]
FUNCTIONS = {
    "sqrt": ops.SQRT, "exp": ops.EXP, "exp2": ops.EXP2, "log": ops.LOG, "log2": ops.LOG2, "sin": ops.SIN,
    "cos": ops.COS, "tanh": ops.TANH, "erf": ops.ERF, "pow": ops.POW, "floor": ops.FLOOR, "trunc": ops.TRUNC,
    "rint": ops.ROUND, "fma": ops.FMA,
}  # fmt: skip
"""What the functions of C answer, by the op that means the same."""
_TOKEN = re.compile(
    r"\s*(0x[0-9a-f.]+p[+-]?\d+[a-z]*|(?:\d+\.\d*|\.\d+)(?:e[+-]?\d+)?[a-z]*|\d+[a-z]*|\w+"
    r"|<<|>>|<=|>=|==|!=|&&|\|\||\+\+|[-+*/%<>=!&|^~?:;,()\[\]{}])",
    re.IGNORECASE,
)
_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", "<=", ">", ">="), ("<<", ">>"),
           ("+", "-"), ("*", "/", "%"))  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class Undefined(Exception):
    """Text that is no C, or that does what C leaves undefined."""


def expression(text: str, names: Mapping[str, DType]) -> Typed:
    """The type of an expression, and what computes it; a name in brackets is a list. Raises Undefined."""
    parser = _Parser(text, dict(names))
    found = parser.expression()
    parser.end()
    return found


def statements(text: str, names: Mapping[str, DType]) -> Run:
    """What runs some statements, and changes the values that it is given. Raises Undefined."""
    parser = _Parser(text, dict(names))
    runs = []
    while parser.token:
        runs.append(parser.statement())

    def run(values: Values) -> None:
        for each in runs:
            each(values)

    return run


# --- conversions ----------------------------------------------------------------------------------------------


def convert(dtype: DType, source: DType, value: Any) -> Any:
    """The value of a cast. Raises Undefined where a float is too great for an integer."""
    if dtype.is_float:
        with quiet():
            return np.asarray(value).astype(dtype.numpy)[()]
    if dtype.kind == "bool":
        return int(value != 0)
    if source.is_float:
        if not np.isfinite(value) or not int(dtype.min) <= int(value) <= int(dtype.max):
            raise Undefined(f"{value} is converted to {dtype.name}")
        return int(value)
    return dtype.to_bits(int(value))


def promoted(dtype: DType) -> DType:
    """What C computes an operand in."""
    return dtype if dtype.is_float or dtype.itemsize >= 4 else dtypes.int32


def common(a: DType, b: DType) -> DType:
    """The type in which C computes with two operands."""
    a, b = promoted(a), promoted(b)
    if a.is_float or b.is_float:
        return max((part for part in (a, b) if part.is_float), key=lambda part: part.itemsize)
    if a.kind == b.kind or a.itemsize != b.itemsize:
        return max((a, b), key=lambda part: part.itemsize)
    return a if a.kind == "uint" else b


def _checked(dtype: DType, value: int, what: str) -> int:
    if dtype.kind == "uint":
        return int(dtype.to_bits(value))
    if not int(dtype.min) <= value <= int(dtype.max):
        raise Undefined(f"{what} overflows {dtype.name}")
    return value


def _integers(dtype: DType, operator: str, a: int, b: int) -> int:
    if operator in ("/", "%"):
        if b == 0:
            raise Undefined("a division by zero")
        quotient = _checked(dtype, abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1), "a quotient")
        return quotient if operator == "/" else a - b * quotient
    plain = {"+": a + b, "-": a - b, "*": a * b, "&": a & b, "|": a | b, "^": a ^ b}
    return _checked(dtype, plain[operator], f"{a} {operator} {b}")


def _shift(dtype: DType, operator: str, a: int, b: int) -> int:
    if not 0 <= b < dtype.bits:
        raise Undefined(f"{dtype.name} is shifted by {b}")
    if operator == ">>":
        return a >> b
    if a < 0:
        raise Undefined("a negative number is shifted to the left")
    return _checked(dtype, a << b, f"{a} << {b}")


def _floats(dtype: DType, operator: str, a: Any, b: Any) -> Any:
    names = {"+": ops.ADD, "-": ops.SUB, "*": ops.MUL, "/": ops.DIV}
    if operator not in names:
        raise Undefined(f"{operator} of floats")
    with quiet():
        return MEANING[names[operator]](dtype, a, b)


# --- the parser -----------------------------------------------------------------------------------------------


class _Parser:
    def __init__(self, text: str, names: dict[str, DType]) -> None:
        self.names = names
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise Undefined(f"{text[at:].split()[0]!r} is no C")
            self.tokens.append(found[1])
            at = found.end()
        self.at = 0

    @property
    def token(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.token
        if not token or (wanted and token not in wanted):
            raise Undefined(f"{token or 'the end'!r} stands where {' or '.join(wanted) or 'more'} should")
        self.at += 1
        return token

    def end(self) -> None:
        if self.token:
            raise Undefined(f"{self.token!r} stands after the end")

    # --- statements

    def statement(self) -> Run:
        if self.token == "{":
            return self.block()
        if self.token == "if":
            self.take()
            self.take("(")
            _, condition = self.expression()
            self.take(")")
            body = self.statement()
            return lambda values: body(values) if condition(values) else None
        if self.token == "for":
            return self.loop()
        run = self.assignment()
        self.take(";")
        return run

    def block(self) -> Run:
        self.take("{")
        runs = []
        while self.token != "}":
            runs.append(self.statement())
        self.take("}")

        def run(values: Values) -> None:
            for each in runs:
                each(values)

        return run

    def loop(self) -> Run:
        self.take("for")
        self.take("(")
        start = self.assignment()
        self.take(";")
        _, condition = self.expression()
        self.take(";")
        name = self.take()
        self.take("++")
        self.take(")")
        body, dtype = self.statement(), self.names[name]

        def run(values: Values) -> None:
            start(values)
            while condition(values):
                body(values)
                values[name] = _checked(dtype, values[name] + 1, f"{name}++")

        return run

    def assignment(self) -> Run:
        if self.token in _TYPES and self.tokens[self.at + 1 : self.at + 2] != ["("]:
            dtype = _TYPES[self.take()]
            self.names[self.token] = dtype
        name = self.take()
        if name not in self.names:
            raise Undefined(f"there is no {name}")
        target, place = self.names[name], None
        if self.token == "[":
            place = self.index()
        self.take("=")
        source, value = self.expression()

        def run(values: Values) -> None:
            if place is None:
                values[name] = convert(target, source, value(values))
            else:
                values[name][_inside(values[name], place(values))] = convert(target, source, value(values))

        return run

    def index(self) -> Run:
        self.take("[")
        dtype, run = self.expression()
        self.take("]")
        if dtype.is_float:
            raise Undefined("an index is a float")
        return run

    # --- expressions

    def expression(self) -> Typed:
        kind, condition = self.binary(0)
        if self.token != "?":
            return kind, condition
        self.take()
        one, yes = self.expression()
        self.take(":")
        two, no = self.expression()
        dtype = common(one, two)
        return (
            dtype,
            lambda values: (
                convert(dtype, one, yes(values)) if condition(values) else convert(dtype, two, no(values))
            ),
        )

    def binary(self, level: int) -> Typed:
        if level == len(_LEVELS):
            return self.unary()
        found = self.binary(level + 1)
        while self.token in _LEVELS[level]:
            found = _binary(self.take(), found, self.binary(level + 1))
        return found

    def unary(self) -> Typed:
        if self.token in ("-", "!", "~"):
            operator = self.take()
            return _unary(operator, self.unary())
        if self.token == "(" and self.tokens[self.at + 1 : self.at + 3][0:2] in _CASTS:
            self.take()
            dtype = _TYPES[self.take()]
            self.take(")")
            source, run = self.unary()
            return dtype, lambda values: convert(dtype, source, run(values))
        return self.primary()

    def primary(self) -> Typed:
        token = self.take()
        if token == "(":
            found = self.expression()
            self.take(")")
            return found
        if token in ("true", "false"):
            return dtypes.int32, lambda values: int(token == "true")
        if token[0].isdigit() or token[0] == ".":
            return number(token)
        if token in FUNCTIONS:
            return self.call(token)
        if token not in self.names:
            raise Undefined(f"there is no {token}")
        dtype = self.names[token]
        if self.token == "[":
            place = self.index()
            return dtype, lambda values: values[token][_inside(values[token], place(values))]
        return dtype, lambda values: values[token]

    def call(self, name: str) -> Typed:
        self.take("(")
        operands = [self.expression()]
        while self.token == ",":
            self.take()
            operands.append(self.expression())
        self.take(")")
        dtype, op = operands[0][0], FUNCTIONS[name]
        if len(operands) != len(op.operands) or any(
            kind is not dtype or not kind.is_float for kind, _ in operands
        ):
            raise Undefined(f"{name} of {', '.join(kind.name for kind, _ in operands)}")

        def run(values: Values) -> Any:
            with quiet():
                return MEANING[op](dtype, *[np.asarray(part(values)) for _, part in operands])

        return dtype, run


_TYPES = {dtype.name: dtype for dtype in dtypes.DATA}
_CASTS = [[name, ")"] for name in _TYPES]


def number(token: str) -> Typed:
    """A literal with its suffix."""
    text = token.lower()
    digits = text.rstrip("ulfh") if not text.startswith("0x") else re.sub(r"[fh]$", "", text)
    suffix = text[len(digits) :]
    if "." in digits or "p" in digits:
        dtype = {"": dtypes.float64, "f": dtypes.float32}.get(suffix)
        exact = float.fromhex(digits) if digits.startswith("0x") else float(digits)
    else:
        dtype = {"": dtypes.int32, "u": dtypes.uint32, "l": dtypes.int64, "ul": dtypes.uint64}.get(suffix)
        exact = int(digits)
    if dtype is None:
        raise Undefined(f"{token} has an odd suffix")
    if not dtype.is_float and exact > int(dtype.max):
        raise Undefined(f"{token} does not fit into {dtype.name}")
    value = convert(dtype, dtypes.float64, exact) if dtype.is_float else exact
    return dtype, lambda values: value


def _inside(memory: list[Any], index: int) -> int:
    if not 0 <= index < len(memory):
        raise Undefined(f"element {index} of {len(memory)} is used")
    return index


def _unary(operator: str, operand: Typed) -> Typed:
    source, run = operand
    dtype = promoted(source)
    if operator == "!":
        return dtypes.int32, lambda values: int(not run(values))
    if dtype.is_float:
        if operator == "~":
            raise Undefined("~ of a float")
        return dtype, lambda values: -run(values)
    if operator == "~":
        return dtype, lambda values: int(dtype.to_bits(~run(values)))
    return dtype, lambda values: _checked(dtype, -run(values), "a negation")


def _binary(operator: str, left: Typed, right: Typed) -> Typed:
    (one, a), (two, b) = left, right
    if operator == "&&":
        return dtypes.int32, lambda values: int(bool(a(values)) and bool(b(values)))
    if operator == "||":
        return dtypes.int32, lambda values: int(bool(a(values)) or bool(b(values)))
    if operator in ("<<", ">>"):
        shifted = promoted(one)
        if shifted.is_float or two.is_float:
            raise Undefined("a float is shifted")
        return shifted, lambda values: _shift(shifted, operator, a(values), b(values))
    dtype = common(one, two)

    def operands(values: Values) -> tuple[Any, Any]:
        return convert(dtype, one, a(values)), convert(dtype, two, b(values))

    if operator in _COMPARE:
        return dtypes.int32, lambda values: int(_COMPARE[operator](*operands(values)))
    compute = _floats if dtype.is_float else _integers
    return dtype, lambda values: compute(dtype, operator, *operands(values))

"""The parser of the text form, written by hand: bounds-checked, without recursion, without `eval`."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from tinycore.errors import DataError, TinycoreError, did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE, Op, ops

if TYPE_CHECKING:
    from tinycore.ir.dtypes import DType
    from tinycore.ir.uop import UOp

ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
"""How characters are written in quoted strings; unprintable others are a backslash, u and six digits."""

MARGIN = 60
"""How much of a long line an error shows on each side of the caret."""


@functools.cache
def attribute_names(op: Op) -> tuple[str, ...]:
    """The attributes that stand in the brackets: all but the dtype, which follows the colon.

    >>> attribute_names(ops.REDUCE), attribute_names(ops.CAST)
    (('op', 'axes'), ())
    """
    return tuple([name for name in op.attributes if name != "dtype"])


def parse(text: str) -> UOp:
    """The node that a text stands for: its last line.

    Raises DataError with the line and a caret where the text is malformed. The graph is not verified, see
    `tinycore.ir.verify`.

    >>> parse('%0 = CONST[1, ()] : int32\\n%1 = NEG(%0) : int32').op
    NEG
    """
    known: dict[str, UOp] = {}
    node: UOp | None = None
    for number, content in enumerate(text.split("\n"), 1):
        if content.strip() and not content.lstrip().startswith("#"):
            node = _Line(content, number, known).node()
    if node is None:
        raise DataError("an empty text stands for no graph")
    return node


class _Line:
    """The parser of one line; `at` is where it is."""

    def __init__(self, text: str, number: int, known: dict[str, UOp]) -> None:
        self.text, self.number, self.known, self.at = text, number, known, 0

    def error(self, what: str, at: int | None = None, hint: str | None = None) -> DataError:
        at = self.at if at is None else at
        start = max(0, at - MARGIN)
        shown = self.text[start : at + MARGIN]
        where = f"line {self.number}, column {at + 1}:\n{shown}\n{' ' * (at - start)}^"
        return DataError(what, where=where, hint=hint)

    def node(self) -> UOp:
        """``%name = OP[attributes](operands) : dtype shape``."""
        from tinycore.ir.uop import UOp

        name = self.name()
        if name in self.known:
            raise self.error(f"{name} is defined twice", 0)
        self.expect("=")
        op = self.op()
        attributes = self.items("[", "]") if self.peek() == "[" else None
        src = self.operands() if self.peek() == "(" else ()
        self.expect(":")
        dtype = self.dtype()
        self.peek()
        shape_at = self.at
        arg = self.arg(op, dtype, attributes)
        shown = self.value() if self.peek() == "(" else None
        if self.peek() == "?":
            self.at += 1
        if self.peek():
            raise self.error("expected the end of the line")
        node = UOp(op, dtype, src, arg)
        if shown is not None:
            self.check_shape(node, shown, shape_at)
        self.known[name] = node
        return node

    def check_shape(self, node: UOp, shown: Any, at: int) -> None:
        """The shape in the text is for the reader, but it must be true."""
        try:
            shape = node.shape
        except (TinycoreError, ValueError, TypeError, IndexError, AttributeError) as problem:
            raise self.error(f"these operands and attributes have no shape: {problem}", at) from None
        if shown != shape:
            raise self.error(f"the shape is {shape}, not {shown}", at)

    def arg(self, op: Op, dtype: DType, attributes: list[Any] | None) -> Any:
        if attributes is None:
            return None
        count = len(attribute_names(op))
        if op is ops.CONST and len(attributes) == 2:
            return self.bits(dtype, attributes[0]), attributes[1]
        if count > 1 and len(attributes) > 1:
            return tuple(attributes)
        if len(attributes) != 1:
            raise self.error(f"{op.name} has {count} attributes, not {len(attributes)}")
        return attributes[0]

    def bits(self, dtype: DType, value: Any) -> int:
        """The pattern of a constant: given as it is, or as a number."""
        if isinstance(value, str) and value.startswith("bits:"):
            try:
                return int(value[5:], 16)
            except ValueError:
                raise self.error(f"{value!r} is no pattern of bits") from None
        if dtype.is_float and isinstance(value, (int, float)):
            return dtype.to_bits(value)
        if not isinstance(value, int):
            raise self.error(f"{value!r} is no value of {dtype.name}")
        return value

    # --- words --------------------------------------------------------------------------------------------

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        text, at = self.text, self.at
        while at < len(text) and text[at] in " \t":
            at += 1
        self.at = at
        return text[at] if at < len(text) else ""

    def expect(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self.error(f"expected {wanted!r}")
        self.at += 1

    def word(self, extra: str = "_") -> str:
        self.peek()
        start = self.at
        text = self.text
        while self.at < len(text) and (text[self.at].isalnum() or text[self.at] in extra):
            self.at += 1
        return text[start : self.at]

    def name(self) -> str:
        self.expect("%")
        start = self.at - 1
        word = self.word()
        if not word or self.text[start + 1] == " ":
            raise self.error("expected the name of a node, such as %1", start)
        return "%" + word

    def op(self) -> Op:
        self.peek()
        start = self.at
        word = self.word()
        if word not in TABLE:
            raise self.error(f"there is no op {word!r}", start, did_you_mean(word, TABLE))
        return TABLE[word]

    def dtype(self) -> DType:
        self.peek()
        start = self.at
        word = self.word()
        if word not in _DTYPES:
            raise self.error(f"there is no dtype {word!r}", start, did_you_mean(word, _DTYPES))
        return _DTYPES[word]

    def reference(self) -> UOp:
        self.peek()
        start = self.at
        name = self.name()
        if name not in self.known:
            raise self.error(f"{name} is not defined above", start)
        return self.known[name]

    def operands(self) -> tuple[UOp, ...]:
        self.expect("(")
        found: list[UOp] = []
        while self.peek() != ")":
            if found:
                self.expect(",")
            found.append(self.reference())
        self.at += 1
        return tuple(found)

    def items(self, opening: str, closing: str) -> list[Any]:
        """Values between brackets, separated by commas."""
        self.expect(opening)
        found: list[Any] = []
        while self.peek() != closing:
            if found:
                self.expect(",")
                if self.peek() == closing:
                    break
            found.append(self.value())
        self.at += 1
        return found

    def value(self) -> Any:
        """One value; tuples of tuples without recursion."""
        open_tuples: list[list[Any]] = []
        while True:
            if self.peek() == "(":
                self.at += 1
                open_tuples.append([])
                if self.peek() != ")":
                    continue
            elif self.peek() != ")" or not open_tuples:
                value = self.scalar()
                if not open_tuples:
                    return value
                open_tuples[-1].append(value)
            while open_tuples:
                if self.peek() == ",":
                    self.at += 1
                    if self.peek() != ")":
                        break
                self.expect(")")
                done = tuple(open_tuples.pop())
                if not open_tuples:
                    return done
                open_tuples[-1].append(done)

    def scalar(self) -> Any:
        start, first = self.at, self.peek()
        start = self.at
        if first == '"':
            return self.string()
        if first == "%":
            return self.reference()
        if first == "<":
            raise self.error("an attribute that is no plain data cannot be read back")
        word = self.word("_.+-:")
        if word in _WORDS:
            return _WORDS[word]
        if word in TABLE:
            return TABLE[word]
        try:
            if word.startswith("bits:"):
                return word
            if word.lstrip("-").isdecimal():
                return int(word)
            return float(word)
        except ValueError:
            raise self.error("expected a value", start, did_you_mean(word, [*TABLE, *_WORDS])) from None

    def string(self) -> str:
        """A quoted string with the escapes that ESCAPES lists."""
        start = self.at
        self.at += 1
        parts: list[str] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            self.at += 1
            if character == '"':
                return "".join(parts)
            if character != "\\":
                parts.append(character)
                continue
            escape = self.text[self.at : self.at + 1]
            self.at += 1
            if escape == "u":
                digits = self.text[self.at : self.at + 6]
                try:
                    parts.append(chr(int(digits, 16)))
                except (ValueError, OverflowError):
                    raise self.error("\\u is followed by six hexadecimal digits") from None
                self.at += 6
            elif escape and "\\" + escape in _UNESCAPES:
                parts.append(_UNESCAPES["\\" + escape])
            else:
                raise self.error("unknown escape in a string", self.at - 2)
        raise self.error("a string is not closed", start)


_UNESCAPES = {escaped: plain for plain, escaped in ESCAPES.items()}
_DTYPES = {dtype.name: dtype for dtype in (*dtypes.DATA, dtypes.index, dtypes.void)}
_WORDS: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    **_DTYPES,
}

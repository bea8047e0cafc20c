"""The text form: a graph as lines that a person can read, and that parse back to the same nodes.

One node a line, operands first; the last line is the root. Attributes are in brackets in the order of the op
table, the dtype and (for the reader) the shape follow the colon:

>>> from tinycore.ir import UOp, dtypes, ops
>>> x = UOp(ops.BUFFER, dtypes.float32, (), (1, (4, 8), "X"))
>>> print(print_graph(UOp(ops.REDUCE, dtypes.float32, (x * 2.0,), (ops.ADD, (1,)))))
%0 = BUFFER[1, (4, 8), "X"] : float32 (4, 8)
%1 = CONST[2.0, (4, 8)] : float32 (4, 8)
%2 = MUL(%0, %1) : float32 (4, 8)
%3 = REDUCE[ADD, (1,)](%2) : float32 (4, 1)
>>> parse(print_graph(x)) is x
True

The value of a CONST is written as a number where that gives the same bits back, else as ``bits:0x...``.
Symbolic dimensions are nodes like any other: ``(%5, 8)``. Nothing recurses: depth is no limit.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinycore.errors import DataError
from tinycore.ir import dtypes
from tinycore.ir.ops import Op, ops
from tinycore.ir.parse import ESCAPES, attribute_names, parse

if TYPE_CHECKING:
    from tinycore.ir.dtypes import DType
    from tinycore.ir.uop import UOp


__all__ = ["canonical", "digest", "line", "nodes_in", "order", "parse", "print_graph", "summary"]


def nodes_in(value: Any) -> list[UOp]:
    """The nodes inside an attribute (symbolic dimensions), in order.

    >>> nodes_in((1, (2, 3)))
    []
    """
    from tinycore.ir.uop import UOp

    if isinstance(value, UOp):
        return [value]
    found: list[UOp] = []
    open_tuples = [iter(value)] if isinstance(value, tuple) else []
    while open_tuples:
        for part in open_tuples[-1]:
            if type(part) is UOp:
                found.append(part)
            elif type(part) is tuple:
                open_tuples.append(iter(part))
                break
        else:
            open_tuples.pop()
    return found


def order(root: UOp) -> list[UOp]:
    """Every node that the text of a graph names: dimensions in attributes too, before their users."""
    result: list[UOp] = []
    seen: set[UOp] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            result.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            needed = [*nodes_in(node.arg), *node.src] if isinstance(node.arg, tuple) else node.src
            stack.extend((operand, False) for operand in reversed(needed) if operand not in seen)
    return result


def print_graph(root: UOp) -> str:
    """The text of a graph; `parse` gives the very same node back.

    Attributes that are no plain data (numbers, strings, tuples, ops, dtypes, nodes) are shown as ``<...>``;
    such a text does not parse.
    """
    nodes = order(root)
    names = {node: f"%{number}" for number, node in enumerate(nodes)}
    return "\n".join([f"{names[node]} = {line(node, names)}" for node in nodes])


def line(node: UOp, names: Mapping[UOp, str]) -> str:
    """One node in text, its operands by name: ``ADD(%1, %2) : float32 (4, 8)``."""
    attributes = _attributes(node, names)
    operands = f"({', '.join([names[operand] for operand in node.src])})" if node.src else ""
    head = node.op.name + (f"[{attributes}]" if attributes is not None else "") + operands
    return f"{head} : {node.dtype.name}{_shape(node, names)}"


def _known_shape(node: UOp) -> Any:
    """The shape; None for a malformed node."""
    try:
        return node.shape
    except Exception:  # noqa: BLE001 - a malformed graph must be printable: that is when it is needed most
        return None


def _shape(node: UOp, names: Mapping[UOp, str]) -> str:
    shape = _known_shape(node)
    if shape is None:
        return " ?"
    return f" {_literal(shape, names)}" if shape else ""


def _attributes(node: UOp, names: Mapping[UOp, str]) -> str | None:
    """What stands in the brackets; None for no brackets."""
    if node.arg is None and len(attribute_names(node.op)) == 0:
        return None
    if node.op is ops.CONST and isinstance(node.arg, tuple) and len(node.arg) == 2:
        return f"{_number(node.dtype, node.arg[0])}, {_literal(node.arg[1], names)}"
    if len(attribute_names(node.op)) > 1 and isinstance(node.arg, tuple) and len(node.arg) > 1:
        return ", ".join([_literal(part, names) for part in node.arg])
    return _literal(node.arg, names)


def _number(dtype: DType, bits: Any) -> str:
    """The value of a constant, exactly."""
    if type(bits) is not int or not dtype.is_float:
        return _literal(bits, {})
    if 0 <= bits < 1 << dtype.bits:
        value = dtype.from_bits(bits)
        if dtype.to_bits(value) == bits:
            return repr(value)
    return f"bits:{bits:#x}"


def _literal(value: Any, names: Mapping[UOp, str]) -> str:
    """Plain data in text. Tuples may be nested to any depth."""
    if not isinstance(value, tuple):
        return _scalar(value, names)
    if all(type(part) is int for part in value):
        return repr(value)
    parts: list[str] = []
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Text):
            parts.append(item.text)
        elif isinstance(item, tuple):
            stack.append(_Text(",)" if len(item) == 1 else ")"))
            for position in range(len(item) - 1, -1, -1):
                stack.append(item[position])
                stack.append(_Text(", " if position else "("))
            if not item:
                parts.append("(")
        else:
            parts.append(_scalar(item, names))
    return "".join(parts)


class _Text:
    """A piece of text on the stack of `_literal`."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _scalar(value: Any, names: Mapping[UOp, str]) -> str:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return repr(value)
    if kind is float:
        return repr(value) if not math.isnan(value) else "nan"
    if kind is str:
        return _quote(value)
    if kind is Op:
        return str(value.name)
    if isinstance(value, dtypes.DType):
        return value.name
    if kind.__name__ == "UOp":
        return names[value] if value in names else f"<{summary(value)}>"
    return f"<{value!r}>".replace("\n", " ")


def _quote(text: str) -> str:
    shown = [ESCAPES.get(c) or (c if c.isprintable() else f"\\u{ord(c):06x}") for c in text]
    return '"' + "".join(shown) + '"'


_INFIX = {
    ops.ADD: "+",
    ops.SUB: "-",
    ops.MUL: "*",
    ops.FLOORDIV: "//",
    ops.FLOORMOD: "%",
    ops.LT: "<",
    ops.LE: "<=",
    ops.EQ: "==",
    ops.NE: "!=",
    ops.AND: "&",
    ops.OR: "|",
    ops.XOR: "^",
    ops.SHL: "<<",
    ops.SHR: ">>",
}


def summary(node: UOp) -> str:
    """One line about a node. Index expressions are written out; of anything else only the operands are named.

    >>> from tinycore.ir import UOp, dtypes
    >>> n = UOp.variable("n", 1, 9)
    >>> summary(n * 2 + 1), summary(UOp.const(dtypes.float32, 1.5, (2,)))
    ('(n * 2) + 1', 'CONST[1.5, (2,)] : float32 (2,)')
    """
    if node.dtype is dtypes.index and (node.op in _INFIX or node.op in _INDEX_LEAVES):
        return _expression(node)
    shown = (*nodes_in(node.arg), *nodes_in(_known_shape(node)), *node.src)
    names = {operand: _short(operand) for operand in shown}
    return line(node, names)


_INDEX_LEAVES = (ops.CONST, ops.VARIABLE)
_PARTS = 400
"""Index expressions with more parts than this are cut off."""


def _short(node: UOp) -> str:
    if node.dtype is dtypes.index:
        return _expression(node)
    if node.op is ops.CONST and not node.arg[1]:
        return _number(node.dtype, node.arg[0])
    return node.op.name


def _expression(root: UOp) -> str:
    """An index expression in infix form; deterministic, so that it can serve as a sort key."""
    parts: list[str] = []
    stack: list[UOp | str] = [root]
    while stack and len(parts) < _PARTS:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item.op in _INDEX_LEAVES:
            parts.append(str(item.arg[0]))
        elif item.op is ops.RANGE:
            parts.append(f"r{item.arg[0]}")
        elif item.op in _INFIX and len(item.src) == 2:
            left, right = item.src
            infix: list[UOp | str] = [left, f" {_INFIX[item.op]} ", right]
            stack.extend(reversed(infix if item is root else ["(", *infix, ")"]))
        else:
            inner: list[UOp | str] = [f"{item.op.name}("]
            for position, operand in enumerate(item.src):
                inner.extend([", ", operand] if position else [operand])
            stack.extend(reversed([*inner, ")"]))
    return "".join(parts) + ("…" if stack else "")


# --- canonical form ---------------------------------------------------------------------------------------


def canonical(root: UOp, variables: bool = True) -> UOp:
    """The graph with arbitrary names replaced: equal computations become the same node.

    BUFFER ids are numbered in the order in which they appear, and so are VARIABLE names unless `variables`
    is False; RANGE ids, whose order says how loops nest, keep their order and lose their gaps. PARAM slots
    stay: they are an interface.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> x, y = (UOp(ops.BUFFER, dtypes.float32, (), (number, (4,), "X")) for number in (17, 42))
    >>> canonical(x * x) is canonical(y * y), canonical(x * y) is canonical(x * x)
    (True, False)
    """
    from tinycore.ir.uop import UOp

    if not variables and not root.mask & (ops.BUFFER.bit | ops.RANGE.bit):
        return root  # nothing has an arbitrary name: what the scheduler makes
    nodes = order(root)
    loops = sorted({node.arg[0] for node in nodes if node.op is ops.RANGE})
    ranks = {number: rank for rank, number in enumerate(loops)}
    counts = {ops.BUFFER: 0, ops.VARIABLE: 0} if variables else {ops.BUFFER: 0}
    memo: dict[UOp, UOp] = {}
    for node in nodes:
        arg = _renamed_dims(node.arg, memo)
        if node.op is ops.RANGE:
            arg = (ranks[node.arg[0]], *arg[1:])
        elif node.op in counts:
            number = counts[node.op]
            counts[node.op] += 1
            arg = (number if node.op is ops.BUFFER else f"v{number}", *arg[1:])
        memo[node] = UOp(node.op, node.dtype, tuple([memo[operand] for operand in node.src]), arg)
    return memo[root]


def _renamed_dims(arg: Any, memo: Mapping[UOp, UOp]) -> Any:
    """An attribute with its dimensions renamed, in the order that dimensions of these names have."""
    if not nodes_in(arg):
        return arg
    from tinycore.ir.dims import to_dim

    if isinstance(arg, tuple):
        return tuple([_renamed_dims(part, memo) for part in arg])
    return to_dim(memo[arg])


def digest(root: UOp) -> str:
    """A name for the canonical graph, the same in every process: 32 hexadecimal digits.

    Names of variables count, because values are bound by them: what is stored under a digest may be used
    for every graph that has it. Dtypes, ops and devices count too; `id()`, `hash()` and the order of sets
    do not. Raises DataError where an attribute is no plain data.

    >>> from tinycore.ir import UOp, dtypes
    >>> len(digest(UOp.const(dtypes.int8, 1)))
    32
    """
    known = _digests.get(root)
    if known is None:
        known = _digests[root] = _digest(order(canonical(root, variables=False)))
    return known


_digests: weakref.WeakKeyDictionary[UOp, str] = weakref.WeakKeyDictionary()


def _digest(nodes: Sequence[UOp]) -> str:
    names = {node: f"%{number}" for number, node in enumerate(nodes)}
    lines: list[str] = []
    for node in nodes:
        attributes = _attributes(node, names)
        if attributes is not None and "<" in attributes and _opaque(node.arg):
            raise DataError("an attribute is no plain data, so the graph has no digest", where=summary(node))
        operands = ",".join([names[operand] for operand in node.src])
        lines.append(f"{node.op.name}[{attributes}]({operands}):{node.dtype.name}\n")
    return hashlib.blake2b("".join(lines).encode(), digest_size=16).hexdigest()


def _opaque(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_opaque(part) for part in value)
    return not (
        value is None
        or isinstance(value, (bool, int, float, str, Op, dtypes.DType))
        or type(value).__name__ == "UOp"
    )

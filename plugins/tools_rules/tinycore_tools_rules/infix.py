"""Graphs as the expressions that one writes in rules: ``x * 3 + MAX(y, 0)``.

>>> n = UOp.variable("n", 1, 9)
>>> infix((n * 3 + 1) * n)
'(n * 3 + 1) * n'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinycore.ir import UOp
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op
from tinycore.rules.syntax import INFIX

_LEVELS = (("<", "<=", "==", "!="), ("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "//", "%"))
_LEVEL = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}
_SIGN = {name: sign for sign, name in INFIX.items() if sign not in (">", ">=")}
_ATOM = len(_LEVELS) + 1


def infix(node: UOp, names: Mapping[UOp, str] | None = None, depth: int = 12) -> str:
    """The text of a graph; `names` names leaves, what is deeper than `depth` is ``...``."""
    return _text(node, names or {}, depth)[0]


def _text(node: UOp, names: Mapping[UOp, str], depth: int) -> tuple[str, int]:
    """Text, and how tightly it binds."""
    if node in names:
        return names[node], _ATOM
    name = node.op.name
    if name == "CONST":
        text = str(node.value).lower() if isinstance(node.value, bool) else str(node.value)
        return text, _ATOM - 1 if text.startswith("-") else _ATOM
    if name == "VARIABLE":
        return str(node.arg[0] if isinstance(node.arg, tuple) else node.arg), _ATOM
    if depth == 0:
        return "...", _ATOM
    if name == "NEG":
        inner, level = _text(node.src[0], names, depth - 1)
        return f"-{inner if level >= _ATOM else f'({inner})'}", _ATOM - 1
    if name in _SIGN and len(node.src) == 2:
        level = _LEVEL[_SIGN[name]]
        left, right = (_text(operand, names, depth - 1) for operand in node.src)
        first = left[0] if left[1] >= level + (level == 0) else f"({left[0]})"
        second = right[0] if right[1] > level else f"({right[0]})"
        return f"{first} {_SIGN[name]} {second}", level
    inside = ", ".join(_text(operand, names, depth - 1)[0] for operand in node.src)
    return f"{name}{_attributes(node)}({inside})", _ATOM


def _attributes(node: UOp) -> str:
    if node.op.name in ("CAST", "BITCAST"):
        return f"[{node.dtype.name}]"
    if node.arg is None:
        return ""
    several = node.arg if isinstance(node.arg, tuple) and len(node.op.attributes) > 1 else (node.arg,)
    return f"[{', '.join(map(_value, several))}]"


def _value(value: Any) -> str:
    if isinstance(value, (Op, DType)):
        return value.name
    if isinstance(value, UOp):
        return infix(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ("," if len(value) == 1 else "") + ")"
    return f'"{value}"' if isinstance(value, str) else str(value)

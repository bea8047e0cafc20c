"""The infix operators of the rule language: apart from the tree, which is only imported to compile rules."""

from __future__ import annotations

_OPERATORS = "+ - * / // % << >> & | ^ < <= == != > >="
_OPS = "ADD SUB MUL DIV FLOORDIV FLOORMOD SHL SHR AND OR XOR LT LE EQ NE LT LE"
INFIX = dict(zip(_OPERATORS.split(), _OPS.split(), strict=True))
"""The op of every infix operator; the operands of ``>`` and ``>=`` are swapped."""

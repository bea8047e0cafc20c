"""Counterexamples as Python that can be pasted: both graphs, the operands, and what each graph answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinycore.ir import UOp
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore_tools_rules.evaluate import unsigned_view

_HEAD = """import numpy as np
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
"""


def counterexample(before: UOp, after: UOp, values: Mapping[UOp, Any], note: str) -> str:
    """Python that prints what both graphs answer for these operands (one array a leaf).

    Leaves that only a kernel has (ranges, variables) become buffers, so that the tensor interpreter takes them.
    """
    leaves = {leaf: _stored(leaf, number) for number, leaf in enumerate(values)}
    first, second = before.substitute(leaves), after.substitute(leaves)
    names: dict[UOp, str] = {}
    lines = [f"# {note}", _HEAD.rstrip()]
    for root, name in ((first, "before"), (second, "after")):
        for node in root.toposort():
            if node not in names:
                names[node] = f"n{len(names)}"
                lines.append(f"{names[node]} = {_code(node, names)}")
        lines.append(f"{name} = {names[root]}")
    given = [
        f"{names[leaves[leaf]]}: {_array(leaf.dtype, np.asarray(array))}"
        for leaf, array in values.items()
        if leaves[leaf] in names
    ]
    lines.append(f"print(*interpret([before, after], {{{', '.join(given)}}}))")
    return "\n".join(lines)


def _stored(leaf: UOp, number: int) -> UOp:
    return UOp(ops.BUFFER, leaf.dtype, (), (number, leaf.shape, "D"))


def _code(node: UOp, names: Mapping[UOp, str]) -> str:
    src = "".join(f"{names[operand]}, " for operand in node.src)
    dtype = f'dtypes.by_name("{node.dtype.name}")'
    arg = "" if node.arg is None else f", {_value(node.arg)}"
    return f"UOp(ops.{node.op.name}, {dtype}, ({src.rstrip(' ')}){arg})"


def _value(value: Any) -> str:
    if isinstance(value, Op):
        return f"ops.{value.name}"
    if isinstance(value, DType):
        return f'dtypes.by_name("{value.name}")'
    if isinstance(value, tuple):
        return f"({''.join(_value(part) + ', ' for part in value)})"
    if isinstance(value, UOp):
        return f"UOp.variable({', '.join(map(repr, value.arg))})" if value.op is ops.VARIABLE else repr(value)
    return repr(value)


def _array(dtype: DType, array: Any) -> str:
    name = f'dtypes.by_name("{dtype.name}").numpy'
    if dtype.is_float:
        bits = unsigned_view(array)
        return f"np.array({bits.tolist()}, np.{bits.dtype.name}).view({name})"
    return f"np.array({array.tolist()}, {name})"

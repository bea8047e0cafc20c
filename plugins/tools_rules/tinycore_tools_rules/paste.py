"""Counterexamples as Python that can be pasted: both graphs, the operands, and what each graph answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinycore.ir import UOp
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore_tools_rules.evaluate import unsigned_view

_KERNEL_HEAD = """import numpy as np
from tinycore.interpret import interpret_kernel
from tinycore.ir import UOp, dtypes, ops
"""
_HEAD = """import numpy as np
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
"""


def counterexample(
    before: UOp,
    after: UOp,
    values: Mapping[UOp, Any],
    note: str,
    bindings: Mapping[UOp, int] | None = None,
) -> str:
    """Python that prints what both graphs answer for these operands (one array a leaf, one number a size).

    Leaves that only a kernel has (ranges, variables) become buffers, so that the tensor interpreter takes them.
    """
    leaves = {leaf: _stored(leaf, number) for number, leaf in enumerate(values)}
    first, second = before.substitute(leaves), after.substitute(leaves)
    names: dict[UOp, str] = {}
    lines = [f"# {note}", _HEAD.rstrip(), *_graphs({"before": first, "after": second}, names)]
    given = [
        f"{names[leaves[leaf]]}: {_array(leaf.dtype, np.asarray(array))}"
        for leaf, array in values.items()
        if leaves[leaf] in names
    ]
    sizes = f", {{{_sizes(bindings)}}}" if bindings else ""
    lines.append(f"print(*interpret([before, after], {{{', '.join(given)}}}{sizes}))")
    return "\n".join(lines)


def instance(before: UOp, after: UOp | None, note: str) -> str:
    """Python that builds an instance and what a rule made of it, and prints their dtypes and shapes."""
    roots = {"before": before} if after is None else {"before": before, "after": after}
    shown = ", ".join(f"{name}.dtype, {name}.shape" for name in roots)
    comment = "\n".join(f"# {line}" for line in note.splitlines())
    lines = [comment, "from tinycore.ir import UOp, dtypes, ops", *_graphs(roots, {}), f"print({shown})"]
    return "\n".join(lines)


def kernels(
    before: UOp, after: UOp, buffers: Mapping[UOp, Any], bindings: Mapping[UOp, int], note: str
) -> str:
    """Python that runs two kernels over the same buffers and prints what each has stored in the last one."""
    arrays = [f"{node.arg[0]}: {_array(node.dtype, np.asarray(array))}" for node, array in buffers.items()]
    out = list(buffers)[-1].arg[0]
    lines = [f"# {note}", _KERNEL_HEAD.rstrip(), *_graphs({"before": before, "after": after}, {})]
    lines += ["for kernel in (before, after):", f"    buffers = {{{', '.join(arrays)}}}"]
    lines += [f"    interpret_kernel(kernel, buffers, {{{_sizes(bindings)}}})", f"    print(buffers[{out}])"]
    return "\n".join(lines)


def _graphs(roots: Mapping[str, UOp], names: dict[UOp, str]) -> list[str]:
    """A line for every node of the graphs; `names` is filled."""
    lines = []
    for name, root in roots.items():
        for node in root.toposort():
            if node not in names:
                names[node] = f"n{len(names)}"
                lines.append(f"{names[node]} = {_code(node, names)}")
        lines.append(f"{name} = {names[root]}")
    return lines


def _sizes(bindings: Mapping[UOp, int] | None) -> str:
    return ", ".join(f"{_value(node)}: {number}" for node, number in (bindings or {}).items())


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
        return (
            f"UOp.variable({', '.join(map(repr, value.arg))})" if value.op is ops.VARIABLE else _inline(value)
        )
    return repr(value)


def _inline(node: UOp) -> str:
    """A node and all below it as one expression: sizes in shapes."""
    src = "".join(f"{_value(operand)}, " for operand in node.src)
    arg = "" if node.arg is None else f", {_value(node.arg)}"
    return f'UOp(ops.{node.op.name}, dtypes.by_name("{node.dtype.name}"), ({src.rstrip(" ")}){arg})'


def _array(dtype: DType, array: Any) -> str:
    name = f'dtypes.by_name("{dtype.name}").numpy'
    if dtype.is_float:
        bits = unsigned_view(array)
        return f"np.array({bits.tolist()}, np.{bits.dtype.name}).view({name})"
    return f"np.array({array.tolist()}, {name})"

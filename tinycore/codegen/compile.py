"""From a canonical kernel to a Program: the one entrance of this room."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tinycore.codegen.pipeline import Context, PluginPass, run
from tinycore.codegen.program import Program, leaves
from tinycore.codegen.tiling import Prefetch, Stream
from tinycore.errors import CompileError
from tinycore.ir import Dim, Target, UOp, dims, dtypes, ops
from tinycore.ir.text import digest
from tinycore.rules.doors import Observer


def lower(
    kernel: UOp,
    target: Target,
    plugins: Mapping[str, Sequence[PluginPass]] | None = None,
    observers: tuple[Observer, ...] = (),
) -> Program:
    """The program of a canonical kernel (see `tinycore.schedule`) for a target.

    Raises CompileError, naming the pass, when a kernel cannot be lowered.
    """
    linear = run(kernel, Context(target, plugins or {}, observers))
    return assemble(kernel, linear)


def assemble(kernel: UOp, linear: UOp) -> Program:
    """A LINEAR with its arguments and its grid."""
    parameters = sorted(
        {node for node in kernel.toposort() if node.op is ops.PARAM}, key=lambda p: int(p.arg[0])
    )
    if [p.arg[0] for p in parameters] != list(range(len(parameters))):
        raise CompileError("the parameters of a kernel are not numbered 0, 1, ...", where=repr(kernel))
    variables = sorted(
        {_symbol(node) for node in leaves(linear) if node.op is ops.VARIABLE}, key=lambda v: str(v.arg[0])
    )
    written = frozenset(
        int(node.src[0].under(ops.AFTER).arg[0])
        for node in linear.src
        if node.op is ops.STORE and node.src[0].under(ops.AFTER).op is ops.PARAM
    )
    return Program(
        name=kernel_name(kernel),
        linear=linear,
        parameters=tuple(parameters),
        variables=tuple(variables),
        written=written,
        grid=grid_of(linear, "global"),
        group=tuple([int(bound) for bound in grid_of(linear, "local")]),  # type: ignore[arg-type]
        operations=operations(kernel),
        traffic=dims.product((1,)) if not parameters else _traffic(parameters),
        streaming=any(isinstance(action, Stream) for action in linear.arg or ()),
        prefetch=next((action for action in linear.arg or () if isinstance(action, Prefetch)), None),
    )


def _symbol(variable: UOp) -> UOp:
    return UOp(ops.VARIABLE, dtypes.index, (), variable.arg)


def grid_of(linear: UOp, kind: str) -> tuple[Dim, ...]:
    """Bounds of the `global` or `local` ranges of a program, in the order of their dimensions."""
    ranges = sorted(
        (n for n in linear.src if n.op is ops.RANGE and n.arg[1] == kind), key=lambda n: int(n.arg[0])
    )
    return tuple([dims.to_dim(_as_index(node.src[0])) for node in ranges])


def _as_index(node: UOp) -> UOp:
    """A bound in machine arithmetic as a dimension again."""
    if node.op is ops.CONST:
        return UOp.const(dtypes.index, int(node.arg[0]))
    if node.op is ops.VARIABLE:
        return _symbol(node)
    return UOp(node.op, dtypes.index, tuple([_as_index(operand) for operand in node.src]), node.arg)


def _traffic(parameters: Sequence[UOp]) -> Dim:
    total: Dim = 0
    for parameter in parameters:
        total = dims.add(total, dims.multiply(dims.product(parameter.arg[1]), parameter.dtype.itemsize))
    return total


def operations(kernel: UOp) -> Dim:
    """Floating point operations of a canonical kernel: one an element of every elementwise op and REDUCE."""
    total: Dim = 0
    for node in kernel.toposort():
        if node.op is ops.REDUCE and node.dtype.is_float:
            total = dims.add(total, dims.product(node.src[0].shape))
        elif (
            node.op.elementwise and node.dtype.is_float and node.op not in (ops.CAST, ops.WHERE, ops.BITCAST)
        ):
            total = dims.add(total, dims.product(node.shape))
    return total


def kernel_name(kernel: UOp) -> str:
    """A C identifier that says what the kernel does, its output shape and a digest of its content."""
    value = kernel.src[-1].src[-1]
    kind = (
        "r"
        if kernel.mask & ops.REDUCE.bit
        else "s"
        if kernel.mask & (ops.SCATTER.bit | ops.SCAN.bit)
        else "e"
    )
    shape = "_".join(re.sub(r"\W+", "", str(dim) if isinstance(dim, int) else "n") for dim in value.shape)
    return f"{kind}_{shape or 'scalar'}_{digest(kernel)[:8]}"

"""Whether a rewrite kept the meaning: many valuations of one instance at once, under what the rule declares.

Exact rules have to agree bit for bit. ``@fast`` flags exclude valuations: nnan those with a NaN anywhere, ninf
those with an infinity, reassoc, contract and arcp those where anything is rounded. ``@approx(ulp, n)`` is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.ir import UOp, dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops
from tinycore.rules import syntax as s
from tinycore_tools_rules.evaluate import bits_array, differences, is_nan, unsigned_view
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.terms import signless

Array = NDArray[Any]

_WIDE: dict[Any, Any] = {
    ops.EXP: np.exp,
    ops.EXP2: np.exp2,
    ops.LOG: np.log,
    ops.LOG2: np.log2,
    ops.SIN: np.sin,
    ops.COS: np.cos,
    ops.TANH: np.tanh,
    ops.POW: np.power,
}
"""Functions that numpy has in extended precision: the reference for float64."""
_ARITHMETIC = frozenset({ops.ADD, ops.SUB, ops.MUL, ops.DIV, ops.FMA, ops.SQRT})
_ROUNDING_FLAGS = {"reassoc", "contract", "arcp"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """How many valuations counted; where the first wrong one is, if any; the greatest error in ulp."""

    count: int
    wrong: int | None = None
    ulp: int = 0
    valid: Array | None = None


def approximation(unit: Unit) -> int | None:
    """The n of ``@approx(ulp, n)``."""
    note = unit.annotation("approx")
    if note is None:
        return None
    last = note.arguments[-1] if note.arguments else None
    return int(last.value) if isinstance(last, s.Number) else 0


def malformed(before: UOp, after: UOp) -> str:
    """What is wrong with the dtypes or operands of the elementwise nodes that a rule has built; "" if nothing is.

    >>> x = UOp(ops.BUFFER, dtypes.int8, (), (0, (), "D"))
    >>> malformed(x, UOp(ops.ADD, dtypes.int8, (x, x.cast(dtypes.int16))))
    'ADD of int8 and int16'
    """
    known = set(before.toposort())
    for node in after.toposort():
        if node in known or not node.op.elementwise:
            continue
        same = {
            operand.dtype for operand, spec in zip(node.src, node.op.operands, strict=False) if spec[0] == "T"
        }
        classes = [spec.rpartition(":")[2] for spec in node.op.operands]
        fits = len(node.src) == len(classes) and all(
            operand.dtype in dtypes.CLASSES.get(name, (operand.dtype,))
            for operand, name in zip(node.src, classes, strict=True)
        )
        result = node.op.dtype == "attribute" or {"T": same, "bool": {dtypes.bool_}}[node.op.dtype] == {
            node.dtype
        }
        shapes = {operand.shape for operand in node.src}
        resized = node.op is ops.BITCAST and node.src[0].dtype.bits != node.dtype.bits
        if not fits or len(same) > 1 or not result or len(shapes) > 1 or resized:
            operands = " and ".join(f"{part.dtype.name}{list(part.shape) or ''}" for part in node.src)
            return f"{node.op.name}{f'[{node.dtype.name}]' if resized else ''} of {operands}"
    return ""


def values_of(root: UOp, leaves: Mapping[UOp, Array]) -> dict[UOp, Array]:
    """The value of every node of a scalar graph for every valuation."""
    known: dict[UOp, Array] = dict(leaves)
    with quiet():
        for node in root.toposort():
            if node in known:
                continue
            if node.op is ops.CONST:
                known[node] = bits_array(node.dtype, np.array(node.arg[0], dtype=object))
            else:
                known[node] = np.asarray(MEANING[node.op](node.dtype, *[known[part] for part in node.src]))
    return known


def judge(unit: Unit, before: UOp, after: UOp, leaves: Mapping[UOp, Array]) -> Judgement:
    """Compare both sides on valuations, one array of values a leaf."""
    first = values_of(before, leaves)
    second = values_of(after, {**leaves, **first})
    expected, answer = np.broadcast_arrays(first[before], second[after])
    flags = unit.notes.flags
    shape = np.broadcast_shapes(expected.shape, *[array.shape for array in leaves.values()])
    valid = np.broadcast_to(_valid(flags, second), shape)
    limit = approximation(unit)
    if limit is not None:
        errors = np.broadcast_to(_errors(before, first, answer), shape)
        wrong, worst = errors > limit + _slop(before), int(errors[valid].max(initial=0))
    else:
        loose = "nsz" in flags or signless(before, after)
        wrong, worst = np.broadcast_to(differences(expected, answer, loose), shape), 0
    bad = np.flatnonzero((wrong & valid).reshape(-1))
    return Judgement(int(valid.sum()), int(bad[0]) if len(bad) else None, worst, valid)


def _valid(flags: frozenset[str], values: Mapping[UOp, Array]) -> Array:
    valid: Any = np.True_
    exact = bool(flags & _ROUNDING_FLAGS)
    for node, array in values.items():
        if not node.dtype.is_float:
            continue
        if "nnan" in flags:
            valid = valid & ~is_nan(array)
        if "ninf" in flags:
            with quiet():
                valid = valid & ~np.isinf(array.astype(np.float64))
        if exact and node.op in _ARITHMETIC and all(operand in values for operand in node.src):
            valid = valid & _unrounded(node, array, [values[operand] for operand in node.src])
    return np.asarray(valid)


def _unrounded(node: UOp, result: Array, operands: list[Array]) -> Array:
    """Where an operation is exact: in a wider format it gives the same finite number."""
    wide = np.longdouble if node.dtype.itemsize == 8 else np.float64
    meaning: Callable[..., Any] = {ops.FMA: lambda a, b, c: a * b + c}.get(node.op, MEANING[node.op])
    with quiet():
        parts = [operand.astype(wide) for operand in operands]
        again = meaning(*parts) if node.op is ops.FMA else meaning(dtypes.float64, *parts)
        return np.asarray((again == result.astype(wide)) & np.isfinite(result.astype(np.float64)))


def _errors(before: UOp, values: Mapping[UOp, Array], answer: Array) -> Array:
    expected = values[before]
    if before.dtype.name == "float64" and before.op in _WIDE:
        with quiet():
            wide = _WIDE[before.op](*[values[operand].astype(np.longdouble) for operand in before.src])
            expected = wide.astype(np.float64)
    return ulps(before.dtype, np.asarray(expected), answer)


def _slop(before: UOp) -> int:
    """What the reference itself may be off by."""
    extended = np.finfo(np.longdouble).nmant > 60
    return 0 if before.dtype.itemsize < 8 or (before.op in _WIDE and extended) else 1


def ulps(dtype: DType, a: Array, b: Array) -> Array:
    """The distance of floats in units in the last place; both NaN is 0, one NaN is far.

    >>> ulps(dtypes.float32, np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2))).tolist()
    [1]
    """
    a, b = np.broadcast_arrays(a, b)

    def ordered(array: Array) -> Array:
        bits = unsigned_view(array).astype(object)
        sign = 1 << (dtype.bits - 1)
        return np.where(bits >= sign, sign - bits, bits)

    if dtype.bits < 64:
        first, second = (_ordered_fast(dtype, array) for array in (a, b))
    else:
        first, second = ordered(a), ordered(b)
    nan_a, nan_b = is_nan(a), is_nan(b)
    far = np.abs(first - second)
    far = np.where(nan_a & nan_b, 0, np.where(nan_a | nan_b, 1 << 40, far))
    return np.minimum(far, 1 << 40).astype(np.int64)


def _ordered_fast(dtype: DType, array: Array) -> Array:
    bits = unsigned_view(array).astype(np.int64)
    sign = 1 << (dtype.bits - 1)
    return np.where(bits >= sign, sign - bits, bits)

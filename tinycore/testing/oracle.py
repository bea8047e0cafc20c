"""A second opinion: tensor graphs evaluated in plain Python numbers, with a bound on every element's error.

This shares no code with `tinycore.interpret`: integers are Python integers that are wrapped, floats are
Python floats that are rounded, loops are loops. It is slow and obvious.

Beside each value it keeps how far a correct implementation may be from it. 0 means bit for bit. Reordered
float reductions and transcendental functions have a bound (`ULPS`); whatever is computed from them carries
it on. Where the bound is infinite (an overflow that depends on the order of additions) nothing is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import InterpretError
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore.ir.uop import UOp, toposort
from tinycore.testing.scalars import FLOAT, INTEGER, UNARY, round_to, wrap

Array = NDArray[Any]
Function = Callable[..., Any]

ULPS = 4.0
"""How far a transcendental function may be from the true value, in units in the last place (POW: 16)."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a node should be.

    Attributes
    ----------
    values: an array of the node's dtype.
    error: float64, how far each element may be away; 0 is exact, inf is anything.
    """

    values: Array
    error: Array


def expected(roots: Sequence[UOp], buffers: Mapping[UOp, Array]) -> list[Expected]:
    """The values of tensor-level nodes of int shapes, see the module's docstring.

    >>> from tinycore.ir import dtypes
    >>> x = UOp.const(dtypes.uint8, 200, (2,))
    >>> expected([x + x], {})[0].values.tolist()
    [144, 144]
    """
    known: dict[UOp, Expected] = {}
    with np.errstate(all="ignore"):
        for node in toposort(roots):
            known[node] = _evaluate(node, [known[operand] for operand in node.src], buffers)
    return [known[root] for root in roots]


def _sizes(node: UOp) -> tuple[int, ...]:
    """The shape of a node without symbolic dimensions."""
    return tuple([int(dim) for dim in node.shape if isinstance(dim, int)])


def _exact(values: Array) -> Expected:
    return Expected(values, np.zeros(values.shape))


def _evaluate(node: UOp, operands: list[Expected], buffers: Mapping[UOp, Array]) -> Expected:
    op = node.op
    if op is ops.BUFFER:
        return _exact(buffers[node])
    if op is ops.CONST:
        return _exact(_pack(node.dtype, [node.value] * math.prod(_sizes(node)), _sizes(node)))
    if op in (ops.CONTIGUOUS, ops.DETACH, ops.COPY):
        return operands[0]
    if op is ops.BITCAST:
        return _exact(operands[0].values.copy().view(node.dtype.numpy))
    if op.elementwise:
        return _elementwise(node, operands)
    if op in _MOVES:
        move = _MOVES[op]
        return Expected(move(node, operands[0].values), move(node, operands[0].error))
    if op is ops.REDUCE:
        return _reduce(node, operands[0])
    if op is ops.SCAN:
        return _scan(node, operands[0])
    if op is ops.GATHER:
        return Expected(
            _gather(node, operands[0].values, operands[1].values),
            _gather(node, operands[0].error, operands[1].values),
        )
    if op is ops.SCATTER:
        return _scatter(node, *operands)
    if op is ops.ASSIGN:
        return Expected(
            _assign(node, operands[0].values, operands[2].values),
            _assign(node, operands[0].error, operands[2].error),
        )
    raise InterpretError(f"the oracle knows nothing of {op.name}", where=repr(node))


# --- elements ---------------------------------------------------------------------------------------------


def _unpack(values: Array) -> list[Any]:
    """Python numbers (float64 for every float dtype, which is exact)."""
    if values.dtype.kind in "fV":
        return values.astype(np.float64).ravel().tolist()
    return values.ravel().tolist()


def _pack(dtype: DType, numbers: Sequence[Any], shape: tuple[int, ...]) -> Array:
    """Numbers that are already values of the dtype."""
    if dtype.is_float:
        return np.array(numbers, np.float64).astype(dtype.numpy).reshape(shape)
    return np.array(numbers, dtype.numpy).reshape(shape)


def _elementwise(node: UOp, operands: list[Expected]) -> Expected:
    op, dtype, shape = node.op, node.dtype, operands[0].values.shape
    columns = [_unpack(operand.values) for operand in operands]
    source = node.src[-1].dtype
    function = _function(op, source) if op is not ops.CAST else wrap
    if op is ops.CAST:
        numbers = [_cast(source, dtype, x) for x in columns[0]]
    elif dtype.is_float and op is not ops.WHERE:
        numbers = [round_to(dtype, function(*row)) for row in zip(*columns, strict=True)]
    elif dtype.is_int and op is not ops.WHERE:
        numbers = [wrap(dtype, function(dtype, *row)) for row in zip(*columns, strict=True)]
    elif dtype.kind == "bool" and not source.is_float and op in INTEGER:
        numbers = [bool(function(source, *row)) for row in zip(*columns, strict=True)]
    else:
        numbers = [function(*row) for row in zip(*columns, strict=True)]
    values = _pack(dtype, numbers, shape)
    return Expected(values, _error(node, values, operands))


def _function(op: Op, source: DType) -> Function:
    for table in (_ANY, UNARY, FLOAT if source.is_float else INTEGER):
        if op in table:
            return table[op]
    raise InterpretError(f"the oracle knows nothing of {op.name} for {source}")


_ANY: dict[Op, Function] = {
    ops.LT: lambda a, b: a < b,
    ops.LE: lambda a, b: a <= b,
    ops.EQ: lambda a, b: a == b,
    ops.NE: lambda a, b: a != b,
    ops.WHERE: lambda c, a, b: a if c else b,
}


def _cast(source: DType, target: DType, x: Any) -> Any:
    if target.kind == "bool":
        return x != 0
    if target.is_float:
        return round_to(target, Fraction(x) if source.is_int else x)
    if not source.is_float:
        return wrap(target, int(x))
    if math.isnan(x):
        return 0
    low, high = int(target.min), int(target.max)
    return low if x <= low else high if x >= high else int(x)


# --- errors -----------------------------------------------------------------------------------------------


def _magnitude(values: Array) -> Array:
    return np.abs(values.astype(np.float64))


def ulp(dtype: DType, values: Array) -> Array:
    """The distance between neighbouring floats of a dtype near some values."""
    smallest = {
        "float16": 2.0**-24,
        "float32": 2.0**-149,
        "float64": 2.0**-1074,
        "bfloat16": 2.0**-133,
        "float8_e4m3": 2.0**-9,
        "float8_e5m2": 2.0**-16,
    }[dtype.name]
    size = np.where(np.isfinite(values.astype(np.float64)), _magnitude(values), 0.0)
    return np.maximum(smallest, 2.0 ** (np.floor(np.log2(np.maximum(size, 1e-300))) - dtype.mantissa))


def largest(dtype: DType) -> float:
    """The largest finite value of a float dtype."""
    return {
        "float16": 65504.0,
        "float32": 3.4028234663852886e38,
        "float64": 1.7976931348623157e308,
        "bfloat16": 3.3895313892515355e38,
        "float8_e4m3": 448.0,
        "float8_e5m2": 57344.0,
    }[dtype.name]


def _error(node: UOp, values: Array, operands: list[Expected]) -> Array:
    """How far an elementwise result may be off."""
    op, dtype = node.op, node.dtype
    errors = [operand.error for operand in operands]
    if op in _TRANSCENDENTAL:
        ulps = 4 * ULPS if op is ops.POW else ULPS
        slope = np.abs(values.astype(np.float64)) * 1.1 + 1 if op in (ops.EXP, ops.EXP2) else 1.2
        bound = ulps * ulp(dtype, values) + np.where(errors[0] > 0, errors[0] * slope, 0.0)
        if op in (ops.EXP, ops.EXP2):
            bound = np.where(errors[0] > 0.1, np.inf, bound)
        return _beyond(dtype, values, bound)
    if not any(error.any() for error in errors):
        return np.zeros(values.shape)
    if not dtype.is_float:  # a discrete decision on an inexact value: the strategies avoid it
        return np.where(np.any(errors, axis=0), np.inf, 0.0)
    sizes = [_magnitude(operand.values) for operand in operands]
    if op is ops.MUL:
        bound = sizes[0] * errors[1] + sizes[1] * errors[0] + errors[0] * errors[1]
    elif op is ops.WHERE:
        bound = np.where(operands[0].values, errors[1], errors[2])
    elif op in (ops.MAX, ops.MIN):
        bound = np.maximum(errors[0], errors[1])
    elif op in (ops.ADD, ops.SUB, ops.NEG, ops.CAST):
        bound = np.sum(errors, axis=0)
    else:
        bound = np.where(np.any(errors, axis=0), np.inf, 0.0)
    bound = np.where(np.isnan(bound), np.inf, bound)
    exact = op in (ops.WHERE, ops.MAX, ops.MIN, ops.NEG)
    return _beyond(dtype, values, bound if exact else np.where(bound > 0, bound + ulp(dtype, values), 0.0))


def _beyond(dtype: DType, values: Array, bound: Array) -> Array:
    """Near the largest finite value an error may become an overflow: then anything goes."""
    near = np.isfinite(values.astype(np.float64)) & (_magnitude(values) + bound >= largest(dtype) * 0.999)
    overflowed = np.isinf(values.astype(np.float64)) & (bound > 0)
    return np.where((near & (bound > 0)) | overflowed, np.inf, bound)


_TRANSCENDENTAL = frozenset(
    {
        ops.EXP,
        ops.EXP2,
        ops.LOG,
        ops.LOG2,
        ops.SIN,
        ops.COS,
        ops.TANH,
        ops.ERF,
        ops.POW,
    }
)


# --- movement ---------------------------------------------------------------------------------------------


def _pad(node: UOp, x: Array) -> Array:
    result = np.zeros(_sizes(node), x.dtype)
    for place in np.ndindex(*x.shape):
        result[tuple([at + before for at, (before, _) in zip(place, node.arg, strict=True)])] = x[place]
    return result


_MOVES: dict[Op, Callable[[UOp, Array], Array]] = {
    ops.RESHAPE: lambda node, x: np.array(x.ravel().copy()).reshape(node.arg),
    ops.PERMUTE: lambda node, x: np.transpose(x, node.arg),
    ops.EXPAND: lambda node, x: np.broadcast_to(x, node.arg),
    ops.PAD: _pad,
    ops.SHRINK: lambda node, x: x[tuple([slice(*pair) for pair in node.arg])],
    ops.FLIP: lambda node, x: x[tuple([slice(None, None, 1 - 2 * (k in node.arg)) for k in range(x.ndim)])],
}


# --- reductions -------------------------------------------------------------------------------------------


def _combine(op: Op, dtype: DType, a: Any, b: Any) -> Any:
    if dtype.is_float:
        return round_to(dtype, FLOAT[op](a, b))
    result = wrap(dtype, INTEGER[op](dtype, int(a), int(b)))
    return bool(result) if dtype.kind == "bool" else result


def _identity(op: Op, dtype: DType) -> Any:
    if dtype.kind == "bool":
        return op in (ops.MUL, ops.AND, ops.MIN)
    return {
        ops.ADD: 0,
        ops.MUL: 1,
        ops.MAX: dtype.min,
        ops.MIN: dtype.max,
        ops.OR: 0,
        ops.XOR: 0,
        ops.AND: wrap(dtype, -1) if dtype.is_int else 0,
    }[op]


def _reduce(node: UOp, x: Expected) -> Expected:
    op, axes = node.arg
    dtype, shape = node.dtype, _sizes(node)
    values = np.zeros(shape, node.dtype.numpy)
    error = np.zeros(shape)
    for place in np.ndindex(*shape):
        box = tuple([slice(None) if axis in axes else slice(at, at + 1) for axis, at in enumerate(place)])
        items, errors = _unpack(x.values[box]), x.error[box].ravel()
        if dtype.is_float and op in (ops.ADD, ops.MUL):
            value, bound = (_sum if op is ops.ADD else _product)(dtype, items, errors)
            if node.src[0].op is ops.MUL and any(map(math.isinf, items)):
                bound = math.inf  # a fused sum of products does not round the products, so none overflows
        else:
            value = _identity(op, dtype)
            for item in items:
                value = _combine(op, dtype, value, item)
            bound = float(errors.max(initial=0.0))
        values[place] = _pack(dtype, [value], ())
        error[place] = bound
    return Expected(values, error)


def _sum(dtype: DType, items: list[float], errors: Array) -> tuple[float, float]:
    finite = [item for item in items if math.isfinite(item)]
    others = [item for item in items if not math.isfinite(item)]
    total = sum(map(abs, finite))
    if total >= largest(dtype) * 0.99:  # whether a partial sum overflows depends on the order
        return (math.nan if any(map(math.isnan, others)) else 0.0), math.inf
    if others:
        return sum(others), 0.0
    value = round_to(dtype, math.fsum(items))
    if len(items) < 2:
        return value, float(errors.sum())
    return value, float(errors.sum()) + len(items) * 2.0**-dtype.mantissa * total


def _product(dtype: DType, items: list[float], errors: Array) -> tuple[float, float]:
    if errors.any() or any(not math.isfinite(item) for item in items):
        return 0.0, math.inf
    grown = math.prod(max(abs(item), 1.0) for item in items)
    shrunk = math.prod(min(abs(item), 1.0) for item in items if item)
    if grown >= largest(dtype) * 0.99 or shrunk < 2.0 ** (2 - _exponents(dtype)):
        return 0.0, math.inf
    value = round_to(dtype, math.prod(items))
    return value, (len(items) * 2.0**-dtype.mantissa * abs(value) if len(items) > 1 else 0.0)


def _exponents(dtype: DType) -> int:
    return {
        "float16": 14,
        "float32": 126,
        "float64": 1022,
        "bfloat16": 126,
        "float8_e4m3": 6,
        "float8_e5m2": 14,
    }[dtype.name]


def _scan(node: UOp, x: Expected) -> Expected:
    op, axis = node.arg
    values = np.array(x.values)
    lines = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]) if values.size else values[:0]
    rows = []
    for row in lines:
        numbers = _unpack(row)
        for at in range(1, len(numbers)):
            numbers[at] = _combine(op, node.dtype, numbers[at - 1], numbers[at])
        rows.append(numbers)
    if not values.size:
        return _exact(values)
    moved = np.moveaxis(values, axis, -1).shape
    packed = _pack(node.dtype, [number for row in rows for number in row], moved)
    error = np.where(np.broadcast_to(x.error.any(), values.shape), np.inf, 0.0)
    return Expected(np.moveaxis(packed, -1, axis), error)


# --- indexing ---------------------------------------------------------------------------------------------


def _gather(node: UOp, x: Array, i: Array) -> Array:
    axis = node.arg
    result = np.zeros(_sizes(node), x.dtype)
    for place in np.ndindex(*result.shape):
        at = int(i[place[axis : axis + i.ndim]])
        if 0 <= at < x.shape[axis]:
            result[place] = x[(*place[:axis], at, *place[axis + i.ndim :])]
    return result


def _scatter(node: UOp, base: Expected, i: Expected, updates: Expected) -> Expected:
    op, axis = node.arg
    values, error = np.array(base.values), np.array(base.error)
    rank = i.values.ndim
    for place in np.ndindex(*updates.values.shape):
        at = int(i.values[place[axis : axis + rank]])
        if not 0 <= at < values.shape[axis]:
            continue
        target = (*place[:axis], at, *place[axis + rank :])
        if op is None:
            values[target], error[target] = updates.values[place], updates.error[place]
            continue
        pair = [_unpack(np.asarray(array))[0] for array in (values[target], updates.values[place])]
        values[target] = _pack(node.dtype, [_combine(op, node.dtype, *pair)], ())
        if error[target] or updates.error[place]:
            error[target] = np.inf
    return Expected(values, error)


def _assign(node: UOp, base: Array, value: Array) -> Array:
    chain: list[UOp] = []
    view = node.src[1]
    while view is not node.src[0]:
        chain.append(view)
        view = view.src[0]
    places = np.arange(base.size).reshape(base.shape)
    for step in reversed(chain):
        places = _MOVES[step.op](step, places)
    result = np.array(base).ravel()
    for place, item in zip(places.ravel(), np.array(value).ravel(), strict=True):
        result[place] = item
    return result.reshape(base.shape)

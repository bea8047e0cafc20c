"""Reductions over numpy arrays, constants and symbolic dimensions: what all three levels share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import BindingError, InterpretError
from tinycore.interpret.conversions import cast
from tinycore.ir import dims, monoids
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore.ir.uop import Dim, Shape, UOp, toposort

Array = NDArray[Any]

_UFUNC: dict[Op, Any] = {
    ops.ADD: np.add,
    ops.MUL: np.multiply,
    ops.MAX: np.maximum,
    ops.MIN: np.minimum,
    ops.AND: np.bitwise_and,
    ops.OR: np.bitwise_or,
    ops.XOR: np.bitwise_xor,
}


def monoid(op: Op, dtype: DType) -> Any:
    """The ufunc that combines two values of a dtype (ADD of bools is or, MUL is and).

    Raises InterpretError where the op is no monoid.
    """
    if op not in _UFUNC:
        raise InterpretError(
            f"{op.name} does not combine values: it has no identity",
            hint="use one of " + ", ".join(sorted(known.name for known in _UFUNC)),
        )
    if dtype.kind == "bool":
        return {
            ops.ADD: np.logical_or,
            ops.MUL: np.logical_and,
            ops.MAX: np.logical_or,
            ops.MIN: np.logical_and,
        }.get(op, _UFUNC[op])
    return _UFUNC[op]


def identity(op: Op, dtype: DType) -> Array:
    """The value that leaves the other operand alone, as a 0-d array."""
    return constant(dtype, dtype.to_bits(monoids.identity(op, dtype)))


def constant(dtype: DType, bits: int) -> Array:
    """The 0-d array that canonical bits stand for, NaN payloads included."""
    if dtype.is_float:
        return np.array(bits, f"uint{dtype.bits}").view(dtype.numpy)
    return np.array(bits, dtype.numpy)


def reduce_axes(op: Op, dtype: DType, x: Array, axes: tuple[int, ...]) -> Array:
    """Combine over axes, which stay with size 1. Narrow floats are accumulated as float32, rounded once."""
    if not axes:
        return x
    combine = monoid(op, dtype)
    narrow = dtype.is_float and dtype.itemsize < 4
    if narrow:
        x = x.astype(np.float32)
    start = identity(op, dtype).astype(x.dtype)
    # Axes of size 0 have no combination of their own, so the identity is always given.
    result = combine.reduce(x, axis=axes, keepdims=True, initial=start[()], dtype=x.dtype)
    return cast(dtype, np.asarray(result)) if narrow else np.asarray(result)


def scan_axis(op: Op, dtype: DType, x: Array, axis: int) -> Array:
    """Running combination along one axis, rounded at every step."""
    if x.shape[axis] == 0:
        return x
    return np.asarray(monoid(op, dtype).accumulate(x, axis=axis, dtype=x.dtype))


def contract(dtype: DType, a: Array, b: Array, axes: tuple[int, ...]) -> Array | None:
    """The sum of a * b over axes as a matrix product, where a and b (of equal rank) are broadcasts.

    An axis along which an operand does not vary (size 1, or stride 0) is taken out of it. Answers None where
    a plain product and sum is as good or where the result would differ by more than the order of additions.
    """
    shape = np.broadcast_shapes(a.shape, b.shape)
    if 0 in shape or dtype.kind == "bool" or not axes:
        return None
    a, b = _squeeze_repeats(a), _squeeze_repeats(b)
    batch, rows, columns = [], [], []
    for axis, size in enumerate(shape):
        in_a, in_b = a.shape[axis] > 1, b.shape[axis] > 1
        if axis in axes:
            if size > 1 and not (in_a and in_b):
                return None
        elif in_a and in_b:
            batch.append(axis)
        elif in_a:
            rows.append(axis)
        elif in_b:
            columns.append(axis)
    if not rows or not columns:
        return None
    inner = list(axes)
    narrow = dtype.is_float and dtype.itemsize < 4
    if narrow:
        a, b = a.astype(np.float32), b.astype(np.float32)
    product = np.matmul(_matrices(a, batch, rows, inner), _matrices(b, batch, inner, columns))
    if narrow:
        product = cast(dtype, product)
    kept = batch + rows + columns
    rest = [axis for axis in range(len(shape)) if axis not in kept]
    result = product.reshape([shape[axis] for axis in kept] + [1] * len(rest))
    result = result.transpose(np.argsort(kept + rest))
    return np.broadcast_to(result, [1 if axis in axes else size for axis, size in enumerate(shape)])


def _squeeze_repeats(x: Array) -> Array:
    box = tuple(
        [
            slice(0, 1) if stride == 0 and size > 1 else slice(None)
            for stride, size in zip(x.strides, x.shape, strict=True)
        ]
    )
    return x[box]


def _matrices(x: Array, batch: list[int], rows: list[int], columns: list[int]) -> Array:
    """x as (batch, rows, columns), each a product of axes."""
    rest = [axis for axis in range(x.ndim) if axis not in batch + rows + columns]
    ordered = x.transpose(batch + rows + columns + rest)
    sizes = [[x.shape[axis] for axis in group] for group in (batch, rows, columns)]
    return ordered.reshape([int(np.prod(group, dtype=np.int64)) for group in sizes])


class Bindings:
    """The values of symbolic dimensions.

    >>> n = UOp.variable("n", 1, 8)
    >>> Bindings({n: 3}).shape((2, n))
    (2, 3)
    """

    def __init__(self, values: Mapping[UOp, int]) -> None:
        self._known: dict[UOp, int] = {}
        for variable, value in values.items():
            if variable.op is not ops.VARIABLE:
                raise BindingError(f"only a VARIABLE can be bound, not {variable!r}")
            name, low, high, multiple = variable.arg
            if not low <= value <= high or value % multiple:
                raise BindingError(f"{name} = {value} is not within {low}..{high} in steps of {multiple}")
            self._known[variable] = int(value)

    def value(self, dim: Dim) -> int:
        """A dimension as an int. Raises BindingError for a variable without a value."""
        if isinstance(dim, int):
            return dim
        known = self._known
        if dim not in known:
            for node in toposort((dim,)):
                if node not in known:
                    known[node] = self._evaluate(node)
        return known[dim]

    def shape(self, sizes: Sequence[Dim]) -> tuple[int, ...]:
        """A shape as ints."""
        return tuple([self.value(size) for size in sizes])

    def _evaluate(self, node: UOp) -> int:
        if node.op is ops.CONST:
            return int(node.arg[0])
        if node.op is ops.VARIABLE:
            raise BindingError(
                f"the symbolic dimension {node.arg[0]!r} has no value",
                hint=f"give a value between {node.arg[1]} and {node.arg[2]} when realizing",
            )
        function = dims.ARITHMETIC.get(node.op)
        if function is None:
            raise InterpretError(f"{node.op.name} cannot stand in a dimension", where=repr(node))
        return int(function(*[self._known[operand] for operand in node.src]))


def bind(nodes: Iterable[UOp]) -> dict[UOp, int]:
    """A value for every variable that occurs: a small one, as its limits allow."""
    variables: set[UOp] = set()
    for node in nodes:
        if node.op is ops.VARIABLE:
            variables.add(node)
        elif node.op in (ops.PARAM, ops.BUFFER, ops.RESHAPE, ops.EXPAND, ops.CONST, ops.SHRINK, ops.PAD):
            variables |= dims.variables(_flat(node.arg))
    return {variable: _some_value(variable) for variable in variables}


def _flat(arg: Any) -> tuple[Any, ...]:
    """The dimensions inside an attribute."""
    found: list[Any] = []
    stack = [arg]
    while stack:
        part = stack.pop()
        if isinstance(part, tuple):
            stack.extend(part)
        elif isinstance(part, UOp):
            found.append(part)
    return tuple(found)


def _some_value(variable: UOp) -> int:
    _, minimum, maximum, multiple = variable.arg
    wanted = min(maximum, max(minimum, 5))
    return int(min(maximum // multiple, -(-wanted // multiple)) * multiple)


def as_stored(name: str, array: Array, dtype: DType, shape: Shape, bindings: Bindings) -> Array:
    """The elements of a buffer in its present shape; a symbolic buffer may be larger than its present size.

    Raises InterpretError where dtype or size do not fit.
    """
    array = np.asarray(array)
    if array.dtype != dtype.numpy:
        raise InterpretError(f"{name} holds {dtype.name}, the array given for it {array.dtype}")
    sizes = bindings.shape(shape)
    if array.shape == sizes:
        return array
    wanted = int(np.prod(sizes, dtype=np.int64))
    symbolic = any(isinstance(dim, UOp) for dim in shape)
    if array.size < wanted or (array.size > wanted and not symbolic):
        raise InterpretError(f"{name} has shape {sizes}, the array given for it {array.shape}")
    return array.reshape(-1)[:wanted].reshape(sizes)

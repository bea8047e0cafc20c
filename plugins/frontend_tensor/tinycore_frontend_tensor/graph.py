"""Tensor-level UOps, built with the no-ops left out. Nothing here knows the `Tensor` class.

Shapes may hold symbolic dimensions (`tinycore.ir.dims`); a shape entry is an int or an `index` node.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinycore.errors import ShapeError
from tinycore.ir import DType, Op, Shape, UOp, dims, dtypes, ops

ACCUMULATE = {
    dtypes.float16: dtypes.float32,
    dtypes.bfloat16: dtypes.float32,
    dtypes.float8_e4m3: dtypes.float32,
    dtypes.float8_e5m2: dtypes.float32,
}
"""Floats whose sums are carried in a wider dtype."""


def text(shape: Iterable[object]) -> str:
    """A shape as people write it.

    >>> text((2, 3))
    '(2, 3)'
    """
    parts = [_dim_text(dim) for dim in shape]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _dim_text(dim: object) -> str:
    if isinstance(dim, UOp):
        if dim.op is ops.VARIABLE:
            return str(dim.arg[0])
        if dim.op is ops.CONST:
            return str(dim.arg[0])
        sign = {ops.ADD: "+", ops.MUL: "*", ops.SUB: "-", ops.FLOORDIV: "//"}.get(dim.op)
        if sign:
            return f"{_dim_text(dim.src[0])}{sign}{_dim_text(dim.src[1])}"
    return str(dim)


def constant(dtype: DType, value: bool | int | float, shape: Shape = ()) -> UOp:
    """A constant of that shape."""
    return UOp.const(dtype, value, shape)


def reshape(node: UOp, shape: Shape) -> UOp:
    """RESHAPE; the number of elements must be known to be equal."""
    if node.shape == shape:
        return node
    if node.op is ops.CONST:
        return UOp.from_bits(node.dtype, node.arg[0], shape)
    if node.op is ops.RESHAPE:
        return reshape(node.src[0], shape)
    return UOp(ops.RESHAPE, node.dtype, (node,), shape)


def expand(node: UOp, shape: Shape) -> UOp:
    """EXPAND of axes of size 1; the rank stays."""
    if node.shape == shape:
        return node
    if node.op is ops.CONST:
        return UOp.from_bits(node.dtype, node.arg[0], shape)
    return UOp(ops.EXPAND, node.dtype, (node,), shape)


def permute(node: UOp, axes: Sequence[int]) -> UOp:
    """PERMUTE: axis k of the result is axis `axes[k]`."""
    axes = tuple(axes)
    if axes == tuple(range(len(axes))):
        return node
    if node.op is ops.CONST:
        return UOp.from_bits(node.dtype, node.arg[0], tuple([node.shape[axis] for axis in axes]))
    if node.op is ops.PERMUTE:
        return permute(node.src[0], [node.arg[axis] for axis in axes])
    return UOp(ops.PERMUTE, node.dtype, (node,), axes)


def pad(node: UOp, padding: Sequence[tuple[int | UOp, int | UOp]]) -> UOp:
    """PAD with zeros, ((before, after), ...) for every axis."""
    padding = tuple(padding)
    if all(before == 0 and after == 0 for before, after in padding):
        return node
    return UOp(ops.PAD, node.dtype, (node,), padding)


def shrink(node: UOp, limits: Sequence[tuple[int | UOp, int | UOp]]) -> UOp:
    """SHRINK to the box ((start, stop), ...) of every axis."""
    limits = tuple(limits)
    if all(start == 0 and stop == size for (start, stop), size in zip(limits, node.shape, strict=True)):
        return node
    if node.op is ops.CONST:
        shape = tuple([dims.subtract(stop, start) for start, stop in limits])
        return UOp.from_bits(node.dtype, node.arg[0], shape)
    return UOp(ops.SHRINK, node.dtype, (node,), limits)


def flip(node: UOp, axes: Iterable[int]) -> UOp:
    """FLIP of the named axes."""
    axes = tuple(sorted(set(axes)))
    if not axes or node.op is ops.CONST:
        return node
    return UOp(ops.FLIP, node.dtype, (node,), axes)


Steps = tuple[tuple[Op, Any], ...]
"""The (op, arg) of a chain of movement ops, the innermost first."""

_MOVES: dict[Op, Callable[[UOp, Any], UOp]] = {
    ops.RESHAPE: reshape,
    ops.EXPAND: expand,
    ops.PERMUTE: permute,
    ops.PAD: pad,
    ops.SHRINK: shrink,
    ops.FLIP: flip,
}


def steps_of(shape: Shape, move: Callable[[UOp], UOp]) -> Steps:
    """What `move`, made of movement ops only, does to a value of that shape.

    What is done to many values of few shapes is worked out once this way, and then followed.

    >>> [(op.name, arg) for op, arg in steps_of((2, 3), lambda node: reshape(reshape(node, (6,)), (3, 2)))]
    [('RESHAPE', (3, 2))]
    """
    source = UOp(ops.BUFFER, dtypes.bool_, (), (0, shape, ""))
    found: list[tuple[Op, Any]] = []
    node = move(source)
    while node is not source:
        found.append((node.op, node.arg))
        node = node.src[0]
    return tuple(reversed(found))


def follow(node: UOp, steps: Steps) -> UOp:
    """The value that `steps_of` the node's shape lead to: the same nodes as by going there on foot."""
    if steps and (node.op is ops.CONST or node.op is steps[0][0]):  # may become one with the first step
        for op, arg in steps:
            node = _MOVES[op](node, arg)
        return node
    dtype, make = node.dtype, UOp.__new__  # most nodes of a network are made here: one call less each
    for op, arg in steps:
        node = make(UOp, op, dtype, (node,), arg)
    return node


@functools.lru_cache(maxsize=4096)
def broadcast_shape(*shapes: Shape, what: str = "operands") -> Shape:
    """The common shape by numpy's rule. Raises ShapeError naming the op and all shapes.

    >>> broadcast_shape((3, 1), (4,))
    (3, 4)
    """
    rank = max(len(shape) for shape in shapes)
    result: list[int | UOp] = []
    for axis in range(rank):
        size: int | UOp = 1
        for shape in shapes:
            position = axis - rank + len(shape)
            if position < 0 or shape[position] == 1:
                continue
            if size != 1 and size != shape[position]:
                listing = " and ".join(text(s) for s in shapes)
                raise ShapeError(
                    f"{what}: shapes {listing} cannot be broadcast together",
                    hint=f"axis {axis - rank} has sizes {_dim_text(size)} and {_dim_text(shape[position])}: "
                    "make them equal or one of them 1 (reshape, unsqueeze, expand)",
                )
            size = shape[position]
        result.append(size)
    return tuple(result)


def broadcast(node: UOp, shape: Shape) -> UOp:
    """Reshape to the rank of `shape`, then EXPAND; `shape` must be a broadcast of the node's."""
    have = node.shape
    return node if have == shape else follow(node, _broadcast_steps(have, shape))


@functools.lru_cache(maxsize=4096)
def _broadcast_steps(have: Shape, shape: Shape) -> Steps:
    aligned = (1,) * (len(shape) - len(have)) + have
    return steps_of(have, lambda node: expand(reshape(node, aligned), shape))


def elementwise(op: Op, *operands: UOp) -> UOp:
    """Broadcasts the operands (equal dtypes are the caller's job) and applies an elementwise op."""
    shape = broadcast_shape(*[operand.shape for operand in operands], what=op.name)
    first, *others = [broadcast(operand, shape) for operand in operands]
    return first.alu(op, *others)


def where(condition: UOp, yes: UOp, no: UOp) -> UOp:
    """WHERE with broadcasting."""
    shape = broadcast_shape(condition.shape, yes.shape, no.shape, what="where")
    return broadcast(condition, shape).where(broadcast(yes, shape), broadcast(no, shape))


def reduce(node: UOp, op: Op, axes: Sequence[int], keepdim: bool = False) -> UOp:
    """REDUCE over axes, in the node's own dtype; the axes are dropped unless `keepdim`."""
    axes = tuple(sorted(axes))
    result = UOp(ops.REDUCE, node.dtype, (node,), (op, axes)) if axes else node
    if keepdim:
        return result
    return reshape(result, tuple([size for axis, size in enumerate(node.shape) if axis not in axes]))


def total(node: UOp, axes: Sequence[int], keepdim: bool = False) -> UOp:
    """The sum in the node's dtype; narrow floats are accumulated in float32."""
    wide = ACCUMULATE.get(node.dtype, node.dtype)
    return reduce(node.cast(wide), ops.ADD, axes, keepdim).cast(node.dtype)


def mean(node: UOp, axes: Sequence[int], keepdim: bool = False) -> UOp:
    """The mean in the node's dtype, a float; narrow floats are summed and divided in float32."""
    wide = ACCUMULATE.get(node.dtype, node.dtype)
    summed = reduce(node.cast(wide), ops.ADD, axes, keepdim)
    count = dim_value(dims.product([node.shape[axis] for axis in axes]), wide, summed.shape)
    return summed.alu(ops.DIV, count).cast(node.dtype)


def scan(node: UOp, op: Op, axis: int) -> UOp:
    """SCAN along an axis."""
    return UOp(ops.SCAN, node.dtype, (node,), (op, axis))


def gather(node: UOp, indices: UOp, axis: int) -> UOp:
    """GATHER: the axis is replaced by the shape of the indices; outside reads 0."""
    return UOp(ops.GATHER, node.dtype, (node, indices), axis)


def scatter(base: UOp, indices: UOp, updates: UOp, axis: int, op: Op | None) -> UOp:
    """SCATTER of updates into base along an axis; `op` None replaces."""
    return UOp(ops.SCATTER, base.dtype, (base, indices, updates), (op, axis))


def arange(count: int | UOp, dtype: DType = dtypes.int64) -> UOp:
    """0, 1, ... count-1: a running sum of ones, which lowering turns into the loop's own counter."""
    ones = constant(dtype, 1, (count,))
    return scan(ones, ops.ADD, 0).alu(ops.SUB, ones)


def dim_value(dim: int | UOp, dtype: DType, shape: Shape = ()) -> UOp:
    """A dimension as a number to compute with, broadcast to `shape`."""
    if isinstance(dim, int):
        return constant(dtype, dim, shape)
    return broadcast(dim.cast(dtype), shape)


def size_of(shape: Shape) -> int | UOp:
    """How many elements."""
    return dims.product(shape)


def swap(rank: int, first: int, second: int) -> tuple[int, ...]:
    """The axes of a permutation that exchanges two axes."""
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)

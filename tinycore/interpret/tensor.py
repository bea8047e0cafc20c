"""The tensor level: whole arrays, one numpy operation a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import InterpretError, TinycoreError
from tinycore.interpret.arrays import Bindings, as_stored, constant, contract, monoid, reduce_axes, scan_axis
from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.ir.ops import ops
from tinycore.ir.uop import UOp

Array = NDArray[Any]

CUSTOM: dict[str, Callable[..., Array]] = {}
"""The numpy meaning of CUSTOM ops by name: ``function(node, *operand arrays) -> array``."""


def interpret(
    roots: Sequence[UOp], buffers: Mapping[UOp, Array], bindings: Mapping[UOp, int] | None = None
) -> list[Array]:
    """The values of tensor-level nodes.

    Parameters
    ----------
    roots: what to compute; a SINK stands for its operands, one after the other.
    buffers: the elements of every BUFFER and PARAM node below the roots: an array of the node's dtype and
        size (a flat one will do; a buffer of symbolic shape may be larger than its present size). Never
        written to.
    bindings: the value of every VARIABLE that shapes depend on.

    Returns one array a root, which may share memory with `buffers` and must not be written to.
    Raises InterpretError where a node has no meaning, BindingError for unbound dimensions.

    >>> import numpy
    >>> from tinycore.ir import UOp, dtypes, ops
    >>> x = UOp(ops.BUFFER, dtypes.int32, (), (1, (3,), "D"))
    >>> [array.tolist() for array in interpret([x * x], {x: numpy.array([1, 2, 3], "int32")})]
    [[1, 4, 9]]
    """
    with quiet():
        return _Evaluation(buffers, Bindings(bindings or {})).run(roots)


def _operands(node: UOp) -> tuple[UOp, ...]:
    """What must be computed before a node: the body of a CALL is a function, not an operand."""
    return node.src[1:] if node.op is ops.CALL else node.src


def _order(roots: Iterable[UOp]) -> list[UOp]:
    order: list[UOp] = []
    seen: set[UOp] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(_operands(node)) if operand not in seen)
    return order


class _Evaluation:
    """One run over a graph: values by node, freed with their last user."""

    def __init__(self, buffers: Mapping[UOp, Array], bindings: Bindings) -> None:
        self.buffers = buffers
        self.bindings = bindings
        self.values: dict[UOp, Array] = {}

    def run(self, roots: Sequence[UOp]) -> list[Array]:
        flat = [operand for root in roots for operand in (root.src if root.op is ops.SINK else (root,))]
        order = _order(flat)
        uses = Counter(operand for node in order for operand in _operands(node))
        uses.update(flat)
        lazy = {node.src[0] for node in order if _is_contraction(node) and uses[node.src[0]] == 1}
        for node in order:
            if node in lazy:  # the product is never formed: its operands wait for the REDUCE
                continue
            self.values[node] = self._evaluate(node, lazy)
            for operand in _operands(node):
                for used in operand.src if operand in lazy else (operand,):
                    uses[used] -= 1
                    if not uses[used]:
                        self.values.pop(used, None)
        return [self.values[root] for root in flat]

    def _evaluate(self, node: UOp, lazy: set[UOp]) -> Array:
        try:
            if node.op is ops.REDUCE and node.src[0] in lazy:
                return self._contraction(node)
            operands = [self.values[operand] for operand in _operands(node)]
            if node.op in MEANING:
                return np.asarray(MEANING[node.op](node.dtype, *operands))
            rule = _RULES.get(node.op)
            if rule is None:
                raise InterpretError(f"{node.op.name} has no meaning at tensor level")
            return rule(self, node, *operands)
        except InterpretError as error:
            if error.where is not None:
                raise
            raise InterpretError(error.what, where=repr(node), hint=error.hint) from None
        except TinycoreError:
            raise
        except (ValueError, IndexError) as error:
            raise InterpretError(f"numpy refuses {node.op.name}: {error}", where=repr(node)) from error

    def _contraction(self, node: UOp) -> Array:
        product = node.src[0]
        a, b = (self.values[operand] for operand in product.src)
        result = contract(node.dtype, a, b, node.arg[1])
        if result is None:
            whole = np.asarray(MEANING[ops.MUL](node.dtype, a, b))
            result = reduce_axes(ops.ADD, node.dtype, whole, node.arg[1])
        return result


def _is_contraction(node: UOp) -> bool:
    return node.op is ops.REDUCE and node.arg[0] is ops.ADD and node.src[0].op is ops.MUL


def _const(run: _Evaluation, node: UOp) -> Array:
    return np.broadcast_to(constant(node.dtype, node.arg[0]), run.bindings.shape(node.arg[1]))


def _stored(run: _Evaluation, node: UOp) -> Array:
    if node not in run.buffers:
        raise InterpretError(f"no array was given for this {node.op.name}", hint="add it to `buffers`")
    return as_stored(f"{node.op.name} {node.arg[0]}", run.buffers[node], node.dtype, node.shape, run.bindings)


def _pad(run: _Evaluation, node: UOp, x: Array) -> Array:
    padding = [run.bindings.shape(pair) for pair in node.arg]
    sizes = [before + size + after for size, (before, after) in zip(x.shape, padding, strict=True)]
    result = np.zeros(sizes, x.dtype)
    inner = [slice(before, before + size) for size, (before, _) in zip(x.shape, padding, strict=True)]
    result[tuple(inner)] = x
    return result


def _move(run: _Evaluation, node: UOp, x: Array) -> Array:
    """A movement op that only selects elements: a view wherever numpy can give one."""
    match node.op:
        case ops.RESHAPE:
            return x.reshape(run.bindings.shape(node.arg))
        case ops.PERMUTE:
            return x.transpose(node.arg)
        case ops.EXPAND:
            return np.broadcast_to(x, run.bindings.shape(node.arg))
        case ops.SHRINK:
            limits = [run.bindings.shape(pair) for pair in node.arg]
            boxes = zip(limits, x.shape, strict=True)
            if not all(0 <= start <= stop <= size for (start, stop), size in boxes):
                raise InterpretError(f"the box {tuple(limits)} is not inside the shape {x.shape}")
            return x[tuple([slice(start, stop) for start, stop in limits])]
        case _:
            return np.flip(x, node.arg)


def _gather(run: _Evaluation, node: UOp, x: Array, i: Array) -> Array:
    size = x.shape[node.arg]
    inside = (i >= 0) & (i < size)
    if inside.all():
        return np.take(x, i, axis=node.arg)
    if size == 0:
        return np.zeros(x.shape[: node.arg] + i.shape + x.shape[node.arg + 1 :], x.dtype)
    taken = np.take(x, np.where(inside, i, 0), axis=node.arg)
    mask = inside.reshape(inside.shape + (1,) * (x.ndim - node.arg - 1))
    return np.where(mask, taken, np.zeros((), x.dtype))


def _scatter(run: _Evaluation, node: UOp, base: Array, i: Array, updates: Array) -> Array:
    op, axis = node.arg
    result = base.copy()
    target = np.moveaxis(result, axis, 0)
    order = [*range(axis, axis + i.ndim), *range(axis), *range(axis + i.ndim, updates.ndim)]
    rows = updates.transpose(order).reshape((i.size, *target.shape[1:]))
    places = i.reshape(-1)
    inside = (places >= 0) & (places < base.shape[axis])
    places, rows = places[inside].astype(np.int64), rows[inside]
    if op is None:
        target[places] = rows  # numpy keeps the last of equal places
    else:
        monoid(op, node.dtype).at(target, places, rows)
    return result


def _assign(run: _Evaluation, node: UOp, base: Array, _: Array, value: Array) -> Array:
    chain: list[UOp] = []
    view = node.src[1]
    while view is not node.src[0]:
        if view.op not in (ops.RESHAPE, ops.PERMUTE, ops.SHRINK, ops.FLIP):
            raise InterpretError(f"{view.op.name} is not a view of the buffer that is assigned to")
        chain.append(view)
        view = view.src[0]
    if not chain:
        return value
    result = base.copy()
    target = result
    for step in reversed(chain):
        target = _move(run, step, target)
    if np.may_share_memory(target, result) or not target.size:
        target[...] = value
        return result
    places = np.arange(base.size).reshape(base.shape)  # a RESHAPE had to copy: move the positions instead
    for step in reversed(chain):
        places = _move(run, step, places)
    result.reshape(-1)[places] = value
    return result


def _call(run: _Evaluation, node: UOp, *arguments: Array) -> Array:
    body = node.src[0]
    parameters = {leaf: arguments[leaf.arg[0]] for leaf in _order([body]) if leaf.op is ops.PARAM}
    inner = _Evaluation({**run.buffers, **parameters}, run.bindings)
    return inner.run([body])[0]


def _custom(run: _Evaluation, node: UOp, *operands: Array) -> Array:
    name = node.arg[0]
    if name not in CUSTOM:
        raise InterpretError(
            f"the op {name!r} has no numpy meaning",
            hint="its plugin should add one to tinycore.interpret.CUSTOM",
        )
    return CUSTOM[name](node, *operands)


_RULES: dict[Any, Callable[..., Array]] = {
    ops.CONST: _const,
    ops.VARIABLE: lambda run, node: np.array(run.bindings.value(node), np.int64),
    ops.BUFFER: _stored,
    ops.PARAM: _stored,
    **dict.fromkeys((ops.RESHAPE, ops.PERMUTE, ops.EXPAND, ops.SHRINK, ops.FLIP), _move),
    ops.PAD: _pad,
    ops.REDUCE: lambda run, node, x: reduce_axes(node.arg[0], node.dtype, x, node.arg[1]),
    ops.SCAN: lambda run, node, x: scan_axis(node.arg[0], node.dtype, x, node.arg[1]),
    ops.GATHER: _gather,
    ops.SCATTER: _scatter,
    ops.CONTIGUOUS: lambda run, node, x: x,
    ops.DETACH: lambda run, node, x: x,
    ops.COPY: lambda run, node, x: x,
    ops.ASSIGN: _assign,
    ops.CALL: _call,
    ops.CUSTOM: _custom,
}

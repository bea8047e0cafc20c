"""Shape inference: one function a shape rule of the op table. Iterative, so depth is no limit.

At tensor level a shape is the array's shape; at program level ``()`` for a scalar value and ``(lanes,)``
for a vector. Statements have shape ``()``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from tinycore.ir import dims
from tinycore.ir.ops import TABLE, Op, ops
from tinycore.ir.uop import Shape, UOp


def _pad(node: UOp) -> Shape:
    return tuple(
        [
            dims.add(dims.add(before, size), after)
            for size, (before, after) in zip(node.src[0].shape, node.arg, strict=True)
        ]
    )


def _reduce(node: UOp) -> Shape:
    axes = node.arg[1]
    return tuple([1 if axis in axes else size for axis, size in enumerate(node.src[0].shape)])


def _gather(node: UOp) -> Shape:
    shape, axis = node.src[0].shape, node.arg
    return shape[:axis] + node.src[1].shape + shape[axis + 1 :]


def _lanes(node: UOp) -> Shape:
    return (node.arg,) if node.arg and node.arg > 1 else node.src[1].shape


RULES: dict[str, Callable[[UOp], Shape]] = {
    "attribute": lambda node: _rule(node.op)(node),
    "scalar": lambda node: (),
    "same": lambda node: node.src[0].shape,
    "elementwise": lambda node: node.src[0].shape,
    "permute": lambda node: tuple([node.src[0].shape[axis] for axis in node.arg]),
    "pad": _pad,
    "shrink": lambda node: tuple([dims.subtract(stop, start) for start, stop in node.arg]),
    "reduce": _reduce,
    "gather": _gather,
    "lanes": _lanes,
    "iota": lambda node: (node.arg,),
    "splat": lambda node: (node.arg,),
    "shuffle": lambda node: (len(node.arg),),
}
"""The shape rules by the names that the op table uses."""


def _rule(op: Op) -> Callable[[UOp], Shape]:
    if op.shape != "attribute":
        return RULES[op.shape]
    names = [name for name in op.attributes if name != "dtype"]
    if len(names) == 1:
        return attrgetter("arg")
    place = names.index("shape")
    return lambda node: node.arg[place]


def infer(node: UOp) -> Shape:
    """The shape of a node; stored on it and on what its shape was derived from."""
    for operand in node.src[: _READS[node.op]]:
        if operand._shape is None:
            break
    else:
        found = node._shape = _RULE_OF[node.op](node)
        return found
    stack = [node]
    while stack:
        current = stack[-1]
        if current._shape is None:
            missing = [operand for operand in current.src[: _READS[current.op]] if operand._shape is None]
            if missing:
                stack += missing
                continue
            current._shape = _RULE_OF[current.op](current)
        stack.pop()
    assert node._shape is not None
    return node._shape


_RULE_OF = {op: _rule(op) for op in TABLE.values()}
_READS = {
    op: 0 if op.shape in ("attribute", "scalar") else 2 if op in (ops.GATHER, ops.LOAD) else 1
    for op in TABLE.values()
}
"""The shapes of how many operands a rule reads: no others are looked at."""

"""Sums of products in groups of neighbours: one instruction for several narrow products and their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinycore.codegen.affine import affine
from tinycore.codegen.nest import constant_bound, kind_of
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

ZERO = UOp.const(dtypes.index, 0)


@dataclass(frozen=True, slots=True)
class Offset:
    """Signed bytes of buffer `slot` in the reduction over `range` become unsigned ones, for instructions that
    multiply unsigned by signed: 128 is added to them, and 128 times the sum of the other factor, reduced over
    a range `copy` of its own, is subtracted from the result."""

    slot: int
    range: int
    copy: int

    def __str__(self) -> str:
        return f"offset the bytes of buffer {self.slot} over r{self.range}, summed up over r{self.copy}"


def offset(kernel: UOp, action: Offset) -> UOp:
    """See `Offset`. Raises CompileError where no reduction has such factors."""
    mapping: dict[UOp, UOp] = {}
    for node in kernel.toposort():
        if node.op is not ops.REDUCE or node.src[0].op is not ops.MUL:
            continue
        step = next((r for r in node.src[1:] if r.arg[0] == action.range), None)
        bytes_ = [f for f in node.src[0].src if _is_byte(f, action.slot)]
        if step is None or len(bytes_) != 1 or len(node.src) != 2:
            continue
        (byte,) = bytes_
        (other,) = [factor for factor in node.src[0].src if factor is not byte]
        shifted = byte.src[0] ^ UOp.const(dtypes.int8, -128)
        unsigned = byte.replace(src=(UOp(ops.BITCAST, dtypes.uint8, (shifted,)),))
        again = step.replace(arg=(action.copy, step.arg[1]))
        total = node.replace(src=(other.substitute({step: again}), again))
        product = node.replace(src=(unsigned * other, step))
        mapping[node] = product - total * 128
    if not mapping:
        raise CompileError(f"no product of bytes of buffer {action.slot} is reduced over r{action.range}")
    return kernel.substitute(mapping)


def _is_byte(factor: UOp, slot: int) -> bool:
    if factor.op is not ops.CAST or factor.src[0].op is not ops.LOAD:
        return False
    load = factor.src[0]
    return load.dtype is dtypes.int8 and load.src[0].op is ops.PARAM and load.src[0].arg[0] == slot


def as_dots(kernel: UOp, group: UOp) -> UOp:
    """Products of casts that are reduced over a range, as the DOTs of what is cast. Raises CompileError where
    something else is reduced over it."""
    mapping: dict[UOp, UOp] = {}
    for node in kernel.toposort():
        if node.op is ops.REDUCE and group in node.src[1:]:
            value = node.src[0]
            if value.op is not ops.MUL or any(factor.op is not ops.CAST for factor in value.src):
                raise CompileError("only products of casts are summed in groups", where=repr(node))
            start = UOp.const(node.dtype, 0)
            product = UOp(ops.DOT, node.dtype, (start, *[factor.src[0] for factor in value.src]))
            mapping[node] = node.replace(src=(product, *node.src[1:]))
    return kernel.substitute(mapping)


def dot(
    reduction: UOp, accumulator: UOp, lanes: int, value: Callable[[UOp], UOp], place: Callable[[UOp], UOp]
) -> UOp | None:
    """One step of a reduction over a range bound to `group`; None for a reduction without one.

    The factors are loaded (or computed element by element from what is); within a group and from lane to lane
    their addresses are neighbours, or the lanes share one group.
    """
    groups = [node for node in reduction.src[1:] if kind_of(node) == "group"]
    if not groups:
        return None
    if not lanes:
        raise CompileError("a group needs lanes to be summed in", where=repr(reduction))
    left, right = (_grouped(factor, groups[0], lanes, value, place) for factor in reduction.src[0].src[1:])
    return place(UOp(ops.DOT, accumulator.dtype, (accumulator, left, right)))


def _grouped(
    node: UOp, group: UOp, lanes: int, value: Callable[[UOp], UOp], place: Callable[[UOp], UOp]
) -> UOp:
    """All groups of a factor, one behind the other."""
    size = constant_bound(group.src[0])
    if node.op is ops.CONST:
        return UOp.from_bits(node.dtype, node.arg[0], (lanes * size,))
    if node.op is not ops.LOAD:
        operands = [_grouped(operand, group, lanes, value, place) for operand in node.src]
        return place(UOp(node.op, node.dtype, tuple(operands), node.arg))
    index, form = node.src[1], affine(node.src[1])
    vectors = [r for r in node.ranges if kind_of(r) == "vector"]
    strides = [form.factor(r) for r in (group, *vectors)]
    if strides not in ([1], [1, size]) or not (node.src[2].is_const and node.src[2].value):
        raise CompileError("the groups of a load do not lie one behind the other", where=repr(node))
    start = value(index.substitute({group: ZERO, **dict.fromkeys(vectors, ZERO)}))
    count = lanes * size if vectors else size
    load = place(UOp(ops.LOAD, node.dtype, (value(node.src[0]), start, node.src[2]), count))
    if vectors:
        return load
    return place(UOp(ops.SHUFFLE, node.dtype, (load, load), tuple([k % size for k in range(lanes * size)])))

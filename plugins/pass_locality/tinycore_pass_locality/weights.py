"""Weighted sums whose weights are powers over their own sum: the sum divides what was summed up, once.

``sum(p / sum(p) * v)`` is ``sum(p * v) / sum(p)``: attention keeps the powers of a row as they are, so that each
is computed once and no weight is divided. Only for powers of what is at most 0 (softmax takes the maximum
away first): their sums cannot overflow where the weights would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tinycore.ir import UOp, ops, toposort
from tinycore.ir.ops import MOVEMENT
from tinycore.schedule import Placement
from tinycore.schedule.axes import MIXED, along

LEAST_ITEMSIZE = 4
"""Bytes of numbers that have room for the sum of a row where they had room for its largest."""


@dataclass(frozen=True)
class _Weights:
    """A kept value ``powers / EXPAND(their sum)``, the path up to the reduction that it is a factor of."""

    node: UOp
    path: tuple[UOp, ...]
    product: UOp
    reduction: UOp


def divide_sums(placement: Placement) -> Placement:
    """The same values, kept rows of weights being divided behind the sum that they are weights of."""
    users: dict[UOp, list[UOp]] = {}
    for node in toposort(placement.roots):
        for operand in node.src:
            users.setdefault(operand, []).append(node)
    found = [_weights(node, users, placement) for node in placement.kept if _is_normalised(node)]
    changes = {each.reduction: each for each in found if each is not None}
    return _rebuilt(placement, changes) if changes else placement


# --- recognising ------------------------------------------------------------------------------------------


def _is_normalised(node: UOp) -> bool:
    """Whether a value is powers of at most 1 over their own sum."""
    if node.op is not ops.DIV or node.dtype.itemsize < LEAST_ITEMSIZE:
        return False
    powers, divisor = node.src
    total = _below_movement(divisor)
    if powers.op not in (ops.EXP, ops.EXP2) or total.op is not ops.REDUCE:
        return False
    if total.arg[0] is not ops.ADD or total.src[0] is not powers:
        return False
    exponent = powers.src[0]
    if exponent.op is ops.MUL and exponent.src[1].is_const and exponent.src[1].arg[0] > 0:
        exponent = exponent.src[0]
    if exponent.op is not ops.SUB:
        return False
    largest = _below_movement(exponent.src[1])
    return largest.op is ops.REDUCE and largest.arg[0] is ops.MAX and largest.src[0] is exponent.src[0]


def _below_movement(node: UOp) -> UOp:
    while node.op in MOVEMENT:
        node = node.src[0]
    return node


def _weights(node: UOp, users: Mapping[UOp, list[UOp]], placement: Placement) -> _Weights | None:
    """The one reduction that a value is a factor of; None where it has other users, or its sum varies there."""
    path = [node]
    while len(users[path[-1]]) == 1 and users[path[-1]][0].op in MOVEMENT:
        path.append(users[path[-1]][0])
    products = users[path[-1]]
    if len(products) != 1 or products[0].op is not ops.MUL or products[0].src[0] is products[0].src[1]:
        return None
    (product,) = products
    reductions = users[product]
    if len(reductions) != 1 or reductions[0].op is not ops.REDUCE or reductions[0].arg[0] is not ops.ADD:
        return None
    (reduction,) = reductions
    summed = set(_below_movement(node.src[1]).arg[1])
    walked = along([*reversed(path)]).axes if len(path) > 1 else tuple(range(len(node.shape)))
    reduced = set(reduction.arg[1])
    constant = all(
        entry != MIXED and (entry not in reduced or axis in summed) for axis, entry in enumerate(walked)
    )
    seen = {product, *path[1:]} & (placement.stored | placement.kept.keys())
    aligned = all(
        op.op in (ops.RESHAPE, ops.EXPAND, ops.PERMUTE) for op in [*path[1:], *_movement(node.src[1])]
    )
    return _Weights(node, tuple(path), product, reduction) if constant and aligned and not seen else None


def _movement(node: UOp) -> Iterator[UOp]:
    while node.op in MOVEMENT:
        yield node
        node = node.src[0]


# --- writing ----------------------------------------------------------------------------------------------


def _rebuilt(placement: Placement, changes: Mapping[UOp, _Weights]) -> Placement:
    memo: dict[UOp, UOp] = {}
    for node in toposort(placement.roots):
        src = tuple([memo[operand] for operand in node.src])
        memo[node] = node if src == node.src else node.replace(src=src)
        if node in changes:
            memo[node] = _divided(changes[node], memo)
    powers = {each.node: each.node.src[0] for each in changes.values()}
    kept = {powers.get(node, node): user for node, user in placement.kept.items()}
    sums = {_below_movement(each.node.src[1]) for each in changes.values()}
    return replace(
        placement,
        roots=tuple([memo[root] for root in placement.roots]),
        stored=frozenset([memo[node] for node in placement.stored - sums]),
        kept={memo[node]: memo[powers.get(user, user)] for node, user in kept.items()},
    )


def _divided(weights: _Weights, memo: Mapping[UOp, UOp]) -> UOp:
    """The reduction over the powers, divided by their sum as it lies among the results."""
    powers, divisor = (memo[operand] for operand in weights.node.src)
    for step in weights.path[1:]:
        powers, divisor = (step.replace(src=(each,)) for each in (powers, divisor))
    other = [memo[factor] for factor in weights.product.src if factor is not weights.path[-1]]
    reduction = weights.reduction.replace(src=(weights.product.replace(src=(powers, *other)),))
    reduced = weights.reduction.arg[1]
    first = tuple([(0, 1) if axis in reduced else (0, size) for axis, size in enumerate(divisor.shape)])
    return UOp(ops.DIV, reduction.dtype, (reduction, UOp(ops.SHRINK, divisor.dtype, (divisor,), first)))

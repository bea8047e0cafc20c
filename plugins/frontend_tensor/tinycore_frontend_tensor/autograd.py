"""Reverse-mode differentiation: one sweep over the graph with the `vjp` rules. There is no tape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tinycore.errors import TinycoreError
from tinycore.ir import Op, UOp, ops
from tinycore_frontend_tensor import execution, provenance
from tinycore_frontend_tensor.strided import slide_of
from tinycore_frontend_tensor.unslide import unslide

Rule = Callable[[UOp, UOp], "tuple[UOp | None, ...] | None"]


@functools.cache
def _rules() -> dict[Op, Rule]:
    from tinycore.rules import load

    return dict(load("tinycore.passes.gradient").gradients)


def gradient_of(root: UOp, targets: Sequence[UOp], cotangent: UOp) -> list[UOp | None]:
    """For every target the gradient of ``(root * cotangent).sum()``, None where the root does not depend on
    it.

    Where a realized node's graph is remembered, the sweep goes on into that graph. Raises TinycoreError for
    an op without a gradient on the way to a target.
    """
    order, useful = _paths(root, set(targets))
    cotangents: dict[UOp, UOp] = {root: cotangent} if root in useful else {}
    for node in reversed(order):
        above = cotangents.get(node)
        if above is None or node not in useful:
            continue
        for operand, part in _backwards(node, above):
            if operand in useful and part is not None:
                known = cotangents.get(operand)
                cotangents[operand] = part if known is None else known + part
    return [cotangents.get(target) for target in targets]


def _operands(node: UOp) -> tuple[UOp, ...]:
    """Where gradients go from a node: into the graph behind a stored one, and never through integers."""
    if node.op is ops.BUFFER:
        behind = execution.definition(node)
        return () if behind is None else (behind,)
    if not node.dtype.is_float or node.op is ops.DETACH:
        return ()
    slide = slide_of(node)
    return node.src if slide is None else (slide.source,)


def _paths(root: UOp, targets: set[UOp]) -> tuple[list[UOp], set[UOp]]:
    """All nodes below the root, operands first, and those from which a target can be reached."""
    order: list[UOp] = []
    useful: set[UOp] = set()
    seen: set[UOp] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
            if node in targets or any(operand in useful for operand in _operands(node)):
                useful.add(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(_operands(node)) if operand not in seen)
    return order, useful


def _backwards(node: UOp, cotangent: UOp) -> list[tuple[UOp, UOp | None]]:
    """The cotangents of a node's operands."""
    if node.op is ops.BUFFER:
        behind = execution.definition(node)
        return [] if behind is None else [(behind, cotangent)]
    if not node.src or node.op is ops.DETACH:
        return []
    slide = slide_of(node)
    if slide is not None:
        return [(slide.source, unslide(cotangent, slide))]
    rule = _rules().get(node.op)
    parts = None if rule is None else rule(node, cotangent)
    if parts is None:
        place = provenance.origin(node)
        raise TinycoreError(
            f"there is no gradient for {node.op.name} {node.arg or ''}".rstrip(),
            where=f"made at {place}" if place else None,
            hint="detach() the operand if no gradient is needed there",
        )
    return list(zip(node.src, parts, strict=True))

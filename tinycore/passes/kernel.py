"""Natives of kernel.rules."""

from __future__ import annotations

from tinycore.ir import UOp, ops


def implies(gate: UOp, condition: UOp) -> bool:
    """Whether `condition` is certain where `gate` holds: all its conjuncts are conjuncts of the gate."""
    return _conjuncts(condition) <= _conjuncts(gate)


def _conjuncts(node: UOp) -> set[UOp]:
    result: set[UOp] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current.op is ops.AND:
            stack.extend(current.src)
        else:
            result.add(current)
    return result

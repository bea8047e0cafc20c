"""Running results: what an `ordered` loop stored in its last step is in a register already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinycore.codegen.affine import affine
from tinycore.codegen.nest import TRUE
from tinycore.ir import UOp, dtypes, ops


def previous_result(store: UOp, loops: Sequence[UOp]) -> UOp | None:
    """The LOAD below a STORE that reads what the step before stored, None where there is none.

    Its guard says that there was a step before, and otherwise at most what the guard of the STORE says.
    """
    if not loops or loops[-1].arg[1] != "ordered":
        return None
    step = loops[-1]
    place = affine(store.src[1])
    stride = place.factor(step)
    if not stride or not place.depends_only_linearly(step) or step in store.src[3].ranges:
        return None
    began = UOp(ops.LT, dtypes.bool_, (UOp.const(dtypes.index, 0), step))
    found = [
        node
        for node in store.src[2].toposort()
        if node.op is ops.LOAD and node.src[0] is store.src[0] and store.src[0].op is ops.PARAM
    ]
    if len(found) != 1:
        return None
    distance = affine(store.src[1] - found[0].src[1])
    conditions = set(_conditions(found[0].src[2]))
    if distance.terms or distance.constant != stride or began not in conditions:
        return None
    return found[0] if conditions - {began} <= set(_conditions(store.src[3])) else None


def _conditions(gate: UOp) -> Iterator[UOp]:
    if gate.op is ops.AND:
        for operand in gate.src:
            yield from _conditions(operand)
    elif gate is not TRUE:
        yield gate

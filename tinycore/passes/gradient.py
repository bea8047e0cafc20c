"""Natives of ``gradient.rules``: facts about operands, and the gradient of an assignment through a view."""

from __future__ import annotations

from tinycore.ir import Shape, UOp, ops


def expanded_axes(before: Shape, after: Shape) -> tuple[int, ...]:
    """The axes that EXPAND repeats: a cotangent is summed over them."""
    return tuple([axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new])


def replaces(op: object) -> bool:
    """Whether a SCATTER with this `op` replaces elements instead of combining them."""
    return op is None


def device_of(x: UOp) -> object:
    """The device on which a value lives: that of the nearest buffer or copy below it."""
    for node in reversed(x.toposort()):
        if node.op is ops.BUFFER:
            return node.arg[2]
        if node.op is ops.COPY:
            return node.arg
    return None


def look_through(view: UOp, base: UOp, g: UOp) -> UOp:
    """The elements of g (shaped like `base`) that a view of `base` shows."""
    return view.substitute({base: g})


def uncovered(view: UOp, base: UOp, g: UOp) -> UOp:
    """g with zeros where a view of `base` shows it: what an assignment through the view leaves alone."""
    from tinycore.rules import load

    gradients = load("tinycore.passes.gradient").gradients
    covered = view.const_like(1)
    while view is not base:
        slots = gradients[view.op](view, covered)
        assert slots is not None and slots[0] is not None  # movement ops have gradients
        view, covered = view.src[0], slots[0]
    return covered.ne(0).where(g.const_like(0), g)

"""Natives of ``gradient.rules``: attributes of inverse movements, gradients of partial assignments."""

from __future__ import annotations

from tinycore.ir import Shape, UOp, dims, ops

Pairs = tuple[tuple[int | UOp, int | UOp], ...]


def inverse_axes(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes a permutation.

    >>> inverse_axes((2, 0, 1))
    (1, 2, 0)
    """
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def expanded_axes(before: Shape, after: Shape) -> tuple[int, ...]:
    """The axes that EXPAND repeats: a cotangent is summed over them."""
    return tuple([axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old is not new
                  and old != new])


def pad_inside(shape: Shape, padding: Pairs) -> Pairs:
    """The limits of the original elements inside a padded array."""
    return tuple([(before, dims.add(before, size)) for size, (before, _) in zip(shape, padding, strict=True)])


def shrink_outside(shape: Shape, limits: Pairs) -> Pairs:
    """The padding that puts a box back to where SHRINK took it from."""
    pairs = zip(shape, limits, strict=True)
    return tuple([(start, dims.subtract(size, stop)) for size, (start, stop) in pairs])


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


def zeros(like: UOp) -> UOp:
    """A constant 0 of that node's dtype and shape."""
    return like.const_like(0)


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

"""Strides, as movement ops: every k-th element, and sliding windows. UOps only."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from tinycore.errors import ShapeError
from tinycore.ir import Shape, UOp, ops
from tinycore_frontend_tensor import graph

Spec = tuple[int, int, int]
"""Window size, stride, dilation."""


Padding = tuple[tuple[int, int], ...]
"""Elements before and after each axis."""


@dataclass(frozen=True, slots=True)
class Slide:
    """What a value is that `windows` made: sliding windows over a source, which was padded by zeros before."""

    source: UOp
    specs: tuple[Spec, ...]
    padding: Padding


_slides: weakref.WeakKeyDictionary[UOp, Slide] = weakref.WeakKeyDictionary()
"""A node always stands for the same value, so what it is may be remembered."""


def slide_of(node: UOp) -> Slide | None:
    """The windows that a node is, where they overlap: their gradient is simpler than that of their parts."""
    return _slides.get(node)


def every(node: UOp, axis: int, step: int) -> UOp:
    """Elements 0, step, 2*step, ... of an axis."""
    if step == 1:
        return node
    shape = node.shape
    size = fixed(shape[axis])
    count = -(-size // step)
    box = [(0, 0)] * len(shape)
    box[axis] = (0, count * step - size)
    node = graph.reshape(graph.pad(node, box), (*shape[:axis], count, step, *shape[axis + 1 :]))
    limits = [(0, s) for s in node.shape]
    limits[axis + 1] = (0, 1)
    return graph.reshape(graph.shrink(node, limits), (*shape[:axis], count, *shape[axis + 1 :]))


def spread(node: UOp, axis: int, step: int) -> UOp:
    """The elements of an axis with step-1 zeros between neighbours."""
    size = fixed(node.shape[axis])
    if step == 1 or size == 0:
        return node
    shape = node.shape
    node = graph.reshape(node, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    padding = [(0, 0)] * len(node.shape)
    padding[axis + 1] = (0, step - 1)
    node = graph.reshape(graph.pad(node, padding), (*shape[:axis], size * step, *shape[axis + 1 :]))
    limits = [(0, s) for s in node.shape]
    limits[axis] = (0, (size - 1) * step + 1)
    return graph.shrink(node, limits)


def windows(node: UOp, specs: Sequence[Spec]) -> UOp:
    """Sliding windows over the last axes: ``(..., d1, d2)`` becomes ``(..., o1, o2, k1, k2)``.

    Each spec is (window size, stride, dilation); windows that do not fit are left out.
    """
    specs = tuple(specs)
    steps, overlap = _window_steps(node.shape, specs)
    result = graph.follow(node, steps)
    if overlap:
        _slides[result] = _slide(node, specs)
    return result


@functools.lru_cache(maxsize=1024)
def _window_steps(shape: Shape, specs: tuple[Spec, ...]) -> tuple[graph.Steps, bool]:
    """How windows are made, and whether they are more than a cut into pieces."""
    overlap = any(size > 1 and (size != stride or dilation != 1) for size, stride, dilation in specs)
    return graph.steps_of(shape, lambda node: _walk(node, specs)), overlap


def _walk(node: UOp, specs: tuple[Spec, ...]) -> UOp:
    """Windows by movement ops.

    Nothing is copied: an axis of i elements is repeated, cut into k rows of i + dilation elements, and so
    row j starts j * dilation elements later.
    """
    first = len(node.shape) - len(specs)
    for place, (size, stride, dilation) in enumerate(specs):
        axis = first + 2 * place
        before, length, after = node.shape[:axis], fixed(node.shape[axis]), node.shape[axis + 1 :]
        count = (length - dilation * (size - 1) - 1) // stride + 1
        if size == 1:
            node = _cut(node, axis, (count - 1) * stride + 1)
            node = graph.reshape(every(node, axis, stride), (*before, 1, count, *after))
            continue
        if size == stride and dilation == 1:
            node = graph.reshape(_cut(node, axis, count * size), (*before, count, size, *after))
            node = graph.permute(node, graph.swap(len(node.shape), axis, axis + 1))
            continue
        turns = max(1, -(-(count * stride - dilation) // length))
        row = turns * length + dilation
        repeats = -(-size * row // length)
        node = graph.reshape(node, (*before, 1, length, *after))
        node = graph.expand(node, (*before, repeats, length, *after))
        node = _cut(graph.reshape(node, (*before, repeats * length, *after)), axis, size * row)
        node = graph.reshape(node, (*before, size, row, *after))
        node = _cut(node, axis + 1, min(row, count * stride))
        node = every(node, axis + 1, stride)
    rank = len(node.shape)
    return graph.permute(node, [*range(first), *range(first + 1, rank, 2), *range(first, rank, 2)])


def _slide(source: UOp, specs: tuple[Spec, ...]) -> Slide:
    """Zeros around the source get no cotangent, so that the gradient leaves them out."""
    padding = _zeros_around(source.arg, len(specs)) if source.op is ops.PAD else None
    if padding is not None:
        return Slide(source.src[0], specs, padding)
    return Slide(source, specs, ((0, 0),) * len(specs))


@functools.lru_cache(maxsize=1024)
def _zeros_around(padding: tuple[tuple[int | UOp, int | UOp], ...], count: int) -> Padding | None:
    """The padding of the last axes, if there is no other and its amounts are known."""
    others, last = padding[:-count], padding[-count:]
    known = tuple([(a, b) for a, b in last if isinstance(a, int) and isinstance(b, int)])
    return known if len(known) == count and all(pair == (0, 0) for pair in others) else None


def moved(node: UOp, axis: int, before: int, length: int) -> UOp:
    """An axis with so many zeros before it (or elements less), and of that length in the end."""
    size = fixed(node.shape[axis])
    padding, limits = [(0, 0)] * len(node.shape), [(0, extent) for extent in node.shape]
    start = max(0, -before)
    stop = min(size, start + length - max(0, before))
    limits[axis] = (start, stop)
    padding[axis] = (max(0, before), length - max(0, before) - (stop - start))
    return graph.pad(graph.shrink(node, limits), padding)


def _cut(node: UOp, axis: int, stop: int) -> UOp:
    limits: list[tuple[int | UOp, int | UOp]] = [(0, size) for size in node.shape]
    limits[axis] = (0, stop)
    return graph.shrink(node, limits)


def fixed(size: int | UOp) -> int:
    """A size that is a number. Raises ShapeError for a symbolic one."""
    if isinstance(size, UOp):
        raise ShapeError(
            f"an axis of symbolic size {graph.text((size,))[1:-2]} cannot be walked in strides",
            hint="strided slices, windows and convolutions need a fixed size",
        )
    return size

"""What is between square brackets, taken apart into movement and index tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import UOp, dims, dtypes
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.conversion import Conversion
from tinycore_frontend_tensor.core import TensorCore
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.strided import every, spread
from tinycore_frontend_tensor.symbolic import Bindings, Dimension, evaluate, merge, sizes


class OutOfRange(ShapeError, IndexError):
    """An integer index outside its axis."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An index, taken apart: a box of every axis, reversals, strides, then dropped and new axes.

    Attributes
    ----------
    limits: the box of every axis of the tensor.
    flipped: axes whose order is reversed.
    steps: (axis, step) of the strides above 1.
    shape: the result of the basic part: one entry an axis of the tensor that stays, 1 for None.
    tensors: integer index tensors by their axis in that shape.
    bindings: of the symbolic bounds.
    """

    limits: tuple[tuple[Any, Any], ...]
    flipped: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    shape: tuple[Any, ...]
    tensors: tuple[tuple[int, Any], ...]
    bindings: Bindings


def plan_of(owner: Any, key: Any) -> Plan:
    """Takes an index apart. Raises IndexError, DTypeError or ShapeError for one that does not fit."""
    items = _expand_masks(owner, list(key) if isinstance(key, tuple) else [key])
    consumed = sum(item is not None and item is not Ellipsis for item in items)
    if sum(item is Ellipsis for item in items) > 1:
        raise ShapeError("an index can have only one Ellipsis")
    if consumed > owner.ndim:
        raise OutOfRange(f"{consumed} indices for a tensor of shape {graph.text(owner.shape)}")
    fill = [slice(None)] * (owner.ndim - consumed)
    where = next((k for k, item in enumerate(items) if item is Ellipsis), None)
    items = [*items, *fill] if where is None else [*items[:where], *fill, *items[where + 1 :]]
    builder = _PlanBuilder(owner)
    for item in items:
        builder.add(item)
    return builder.finish()


class _PlanBuilder:
    """Collects the items of an index, one axis at a time."""

    def __init__(self, tensor: Conversion) -> None:
        self.tensor = tensor
        self.axis = 0
        self.limits: list[tuple[Any, Any]] = []
        self.flipped: list[int] = []
        self.steps: list[tuple[int, int]] = []
        self.shape: list[Any] = []
        self.tensors: list[tuple[int, Any]] = []
        self.bindings: list[Bindings] = [tensor.bindings]

    def add(self, item: Any) -> None:
        if item is None:
            self.shape.append(1)
            return
        size = self.tensor.uop.shape[self.axis]
        if isinstance(item, slice):
            self._slice(item, size)
        elif isinstance(item, TensorCore) and (item.ndim or not item.uop.is_const):
            self.limits.append((0, size))
            self.tensors.append((len(self.shape), item))
            self.shape.append(size)
        else:
            self._integer(item, size)
        self.axis += 1

    def _integer(self, item: Any, size: Any) -> None:
        if isinstance(item, Dimension):
            (start,), bindings = sizes((item,))
            self.bindings.append(bindings)
            self.limits.append((start, dims.add(start, 1)))
            return
        try:
            index = item.__index__()
        except (AttributeError, TypeError):
            raise DTypeError(
                f"{type(item).__name__} is no index",
                hint="use ints, slices, None, Ellipsis, integer or bool tensors",
            ) from None
        length = evaluate(size, self.tensor.bindings)
        if not -length <= index < length:
            raise OutOfRange(
                f"index {index} is outside axis {self.axis} of shape {graph.text(self.tensor.shape)}",
                hint=f"it must be within {-length}..{length - 1}",
            )
        if index < 0:
            start = dims.add(size, index)
        else:
            start = index
        self.limits.append((start, dims.add(start, 1)))

    def _slice(self, item: slice, size: Any) -> None:
        if any(isinstance(bound, Dimension) for bound in (item.start, item.stop)) or isinstance(size, UOp):
            return self._symbolic_slice(item, size)
        start, stop, step = item.indices(size)
        count = len(range(start, stop, step))
        if step < 0:
            start, stop = start + (count - 1) * step, start + 1
            self.flipped.append(self.axis)
        else:
            stop = start + (count - 1) * step + 1
        self.limits.append((start, stop) if count else (0, 0))
        if abs(step) > 1 and count:
            self.steps.append((self.axis, abs(step)))
        self.shape.append(count)
        return None

    def _symbolic_slice(self, item: slice, size: Any) -> None:
        if item.step not in (None, 1):
            raise ShapeError("a slice with symbolic bounds cannot have a step")
        start = 0 if item.start is None else item.start
        stop = item.stop
        (low,), first = sizes((start,))
        (high,), second = sizes((stop,)) if stop is not None else ((size,), first)
        low, high = (dims.add(size, b) if isinstance(b, int) and b < 0 else b for b in (low, high))
        self.bindings += [first, second]
        everything = merge(self.bindings)
        if not 0 <= evaluate(low, everything) <= evaluate(high, everything) <= evaluate(size, everything):
            raise OutOfRange(
                f"slice {start}:{stop} is outside axis {self.axis} of shape {graph.text(self.tensor.shape)}"
            )
        self.limits.append((low, high))
        self.shape.append(dims.subtract(high, low))

    def finish(self) -> Plan:
        return Plan(
            tuple(self.limits),
            tuple(self.flipped),
            tuple(self.steps),
            tuple(self.shape),
            tuple(self.tensors),
            merge(self.bindings),
        )


def view(node: UOp, plan: Plan) -> UOp:
    """The basic part of an index, as movement ops."""
    node = graph.flip(graph.shrink(node, plan.limits), plan.flipped)
    for axis, step in plan.steps:
        node = every(node, axis, step)
    return graph.reshape(node, plan.shape)


def unview(node: UOp, plan: Plan, value: UOp) -> tuple[UOp, UOp]:
    """A value of the view's shape put back into the tensor's shape, and the mask of where it was put."""
    counts = [dims.subtract(stop, start) for start, stop in plan.limits]
    for axis, step in plan.steps:
        counts[axis] = (counts[axis] - 1) // step + 1
    placed: list[UOp] = []
    for part in (graph.constant(dtypes.bool_, True, value.shape), value):
        part = graph.reshape(part, tuple(counts))
        for axis, step in plan.steps:
            part = spread(part, axis, step)
        part = graph.flip(part, plan.flipped)
        box = [
            (start, dims.subtract(size, stop))
            for (start, stop), size in zip(plan.limits, node.shape, strict=True)
        ]
        placed.append(graph.pad(part, box))
    return placed[0], placed[1]


def _expand_masks(owner: Any, items: list[Any]) -> list[Any]:
    """Bool masks become integer indices (the host counts them); lists and arrays become tensors."""
    result: list[Any] = []
    for item in items:
        if isinstance(item, (list, np.ndarray)) or (isinstance(item, tuple) and item):
            item = type(owner)(np.asarray(item), device=owner._device)
        if isinstance(item, bool) or (isinstance(item, TensorCore) and item.dtype.is_float):
            raise DTypeError(
                "a bool or float is no index", hint="masks are bool tensors, indices integer tensors"
            )
        if isinstance(item, TensorCore) and item.dtype.kind == "bool":
            position = sum(
                k.ndim if isinstance(k, TensorCore) and k.dtype.kind == "bool" else k is not None
                for k in result
            )
            expected = owner.uop.shape[position : position + item.ndim]
            if Ellipsis not in result and item.uop.shape != expected:
                raise ShapeError(
                    f"a mask of shape {graph.text(item.shape)} for axes of shape {graph.text(expected)}"
                )
            found = np.nonzero(item.numpy())  # type: ignore[attr-defined]
            result.extend(type(owner)(places.astype(np.int64), device=owner._device) for places in found)
        else:
            result.append(item)
    return result

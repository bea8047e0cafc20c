"""Indexing: slices are movement, integer tensors are GATHER on linearised indices, writes are ASSIGN.

An index outside the tensor is an IndexError where it is a Python int; inside an index tensor it reads 0 and writes
nothing, because its value is not known when the graph is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tinycore.errors import DTypeError, ShapeError, TinycoreError
from tinycore.ir import Op, UOp, dims, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.core import TensorCore
from tinycore_frontend_tensor.reduction import Reduction
from tinycore_frontend_tensor.strided import every
from tinycore_frontend_tensor.symbolic import Bindings, Dimension, evaluate, merge, sizes


class OutOfRange(ShapeError, IndexError):
    """An integer index outside its axis."""


@dataclass(frozen=True, slots=True)
class _Plan:
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


class Indexing(Reduction):
    """The methods of `Tensor` that select elements."""

    __slots__ = ()

    # --- square brackets ----------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Self:
        """Numpy's indexing: ints, slices with steps, None, Ellipsis, integer tensors, bool masks.

        A bool mask is counted on the host, so it cannot be used while a `jit` function is captured.
        Raises IndexError for an int outside its axis.
        """
        plan = self._plan(key)
        basic = self._move(_view(self.uop, plan), plan.bindings)
        return basic._take(plan.tensors) if plan.tensors else basic

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write in place. A stored tensor keeps its storage; a lazy one becomes another value.

        Keys are those of reading; where index tensors repeat a place, the last value stays.
        """
        mask = key[0] if isinstance(key, tuple) and len(key) == 1 else key
        if isinstance(mask, TensorCore) and mask.dtype.kind == "bool":
            return self._write_masked(mask, value)
        plan = self._plan(key)
        source = self._operand(value, "setitem")
        if plan.tensors:
            return self._write_scattered(plan, source)
        view = _view(self.uop, plan)
        _check_fits(view.shape, source)
        source = self._move(source.uop, source.bindings)._with(source)
        if plan.steps:  # a stride needs padding, which is no view: write the whole instead
            chosen, placed = _unview(self.uop, plan, graph.broadcast(source.uop.cast(self.dtype), view.shape))
            whole = source._derive(chosen.where(placed, self.uop), self)
            self._write(self.uop, whole)
        else:
            self._write(view, source)
        self.bindings = merge((self.bindings, plan.bindings))
        return None

    def _with(self, other: TensorCore) -> Self:
        self.requires_grad, self._device = other.requires_grad, other._device
        self.bindings = merge((self.bindings, other.bindings))
        return self

    def _write_masked(self, mask: Any, value: Any) -> None:
        if mask.ndim > self.ndim or mask.uop.shape != self.uop.shape[: mask.ndim]:
            raise ShapeError(
                f"setitem: a mask of shape {graph.text(mask.shape)} for a tensor of shape "
                f"{graph.text(self.shape)}",
                hint="the mask must have the shape of the leading axes",
            )
        source = self._operand(value, "setitem")
        spread = mask.reshape(*mask.shape, *(1,) * (self.ndim - mask.ndim))
        try:
            whole = spread.where(source.cast(self.dtype).expand(self.shape), self)
        except ShapeError:
            raise ShapeError(
                f"setitem: a value of shape {graph.text(source.shape)} for masked elements",
                hint="it must broadcast to the whole tensor: use x[mask] = number, or mask.where(a, b)",
            ) from None
        self._write(self.uop, whole)

    def _write_scattered(self, plan: _Plan, source: Self) -> None:
        """``x[..., indices, ...] = value`` as SCATTER of numbered places into the flat tensor."""
        number = type(self).of_node(
            graph.reshape(graph.arange(graph.size_of(self.uop.shape)), self.uop.shape), self.bindings
        )
        # 1 is added so that an index outside (which reads 0) becomes -1, where SCATTER drops it.
        shifted = number + 1
        places = shifted._move(_view(shifted.uop, plan), plan.bindings)._take(plan.tensors) - 1
        _check_fits(places.uop.shape, source)
        updates = graph.broadcast(source.uop.cast(self.dtype), places.uop.shape)
        flat = graph.reshape(self.uop, (graph.size_of(self.uop.shape),))
        node = graph.scatter(
            flat,
            graph.reshape(places.uop, (graph.size_of(places.uop.shape),)),
            graph.reshape(updates, (graph.size_of(places.uop.shape),)),
            0,
            None,
        )
        self._write(self.uop, self._derive(graph.reshape(node, self.uop.shape), source, places))

    def _plan(self, key: Any) -> _Plan:
        items = _expand_masks(self, list(key) if isinstance(key, tuple) else [key])
        consumed = sum(item is not None and item is not Ellipsis for item in items)
        if sum(item is Ellipsis for item in items) > 1:
            raise ShapeError("an index can have only one Ellipsis")
        if consumed > self.ndim:
            raise OutOfRange(f"{consumed} indices for a tensor of shape {graph.text(self.shape)}")
        fill = [slice(None)] * (self.ndim - consumed)
        where = next((k for k, item in enumerate(items) if item is Ellipsis), None)
        items = [*items, *fill] if where is None else [*items[:where], *fill, *items[where + 1 :]]
        builder = _PlanBuilder(self)
        for item in items:
            builder.add(item)
        return builder.finish()

    def _take(self, tensors: tuple[tuple[int, Any], ...]) -> Self:
        """Advanced indexing: the indexed axes are merged, and gathered at linearised indices."""
        axes = [axis for axis, _ in tensors]
        shape = self.uop.shape
        common = graph.broadcast_shape(*[index.uop.shape for _, index in tensors], what="index tensors")
        together = axes == list(range(axes[0], axes[0] + len(axes)))
        place = axes[0] if together else 0
        others = [axis for axis in range(self.ndim) if axis not in axes]
        order = [*others[:place], *axes, *others[place:]]
        moved = graph.permute(self.uop, order)
        merged = graph.size_of([shape[axis] for axis in axes])  # type: ignore[arg-type]
        rest = [shape[axis] for axis in others]
        flat = graph.reshape(moved, (*rest[:place], merged, *rest[place:]))
        linear = self._linear_index(tensors, common)
        result = graph.gather(flat, linear.uop, place)
        return self._derive(result, linear)

    def _linear_index(self, tensors: tuple[tuple[int, Any], ...], common: tuple[Any, ...]) -> Any:
        """One index into the merged axes; -1 where any of them is outside."""
        linear: Any = None
        valid: Any = None
        for axis, index in tensors:
            size = Dimension(dim, self.bindings) if isinstance(dim := self.uop.shape[axis], UOp) else dim
            index = index.cast(dtypes.int64)
            wrapped = (index < 0).where(index + size, index)
            if len(tensors) == 1:
                return wrapped
            inside = (wrapped >= 0) & (wrapped < size)
            valid = inside if valid is None else valid & inside
            linear = wrapped if linear is None else linear * size + wrapped
        return valid.where(linear, -1)

    # --- by the names of PyTorch --------------------------------------------------------------------------

    def index_select(self, dim: int, index: Any) -> Self:
        """Slices of an axis at integer indices."""
        axis = self._axis(dim, "index_select")
        return self._take(((axis, _index_tensor(self, index)),))

    def gather(self, dim: int, index: Any) -> Self:
        """``out[i][j] = x[index[i][j]][j]`` for dim 0: an element for every element of `index`."""
        places, flat = self._along("gather", dim, index)
        return self._derive(graph.gather(flat, places.uop, 0), places)

    take_along_dim = gather

    def scatter(self, dim: int, index: Any, source: Any) -> Self:
        """A copy with ``out[index[i][j]][j] = source[i][j]`` for dim 0; the last of equal places stays."""
        return self._scattered(dim, index, source, None)

    def scatter_add(self, dim: int, index: Any, source: Any) -> Self:
        """A copy with the source added at the places of `index`; sums are in order, so always the same."""
        return self._scattered(dim, index, source, ops.ADD)

    def scatter_reduce(self, dim: int, index: Any, source: Any, reduce: str) -> Self:
        """`scatter_add` with another combination: sum, prod, amax or amin."""
        found = {"sum": ops.ADD, "prod": ops.MUL, "amax": ops.MAX, "amin": ops.MIN}
        if reduce not in found:
            raise TinycoreError(f"scatter_reduce: {reduce!r} is not known", hint=f"one of {', '.join(found)}")
        return self._scattered(dim, index, source, found[reduce])

    def _along(self, what: str, dim: int, index: Any) -> tuple[Any, UOp]:
        """The places of `index` along an axis in the flat tensor, and the flat tensor."""
        axis = self._axis(dim, what)
        index = _index_tensor(self, index)
        if index.ndim != self.ndim or any(
            k != axis and isinstance(a, int) and isinstance(b, int) and a > b
            for k, (a, b) in enumerate(zip(index.uop.shape, self.uop.shape, strict=True))
        ):
            raise ShapeError(
                f"{what}: an index of shape {graph.text(index.shape)} for a tensor of shape "
                f"{graph.text(self.shape)}",
                hint="equal ranks, and no size greater outside the axis",
            )
        size = self.shape[axis]
        index = index.cast(dtypes.int64)
        index = (index < 0).where(index + size, index)
        strides = dims.strides(self.uop.shape)
        linear: Any = None
        for k, stride in enumerate(strides):
            step = (
                index
                if k == axis
                else type(self).arange_of(index.shape[k]).reshape(index._axis_shape(k, index.shape[k]))
            )
            part = step * (Dimension(stride, self.bindings) if isinstance(stride, UOp) else stride)
            linear = part if linear is None else linear + part
        linear = ((index >= 0) & (index < size)).where(linear, -1)
        return linear, graph.reshape(self.uop, (graph.size_of(self.uop.shape),))

    def _scattered(self, dim: int, index: Any, source: Any, op: Op | None) -> Self:
        places, flat = self._along("scatter", dim, index)
        values = self._operand(source, "scatter").cast(self.dtype)
        updates = values.uop
        if len(updates.shape) == places.ndim and updates.shape != places.uop.shape:
            updates = graph.shrink(updates, [(0, size) for size in places.uop.shape])
        updates = graph.broadcast(updates, places.uop.shape)
        count = (graph.size_of(places.uop.shape),)
        node = graph.scatter(flat, graph.reshape(places.uop, count), graph.reshape(updates, count), 0, op)
        return self._derive(graph.reshape(node, self.uop.shape), places, values)

    def masked_select(self, mask: Any) -> Self:
        """The elements where the mask holds, in one axis; counted on the host."""
        return self.expand(graph.broadcast_shape(self.uop.shape, mask.uop.shape))[mask.expand(self.shape)]

    def nonzero(self) -> Self:
        """The indices of the elements that are not zero, one row each; counted on the host."""
        return type(self)(np.argwhere(self.numpy()).astype(np.int64), device=self._device)

    # --- order --------------------------------------------------------------------------------------------

    def argsort(self, dim: int = -1, descending: bool = False) -> Self:
        """The indices that sort an axis; equal elements keep their order, NaN counts as the greatest.

        Every pair of elements is compared, so this is for axes of some thousands at most.
        """
        axis = self._axis(dim, "argsort")
        x = self.detach()
        last = x.transpose(axis, -1) if axis != self.ndim - 1 else x
        size = last.shape[-1]
        mine, other = last.unsqueeze(-1), last.unsqueeze(-2)
        less = other > mine if descending else other < mine
        if self.dtype.is_float:
            nan_mine, nan_other = mine.isnan(), other.isnan()
            less = (
                (nan_other & ~nan_mine) | (less & ~nan_mine)
                if descending
                else (less | (nan_mine & ~nan_other))
            )
            equal = (other == mine) | (nan_mine & nan_other)
        else:
            equal = other == mine
        index = type(self).arange_of(size, dtypes.int64)
        earlier = index.unsqueeze(0) < index.unsqueeze(1)
        rank = (less | (equal & earlier)).sum(-1)
        order = (rank * 0).scatter(-1, rank, index.expand(rank.shape))
        result = order.transpose(axis, -1) if axis != self.ndim - 1 else order
        return self._derive(result.uop, differentiable=False)

    def sort(self, dim: int = -1, descending: bool = False) -> tuple[Self, Self]:
        """The elements of an axis in order, and their indices; see `argsort`."""
        order = self.argsort(dim, descending)
        return self.gather(dim, order), order

    def topk(self, k: int, dim: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The k greatest (or least) elements of an axis in order, and their indices."""
        axis = self._axis(dim, "topk")
        if not 0 <= k <= int(self.shape[axis]):
            raise ShapeError(f"topk: {k} of an axis of size {self.shape[axis]}")
        order = self.argsort(dim, descending=largest).narrow(axis, 0, k)
        return self.gather(dim, order), order


class _PlanBuilder:
    """Collects the items of an index, one axis at a time."""

    def __init__(self, tensor: Indexing) -> None:
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

    def finish(self) -> _Plan:
        return _Plan(
            tuple(self.limits),
            tuple(self.flipped),
            tuple(self.steps),
            tuple(self.shape),
            tuple(self.tensors),
            merge(self.bindings),
        )


def _view(node: UOp, plan: _Plan) -> UOp:
    """The basic part of an index, as movement ops."""
    node = graph.flip(graph.shrink(node, plan.limits), plan.flipped)
    for axis, step in plan.steps:
        node = every(node, axis, step)
    return graph.reshape(node, plan.shape)


def _unview(node: UOp, plan: _Plan, value: UOp) -> tuple[UOp, UOp]:
    """A value of the view's shape put back into the tensor's shape, and the mask of where it was put."""
    from tinycore_frontend_tensor.strided import spread

    counts = [dims.subtract(stop, start) for start, stop in plan.limits]
    for axis, step in plan.steps:
        counts[axis] = (counts[axis] - 1) // step + 1  # type: ignore[operator]
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


def _check_fits(shape: tuple[Any, ...], source: TensorCore) -> None:
    try:
        fits = graph.broadcast_shape(shape, source.uop.shape) == shape
    except ShapeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"setitem: a value of shape {graph.text(source.shape)} does not fit the selected "
            f"shape {graph.text(shape)}"
        )


def _index_tensor(owner: Indexing, index: Any) -> Any:
    tensor = index if isinstance(index, TensorCore) else type(owner)(np.asarray(index), device=owner._device)
    if not tensor.dtype.is_int:
        raise DTypeError(f"an index tensor must hold integers, got {tensor.dtype.name}", hint="x.long()")
    return tensor


def _expand_masks(owner: Indexing, items: list[Any]) -> list[Any]:
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

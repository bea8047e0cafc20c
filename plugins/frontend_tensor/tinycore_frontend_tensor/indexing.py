"""Indexing: slices are movement, integer tensors are GATHER on linearised indices, writes are ASSIGN.

An index outside the tensor is an IndexError where it is a Python int; inside an index tensor it reads 0 and
writes nothing, because its value is not known when the graph is built.
"""

from __future__ import annotations

from typing import Any, Self

from tinycore.errors import DTypeError, ShapeError, TinycoreError
from tinycore.ir import Op, UOp, dims, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.core import TensorCore
from tinycore_frontend_tensor.index_plan import Plan, plan_of, unview, view
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.reduction import Reduction
from tinycore_frontend_tensor.symbolic import Dimension, merge


class Indexing(Reduction):
    """The methods of `Tensor` that select elements."""

    __slots__ = ()

    # --- square brackets ----------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Self:
        """Numpy's indexing: ints, slices with steps, None, Ellipsis, integer tensors, bool masks.

        A bool mask is counted on the host, so it cannot be used while a `jit` function is captured.
        Raises IndexError for an int outside its axis.
        """
        plan = plan_of(self, key)
        basic = self._move(view(self.uop, plan), plan.bindings)
        return basic._take(plan.tensors) if plan.tensors else basic

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write in place. A stored tensor keeps its storage; a lazy one becomes another value.

        Keys are those of reading; where index tensors repeat a place, the last value stays.
        """
        mask = key[0] if isinstance(key, tuple) and len(key) == 1 else key
        if isinstance(mask, TensorCore) and mask.dtype.kind == "bool":
            return self._write_masked(mask, value)
        plan = plan_of(self, key)
        source = self._operand(value, "setitem")
        if plan.tensors:
            return self._write_scattered(plan, source)
        target = view(self.uop, plan)
        _check_fits(target.shape, source)
        source = self._move(source.uop, source.bindings)._with(source)
        if plan.steps:  # a stride needs padding, which is no view: write the whole instead
            chosen, placed = unview(
                self.uop, plan, graph.broadcast(source.uop.cast(self.dtype), target.shape)
            )
            whole = source._derive(chosen.where(placed, self.uop), self)
            self._write(self.uop, whole)
        else:
            self._write(target, source)
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

    def _write_scattered(self, plan: Plan, source: Self) -> None:
        """``x[..., indices, ...] = value`` as SCATTER of numbered places into the flat tensor."""
        number = type(self).of_node(
            graph.reshape(graph.arange(graph.size_of(self.uop.shape)), self.uop.shape), self.bindings
        )
        # 1 is added so that an index outside (which reads 0) becomes -1, where SCATTER drops it.
        shifted = number + 1
        places = shifted._move(view(shifted.uop, plan), plan.bindings)._take(plan.tensors) - 1
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

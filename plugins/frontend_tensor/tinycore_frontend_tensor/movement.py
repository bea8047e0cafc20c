"""Movement: other shapes of the same elements. Nothing here computes or copies."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import Dim, Shape, UOp, dims, dtypes
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.conversion import Conversion
from tinycore_frontend_tensor.core import Scalar, flatten_args
from tinycore_frontend_tensor.strided import windows
from tinycore_frontend_tensor.symbolic import Bindings, Dimension, Size, evaluate, merge, sizes

Kind = TypeVar("Kind", bound="Movement")


class Movement(Conversion):
    """The methods of `Tensor` that rearrange elements."""

    __slots__ = ()

    def _move(self, uop: UOp, bindings: Bindings) -> Self:
        result = self._derive(uop)
        if bindings:
            result.bindings = merge((result.bindings, bindings))
        return result

    def reshape(self, *shape: Any) -> Self:
        """The same elements in row-major order with another shape; one size may be -1.

        Raises ShapeError when the number of elements differs.
        """
        given = flatten_args(shape)
        if all(type(size) is int for size in given):
            return self._derive(graph.reshape(self.uop, _reshaped(self.uop.shape, given)))
        asked, bindings = sizes(given)
        return self._move(graph.reshape(self.uop, _reshaped(self.uop.shape, asked)), bindings)

    view = reshape

    def permute(self, *axes: Any) -> Self:
        """Axis k of the result is axis ``axes[k]``."""
        order = tuple([self._axis(axis, "permute") for axis in flatten_args(axes)])
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(
                f"permute: {flatten_args(axes)} is not an order of all axes of {graph.text(self.shape)}",
                hint=f"name each of 0..{self.ndim - 1} once",
            )
        return self._node(graph.permute(self.uop, order))

    def transpose(self, first: int = 1, second: int = 0) -> Self:
        """Exchanges two axes."""
        a, b = self._axis(first, "transpose"), self._axis(second, "transpose")
        return self._node(graph.permute(self.uop, graph.swap(self.ndim, a, b)))

    @property
    def T(self) -> Self:
        """The axes in reverse order."""
        node = self.uop
        return self._derive(graph.permute(node, range(len(node.shape) - 1, -1, -1)))

    @property
    def mT(self) -> Self:
        """The last two axes exchanged."""
        return self.transpose(-2, -1)

    def expand(self, *shape: Any) -> Self:
        """Repeats axes of size 1 (and new leading axes) without copying; -1 keeps a size."""
        given = flatten_args(shape)
        rank = len(given)
        if rank < self.ndim:
            raise ShapeError(f"expand of {graph.text(self.shape)} to {graph.text(given)}: too few sizes")
        old = (1,) * (rank - self.ndim) + self.uop.shape
        wanted, bindings = sizes([0 if isinstance(s, int) and s == -1 else s for s in given])
        target = tuple(
            [
                have if isinstance(asked, int) and asked == -1 else want
                for have, want, asked in zip(old, wanted, given, strict=True)
            ]
        )
        for have, want in zip(old, target, strict=True):
            if have != want and have != 1:
                raise ShapeError(
                    f"expand of {graph.text(self.shape)} to {graph.text(given)}: only sizes of 1 expand"
                )
        return self._move(graph.broadcast(self.uop, target), bindings)

    broadcast_to = expand

    def expand_as(self, other: Self) -> Self:
        """Expanded to another tensor's shape."""
        return self.expand(other.shape)

    def view_as(self, other: Self) -> Self:
        """Reshaped to another tensor's shape."""
        return self.reshape(other.shape)

    def shrink(self, limits: Sequence[tuple[Size, Size] | None]) -> Self:
        """The box of every axis: (start, stop), or None for the whole axis."""
        if len(limits) != self.ndim:
            raise ShapeError(
                f"shrink of {graph.text(self.shape)}: {self.ndim} pairs are needed, got {len(limits)}"
            )
        pairs: list[tuple[Dim, Dim]] = []
        found: list[Bindings] = [self.bindings]
        for size, limit in zip(self.uop.shape, limits, strict=True):
            (start, stop), bindings = sizes(limit) if limit is not None else ((0, size), self.bindings)
            found.append(bindings)
            everything = merge(found)
            if (
                not 0
                <= evaluate(start, everything)
                <= evaluate(stop, everything)
                <= evaluate(size, everything)
            ):
                raise ShapeError(f"shrink of {graph.text(self.shape)} to {list(limits)}: outside the tensor")
            pairs.append((start, stop))
        return self._move(graph.shrink(self.uop, pairs), merge(found))

    def pad(self, padding: Sequence[int] | Sequence[tuple[Size, Size]], value: Scalar = 0) -> Self:
        """Adds elements around: ``((before, after), ...)`` for every axis, or PyTorch's flat list from the
        last axis.

        Negative amounts cut. `value` fills.
        """
        pairs = self._padding_pairs(padding)
        cut = [
            (
                max(0, -before) if isinstance(before, int) else 0,
                max(0, -after) if isinstance(after, int) else 0,
            )
            for before, after in pairs
        ]
        source = self
        if any(pair != (0, 0) for pair in cut):
            source = self.shrink(
                [(before, size - after) for (before, after), size in zip(cut, self.shape, strict=True)]
            )
        amounts = [sizes([max(0, p) if isinstance(p, int) else p for p in pair]) for pair in pairs]
        bindings = merge([found for _, found in amounts])
        lists = [(shape[0], shape[1]) for shape, _ in amounts]
        padded = source._move(graph.pad(source.uop, lists), bindings)
        if padded.uop is source.uop or (value == 0 and str(value) != "-0.0"):
            return padded
        if self.dtype.kind != "float" and isinstance(value, float) and value != int(value):
            raise DTypeError(
                f"pad of a {self.dtype.name} tensor with {value}", hint="cast the tensor to a float first"
            )
        inside = graph.pad(graph.constant(dtypes.bool_, True, source.uop.shape), lists)
        fill = graph.constant(self.dtype, value, padded.uop.shape)
        return padded._move(inside.where(padded.uop, fill), bindings)

    def _padding_pairs(self, padding: Sequence[Any]) -> list[tuple[Any, Any]]:
        if padding and isinstance(padding[0], (int, Dimension)):
            if len(padding) % 2 or len(padding) > 2 * self.ndim:
                raise ShapeError(
                    f"pad: {tuple(padding)} is not two amounts for each of the last axes of "
                    f"{graph.text(self.shape)}"
                )
            pairs = [(padding[i], padding[i + 1]) for i in range(0, len(padding), 2)][::-1]
            return [(0, 0)] * (self.ndim - len(pairs)) + pairs
        if len(padding) != self.ndim:
            raise ShapeError(
                f"pad: {len(padding)} pairs for a tensor of shape {graph.text(self.shape)}",
                hint="give (before, after) for every axis",
            )
        return [(0, 0) if pair is None else (pair[0], pair[1]) for pair in padding]

    def flip(self, *axes: Any) -> Self:
        """Reverses axes."""
        return self._node(graph.flip(self.uop, self._axes(flatten_args(axes), "flip")))

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Self:
        """Without axes of size 1: all of them, or those named (which stay when their size is not 1)."""
        named = self._axes(dim, "squeeze")
        kept = [s for k, s in enumerate(self.uop.shape) if not (k in named and s == 1)]
        return self._node(graph.reshape(self.uop, tuple(kept)))

    def unsqueeze(self, dim: int) -> Self:
        """A new axis of size 1 at that place of the result."""
        place = self._axis(dim, "unsqueeze", self.ndim + 1)
        return self._node(graph.reshape(self.uop, (*self.uop.shape[:place], 1, *self.uop.shape[place:])))

    def flatten(self, start: int = 0, end: int = -1) -> Self:
        """Axes start..end merged into one."""
        if not self.ndim:
            return self.reshape(1)
        first, last = self._axis(start, "flatten"), self._axis(end, "flatten")
        shape = self.uop.shape
        merged = graph.size_of(shape[first : last + 1])
        return self._node(graph.reshape(self.uop, (*shape[:first], merged, *shape[last + 1 :])))

    def unflatten(self, dim: int, shape: Sequence[Size]) -> Self:
        """One axis split into several; one of the sizes may be -1."""
        place = self._axis(dim, "unflatten")
        if -1 in [size for size in shape if isinstance(size, int)]:
            known: Size = 1
            for size in shape:
                known = known if isinstance(size, int) and size == -1 else known * size
            rest = self.shape[place] // known
            shape = [rest if isinstance(size, int) and size == -1 else size for size in shape]
        return self.reshape(self.shape[:place] + tuple(shape) + self.shape[place + 1 :])

    def repeat(self, *counts: Any) -> Self:
        """The tensor laid out several times along each axis, as ``numpy.tile``."""
        times = flatten_args(counts)
        if len(times) < self.ndim:
            raise ShapeError(
                f"repeat: {len(times)} counts for shape {graph.text(self.shape)}",
                hint="give a count for every axis",
            )
        base = (1,) * (len(times) - self.ndim) + self.uop.shape
        split = [part for size in base for part in (1, size)]
        wide = [part for count, size in zip(times, base, strict=True) for part in (count, size)]
        final = tuple([dims.multiply(size, count) for count, size in zip(times, base, strict=True)])
        node = graph.expand(graph.reshape(self.uop, tuple(split)), tuple(wide))
        return self._node(graph.reshape(node, final))

    def repeat_interleave(self, count: int, dim: int) -> Self:
        """Each element of an axis `count` times in a row."""
        place = self._axis(dim, "repeat_interleave")
        shape = self.uop.shape
        node = graph.reshape(self.uop, (*shape[: place + 1], 1, *shape[place + 1 :]))
        node = graph.expand(node, (*shape[: place + 1], count, *shape[place + 1 :]))
        return self._node(
            graph.reshape(node, (*shape[:place], dims.multiply(shape[place], count), *shape[place + 1 :]))
        )

    def narrow(self, dim: int, start: int, length: int) -> Self:
        """`length` elements of an axis from `start` on."""
        place = self._axis(dim, "narrow")
        return self.shrink([(start, start + length) if k == place else None for k in range(self.ndim)])

    def split(self, size: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Parts of at most `size`, or of the given sizes, along an axis."""
        place = self._axis(dim, "split")
        length = int(self.shape[place])
        if isinstance(size, int):
            if size <= 0:
                raise ShapeError(f"split: part size {size} is not positive")
            parts = [min(size, length - start) for start in range(0, length, size)] or [0]
        else:
            parts = list(size)
        if sum(parts) != length:
            raise ShapeError(f"split: parts {parts} do not add up to the size {length} of axis {dim}")
        starts = [sum(parts[:k]) for k in range(len(parts))]
        return tuple([self.narrow(place, start, part) for start, part in zip(starts, parts, strict=True)])

    def chunk(self, count: int, dim: int = 0) -> tuple[Self, ...]:
        """At most `count` parts of equal size (the last one may be smaller) along an axis."""
        length = int(self.shape[self._axis(dim, "chunk")])
        return self.split(max(1, -(-length // count)), dim)

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """The slices along an axis, without the axis."""
        return tuple([part.squeeze(dim) for part in self.split(1, dim)])

    @staticmethod
    def cat(tensors: Sequence[Kind], dim: int = 0) -> Kind:
        """Tensors one after the other along an axis, in their common dtype.

        Raises ShapeError when the other sizes differ.
        """
        return concatenate(tensors, dim)

    @staticmethod
    def stack(tensors: Sequence[Kind], dim: int = 0) -> Kind:
        """Tensors of equal shapes along a new axis."""
        if not tensors:
            raise ShapeError("stack: no tensors given")
        shapes = {tensor.uop.shape for tensor in tensors}
        if len(shapes) > 1:
            raise ShapeError(f"stack: shapes {' and '.join(graph.text(t.shape) for t in tensors)} differ")
        place = tensors[0]._axis(dim, "stack", tensors[0].ndim + 1)
        return concatenate([tensor.unsqueeze(place) for tensor in tensors], place)

    def roll(self, shift: int, dim: int | None = None) -> Self:
        """Elements moved along an axis, those that leave come in at the other end."""
        if dim is None:
            return self.flatten().roll(shift, 0).reshape(self.shape)
        place = self._axis(dim, "roll")
        length = int(self.shape[place])
        if not length or not shift % length:
            return self
        cut = length - shift % length
        return concatenate([self.narrow(place, cut, length - cut), self.narrow(place, 0, cut)], place)

    def unfold(self, dim: int, size: int, step: int = 1) -> Self:
        """All windows of `size` along an axis, every `step`; the windows are a new last axis."""
        place = self._axis(dim, "unfold")
        length = int(self.shape[place])
        if not 0 < size <= length or step < 1:
            raise ShapeError(f"unfold: windows of {size} every {step} do not fit axis {dim} of size {length}")
        moved = graph.permute(self.uop, [k for k in range(self.ndim) if k != place] + [place])
        node = windows(moved, ((size, step, 1),))  # (the other axes..., windows, size)
        order = list(range(self.ndim - 1))
        order.insert(place, self.ndim - 1)
        return self._node(graph.permute(node, [*order, self.ndim]))


def concatenate(tensors: Sequence[Kind], dim: int = 0) -> Kind:
    """`Tensor.cat`. Each part is padded to the whole and chosen by a mask, so every bit survives."""
    if not tensors:
        raise ShapeError("cat: no tensors given")
    first = tensors[0]
    place = first._axis(dim, "cat")
    dtype = dtypes.promote(*[tensor.dtype for tensor in tensors])
    for tensor in tensors[1:]:
        if tensor.ndim != first.ndim or any(
            a != b
            for k, (a, b) in enumerate(zip(tensor.uop.shape, first.uop.shape, strict=True))
            if k != place
        ):
            raise ShapeError(
                f"cat: shapes {graph.text(first.shape)} and {graph.text(tensor.shape)} differ "
                f"outside axis {dim}"
            )
    starts: list[Dim] = [0]
    for tensor in tensors:
        starts.append(dims.add(starts[-1], tensor.uop.shape[place]))
    result = None
    for tensor, start in zip(reversed(tensors), reversed(starts[:-1]), strict=True):
        rest = dims.subtract(starts[-1], dims.add(start, tensor.uop.shape[place]))
        padding = [(start, rest) if k == place else (0, 0) for k in range(first.ndim)]
        part = graph.pad(tensor.uop.cast(dtype), padding)
        if result is None:
            result = part
        else:
            inside = graph.pad(graph.constant(dtypes.bool_, True, tensor.uop.shape), padding)
            result = inside.where(part, result)
    assert result is not None
    return first._derive(result, *tensors[1:])


@functools.lru_cache(maxsize=4096)
def _reshaped(have: Shape, asked: Shape) -> Shape:
    """The shape that is asked for, with -1 resolved. Raises ShapeError when the number of elements differs."""
    what = f"reshape of {graph.text(have)} to {graph.text(asked)}"
    count = graph.size_of(have)
    hint = f"the new shape must hold {graph.text((count,))[1:-2]} elements"
    unknown = [axis for axis, size in enumerate(asked) if isinstance(size, int) and size == -1]
    if len(unknown) > 1:
        raise ShapeError(f"reshape to {graph.text(asked)}: only one size can be -1")
    known = tuple([1 if axis in unknown else size for axis, size in enumerate(asked)])
    if any(isinstance(size, int) and size < 0 for size in known):
        raise ShapeError(f"{what}: negative size", hint=hint)
    if unknown:
        try:
            missing = dims.divide(count, graph.size_of(known))
        except ShapeError:
            raise ShapeError(f"{what}: sizes do not divide", hint=hint) from None
        return (*known[: unknown[0]], missing, *known[unknown[0] + 1 :])
    if graph.size_of(known) != count:
        raise ShapeError(f"{what}: the number of elements differs", hint=hint)
    return known

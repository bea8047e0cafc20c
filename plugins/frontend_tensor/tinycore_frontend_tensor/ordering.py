"""Order along axes: sorting, the greatest few, running extremes."""

from __future__ import annotations

from typing import Self

from tinycore.errors import ShapeError
from tinycore.ir import dtypes, ops
from tinycore.ir.monoids import identity
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.indexing import Indexing

FEW, FEW_OF = 32, 8
"""So many elements at most, each of so many at least, are rather found one by one than by sorting all."""


class Ordering(Indexing):
    """The methods of `Tensor` that compare elements of an axis with each other."""

    __slots__ = ()

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
        # Pairs of more elements than 32 bits count would not fit into memory, nor end.
        place = type(self).arange_of(size, dtypes.int32)
        before = less | (equal & (place.unsqueeze(0) < place.unsqueeze(1)))
        rank = self._derive(graph.reduce(before.uop.cast(dtypes.int32), ops.ADD, (before.ndim - 1,)))
        index = type(self).arange_of(size, dtypes.int64)
        order = (rank * 0).cast(dtypes.int64).scatter(-1, rank.cast(dtypes.int64), index.expand(rank.shape))
        result = order.transpose(axis, -1) if axis != self.ndim - 1 else order
        return self._derive(result.uop, differentiable=False)

    def sort(self, dim: int = -1, descending: bool = False) -> tuple[Self, Self]:
        """The elements of an axis in order, and their indices; see `argsort`."""
        order = self.argsort(dim, descending)
        return self.gather(dim, order), order

    def topk(self, k: int, dim: int = -1, largest: bool = True) -> tuple[Self, Self]:
        """The k greatest (or least) elements of an axis in order, and their indices; see `argsort`.

        A few of many are found one after the other, each in one pass over the axis.
        """
        axis = self._axis(dim, "topk")
        if not 0 <= k <= int(self.shape[axis]):
            raise ShapeError(f"topk: {k} of an axis of size {self.shape[axis]}")
        if 0 < k <= FEW and FEW_OF * k <= int(self.shape[axis]):
            order = self._few_greatest(k, axis, largest)
        else:
            order = self.argsort(dim, descending=largest).narrow(axis, 0, k)
        return self.gather(dim, order), order

    def _few_greatest(self, k: int, axis: int, largest: bool) -> Self:
        """The indices of the k greatest (or least) elements, by marking each that was found."""
        x, size = self.detach(), int(self.shape[axis])
        index = type(self).arange_of(size, dtypes.int32).reshape(self._axis_shape(axis, size))
        op = ops.MAX if largest else ops.MIN
        nan = x.isnan() if x.dtype.is_float else None
        taken = index < 0
        found: list[Self] = []
        for _ in range(k):
            passed = taken if largest or nan is None else taken | nan
            rest = passed.where(identity(op, x.dtype), x)
            place = ((x == rest._extremum(op, axis, True, "topk")) & ~taken).where(index, dtypes.int32.max)
            if nan is not None:  # it is the greatest: before all others, or only where there is nothing else
                place = (nan & ~taken).where(index - size if largest else index + size, place)
            place = (place.min(axis, True) % size).contiguous()
            found.append(place)
            taken = (taken | (index == place)).contiguous()
        order = type(self).cat(found, axis)
        return self._derive(order.cast(dtypes.int64).uop, differentiable=False)

    def cummax(self, dim: int = 0) -> tuple[Self, Self]:
        """The running greatest element along an axis, and its index (the last of equal ones)."""
        axis = self._axis(dim, "cummax")
        plain = self.detach()
        best = plain._node(graph.scan(plain.uop, ops.MAX, axis))
        index = type(self).arange_of(self.shape[axis]).reshape(self._axis_shape(axis, self.shape[axis]))
        hit = plain == best
        found = (hit | plain.isnan() if self.dtype.is_float else hit).where(index, 0)
        places = self._derive(graph.scan(found.uop, ops.MAX, axis), differentiable=False)
        return self.gather(axis, places), places

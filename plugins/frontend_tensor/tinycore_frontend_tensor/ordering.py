"""Order along axes: sorting, the greatest few, running extremes."""

from __future__ import annotations

from typing import Self

from tinycore.errors import ShapeError
from tinycore.ir import dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.indexing import Indexing


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

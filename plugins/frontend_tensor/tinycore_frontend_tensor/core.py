"""The foundation of `Tensor`: a lazy value (a node of the graph), where it lives, and what it depends on.

`Tensor` is one class written in layers, each a module that sees the layers below it:

    core < conversion < movement < elementwise < mathematics < creation < reduction < indexing < ordering
         < linear < random < convolution < functional < differentiation < tensor.Tensor

A tensor is a *value*: two tensors never alias, whatever is assigned in place to one of them later.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Self

from tinycore.errors import DTypeError, ShapeError, TinycoreError
from tinycore.ir import DType, UOp, dtypes, ops
from tinycore_frontend_tensor import graph, modes, provenance
from tinycore_frontend_tensor.symbolic import NO_BINDINGS, Bindings, Dimension, Size, merge

Scalar = bool | int | float
"""A Python number: weak, it takes the dtype of the tensor that it meets."""

DEFAULT_FLOAT = dtypes.float32
DEFAULT_INT = dtypes.int64

_live: dict[int, weakref.ref[TensorCore]] = {}
_writers: dict[int, weakref.ref[TensorCore]] = {}
"""Tensors whose node is, or has been, an ASSIGN that has not run."""


_new = object.__new__


class TensorCore:
    """State and bookkeeping of a tensor; see `tinycore_frontend_tensor.tensor.Tensor` for the whole."""

    __slots__ = ("__weakref__", "_device", "bindings", "grad", "is_leaf", "requires_grad", "uop")
    uop: UOp
    """The node whose value this is; a BUFFER once it is realized."""
    bindings: Bindings
    """Values of the symbolic dimensions that the node refers to."""
    requires_grad: bool
    """Whether `backward()` of something computed from it should reach it."""
    is_leaf: bool
    """Made by the user, rather than computed from a tensor that requires gradients."""
    grad: Self | None
    """What `backward()` found, for leaves that require gradients."""
    _device: str | None

    @classmethod
    def of_node(cls, uop: UOp, bindings: Bindings = NO_BINDINGS, device: str | None = None) -> Self:
        """A tensor of an existing tensor-level node."""
        self = cls.__new__(cls)
        self.uop, self.bindings, self._device = uop, bindings, device
        self.requires_grad, self.is_leaf, self.grad = False, True, None
        self._register()
        return self

    def _register(self) -> None:
        # Not a WeakSet: its look-ups compare referents with ==, which is elementwise here. A reference is told
        # before the memory, and with it the key, is used again.
        key = id(self)
        _live[key] = weakref.ref(self, partial(_live.pop, key))
        if self.uop.op is ops.ASSIGN:
            self._write_later(self.uop)

    def _write_later(self, uop: UOp) -> None:
        """Become the ASSIGN that writes this tensor's storage whenever something runs next."""
        self.uop = uop
        key = id(self)
        _writers[key] = weakref.ref(self, partial(_writers.pop, key))

    def _derive(self, uop: UOp, *others: TensorCore, differentiable: bool = True) -> Self:
        """The tensor of a node computed from this tensor and others."""
        result = _new(type(self))
        result.uop, result.grad = uop, None
        result.bindings, result._device = self.bindings, self._device
        requires_grad = self.requires_grad
        for other in others:
            if other.bindings is not result.bindings or other._device != result._device:
                result._join(other)
            requires_grad = requires_grad or other.requires_grad
        recorded = False
        if requires_grad and differentiable and uop.dtype.is_float:
            recorded = modes.gradients_recorded()
            if not recorded and uop.op is not ops.DETACH:
                result.uop = UOp(ops.DETACH, uop.dtype, (uop,))  # later gradients must not find this path
        result.requires_grad = recorded
        result.is_leaf = not recorded
        result._register()
        provenance.record(uop)
        return result

    def _join(self, other: TensorCore) -> None:
        if other.bindings is not self.bindings:
            self.bindings = merge((self.bindings, other.bindings))
        if self._device is None:
            self._device = other._device
        elif other._device is not None and other._device != self._device:
            raise TinycoreError(
                f"tensors on {self._device} and on {other._device} meet in one operation",
                hint=f"move one of them: x.to({self._device!r})",
            )

    # --- what it is ---------------------------------------------------------------------------------------

    @property
    def dtype(self) -> DType:
        """The dtype of the elements."""
        return self.uop.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes: ints, and a `Dimension` where a size is symbolic."""
        shape = self.uop.shape
        for dim in shape:
            if isinstance(dim, UOp):
                return tuple([Dimension(s, self.bindings) if isinstance(s, UOp) else s for s in shape])
        return shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.uop.shape)

    def dim(self) -> int:
        """The number of axes, by PyTorch's name."""
        return self.ndim

    def size(self, axis: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if axis is None else self.shape[self._axis(axis, "size")]

    def numel(self) -> Any:
        """How many elements."""
        count: Size = 1
        for size in self.shape:
            count = size * count
        return count

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self.numel()) * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float."""
        return self.dtype.is_float

    @property
    def device(self) -> str:
        """The name of the device that it lives on; a value made of constants lives on the default device."""
        if self._device is None:
            from tinycore_frontend_tensor.device import Device

            return Device.DEFAULT
        return self._device

    @property
    def origin(self) -> str | None:
        """``file:line`` of the program that made it, where that was recorded."""
        return provenance.origin(self.uop)

    def __len__(self) -> int:
        if not self.uop.shape:
            raise TypeError("len() of a tensor without axes")
        return int(self.shape[0])

    def __hash__(self) -> int:
        return id(self)

    # --- helpers of the layers above -----------------------------------------------------------------------

    def _axis(self, axis: int, what: str, rank: int | None = None) -> int:
        """A non-negative axis. Raises ShapeError naming the op."""
        rank = self.ndim if rank is None else rank
        if not isinstance(axis, int) or not -rank <= axis < rank:
            within = f"{-rank}..{rank - 1}" if rank else "none: it has no axes"
            raise ShapeError(
                f"{what}: axis {axis!r} does not exist in shape {graph.text(self.shape)}",
                hint=f"axes are {within}",
            )
        return axis % rank

    def _axes(self, axis: int | Sequence[int] | None, what: str) -> tuple[int, ...]:
        """Non-negative axes, all of them for None."""
        if axis is None:
            return tuple(range(self.ndim))
        given = (axis,) if isinstance(axis, int) else tuple(axis)
        axes = tuple([self._axis(one, what) for one in given])
        if len(set(axes)) != len(axes):
            raise ShapeError(f"{what}: axis named twice in {given}")
        return axes

    def _require_float(self, what: str) -> None:
        if not self.dtype.is_float:
            raise DTypeError(
                f"{what} needs a float tensor, got {self.dtype.name} of shape {graph.text(self.shape)}",
                hint="convert it first: x.float()",
            )

    def _node(self, uop: UOp) -> Self:
        """`_derive` without other operands."""
        return self._derive(uop)


def live_tensors() -> Iterator[TensorCore]:
    """Every tensor object that is still referenced."""
    for reference in list(_live.values()):
        tensor = reference()
        if tensor is not None:
            yield tensor


def pending_writers() -> list[TensorCore]:
    """Every tensor whose in-place write has not run."""
    if not _writers:
        return []
    found: list[TensorCore] = []
    for key, reference in list(_writers.items()):
        tensor = reference()
        if tensor is not None and tensor.uop.op is ops.ASSIGN:
            found.append(tensor)
        else:
            _writers.pop(key, None)
    return found


def flatten_args(args: Sequence[Any]) -> tuple[Any, ...]:
    """Lets ``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    if len(args) == 1 and isinstance(args[0], Iterable):
        return tuple(args[0])
    return tuple(args)

"""The few calls into `tinycore.runtime`, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinycore.ir import DType, Shape, UOp
from tinycore.runtime import storage
from tinycore_frontend_tensor.symbolic import NO_BINDINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinycore.runtime.buffer import Buffer


def realize(roots: Sequence[UOp], bindings: Mapping[UOp, int]) -> list[UOp]:
    """Run a graph; for every root the BUFFER (or a RESHAPE of one) that holds it."""
    from tinycore.runtime.realize import realize as run  # the compiler is loaded when something runs

    return run(roots, bindings)


def empty(dtype: DType, shape: Shape, device: str) -> UOp:
    """A BUFFER whose elements are not set yet."""
    return storage.new_buffer_node(dtype, shape, device)


def from_host(
    array: NDArray[Any], dtype: DType, shape: Shape, device: str, bindings: Mapping[UOp, int] = NO_BINDINGS
) -> UOp:
    """A BUFFER with a copy of host data; `array` has the present sizes of `shape`."""
    return storage.from_host(array, device, dtype, shape, bindings)


def to_host(node: UOp, bindings: Mapping[UOp, int]) -> NDArray[Any]:
    """A copy of a stored node's elements."""
    return storage.to_host(node, bindings)


def from_bytes(content: memoryview, dtype: DType, shape: Shape, device: str) -> UOp:
    """A BUFFER with a copy of the bytes of its elements."""
    return storage.from_bytes(content, dtype, shape, device)


def to_bytes(node: UOp, bindings: Mapping[UOp, int]) -> bytearray:
    """A copy of the bytes of a stored node's elements."""
    return storage.to_bytes(node, bindings)


def buffer_of(node: UOp) -> Buffer:
    """The memory of a BUFFER node."""
    return storage.storage_of(node)

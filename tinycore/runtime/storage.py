"""Which memory holds which BUFFER node, and the way in and out for host arrays."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tinycore.errors import BindingError, ShapeError, TinycoreError
from tinycore.ir import DType, Shape, UOp, dims, dtypes, ops
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.devices import get_device

if TYPE_CHECKING:
    import numpy

Bindings = Mapping[UOp, int]

_storage: dict[int, tuple[weakref.ref[UOp], Buffer]] = {}
"""By the id of the node, which takes the entry along when it dies."""
_ids = itertools.count(1)


def new_buffer_node(dtype: DType, shape: Shape, device: str, buffer: Buffer | None = None) -> UOp:
    """A fresh BUFFER node with memory for the largest size of its symbolic dimensions."""
    number = next(_ids)
    node = UOp(ops.BUFFER, dtype, (), (number, shape, device))
    if buffer is None:
        buffer = Buffer(get_device(device), reserved_bytes(dtype, shape))
    _storage[number] = weakref.ref(node, partial(_storage.pop, number)), buffer
    return node


def reserved_bytes(dtype: DType, shape: Shape) -> int:
    """Bytes that an array needs at most."""
    count = 1
    for dim in shape:
        count *= dims.upper(dim)
    return count * dtype.itemsize


def storage_of(node: UOp) -> Buffer:
    """The memory of a BUFFER node. Raises TinycoreError for one that was made by hand."""
    known = _storage.get(node.arg[0])
    if known is None or known[0]() is not node:
        raise TinycoreError(
            "this buffer has no memory",
            where=repr(node),
            hint="buffers come from from_host, new_buffer_node or realize",
        )
    return known[1]


def evaluate(dim: Any, bindings: Bindings) -> int:
    """The value of a dimension. Raises BindingError for a variable without a value."""
    if isinstance(dim, int):
        return dim
    try:
        return dims.evaluate(dim, bindings)
    except KeyError as error:
        (variable,) = error.args
        raise BindingError(
            f"the symbolic dimension {variable.arg[0]!r} has no value",
            hint="bind it: Variable(...).bind(value)",
        ) from None


def check_bindings(bindings: Bindings) -> None:
    """Raises BindingError for a value outside its variable's limits."""
    for variable, value in bindings.items():
        name, minimum, maximum, multiple = variable.arg
        if not minimum <= value <= maximum or value % multiple:
            rule = f"{minimum} <= {name} <= {maximum}" + (
                f", a multiple of {multiple}" if multiple > 1 else ""
            )
            raise BindingError(f"{name} = {value} is not allowed", hint=f"the variable says {rule}")


def from_host(
    array: numpy.ndarray[Any, Any],
    device: str,
    dtype: DType | None = None,
    shape: Shape | None = None,
    bindings: Bindings | None = None,
) -> UOp:
    """A BUFFER node with a copy of a numpy array.

    `shape` may be symbolic; its value under `bindings` must be the array's shape. Raises ShapeError, DTypeError.
    """
    import numpy as np

    dtype = dtype or dtypes.of_numpy(array.dtype)
    shape = tuple(array.shape) if shape is None else shape
    check_bindings(bindings or {})
    actual = tuple([evaluate(dim, bindings or {}) for dim in shape])
    if actual != array.shape:
        raise ShapeError(f"an array of shape {array.shape} does not have the shape {actual}")
    node = new_buffer_node(dtype, shape, device)
    contiguous = np.ascontiguousarray(array, dtype=dtype.numpy)
    storage_of(node).copy_in(contiguous.reshape(-1).view(np.uint8).data)
    return node


def to_host(node: UOp, bindings: Bindings | None = None) -> numpy.ndarray[Any, Any]:
    """A numpy copy of a BUFFER, or of a RESHAPE of one."""
    import numpy as np

    buffer, shape = _stored(node, bindings or {})
    array: numpy.ndarray[Any, Any] = np.empty(shape, node.dtype.numpy)
    buffer.copy_out(array.reshape(-1).view(np.uint8).data)
    return array


def from_bytes(content: memoryview, dtype: DType, shape: Shape, device: str) -> UOp:
    """A BUFFER node with a copy of the bytes of its elements. Raises ShapeError for another number of them."""
    if content.nbytes != reserved_bytes(dtype, shape):
        raise ShapeError(f"{content.nbytes} bytes are not a {dtype.name} array of the shape {shape}")
    node = new_buffer_node(dtype, shape, device)
    storage_of(node).copy_in(content)
    return node


def to_bytes(node: UOp, bindings: Bindings | None = None) -> bytearray:
    """A copy of the bytes of a BUFFER, or of a RESHAPE of one."""
    buffer, shape = _stored(node, bindings or {})
    content = bytearray(math.prod(shape) * node.dtype.itemsize)
    buffer.copy_out(memoryview(content))
    return content


def _stored(node: UOp, bindings: Bindings) -> tuple[Buffer, tuple[int, ...]]:
    """Where a stored node's elements are, and its present shape."""
    base = node.under(ops.RESHAPE)
    if base.op is not ops.BUFFER:
        raise TinycoreError("only stored values can be read", where=repr(node), hint="realize it first")
    check_bindings(bindings)
    return storage_of(base), tuple([evaluate(dim, bindings) for dim in node.shape])

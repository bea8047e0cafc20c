"""Between the host and tensors: making, running, reading, printing, moving, assigning."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from tinycore.errors import DTypeError, ShapeError, TinycoreError
from tinycore.ir import DType, UOp, dims, dtypes, ops
from tinycore_frontend_tensor import execution, graph, host_data, modes, runtime
from tinycore_frontend_tensor.core import DEFAULT_FLOAT, DEFAULT_INT, Scalar, TensorCore
from tinycore_frontend_tensor.device import Device
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.symbolic import NO_BINDINGS, Bindings, Size, evaluate, sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Conversion(TensorCore):
    """The methods of `Tensor` that reach outside the graph."""

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
        requires_grad: bool = False,
        shape: Sequence[Size] | None = None,
    ) -> None:
        """A tensor of host data: numbers, nested lists of them, numpy arrays, anything with ``__array__``.

        Parameters
        ----------
        data: Python floats become float32, ints int64; arrays keep their dtype.
        dtype: converts the data.
        device: where it shall live; None is the default device.
        requires_grad: whether `backward()` fills `.grad`.
        shape: sizes that may be bound variables; memory is reserved for their maximum.

        Raises DTypeError for data that are not numbers, ShapeError for ragged lists.

        >>> from tinycore import Tensor
        >>> (Tensor([1, 2, 3]) * 2).tolist()
        [2, 4, 6]
        """
        self.grad, self.requires_grad, self.is_leaf = None, False, True
        self._device = None if device is None else Device.canonical(device)
        self.bindings = NO_BINDINGS
        wanted = as_dtype(dtype) if dtype is not None else None
        if isinstance(data, TensorCore):
            self.uop, self.bindings = data.uop.cast(wanted or data.dtype), data.bindings
            self._device = self._device or data._device
        elif isinstance(data, (bool, int, float)) and shape is None:
            self.uop = UOp.const(wanted or scalar_dtype(data), data)
        else:
            self.uop, self.bindings = _host_buffer(data, wanted, self.device, shape)
            self._device = self.device
        self._register()
        if requires_grad:
            self.requires_grad_()

    # --- running ------------------------------------------------------------------------------------------

    def realize(self, *others: TensorCore) -> Self:
        """Compute this tensor (and others in the same schedule); later uses read the stored result."""
        execution.realize((self, *others))
        return self

    @property
    def is_realized(self) -> bool:
        """Whether the elements are stored."""
        return execution.stored(self.uop) is not None

    def contiguous(self) -> Self:
        """The same value, stored in a buffer of its own when it is computed."""
        return self._derive(UOp(ops.CONTIGUOUS, self.dtype, (self.uop,)))

    def clone(self) -> Self:
        """A copy; tensors never alias, so this only forces a buffer of its own."""
        return self.contiguous()

    def to(self, target: str | DType) -> Self:
        """The tensor on another device, or as another dtype."""
        if isinstance(target, DType):
            return self._derive(self.uop.cast(target))
        device = Device.canonical(target)
        if device == self.device:
            return self
        if not self.uop.mask & ops.BUFFER.bit:  # constants: nothing to move
            result = self._derive(self.uop)
        else:
            result = self._derive(UOp(ops.COPY, self.dtype, (self.uop,), device))
        result._device = device
        return result

    # --- reading ------------------------------------------------------------------------------------------

    def numpy(self) -> NDArray[Any]:
        """The elements as a numpy array of the present sizes; computes the tensor if needed.

        bfloat16 and 8-bit floats have the dtypes of ml_dtypes. The array is the caller's own.
        """
        node = self._computed()
        if node.op is ops.CONST:
            return np.full(self._present_shape(), node.dtype.from_bits(node.arg[0]), node.dtype.numpy)
        return runtime.to_host(node, self.bindings)

    def _computed(self) -> UOp:
        """The node of the elements: a constant, or something stored."""
        execution.check_host_read()
        if not self.uop.under(ops.DETACH).is_const:
            self.realize()
        return self.uop.under(ops.DETACH)

    def _present_shape(self) -> tuple[int, ...]:
        return tuple([evaluate(dim, self.bindings) for dim in self.uop.shape])

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a tensor without axes."""
        node = self._computed()
        if node.op is not ops.CONST:
            content = runtime.to_bytes(node, self.bindings)
            plain = host_data.nested(content, self.dtype, self._present_shape())
            if plain is not None:
                return plain
        array = self.numpy()
        if self.dtype.is_float and self.dtype.itemsize < 4:
            array = array.astype(np.float32)
        return array.tolist()

    def item(self) -> Scalar:
        """The only element as a Python number. Raises ShapeError when there are more."""
        if int(self.numel()) != 1:
            raise ShapeError(
                f"item() of a tensor of shape {graph.text(self.shape)}",
                hint="reduce it to one element first, or use tolist()",
            )
        value = self.tolist()
        while isinstance(value, list):
            (value,) = value
        found: Scalar = value
        return found

    def reshape_host(self) -> NDArray[Any]:
        """The elements as a flat numpy array; narrow floats widened to float32."""
        array = self.numpy().reshape(-1)
        return array.astype(np.float32) if self.dtype.is_float and self.dtype.itemsize < 4 else array

    @property
    def data(self) -> memoryview:
        """The elements as a memoryview of a copy on the host."""
        contiguous: Any = np.ascontiguousarray(self.numpy())
        return memoryview(contiguous)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __bool__(self) -> bool:
        if self.ndim and int(self.numel()) != 1:
            raise ShapeError(
                f"the truth of a tensor of shape {graph.text(self.shape)} is ambiguous",
                hint="use .any() or .all()",
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not self.dtype.is_int:
            raise TypeError(f"a {self.dtype.name} tensor is not an index")
        return int(self.item())

    # --- gradients: who takes part ------------------------------------------------------------------------

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether `backward()` should reach this leaf. Raises DTypeError for integers and bools."""
        if requires_grad and not self.requires_grad:
            if not self.dtype.is_float:
                raise DTypeError(
                    f"a {self.dtype.name} tensor cannot require gradients",
                    hint="only floats can: x.float().requires_grad_()",
                )
            if self.uop.op not in (ops.BUFFER, ops.ASSIGN):
                # Equal graphs are one node; a buffer of its own makes this leaf itself.
                self._write_later(execution.own(self.uop, self.device))
                self._device = self.device
            self.is_leaf = True
        elif not requires_grad and not self.is_leaf:
            raise TinycoreError("only leaf tensors can stop requiring gradients", hint="use x.detach()")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Self:
        """The same value, which gradients do not pass."""
        if self.uop.op is ops.DETACH or self.uop.is_const:
            return self._derive(self.uop, differentiable=False)
        return self._derive(UOp(ops.DETACH, self.dtype, (self.uop,)), differentiable=False)

    # --- writing in place ---------------------------------------------------------------------------------

    def assign(self, value: Any) -> Self:
        """Replace all elements, keeping the storage; `value` is broadcast to this shape and cast.

        Raises ShapeError when it does not fit, TinycoreError for a leaf that requires gradients while they
        are recorded.
        """
        source = (
            value
            if isinstance(value, TensorCore)
            else type(self)(value, dtype=self.dtype, device=self._device)
        )
        try:
            fits = graph.broadcast_shape(self.uop.shape, source.uop.shape) == self.uop.shape
        except ShapeError:
            fits = False
        if not fits:
            raise ShapeError(
                f"assign: a value of shape {graph.text(source.shape)} does not fit {graph.text(self.shape)}"
            )
        return self._write(self.uop, source)

    copy_ = assign

    def _write(self, view: UOp, source: TensorCore) -> Self:
        """Make the elements seen through `view` (movement ops on `self.uop`) those of `source`."""
        recorded = modes.gradients_recorded() and (self.requires_grad or source.requires_grad)
        if recorded and self.requires_grad and self.is_leaf:
            raise TinycoreError(
                "a leaf that requires gradients is written in place while they are recorded",
                hint="do it inside `with Tensor.no_grad():`",
            )
        joined = self._derive(self.uop, source)  # checks devices and bindings
        value = graph.broadcast(source.uop.cast(self.dtype), view.shape)
        if not recorded and source.requires_grad:
            value = UOp(ops.DETACH, value.dtype, (value,))
        base = self.uop.under(ops.DETACH)
        if recorded or base.op not in (ops.BUFFER, ops.ASSIGN):
            self.uop = self._overlay(view, value)
            self.requires_grad, self.is_leaf = joined.requires_grad, joined.is_leaf
        else:
            view = view.substitute({self.uop: base}) if base is not self.uop else view
            if view is base and not value.mask & ops.ASSIGN.bit:
                # All of it is replaced: what a pending write would have stored need not be computed.
                base = view = execution.base_buffer(base)
            self._write_later(UOp(ops.ASSIGN, base.dtype, (base, view, value)))
        self.bindings, self._device = joined.bindings, joined._device
        return self

    def _overlay(self, view: UOp, value: UOp) -> UOp:
        """A write without storage: the old value outside the view, the new one inside it."""
        if view is self.uop:
            return value
        chain: list[UOp] = []
        while view is not self.uop:
            chain.append(view)
            view = view.src[0]
        inside = graph.constant(dtypes.bool_, True, value.shape)
        for node in chain:
            value, inside = _unmove(node, value), _unmove(node, inside)
        return inside.where(value, self.uop)

    # --- printing -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        head = (
            f"Tensor(shape={graph.text(self.shape)}, dtype={self.dtype.name}, device={self._device or 'any'}"
        )
        if self.requires_grad:
            head += ", requires_grad=True"
        if not (self.is_realized or self.uop.is_const):
            return head + ", lazy)"
        if self.nbytes() > 1 << 26:
            return head + ", realized)"
        values = np.array2string(
            self.reshape_host().reshape(tuple(map(int, self.shape))),
            separator=", ",
            threshold=200,
            prefix="  ",
            precision=6,
        )
        return f"{head},\n  {values})"

    def _repr_html_(self) -> str:
        rows = {
            "shape": graph.text(self.shape),
            "dtype": self.dtype.name,
            "device": self._device or "any",
            "state": "realized" if self.is_realized else "lazy",
        }
        cells = "".join(
            f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items()
        )
        values = (
            f"<pre>{html.escape(repr(self))}</pre>" if self.is_realized and self.nbytes() < 1 << 20 else ""
        )
        return f"<table>{cells}</table>{values}"


def _unmove(view: UOp, value: UOp) -> UOp:
    """A value of a view's shape, put where the view took it from; zeros elsewhere."""
    source = view.src[0].shape
    if view.op is ops.RESHAPE:
        return graph.reshape(value, source)
    if view.op is ops.PERMUTE:
        return graph.permute(value, [view.arg.index(axis) for axis in range(len(source))])
    if view.op is ops.FLIP:
        return graph.flip(value, view.arg)
    assert view.op is ops.SHRINK
    return graph.pad(
        value,
        [(start, dims.subtract(size, stop)) for (start, stop), size in zip(view.arg, source, strict=True)],
    )


_ALIASES = {"float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"}


def as_dtype(dtype: DType | str) -> DType:
    """A dtype or its name. Raises DTypeError with a suggestion."""
    return dtype if isinstance(dtype, DType) else dtypes.by_name(_ALIASES.get(dtype, dtype))


def scalar_dtype(value: Scalar) -> DType:
    """The dtype of a Python number that meets no tensor."""
    if isinstance(value, bool):
        return dtypes.bool_
    return DEFAULT_INT if isinstance(value, int) else DEFAULT_FLOAT


def _host_buffer(
    data: Any, dtype: DType | None, device: str, shape: Sequence[Size] | None
) -> tuple[UOp, Bindings]:
    """A BUFFER holding host data."""
    plain = host_data.packed(data, dtype) if shape is None else None
    if plain is not None:
        return runtime.from_bytes(*plain, device), NO_BINDINGS
    array = _as_array(data)
    source = dtypes.of_numpy(array.dtype)
    wanted = dtype or source
    if isinstance(data, (list, tuple, range)) and dtype is None:
        wanted = {dtypes.float64: DEFAULT_FLOAT}.get(source, source)
    array = convert(array, source, wanted)
    target, bindings = sizes(shape) if shape is not None else (tuple(map(int, array.shape)), NO_BINDINGS)
    count = evaluate(graph.size_of(target), bindings)
    if array.size != count:
        raise ShapeError(
            f"data of shape {array.shape} cannot have the shape {graph.text(target)}",
            hint=f"{array.size} elements are given, {count} are needed",
        )
    actual = tuple([evaluate(dim, bindings) for dim in target])
    return runtime.from_host(array.reshape(actual), wanted, target, device, bindings), bindings


def _as_array(data: Any) -> NDArray[Any]:
    if isinstance(data, (list, tuple)) and any(isinstance(part, TensorCore) for part in data):
        data = [part.tolist() if isinstance(part, Conversion) else part for part in data]
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError(
            "the nested lists have different lengths", hint="pad them to equal lengths"
        ) from None
    if array.dtype.kind == "O":
        raise DTypeError(
            f"{type(data).__name__} is not numeric data", hint="give numbers, lists of numbers or an array"
        )
    return array


def convert(array: NDArray[Any], source: DType, target: DType) -> NDArray[Any]:
    """Host data as another dtype, with the meaning that CAST has on every device."""
    if source is target:
        return array
    from tinycore.interpret.conversions import cast

    return np.asarray(cast(target, array))

"""Random tensors: counter-based, so a seed gives the same bits on every device.

The key and the counter are buffers. Drawing advances the counter in place, so a captured function draws new
numbers each time it is replayed. Element k of a draw depends on the key and on counter + k only.
"""

from __future__ import annotations

import math
import os
import threading
from array import array
from collections.abc import Sequence
from typing import Any, Self

from tinycore.config import config
from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import DType, UOp, dtypes, ops
from tinycore_frontend_tensor import execution, graph, runtime, threefry
from tinycore_frontend_tensor.conversion import as_dtype
from tinycore_frontend_tensor.core import DEFAULT_FLOAT, TensorCore, flatten_args
from tinycore_frontend_tensor.device import Device
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.linear import LinearAlgebra
from tinycore_frontend_tensor.symbolic import Bindings, sizes


class _Generator:
    """The key and the counter of one device."""

    def __init__(self, device: str, seed: int) -> None:
        self.device = device
        self.key = TensorCore.of_node(self._upload(_key_words(seed), dtypes.uint32), device=device)
        self.counter = TensorCore.of_node(self._upload(np.zeros(1, np.uint64), dtypes.uint64), device=device)
        self._pending: UOp | None = None  # the last write of the counter, as it was made by a draw
        self._start, self._offset = self.counter.uop, 0  # what it wrote: a value, and how much was added

    def _upload(self, words: Any, dtype: DType) -> UOp:
        return runtime.from_host(words, dtype, words.shape, self.device)

    def reseed(self, seed: int) -> None:
        """Start again, in the same storage: captured functions see the new seed."""
        for state, words in ((self.key, _key_words(seed)), (self.counter, np.zeros(1, np.uint64))):
            base = execution.base_buffer(state.uop)
            fresh = self._upload(words, state.dtype)
            state._write_later(UOp(ops.ASSIGN, state.dtype, (base, base, fresh)))

    def draw(self, shape: tuple[Any, ...]) -> threefry.Words:
        """Two random words for every element of a shape; the counter moves on."""
        count = graph.size_of(shape)
        pending = self.counter.uop
        if pending is not self._pending:
            self._start = pending.src[2] if pending.op is ops.ASSIGN else pending
            self._offset = 0
        # Several draws are one write: the value that a pending write will store is read instead of its
        # result. Offsets are data, so that draws of one shape are one kernel wherever they stand.
        now = self._start + self._number(self._offset)
        if isinstance(count, int):
            self._offset += count
            following = self._start + self._number(self._offset)
        else:
            self._start, self._offset = now + graph.dim_value(count, dtypes.uint64, (1,)), 0
            following = self._start
        base = execution.base_buffer(pending)
        self._pending = UOp(ops.ASSIGN, dtypes.uint64, (base, base, following))
        self.counter._write_later(self._pending)
        # Counted in the final shape: what several users read is then the same value everywhere.
        place = _everywhere(now, shape) + graph.reshape(graph.arange(count, dtypes.uint64), shape)
        words = [_everywhere(graph.shrink(self._key_value(), [(k, k + 1)]), shape) for k in (0, 1)]
        low, high = place.cast(dtypes.uint32), (place >> 32).cast(dtypes.uint32)
        return threefry.threefry((words[0], words[1]), (low, high))

    def _number(self, value: int) -> UOp:
        content = memoryview(array("Q", [value])).cast("B")
        return runtime.from_bytes(content, dtypes.uint64, (1,), self.device)

    def _key_value(self) -> UOp:
        return self.key.uop.src[2] if self.key.uop.op is ops.ASSIGN else self.key.uop


def _everywhere(one: UOp, shape: tuple[Any, ...]) -> UOp:
    """The only element of a value at every place of a shape."""
    return graph.expand(graph.reshape(one, (1,) * len(shape)), shape)


_generators: dict[str, _Generator] = {}
_lock = threading.RLock()
_seed: int | None = None


def _key_words(seed: int) -> Any:
    return np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)


def _generator(device: str) -> _Generator:
    global _seed
    with _lock:
        if device not in _generators:
            if _seed is None:
                chosen = config().seed
                _seed = int.from_bytes(os.urandom(8), "little") if chosen is None else chosen
            _generators[device] = _Generator(device, _seed)
        return _generators[device]


class Random(LinearAlgebra):
    """The random constructors of `Tensor`."""

    __slots__ = ()

    @staticmethod
    def manual_seed(seed: int) -> None:
        """Start the random numbers of every device again from a seed."""
        global _seed
        with _lock:
            _seed = int(seed)
            for generator in _generators.values():
                generator.reseed(_seed)

    @classmethod
    def _drawn(cls, shape: Sequence[Any], device: str | None) -> tuple[UOp, UOp, Bindings, str]:
        given, bindings = sizes(shape)
        if any(isinstance(size, int) and size < 0 for size in given):
            raise ShapeError(f"random: negative size in {graph.text(shape)}")
        place = Device.DEFAULT if device is None else Device.canonical(device)
        first, second = _generator(place).draw(given)
        return first, second, bindings, place

    @classmethod
    def _finish(cls, node: UOp, bindings: Bindings, device: str, requires_grad: bool) -> Self:
        result = cls.of_node(node, bindings, device)
        return result.requires_grad_() if requires_grad else result

    @classmethod
    def rand(
        cls,
        *shape: Any,
        dtype: DType | str | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> Self:
        """Uniform in [0, 1): multiples of 2**-24 (2**-53 for float64)."""
        target = _float_dtype("rand", dtype)
        first, second, bindings, place = cls._drawn(flatten_args(shape), device)
        node = threefry.unit_float64(first, second) if target is dtypes.float64 else _narrow(first, target)
        return cls._finish(node, bindings, place, requires_grad)

    @classmethod
    def uniform(
        cls, *shape: Any, low: float = 0.0, high: float = 1.0, requires_grad: bool = False, **options: Any
    ) -> Self:
        """Uniform in [low, high)."""
        unit = cls.rand(*shape, **options)
        node = unit.uop.alu(ops.FMA, unit.uop.const_like(high - low), unit.uop.const_like(low))
        return cls._finish(node, unit.bindings, unit.device, requires_grad)

    @classmethod
    def randn(
        cls,
        *shape: Any,
        dtype: DType | str | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ) -> Self:
        """Standard normals, computed in float32 and then converted."""
        target = _float_dtype("randn", dtype)
        first, second, bindings, place = cls._drawn(flatten_args(shape), device)
        node = threefry.normal_float32(first, second).cast(target)
        return cls._finish(node, bindings, place, requires_grad)

    @classmethod
    def normal(
        cls, *shape: Any, mean: float = 0.0, std: float = 1.0, requires_grad: bool = False, **options: Any
    ) -> Self:
        """Normals of a mean and a standard deviation."""
        unit = cls.randn(*shape, **options)
        node = unit.uop.alu(ops.FMA, unit.uop.const_like(std), unit.uop.const_like(mean))
        return cls._finish(node, unit.bindings, unit.device, requires_grad)

    @classmethod
    def randint(
        cls,
        *shape: Any,
        low: int = 0,
        high: int = 10,
        dtype: DType | str | None = None,
        device: str | None = None,
    ) -> Self:
        """Integers from low to high - 1."""
        span = high - low
        if not 0 < span <= 1 << 32:
            raise ShapeError(f"randint: {low}..{high} is empty or wider than 2**32")
        target = as_dtype(dtype) if dtype is not None else dtypes.int64
        first, _, bindings, place = cls._drawn(flatten_args(shape), device)
        scaled = (first.cast(dtypes.uint64) * span) >> 32
        return cls.of_node((scaled.cast(dtypes.int64) + low).cast(target), bindings, place)

    @classmethod
    def randperm(cls, count: int, *, device: str | None = None) -> Self:
        """0..count-1 in random order. Beyond 4096 the order is computed on the host, with the same result."""
        first, _, bindings, place = cls._drawn((count,), device)
        keys = cls.of_node(first, bindings, place)
        if count <= 4096:
            return keys.argsort(0)
        return cls(np.argsort(keys.numpy(), kind="stable").astype(np.int64), device=place)

    def bernoulli(self) -> Self:
        """1 with the probability that the element says, else 0."""
        self._require_float("bernoulli")
        drawn = type(self).rand(self.shape, device=self.device)
        return (drawn < self.detach()).cast(self.dtype)

    def rand_like(self, **options: Any) -> Self:
        """`rand` of this shape, dtype and device."""
        return type(self).rand(self.shape, **{"dtype": self.dtype, "device": self.device, **options})

    def randn_like(self, **options: Any) -> Self:
        """`randn` of this shape, dtype and device."""
        return type(self).randn(self.shape, **{"dtype": self.dtype, "device": self.device, **options})

    def dropout(self, p: float = 0.5, training: bool | None = None) -> Self:
        """In training: zero with probability p, the rest scaled by 1 / (1 - p)."""
        from tinycore_frontend_tensor import modes

        if not 0 <= p <= 1:
            raise DTypeError(f"dropout: the probability {p} is not within 0..1")
        active = modes.is_training() if training is None else training
        if not active or p == 0:
            return self
        if p == 1:
            return self * 0
        keep = type(self).rand(self.shape, device=self.device) >= p
        return keep.where(self * (1 / (1 - p)), 0)

    # --- initial weights ----------------------------------------------------------------------------------

    @classmethod
    def kaiming_uniform(cls, *shape: Any, a: float = math.sqrt(5), **options: Any) -> Self:
        """He's uniform initialisation; the fan is everything but the first axis."""
        given = flatten_args(shape)
        bound = math.sqrt(3) * math.sqrt(2 / (1 + a * a)) / math.sqrt(_fan_in(given))
        return cls.uniform(*given, low=-bound, high=bound, **options)

    @classmethod
    def kaiming_normal(cls, *shape: Any, a: float = 0.0, **options: Any) -> Self:
        """He's normal initialisation."""
        given = flatten_args(shape)
        return cls.normal(*given, std=math.sqrt(2 / (1 + a * a)) / math.sqrt(_fan_in(given)), **options)

    @classmethod
    def glorot_uniform(cls, *shape: Any, **options: Any) -> Self:
        """Glorot's uniform initialisation."""
        given = flatten_args(shape)
        fan_out = int(given[0]) * math.prod(map(int, given[2:]))
        bound = math.sqrt(6 / (_fan_in(given) + fan_out))
        return cls.uniform(*given, low=-bound, high=bound, **options)

    xavier_uniform = glorot_uniform


def _fan_in(shape: Sequence[Any]) -> int:
    return max(1, math.prod(map(int, shape[1:])))


def _float_dtype(what: str, dtype: DType | str | None) -> DType:
    target = as_dtype(dtype) if dtype is not None else DEFAULT_FLOAT
    if not target.is_float:
        raise DTypeError(f"{what}: {target.name} is not a float dtype", hint="use randint for integers")
    return target


def _narrow(bits: UOp, target: DType) -> UOp:
    """Uniform in [0, 1) in a narrow float: as many bits as it holds, so that rounding never gives 1."""
    if target is dtypes.float32:
        return threefry.unit_float32(bits)
    width = target.mantissa + 1
    return ((bits >> (32 - width)).cast(dtypes.float32) * 2.0**-width).cast(target)

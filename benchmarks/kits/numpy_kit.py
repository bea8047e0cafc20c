"""numpy: a peer, and in float64 the reference for every row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.kits import NotSupported
from benchmarks.model import Position


class ArrayKit:
    """Operations in the words of the array API, for numpy and for what imitates it."""

    name = "numpy"
    xp: Any = np

    def __init__(self) -> None:
        self.nn = layers(self)

    def put(self, array: np.ndarray) -> Any:
        return array

    def position(self, place: Position) -> Any:
        return place.value

    def get(self, result: Any) -> np.ndarray:
        return np.asarray(result).astype(np.float64)

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        setattr(layer, name, self.put(array))

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        return lambda: function(*arguments)

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> Callable[[], Any] | None:
        if into is None:
            return None
        out = function(*arguments)
        return lambda: into(out, *arguments)

    # --- operations -----------------------------------------------------------------------------------------

    def matmul(self, a: Any, b: Any, **out: Any) -> Any:
        return self.xp.matmul(a, b, **out).astype(a.dtype, copy=False)  # ml_dtypes' products are float32

    def matmul_wide(self, a: Any, b: Any) -> Any:
        """Small integers, summed in int32."""
        if a.dtype == np.float64:
            return a @ b
        return a.astype(np.int32) @ b.astype(np.int32)

    def exp(self, x: Any, **out: Any) -> Any:
        return self.xp.exp(x, **out)

    def sum(self, x: Any, axis: int | None = None, **out: Any) -> Any:
        return self.xp.sum(x, axis, **out)

    def relu(self, x: Any) -> Any:
        return self.xp.maximum(x, 0)

    def transpose(self, x: Any, *order: int) -> Any:
        return self.xp.transpose(x, order or None)

    def add(self, a: Any, b: Any, **out: Any) -> Any:
        return self.xp.add(a, b, **out)

    def argmax(self, x: Any, axis: int) -> Any:
        return self.xp.argmax(x, axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return self.xp.cumsum(x, axis)

    def take(self, x: Any, index: Any) -> Any:
        return self.xp.take(x, self.index(index), 0)

    def index(self, x: Any) -> Any:
        """An argument as integers: the reference gets everything as float64."""
        return x.astype(np.int64) if x.dtype == np.float64 else x

    def softmax(self, x: Any) -> Any:
        e = self.xp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred / self.xp.sqrt(variance + eps) * weight + bias

    def gelu(self, x: Any) -> Any:
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))

    def attention(self, q: Any, k: Any, v: Any, causal: bool = False, mask: Any = None) -> Any:
        """With a mask of bools (what is attended to) or of numbers (added to the scores)."""
        scores = q @ self.xp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = self.xp.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
        if causal:
            mask = np.tril(np.ones(scores.shape[-2:], bool))
            scores = self.xp.where(mask, scores, -np.inf)
        return self.softmax(scores) @ v

    def conv2d(
        self, x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1, dilation: int = 1
    ) -> Any:
        return self.xp.ascontiguousarray(convolve(x, weight, stride, padding, groups, dilation))

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        return convolve_transposed(x, weight, stride, padding)

    def max_pool(self, x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
        step = stride or size
        edges = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded = np.pad(x, edges, constant_values=-np.inf) if padding else x
        return sliding_window_view(padded, (size, size), (2, 3))[:, :, ::step, ::step].max((4, 5))

    def mean_image(self, x: Any) -> Any:
        """The mean over height and width."""
        return x.mean((2, 3))

    def mean(self, x: Any, axis: int) -> Any:
        return x.mean(axis)

    def write(self, cache: Any, position: int, value: Any) -> Any:
        """The cache with keys or values at a position, up to and with that position."""
        cache[:, :, position : position + 1] = value
        return cache[:, :, : position + 1]

    def row(self, table: Any, position: int) -> Any:
        """One row of a table."""
        return table[position : position + 1]

    def cat(self, parts: Sequence[Any], axis: int) -> Any:
        return self.xp.concatenate(parts, axis)

    def trainer(
        self, layers: Sequence[Any], forward: Callable[..., Any], rate: float, adam: bool = False
    ) -> Any:
        raise NotSupported


def erf(x: np.ndarray) -> np.ndarray:
    """Abramowitz and Stegun 7.1.26 is too coarse: the C library's, an element at a time, in double."""
    flat = np.asarray(x, np.float64).reshape(-1)
    found = np.fromiter(map(math.erf, flat.tolist()), np.float64, flat.size)
    return found.reshape(x.shape).astype(x.dtype)


def convolve(
    x: np.ndarray, weight: np.ndarray, stride: int, padding: int, groups: int, dilation: int = 1
) -> np.ndarray:
    """Windows as a view, then one contraction a group."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = tuple([dilation * (size - 1) + 1 for size in weight.shape[2:]])
    windows = sliding_window_view(padded, reach, (2, 3))[:, :, ::stride, ::stride, ::dilation, ::dilation]
    if groups == x.shape[1] == weight.shape[0]:
        return np.einsum("nchwij,cij->nchw", windows, weight[:, 0])
    inputs, outputs = x.shape[1] // groups, weight.shape[0] // groups
    parts = [
        np.tensordot(
            windows[:, g * inputs : (g + 1) * inputs],
            weight[g * outputs : (g + 1) * outputs],
            ((1, 4, 5), (1, 2, 3)),
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, -1).transpose(0, 3, 1, 2)


def convolve_transposed(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Every pixel adds its share of the weights to the pixels around it."""
    (batch, _, h, w), (_, outputs, *sizes) = x.shape, weight.shape
    full = [(n - 1) * stride + size for n, size in zip((h, w), sizes, strict=True)]
    result = np.zeros((batch, outputs, *full), x.dtype)
    for i, j in np.ndindex(*sizes):
        share = np.einsum("ncyx,cf->nfyx", x, weight[:, :, i, j], optimize=True)
        result[:, :, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride] += share
    return result[:, :, padding : full[0] - padding, padding : full[1] - padding]


def layers(kit: Any) -> SimpleNamespace:
    """PyTorch's layers for libraries of plain arrays; weights are set later."""
    zeros = np.zeros

    class Linear:
        def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
            self.weight = zeros((outputs, inputs), np.float32)
            self.bias = zeros(outputs, np.float32) if bias else None

        def __call__(self, x: Any) -> Any:
            y = x @ self.weight.T
            return y if self.bias is None else y + self.bias

    class Conv2d:
        def __init__(
            self,
            inputs: int,
            outputs: int,
            size: int,
            stride: int = 1,
            padding: int = 0,
            groups: int = 1,
            bias: bool = True,
        ) -> None:
            self.weight = zeros((outputs, inputs // groups, size, size), np.float32)
            self.bias = zeros(outputs, np.float32) if bias else None
            self.options = (stride, padding, groups)

        def __call__(self, x: Any) -> Any:
            y = kit.conv2d(x, self.weight, *self.options)
            return y if self.bias is None else y + self.bias[:, None, None]

    class BatchNorm2d:
        def __init__(self, channels: int) -> None:
            self.weight, self.bias, self.running_mean, self.running_var = (
                zeros(channels, np.float32) for _ in range(4)
            )

        def __call__(self, x: Any) -> Any:
            scale = self.weight / kit.xp.sqrt(self.running_var + 1e-5)
            shift = self.bias - self.running_mean * scale
            return x * scale[:, None, None] + shift[:, None, None]

    class LayerNorm:
        def __init__(self, width: int, eps: float = 1e-5) -> None:
            self.weight, self.bias, self.eps = zeros(width, np.float32), zeros(width, np.float32), eps

        def __call__(self, x: Any) -> Any:
            return kit.layer_norm(x, self.weight, self.bias, self.eps)

    class Embedding:
        def __init__(self, count: int, width: int) -> None:
            self.weight = zeros((count, width), np.float32)

        def __call__(self, index: Any) -> Any:
            return kit.take(self.weight, index)

    return SimpleNamespace(
        Linear=Linear, Conv2d=Conv2d, BatchNorm2d=BatchNorm2d, LayerNorm=LayerNorm, Embedding=Embedding
    )


def make(name: str) -> ArrayKit:
    """The kit."""
    return ArrayKit()

"""PyTorch: as it is, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.kits import NotSupported
from benchmarks.model import Position


class TorchKit:
    """Eager PyTorch, or the same functions through `torch.compile`."""

    def __init__(self, name: str) -> None:
        self.name, self.compiled = name, name == "torch.compile"
        self.nn = SimpleNamespace(
            Linear=torch.nn.Linear,
            Conv2d=torch.nn.Conv2d,
            LayerNorm=torch.nn.LayerNorm,
            Embedding=torch.nn.Embedding,
            BatchNorm2d=lambda channels: torch.nn.BatchNorm2d(channels).eval(),
        )

    def put(self, array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    def position(self, place: Position) -> Any:
        return place.value

    def get(self, result: Any) -> np.ndarray:
        return result.detach().to(torch.float64).numpy()

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        getattr(layer, name).data.copy_(torch.from_numpy(array))

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        run = torch.compile(function) if self.compiled else function
        if getattr(function, "trains", False):
            return lambda: run(*arguments)

        def call() -> Any:
            with torch.inference_mode():
                return run(*arguments)

        return call

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> Callable[[], Any] | None:
        if into is None or self.compiled:
            return None
        with torch.inference_mode():
            out = function(*arguments)

        def call() -> Any:
            with torch.inference_mode():
                return into(out, *arguments)

        return call

    # --- operations -----------------------------------------------------------------------------------------

    def matmul(self, a: Any, b: Any, **out: Any) -> Any:
        return torch.matmul(a, b, **out)

    def matmul_wide(self, a: Any, b: Any) -> Any:
        return torch._int_mm(a, b)

    def exp(self, x: Any, **out: Any) -> Any:
        return torch.exp(x, **out)

    def sum(self, x: Any, axis: int | None = None, **out: Any) -> Any:
        return torch.sum(x, axis, **out) if axis is not None else torch.sum(x)

    def relu(self, x: Any) -> Any:
        return torch.relu(x)

    def transpose(self, x: Any, *order: int) -> Any:
        return x.permute(order) if order else x.T

    def add(self, a: Any, b: Any, **out: Any) -> Any:
        return torch.add(a, b, **out)

    def argmax(self, x: Any, axis: int) -> Any:
        return torch.argmax(x, axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return torch.cumsum(x, axis)

    def take(self, x: Any, index: Any) -> Any:
        return functional.embedding(index, x)

    def softmax(self, x: Any) -> Any:
        return torch.softmax(x, -1)

    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
        return functional.layer_norm(x, weight.shape, weight, bias, eps)

    def gelu(self, x: Any) -> Any:
        return functional.gelu(x)

    def attention(self, q: Any, k: Any, v: Any, causal: bool = False, mask: Any = None) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    def conv2d(
        self, x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1, dilation: int = 1
    ) -> Any:
        return functional.conv2d(x, weight, None, stride, padding, dilation, groups)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        return functional.conv_transpose2d(x, weight, None, stride, padding)

    def max_pool(self, x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
        return functional.max_pool2d(x, size, stride, padding)

    def mean_image(self, x: Any) -> Any:
        return x.mean((2, 3))

    def mean(self, x: Any, axis: int) -> Any:
        return x.mean(axis)

    def write(self, cache: Any, position: int, value: Any) -> Any:
        if self.compiled:
            raise NotSupported
        cache[:, :, position : position + 1] = value
        return cache[:, :, : position + 1]

    def row(self, table: Any, position: int) -> Any:
        """One row of a table."""
        return table[position : position + 1]

    def cat(self, parts: Sequence[Any], axis: int) -> Any:
        return torch.cat(list(parts), axis)

    def trainer(
        self, layers: Sequence[Any], forward: Callable[..., Any], rate: float, adam: bool = False
    ) -> Any:
        """One step of SGD, or of Adam, on the mean cross entropy; answers the loss."""
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(parameters, lr=rate)

        def step(images: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            loss = functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        step.trains = True  # type: ignore[attr-defined]
        return step


def make(name: str) -> TorchKit:
    """The kit."""
    return TorchKit(name)

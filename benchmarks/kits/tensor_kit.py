"""What tinycore and tinygrad spell alike: operations as methods of a lazy Tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.model import Position


class TensorKit:
    """Operations on a class `Tensor`."""

    Tensor: Any

    def position(self, place: Position) -> Any:
        return place.value

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def matmul_wide(self, a: Any, b: Any) -> Any:
        return a.cast(self.int32) @ b.cast(self.int32)

    int32: Any = "int32"

    def exp(self, x: Any) -> Any:
        return x.exp()

    def sum(self, x: Any, axis: int | None = None) -> Any:
        return x.sum(axis)

    def relu(self, x: Any) -> Any:
        return x.relu()

    def transpose(self, x: Any, *order: int) -> Any:
        return x.permute(*order) if order else x.T

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def argmax(self, x: Any, axis: int) -> Any:
        return x.argmax(axis)

    def cumsum(self, x: Any, axis: int) -> Any:
        return x.cumsum(axis)

    def take(self, x: Any, index: Any) -> Any:
        return x[index]

    def softmax(self, x: Any) -> Any:
        return x.softmax(-1)

    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
        return x.layer_norm(x.shape[-1], weight, bias, eps)

    def gelu(self, x: Any) -> Any:
        return x.gelu()

    def attention(self, q: Any, k: Any, v: Any, causal: bool = False, mask: Any = None) -> Any:
        return q.scaled_dot_product_attention(k, v, attn_mask=mask, is_causal=causal)

    def conv2d(
        self, x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1, dilation: int = 1
    ) -> Any:
        return x.conv2d(weight, stride=stride, padding=padding, groups=groups, dilation=dilation)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        return x.conv_transpose2d(weight, stride=stride, padding=padding)

    def max_pool(self, x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
        return x.max_pool2d(size, stride or size, padding=padding)

    def mean_image(self, x: Any) -> Any:
        return x.mean((2, 3))

    def mean(self, x: Any, axis: int) -> Any:
        return x.mean(axis)

    def cat(self, parts: Sequence[Any], axis: int) -> Any:
        return self.Tensor.cat(*parts, dim=axis)

"""Layers: PyTorch's names, parameters and initial distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinycore.errors import ShapeError
from tinycore_frontend_tensor import modes
from tinycore_frontend_tensor.convolution import Pair
from tinycore_frontend_tensor.tensor import Tensor


class Linear:
    """``x @ weight.T + bias``; weight (outputs, inputs), bias (outputs) or None."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = Tensor.uniform(out_features, in_features, low=-bound, high=bound, requires_grad=True)
        self.bias = Tensor.uniform(out_features, low=-bound, high=bound, requires_grad=True) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return x.linear(self.weight, self.bias)


class Conv2d:
    """Convolution over images; weight (outputs, inputs / groups, height, width)."""

    _axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if in_channels % groups:
            raise ShapeError(f"{type(self).__name__}: {in_channels} channels in {groups} groups")
        size = (kernel_size,) * self._axes if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        fan = in_channels // groups * math.prod(size)
        bound = 1 / math.sqrt(fan)
        self.weight = Tensor.uniform(
            *self._shape(in_channels, out_channels, groups), *size, low=-bound, high=bound, requires_grad=True
        )
        self.bias = Tensor.uniform(out_channels, low=-bound, high=bound, requires_grad=True) if bias else None

    def _shape(self, inputs: int, outputs: int, groups: int) -> tuple[int, int]:
        return outputs, inputs // groups

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height', width')."""
        return x.conv2d(self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv1d(Conv2d):
    """Convolution over sequences; weight (outputs, inputs / groups, length)."""

    _axes = 1


class ConvTranspose2d(Conv2d):
    """Transposed convolution; weight (inputs, outputs / groups, height, width)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.cut, self.output_padding = padding, output_padding

    def _shape(self, inputs: int, outputs: int, groups: int) -> tuple[int, int]:
        return inputs, outputs // groups

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to a larger image."""
        return x.conv_transpose2d(
            self.weight, self.bias, self.stride, self.cut, self.output_padding, self.groups, self.dilation
        )


class BatchNorm2d:
    """Batch normalisation of channels (axis 1).

    Inside ``with Tensor.training():`` the batch's own statistics are used, and the running ones move towards
    them; otherwise the running statistics are used.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        self.eps, self.momentum = eps, momentum
        self.weight = Tensor.ones(num_features, requires_grad=True) if affine else None
        self.bias = Tensor.zeros(num_features, requires_grad=True) if affine else None
        self.running_mean = Tensor.zeros(num_features).owned() if track_running_stats else None
        self.running_var = Tensor.ones(num_features).owned() if track_running_stats else None
        self.num_batches_tracked = Tensor(0).owned() if track_running_stats else None

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) to the same shape."""
        if x.ndim < 2 or (self.weight is not None and x.shape[1] != self.weight.shape[0]):
            expected = "" if self.weight is None else f" with {self.weight.shape[0]} channels"
            raise ShapeError(
                f"BatchNorm2d: an input of shape {x.shape}", hint=f"(batch, channels, ...){expected}"
            )
        if not modes.is_training() and self.running_mean is not None and self.running_var is not None:
            return x.batch_norm(self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        axes = tuple(k for k in range(x.ndim) if k != 1)
        mean = x.mean(axes)
        centred = x - mean.reshape(1, -1, *(1,) * (x.ndim - 2))
        variance = (centred * centred).mean(axes)
        if modes.is_training():
            self._track(x, mean.detach(), variance.detach())
        return x.batch_norm(mean, variance, self.weight, self.bias, self.eps)

    def _track(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        count = int(x.numel()) / int(x.shape[1])
        unbiased = variance * (count / max(1.0, count - 1))
        old, step = 1 - self.momentum, self.momentum
        self.running_mean.assign(self.running_mean * old + mean * step)
        self.running_var.assign(self.running_var * old + unbiased * step)
        self.num_batches_tracked.assign(self.num_batches_tracked + 1)


BatchNorm = BatchNorm2d


class LayerNorm:
    """Zero mean and unit variance over the last axes."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self.normalized_shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.eps = eps
        self.weight = Tensor.ones(*self.normalized_shape, requires_grad=True) if elementwise_affine else None
        self.bias = (
            Tensor.zeros(*self.normalized_shape, requires_grad=True) if elementwise_affine and bias else None
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) to the same shape."""
        return x.layer_norm(self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm:
    """Unit mean square over the last axis."""

    def __init__(self, dim: int, eps: float = 1e-6, elementwise_affine: bool = True) -> None:
        self.dim, self.eps = dim, eps
        self.weight = Tensor.ones(dim, requires_grad=True) if elementwise_affine else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        return x.rms_norm(self.dim, self.weight, self.eps)


class GroupNorm:
    """Zero mean and unit variance over groups of channels."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        self.num_groups, self.eps = num_groups, eps
        self.weight = Tensor.ones(num_channels, requires_grad=True) if affine else None
        self.bias = Tensor.zeros(num_channels, requires_grad=True) if affine else None

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) to the same shape."""
        return x.group_norm(self.num_groups, self.weight, self.bias, self.eps)


class Embedding:
    """A table of vectors, read at integer indices."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = Tensor.randn(num_embeddings, embedding_dim, requires_grad=True)

    def __call__(self, indices: Tensor) -> Tensor:
        """(...) integers to (..., embedding_dim)."""
        return indices.embedding(self.weight)


class Dropout:
    """In training: zeros with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.dropout(self.p)


class MultiheadAttention:
    """Self- or cross-attention with several heads, batch first; parameters as PyTorch's."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        if embed_dim % num_heads:
            raise ShapeError(f"MultiheadAttention: {embed_dim} is not divisible by {num_heads} heads")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = Tensor.glorot_uniform(3 * embed_dim, embed_dim, requires_grad=True)
        self.in_proj_bias = Tensor.zeros(3 * embed_dim, requires_grad=True) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    def __call__(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """(batch, length, embed_dim) to the same shape; key and value default to the query."""
        key = query if key is None else key
        value = key if value is None else value
        weights = self.in_proj_weight.chunk(3)
        biases: Sequence[Tensor | None] = (
            (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        )
        q, k, v = (
            self._heads(x.linear(w, b)) for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        dropout = self.dropout if modes.is_training() else 0.0
        mixed = q.scaled_dot_product_attention(k, v, attn_mask, dropout, is_causal)
        return self.out_proj(mixed.transpose(1, 2).reshape(*query.shape[:2], -1))

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)


class Sequential:
    """Layers, one after the other; any callable of a tensor is a layer."""

    def __init__(self, *layers: Callable[[Tensor], Tensor]) -> None:
        self.layers: list[Any] = list(layers)

    def __call__(self, x: Tensor) -> Tensor:
        """The last layer's result."""
        for layer in self.layers:
            x = layer(x)
        return x

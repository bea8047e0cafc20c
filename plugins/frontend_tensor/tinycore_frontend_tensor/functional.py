"""Activations, normalisations, losses and attention: the functions that networks are made of."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Self, TypeVar

from tinycore.errors import DTypeError, ShapeError
from tinycore.ir import Shape, UOp, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.convolution import Convolution

Kind = TypeVar("Kind", bound="Functional")
Optional = TypeVar("Optional", bound="Functional | None")


class Functional(Convolution):
    """The methods of `Tensor` of torch.nn.functional."""

    __slots__ = ()

    # --- activations --------------------------------------------------------------------------------------

    def relu(self) -> Self:
        """``max(x, 0)``; NaN stays, and the gradient at 0 is 0."""
        node = self.uop
        if node.dtype.kind == "bool":
            return (self <= 0).where(0, self)
        zero = UOp.const(node.dtype, 0, node.shape)
        return self._derive(node.alu(ops.LE, zero).where(zero, node))

    def _saturated(self, low: float, high: float) -> Self:
        """Limited to low..high; unlike `clamp`, the gradient at the limits is 0 (as PyTorch has it)."""
        return (self <= low).where(low, (self >= high).where(high, self))

    def relu6(self) -> Self:
        """`relu`, at most 6."""
        return self._saturated(0.0, 6.0)

    def leaky_relu(self, negative_slope: float = 0.01) -> Self:
        """x, or a fraction of it below 0."""
        return (self > 0).where(self, self * negative_slope)

    def elu(self, alpha: float = 1.0) -> Self:
        """x, or ``alpha * (exp(x) - 1)`` below 0."""
        return (self > 0).where(self, (self > 0).where(0, self).expm1() * alpha)

    def sigmoid(self) -> Self:
        """``1 / (1 + exp(-x))``, without overflow on either side."""
        x = self if self.dtype.is_float else self.float()
        below = x < 0
        grown = below.where(x, -x).exp()  # at most 1
        return below.where(grown, 1.0) / (grown + 1.0)

    def logsigmoid(self) -> Self:
        """The logarithm of `sigmoid`."""
        return -((-self).softplus())

    def silu(self) -> Self:
        """``x * sigmoid(x)``."""
        return self * self.sigmoid()

    swish = silu

    def gelu(self, approximate: str = "none") -> Self:
        """``x * Phi(x)`` with the error function, or by tanh for ``approximate="tanh"``."""
        if approximate == "tanh":
            inner = (self + self * self * self * 0.044715) * math.sqrt(2 / math.pi)
            return self * 0.5 * (inner.tanh() + 1.0)
        if approximate != "none":
            raise DTypeError(f"gelu: approximate={approximate!r}", hint="use 'none' or 'tanh'")
        return self * 0.5 * ((self * math.sqrt(0.5)).erf() + 1.0)

    def quick_gelu(self) -> Self:
        """``x * sigmoid(1.702 x)``."""
        return self * (self * 1.702).sigmoid()

    def softplus(self, beta: float = 1.0, threshold: float = 20.0) -> Self:
        """``log(1 + exp(beta x)) / beta``, x itself above the threshold."""
        scaled = self * beta if beta != 1 else self
        above = scaled > threshold
        return above.where(self, above.where(0, scaled).exp().log1p() / beta)

    def softsign(self) -> Self:
        """``x / (1 + |x|)``."""
        return self / (self.abs() + 1.0)

    def mish(self) -> Self:
        """``x * tanh(softplus(x))``."""
        return self * self.softplus().tanh()

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Self:
        """Clamped to two values."""
        return self._saturated(min_val, max_val)

    def hardsigmoid(self) -> Self:
        """``clamp(x / 6 + 1 / 2, 0, 1)``."""
        return (self <= -3).where(0, (self >= 3).where(1, self / 6 + 0.5))

    def hardswish(self) -> Self:
        """``x * clamp(x + 3, 0, 6) / 6``."""
        return (self <= -3).where(0, (self >= 3).where(self, self * (self + 3) / 6))

    def glu(self, dim: int = -1) -> Self:
        """One half times the sigmoid of the other."""
        first, second = self.chunk(2, dim)
        return first * second.sigmoid()

    # --- normalisations -----------------------------------------------------------------------------------

    def layer_norm(
        self,
        normalized_shape: int | Sequence[int],
        weight: Self | None = None,
        bias: Self | None = None,
        eps: float = 1e-5,
    ) -> Self:
        """Zero mean and unit variance over the last axes, then scaled and shifted."""
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if self.uop.shape[self.ndim - len(shape) :] != shape:
            raise ShapeError(
                f"layer_norm over {graph.text(shape)} of a tensor of shape {graph.text(self.shape)}",
                hint="the last axes must have exactly these sizes",
            )
        return _scaled(self._normalised(tuple(range(self.ndim - len(shape), self.ndim)), eps), weight, bias)

    def _normalised(self, axes: Sequence[int], eps: float) -> Self:
        self._require_float("normalisation")
        node = self.uop.cast(graph.ACCUMULATE.get(self.dtype, self.dtype))
        centred = node.alu(ops.SUB, graph.expand(graph.mean(node, axes, True), node.shape))
        deviation = (graph.mean(centred.alu(ops.MUL, centred), axes, True) + eps).alu(ops.SQRT)
        scale = graph.expand(deviation.const_like(1.0).alu(ops.DIV, deviation), node.shape)
        return self._node(centred.alu(ops.MUL, scale).cast(self.dtype))

    def rms_norm(
        self, normalized_shape: int | Sequence[int], weight: Self | None = None, eps: float = 1e-6
    ) -> Self:
        """Divided by the root of the mean square over the last axes, then scaled."""
        count = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
        axes = tuple(range(self.ndim - count, self.ndim))
        wide = self.cast(graph.ACCUMULATE.get(self.dtype, self.dtype))
        return _scaled((wide * ((wide * wide).mean(axes, True) + eps).rsqrt()).cast(self.dtype), weight, None)

    def group_norm(
        self, groups: int, weight: Self | None = None, bias: Self | None = None, eps: float = 1e-5
    ) -> Self:
        """`layer_norm` over groups of channels (axis 1) and everything after."""
        channels = int(self.shape[1])
        if channels % groups:
            raise ShapeError(f"group_norm: {channels} channels in {groups} groups")
        grouped = self.reshape(self.shape[0], groups, -1)
        normal = grouped._normalised((2,), eps).reshape(self.shape)
        return _scaled(normal, _channels(weight, self.ndim), _channels(bias, self.ndim))

    def batch_norm(
        self,
        mean: Self,
        variance: Self,
        weight: Self | None = None,
        bias: Self | None = None,
        eps: float = 1e-5,
    ) -> Self:
        """Normalised by the given statistics of the channels (axis 1), then scaled and shifted."""
        node, given = self.uop, [each for each in (mean, variance, weight, bias) if each is not None]
        if self.dtype.is_float and all(
            each.uop.dtype is node.dtype and each.uop.shape == node.shape[1:2] for each in given
        ):  # as below, written down at once
            steps, follow = _channel_steps(node.shape), graph.follow
            deviation = (variance.uop + eps).alu(ops.SQRT)
            result = node.alu(ops.SUB, follow(mean.uop, steps))
            result = result.alu(ops.MUL, follow(deviation.const_like(1.0).alu(ops.DIV, deviation), steps))
            if weight is not None:
                result = result.alu(ops.MUL, follow(weight.uop, steps))
            if bias is not None:
                result = result.alu(ops.ADD, follow(bias.uop, steps))
            return self._derive(result, *given)
        scale = _channels((variance + eps).rsqrt(), self.ndim)
        normal = (self - _channels(mean, self.ndim)) * scale
        return _scaled(normal, _channels(weight, self.ndim), _channels(bias, self.ndim))

    def normalize(self, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Self:
        """Divided by the p-norm along an axis."""
        return self / self.norm(p, dim, True).maximum(eps)

    # --- losses -------------------------------------------------------------------------------------------

    def _reduced(self, reduction: str) -> Self:
        if reduction == "mean":
            return self.mean()
        if reduction == "sum":
            return self.sum()
        if reduction != "none":
            raise DTypeError(f"reduction {reduction!r} is not known", hint="use 'mean', 'sum' or 'none'")
        return self

    def nll_loss(
        self, target: Self, weight: Self | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> Self:
        """Minus the log-probability of integer classes; classes are the second axis (or the only one)."""
        axis = 0 if self.ndim == 1 else 1
        expected = self.uop.shape[:axis] + self.uop.shape[axis + 1 :]
        if not target.dtype.is_int:
            raise DTypeError(
                f"nll_loss: the classes are {target.dtype.name}", hint="integer classes are needed"
            )
        if target.uop.shape != expected:
            raise ShapeError(
                f"nll_loss: classes of shape {graph.text(target.shape)} for log-probabilities of shape "
                f"{graph.text(self.shape)}",
                hint=f"{graph.text(expected)} is needed",
            )
        kept = target.ne(ignore_index)
        places = kept.where(target, 0)
        picked = -self.gather(axis, places.unsqueeze(axis)).squeeze(axis)
        share = kept.cast(self.dtype) if weight is None else kept.where(weight.index_select(0, places), 0)
        losses = kept.where(picked, 0) if weight is None else picked * share
        return losses.sum() / share.sum() if reduction == "mean" else losses._reduced(reduction)

    def cross_entropy(
        self,
        target: Self,
        weight: Self | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Self:
        """The loss of a classifier: integer classes, or probabilities of the input's shape.

        >>> from tinycore import Tensor
        >>> round(Tensor([[2.0, 0.0]]).cross_entropy(Tensor([0])).item(), 4)
        0.1269
        """
        axis = 0 if self.ndim == 1 else 1
        logs = self.log_softmax(axis)
        if target.dtype.is_float:
            classes = int(self.shape[axis])
            mixed = target * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else target
            losses = -(
                logs * mixed if weight is None else logs * mixed * _along(weight, axis, self.ndim)
            ).sum(axis)
            return losses._reduced(reduction)
        plain = logs.nll_loss(target, weight, ignore_index, reduction)
        if not label_smoothing:
            return plain
        kept = target.ne(ignore_index)
        weights = None if weight is None else _along(weight, axis, self.ndim)
        smooth = -(logs if weights is None else logs * weights).sum(axis) / int(self.shape[axis])
        smooth = kept.where(smooth, 0)
        if reduction == "mean":
            share = (
                kept.cast(self.dtype)
                if weight is None
                else kept.where(weight.index_select(0, kept.where(target, 0)), 0)
            )
            smooth = smooth.sum() / share.sum()
        else:
            smooth = smooth._reduced(reduction)
        return plain * (1 - label_smoothing) + smooth * label_smoothing

    def mse_loss(self, target: object, reduction: str = "mean") -> Self:
        """Squared differences."""
        return (self - target).square()._reduced(reduction)

    def l1_loss(self, target: object, reduction: str = "mean") -> Self:
        """Absolute differences."""
        return (self - target).abs()._reduced(reduction)

    def huber_loss(self, target: object, delta: float = 1.0, reduction: str = "mean") -> Self:
        """Squared below delta, linear beyond."""
        gap = (self - target).abs()
        return (gap <= delta).where(0.5 * gap * gap, delta * (gap - 0.5 * delta))._reduced(reduction)

    def binary_cross_entropy(self, target: object, reduction: str = "mean") -> Self:
        """The loss of probabilities; logarithms are at least -100, as PyTorch's."""
        yes, no = self.log().maximum(-100.0), (-self).log1p().maximum(-100.0)
        right = self._operand(target, "binary_cross_entropy")
        return -(right * yes + (1.0 - right) * no)._reduced(reduction)

    def binary_cross_entropy_with_logits(self, target: object, reduction: str = "mean") -> Self:
        """The loss of probabilities given as logits."""
        return ((-self).softplus() + (1.0 - self._operand(target, "bce")) * self)._reduced(reduction)

    def kl_div(self, target: Self, reduction: str = "mean") -> Self:
        """``target * (log(target) - x)`` for log-probabilities x."""
        return (target > 0).where(target * (target.log() - self), 0)._reduced(reduction)

    # --- embeddings and attention -------------------------------------------------------------------------

    def embedding(self, weight: Self) -> Self:
        """Rows of `weight` (entries, size) at these integer indices."""
        if not self.dtype.is_int:
            raise DTypeError(
                f"embedding: the indices are {self.dtype.name}", hint="integer indices are needed: x.long()"
            )
        return weight.index_select(0, self)

    def one_hot(self, classes: int) -> Self:
        """int64 ones at the indices along a new last axis."""
        return (self.unsqueeze(-1) == type(self).arange(classes)).cast(dtypes.int64)

    def scaled_dot_product_attention(
        self,
        key: Self,
        value: Self,
        attn_mask: Self | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Self:
        """``softmax(q @ k.T * scale + mask) @ v`` over the last two axes.

        A bool mask keeps what is True; a float mask is added.
        """
        if key.shape[-1] != self.shape[-1] or key.shape[-2] != value.shape[-2]:
            raise ShapeError(
                f"attention: query {graph.text(self.shape)}, key {graph.text(key.shape)}, value "
                f"{graph.text(value.shape)}",
                hint="query and key share the last axis, key and value the one before",
            )
        factor = 1 / math.sqrt(int(self.shape[-1])) if scale is None else scale
        scores = self.matmul(key.transpose(-2, -1)) * factor
        if is_causal:
            rows, columns = scores.shape[-2:]
            row = type(self).arange_of(rows, dtypes.int32).reshape(rows, 1)
            scores = (type(self).arange_of(columns, dtypes.int32) <= row).where(scores, -math.inf)
        if attn_mask is not None:
            boolean = attn_mask.dtype.kind == "bool"
            scores = attn_mask.where(scores, -math.inf) if boolean else scores + attn_mask
        return scores.softmax(-1).dropout(dropout_p).matmul(value)


def _scaled(tensor: Kind, weight: Kind | None, bias: Kind | None) -> Kind:
    if weight is not None:
        tensor = tensor * weight
    return tensor if bias is None else tensor + bias


def _channels(tensor: Optional, rank: int) -> Optional:
    """A vector over channels, shaped to meet (batch, channels, ...)."""
    return tensor if tensor is None else tensor.reshape(1, -1, *(1,) * (rank - 2))


@functools.lru_cache(maxsize=1024)
def _channel_steps(shape: Shape) -> graph.Steps:
    """From a vector over channels to a value of that shape."""
    vector = (1, *shape[1:2], *(1,) * (len(shape) - 2))
    return graph.steps_of(shape[1:2], lambda node: graph.expand(graph.reshape(node, vector), shape))


def _along(tensor: Kind, axis: int, rank: int) -> Kind:
    return tensor.reshape([-1 if k == axis else 1 for k in range(rank)])

"""The reference for a training step: the small CNN's gradients by hand, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

RATE = 0.01


def small_cnn_losses(kit: Any, model: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One step of SGD on the model; answers the loss before it.

    The greatest element of a pooling window gets the gradient; ties do not occur with random numbers, except
    between zeros behind a relu, where the gradient is zero anyway.
    """
    a1, cut1 = _conv_relu_pool(images, model.first)
    a2, cut2 = _conv_relu_pool(a1, model.second)
    flat = a2.reshape(len(images), -1)
    before = flat @ model.hidden.weight.T + model.hidden.bias
    hidden = np.maximum(before, 0)
    logits = hidden @ model.out.weight.T + model.out.bias
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    classes, rows = labels.astype(np.int64), np.arange(len(labels))
    loss = -logs[rows, classes].mean()

    d_logits = np.exp(logs)
    d_logits[rows, classes] -= 1
    d_logits /= len(labels)
    d_before = (d_logits @ model.out.weight) * (before > 0)
    d_flat = d_before @ model.hidden.weight
    d2 = _back_through_pool(d_flat.reshape(a2.shape), *cut2)
    d1 = _back_through_pool(_conv_input_gradient(d2, model.second.weight), *cut1)
    for layer, weight, bias in (
        (model.out, d_logits.T @ hidden, d_logits.sum(0)),
        (model.hidden, d_before.T @ flat, d_before.sum(0)),
        (model.second, _conv_weight_gradient(a1, d2), d2.sum((0, 2, 3))),
        (model.first, _conv_weight_gradient(images, d1), d1.sum((0, 2, 3))),
    ):
        layer.weight = layer.weight - RATE * weight
        layer.bias = layer.bias - RATE * bias
    return np.asarray(loss)


def _windows(x: np.ndarray) -> np.ndarray:
    return sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))


def _conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.tensordot(_windows(x), weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def _conv_input_gradient(d: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return _conv(d, weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


def _conv_weight_gradient(x: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.tensordot(d, _windows(x), ((0, 2, 3), (0, 2, 3)))


def _conv_relu_pool(x: np.ndarray, layer: Any) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The pooled result, and what the way back needs: the activation and the greatest of each window."""
    activation = np.maximum(_conv(x, layer.weight) + layer.bias[:, None, None], 0)
    height, width = (size // 2 for size in activation.shape[2:])
    whole = activation[:, :, : 2 * height, : 2 * width]  # the last odd row and column are in no window
    pooled = whole.reshape(*activation.shape[:2], height, 2, width, 2).max((3, 5))
    return pooled, (activation, pooled)


def _back_through_pool(d: np.ndarray, activation: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    def up(x: np.ndarray) -> np.ndarray:
        odd = [(0, size % 2) for size in activation.shape[2:]]
        return np.pad(x.repeat(2, 2).repeat(2, 3), [(0, 0), (0, 0), *odd])

    return up(d) * (activation == up(pooled)) * (activation > 0)


def mlp_losses(kit: Any, model: Any, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One step of Adam on an MLP; answers the loss before it."""
    values, before = [x], []
    for layer in model.layers:
        before.append(values[-1] @ layer.weight.T + layer.bias)
        values.append(np.maximum(before[-1], 0))
    shifted = before[-1] - before[-1].max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    classes, rows = labels.astype(np.int64), np.arange(len(labels))
    loss = -logs[rows, classes].mean()
    gradient = np.exp(logs)
    gradient[rows, classes] -= 1
    gradient /= len(labels)
    for place in reversed(range(len(model.layers))):
        layer = model.layers[place]
        steps = (gradient.T @ values[place], gradient.sum(0))
        if place:
            gradient = (gradient @ layer.weight) * (before[place - 1] > 0)
        for name, step in zip(("weight", "bias"), steps, strict=True):
            setattr(layer, name, getattr(layer, name) - _adam(layer, name, step))
    return np.asarray(loss)


def _adam(layer: Any, name: str, gradient: np.ndarray) -> np.ndarray:
    """By how much a parameter is changed; its averages wait in the layer."""
    count, first, second = layer.__dict__.get(f"{name}_moments", (0, 0.0, 0.0))
    count, first, second = count + 1, 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    setattr(layer, f"{name}_moments", (count, first, second))
    return RATE * (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)

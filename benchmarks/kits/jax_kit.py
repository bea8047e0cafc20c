"""JAX: every row through `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.kits import NotSupported
from benchmarks.kits.numpy_kit import ArrayKit


class JaxKit(ArrayKit):
    """Arrays are immutable: there are only fresh outputs."""

    name = "jax"
    xp = jnp

    def put(self, array: np.ndarray) -> Any:
        if array.dtype in (np.float64, np.int64):
            jax.config.update("jax_enable_x64", True)
        return jax.device_put(array)

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        run = function if getattr(function, "trains", False) else jax.jit(function)
        return lambda: jax.block_until_ready(run(*arguments))

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> None:
        return None

    def index(self, x: Any) -> Any:
        return x

    def matmul_wide(self, a: Any, b: Any) -> Any:
        return jnp.matmul(a, b, preferred_element_type=jnp.int32)

    def softmax(self, x: Any) -> Any:
        return jax.nn.softmax(x)

    def gelu(self, x: Any) -> Any:
        return jax.nn.gelu(x, approximate=False)

    def conv2d(
        self, x: Any, weight: Any, stride: int = 1, padding: int = 0, groups: int = 1, dilation: int = 1
    ) -> Any:
        return lax.conv_general_dilated(
            x,
            weight,
            (stride, stride),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            feature_group_count=groups,
        )

    def max_pool(self, x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
        step = stride or size
        edges = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, step, step), edges)

    def write(self, cache: Any, position: int, value: Any) -> Any:
        raise NotSupported

    def trainer(
        self, layers: Sequence[Any], forward: Callable[..., Any], rate: float, adam: bool = False
    ) -> Any:
        if adam:
            raise NotSupported
        names = [
            (layer, name)
            for layer in layers
            for name in ("weight", "bias")
            if getattr(layer, name, None) is not None
        ]
        weights = [getattr(layer, name) for layer, name in names]

        def loss_of(given: list[Any], images: Any, labels: Any) -> Any:
            for (layer, name), value in zip(names, given, strict=True):
                setattr(layer, name, value)
            logs = jax.nn.log_softmax(forward(images))
            return -jnp.take_along_axis(logs, labels[:, None], 1).mean()

        @jax.jit
        def update(given: list[Any], images: Any, labels: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(given, images, labels)
            return loss, [w - rate * g for w, g in zip(given, gradients, strict=True)]

        def step(images: Any, labels: Any) -> Any:
            nonlocal weights
            loss, weights = update(weights, images, labels)
            jax.block_until_ready(weights)
            return loss

        step.trains = True  # type: ignore[attr-defined]
        return step


def make(name: str) -> JaxKit:
    """The kit."""
    return JaxKit()

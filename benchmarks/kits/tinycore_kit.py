"""This project: a graph that is built and realized at every call, and the same function captured by `jit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tinycore_frontend_tensor import Variable

from benchmarks.kits.tensor_kit import TensorKit
from benchmarks.model import Position
from tinycore import Device, Tensor, jit, nn


class TinycoreKit(TensorKit):
    """Fresh outputs: build, realize, keep nothing. Reused outputs: a replay into the captured memory."""

    name = "tinycore"
    nn = nn
    Tensor = Tensor

    def put(self, array: np.ndarray) -> Any:
        return Tensor(array).realize()

    def get(self, result: Any) -> np.ndarray:
        return result.cast("float64").numpy() if result.dtype.name == "bfloat16" else _double(result.numpy())

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        known = getattr(layer, name)
        setattr(layer, name, Tensor(array, requires_grad=known.requires_grad).realize())

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        device = Device[Device.DEFAULT]

        def call() -> Any:
            with Tensor.no_grad():
                result = function(*arguments).realize()
            device.synchronize()
            return result

        return call

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> Callable[[], Any]:
        device = Device[Device.DEFAULT]
        trains = getattr(function, "trains", False)

        def body(*given: Any) -> Any:
            if trains:
                return function(*given)
            with Tensor.no_grad():
                return function(*given)

        captured = jit(body)

        def call() -> Any:
            result = captured(*arguments)
            device.synchronize()
            return result

        return call

    def cat(self, parts: Sequence[Any], axis: int) -> Any:
        return Tensor.cat(list(parts), axis)

    def position(self, place: Position) -> Any:
        """A tensor with that many elements: its size is a symbolic dimension, one program serves them all."""
        size = Variable("position", 1, place.most).bind(place.value)
        return Tensor(np.zeros(place.value, np.int8), shape=(size,)).realize()

    def write(self, cache: Any, position: Any, value: Any) -> Any:
        place = position.shape[0]
        cache[:, :, place : place + 1] = value
        return cache[:, :, : place + 1]

    def row(self, table: Any, position: Any) -> Any:
        place = position.shape[0]
        return table[place : place + 1]

    def trainer(
        self, layers: Sequence[Any], forward: Callable[..., Any], rate: float, adam: bool = False
    ) -> Any:
        """One step of SGD, or of Adam, on the mean cross entropy; answers the loss."""
        optimizer = (nn.optim.Adam if adam else nn.optim.SGD)(nn.state.get_parameters(list(layers)), lr=rate)

        def step(images: Any, labels: Any) -> Any:
            with Tensor.training():
                optimizer.zero_grad()
                loss = forward(images).cross_entropy(labels)
                loss.backward()
                optimizer.step()
            return loss

        step.trains = True  # type: ignore[attr-defined]
        return step


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def make(name: str) -> TinycoreKit:
    """The kit."""
    return TinycoreKit()

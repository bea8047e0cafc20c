"""tinygrad on its CPU device: realized at every call, and captured by `TinyJit`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit, dtypes, nn

from benchmarks.kits import NotSupported
from benchmarks.kits.tensor_kit import TensorKit


class TinygradKit(TensorKit):
    """The peer that this project grew from."""

    name = "tinygrad"
    Tensor = Tensor
    int32 = dtypes.int32

    def __init__(self) -> None:
        try:
            Device.DEFAULT = "CPU"
        except AttributeError:  # since 0.13 it is a setting
            from tinygrad.helpers import DEV

            DEV.value = "CPU"
        self.nn = SimpleNamespace(
            Linear=nn.Linear,
            Conv2d=nn.Conv2d,
            BatchNorm2d=nn.BatchNorm,
            LayerNorm=nn.LayerNorm,
            Embedding=nn.Embedding,
        )

    def put(self, array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return Tensor(array.astype(np.float32)).cast(dtypes.bfloat16).realize()
        return Tensor(array).realize()

    def get(self, result: Any) -> np.ndarray:
        wide = result.cast(dtypes.float32) if result.dtype in (dtypes.bfloat16, dtypes.float16) else result
        return wide.numpy().astype(np.float64)

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        setattr(layer, name, Tensor(array).realize())

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        def call() -> Any:
            result = function(*arguments).realize()
            Device[Device.DEFAULT].synchronize()
            return result

        return call

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> Callable[[], Any]:
        captured = TinyJit(lambda *given: function(*given).realize())

        def call() -> Any:
            result = captured(*arguments)
            Device[Device.DEFAULT].synchronize()
            return result

        return call

    def write(self, cache: Any, position: Any, value: Any) -> Any:
        raise NotSupported

    def trainer(
        self, layers: Sequence[Any], forward: Callable[..., Any], rate: float, adam: bool = False
    ) -> Any:
        if adam:
            raise NotSupported
        parameters = [
            getattr(layer, name)
            for layer in layers
            for name in ("weight", "bias")
            if getattr(layer, name, None) is not None
        ]
        for parameter in parameters:
            parameter.requires_grad = True
        optimizer = nn.optim.SGD(parameters, lr=rate)

        def step(images: Any, labels: Any) -> Any:
            with Tensor.train():
                optimizer.zero_grad()
                loss = forward(images).sparse_categorical_crossentropy(labels)
                loss.backward()
                optimizer.step()
            return loss

        step.trains = True  # type: ignore[attr-defined]
        return step


def make(name: str) -> TinygradKit:
    """The kit; without clang tinygrad's CPU device cannot run anything."""
    if shutil.which("clang") is None:
        raise ImportError("tinygrad's CPU device needs clang", name="clang")
    return TinygradKit()

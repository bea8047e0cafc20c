"""How each library spells the operations of the rows. A kit is made when it is asked for, and imports then."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.model import Position

Thunk = Callable[[], Any]


class Kit(Protocol):
    """One library. Operations are methods named as in `kits.numpy_kit`; a missing one is a blank cell."""

    name: str
    nn: Any
    """Layers with PyTorch's names: Linear, Conv2d, BatchNorm2d, LayerNorm, Embedding."""

    def put(self, array: np.ndarray) -> Any:
        """The library's array with these elements."""

    def position(self, place: Position) -> Any:
        """What `write` of this library takes as a position."""

    def get(self, result: Any) -> np.ndarray:
        """The elements of one result, as float64."""

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        """Give a layer's weight its value."""

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Thunk:
        """Runs and waits; the output is allocated anew."""

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> Thunk | None:
        """Runs and waits; the output's memory is the same every time. None where that is not possible."""


class NotSupported(Exception):
    """A library cannot do a row: a blank cell."""


def put(kit: Kit, argument: Any) -> Any:
    """An argument in a library's terms."""
    return kit.position(argument) if isinstance(argument, Position) else kit.put(argument)


_MODULES = {
    "tinycore": "tinycore_kit",
    "numpy": "numpy_kit",
    "torch": "torch_kit",
    "torch.compile": "torch_kit",
    "jax": "jax_kit",
    "tinygrad": "tinygrad_kit",
    "onnxruntime": "onnx_kit",
}
NAMES = tuple(_MODULES)


def load(name: str) -> Kit | None:
    """A kit; None where its library is not installed."""
    try:
        module = importlib.import_module(f"benchmarks.kits.{_MODULES[name]}")
        kit: Kit = module.make(name)
    except ImportError as problem:
        if (problem.name or "").startswith("benchmarks"):
            raise
        return None
    return kit

"""Tensor, autograd, nn, optim and jit.

>>> from tinycore import Tensor
>>> (Tensor([[1.0, 2.0]]) @ Tensor([[3.0], [4.0]])).tolist()
[[11.0]]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinycore.ir import dtypes
    from tinycore_frontend_tensor import nn
    from tinycore_frontend_tensor.device import Device
    from tinycore_frontend_tensor.jit import jit
    from tinycore_frontend_tensor.symbolic import Dimension, Variable
    from tinycore_frontend_tensor.tensor import Tensor

__all__ = ["Device", "Dimension", "Tensor", "Variable", "dtypes", "jit", "nn"]

_HOMES = {
    "Device": "tinycore_frontend_tensor.device",
    "Dimension": "tinycore_frontend_tensor.symbolic",
    "Tensor": "tinycore_frontend_tensor.tensor",
    "Variable": "tinycore_frontend_tensor.symbolic",
    "dtypes": "tinycore.ir",
    "jit": "tinycore_frontend_tensor.jit",
}
"""The module of each name, imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name == "nn":
        return import_module("tinycore_frontend_tensor.nn")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

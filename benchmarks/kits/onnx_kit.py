"""onnxruntime: PyTorch's function, exported to ONNX, run on the CPU provider."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx  # noqa: F401  the exporter needs it: without it this kit is not there
import onnxruntime
import torch

from benchmarks.kits import NotSupported
from benchmarks.kits.torch_kit import TorchKit


class OnnxKit(TorchKit):
    """Built with torch's layers; exporting is not part of the first call, making the session is."""

    def __init__(self) -> None:
        super().__init__("onnxruntime")

    def assign(self, layer: Any, name: str, array: np.ndarray) -> None:
        super().assign(layer, name, array)
        getattr(layer, name).requires_grad_(False)  # the exporter takes only plain tensors as constants

    def get(self, result: Any) -> np.ndarray:
        return np.asarray(result).astype(np.float64)

    def fresh(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], Any]:
        if getattr(function, "trains", False):
            raise NotSupported

        class Exported(torch.nn.Module):
            def forward(self, *given: Any) -> Any:
                return function(*given)

        file, names = io.BytesIO(), [f"x{k}" for k in range(len(arguments))]
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Exported(), tuple(arguments), file, input_names=names, output_names=["y"], dynamo=False
            )
        feed = {name: value.numpy() for name, value in zip(names, arguments, strict=True)}
        session: Any = None

        def call() -> Any:
            nonlocal session
            if session is None:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 3
                session = onnxruntime.InferenceSession(
                    file.getvalue(), options, providers=["CPUExecutionProvider"]
                )
            return session.run(["y"], feed)[0]

        return call

    def reused(
        self, function: Callable[..., Any], into: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> None:
        return None


def make(name: str) -> OnnxKit:
    """The kit."""
    return OnnxKit()

"""NVIDIA GPUs through the CUDA driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore_backend_nv.device import CudaDevice
    from tinycore_backend_nv.target import NvTarget


def open_device() -> CudaDevice:
    """Open the first GPU. Raises BackendUnavailable, saying what to install, when there is none."""
    from tinycore_backend_nv import device

    return device.open_device()


def compile_target(architecture: str | None = None) -> NvTarget:
    """Describe an architecture (``sm_90`` when none is named), with no device present.

    Raises BackendUnavailable for an unknown one.
    """
    from tinycore_backend_nv import target

    return target.compile_target(architecture)

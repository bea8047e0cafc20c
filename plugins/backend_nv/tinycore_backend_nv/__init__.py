"""PTX for NVIDIA GPUs (compile only for now)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore_backend_nv.target import NvTarget


def compile_target(architecture: str | None = None) -> NvTarget:
    """Describe an architecture (``sm_90`` when none is named), with no device present.

    Raises BackendUnavailable for an unknown one.
    """
    from tinycore_backend_nv import target

    return target.compile_target(architecture)

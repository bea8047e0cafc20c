"""GCN code for AMD GPUs (compile only for now)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore_backend_amd.target import AmdTarget


def compile_target(architecture: str | None = None) -> AmdTarget:
    """Describe an architecture (``gfx1100`` when none is named), with no device present.

    Raises BackendUnavailable for an unknown one.
    """
    from tinycore_backend_amd import target

    return target.compile_target(architecture)

"""OpenCL devices through any ICD loader.

What the manifest names is here; everything else is imported when a device is opened or a target is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore.ir import Target
    from tinycore_backend_cl.device import OpenCLDevice


def open_device(index: int = 0) -> OpenCLDevice:
    """Open an OpenCL device by number, graphics cards first.

    Raises BackendUnavailable, saying what to install, when there is no loader, no driver or no such device.
    """
    from tinycore_backend_cl import device

    return device.open_device(index)


def compile_target(architecture: str | None = None) -> Target:
    """A description to render kernels for with no device present; the driver compiles them where they run."""
    from tinycore_backend_cl import query

    return query.generic_target(architecture)

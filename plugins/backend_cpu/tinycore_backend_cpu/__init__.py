"""Native code for the processor this Python runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore.ir.target import Target
    from tinycore_backend_cpu.device import CpuDevice

__version__ = "0.1.0"


def open_device() -> CpuDevice:
    """The CPU. Always there: what is missing (LLVM) is missed by the first kernel that has to be compiled."""
    from tinycore_backend_cpu.device import CpuDevice

    return CpuDevice()


def compile_target(architecture: str | None = None) -> Target:
    """What kernels would be compiled for, with no device opened.

    Only the architecture of this machine is known; raises BackendUnavailable for any other.
    """
    from tinycore.errors import BackendUnavailable
    from tinycore_backend_cpu.host import host_target

    target = host_target()
    if architecture not in (None, "", "native", target.architecture):
        raise BackendUnavailable(
            f"cannot compile for the processor {architecture!r}",
            hint=f"leave it out, or say {target.architecture}",
        )
    return target

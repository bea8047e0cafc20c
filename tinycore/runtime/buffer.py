"""Buffer: memory of one device, allocated when it is first needed and given back when nobody holds it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tinycore.runtime.device import Device, Opaque


class Buffer:
    """`nbytes` of memory on a device.

    The memory is uninitialised until something writes it. Buffers are shared by reference: in-place updates
    are seen by everyone who holds the same one.
    """

    __slots__ = ("_memory", "device", "nbytes")

    def __init__(self, device: Device, nbytes: int) -> None:
        self.device = device
        self.nbytes = nbytes
        self._memory: Opaque = None

    @property
    def memory(self) -> Opaque:
        """The backend's handle; allocates at the first use. Raises DeviceError when memory is exhausted."""
        if self._memory is None:
            self._memory = self.device.allocator.allocate(self.nbytes)
        return self._memory

    def copy_in(self, source: memoryview) -> None:
        """Fill from the start with contiguous host bytes."""
        if source.nbytes:
            self.device.allocator.copy_in(self.memory, source)

    def copy_out(self, target: memoryview) -> None:
        """Read the first bytes into contiguous host memory, after everything that was launched."""
        if target.nbytes:
            self.device.allocator.copy_out(target, self.memory)

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        memory, self._memory = self._memory, None
        if memory is not None and not finalizing():  # at exit the system takes everything back
            self.device.allocator.free(memory, self.nbytes)

    def __repr__(self) -> str:
        return f"<Buffer {self.nbytes} bytes on {self.device.name}>"

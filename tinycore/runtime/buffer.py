"""Buffer: memory of one device, allocated when it is first needed and given back when nobody holds it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable

from tinycore.runtime.device import Device, Opaque


class Buffer:
    """`nbytes` of memory on a device.

    The memory is uninitialised until something writes it. Buffers are shared by reference: in-place updates
    are seen by everyone who holds the same one.

    Attributes
    ----------
    version: grows with every write; what was computed from another version is out of date.
    """

    __slots__ = ("__weakref__", "_derived", "_memory", "_source", "device", "nbytes", "version")

    def __init__(self, device: Device, nbytes: int) -> None:
        self.device = device
        self.nbytes = nbytes
        self.version = 0
        self._memory: Opaque = None
        self._derived: dict[Hashable, Buffer] = {}
        self._source: tuple[weakref.ref[Buffer], int] | None = None

    @property
    def memory(self) -> Opaque:
        """The backend's handle; allocates at the first use. Raises DeviceError when memory is exhausted."""
        if self._memory is None:
            self._memory = self.device.allocator.allocate(self.nbytes)
        return self._memory

    def copy_in(self, source: memoryview) -> None:
        """Fill from the start with contiguous host bytes."""
        self.version += 1
        if source.nbytes:
            self.device.allocator.copy_in(self.memory, source)

    # --- copies in another layout ---------------------------------------------------------------------

    def derived(self, key: Hashable) -> Buffer | None:
        """What was remembered under a key, up to date or not; it lives as long as this buffer."""
        return self._derived.get(key)

    def remember(self, key: Hashable, copy: Buffer) -> None:
        """Keep something that is computed from this buffer alone."""
        self._derived[key] = copy

    def follows(self, source: Buffer) -> bool:
        """Whether this buffer was computed from the present content of another."""
        return self._source is not None and self._source[0]() is source and self._source[1] == source.version

    def set_source(self, source: Buffer) -> None:
        """Say that this buffer has just been computed from the present content of another."""
        self._source = weakref.ref(source), source.version

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

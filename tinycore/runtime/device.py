"""What a backend implements: the contract between tinycore and a device, as protocols.

A backend plugin returns a `BackendSpec` (see `tinycore.runtime.environment`) whose ``open()`` answers a
`Device`. Everything that the compiler needs to know is data (`Capabilities`); nothing is asked with
``hasattr``. `GraphDevice` is the one optional extension: a device that can replay a list of launches without
Python in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tinycore.ir.target import Target

if TYPE_CHECKING:
    from tinycore.codegen.program import Program

Opaque = Any
"""A backend's own handle of a piece of memory; the core never looks inside."""


class Allocator(Protocol):
    """Device memory. Sizes and offsets are in bytes; an allocation of 0 bytes is valid."""

    def allocate(self, nbytes: int) -> Opaque:
        """Uninitialised memory, aligned to at least 64 bytes. Raises DeviceMemoryError-like TinycoreError."""

    def free(self, memory: Opaque, nbytes: int) -> None:
        """Give memory back; `nbytes` is what it was allocated with."""

    def copy_in(self, target: Opaque, source: memoryview) -> None:
        """Host to device; `source` is contiguous bytes. Returns when `source` may be changed again."""

    def copy_out(self, target: memoryview, source: Opaque) -> None:
        """Device to host, after everything that was launched before. Returns when the bytes are there."""

    def view(self, memory: Opaque, offset: int, nbytes: int) -> Opaque:
        """A handle for a part of an allocation (64-byte aligned offsets); it keeps no ownership."""

    def host_view(self, memory: Opaque, nbytes: int) -> memoryview | None:
        """The memory itself as writable bytes where the host can see it (after `synchronize`), else None."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What `Device.load` needs to know about compiled code.

    Attributes
    ----------
    name: the symbol of the kernel.
    buffers: how many buffer arguments.
    variables: how many integer arguments follow.
    group: work-group size (local range bounds), () without work-groups.
    """

    name: str
    buffers: int
    variables: int
    group: tuple[int, ...] = ()


class Executable(Protocol):
    """Loaded code, ready to be launched."""

    def launch(self, buffers: Sequence[Opaque], variables: Sequence[int], grid: Sequence[int]) -> None:
        """Start the kernel; later launches, and copies, see its results. `grid` has at most 3 entries."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One captured launch."""

    executable: Executable
    buffers: tuple[Opaque, ...]
    variables: tuple[int, ...]
    grid: tuple[int, ...]


class Graph(Protocol):
    """A captured list of launches."""

    def replay(self) -> None:
        """Run all launches in order."""

    def update(self, position: int, launch: Launch) -> None:
        """Exchange buffers, variables or grid of one launch; the executable stays the same."""

    def rebind(self, buffers: Sequence[Opaque]) -> None:
        """Exchange the buffers of all launches: those of the first launch by slot, then of the second, ..."""


class Device(Protocol):
    """One opened device.

    Attributes
    ----------
    name: what users type, e.g. in ``DEV=``.
    target: what kernels are compiled for.
    allocator: its memory.
    """

    name: str
    target: Target
    allocator: Allocator

    def render(self, program: Program) -> str:
        """Source text of a program (shown at DEBUG=4, and hashed into the cache key)."""

    def compile(self, source: str, name: str) -> bytes:
        """Loadable code. Pure: the answer is cached on disk under target.fingerprint. Raises CompileError.

        May run in another thread than everything else, for one kernel at a time; a compiler that lets go of
        the interpreter lock works while the next kernel is lowered.
        """

    def load(self, binary: bytes, signature: Signature) -> Executable:
        """Make code callable. `binary` has been verified to be what `compile` returned."""

    def synchronize(self) -> None:
        """Wait for everything that was launched."""

    def elapsed(
        self, executable: Executable, buffers: Sequence[Opaque], variables: Sequence[int], grid: Sequence[int]
    ) -> float:
        """Launch once, wait, and answer the seconds that it took on the device (for DEBUG=2 and search)."""

    def close(self) -> None:
        """Release the device; no other method is called afterwards."""


@runtime_checkable
class GraphDevice(Device, Protocol):
    """A device that replays captured launches by itself."""

    def capture(self, launches: Sequence[Launch]) -> Graph:
        """A graph of these launches, to be replayed in order."""

"""Memory for buffers: aligned, in huge pages where they pay, and used again instead of returned.

First touch of fresh 4 KB pages costs more than most kernels compute (64 MB: 12.5 ms fresh, 3.4 ms in huge
pages, 2.1 ms when reused). So memory that is given back is kept, by size class, up to a limit.

A handle is the address, an int: a launch passes it on as it is.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass

from tinycore.errors import DeviceError
from tinycore_backend_cpu.pages import (
    HUGE_PAGE,
    advise_huge_pages,
    map_pages,
    memory_view,
    round_up,
    unmap_pages,
)

ALIGNMENT = 64
"""Of every allocation, in bytes: a cache line, and the widest vector."""
SMALL = 1 << 20
"""Allocations up to this are carved from arenas; larger ones are mappings of their own."""
ARENA = 8 << 20
IDLE_BYTES = 4 << 30
"""How much memory of large freed allocations is kept, at most."""


class OutOfMemory(DeviceError, MemoryError):
    """The system has no memory for a buffer."""


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """Bytes by where they are: in use, freed and kept, and mapped from the system."""

    in_use: int
    idle: int
    mapped: int


class HostAllocator:
    """An `Allocator` in the memory of this process.

    Sizes are rounded up to classes, four in each power of two, so that a freed block fits the next request of
    about its size. Thread-safe. `free` may be called by a finalizer, at any moment and in any thread.

    >>> allocator = HostAllocator()
    >>> memory = allocator.allocate(1000)
    >>> allocator.copy_in(memory, memoryview(b"content"))
    >>> bytes(allocator.host_view(memory, 7))
    b'content'
    >>> allocator.free(memory, 1000)
    """

    def __init__(self, idle_limit: int | None = None) -> None:
        self.idle_limit = _default_idle_limit() if idle_limit is None else idle_limit
        self._lock = threading.Lock()
        self._small: dict[int, list[int]] = {}
        self._arena, self._arena_left = 0, 0
        # Freed large blocks by class, and all of them in the order they were freed.
        self._large: dict[int, list[int]] = {}
        self._idle_order: OrderedDict[int, int] = OrderedDict()
        self._in_use = self._idle = self._mapped = 0
        self._returned: deque[tuple[int, int]] = deque()
        _allocators.add(self)

    # -- the protocol `tinycore.runtime.device.Allocator`

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes` uninitialised bytes, aligned to 64. Raises OutOfMemory."""
        if nbytes < 0:
            raise ValueError(f"an allocation of {nbytes} bytes")
        size = size_class(nbytes)
        with self._lock:
            self._take_back()
            address = self._reuse(size)
            if address is None:
                address = self._fresh(size, nbytes)
            self._in_use += size
        return address

    def free(self, memory: int, nbytes: int) -> None:
        """Give memory back; `nbytes` is what it was allocated with."""
        # A finalizer may interrupt this thread while it holds the lock; the next call then takes the block.
        self._returned.append((memory, size_class(nbytes)))
        if self._lock.acquire(blocking=False):
            try:
                self._take_back()
            finally:
                self._lock.release()

    def copy_in(self, target: int, source: memoryview) -> None:
        """Copy bytes to an address; `source` is contiguous."""
        if source.nbytes:
            memory_view(target, source.nbytes)[:] = source.cast("B")

    def copy_out(self, target: memoryview, source: int) -> None:
        """Copy bytes from an address; `target` is contiguous and writable."""
        if target.nbytes:
            target.cast("B")[:] = memory_view(source, target.nbytes)

    def view(self, memory: int, offset: int, nbytes: int) -> int:
        """The address of a part; the allocation it belongs to has to be kept."""
        return memory + offset

    def host_view(self, memory: int, nbytes: int) -> memoryview:
        """The bytes themselves, writable, without a copy; valid as long as the allocation."""
        return memory_view(memory, nbytes)

    # -- housekeeping

    def stats(self) -> MemoryStatistics:
        """Where the memory is now."""
        with self._lock:
            self._take_back()
            return MemoryStatistics(self._in_use, self._idle, self._mapped)

    def trim(self, keep: int = 0) -> None:
        """Return idle large blocks to the system, oldest first, until at most `keep` bytes are idle."""
        with self._lock:
            self._take_back()
            self._release_idle(keep)

    # -- under the lock

    def _take_back(self) -> None:
        while self._returned:
            address, size = self._returned.popleft()
            self._in_use -= size
            if size <= SMALL:
                self._small.setdefault(size, []).append(address)
            else:
                self._large.setdefault(size, []).append(address)
                self._idle_order[address] = size
                self._idle += size
        if self._idle > self.idle_limit:
            self._release_idle(self.idle_limit)

    def _reuse(self, size: int) -> int | None:
        kept = (self._small if size <= SMALL else self._large).get(size)
        if not kept:
            return None
        address = kept.pop()  # the one freed last: it is in the caches
        if size > SMALL:
            del self._idle_order[address]
            self._idle -= size
        return address

    def _fresh(self, size: int, nbytes: int) -> int:
        if size > SMALL:
            return self._map(size, nbytes)
        if size > self._arena_left:
            # The rest of the old arena is lost, at most an eighth of it.
            self._arena, self._arena_left = self._map(ARENA, nbytes), ARENA
        address = self._arena
        self._arena += size
        self._arena_left -= size
        return address

    def _map(self, size: int, nbytes: int) -> int:
        alignment = HUGE_PAGE if size >= HUGE_PAGE else ALIGNMENT
        try:
            address = map_pages(size, alignment)
        except MemoryError:
            self._release_idle(0)
            try:
                address = map_pages(size, alignment)
            except MemoryError:
                raise OutOfMemory(
                    f"no memory for a buffer of {nbytes:,} bytes; {self._in_use:,} bytes are in use",
                    hint="use a smaller batch, or drop tensors that are no longer needed",
                ) from None
        if size >= HUGE_PAGE:
            advise_huge_pages(address, size)
        self._mapped += size
        return address

    def _release_idle(self, keep: int) -> None:
        while self._idle > keep:
            address, size = self._idle_order.popitem(last=False)
            self._large[size].remove(address)
            self._idle -= size
            self._mapped -= size
            unmap_pages(address, size)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def size_class(nbytes: int) -> int:
    """What an allocation of `nbytes` really takes: a multiple of 64, of 2 MB above that, within 25 %.

    >>> [size_class(n) for n in (0, 1, 65, 300, 1000)]
    [64, 64, 128, 320, 1024]
    """
    if nbytes <= 4 * ALIGNMENT:
        return round_up(max(nbytes, 1), ALIGNMENT)
    step = 1 << ((nbytes - 1).bit_length() - 3)
    if nbytes > HUGE_PAGE:
        step = max(step if nbytes <= 32 * HUGE_PAGE else 4 * HUGE_PAGE, HUGE_PAGE)
    return round_up(nbytes, max(step, ALIGNMENT))


def _default_idle_limit() -> int:
    """A quarter of the machine's memory, at most `IDLE_BYTES`."""
    try:
        return min(IDLE_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return IDLE_BYTES // 4


_allocators: weakref.WeakSet[HostAllocator] = weakref.WeakSet()


def _after_fork() -> None:
    # Another thread of the parent may have held the lock; it does not exist here.
    for allocator in list(_allocators):
        allocator._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

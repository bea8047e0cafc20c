"""Anonymous memory from the operating system, with the protections that Python's `mmap` does not offer."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from typing import Any

PAGE = mmap.PAGESIZE
HUGE_PAGE = 2 << 20

READ, WRITE, EXECUTE = 1, 2, 4
_ADVISE_HUGE_PAGE = 14  # MADV_HUGEPAGE

POSIX = os.name == "posix"


def round_up(size: int, alignment: int) -> int:
    """The smallest multiple of `alignment`, a power of two, that is not below `size`.

    >>> round_up(65, 64)
    128
    """
    return (size + alignment - 1) & -alignment


def map_pages(size: int, alignment: int = PAGE) -> int:
    """The address of `size` fresh zeroed bytes, readable and writable, aligned to `alignment`.

    Raises MemoryError when the system has none.
    """
    size = round_up(size, PAGE)
    if not POSIX:
        return _map_with_python(size, alignment)
    slack = alignment if alignment > PAGE else 0
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = _c_library().mmap(None, size + slack, READ | WRITE, anonymous, -1, 0)
    if start in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(f"mmap of {size} bytes: {os.strerror(ctypes.get_errno())}")
    aligned = round_up(start, alignment)
    if aligned > start:
        unmap_pages(start, aligned - start)
    if start + slack > aligned:
        unmap_pages(aligned + size, start + slack - aligned)
    return int(aligned)


def unmap_pages(address: int, size: int) -> None:
    """Give pages back. Nothing may point into them any more."""
    if POSIX:
        if _c_library().munmap(address, round_up(size, PAGE)) != 0:
            raise OSError(ctypes.get_errno(), f"munmap of {size} bytes at {address:#x}")
    else:
        _python_maps.pop(address, None)


def protect_pages(address: int, size: int, protection: int) -> None:
    """Set what may be done with pages: a sum of READ, WRITE and EXECUTE. POSIX only; raises OSError."""
    if _c_library().mprotect(address, round_up(size, PAGE), protection) != 0:
        raise OSError(ctypes.get_errno(), f"mprotect of {size} bytes at {address:#x}")


def advise_huge_pages(address: int, size: int) -> None:
    """Ask Linux for 2 MB pages; first touch of 4 KB pages costs more than most kernels compute."""
    if sys.platform == "linux":
        _c_library().madvise(address, size, _ADVISE_HUGE_PAGE)  # advice: a refusal changes nothing


def memory_view(address: int, size: int) -> memoryview:
    """The bytes at an address, writable, as a flat memoryview. The caller keeps them mapped."""
    return memoryview((ctypes.c_char * size).from_address(address) if size else bytearray()).cast("B")


@functools.cache
def _c_library() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


_python_maps: dict[int, mmap.mmap] = {}


def _map_with_python(size: int, alignment: int) -> int:
    """Where libc has no mmap: Python's own, kept alive under the aligned address."""
    try:
        region = mmap.mmap(-1, size + alignment)
    except OSError as error:
        raise MemoryError(f"no {size} bytes: {error}") from None
    aligned = round_up(ctypes.addressof(ctypes.c_char.from_buffer(region)), alignment)
    _python_maps[aligned] = region
    return aligned

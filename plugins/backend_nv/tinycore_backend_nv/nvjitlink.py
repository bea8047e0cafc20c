"""PTX to machine code without a driver: libnvJitLink, which ``pip install tinycore-backend-nv[aot]`` brings.

Not needed to run anything, the driver translates PTX itself. It is how a machine with no GPU says whether PTX
is valid, and how code is made ahead of time.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

from tinycore.errors import BackendUnavailable, CompileError

_PTX = 2
HINT = "python -m pip install 'tinycore-backend-nv[aot]'"


def machine_code(ptx: bytes, architecture: str) -> tuple[bytes, str]:
    """A cubin for PTX, and what the assembler said about registers and memory.

    Raises CompileError with the assembler's message when the PTX is not valid, BackendUnavailable when
    libnvJitLink is not installed.
    """
    library = _library()
    options = (f"-arch={architecture}", "-verbose")
    words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    handle = ctypes.c_void_p()
    status = library.nvJitLinkCreate(ctypes.byref(handle), len(options), words)
    if status:
        raise CompileError(f"nvJitLink cannot assemble for {architecture} (status {status})")
    try:
        text = ptx.rstrip(b"\0")
        status = library.nvJitLinkAddData(handle, _PTX, text, len(text), b"kernel.ptx")
        status = status or library.nvJitLinkComplete(handle)
        if status:
            message = _text(library, handle, "ErrorLog").strip() or f"status {status}"
            raise CompileError(f"the PTX is not valid for {architecture}", where=message)
        size = ctypes.c_size_t()
        library.nvJitLinkGetLinkedCubinSize(handle, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        library.nvJitLinkGetLinkedCubin(handle, cubin)
        return cubin.raw, _text(library, handle, "InfoLog")
    finally:
        library.nvJitLinkDestroy(ctypes.byref(handle))


def available() -> bool:
    """Whether libnvJitLink is installed."""
    return _find() is not None


def _text(library: ctypes.CDLL, handle: ctypes.c_void_p, log: str) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvJitLinkGet{log}Size")(handle, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value + 1)
    getattr(library, f"nvJitLinkGet{log}")(handle, buffer)
    return buffer.value.decode(errors="replace")


@functools.cache
def _library() -> ctypes.CDLL:
    path = _find()
    if path is None:
        raise BackendUnavailable("libnvJitLink is not installed", hint=HINT)
    library = ctypes.CDLL(str(path))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.nvJitLinkCreate.argtypes = [pointer, ctypes.c_uint32, pointer]
    library.nvJitLinkAddData.argtypes = [pointer, ctypes.c_int, ctypes.c_char_p, size, ctypes.c_char_p]
    library.nvJitLinkComplete.argtypes = [pointer]
    library.nvJitLinkDestroy.argtypes = [pointer]
    for what in ("LinkedCubin", "ErrorLog", "InfoLog"):
        getattr(library, f"nvJitLinkGet{what}Size").argtypes = [pointer, pointer]
        getattr(library, f"nvJitLinkGet{what}").argtypes = [pointer, pointer]
    return library


@functools.cache
def _find() -> Path | None:
    """The library inside NVIDIA's wheel, a namespace package without an __init__."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec is not None else ():
        for pattern in (
            "*/lib/libnvJitLink.so*",
            "*/bin/**/nvJitLink_*.dll",
            "nvjitlink/lib/libnvJitLink.so*",
        ):
            for found in sorted(Path(root).glob(pattern), reverse=True):
                return found
    return None

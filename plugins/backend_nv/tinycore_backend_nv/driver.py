"""The CUDA driver API over ctypes: the functions in use, their types, and errors with names.

Nothing of a toolkit is needed: ``libcuda.so.1`` (``nvcuda.dll``) comes with the graphics driver.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, Final

from tinycore.errors import BackendUnavailable, TinycoreError

INSTALL_HINT: Final = "install NVIDIA's driver; `nvidia-smi` should list the card"
OUT_OF_MEMORY: Final = 2
JIT_ERROR_LOG_BUFFER: Final = 5
JIT_ERROR_LOG_SIZE: Final = 6

MAX_THREADS: Final = 1
MAX_SHARED: Final = 8
MULTIPROCESSORS: Final = 16
L2_BYTES: Final = 38
MAJOR: Final = 75
MINOR: Final = 76


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2."""

    _fields_ = (
        ("function", c_void_p),
        ("grid_x", c_uint),
        ("grid_y", c_uint),
        ("grid_z", c_uint),
        ("block_x", c_uint),
        ("block_y", c_uint),
        ("block_z", c_uint),
        ("shared", c_uint),
        ("parameters", c_void_p),
        ("extra", c_void_p),
        ("kernel", c_void_p),
        ("context", c_void_p),
    )


_HANDLE = POINTER(c_void_p)
_DEVICE = c_int
_ADDRESS = c_uint64

SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(_DEVICE), c_int),
    "cuDeviceGetName": (c_char_p, c_int, _DEVICE),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, _DEVICE),
    "cuDevicePrimaryCtxRetain": (_HANDLE, _DEVICE),
    "cuDevicePrimaryCtxRelease_v2": (_DEVICE,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuStreamCreate": (_HANDLE, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(_ADDRESS), c_size_t),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoD_v2": (_ADDRESS, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, _ADDRESS, c_size_t),
    "cuModuleLoadDataEx": (_HANDLE, c_void_p, c_uint, POINTER(c_int), _HANDLE),
    "cuModuleGetFunction": (_HANDLE, c_void_p, c_char_p),
    "cuModuleUnload": (c_void_p,),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, c_void_p, c_void_p),
    "cuEventCreate": (_HANDLE, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuGraphCreate": (_HANDLE, c_uint),
    "cuGraphAddKernelNode_v2": (_HANDLE, c_void_p, _HANDLE, c_size_t, POINTER(KernelNode)),
    "cuGraphInstantiateWithFlags": (_HANDLE, c_void_p, c_uint64),
    "cuGraphExecKernelNodeSetParams_v2": (c_void_p, c_void_p, POINTER(KernelNode)),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}
"""Every function in use with the types of its parameters; all of them answer a CUresult."""


class CudaError(TinycoreError):
    """A call of the driver that failed.

    Attributes
    ----------
    status: the CUresult.
    """

    def __init__(self, function: str, status: int, name: str, text: str) -> None:
        self.status = status
        super().__init__(f"{function} failed: {name} ({text})")


class Driver:
    """The functions of `SIGNATURES`, checked.

    Parameters
    ----------
    library:
        An object with those functions as attributes, a ctypes library unless a test says otherwise. Raises
        BackendUnavailable when it is None and the driver is not installed, or too old to have them all.
    """

    def __init__(self, library: Any = None) -> None:
        library = _load() if library is None else library
        self._functions: dict[str, Any] = {}
        for name, parameters in SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise BackendUnavailable(
                    f"NVIDIA's driver has no {name}: it is older than CUDA 12", hint="update the driver"
                ) from None
            function.argtypes, function.restype = parameters, c_int
            self._functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises CudaError, with CUDA's name of the error, unless it answers success."""
        status = self._functions[name](*arguments)
        if status:
            raise CudaError(name, status, *self._explain(status))

    def create(self, name: str, *arguments: Any) -> int:
        """Call a function whose first parameter is where it writes a handle, and answer the handle."""
        handle = c_void_p()
        self.call(name, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def number(self, name: str, *arguments: Any) -> int:
        """Call a function whose first parameter is where it writes an int, and answer it."""
        value = c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def _explain(self, status: int) -> tuple[str, str]:
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            failed = self._functions[function](status, ctypes.byref(text))
            texts.append("?" if failed or text.value is None else text.value.decode(errors="replace"))
        return texts[0], texts[1]


def _load() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise BackendUnavailable(f"{name} cannot be loaded: {error}", hint=INSTALL_HINT) from None

"""The part of the OpenCL 1.2 API that this backend uses, bound with ctypes.

Any ICD loader will do; it is looked for when the first device is opened, never at import. Every call goes
through `Library.call`, which turns status codes into errors that name the function and the code.

>>> error_name(-5)
'CL_OUT_OF_RESOURCES'
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Final

from tinycore.errors import BackendUnavailable, TinycoreError

DEVICE_NOT_FOUND: Final = -1
PLATFORM_NOT_FOUND_KHR: Final = -1001
OUT_OF_MEMORY: Final = frozenset({-4, -5, -6, -61})

DEVICE_TYPE_ALL: Final = 0xFFFFFFFF
DEVICE_TYPE_CPU: Final = 1 << 1
DEVICE_TYPE_GPU: Final = 1 << 2

PLATFORM_NAME: Final = 0x0902
PLATFORM_VERSION: Final = 0x0901

DEVICE_TYPE: Final = 0x1000
DEVICE_MAX_COMPUTE_UNITS: Final = 0x1002
DEVICE_MAX_WORK_GROUP_SIZE: Final = 0x1004
DEVICE_MAX_WORK_ITEM_SIZES: Final = 0x1005
DEVICE_MAX_MEM_ALLOC_SIZE: Final = 0x1010
DEVICE_MAX_PARAMETER_SIZE: Final = 0x1017
DEVICE_SINGLE_FP_CONFIG: Final = 0x101B
DEVICE_GLOBAL_MEM_CACHE_SIZE: Final = 0x101E
DEVICE_LOCAL_MEM_SIZE: Final = 0x1023
DEVICE_AVAILABLE: Final = 0x1027
DEVICE_NAME: Final = 0x102B
DRIVER_VERSION: Final = 0x102D
DEVICE_VERSION: Final = 0x102F
DEVICE_EXTENSIONS: Final = 0x1030
DEVICE_DOUBLE_FP_CONFIG: Final = 0x1032

FP_INF_NAN: Final = 1 << 1
FP_FMA: Final = 1 << 5
FP_CORRECTLY_ROUNDED_DIVIDE_SQRT: Final = 1 << 7

QUEUE_PROFILING_ENABLE: Final = 1 << 1
MEM_READ_WRITE: Final = 1 << 0

PROGRAM_BINARY_SIZES: Final = 0x1165
PROGRAM_BINARIES: Final = 0x1166
PROGRAM_BUILD_LOG: Final = 0x1183
KERNEL_NUM_ARGS: Final = 0x1191
KERNEL_WORK_GROUP_SIZE: Final = 0x11B0

PROFILING_COMMAND_START: Final = 0x1282
PROFILING_COMMAND_END: Final = 0x1283

_ERRORS: Final[dict[int, str]] = {
    -1: "CL_DEVICE_NOT_FOUND",
    -2: "CL_DEVICE_NOT_AVAILABLE",
    -3: "CL_COMPILER_NOT_AVAILABLE",
    -4: "CL_MEM_OBJECT_ALLOCATION_FAILURE",
    -5: "CL_OUT_OF_RESOURCES",
    -6: "CL_OUT_OF_HOST_MEMORY",
    -7: "CL_PROFILING_INFO_NOT_AVAILABLE",
    -11: "CL_BUILD_PROGRAM_FAILURE",
    -14: "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
    -30: "CL_INVALID_VALUE",
    -33: "CL_INVALID_DEVICE",
    -34: "CL_INVALID_CONTEXT",
    -36: "CL_INVALID_COMMAND_QUEUE",
    -38: "CL_INVALID_MEM_OBJECT",
    -42: "CL_INVALID_BINARY",
    -43: "CL_INVALID_BUILD_OPTIONS",
    -44: "CL_INVALID_PROGRAM",
    -45: "CL_INVALID_PROGRAM_EXECUTABLE",
    -46: "CL_INVALID_KERNEL_NAME",
    -48: "CL_INVALID_KERNEL",
    -49: "CL_INVALID_ARG_INDEX",
    -50: "CL_INVALID_ARG_VALUE",
    -51: "CL_INVALID_ARG_SIZE",
    -52: "CL_INVALID_KERNEL_ARGS",
    -53: "CL_INVALID_WORK_DIMENSION",
    -54: "CL_INVALID_WORK_GROUP_SIZE",
    -55: "CL_INVALID_WORK_ITEM_SIZE",
    -61: "CL_INVALID_BUFFER_SIZE",
    -63: "CL_INVALID_GLOBAL_WORK_SIZE",
    -1001: "CL_PLATFORM_NOT_FOUND_KHR",
}

# The tail of every query: what, room, where, size needed.
_BUFFER_SIZED = (c_uint32, c_size_t, c_void_p, POINTER(c_size_t))
# The tail of every command: how many events to wait for, which, and the event of the command itself.
_EVENTS = (c_uint32, POINTER(c_void_p), POINTER(c_void_p))
_SIZES = POINTER(c_size_t)
_CODE = POINTER(c_int32)

_STATUS_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "clGetPlatformIDs": (c_uint32, POINTER(c_void_p), POINTER(c_uint32)),
    "clGetPlatformInfo": (c_void_p, *_BUFFER_SIZED),
    "clGetDeviceIDs": (c_void_p, c_uint64, c_uint32, POINTER(c_void_p), POINTER(c_uint32)),
    "clGetDeviceInfo": (c_void_p, *_BUFFER_SIZED),
    "clReleaseContext": (c_void_p,),
    "clReleaseCommandQueue": (c_void_p,),
    "clReleaseMemObject": (c_void_p,),
    "clReleaseProgram": (c_void_p,),
    "clReleaseKernel": (c_void_p,),
    "clReleaseEvent": (c_void_p,),
    "clEnqueueReadBuffer": (c_void_p, c_void_p, c_uint32, c_size_t, c_size_t, c_void_p, *_EVENTS),
    "clEnqueueWriteBuffer": (c_void_p, c_void_p, c_uint32, c_size_t, c_size_t, c_void_p, *_EVENTS),
    "clBuildProgram": (c_void_p, c_uint32, POINTER(c_void_p), c_char_p, c_void_p, c_void_p),
    "clGetProgramInfo": (c_void_p, *_BUFFER_SIZED),
    "clGetProgramBuildInfo": (c_void_p, c_void_p, *_BUFFER_SIZED),
    "clGetKernelInfo": (c_void_p, *_BUFFER_SIZED),
    "clGetKernelWorkGroupInfo": (c_void_p, c_void_p, *_BUFFER_SIZED),
    "clSetKernelArg": (c_void_p, c_uint32, c_size_t, c_void_p),
    "clEnqueueNDRangeKernel": (c_void_p, c_void_p, c_uint32, _SIZES, _SIZES, _SIZES, *_EVENTS),
    "clWaitForEvents": (c_uint32, POINTER(c_void_p)),
    "clGetEventProfilingInfo": (c_void_p, *_BUFFER_SIZED),
    "clFinish": (c_void_p,),
}
"""Functions that answer a status: name -> argument types."""

_OBJECT_FUNCTIONS: Final[dict[str, tuple[Any, ...]]] = {
    "clCreateContext": (c_void_p, c_uint32, POINTER(c_void_p), c_void_p, c_void_p, _CODE),
    "clCreateCommandQueue": (c_void_p, c_void_p, c_uint64, _CODE),
    "clCreateBuffer": (c_void_p, c_uint64, c_size_t, c_void_p, _CODE),
    "clCreateProgramWithSource": (c_void_p, c_uint32, POINTER(c_char_p), _SIZES, _CODE),
    "clCreateProgramWithBinary": (
        c_void_p,
        c_uint32,
        POINTER(c_void_p),
        _SIZES,
        POINTER(c_char_p),
        _CODE,
        _CODE,
    ),
    "clCreateKernel": (c_void_p, c_char_p, _CODE),
}
"""Functions that answer a handle and write the status through their last argument."""


class OpenCLError(TinycoreError):
    """An OpenCL call failed.

    Attributes
    ----------
    function: which call.
    code: its status.
    """

    def __init__(self, function: str, code: int, hint: str | None = None) -> None:
        self.function, self.code = function, code
        if hint is None and code in OUT_OF_MEMORY:
            hint = "the device is out of memory: use smaller batches or free tensors"
        super().__init__(f"{function} failed: {error_name(code)} ({code})", hint=hint)


def error_name(code: int) -> str:
    """The name of a status code.

    >>> error_name(-9999)
    'unknown OpenCL error'
    """
    return _ERRORS.get(code, "unknown OpenCL error")


def candidates(platform: str = sys.platform) -> tuple[str, ...]:
    """Names under which an ICD loader may be found on a platform, best first.

    >>> candidates("win32")
    ('OpenCL.dll',)
    """
    if platform == "darwin":
        return ("/System/Library/Frameworks/OpenCL.framework/OpenCL",)
    if platform == "win32":
        return ("OpenCL.dll",)
    found = ctypes.util.find_library("OpenCL")
    return ("libOpenCL.so.1", "libOpenCL.so", *([found] if found else []))


class Library:
    """A loaded ICD loader with typed functions."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        """Load the first of `names` that loads. Raises BackendUnavailable when none does."""
        tried = candidates() if names is None else tuple(names)
        library = next((found for name in tried if (found := _load(name)) is not None), None)
        if library is None:
            what = f"no OpenCL loader was found (tried {', '.join(tried)})"
            raise BackendUnavailable(what, hint=INSTALL_HINT)
        self._functions: dict[str, Any] = {}
        for table, result in ((_STATUS_FUNCTIONS, c_int32), (_OBJECT_FUNCTIONS, c_void_p)):
            for name, arguments in table.items():
                function = getattr(library, name)
                function.argtypes, function.restype = arguments, result
                self._functions[name] = function

    def status(self, name: str, *arguments: Any) -> int:
        """Call a function and answer its status code."""
        return int(self._functions[name](*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that answers a status. Raises OpenCLError unless it is CL_SUCCESS."""
        code = self._functions[name](*arguments)
        if code:
            raise OpenCLError(name, code)

    def create(self, name: str, *arguments: Any) -> int:
        """Call a function that answers a handle. Raises OpenCLError when there is none."""
        code = c_int32(0)
        handle = self._functions[name](*arguments, ctypes.byref(code))
        if code.value or not handle:
            raise OpenCLError(name, code.value)
        return int(handle)

    def information(self, name: str, *leading: Any) -> bytes:
        """The answer of one of the `clGet...Info` queries, whatever its size."""
        size = c_size_t(0)
        self.call(name, *leading, 0, None, ctypes.byref(size))
        if not size.value:
            return b""
        room = ctypes.create_string_buffer(size.value)
        self.call(name, *leading, size.value, room, None)
        return room.raw

    def text(self, name: str, *leading: Any) -> str:
        """A query that answers text."""
        return self.information(name, *leading).split(b"\0", 1)[0].decode("utf-8", "replace").strip()

    def number(self, name: str, *leading: Any) -> int:
        """A query that answers one integer."""
        return int.from_bytes(self.information(name, *leading), sys.byteorder)


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


INSTALL_HINT: Final = (
    "install an OpenCL driver: the one of your graphics card, or PoCL, which runs on any processor "
    "(Debian and Ubuntu: apt install ocl-icd-libopencl1 pocl-opencl-icd)"
)
"""What to do when there is no OpenCL on the machine."""

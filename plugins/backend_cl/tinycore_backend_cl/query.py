"""Which OpenCL devices there are, and what one of them can do, as data for the compiler."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from ctypes import c_uint32, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path

from tinycore.errors import BackendUnavailable
from tinycore.ir import Capabilities, DType, Target, dtypes, ops
from tinycore.ir.target import BASIC_OPS
from tinycore_backend_cl import api

VECTOR_BYTES = 16
"""Width of explicit vectors: what one memory transaction of a work-item can carry on GPUs."""
INTEGERS = (dtypes.bool_, *dtypes.SIGNED, *dtypes.UNSIGNED)
RESERVED_PARAMETER_BYTES = 128
"""Room for the variables of a kernel, which share the parameter space with its buffers."""


@dataclass(frozen=True, slots=True)
class Description:
    """Everything that is asked of a device once, when it is opened.

    Attributes
    ----------
    platform: the driver's name and version.
    name: of the device.
    version, driver: as the device reports them.
    extensions: by name.
    compute_units, local_bytes, cache_bytes, parameter_bytes, allocation_bytes: sizes.
    work_items: most work-items of a group in each dimension.
    group_size: most work-items of a group.
    single, double: floating point configuration bits of float32 and float64 (0: no float64).
    """

    platform: str
    name: str
    version: str
    driver: str
    extensions: frozenset[str]
    compute_units: int
    group_size: int
    work_items: tuple[int, ...]
    local_bytes: int
    cache_bytes: int
    parameter_bytes: int
    allocation_bytes: int
    single: int
    double: int

    @property
    def half_arithmetic(self) -> bool:
        """Whether arithmetic on float16 is possible; storing it always is."""
        return "cl_khr_fp16" in self.extensions

    @property
    def double_arithmetic(self) -> bool:
        """Whether the device has float64."""
        return bool(self.double) or "cl_khr_fp64" in self.extensions

    @property
    def fingerprint(self) -> str:
        """Everything about the device and its driver that can make compiled code differ."""
        return "|".join((self.platform, self.name, self.version, self.driver))


def devices(library: api.Library) -> list[tuple[int, int]]:
    """Every available device as (platform, device), GPUs and accelerators before processors.

    Raises BackendUnavailable when there is no platform or no device.
    """
    found = [
        (library.number("clGetDeviceInfo", device, api.DEVICE_TYPE) & api.DEVICE_TYPE_CPU, platform, device)
        for platform in _platforms(library)
        for device in _devices_of(library, platform)
        if library.number("clGetDeviceInfo", device, api.DEVICE_AVAILABLE)
    ]
    if not found:
        raise BackendUnavailable("the OpenCL loader knows no device", hint=api.INSTALL_HINT)
    return [(platform, device) for _, platform, device in sorted(found, key=lambda entry: entry[0])]


def _platforms(library: api.Library) -> list[int]:
    count = c_uint32(0)
    code = library.status("clGetPlatformIDs", 0, None, ctypes.byref(count))
    if code == api.PLATFORM_NOT_FOUND_KHR or (code == 0 and not count.value):
        raise BackendUnavailable("there is an OpenCL loader but no OpenCL driver", hint=api.INSTALL_HINT)
    if code:
        raise BackendUnavailable(f"the OpenCL loader failed: {api.error_name(code)}", hint=api.INSTALL_HINT)
    handles = (c_void_p * count.value)()
    library.call("clGetPlatformIDs", count.value, handles, None)
    return [int(handle) for handle in handles if handle]


def _devices_of(library: api.Library, platform: int) -> list[int]:
    count = c_uint32(0)
    code = library.status("clGetDeviceIDs", platform, api.DEVICE_TYPE_ALL, 0, None, ctypes.byref(count))
    if code or not count.value:  # a platform without a device does not hide the others
        return []
    handles = (c_void_p * count.value)()
    library.call("clGetDeviceIDs", platform, api.DEVICE_TYPE_ALL, count.value, handles, None)
    return [int(handle) for handle in handles if handle]


def describe(library: api.Library, platform: int, device: int) -> Description:
    """Ask a device everything that `capabilities` needs."""

    def text(what: int) -> str:
        return library.text("clGetDeviceInfo", device, what)

    def number(what: int) -> int:
        return library.number("clGetDeviceInfo", device, what)

    sizes = library.information("clGetDeviceInfo", device, api.DEVICE_MAX_WORK_ITEM_SIZES)
    room = ctypes.c_size_t * (len(sizes) // ctypes.sizeof(ctypes.c_size_t))
    extensions = frozenset(text(api.DEVICE_EXTENSIONS).split())
    return Description(
        platform=" ".join(
            library.text("clGetPlatformInfo", platform, what)
            for what in (api.PLATFORM_NAME, api.PLATFORM_VERSION)
        ),
        name=text(api.DEVICE_NAME),
        version=text(api.DEVICE_VERSION),
        driver=text(api.DRIVER_VERSION),
        extensions=extensions,
        compute_units=number(api.DEVICE_MAX_COMPUTE_UNITS),
        group_size=number(api.DEVICE_MAX_WORK_GROUP_SIZE),
        work_items=tuple(room.from_buffer_copy(sizes)),
        local_bytes=number(api.DEVICE_LOCAL_MEM_SIZE),
        cache_bytes=number(api.DEVICE_GLOBAL_MEM_CACHE_SIZE),
        parameter_bytes=number(api.DEVICE_MAX_PARAMETER_SIZE),
        allocation_bytes=number(api.DEVICE_MAX_MEM_ALLOC_SIZE),
        single=number(api.DEVICE_SINGLE_FP_CONFIG),
        # Drivers of OpenCL 1.1 refuse the question unless they have the extension.
        double=number(api.DEVICE_DOUBLE_FP_CONFIG) if "cl_khr_fp64" in extensions else 0,
    )


def storage_dtypes(double: bool) -> frozenset[DType]:
    """What buffers may hold: float16 and bfloat16 need no arithmetic to be stored.

    The renderer could store 8-bit floats too; they are claimed once reductions of them are carried wider.
    """
    floats = (dtypes.float16, dtypes.bfloat16, dtypes.float32)
    return frozenset({*INTEGERS, *floats, *((dtypes.float64,) if double else ())})


def arithmetic_dtypes(half: bool, double: bool) -> frozenset[DType]:
    """What arithmetic is done in."""
    optional = ((dtypes.float16, half), (dtypes.float64, double))
    return frozenset({*INTEGERS, dtypes.float32, *(dtype for dtype, there in optional if there)})


def capabilities(description: Description) -> Capabilities:
    """What the compiler may use on a device."""
    half, double = description.half_arithmetic, description.double_arithmetic
    fused = description.single & api.FP_FMA and (not double or description.double & api.FP_FMA)
    return Capabilities(
        ops=BASIC_OPS | ({ops.FMA} if fused else frozenset()),
        dtypes=storage_dtypes(double),
        arithmetic=arithmetic_dtypes(half, double),
        vector_bytes=VECTOR_BYTES,
        vector_registers=32,
        threads=description.compute_units,
        workgroups=True,
        local_size=min([description.group_size, *description.work_items[:1]]),
        shared_bytes=description.local_bytes,
        index_bits=(32, 64),
        max_buffers=max(8, (description.parameter_bytes - RESERVED_PARAMETER_BYTES) // 16),
        cache_bytes=(description.cache_bytes,) if description.cache_bytes else (),
    )


def target(description: Description) -> Target:
    """What kernels for a device are compiled for."""
    fingerprint = f"{description.fingerprint}|{_own_digest()}"
    return Target("CL", description.name, capabilities(description), fingerprint)


@functools.cache
def _own_digest() -> str:
    """Of this package's files: an edited renderer must not meet code that an older one wrote."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".rules"))
    return hashlib.blake2b(b"\0".join(path.read_bytes() for path in files), digest_size=8).hexdigest()


def generic_target(architecture: str | None) -> Target:
    """A target for no device in particular."""
    return replace(target(GENERIC), architecture=architecture or GENERIC.name)


GENERIC = Description(
    platform="generic",
    name="generic",
    version="OpenCL 1.2",
    driver="none",
    extensions=frozenset({"cl_khr_fp64"}),
    compute_units=16,
    group_size=256,
    work_items=(256, 256, 64),
    local_bytes=32768,
    cache_bytes=0,
    parameter_bytes=1024,
    allocation_bytes=1 << 30,
    single=0xBF,
    double=0xBF,
)
"""What kernels are rendered for when no device is present: within the limits of common graphics cards."""

"""An NVIDIA GPU as a `GraphDevice`: memory, launches in one stream, time by events, CUDA graphs."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_uint64, c_void_p
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

import numpy as np
from tinycore_codegen_llvm import gpu

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable, BindingError, CompileError, TinycoreError
from tinycore.runtime.device import Executable, Launch, Signature
from tinycore_backend_nv import driver as api
from tinycore_backend_nv.driver import CudaError, Driver
from tinycore_backend_nv.target import NAME, PTX_VERSIONS, NvTarget, target

_LOG_BYTES = 8192
_SMALLEST = 256
# The first driver, as cuDriverGetVersion counts, that translates a PTX version.
_DRIVER_OF_PTX = {80: 12000, 86: 12070, 87: 12080, 88: 12090}


@dataclass(frozen=True, slots=True)
class Session:
    """The handles of one opened device."""

    driver: Driver
    device: int
    context: int
    stream: int
    threads: threading.local

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver with this device's context current in the calling thread."""
        self.bind()
        self.driver.call(name, *arguments)

    def create(self, name: str, *arguments: object) -> int:
        """The same for functions that make a handle."""
        self.bind()
        return self.driver.create(name, *arguments)

    def bind(self) -> None:
        """Make the context current; once a thread."""
        if getattr(self.threads, "bound", None) != self.context:
            self.driver.call("cuCtxSetCurrent", self.context)
            self.threads.bound = self.context


class CudaAllocator:
    """Device memory; implements `tinycore.runtime.device.Allocator`. What is freed is kept for the next one.

    Launches run in order in one stream, so memory may be given out again while a kernel still uses it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._idle: dict[int, list[int]] = {}

    def allocate(self, nbytes: int) -> int:
        """The address of new memory, aligned to 256 bytes. Raises TinycoreError when there is not enough."""
        size = max(nbytes, _SMALLEST)
        idle = self._idle.get(size)
        if idle:
            return idle.pop()
        try:
            return self._fresh(size)
        except CudaError as error:
            if error.status != api.OUT_OF_MEMORY:
                raise
        self.trim()
        try:
            return self._fresh(size)
        except CudaError as error:
            raise TinycoreError(
                f"{NAME} has no room for {nbytes} bytes: {error.what}",
                hint="use smaller batches, or drop tensors that are not needed",
            ) from error

    def _fresh(self, size: int) -> int:
        address = c_uint64()
        self._session.call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, memory: int, nbytes: int) -> None:
        """Keep memory for the next allocation of that size."""
        self._idle.setdefault(max(nbytes, _SMALLEST), []).append(memory)

    def trim(self) -> None:
        """Give idle memory back to the driver."""
        for addresses in self._idle.values():
            while addresses:
                self._session.call("cuMemFree_v2", addresses.pop())

    def copy_in(self, target: int, source: memoryview) -> None:
        """Host to device, after everything launched before."""
        if source.nbytes:
            self._session.call("cuStreamSynchronize", self._session.stream)
            address = np.frombuffer(source, np.uint8).ctypes.data
            self._session.call("cuMemcpyHtoD_v2", target, address, source.nbytes)

    def copy_out(self, target: memoryview, source: int) -> None:
        """Device to host, after everything launched before."""
        if target.nbytes:
            self._session.call("cuStreamSynchronize", self._session.stream)
            address = np.frombuffer(target, np.uint8).ctypes.data
            self._session.call("cuMemcpyDtoH_v2", address, source, target.nbytes)

    def view(self, memory: int, offset: int, nbytes: int) -> int:
        """A part of an allocation."""
        return memory + offset

    def host_view(self, memory: int, nbytes: int) -> memoryview | None:
        """None: the host cannot see this memory."""
        return None


class CudaKernel:
    """A loaded kernel; implements `tinycore.runtime.device.Executable`."""

    def __init__(self, session: Session, binary: bytes, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        self._count = signature.buffers + signature.variables
        self.block = gpu.extent(signature.group)
        self._module = _load_module(session, binary, signature.name)
        try:
            self.function = session.create("cuModuleGetFunction", self._module, signature.name.encode())
        except CudaError as error:
            self.close()
            raise CompileError(f"the code of {signature.name} holds no such kernel: {error.what}") from error

    def launch(self, buffers: Sequence[int], variables: Sequence[int], grid: Sequence[int]) -> None:
        """Start the kernel behind what was started before. Raises BindingError for wrong arguments."""
        words, pointers = self.pack(buffers, variables)
        x, y, z = gpu.extent(list(grid))
        if x * y * z:  # an empty grid is no error here, and one for CUDA
            stream = self._session.stream
            self._session.call(
                "cuLaunchKernel", self.function, x, y, z, *self.block, 0, stream, pointers, None
            )
        del words  # the driver has copied them

    def pack(self, buffers: Sequence[int], variables: Sequence[int]) -> tuple[object, object]:
        """The argument words, and the array of pointers to them that CUDA takes."""
        if (len(buffers), len(variables)) != (self.signature.buffers, self.signature.variables):
            wanted = self.signature
            raise BindingError(
                f"kernel {wanted.name} takes {wanted.buffers} buffers and {wanted.variables} variables, "
                f"and was given {len(buffers)} and {len(variables)}"
            )
        words = (c_uint64 * max(1, self._count))(*buffers, *[value & (1 << 64) - 1 for value in variables])
        first = ctypes.addressof(words)
        pointers = (c_void_p * max(1, self._count))(*[first + 8 * place for place in range(self._count)])
        return words, pointers

    def close(self) -> None:
        """Unload the code."""
        self._session.call("cuModuleUnload", self._module)


class CudaGraph:
    """Captured launches as one CUDA graph, a chain; implements `tinycore.runtime.device.Graph`.

    Attributes
    ----------
    close: gives the graph back; happens by itself when nobody holds it.
    """

    def __init__(self, session: Session, launches: Sequence[Launch]) -> None:
        self._session = session
        self._kernels = [_kernel(launch) for launch in launches]
        self._launches = [*launches]
        self._graph = session.create("cuGraphCreate", 0)
        self._nodes: list[int] = []
        for launch in launches:
            previous = (c_void_p * 1)(*self._nodes[-1:]) if self._nodes else None
            parameters, _kept = self._parameters(launch)
            self._nodes.append(
                session.create(
                    "cuGraphAddKernelNode_v2", self._graph, previous, len(self._nodes[-1:]), byref(parameters)
                )
            )
        self._executable = session.create("cuGraphInstantiateWithFlags", self._graph, 0)
        self.close = weakref.finalize(self, _destroy_graph, session, self._executable, self._graph)
        self.close.atexit = False  # the driver may be gone by then

    def replay(self) -> None:
        """Run all launches in order."""
        self._session.call("cuGraphLaunch", self._executable, self._session.stream)

    def update(self, position: int, launch: Launch) -> None:
        """Exchange buffers, variables or grid of one launch. Raises TinycoreError when the kernel differs."""
        if _kernel(launch) is not self._kernels[position]:
            name = self._kernels[position].signature.name
            raise TinycoreError(f"launch {position} of this graph runs {name}, not another")
        self._launches[position] = launch
        parameters, _kept = self._parameters(launch)
        self._session.call(
            "cuGraphExecKernelNodeSetParams_v2", self._executable, self._nodes[position], byref(parameters)
        )

    def rebind(self, buffers: Sequence[int]) -> None:
        """Exchange the buffers of all launches. Raises BindingError for another number of them."""
        counts = [len(launch.buffers) for launch in self._launches]
        if sum(counts) != len(buffers):
            raise BindingError(f"a graph takes {sum(counts)} buffers, and was given {len(buffers)}")
        rest = iter(buffers)
        for position, (launch, count) in enumerate(zip(self._launches, counts, strict=True)):
            mine = tuple(islice(rest, count))
            if mine != launch.buffers:
                self.update(position, replace(launch, buffers=mine))

    def _parameters(self, launch: Launch) -> tuple[api.KernelNode, object]:
        kernel = _kernel(launch)
        words, pointers = kernel.pack(launch.buffers, launch.variables)
        grid = gpu.extent(list(launch.grid))
        if 0 in grid:
            raise TinycoreError(
                f"an empty launch of {kernel.signature.name} cannot be captured",
                hint="leave it out: it does nothing",
            )
        parameters = api.KernelNode(
            kernel.function,
            *grid,
            *kernel.block,
            0,
            ctypes.cast(cast(c_void_p, pointers), c_void_p),
            None,
            None,
            None,
        )
        return parameters, (words, pointers)


def _destroy_graph(session: Session, executable: int, graph: int) -> None:
    session.call("cuGraphExecDestroy", executable)
    session.call("cuGraphDestroy", graph)


class CudaDevice:
    """One opened GPU. A `tinycore.runtime.device.GraphDevice`; source text is LLVM IR, code is PTX."""

    def __init__(self, session: Session, described: NvTarget, name: str = NAME) -> None:
        self.name = name
        self.target: NvTarget = described
        self.allocator = CudaAllocator(session)
        self._session = session
        self._kernels: list[CudaKernel] = []  # kept: a launch may still be running when nobody holds them
        self._graphs: weakref.WeakSet[CudaGraph] = weakref.WeakSet()

    def render(self, program: Program) -> str:
        """LLVM IR."""
        return self.target.render(program)

    def compile(self, source: str, name: str) -> bytes:
        """PTX. Raises CompileError."""
        return self.target.compile(source, name)

    def load(self, binary: bytes, signature: Signature) -> CudaKernel:
        """Let the driver translate PTX, and find the kernel. Raises CompileError with the driver's log."""
        kernel = CudaKernel(self._session, binary, signature)
        self._kernels.append(kernel)
        return kernel

    def synchronize(self) -> None:
        """Wait for everything in the stream."""
        self._session.call("cuStreamSynchronize", self._session.stream)

    def elapsed(
        self, executable: Executable, buffers: Sequence[int], variables: Sequence[int], grid: Sequence[int]
    ) -> float:
        """Seconds of one launch, by the device's own clock."""
        session = self._session
        start, stop = (session.create("cuEventCreate", 0) for _ in range(2))
        try:
            session.call("cuEventRecord", start, session.stream)
            executable.launch(buffers, variables, grid)
            session.call("cuEventRecord", stop, session.stream)
            session.call("cuEventSynchronize", stop)
            milliseconds = c_float()
            session.call("cuEventElapsedTime", byref(milliseconds), start, stop)
            return milliseconds.value / 1000
        finally:
            for event in (start, stop):
                session.call("cuEventDestroy_v2", event)

    def capture(self, launches: Sequence[Launch]) -> CudaGraph:
        """The launches as one CUDA graph."""
        graph = CudaGraph(self._session, launches)
        self._graphs.add(graph)
        return graph

    def close(self) -> None:
        """Release everything; the device cannot be used afterwards."""
        self.synchronize()
        for graph in list(self._graphs):
            graph.close()
        for kernel in self._kernels:
            kernel.close()
        self.allocator.trim()
        self._session.call("cuStreamDestroy_v2", self._session.stream)
        self._session.call("cuDevicePrimaryCtxRelease_v2", self._session.device)


def open_device(index: int = 0, driver: Driver | None = None) -> CudaDevice:
    """Open the GPU of that number. Raises BackendUnavailable, saying what to install.

    `driver` is NVIDIA's unless a test brings its own.
    """
    driver = Driver() if driver is None else driver
    try:
        driver.call("cuInit", 0)
        count = driver.number("cuDeviceGetCount")
        if not 0 <= index < count:
            raise BackendUnavailable(
                f"there is no NVIDIA GPU number {index}, only {count}", hint=api.INSTALL_HINT
            )
        device = driver.number("cuDeviceGet", index)
        described = _describe(driver, device)
        context = driver.create("cuDevicePrimaryCtxRetain", device)
        driver.call("cuCtxSetCurrent", context)
        stream = driver.create("cuStreamCreate", 0)
    except CudaError as error:
        raise BackendUnavailable(
            f"the NVIDIA GPU cannot be opened: {error.what}", hint=api.INSTALL_HINT
        ) from error
    session = Session(driver, device, context, stream, threading.local())
    return CudaDevice(session, described, NAME if index == 0 else f"{NAME}:{index}")


def _describe(driver: Driver, device: int) -> NvTarget:
    """The target of a device: its own architecture, or the newest known one whose PTX runs on it."""

    def attribute(number: int) -> int:
        return driver.number("cuDeviceGetAttribute", number, device)

    capability = attribute(api.MAJOR) * 10 + attribute(api.MINOR)
    version = driver.number("cuDriverGetVersion")
    older = {
        int(name[3:]): name for name in PTX_VERSIONS if name[3:].isdigit() and int(name[3:]) <= capability
    }
    if not older:
        raise BackendUnavailable(
            f"compute capability {capability / 10} is too old", hint="8.0 and newer works"
        )
    usable = [number for number, name in older.items() if _DRIVER_OF_PTX[PTX_VERSIONS[name]] <= version]
    if not usable:
        raise BackendUnavailable(
            f"the driver is for CUDA {version // 1000}.{version % 1000 // 10}, and 12.0 is needed",
            hint="update the driver",
        )
    return target(older[max(usable)], attribute(api.MULTIPROCESSORS))


def _load_module(session: Session, binary: bytes, name: str) -> int:
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options = (c_int * 2)(api.JIT_ERROR_LOG_BUFFER, api.JIT_ERROR_LOG_SIZE)
    values = (c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
    try:
        return session.create("cuModuleLoadDataEx", binary, 2, options, values)
    except CudaError as error:
        where = log.value.decode(errors="replace").strip() or None
        raise CompileError(
            f"the driver does not accept the PTX of {name}: {error.what}", where=where
        ) from error


def _kernel(launch: Launch) -> CudaKernel:
    if not isinstance(launch.executable, CudaKernel):
        raise TinycoreError(f"a graph of {NAME} cannot hold a launch of another device")
    return launch.executable

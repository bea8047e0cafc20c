"""The device: memory, launches and time through one in-order queue."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from ctypes import c_void_p
from typing import cast

import numpy as np

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable, TinycoreError
from tinycore.ir import Target
from tinycore.runtime.device import Executable, Signature
from tinycore_backend_cl import api, query
from tinycore_backend_cl.opencl import render
from tinycore_backend_cl.program import Kernel, Memory, Session, compile_source


class BufferAllocator:
    """Device memory as OpenCL buffer objects; implements `tinycore.runtime.device.Allocator`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def allocate(self, nbytes: int) -> Memory:
        """A new buffer. Raises TinycoreError when the device cannot hold it."""
        most = self._session.description.allocation_bytes
        if nbytes > most:
            raise TinycoreError(
                f"a buffer of {nbytes} bytes is larger than the {most} that are allowed",
                hint="split the tensor, or use another device",
            )
        # OpenCL has no empty buffers.
        handle = self._session.library.create(
            "clCreateBuffer", self._session.context, api.MEM_READ_WRITE, max(nbytes, 1), None
        )
        return Memory(handle)

    def free(self, memory: Memory, nbytes: int) -> None:
        """Give a buffer back; the driver waits for the commands that use it."""
        self._session.library.call("clReleaseMemObject", memory.handle)

    def copy_in(self, target: Memory, source: memoryview) -> None:
        """Host to device; the source may be changed when this returns."""
        if source.nbytes:
            address = np.frombuffer(source, np.uint8).ctypes.data
            self._session.library.call(
                "clEnqueueWriteBuffer",
                self._session.queue,
                target.handle,
                1,
                target.offset,
                source.nbytes,
                address,
                0,
                None,
                None,
            )

    def copy_out(self, target: memoryview, source: Memory) -> None:
        """Device to host, after everything launched before."""
        if target.nbytes:
            address = np.frombuffer(target, np.uint8).ctypes.data
            self._session.library.call(
                "clEnqueueReadBuffer",
                self._session.queue,
                source.handle,
                1,
                source.offset,
                target.nbytes,
                address,
                0,
                None,
                None,
            )

    def view(self, memory: Memory, offset: int, nbytes: int) -> Memory:
        """A part of a buffer."""
        return Memory(memory.handle, memory.offset + offset)

    def host_view(self, memory: Memory, nbytes: int) -> memoryview | None:
        """None: OpenCL shows memory to the host only while no kernel may use it."""
        return None


class OpenCLDevice:
    """One opened OpenCL device; implements `tinycore.runtime.device.Device`."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self.target: Target = query.target(session.description)
        self.allocator = BufferAllocator(session)
        self._session = session
        self._kernels: weakref.WeakSet[Kernel] = weakref.WeakSet()

    def render(self, program: Program) -> str:
        """OpenCL C."""
        return render(program, self.target)

    def compile(self, source: str, name: str) -> bytes:
        """The driver's binary, or the source where drivers give none. Raises CompileError."""
        return compile_source(self._session, source, name)

    def load(self, binary: bytes, signature: Signature) -> Executable:
        """Make code callable. Raises CompileError when the driver refuses it."""
        kernel = Kernel(self._session, binary, signature)
        self._kernels.add(kernel)
        return kernel

    def synchronize(self) -> None:
        """Wait for everything in the queue."""
        self._session.library.call("clFinish", self._session.queue)

    def elapsed(
        self, executable: Executable, buffers: Sequence[Memory], variables: Sequence[int], grid: Sequence[int]
    ) -> float:
        """Seconds of one launch, by the device's own clock."""
        return cast(Kernel, executable).elapsed(buffers, variables, grid)

    def close(self) -> None:
        """Release everything; the device cannot be used afterwards."""
        library = self._session.library
        self.synchronize()
        for kernel in list(self._kernels):
            kernel.close()
        library.call("clReleaseCommandQueue", self._session.queue)
        library.call("clReleaseContext", self._session.context)


def open_device(index: int = 0) -> OpenCLDevice:
    """Open the OpenCL device of that number. Raises BackendUnavailable, saying what to install."""
    library = api.Library()
    found = query.devices(library)
    if not 0 <= index < len(found):
        raise BackendUnavailable(
            f"there is no OpenCL device number {index}, only {len(found)}",
            hint="count from 0: CL is the first, CL:1 the second",
        )
    platform, device = found[index]
    try:
        context = library.create("clCreateContext", None, 1, (c_void_p * 1)(device), None, None)
        queue = library.create("clCreateCommandQueue", context, device, api.QUEUE_PROFILING_ENABLE)
        description = query.describe(library, platform, device)
    except api.OpenCLError as error:
        what = f"the OpenCL device cannot be opened: {error.what}"
        raise BackendUnavailable(what, hint=api.INSTALL_HINT) from error
    session = Session(library, device, context, queue, description)
    return OpenCLDevice(session, "CL" if index == 0 else f"CL:{index}")

"""From source text to something that can be launched: building, readable build errors, binaries, launches."""

from __future__ import annotations

import ctypes
import hashlib
import re
import threading
import weakref
from collections.abc import Sequence
from ctypes import c_char_p, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from math import prod

from tinycore.errors import CompileError
from tinycore.runtime.device import Signature
from tinycore_backend_cl import api
from tinycore_backend_cl.query import Description

SOURCE, BINARY = b"OPENCLSOURCE\0", b"OPENCLBINARY\0"
"""What compiled code starts with: drivers that give no binaries get the source again."""
_DIGEST = 16
_DIAGNOSTIC = re.compile(
    r"^\s*(?P<first>(?:fatal )?error: )?(?:.*:)?(?P<line>\d+):(?P<column>\d+):\s*"
    r"(?(first)|(?:fatal )?error:\s*)(?P<message>.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Session:
    """The handles of one opened device."""

    library: api.Library
    device: int
    context: int
    queue: int
    description: Description

    @property
    def options(self) -> str:
        """Build options: results do not depend on what a driver finds fast, and warnings are for people."""
        exact = self.description.single & api.FP_CORRECTLY_ROUNDED_DIVIDE_SQRT
        return "-cl-std=CL1.2 -w" + (" -cl-fp32-correctly-rounded-divide-sqrt" if exact else "")


def compile_source(session: Session, source: str, name: str) -> bytes:
    """Loadable code of one kernel. Raises CompileError with the offending source line."""
    program = _from_source(session, source)
    try:
        _build(session, program, source, name)
        binary = _binary(session.library, program)
    finally:
        session.library.call("clReleaseProgram", program)
    return pack(BINARY, binary) if binary else pack(SOURCE, source.encode())


def pack(kind: bytes, content: bytes) -> bytes:
    """Compiled code as it is cached, with a digest: drivers crash on binaries that are not whole."""
    return kind + hashlib.blake2b(content, digest_size=_DIGEST).digest() + content


def _unpack(code: bytes, name: str) -> tuple[bytes, bytes]:
    kind, rest = code[: len(SOURCE)], code[len(SOURCE) :]
    digest, content = rest[:_DIGEST], rest[_DIGEST:]
    whole = hashlib.blake2b(content, digest_size=_DIGEST).digest() == digest
    if kind not in (SOURCE, BINARY) or not whole:
        raise CompileError(
            "this is not code for an OpenCL device",
            where=f"kernel {name}: {code[:16]!r}...",
            hint="empty the kernel cache",
        )
    return kind, content


def load_program(session: Session, code: bytes, name: str) -> int:
    """A built program handle of what `compile_source` answered. Raises CompileError."""
    kind, content = _unpack(code, name)
    source = content.decode() if kind == SOURCE else ""
    program = _from_source(session, source) if kind == SOURCE else _from_binary(session, content, name)
    try:
        _build(session, program, source, name)
    except CompileError:
        session.library.call("clReleaseProgram", program)
        raise
    return program


def _from_source(session: Session, source: str) -> int:
    text = (c_char_p * 1)(source.encode())
    return session.library.create("clCreateProgramWithSource", session.context, 1, text, None)


def _from_binary(session: Session, binary: bytes, name: str) -> int:
    status = c_int32(0)
    try:
        return session.library.create(
            "clCreateProgramWithBinary",
            session.context,
            1,
            (c_void_p * 1)(session.device),
            (c_size_t * 1)(len(binary)),
            (c_char_p * 1)(binary),
            ctypes.byref(status),
        )
    except api.OpenCLError as error:
        raise CompileError(
            f"the driver refuses a cached binary: {error.what}",
            where=f"kernel {name}",
            hint="empty the kernel cache: the driver may have changed",
        ) from error


def _build(session: Session, program: int, source: str, name: str) -> None:
    library, device = session.library, session.device
    options = session.options.encode()
    code = library.status("clBuildProgram", program, 1, (c_void_p * 1)(device), options, None, None)
    if code:
        log = library.text("clGetProgramBuildInfo", program, device, api.PROGRAM_BUILD_LOG)
        raise build_error(name, source, log or api.error_name(code))


def build_error(name: str, source: str, log: str) -> CompileError:
    """The error for a build log: the compiler's first complaint, with the line of source it is about.

    >>> print(build_error("k", "int a;\\nint b = c;\\n", "x.cl:2:9: error: use of undeclared identifier 'c'"))
    the OpenCL compiler refuses kernel k: use of undeclared identifier 'c'
      2 | int b = c;
        |         ^
    """
    match = _DIAGNOSTIC.search(log)
    lines = source.splitlines()
    if match is None or not 0 < int(match["line"]) <= len(lines):
        return CompileError(f"the OpenCL compiler refuses kernel {name}", where=log.strip() or None)
    line, column = int(match["line"]), int(match["column"])
    margin = " " * len(str(line))
    where = f"{line} | {lines[line - 1]}\n{margin} | {' ' * (column - 1)}^"
    return CompileError(f"the OpenCL compiler refuses kernel {name}: {match['message']}", where=where)


def _binary(library: api.Library, program: int) -> bytes:
    size = library.number("clGetProgramInfo", program, api.PROGRAM_BINARY_SIZES)
    if not size:
        return b""
    room = ctypes.create_string_buffer(size)
    pointers = (c_void_p * 1)(ctypes.addressof(room))
    library.call("clGetProgramInfo", program, api.PROGRAM_BINARIES, ctypes.sizeof(pointers), pointers, None)
    return room.raw


@dataclass(frozen=True, slots=True)
class Memory:
    """A part of a buffer object: OpenCL has no pointers on the host, so kernels get handle and offset."""

    handle: int
    offset: int = 0


class Kernel:
    """Loaded code; implements `tinycore.runtime.device.Executable`."""

    def __init__(self, session: Session, code: bytes, signature: Signature) -> None:
        self._session, self._signature = session, signature
        self._lock = threading.Lock()  # setting arguments and launching is one step, also between threads
        self._program = load_program(session, code, signature.name)
        library = session.library
        try:
            self._kernel = library.create("clCreateKernel", self._program, signature.name.encode())
            self._check()
        except BaseException:
            library.call("clReleaseProgram", self._program)
            raise
        self._released = weakref.finalize(self, _release, library, self._kernel, self._program)
        self._released.atexit = False  # at exit, drivers clean up themselves

    def _check(self) -> None:
        """The code must take the arguments that will be set, and its work-group must fit the device."""
        library, signature = self._session.library, self._signature
        expected = 2 * signature.buffers + signature.variables
        count = library.number("clGetKernelInfo", self._kernel, api.KERNEL_NUM_ARGS)
        if count != expected:
            raise CompileError(
                f"the code takes {count} arguments, its signature says {expected}",
                where=f"kernel {signature.name}",
            )
        most = library.number(
            "clGetKernelWorkGroupInfo", self._kernel, self._session.device, api.KERNEL_WORK_GROUP_SIZE
        )
        if prod(signature.group) > most:
            what = f"a work-group has {prod(signature.group)} work-items, this kernel can have {most}"
            raise CompileError(what, where=f"kernel {signature.name}", hint="use smaller local ranges")

    def launch(self, buffers: Sequence[Memory], variables: Sequence[int], grid: Sequence[int]) -> None:
        """Put the kernel in the queue; see `Executable.launch`."""
        self._enqueue(buffers, variables, grid, None)

    def elapsed(self, buffers: Sequence[Memory], variables: Sequence[int], grid: Sequence[int]) -> float:
        """Launch, wait, and answer the seconds between start and end on the device."""
        event = c_void_p(None)
        if not self._enqueue(buffers, variables, grid, event):
            return 0.0
        library = self._session.library
        try:
            library.call("clWaitForEvents", 1, ctypes.byref(event))
            start, end = (
                library.number("clGetEventProfilingInfo", event, what)
                for what in (api.PROFILING_COMMAND_START, api.PROFILING_COMMAND_END)
            )
        finally:
            library.call("clReleaseEvent", event)
        return (end - start) * 1e-9

    def _enqueue(
        self, buffers: Sequence[Memory], variables: Sequence[int], grid: Sequence[int], event: c_void_p | None
    ) -> bool:
        if not all(grid):  # nothing to do, and OpenCL 1.2 refuses empty launches
            return False
        library, group = self._session.library, self._signature.group
        dimensions = max(1, len(grid), len(group))
        sizes = _across(grid, dimensions)
        local = None
        if group:
            shape = _across(group, dimensions)
            sizes = [count * size for count, size in zip(sizes, shape, strict=True)]
            local = (c_size_t * dimensions)(*shape)
        with self._lock:
            self._set_arguments(buffers, variables)
            library.call(
                "clEnqueueNDRangeKernel",
                self._session.queue,
                self._kernel,
                dimensions,
                None,
                (c_size_t * dimensions)(*sizes),
                local,
                0,
                None,
                None if event is None else ctypes.byref(event),
            )
        return True

    def _set_arguments(self, buffers: Sequence[Memory], variables: Sequence[int]) -> None:
        set_argument, kernel = self._session.library.call, self._kernel
        position = 0
        for memory in buffers:
            set_argument("clSetKernelArg", kernel, position, 8, ctypes.byref(c_void_p(memory.handle)))
            set_argument("clSetKernelArg", kernel, position + 1, 8, ctypes.byref(c_uint64(memory.offset)))
            position += 2
        for value in variables:
            set_argument("clSetKernelArg", kernel, position, 8, ctypes.byref(c_int64(value)))
            position += 1

    def close(self) -> None:
        """Release the driver's objects; launches that are still queued finish first."""
        self._released()


def _release(library: api.Library, kernel: int, program: int) -> None:
    library.call("clReleaseKernel", kernel)
    library.call("clReleaseProgram", program)


def _across(bounds: Sequence[int], dimensions: int) -> list[int]:
    """Bounds as OpenCL counts them, x first: x is the last one, and missing ones are 1.

    >>> _across((2, 3), 3)
    [3, 2, 1]
    """
    return [*reversed(bounds), *([1] * (dimensions - len(bounds)))]

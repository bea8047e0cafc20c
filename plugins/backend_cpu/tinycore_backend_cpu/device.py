"""The CPU as a `GraphDevice`: kernels are native functions, buffers addresses, launches synchronous."""

from __future__ import annotations

import ctypes
import math
import struct
import time
from typing import TYPE_CHECKING

from tinycore.errors import BindingError, TinycoreError
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.host import NAME, host_target
from tinycore_backend_cpu.memory import HostAllocator
from tinycore_backend_cpu.objects import LoadedObject, load_object
from tinycore_backend_cpu.pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinycore.codegen.program import Program
    from tinycore.runtime.device import Launch, Signature

_RECORD_WORDS = 3  # {function, arguments, chunks}


class NativeExecutable:
    """A kernel mapped into this process.

    `launch` returns when the kernel has run. Raises BindingError when the number of arguments is wrong: the
    kernel would read past the end of its argument array.
    """

    def __init__(self, loaded: LoadedObject, signature: Signature, pool: ThreadPool) -> None:
        self.signature = signature
        self.function = loaded.address(signature.name)
        self.words = signature.buffers + signature.variables
        self._loaded = loaded  # keeps the code mapped
        self._pool = pool
        self._buffers = signature.buffers
        self._pack = struct.Struct(f"{2 + self.words}q").pack

    def launch(self, buffers: Sequence[int], variables: Sequence[int], grid: Sequence[int]) -> None:
        """Run the kernel over the product of `grid` chunks, on all threads, and return when it is done."""
        try:
            record = self._pack(self.function, math.prod(grid), *buffers, *variables)
        except struct.error:
            raise self.wrong_arguments(buffers, variables) from None
        if len(buffers) != self._buffers:
            raise self.wrong_arguments(buffers, variables)
        self._pool.launch(record)

    def wrong_arguments(self, buffers: Sequence[int], variables: Sequence[int]) -> BindingError:
        """The error for a launch that does not fit the signature."""
        wanted = self.signature
        return BindingError(
            f"kernel {wanted.name} takes {wanted.buffers} buffers and {wanted.variables} variables, "
            f"and was given {len(buffers)} and {len(variables)}"
        )


class NativeGraph:
    """Launches as one array of records: a replay is one native call, whatever their number."""

    def __init__(self, launches: Sequence[Launch], pool: ThreadPool) -> None:
        self._pool = pool
        self._executables = [_native(launch) for launch in launches]
        self._offsets = [0]
        for executable in self._executables:
            self._offsets.append(self._offsets[-1] + executable.words)
        self._words = (ctypes.c_int64 * max(1, self._offsets[-1]))()
        self._records = (ctypes.c_int64 * (_RECORD_WORDS * max(1, len(launches))))()
        self._write_all = struct.Struct(f"{self._offsets[-1]}q").pack_into
        self._count = sum(executable.signature.buffers for executable in self._executables)
        self._only_buffers = self._count == self._offsets[-1]
        for position, launch in enumerate(launches):
            self.update(position, launch)

    def replay(self) -> None:
        """Run all launches in order, and return when they are done."""
        self._pool.replay(ctypes.addressof(self._records), len(self._executables))

    def update(self, position: int, launch: Launch) -> None:
        """Exchange buffers, variables or grid of one launch. Raises when the executable differs."""
        executable = self._executables[position]
        if launch.executable is not executable:
            raise TinycoreError(
                f"launch {position} of this graph runs {executable.signature.name}, not another"
            )
        wanted = executable.signature
        if (len(launch.buffers), len(launch.variables)) != (wanted.buffers, wanted.variables):
            raise executable.wrong_arguments(launch.buffers, launch.variables)
        start = self._offsets[position]
        for word, value in enumerate((*launch.buffers, *launch.variables), start):
            self._words[word] = value
        arguments = ctypes.addressof(self._words) + 8 * start
        record = executable.function, arguments, math.prod(launch.grid)
        for word, value in enumerate(record, _RECORD_WORDS * position):
            self._records[word] = value

    def rebind(self, buffers: Sequence[int]) -> None:
        """Exchange the buffers of all launches. Raises BindingError for another number of them."""
        if len(buffers) != self._count:
            raise BindingError(f"a graph takes {self._count} buffers, and was given {len(buffers)}")
        if self._only_buffers:
            self._write_all(self._words, 0, *buffers)
            return
        rest = iter(buffers)
        for executable, start in zip(self._executables, self._offsets, strict=False):
            for word in range(start, start + executable.signature.buffers):
                self._words[word] = next(rest)


class CpuDevice:
    """The processor this Python runs on. A `tinycore.runtime.device.GraphDevice`.

    Source text is a module of LLVM IR that defines ``void NAME(ptr arguments, i64 chunk, i64 thread)``;
    `arguments` is an array of 8-byte words, the buffers' addresses and then the variables.
    """

    def __init__(self) -> None:
        self.name = NAME
        self.target = host_target()
        self.allocator = HostAllocator()
        self.pool = ThreadPool(self.target.capabilities.threads)

    def render(self, program: Program) -> str:
        """LLVM IR text of a program."""
        from tinycore_codegen_llvm import CPU, render

        return render(program, CPU())

    def compile(self, source: str, name: str) -> bytes:
        """A relocatable object. Raises CompileError with the offending line."""
        return compile_ir(source)

    def load(self, binary: bytes, signature: Signature) -> NativeExecutable:
        """Map an object and find its kernel. Raises DataError for a damaged one; nothing is mapped then."""
        return NativeExecutable(load_object(binary, names=(signature.name,)), signature, self.pool)

    def synchronize(self) -> None:
        """Launches are synchronous: there is nothing to wait for."""

    def elapsed(
        self,
        executable: NativeExecutable,
        buffers: Sequence[int],
        variables: Sequence[int],
        grid: Sequence[int],
    ) -> float:
        """Seconds of one launch."""
        start = time.perf_counter()
        executable.launch(buffers, variables, grid)
        return time.perf_counter() - start

    def capture(self, launches: Sequence[Launch]) -> NativeGraph:
        """The launches as one native call."""
        return NativeGraph(launches, self.pool)

    def close(self) -> None:
        """End the threads and give idle memory back."""
        self.pool.stop()
        self.allocator.trim()


def _native(launch: Launch) -> NativeExecutable:
    if not isinstance(launch.executable, NativeExecutable):
        raise TinycoreError(f"a graph of {NAME} cannot hold a launch of another device")
    return launch.executable

"""The device of last resort: kernels are interpreted with numpy, on any machine, with no backend installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinycore.errors import CompileError, DeviceError
from tinycore.ir import Target, UOp, ops
from tinycore.runtime.device import Allocator, Executable, Opaque, Signature

if TYPE_CHECKING:
    from tinycore.codegen.program import Program

REFERENCE = "INTERPRETER"


class HostMemory:
    """numpy byte arrays as device memory."""

    def allocate(self, nbytes: int) -> Opaque:
        """A byte array."""
        import numpy as np

        try:
            return np.empty(nbytes, np.uint8)
        except MemoryError:
            raise DeviceError(f"no memory for {nbytes} bytes") from None

    def free(self, memory: Opaque, nbytes: int) -> None:
        """The garbage collector does it."""

    def copy_in(self, target: Opaque, source: memoryview) -> None:
        """Host bytes into the array."""
        target[: source.nbytes] = source

    def copy_out(self, target: memoryview, source: Opaque) -> None:
        """The first bytes of the array."""
        target[:] = source[: target.nbytes].data

    def view(self, memory: Opaque, offset: int, nbytes: int) -> Opaque:
        """A slice."""
        return memory[offset : offset + nbytes]

    def host_view(self, memory: Opaque, nbytes: int) -> memoryview | None:
        """The array itself."""
        return memoryview(memory)[:nbytes]


class ReferenceDevice:
    """Runs canonical kernels through `tinycore.interpret` instead of compiling them."""

    def __init__(self) -> None:
        self.name = REFERENCE
        self.target = Target(REFERENCE)
        self.allocator: Allocator = HostMemory()

    def run(self, kernel: UOp, buffers: Sequence[Any], bindings: Mapping[UOp, int]) -> None:
        """Execute one canonical kernel: a SINK of statements over PARAMs, on byte arrays by slot."""
        from tinycore.interpret import interpret_kernel
        from tinycore.runtime.storage import evaluate

        arrays: dict[UOp, Any] = {}
        for node in kernel.toposort():
            if node.op is ops.PARAM:
                slot, shape = node.arg
                sizes = tuple([evaluate(dim, bindings) for dim in shape])
                count = 1
                for size in sizes:
                    count *= size
                raw = buffers[slot][: count * node.dtype.itemsize]
                arrays[node] = raw.view(node.dtype.numpy).reshape(sizes)
        interpret_kernel(kernel, {node.arg[0]: array for node, array in arrays.items()}, bindings)

    def render(self, program: Program) -> str:
        """There is no code to show."""
        raise CompileError("the interpreter compiles nothing")

    def compile(self, source: str, name: str) -> bytes:
        """See `render`."""
        raise CompileError("the interpreter compiles nothing")

    def load(self, binary: bytes, signature: Signature) -> Executable:
        """See `render`."""
        raise CompileError("the interpreter compiles nothing")

    def synchronize(self) -> None:
        """Everything is synchronous."""

    def elapsed(
        self, executable: Executable, buffers: Sequence[Opaque], variables: Sequence[int], grid: Sequence[int]
    ) -> float:
        """See `render`."""
        raise CompileError("the interpreter compiles nothing")

    def close(self) -> None:
        """Nothing to release."""

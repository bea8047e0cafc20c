"""One kernel on one device: compiles candidates, compares what they compute, and times them.

This runs in the child process (see `worker`): a candidate that crashes takes only that with it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycore.codegen.compile import assemble
from tinycore.codegen.pipeline import Context, after_tile
from tinycore.codegen.program import Program
from tinycore.codegen.tiling import Action
from tinycore.errors import CompileError
from tinycore.ir import Capabilities, UOp, dims, ops
from tinycore.runtime.device import Device, Executable, Opaque, Signature
from tinycore.runtime.joined import joined
from tinycore_pass_search.moves import safe

Array = np.ndarray[Any, Any]

VARIABLE = 128
"""The size that a symbolic dimension is measured with, as far as its limits allow."""
BLOCK = 1 << 18
"""Inputs repeat so many random elements: filling memory must not take longer than measuring."""
LARGEST = 4 << 30
"""Kernels that touch more bytes than this are not measured."""
SAMPLE_SECONDS = 0.02
"""A candidate runs so long, the fastest launch counts."""
MOST_LAUNCHES = 100
HOPELESS = 1.5
"""A candidate whose first launches take so much longer than the best is cut short."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compiled candidate."""

    program: Program
    executable: Executable
    variables: tuple[int, ...]
    grid: tuple[int, ...]


class Bench:
    """The kernel's buffers on a device, and what the untuned kernel answers in them.

    Parameters
    ----------
    kernel: canonical, before tiling.
    device: opened in this process.

    Raises CompileError for a kernel whose buffers are too large to be measured.
    """

    def __init__(self, kernel: UOp, device: Device) -> None:
        self.kernel, self.device = kernel, device
        nodes = kernel.toposort()
        self.bindings = {
            node: max(node.vmin, min(node.vmax, VARIABLE)) for node in nodes if node.op is ops.VARIABLE
        }
        parameters = {int(node.arg[0]): node for node in nodes if node.op is ops.PARAM}
        sizes = {slot: self._elements(node) for slot, node in parameters.items()}
        if sum(sizes[slot] * node.dtype.itemsize for slot, node in parameters.items()) > LARGEST:
            raise CompileError("the buffers of this kernel are too large to be measured")
        self.inputs = {slot: _values(parameters[slot], sizes[slot]) for slot in sorted(sizes)}
        self.memories = {slot: self._upload(array) for slot, array in self.inputs.items()}
        self.reference: dict[int, Array] = {}
        self.tolerance = tolerance(nodes)

    def _elements(self, parameter: UOp) -> int:
        return math.prod(self._value(dim) for dim in parameter.arg[1])

    def _value(self, dim: Any) -> int:
        return dim if isinstance(dim, int) else dims.evaluate(dim, self.bindings)

    def _upload(self, array: Array) -> Opaque:
        memory = self.device.allocator.allocate(max(1, array.nbytes))
        if array.nbytes:
            self.device.allocator.copy_in(memory, array.view(np.uint8).data)
        return memory

    def close(self) -> None:
        """Give the buffers back."""
        for slot, memory in self.memories.items():
            self.device.allocator.free(memory, max(1, self.inputs[slot].nbytes))
        self.memories.clear()

    def compile(self, actions: Sequence[Action]) -> Candidate:
        """The kernel with these actions, ready to run. Raises CompileError, or whatever a backend raises."""
        target = self.device.target
        context = Context(target, joined().doors)
        lowered = safe(self.kernel, actions)
        for step in after_tile(context):
            lowered = step.run(lowered, context)
        program = assemble(self.kernel, lowered)
        _check_limits(program, target.capabilities)
        binary = self.device.compile(self.device.render(program), program.name)
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        variables = tuple([self.bindings[node] for node in program.variables])
        grid = tuple([self._value(dim) for dim in program.grid])
        return Candidate(program, self.device.load(binary, signature), variables, grid)

    def answer(self, candidate: Candidate) -> dict[int, Array]:
        """What a candidate writes, from the inputs as they were."""
        written = sorted(candidate.program.written)
        for slot in written:
            array = self.inputs[slot]
            if array.nbytes:
                self.device.allocator.copy_in(self.memories[slot], array.view(np.uint8).data)
        self.launch(candidate)
        found = {}
        for slot in written:
            array = np.empty_like(self.inputs[slot])
            if array.nbytes:
                self.device.allocator.copy_out(array.view(np.uint8).data, self.memories[slot])
            found[slot] = array
        self.device.synchronize()
        return found

    def launch(self, candidate: Candidate) -> float:
        """Run once; seconds."""
        memories = [self.memories[slot] for slot in sorted(self.memories)]
        return self.device.elapsed(candidate.executable, memories, candidate.variables, candidate.grid)

    def difference(self, found: Mapping[int, Array]) -> str | None:
        """How an answer differs from the reference by more than the order of sums explains, or None."""
        if set(found) != set(self.reference):
            return "it writes other buffers"
        for slot, array in found.items():
            error = error_of(array, self.reference[slot])
            if error > self.tolerance:
                return f"buffer {slot} differs by {error:.2g} of its greatest value"
        return None

    def time(self, candidate: Candidate, cutoff: float | None) -> tuple[float, bool]:
        """(seconds of the fastest launch, whether it was measured to the end)."""
        best = spent = self.launch(candidate)
        for count in range(1, MOST_LAUNCHES):
            if cutoff is not None and best > HOPELESS * cutoff and count >= 2:
                return best, False
            if spent > SAMPLE_SECONDS and count >= 3:
                break
            if cutoff is not None and count == 1 and best > 4 * HOPELESS * cutoff:
                return best, False  # far behind even for a cold first launch
            seconds = self.launch(candidate)
            best, spent = min(best, seconds), spent + seconds
        return best, True

    def duel(self, one: Candidate, other: Candidate, seconds: float) -> tuple[float, float]:
        """The fastest launch of both, in turns, for about so many seconds."""
        first = second = math.inf
        spent = 0.0
        for count in range(1000):
            a, b = self.launch(one), self.launch(other)
            first, second, spent = min(first, a), min(second, b), spent + a + b
            if spent > seconds and count >= 2:
                break
        return first, second


def _values(parameter: UOp, size: int) -> Array:
    """Repeatable inputs: normal floats, small whole numbers."""
    dtype = parameter.dtype
    generator = np.random.default_rng(zlib.crc32(repr(parameter.arg[0]).encode()))
    count = min(size, BLOCK - 1)  # an odd period, so that rows differ
    values: Array
    if dtype.is_float:
        values = generator.standard_normal(count)
    elif dtype.kind == "bool":
        values = generator.integers(0, 2, count)
    else:
        values = generator.integers(0 if dtype.kind == "uint" else -3, 8, count)
    return np.resize(values.astype(dtype.numpy), size) if size else np.empty(0, dtype.numpy)


def tolerance(nodes: Sequence[UOp]) -> float:
    """How much, relative to the greatest value, another order of operations may change."""
    floats = [node.dtype.itemsize for node in nodes if node.dtype.is_float]
    if not floats:
        return 0.0
    return {8: 1e-12, 4: 3e-5, 2: 3e-2}.get(min(floats), 0.2)


def error_of(found: Array, reference: Array) -> float:
    """The greatest difference relative to the greatest magnitude; infinite where NaN or infinity differ."""
    if found.dtype.kind in "iub":
        return 0.0 if np.array_equal(found, reference) else math.inf
    a, b = found.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    difference = float(np.max(np.abs(a[finite] - b[finite])))
    scale = float(np.max(np.abs(b[finite])))
    return math.inf if math.isnan(difference) else difference / scale if scale else difference


def _check_limits(program: Program, capabilities: Capabilities) -> None:
    """Raises CompileError for what the device cannot launch."""
    if len(program.grid) > 3 or len(program.group) > 3:
        raise CompileError("a grid and a work-group have three dimensions")
    if math.prod(program.group) > max(1, capabilities.local_size):
        raise CompileError(f"a work-group of {math.prod(program.group)} items is too large")
    shared = sum(
        math.prod(node.arg[2]) * node.dtype.itemsize
        for node in program.linear.toposort()
        if node.op is ops.SCRATCH and node.arg[0] == "local"
    )
    if shared > capabilities.shared_bytes:
        raise CompileError(f"{shared} bytes of shared memory are too much")

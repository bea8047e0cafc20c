"""Running cases through the whole compiler but for the last step: programs are interpreted, not rendered.

Every pass, the tiling plugins and the linearizer are exercised for any target, present or imagined, and what
would be undefined on a device (an access outside a buffer, a race on local memory) is an error here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.codegen.compile import lower
from tinycore.codegen.program import Program
from tinycore.interpret import interpret_program
from tinycore.ir import dims
from tinycore.ir.ops import ELEMENTWISE, ops
from tinycore.ir.target import Capabilities, Target
from tinycore.ir.uop import UOp
from tinycore.ir.verify import verify
from tinycore.runtime.joined import joined, schedule_doors
from tinycore.schedule import CopyStep, KernelStep, Schedule, make_schedule, nbytes, number_buffers
from tinycore.testing.compare import Runner

Array = NDArray[Any]

TARGETS = {
    "scalar": Target("scalar", capabilities=Capabilities(ops=ELEMENTWISE)),
    "vector": Target("vector", capabilities=Capabilities(ops=ELEMENTWISE, vector_bytes=16, threads=2)),
    "groups": Target(
        "groups",
        capabilities=Capabilities(
            ops=ELEMENTWISE,
            workgroups=True,
            local_size=64,
            shared_bytes=1 << 14,
            index_bits=(32, 64),
        ),
    ),
    "basic": Target("basic"),
}
"""Imagined devices: plain loops; vectors and chunks; work-groups with local memory; few native ops."""


def lowered(target: Target) -> Runner:
    """A runner that schedules and lowers for a target, verifies the programs, and interprets them."""

    def run(roots: Sequence[UOp], arrays: Mapping[UOp, Array]) -> list[Array]:
        numbered, inputs = number_buffers(list(roots))
        schedule = make_schedule(
            numbered, target.name, schedule_doors(), capabilities=lambda _: target.capabilities
        )
        memory = _memory(schedule)
        for position, node in enumerate(inputs):
            own = np.array(arrays[node]).reshape(-1).view(np.uint8)
            memory[UOp(ops.BUFFER, node.dtype, (), (-1 - position, *node.arg[1:]))] = own
        for step in schedule.steps:
            if isinstance(step, CopyStep):
                memory[step.target][: nbytes(step.target)] = memory[step.source][: nbytes(step.target)]
            elif isinstance(step, KernelStep):
                _launch(lower(step.kernel, target, joined().doors), [memory[node] for node in step.buffers])
        return [_read(result, memory) for result in schedule.results]

    return run


def _memory(schedule: Schedule) -> dict[UOp, Array]:
    """Bytes for every buffer that the schedule makes, shared as its memory plan says; filled with rubbish."""
    sizes: dict[int, int] = {}
    for node, slot in schedule.slots:
        sizes[slot] = max(sizes.get(slot, 0), nbytes(node))
    shared = {slot: np.full(size, 0xA5, np.uint8) for slot, size in sizes.items()}
    memory = {node: shared[slot] for node, slot in schedule.slots}
    kept = [step.buffers[0] for step in schedule.steps if isinstance(step, KernelStep) and step.remember]
    results = [node for result in schedule.results for node in result.toposort() if node.op is ops.BUFFER]
    for node in (*kept, *results):
        if node not in memory:
            memory[node] = np.full(nbytes(node), 0xA5, np.uint8)
    return memory


def _launch(program: Program, memories: Sequence[Array]) -> None:
    verify(program.linear, "program")
    buffers = {}
    for parameter, memory in zip(program.parameters, memories, strict=True):
        size = dims.upper(dims.product(parameter.arg[1])) * parameter.dtype.itemsize
        buffers[int(parameter.arg[0])] = memory[:size].view(parameter.dtype.numpy)
    interpret_program(program.linear, buffers, {}, program.grid, program.group)


def _read(result: UOp, memory: Mapping[UOp, Array]) -> Array:
    base = result.under(ops.RESHAPE)
    sizes = [dims.upper(dim) for dim in result.shape]
    dtype = result.dtype.numpy
    count = int(np.prod(sizes, dtype=np.int64)) * dtype.itemsize
    return memory[base][:count].view(dtype).reshape(sizes).copy()

"""Hand-built programs, run on the first OpenCL device and on the interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable
from tinycore.interpret import interpret_program
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime.device import Signature

YES = UOp.const(dtypes.bool_, True)
LEAVES = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
CONTROL = frozenset({ops.RANGE, ops.END, ops.IF, ops.ENDIF, ops.ACCUMULATOR, ops.AFTER, ops.BARRIER})


def number(value):
    return UOp.const(dtypes.int32, value)


@dataclass
class Lines:
    """Collects statements; every method that makes a node lists it, its operands first."""

    buffers: dict[int, UOp] = field(default_factory=dict)
    nodes: list[UOp] = field(default_factory=list)
    written: set[int] = field(default_factory=set)
    variables: tuple[UOp, ...] = ()
    grid: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    count: int = 0

    def buffer(self, slot, dtype, size=1):
        self.buffers[slot] = UOp(ops.PARAM, dtype, (), (slot, (size,)))
        return self.buffers[slot]

    def add(self, *nodes):
        """List expressions, operands first, what is listed already excepted."""
        for node in nodes:
            for part in node.toposort():
                if part.op in LEAVES or part in self.nodes or (part.op in CONTROL and part is not node):
                    continue
                self.nodes.append(part)
        return nodes[-1]

    def again(self, node):
        """List one node although it was listed before."""
        self.nodes.append(node)
        return node

    def range(self, bound, kind="loop"):
        given = bound
        bound = number(bound) if isinstance(bound, int) else self.add(bound)
        axes = {"global": self.grid, "local": self.group}.get(kind)
        node = UOp(ops.RANGE, dtypes.int32, (bound,), (self.count if axes is None else len(axes), kind))
        if axes is None:
            self.count += 1
        else:
            axes.append(given)
        return self.again(node)

    def end(self, node):
        return self.again(UOp(ops.END, dtypes.void, (node,)))

    def load(self, buffer, index, lanes=1, gate=YES):
        index = number(index) if isinstance(index, int) else index
        return self.add(UOp(ops.LOAD, buffer.dtype, (buffer, index, gate), lanes))

    def store(self, buffer, index, value, gate=YES):
        index = number(index) if isinstance(index, int) else index
        memory = buffer.src[0] if buffer.op is ops.AFTER else buffer
        if memory.op is ops.PARAM:
            self.written.add(memory.arg[0])
        return self.add(UOp(ops.STORE, dtypes.void, (buffer, index, value, gate)))

    def accumulator(self, initial):
        self.count += 1
        return self.add(UOp(ops.ACCUMULATOR, initial.dtype, (initial,), self.count))

    def update(self, accumulator, value):
        self.add(value)
        return self.again(UOp(ops.UPDATE, dtypes.void, (accumulator, value)))

    def after(self, value, *others):
        return self.again(UOp(ops.AFTER, value.dtype, (value, *others)))

    def scratch(self, dtype, size, scope="local"):
        self.count += 1
        return UOp(ops.SCRATCH, dtype, (), (scope, self.count, (size,)))

    def barrier(self, *stores):
        return self.again(UOp(ops.BARRIER, dtypes.void, stores))

    def program(self, name="k"):
        linear = UOp(ops.LINEAR, dtypes.void, tuple(self.nodes), None)
        parameters = tuple(self.buffers[slot] for slot in sorted(self.buffers))
        return Program(
            name,
            linear,
            parameters,
            self.variables,
            frozenset(self.written),
            tuple(self.grid),
            tuple(self.group),
        )


def splat(node, lanes):
    return UOp(ops.SPLAT, node.dtype, (node,), lanes)


def iota(lanes, dtype=dtypes.int32):
    return UOp(ops.IOTA, dtype, (), lanes)


@pytest.fixture(scope="session")
def device():
    from tinycore_backend_cl import open_device

    try:
        opened = open_device()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def kit(device):
    """What tests need besides `lines`."""
    return Kit(device)


class Kit:
    """Helpers that need a device."""

    number, splat, iota = staticmethod(number), staticmethod(splat), staticmethod(iota)
    yes, Lines = YES, Lines

    def __init__(self, device):
        self.device = device

    def load(self, program):
        """The executable of a program."""
        code = self.device.compile(self.device.render(program), program.name)
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        return self.device.load(code, signature)

    def run(self, program, *arrays, variables=(), grid=None):
        """Run on copies of numpy arrays; the answer is what the buffers hold afterwards."""
        executable = self.load(program)
        allocator = self.device.allocator
        memories = [allocator.allocate(array.nbytes) for array in arrays]
        for memory, array in zip(memories, arrays, strict=True):
            allocator.copy_in(memory, memoryview(array.reshape(-1).view(np.uint8)))
        executable.launch(memories, variables, program.grid if grid is None else grid)
        answers = [np.empty_like(array) for array in arrays]
        for memory, array in zip(memories, answers, strict=True):
            allocator.copy_out(memoryview(array.reshape(-1).view(np.uint8)), memory)
            allocator.free(memory, array.nbytes)
        return answers

    def check(self, program, *arrays, variables=(), close=False):
        """Run on the device and on the interpreter; every buffer must come out the same."""
        answers = self.run(program, *arrays, variables=variables)
        expected = [array.copy() for array in arrays]
        bindings = dict(zip(program.variables, variables, strict=True))
        interpret_program(program.linear, dict(enumerate(expected)), bindings, program.grid, program.group)
        for answer, wanted in zip(answers, expected, strict=True):
            if close:
                np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-6)
                continue
            if answer.dtype.kind == "b":  # a True that is not 1 would pass for one
                answer, wanted = answer.view(np.uint8), wanted.view(np.uint8)
            if answer.dtype.name.startswith(("bfloat", "float8")):  # numpy does not know their NaN
                answer, wanted = answer.astype(np.float32), wanted.astype(np.float32)
            np.testing.assert_array_equal(answer, wanted)
            if answer.dtype.kind == "f":
                zeros = wanted == 0
                np.testing.assert_array_equal(np.signbit(answer[zeros]), np.signbit(wanted[zeros]))
        return answers[-1]

"""Hand-built programs, and a way to run them in this process."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import llvmlite.binding as llvm
import numpy as np
import pytest
from tinycore_codegen_llvm import CPU, render
from tinycore_codegen_llvm.machine import Machine

from tinycore.codegen.program import Program
from tinycore.ir import UOp, dtypes, ops

YES = UOp.const(dtypes.bool_, True)


def integer(value):
    return UOp.const(dtypes.int64, value)


@dataclass
class Lines:
    """Collects statements; every method that makes a node lists it, its operands first."""

    buffers: dict[int, UOp] = field(default_factory=dict)
    nodes: list[UOp] = field(default_factory=list)
    ranges: int = 0
    written: set[int] = field(default_factory=set)

    def buffer(self, slot, dtype, size=1):
        self.buffers[slot] = UOp(ops.PARAM, dtype, (), (slot, (size,)))
        return self.buffers[slot]

    def add(self, *nodes):
        """List expressions, operands first, what is listed already excepted."""
        listed = set(self.nodes)
        for node in nodes:
            for part in node.toposort():
                if part.op in LEAVES or part in listed or (part.op in CONTROL and part is not node):
                    continue
                listed.add(part)
                self.nodes.append(part)
        return nodes[-1]

    def again(self, node):
        """List one node although it was listed before."""
        self.nodes.append(node)
        return node

    def range(self, bound, kind="loop"):
        bound = integer(bound) if isinstance(bound, int) else self.add(bound)
        node = UOp(ops.RANGE, dtypes.int64, (bound,), (self.ranges, kind))
        self.ranges += 1
        return self.again(node)

    def end(self, node):
        return self.again(UOp(ops.END, dtypes.void, (node,)))

    def load(self, buffer, index, lanes=1, gate=YES):
        index = integer(index) if isinstance(index, int) else index
        return self.add(UOp(ops.LOAD, buffer.dtype, (buffer, index, gate), lanes))

    def store(self, buffer, index, value, gate=YES):
        index = integer(index) if isinstance(index, int) else index
        self.written.add(buffer.arg[0])
        return self.add(UOp(ops.STORE, dtypes.void, (buffer, index, value, gate)))

    def accumulator(self, initial):
        self.ranges += 1
        return self.add(UOp(ops.ACCUMULATOR, initial.dtype, (initial,), self.ranges))

    def update(self, accumulator, value):
        self.add(value)
        return self.again(UOp(ops.UPDATE, dtypes.void, (accumulator, value)))

    def after(self, accumulator, *ends):
        return self.again(UOp(ops.AFTER, accumulator.dtype, (accumulator, *ends)))

    def program(self, name="kernel", variables=(), grid=(), group=()):
        linear = UOp(ops.LINEAR, dtypes.void, tuple(self.nodes), None)
        parameters = tuple(self.buffers[slot] for slot in sorted(self.buffers))
        return Program(name, linear, parameters, tuple(variables), frozenset(self.written), grid, group)


LEAVES = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
CONTROL = frozenset({ops.RANGE, ops.END, ops.IF, ops.ENDIF, ops.ACCUMULATOR, ops.AFTER})


def splat(node, lanes):
    return UOp(ops.SPLAT, node.dtype, (node,), lanes)


def iota(lanes, dtype=dtypes.int64):
    return UOp(ops.IOTA, dtype, (), lanes)


def execute(program, *arrays, variables=(), chunks=1):
    """Run a program on numpy arrays, in place; the answer is the last of them."""
    machine = Machine.host()
    text = render(program, CPU())
    module = llvm.parse_assembly(text)
    module.verify()
    target = llvm.Target.from_triple(machine.triple)
    host = target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=2)
    with llvm.create_mcjit_compiler(module, host) as engine:
        engine.finalize_object()
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
            engine.get_function_address(program.name)
        )
        words = (ctypes.c_int64 * (len(arrays) + len(variables) + 1))()
        words[: len(arrays)] = [array.ctypes.data for array in arrays]
        words[len(arrays) : len(arrays) + len(variables)] = list(variables)
        for chunk in range(chunks):
            function(ctypes.addressof(words), chunk, 0)
    return arrays[-1]


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture(name="execute")
def _execute():
    return execute


@pytest.fixture
def kit():
    """The helpers above, for tests that cannot import a conftest."""

    class Kit:
        pass

    kit = Kit()
    kit.integer, kit.splat, kit.iota, kit.Lines, kit.execute, kit.np = (
        integer,
        splat,
        iota,
        Lines,
        execute,
        np,
    )
    kit.yes = YES
    return kit

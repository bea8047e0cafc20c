"""A way to run programs in this process."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import pytest
from tinycore_codegen_llvm import CPU, render
from tinycore_codegen_llvm.machine import Machine
from tinycore_codegen_llvm.testing import ProgramBuilder


def run_program(program, *arrays, variables=(), chunks=1):
    """Run a program on numpy arrays, in place; the answer is the last of them."""
    machine = Machine.host()
    module = llvm.parse_assembly(render(program, CPU()))
    module.verify()
    target = llvm.Target.from_triple(machine.triple)
    host = target.create_target_machine(cpu=machine.cpu, features=machine.features, opt=2)
    with llvm.create_mcjit_compiler(module, host) as engine:
        engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        function = kind(engine.get_function_address(program.name))
        words = (ctypes.c_int64 * (len(arrays) + len(variables) + 1))()
        words[: len(arrays)] = [array.ctypes.data for array in arrays]
        words[len(arrays) : len(arrays) + len(variables)] = list(variables)
        for chunk in range(chunks):
            function(ctypes.addressof(words), chunk, 0)
    return arrays[-1]


@pytest.fixture(scope="session")
def execute():
    return run_program


@pytest.fixture
def lines():
    return ProgramBuilder()

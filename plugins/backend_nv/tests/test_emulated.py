"""The IR that becomes PTX, run on this processor: a thread a work-item, real barriers, real shared memory.

Only what names the GPU is exchanged in the text (address spaces, special registers, ``bar.sync``), so that
everything else of the lowering for work-groups is executed as it is.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import threading

import llvmlite.binding as llvm
import numpy as np
import pytest
from tinycore_backend_nv import compile_target
from tinycore_backend_nv.flavour import PTX
from tinycore_codegen_llvm import gpu, render
from tinycore_codegen_llvm.machine import Machine
from tinycore_codegen_llvm.testing import SAMPLES

from tinycore.cli.compile import programs

_item = threading.local()


def as_host_code(text):
    """The module with calls back into this file where it would ask the GPU."""
    text = re.sub(r" ?addrspace\(\d\)", "", text)
    text = re.sub(r'^target triple.*$|ptx_kernel |"nvvm[^"]*"="[^"]*"', "", text, flags=re.MULTILINE)
    text = re.sub(r"llvm\.nvvm\.read\.ptx\.sreg\.(\w+)\.(\w)", r"emulated_\1_\2", text)
    text = text.replace("llvm.nvvm.barrier.cta.sync.aligned.all", "emulated_barrier")
    return re.sub(r"\bp[13]\(", "p0(", text)


class Emulator:
    """Runs one kernel, a work-group after the other."""

    def __init__(self, program, *, barriers=True):
        self.program = program
        self.barrier = None
        self.waits = barriers
        self._callbacks = {}
        for name, letter in itertools.product(("tid", "ctaid"), "xyz"):
            self._register(f"emulated_{name}_{letter}", ctypes.c_int32, (), self._reader(name, letter))
        self._register("emulated_barrier", None, (ctypes.c_int32,), self._wait)
        machine = Machine.host()
        module = llvm.parse_assembly(as_host_code(render(program, PTX())))
        module.verify()
        target = llvm.Target.from_triple(machine.triple)
        host = target.create_target_machine(cpu=machine.cpu, features=machine.features)
        self._engine = llvm.create_mcjit_compiler(module, host)
        self._engine.finalize_object()
        words = len(program.parameters) + len(program.variables)
        kind = ctypes.CFUNCTYPE(None, *(ctypes.c_void_p,) * words)
        self._function = kind(self._engine.get_function_address(program.name))

    def _register(self, name, result, parameters, function):
        self._callbacks[name] = ctypes.CFUNCTYPE(result, *parameters)(function)
        llvm.add_symbol(name, ctypes.cast(self._callbacks[name], ctypes.c_void_p).value)

    def _reader(self, name, letter):
        return lambda: getattr(_item, name)["xyz".index(letter)]

    def _wait(self, number):
        if self.waits:
            self.barrier.wait(timeout=20)

    def launch(self, *arrays):
        grid, block = gpu.extent([int(bound) for bound in self.program.grid]), gpu.extent(self.program.group)
        words = [array.ctypes.data for array in arrays]
        items = list(itertools.product(*(range(size) for size in block)))
        for group in itertools.product(*(range(size) for size in grid)):
            self.barrier = threading.Barrier(len(items))
            threads = [threading.Thread(target=self._run, args=(group, item, words)) for item in items]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _run(self, group, item, words):
        _item.ctaid, _item.tid = group, item
        self._function(*words)


def run_expression(text, *inputs):
    """Lower an expression for sm_90 and run it; the answer has the shape of slot 0."""
    (program,) = programs(text, compile_target("sm_90"))
    out = np.full(program.parameters[0].arg[1], np.nan, program.parameters[0].dtype.numpy)
    Emulator(program).launch(out, *inputs)
    return program, out


def test_shared_memory():
    values = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    out = np.zeros(8, np.float32)
    Emulator(SAMPLES["row_sums"]).launch(values, out)
    np.testing.assert_allclose(out, values.sum(1), rtol=1e-4, atol=1e-4)


def test_the_barrier_matters():
    """Otherwise this file could not tell a missing one."""
    values = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    out = np.zeros(8, np.float32)
    Emulator(SAMPLES["row_sums"], barriers=False).launch(values, out)
    assert not np.allclose(out, values.sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32, 32), (40, 36, 24)])
def test_a_tiled_matmul(shape):
    m, k, n = shape
    random = np.random.default_rng(0)
    a, b = random.normal(size=(m, k)).astype(np.float32), random.normal(size=(k, n)).astype(np.float32)
    program, out = run_expression(f"Input({m}, {k}) @ Input({k}, {n})", a, b)
    assert len(program.group) == 2
    np.testing.assert_allclose(out.reshape(m, n), a @ b, rtol=1e-4, atol=1e-4)


def test_softmax():
    x = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32)
    _, out = run_expression("Input(5, 70).softmax()", x)
    expected = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(1, keepdims=True)
    np.testing.assert_allclose(out.reshape(5, 70), expected, rtol=1e-5)


def test_a_reduction_shared_by_a_group():
    x = np.random.default_rng(0).normal(size=(3, 4000)).astype(np.float32)
    program, out = run_expression("Input(3, 4000).sum(1)", x)
    assert program.group
    np.testing.assert_allclose(out.reshape(3), x.sum(1), rtol=1e-4, atol=1e-3)


def test_convolution():
    random = np.random.default_rng(0)
    x, w = (
        random.normal(size=(1, 3, 9, 9)).astype(np.float32),
        random.normal(size=(4, 3, 3, 3)).astype(np.float32),
    )
    _, out = run_expression("Input(1, 3, 9, 9).conv2d(Input(4, 3, 3, 3), padding=1)", x, w)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("bcyxij,fcij->bfyx", windows, w)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)

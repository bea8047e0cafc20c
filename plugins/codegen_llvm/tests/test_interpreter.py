"""Native code and the interpreter of the program level answer the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_codegen_llvm.testing import ProgramBuilder, iota, matmul, scaled_sum, splat

from tinycore.interpret.program import interpret_program
from tinycore.ir import UOp, dtypes, ops

SIZE = 32
LANES = 8


def both(program, execute, *arrays, variables=()):
    """Run natively and interpreted on copies; answers the last buffers of both."""
    native, meant = ([array.copy() for array in arrays] for _ in range(2))
    chunks = int(np.prod([int(bound) for bound in program.grid]))
    execute(program, *native, variables=variables, chunks=chunks)
    bindings = dict(zip(program.variables, variables, strict=True))
    interpret_program(program.linear, dict(enumerate(meant)), bindings, program.grid, program.group)
    return native[-1], meant[-1]


def same(native, meant):
    np.testing.assert_array_equal(native.view(np.uint8), meant.view(np.uint8))


@pytest.mark.parametrize("program", [scaled_sum(37), matmul(8, 24, 7)], ids=lambda program: program.name)
def test_samples(execute, program):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=param.arg[1]).astype(param.dtype.numpy) for param in program.parameters]
    same(*both(program, execute, *arrays))


INT_OPS = [
    ops.ADD,
    ops.SUB,
    ops.MUL,
    ops.TRUNCDIV,
    ops.TRUNCMOD,
    ops.SHL,
    ops.SHR,
    ops.AND,
    ops.OR,
    ops.XOR,
    ops.MAX,
    ops.MIN,
]
FLOAT_OPS = [ops.ADD, ops.SUB, ops.MUL]
DTYPES = [
    dtypes.int8,
    dtypes.uint8,
    dtypes.int32,
    dtypes.uint32,
    dtypes.int64,
    dtypes.float16,
    dtypes.bfloat16,
    dtypes.float32,
    dtypes.float64,
]


@st.composite
def programs(draw):
    """A loop over rows of lanes (or elements) with a random expression, a guard, a register and a branch."""
    lanes = draw(st.sampled_from([0, LANES]))
    builder = ProgramBuilder()
    inputs = [builder.buffer(slot, draw(st.sampled_from(DTYPES)), SIZE) for slot in range(2)]
    i = builder.range(SIZE // (lanes or 1))
    start = i * lanes if lanes else i
    place = splat(start, lanes) + iota(lanes) if lanes else start
    shape = (lanes,) if lanes else ()
    gate = place < UOp.const(dtypes.int64, draw(st.integers(0, SIZE)), shape)
    values = [builder.load(buffer, start, lanes or 1, gate) for buffer in inputs]
    for _ in range(draw(st.integers(1, 6))):
        value, other = draw(st.sampled_from(values)), draw(st.sampled_from(values)).cast(values[0].dtype)
        value = value.cast(values[0].dtype)
        op = draw(st.sampled_from(FLOAT_OPS if value.dtype.is_float else INT_OPS))
        step = draw(st.integers(0, 2))
        if step == 0:
            value = value.alu(op, other)
        elif step == 1:
            value = (value < other).where(value.alu(op, other), other)
        else:
            value = value.cast(draw(st.sampled_from(DTYPES)))
        values.append(value)
    result = values[-1]
    out = builder.buffer(2, result.dtype, SIZE)
    builder.store(out, start, result, draw(st.sampled_from([gate, UOp.const(dtypes.bool_, True, ())])))
    builder.end(i)
    return builder.program()


def content(dtype, random):
    """Random bits, NaN left out: which NaN an operation answers is nobody's business."""
    values = random.integers(0, 256, SIZE * dtype.itemsize, np.uint8).view(dtype.numpy).copy()
    if dtype.is_float:
        with np.errstate(invalid="ignore"):
            wide = values.astype(np.float64)
        values[~np.isfinite(wide) | (np.abs(wide) > 1e3)] = 0.5
    return values


@settings(max_examples=60, deadline=None, derandomize=True)
@given(program=programs(), seed=st.integers(0, 1000))
def test_random_programs(execute, program, seed):
    random = np.random.default_rng(seed)
    arrays = [content(param.dtype, random) for param in program.parameters]
    native, meant = both(program, execute, *arrays)
    if native.dtype.kind in "fV":
        wide = meant.astype(np.float64)
        keep = ~np.isnan(wide)
        np.testing.assert_array_equal(np.isnan(native.astype(np.float64)), ~keep)
        native, meant = native[keep], meant[keep]
    same(native, meant)

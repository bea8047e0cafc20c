"""Corners of the interpreter that verifying the rules of the core has found."""

import numpy as np
import pytest

from tinycore.errors import InterpretError
from tinycore.interpret import interpret, interpret_kernel
from tinycore.ir import UOp, dtypes, ops
from tinycore.passes.algebra import fold

TRUE = UOp.const(dtypes.bool_, True)


def run(value, buffers, size=1):
    """A scalar of a kernel, stored once."""
    out = UOp(ops.PARAM, value.dtype, (), (9, (size,)))
    store = UOp(ops.STORE, dtypes.void, (out, UOp.const(dtypes.index, 0), value, TRUE))
    memory = {**buffers, 9: np.ones(size, value.dtype.numpy)}
    interpret_kernel(UOp(ops.SINK, dtypes.void, (store,)), memory)
    return memory[9].tolist()


@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.float32], ids=str)
def test_the_product_of_an_fma_does_not_overflow(dtype):
    huge, infinite = float(np.finfo(dtype.numpy).max), float("inf")
    operands = [UOp.const(dtype, value) for value in (huge, -huge, infinite)]
    node = UOp(ops.FMA, dtype, tuple(operands))
    assert interpret([node], {})[0] == infinite
    assert fold(node).value == infinite


def test_a_loop_without_iterations_reads_nothing():
    empty = UOp(ops.PARAM, dtypes.float32, (), (0, (0,)))
    loop = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 0),), (0, "reduce"))
    element = UOp(ops.INDEX, dtypes.float32, (empty, TRUE, loop))
    total = UOp(ops.REDUCE, dtypes.float32, (element, loop), (ops.ADD, ()))
    assert run(total, {0: np.zeros(0, np.float32)}) == [0.0]


def test_a_loop_of_one_iteration_may_be_a_zero():
    x = UOp(
        ops.LOAD,
        dtypes.int32,
        (UOp(ops.PARAM, dtypes.int32, (), (0, (1,))), UOp.const(dtypes.index, 0), TRUE),
        1,
    )
    total = UOp(ops.REDUCE, dtypes.int32, (x, UOp.const(dtypes.index, 0)), (ops.ADD, ()))
    assert run(total, {0: np.array([7], np.int32)}) == [7]
    wrong = UOp(ops.REDUCE, dtypes.int32, (x, UOp.const(dtypes.index, 1)), (ops.ADD, ()))
    with pytest.raises(InterpretError, match="names loops after its value"):
        run(wrong, {0: np.array([7], np.int32)})

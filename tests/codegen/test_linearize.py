"""Kernel to program: where values are placed, hazards of buffers that a kernel reads and writes, depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import (
    assign,
    const,
    expand,
    gather,
    layer_norm,
    matmul,
    node,
    permute,
    reduce,
    scan,
    scatter,
    softmax,
    total,
)
from lowering import GROUPS, LANES, arrays_for, equal, expected, indexed, kernel_of, program_of, run_program

from tinycore.codegen.affine import affine
from tinycore.codegen.compile import kernel_name, lower, operations
from tinycore.codegen.pipeline import index_dtype
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

INT = dtypes.int32
YES = UOp.const(dtypes.bool_, True)


def x(*shape, identity=1, dtype=INT):
    return node(shape, dtype, identity)


def plain(root):
    """The program of a kernel without tiling, run and compared."""
    kernel = kernel_of(root)
    arrays = arrays_for(kernel)
    program = program_of(kernel, indexed(kernel), LANES)
    equal(run_program(program, arrays), expected(kernel, arrays))
    return program


def depth_of(program, wanted):
    """In how many loops each node of an op stands."""
    depth, found = 0, []
    for n in program.linear.src:
        if n.op is ops.END:
            depth -= 1
        if n.op is wanted:
            found.append(depth)
        if n.op is ops.RANGE and n.arg[1] not in ("global", "local"):
            depth += 1
    return found


def test_softmax_is_one_nest():
    program = plain(softmax(x(3, 5, dtype=dtypes.float32)))
    assert depth_of(program, ops.RANGE) == [0, 1, 1, 1]
    assert depth_of(program, ops.STORE) == [2]


def test_layer_norm_is_one_nest():
    assert depth_of(plain(layer_norm(x(3, 5, dtype=dtypes.float32), 5)), ops.RANGE) == [0, 1, 1, 1]


def test_invariants_leave_the_loops():
    program = plain(x(4, 6) * expand(x(4, 1, identity=2), 4, 6))
    assert sorted(depth_of(program, ops.LOAD)) == [1, 2]


def test_two_uses_share_a_loop():
    rows = total(x(4, 6), 1)
    assert sum(n.op is ops.ACCUMULATOR for n in plain(rows * rows + rows).linear.src) == 1


def test_scan_reads_what_the_same_loop_wrote():
    for shape, axis in (((7,), 0), ((3, 5), 0), ((3, 5), 1), ((2, 3, 4), 1), ((4, 1), 1)):
        plain(scan(x(*shape) * 2, axis))
        plain(scan(x(*shape), axis, ops.MAX))


def test_what_is_computed_from_a_running_result_stays_in_the_loop():
    narrow = {dtypes.float16, dtypes.bfloat16}  # computed in another dtype, so that the result is converted
    able = dataclasses.replace(LANES.capabilities, arithmetic=LANES.capabilities.arithmetic - narrow)
    for dtype in narrow:
        for root in (scan(x(4, 9, dtype=dtype), 1, ops.MUL), scan(x(9, dtype=dtype) * 2, 0, ops.ADD)):
            kernel = kernel_of(root)
            arrays = arrays_for(kernel)
            program = program_of(kernel, indexed(kernel), dataclasses.replace(LANES, capabilities=able))
            equal(run_program(program, arrays), expected(kernel, arrays))


def test_scatter_in_order():
    index = x(4, 3, identity=2)
    for op in (None, ops.ADD, ops.MAX, ops.MUL):
        plain(scatter(x(6, 5), index, x(4, 3, 5, identity=3), op=op))
        plain(scatter(x(5, 6), index, x(5, 4, 3, identity=3), axis=1, op=op))


def test_scatter_that_depends_on_nothing():
    plain(scatter(x(5), const(INT, 2, 7), const(INT, 3, 7), op=ops.ADD))
    plain(scatter(x(5), const(INT, 2, 2, 3), expand(x(2, 1, identity=2), 2, 3), op=ops.ADD))
    plain(scatter(x(5), expand(x(2, 1, identity=2), 2, 3), const(INT, 3, 2, 3), op=ops.MUL))


def test_in_place():
    a = x(4, 6)
    plain(assign(a, a * a + a))
    turned = permute(a, 1, 0)
    plain(assign(a, turned * turned, turned))


def test_gather_of_a_gather():
    index = x(5, identity=2)
    plain(gather(x(6, 3), gather(index, gather(index, index))))


@pytest.mark.parametrize("op", [ops.ADD, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.OR, ops.XOR])
def test_every_monoid(op):
    plain(reduce(x(3, 7), op, 1))
    plain(reduce(x(3, 7), op, 0, 1))


def test_no_loops_at_all():
    plain(x() + 1)
    plain(total(x(1, 1), 0, 1))
    plain(const(INT, 3))


def test_deep_expressions_need_no_recursion():
    """Far deeper than the scheduler lets kernels become, and than Python's stack."""
    i = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (0, "loop"))
    out, source = (UOp(ops.PARAM, INT, (), (slot, (8,))) for slot in (0, 1))
    load = UOp(ops.LOAD, INT, (source, i, YES), 1)
    value, position = load, i
    for k in range(5_000):
        value = (value ^ load) + k
        position = (position // 1 + 1) % 8 if k < 50 else position
    place = UOp(ops.LOAD, INT, (source, position, YES), 1)
    store = UOp(ops.STORE, dtypes.void, (out, i, value + place, YES))
    kernel = UOp(ops.SINK, dtypes.void, (store,), None)
    program = program_of_kernel(kernel)
    arrays = {0: np.zeros(8, np.int32), 1: np.arange(8, dtype=np.int32)}
    equal(run_program(program, arrays), deep_expected(arrays[1]))


def deep_expected(source):
    value, position = source.copy(), np.arange(8)
    for k in range(5_000):
        value = (value ^ source) + np.int32(k)
        position = (position + 1) % 8 if k < 50 else position
    return value + source[position]


def program_of_kernel(kernel):
    from tinycore.codegen.compile import assemble
    from tinycore.codegen.linearize import linearize

    return assemble(kernel, linearize(kernel, LANES, dtypes.int32))


def test_the_longest_chain_that_is_fused():
    value = x(16)
    for k in range(100):
        value = value * 3 + k if k % 2 else value ^ k
    assert sum(n.op.elementwise for n in plain(value).linear.src) >= 140


# --- the rest of lowering -----------------------------------------------------------------------------------


def test_address_arithmetic_is_as_wide_as_it_must_be():
    small = indexed(kernel_of(x(4, 6) + 1))
    large = indexed(kernel_of(x(1 << 16, 1 << 16, dtype=dtypes.int8) + 1))
    assert index_dtype(small, LANES) is dtypes.int32
    assert index_dtype(large, LANES) is dtypes.int64


def test_more_than_two_to_the_31_elements():
    kernel = kernel_of(permute(x(1 << 16, 1 << 15, 3, dtype=dtypes.int8), 1, 0, 2))
    program = program_of(kernel, indexed(kernel), LANES)
    assert {n.dtype for n in program.linear.src if n.op is ops.RANGE} == {dtypes.int64}


def test_names_and_estimates():
    kernel = kernel_of(matmul(x(4, 5, dtype=dtypes.float32), x(5, 6, dtype=dtypes.float32, identity=2)))
    assert operations(kernel) == 2 * 4 * 5 * 6
    assert kernel_name(kernel).startswith("r_4_")
    program = lower(kernel, LANES)
    assert program.written == {0}
    assert program.traffic == 4 * (4 * 6 + 4 * 5 + 5 * 6)
    assert kernel_name(kernel_of(x(4) + 1)) != kernel_name(kernel_of(x(4) + 2))
    assert kernel_name(kernel_of(x(UOp.variable("length", 1, 9), 3) + 1)).isidentifier()


def test_symbolic_estimates():
    n = UOp.variable("n", 1, 9)
    kernel = kernel_of(x(n, 4, dtype=dtypes.float32) + 1.0)
    from tinycore.ir import dims

    assert dims.evaluate(operations(kernel), {n: 3}) == 12
    assert dims.evaluate(lower(kernel, LANES).traffic, {n: 3}) == 2 * 4 * 12


def test_slots_must_be_numbered():
    odd = UOp(ops.PARAM, INT, (), (5, (4,)))
    out = UOp(ops.PARAM, INT, (), (0, (4,)))
    kernel = UOp(ops.SINK, dtypes.void, (UOp(ops.ASSIGN, INT, (out, out, odd + 1)),), None)
    with pytest.raises(CompileError, match="numbered"):
        lower(kernel, GROUPS)


def test_only_statements_stand_in_a_kernel():
    out = UOp(ops.PARAM, INT, (), (0, (4,)))
    with pytest.raises(CompileError, match="not a statement"):
        lower(UOp(ops.SINK, dtypes.void, (out + 1,), None), LANES)


def test_sums_of_products():
    i, j = (UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (k, "loop")) for k in range(2))
    form = affine((i * 4 + j) * 3 - (j - 5) - i * 12)
    assert form.constant == 5
    assert (form.factor(i), form.factor(j)) == (0, 2)
    assert affine(i * 2 + (i // 3)).depends_only_linearly(i) is False
    assert affine(i * j).factor(i) == 0

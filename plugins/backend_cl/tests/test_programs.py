"""Whole programs, rendered, compiled and run on the device; the interpreter says what they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tinycore_backend_cl import query
from tinycore_backend_cl.opencl import render

from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops


def floats(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [1, 16, 37])
def test_elementwise_over_the_grid(lines, kit, size):
    x, y, out = (lines.buffer(slot, dtypes.float32, size) for slot in range(3))
    i = lines.range(size, "global")
    lines.store(out, i, lines.load(x, i) * 2.0 + lines.load(y, i))
    a, b = floats((2, size))
    np.testing.assert_array_equal(kit.check(lines.program(), a, b, np.zeros_like(a)), a * 2 + b)


@pytest.mark.parametrize("lanes", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("size", [32, 37])
def test_lanes_with_a_masked_tail(lines, kit, size, lanes):
    x, y, out = (lines.buffer(slot, dtypes.float32, size) for slot in range(3))
    block = lines.range(-(-size // lanes), "global")
    start = block * lanes
    gate = (kit.splat(start, lanes) + kit.iota(lanes)) < UOp.const(dtypes.int32, size, (lanes,))
    a, b = lines.load(x, start, lanes, gate), lines.load(y, start, lanes, gate)
    lines.store(out, start, a * UOp.const(dtypes.float32, 2.0, (lanes,)) + b, gate)
    p, q = floats((2, size))
    np.testing.assert_array_equal(kit.check(lines.program(), p, q, np.zeros_like(p)), p * 2 + q)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bool_, dtypes.int8, dtypes.bfloat16])
def test_a_gate_for_all_lanes(lines, kit, dtype):
    x, out = lines.buffer(0, dtype, 16), lines.buffer(1, dtype, 32)
    i = lines.range(8, "global")
    inside = lines.add(i < 4)
    wide = lines.add(kit.splat(inside, 4))
    lines.store(out, i * 4, lines.load(x, i * 4, 4, wide), lines.add(kit.splat(lines.add(i.ne(1)), 4)))
    values = np.arange(16).astype(dtype.numpy)
    if dtype is dtypes.bool_:
        values = (np.arange(16) % 3).astype(bool)
    answer = kit.check(lines.program(), values, np.ones(32, dtype.numpy))
    assert (answer[4:8] == 1).all() and (answer[16:] == 0).all() and (answer[:4] == values[:4]).all()


@pytest.mark.parametrize("size", [1, 100, 257])
def test_a_reduction_tree_in_shared_memory(lines, kit, size):
    """Each group of 32 adds its part of a row; 5 steps with barriers between."""
    items = 32
    x, out = lines.buffer(0, dtypes.float32, 3 * size), lines.buffer(1, dtypes.float32, 3)
    row, item = lines.range(3, "global"), lines.range(items, "local")
    total = lines.accumulator(UOp.const(dtypes.float32, 0.0))
    k = lines.range(-(-size // items), "reduce")
    column = k * items + item
    lines.update(total, total + lines.load(x, row * size + column, 1, column < size))
    end = lines.end(k)
    memory = lines.scratch(dtypes.float32, items)
    lines.store(memory, item, lines.after(total, end))
    step = items // 2
    while step:
        shared = lines.after(memory, lines.barrier(lines.nodes[-1]))
        active = lines.add(item < step)
        both = lines.load(shared, item, 1, active) + lines.load(shared, item + step, 1, active)
        lines.store(shared, item, both, active)
        step //= 2
    final = lines.after(memory, lines.barrier(lines.nodes[-1]))
    lines.store(out, row, lines.load(final, 0), item.eq(0))
    values = floats((3, size))
    answer = kit.check(lines.program(), values, np.zeros(3, np.float32), close=True)
    np.testing.assert_allclose(answer, values.sum(1), rtol=1e-4, atol=1e-5)


def test_a_tiled_matmul_in_shared_memory(lines, kit):
    """8 x 8 work-items, tiles of both operands staged in local memory, two barriers an iteration."""
    m, n, k, tile = 16, 24, 32, 8
    a, b, c = (lines.buffer(slot, dtypes.float32, size) for slot, size in enumerate((m * k, k * n, m * n)))
    gi, gj = lines.range(m // tile, "global"), lines.range(n // tile, "global")
    li, lj = lines.range(tile, "local"), lines.range(tile, "local")
    left, right = lines.scratch(dtypes.float32, tile * tile), lines.scratch(dtypes.float32, tile * tile)
    row, column = lines.add(gi * tile + li), lines.add(gj * tile + lj)
    total = lines.accumulator(UOp.const(dtypes.float32, 0.0))
    outer = lines.range(k // tile, "reduce")
    lines.store(left, li * tile + lj, lines.load(a, row * k + (outer * tile + lj)))
    lines.store(right, li * tile + lj, lines.load(b, (outer * tile + li) * n + column))
    barrier = lines.barrier(*lines.nodes[-1:])
    shared, other = lines.after(left, barrier), lines.after(right, barrier)
    inner = lines.range(tile, "reduce")
    product = lines.load(shared, li * tile + inner) * lines.load(other, inner * tile + lj)
    lines.update(total, total + product)
    lines.end(inner)
    lines.barrier(outer)
    end = lines.end(outer)
    lines.store(c, row * n + column, lines.after(total, end))
    x, y = floats((m, k)), floats((k, n), 1)
    answer = kit.check(lines.program(), x.ravel(), y.ravel(), np.zeros(m * n, np.float32), close=True)
    np.testing.assert_allclose(answer.reshape(m, n), x @ y, rtol=1e-4, atol=1e-5)


def test_a_lost_barrier_is_in_the_text(lines, kit):
    """The text of the reduction has one barrier for each BARRIER: none may get lost."""
    memory, out = lines.scratch(dtypes.float32, 4), lines.buffer(0, dtypes.float32, 4)
    item = lines.range(4, "local")
    lines.store(memory, item, item.cast(dtypes.float32))
    shared = lines.after(memory, lines.barrier(lines.nodes[-1]))
    lines.store(out, item, lines.load(shared, 3 - item))
    text = kit.device.render(lines.program())
    assert text.count("barrier(CLK_LOCAL_MEM_FENCE);") == 1
    assert text.index("scratch0[lid0] =") < text.index("barrier(") < text.index("data0[lid0] =")


def test_accumulators_with_lanes(lines, kit):
    x, out = lines.buffer(0, dtypes.float32, 64), lines.buffer(1, dtypes.float32, 6)
    total = lines.accumulator(UOp.const(dtypes.float32, 0.0, (4,)))
    i = lines.range(16, "reduce")
    part = lines.load(x, i * 4, 4)
    lines.update(total, UOp(ops.FMA, dtypes.float32, (part, part, total)))
    final = lines.after(total, lines.end(i))
    lines.store(out, 0, final)
    lines.store(out, 4, lines.add(UOp(ops.LANE_REDUCE, dtypes.float32, (final,), ops.ADD)))
    lines.store(out, 5, lines.add(UOp(ops.LANE_REDUCE, dtypes.float32, (final,), ops.MAX)))
    values = floats(64)
    answer = kit.check(lines.program(), values, np.zeros(6, np.float32), close=True)
    np.testing.assert_allclose(answer[4], (values**2).sum(), rtol=1e-5)


@pytest.mark.parametrize("op", [ops.ADD, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.XOR])
@pytest.mark.parametrize("lanes", [3, 16])
def test_lane_reductions_of_integers_and_bools(lines, kit, op, lanes):
    for slot, dtype in enumerate((dtypes.int8, dtypes.bool_)):
        x = lines.buffer(2 * slot, dtype, lanes)
        wide = lines.load(x, 0, lanes)
        if dtype is dtypes.bool_:
            wide = lines.add(wide ^ UOp.const(dtypes.bool_, True, (lanes,)))
        out = lines.buffer(2 * slot + 1, dtype, 1)
        lines.store(out, 0, lines.add(UOp(ops.LANE_REDUCE, dtype, (wide,), op)))
    values = np.random.default_rng(0).integers(-128, 127, lanes).astype(np.int8)
    kit.check(lines.program(), values, np.zeros(1, np.int8), values > 0, np.zeros(1, bool))


def test_a_nan_wins_every_maximum(lines, kit):
    x, out = lines.buffer(0, dtypes.float32, 4), lines.buffer(1, dtypes.float32, 2)
    wide = lines.load(x, 0, 4)
    for position, op in enumerate((ops.MAX, ops.MIN)):
        lines.store(out, position, lines.add(UOp(ops.LANE_REDUCE, dtypes.float32, (wide,), op)))
    program = lines.program()
    for where in range(4):
        values = np.arange(4, dtype=np.float32)
        values[where] = np.nan
        assert np.isnan(kit.check(program, values, np.zeros(2, np.float32))).all()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_variables_bound_loops(lines, kit, count):
    out = lines.buffer(0, dtypes.float32, 1)
    n = UOp.variable("n", 0, 100)
    lines.variables = (n,)
    total = lines.accumulator(UOp.const(dtypes.float32, 3.0))
    i = lines.range(UOp(ops.VARIABLE, dtypes.int32, (), n.arg), "reduce")
    lines.update(total, total + i.cast(dtypes.float32))
    lines.store(out, 0, lines.after(total, lines.end(i)))
    answer = kit.check(lines.program(), np.zeros(1, np.float32), variables=(count,))
    assert answer[0] == 3 + sum(range(count))


def test_odd_names_of_variables(lines, kit):
    out = lines.buffer(0, dtypes.int64, 2)
    first, second = UOp.variable("int", 0, 100), UOp.variable("batch size!", 0, 1 << 40)
    lines.variables = (first, second)
    for position, variable in enumerate(lines.variables):
        lines.store(out, position, UOp(ops.VARIABLE, dtypes.int64, (), variable.arg))
    assert kit.check(lines.program(), np.zeros(2, np.int64), variables=(7, 1 << 35)).tolist() == [7, 1 << 35]


def test_accumulators_of_nested_loops_start_anew(lines, kit):
    x, out = lines.buffer(0, dtypes.float32, 12), lines.buffer(1, dtypes.float32, 4)
    total = lines.accumulator(UOp.const(dtypes.float32, 0.0))
    i = lines.range(3)
    row = lines.accumulator(UOp.const(dtypes.float32, 0.0))
    j = lines.range(4, "reduce")
    lines.update(row, row + lines.load(x, i * 4 + j))
    inner = lines.after(row, lines.end(j))
    lines.store(out, i, inner)
    lines.update(total, total + inner)
    lines.store(out, 3, lines.after(total, lines.end(i)))
    answer = kit.check(lines.program(), np.arange(12, dtype=np.float32), np.zeros(4, np.float32))
    assert answer.tolist() == [6, 22, 38, 66]


def test_branches(lines, kit):
    x, out = lines.buffer(0, dtypes.int32, 8), lines.buffer(1, dtypes.int32, 9)
    count = lines.accumulator(UOp.const(dtypes.int32, 0))
    i = lines.range(8)
    value = lines.load(x, i)
    condition = UOp(ops.IF, dtypes.void, (lines.add(value > 0),))
    lines.again(condition)
    lines.update(count, count + 1)
    lines.store(out, i, value * 10)
    lines.again(UOp(ops.ENDIF, dtypes.void, (condition,)))
    lines.store(out, 8, lines.after(count, lines.end(i)))
    values = np.array([3, -1, 0, 5, 7, -2, 1, -9], np.int32)
    answer = kit.check(lines.program(), values, np.full(9, -5, np.int32))
    assert answer.tolist() == [*np.where(values > 0, values * 10, -5), 4]


def test_values_read_the_register_where_they_are_listed(lines, kit):
    """A swap: the old values must survive the first update."""
    out = lines.buffer(0, dtypes.int32, 3)
    a, b = (lines.accumulator(UOp.const(dtypes.int32, value)) for value in (1, 1))
    i = lines.range(10)
    total = lines.add(a + b)
    lines.update(a, b + 0)
    lines.update(b, total)
    end = lines.end(i)
    lines.store(out, 0, lines.after(a, end))
    lines.store(out, 1, lines.after(b, end))
    assert kit.check(lines.program(), np.zeros(3, np.int32)).tolist() == [89, 144, 0]


def test_the_same_node_listed_twice_reads_the_register_twice(lines, kit):
    out = lines.buffer(0, dtypes.int32, 1)
    count = lines.accumulator(UOp.const(dtypes.int32, 1))
    doubled = lines.add(count + count)
    lines.update(count, doubled)
    lines.again(doubled)
    lines.again(UOp(ops.UPDATE, dtypes.void, (count, doubled)))
    lines.store(out, 0, lines.after(count))
    assert kit.check(lines.program(), np.zeros(1, np.int32))[0] == 4


def test_loads_stay_before_stores(lines, kit):
    """Swaps two elements of one buffer."""
    x = lines.buffer(0, dtypes.int32, 2)
    first, second = lines.load(x, 0), lines.load(x, 1)
    lines.store(x, 0, second)
    lines.store(x, 1, first)
    assert kit.check(lines.program(), np.array([3, 8], np.int32)).tolist() == [8, 3]


def test_a_load_listed_again_reads_what_was_stored(lines, kit):
    x = lines.buffer(0, dtypes.int32, 3)
    value = lines.load(x, 0)
    lines.store(x, 0, lines.add(value + 5))
    lines.again(value)
    lines.store(x, 1, lines.add(value * 2))
    assert kit.check(lines.program(), np.array([3, 8, 1], np.int32)).tolist() == [8, 16, 1]


def test_a_load_listed_twice_before_its_only_user(lines, kit):
    x = lines.buffer(0, dtypes.int32, 3)
    value = lines.load(x, 0)
    lines.store(x, 0, kit.number(5))
    lines.again(value)
    lines.store(x, 1, value)
    assert kit.check(lines.program(), np.array([3, 8, 1], np.int32)).tolist() == [5, 5, 1]


def test_what_after_has_read_stays(lines, kit):
    out = lines.buffer(0, dtypes.int32, 2)
    total = lines.accumulator(kit.number(1))
    early = lines.after(total)
    lines.update(total, total + 6)
    lines.store(out, 0, early)
    lines.store(out, 1, lines.after(total, lines.nodes[-1]))
    assert kit.check(lines.program(), np.zeros(2, np.int32)).tolist() == [1, 7]


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.bool_, dtypes.float16])
def test_gather_and_scatter(lines, kit, lanes, dtype):
    x, where = lines.buffer(0, dtype, lanes), lines.buffer(1, dtypes.int64, lanes)
    out = lines.buffer(2, dtype, lanes)
    index = lines.load(where, 0, lanes)
    gate = lines.add(index.ne(UOp.const(dtypes.int64, 0, (lanes,))))
    lines.store(out, index, lines.load(x, index, 1, gate), gate)
    values = floats(lanes).astype(dtype.numpy) if dtype.is_float else floats(lanes) > 0
    order = np.random.default_rng(1).permutation(lanes)
    answer = kit.check(lines.program(), values, order, np.ones(lanes, dtype.numpy))
    np.testing.assert_array_equal(answer[1:], values[1:])


def test_guarded_loads_do_not_touch_memory(lines, kit):
    x, out = lines.buffer(0, dtypes.float32, 8), lines.buffer(1, dtypes.float32, 40)
    i = lines.range(8)
    gate = lines.add(i < 3)
    wide = lines.add(kit.splat(gate, 4))
    far = lines.add(gate.where(kit.number(0), kit.number(1 << 30)) + i)
    lines.store(out, i, lines.load(x, far, 1, gate))
    lines.store(out, i * 4 + 8, lines.load(x, far, 4, wide))
    lines.store(out, far, i.cast(dtypes.float32) + 100.0, gate & i.eq(2))
    lines.end(i)
    answer = kit.check(lines.program(), np.arange(1, 9, dtype=np.float32), np.full(40, -1, np.float32))
    np.testing.assert_array_equal(answer[:8], [1, 2, 102, 0, 0, 0, 0, 0])


def test_private_scratch(lines, kit):
    x, out = lines.buffer(0, dtypes.float32, 8), lines.buffer(1, dtypes.float32, 8)
    memory = lines.scratch(dtypes.float32, 8, "private")
    i = lines.range(8)
    lines.store(memory, 7 - i, lines.load(x, i))
    end = lines.end(i)
    filled = lines.after(memory, end)
    j = lines.range(8)
    lines.store(out, j, lines.load(filled, j))
    lines.end(j)
    values = floats(8)
    np.testing.assert_array_equal(kit.check(lines.program(), values, np.zeros(8, np.float32)), values[::-1])


def test_a_three_dimensional_grid(lines, kit):
    out = lines.buffer(0, dtypes.int32, 2 * 3 * 5)
    i, j, k = (lines.range(bound, "global") for bound in (2, 3, 5))
    lines.store(out, (i * 3 + j) * 5 + k, i * 100 + j * 10 + k)
    answer = kit.check(lines.program(), np.zeros(30, np.int32))
    assert answer[-1] == 124 and answer[5] == 10


def test_no_contraction(lines, kit):
    """a * b + c rounds twice, also where both are written into one expression."""
    x, out = lines.buffer(0, dtypes.float32, 64), lines.buffer(1, dtypes.float32, 64)
    i = lines.range(64, "global")
    value = lines.load(x, i)
    lines.store(out, i, value * value - 1.00048828125)
    lines.store(out, i, lines.load(x, i) * 3.0 + 0.1)
    values = np.float32(1) + np.arange(1, 65, dtype=np.float32) * np.float32(2**-20)
    answer = kit.check(lines.program(), values, np.zeros(64, np.float32))
    np.testing.assert_array_equal(answer, values * np.float32(3) + np.float32(0.1))


def test_many_buffers(lines, kit):
    count = kit.device.target.capabilities.max_buffers - 1
    sources = [lines.buffer(slot, dtypes.float32, 1) for slot in range(count)]
    out = lines.buffer(count, dtypes.float32, 1)
    total = lines.load(sources[0], 0)
    for source in sources[1:]:
        total = lines.add(total + lines.load(source, 0))
    lines.store(out, 0, total)
    arrays = [np.full(1, slot, np.float32) for slot in range(count)]
    assert kit.check(lines.program(), *arrays, np.zeros(1, np.float32))[0] == sum(range(count))


def test_a_long_chain_is_split_into_lines(lines, kit):
    x = lines.buffer(0, dtypes.int32, 1)
    value = lines.load(x, 0)
    for step in range(200):
        value = lines.add(value * 3 + step)
    lines.store(x, 0, value)
    text = kit.device.render(lines.program())
    assert max(map(len, text.splitlines())) < 250
    kit.check(lines.program(), np.ones(1, np.int32))


def test_lanes_that_opencl_lacks_are_an_error(lines, kit):
    x = lines.buffer(0, dtypes.float32, 5)
    lines.store(x, 0, lines.load(x, 0, 5))
    with pytest.raises(CompileError, match="no vectors of 5 lanes"):
        kit.device.render(lines.program())


def test_functions_of_bits_are_an_error(lines, kit):
    x = lines.buffer(0, dtypes.bfloat16, 1)
    lines.store(x, 0, lines.add(UOp(ops.SIN, dtypes.bfloat16, (lines.load(x, 0),))))
    with pytest.raises(CompileError, match=r"no render rule for SIN\(bfloat16\)"):
        kit.device.render(lines.program())


def test_conversions_of_8_bit_floats_without_rules_are_an_error(lines, kit):
    x, out = lines.buffer(0, dtypes.float8_e4m3, 1), lines.buffer(1, dtypes.float32, 1)
    lines.store(out, 0, lines.add(lines.load(x, 0).cast(dtypes.float32)))
    with pytest.raises(CompileError, match=r"no render rule for CAST\(float8_e4m3\) of float32"):
        kit.device.render(lines.program())


def test_a_value_used_before_it_is_listed_is_an_error(lines, kit):
    x = lines.buffer(0, dtypes.float32, 1)
    load = UOp(ops.LOAD, dtypes.float32, (x, kit.number(0), kit.yes), 1)
    lines.again(UOp(ops.STORE, dtypes.void, (x, kit.number(0), load, kit.yes)))
    with pytest.raises(CompileError, match="before it is listed"):
        kit.device.render(lines.program())


def test_float16_where_the_device_computes_with_it(lines, kit):
    """Only read here: PoCL has no arithmetic on float16."""
    target = query.target(replace(query.GENERIC, extensions=frozenset({"cl_khr_fp16"})))
    x, out = lines.buffer(0, dtypes.float16, 8), lines.buffer(1, dtypes.float32, 4)
    wide = lines.load(x, 0, 4)
    lines.store(x, 4, lines.add(wide * UOp.const(dtypes.float16, 0.1, (4,))))
    lines.store(out, 0, lines.add(wide.cast(dtypes.float32)))
    text = render(lines.program(), target)
    assert "__global half* data0 =" in text and "half4 val0 = vload4(0, data0 + 0);" in text
    assert "vstore4(val0 * (half4)(0x1.998p-4h), 0, data0 + 4);" in text
    assert "vstore4(convert_float4(val0), 0, data1 + 0);" in text
    assert "#pragma OPENCL EXTENSION cl_khr_fp16 : enable" in text
    assert "from_half" not in text


def test_the_text_of_a_kernel(lines, kit):
    """What DEBUG=4 shows: arguments as base and offset, the grid, a guarded load, a helper for bfloat16."""
    n = UOp.variable("n", 1, 100)
    lines.variables = (n,)
    x, out = lines.buffer(0, dtypes.float32, 100), lines.buffer(1, dtypes.bfloat16, 100)
    block, item = lines.range(4, "global"), lines.range(32, "local")
    i = lines.add(block * 32 + item)
    gate = lines.add(i < UOp(ops.VARIABLE, dtypes.int32, (), n.arg))
    value = lines.add(lines.load(x, i, 1, gate) * 0.1)
    lines.store(out, i, lines.add(value.cast(dtypes.bfloat16)), gate)
    assert (
        kit.device.render(lines.program("scale"))
        == """\
#pragma OPENCL FP_CONTRACT OFF
inline ushort bfloat16_from_float(float x) {
  const uint bits = as_uint(x);
  const uint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return convert_ushort(select(rounded, (bits >> 16) | 0x40u, isnan(x)));
}
__kernel __attribute__((reqd_work_group_size(32, 1, 1)))
void scale(
    const __global float* data0_base, const ulong data0_start,
    __global ushort* data1_base, const ulong data1_start,
    const long var_n_argument) {
  const __global float* data0 = (const __global float*)((const __global uchar*)data0_base + data0_start);
  __global ushort* data1 = (__global ushort*)((__global uchar*)data1_base + data1_start);
  const int var_n = (int)var_n_argument;
  int gid0 = get_group_id(0);
  int lid0 = get_local_id(0);
  int alu0 = (gid0 * 32) + lid0;
  bool alu1 = alu0 < var_n;
  if (alu1) data1[alu0] = bfloat16_from_float((alu1 ? data0[alu0] : 0.0f) * 0x1.99999ap-4f);
}
"""
    )

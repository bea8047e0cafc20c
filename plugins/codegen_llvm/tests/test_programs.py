"""Whole programs, run in this process and compared with numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tinycore_codegen_llvm import CPU, render
from tinycore_codegen_llvm.machine import Machine
from tinycore_codegen_llvm.testing import YES, ProgramBuilder, integer, iota, matmul, scaled_sum

from tinycore.codegen.tiling import Prefetch
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops


@pytest.mark.parametrize("size", [1, 16, 37])
def test_elementwise_with_a_masked_tail(execute, size):
    program = scaled_sum(size)
    x, y = np.random.default_rng(0).normal(size=(2, size)).astype(np.float32)
    memory = np.full(size + 64, 7, np.float32)
    out = memory[32 : 32 + size]
    execute(program, x, y, out, chunks=program.grid[0])
    np.testing.assert_array_equal(out, x * 2 + y)
    assert (memory[:32] == 7).all() and (memory[32 + size :] == 7).all()


def test_matmul_with_accumulators_in_nested_loops(execute):
    program = matmul(8, 24, 5)
    a, b = np.random.default_rng(0).normal(size=(8, 5)), np.random.default_rng(1).normal(size=(5, 24))
    a, b, c = a.astype(np.float32), b.astype(np.float32), np.zeros((8, 24), np.float32)
    np.testing.assert_allclose(execute(program, a, b, c), a @ b, rtol=1e-5, atol=1e-6)


def test_a_register_tile_stays_in_registers():
    program = matmul(32, 64, 512, lanes=16, rows=8)
    text = render(program, CPU())
    assert "alloca" not in text
    assert text.count(" = phi <16 x float>") == 8  # one an accumulator, in the header of the k loop only
    machine = Machine.host()
    if "+avx512f" not in machine.features:
        pytest.skip("the processor has no 512-bit vectors")
    assembly = machine.assembly(text)
    inner = max(assembly.split("# =>"), key=lambda block: block.count("vfmadd"))
    assert inner.count("vfmadd231ps") == 8 and inner.count("%zmm") >= 8
    assert "(%rsp)" not in inner


def test_constant_displacements_share_one_address(lines):
    x, out = (lines.buffer(slot, dtypes.float32) for slot in range(2))
    i = lines.range(4)
    first, second = lines.load(x, i * 4 + 1), lines.load(x, i * 4 + 3)
    lines.store(out, i, first + second)
    lines.end(i)
    text = render(lines.program(), CPU())
    assert text.count("mul i64") == 1 and "add i64 %mul" not in text
    assert ", i64 1" in text and ", i64 3" in text


def test_a_loop_that_may_run_zero_times(lines, execute):
    out = lines.buffer(0, dtypes.float32, 1)
    n = UOp.variable("n", 0, 100)
    accumulator = lines.accumulator(UOp.const(dtypes.float32, 3.0))
    bound = lines.add(UOp(ops.CAST, dtypes.int64, (n,)))
    i = lines.range(bound, "reduce")
    lines.update(accumulator, accumulator + (i + 1).cast(dtypes.float32))
    end = lines.end(i)
    lines.store(out, 0, lines.after(accumulator, end))
    program = lines.program(variables=(n,))
    for count in (0, 1, 5):
        answer = execute(program, np.zeros(1, np.float32), variables=(count,))
        assert answer[0] == 3 + count * (count + 1) / 2


def test_accumulators_of_nested_loops_start_anew(lines, execute):
    """out[i] = sum of x[i, :], and the total of all rows in the last element."""
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
    values = np.arange(12, dtype=np.float32)
    answer = execute(lines.program(), values, np.zeros(4, np.float32))
    np.testing.assert_array_equal(answer, [6, 22, 38, 66])


def test_conditional_blocks_merge_accumulators(lines, execute):
    """Counts the elements above zero, with a branch; stores only there."""
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
    answer = execute(lines.program(), values, np.full(9, -5, np.int32))
    np.testing.assert_array_equal(answer, [*np.where(values > 0, values * 10, -5), 4])


def test_what_is_known_in_a_block_is_not_known_after_it(lines, execute):
    """An address that is computed in a loop that may not run is computed again after it."""
    x, out = lines.buffer(0, dtypes.float32, 8), lines.buffer(1, dtypes.float32, 8)
    n = UOp.variable("n", 0, 4).replace(dtype=dtypes.int64)
    i = lines.range(n)
    lines.store(out, i, lines.load(x, 5))
    lines.end(i)
    lines.nodes.append(lines.nodes[1])
    lines.again(UOp(ops.STORE, dtypes.void, (out, integer(7), lines.nodes[1], YES)))
    program = lines.program(variables=(n,))
    values = np.arange(8, dtype=np.float32)
    for count in (0, 3):
        answer = execute(program, values, np.zeros(8, np.float32), variables=(count,))
        np.testing.assert_array_equal(answer, [5] * count + [0] * (7 - count) + [5])


def test_a_register_that_is_set_anew_in_a_loop(lines, execute):
    """Listed before the loop and in it: what it holds at the end is what the last iteration left."""
    out = lines.buffer(0, dtypes.int64, 5)
    register = lines.accumulator(UOp.const(dtypes.int64, 10))
    lines.update(register, register + 5)
    i = lines.range(4)
    lines.again(register)
    lines.update(register, register + i)
    lines.store(out, i, register)
    lines.store(out, 4, lines.after(register, lines.end(i)))
    np.testing.assert_array_equal(execute(lines.program(), np.zeros(5, np.int64)), [10, 11, 12, 13, 13])


def test_the_same_node_listed_twice_reads_the_register_twice(lines, execute):
    out = lines.buffer(0, dtypes.int32, 1)
    count = lines.accumulator(UOp.const(dtypes.int32, 1))
    doubled = lines.add(count + count)
    lines.update(count, doubled)
    lines.again(doubled)
    lines.again(UOp(ops.UPDATE, dtypes.void, (count, doubled)))
    lines.store(out, 0, lines.after(count))
    assert execute(lines.program(), np.zeros(1, np.int32))[0] == 4


@pytest.mark.parametrize("lanes", [4, 16])
def test_gather_and_scatter(lines, execute, lanes):
    x, where, out = (
        lines.buffer(0, dtypes.float32),
        lines.buffer(1, dtypes.int64),
        lines.buffer(2, dtypes.float32),
    )
    index = lines.load(where, 0, lanes)
    gate = index.ne(UOp.const(dtypes.int64, 0, (lanes,)))
    lines.store(out, index, lines.load(x, index, 1, gate) + UOp.const(dtypes.float32, 1.0, (lanes,)), gate)
    values = np.random.default_rng(0).normal(size=lanes).astype(np.float32)
    order = np.random.default_rng(1).permutation(lanes)
    expected = np.where(np.arange(lanes) == 0, -1, values + 1).astype(np.float32)
    answer = execute(lines.program(), values, order, np.full(lanes, -1, np.float32))
    np.testing.assert_array_equal(answer, expected)


def test_guarded_loads_do_not_touch_memory(lines, execute):
    """Scalar and neighbouring loads whose index is far outside when the guard is false."""
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    i = lines.range(8)
    gate = i < 3
    far = lines.add(gate.where(integer(0), integer(1 << 40)) + i)
    lines.store(out, i, lines.load(x, far, 1, gate))
    lines.store(out, i * 4 + 8, lines.load(x, far, 4, gate))
    lines.store(out, far, i.cast(dtypes.float32) + 100.0, gate & i.eq(2))
    lines.end(i)
    values = np.arange(1, 9, dtype=np.float32)
    answer = execute(lines.program(), values, np.full(40, -1, np.float32))
    np.testing.assert_array_equal(answer[:8], [1, 2, 102, 0, 0, 0, 0, 0])
    expected = np.zeros((8, 4), np.float32)
    for row in range(3):
        expected[row] = values[row : row + 4]
    np.testing.assert_array_equal(answer[8:].reshape(8, 4), expected)
    text = render(lines.program(), CPU())
    assert text.count(", ptr %buffer1\n") == 1  # the scalar load reads element 0 where it may not read


@pytest.mark.parametrize("tail", [False, True], ids=["all lanes", "some lanes"])
def test_masked_accesses_far_outside_ask_for_the_buffer_itself(lines, execute, tail):
    """An address that may not be touched is slow even where no lane is wanted."""
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    i = lines.range(4)
    wanted = lines.add(i < 2)
    gate = lines.add(UOp(ops.SPLAT, dtypes.bool_, (wanted,), 4))
    if tail:
        gate = lines.add(gate & lines.add(iota(4) < UOp.const(dtypes.int64, 3, (4,))))
    far = lines.add(wanted.where(i * 4, integer(1 << 40)))
    lines.store(out, far, lines.load(x, far, 4, gate), gate)
    lines.end(i)
    values = np.arange(1, 9, dtype=np.float32)
    answer = execute(lines.program(), values, np.full(8, -1, np.float32))
    lanes = 3 if tail else 4
    np.testing.assert_array_equal(answer.reshape(2, 4)[:, :lanes], values.reshape(2, 4)[:, :lanes])
    assert (answer.reshape(2, 4)[:, lanes:] == -1).all()
    assert render(lines.program(), CPU()).count("select i1") == 3  # the address, and both pointers


def test_bools_are_bytes_in_memory(lines, execute):
    x, out = lines.buffer(0, dtypes.bool_, 20), lines.buffer(1, dtypes.bool_, 20)
    gate = (iota(16)) < UOp.const(dtypes.int64, 12, (16,))
    lines.store(out, 0, lines.load(x, 0, 16, gate) ^ UOp.const(dtypes.bool_, True, (16,)), gate)
    lines.store(out, 19, lines.load(x, 19))
    values = np.random.default_rng(0).integers(0, 2, 20).astype(bool)
    answer = execute(lines.program(), values, np.zeros(20, bool))
    expected = np.concatenate([~values[:12], np.zeros(7, bool), values[19:]])
    np.testing.assert_array_equal(answer, expected)


def test_scratch_memory(lines, execute):
    """Reverses 8 numbers by way of memory that the kernel owns."""
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    scratch = UOp(ops.SCRATCH, dtypes.float32, (), ("private", 0, (8,)))
    i = lines.range(8)
    lines.again(UOp(ops.STORE, dtypes.void, (scratch, lines.add(integer(7) - i), lines.load(x, i), YES)))
    end = lines.end(i)
    full = UOp(ops.AFTER, dtypes.float32, (scratch, end))
    lines.store(out, 0, lines.load(full, 0, 8))
    values = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(execute(lines.program(), values, np.zeros(8, np.float32)), values[::-1])


def test_the_grid_is_unravelled_with_the_last_id_fastest(lines, execute):
    out = lines.buffer(0, dtypes.int64)
    n = UOp.variable("n", 1, 64)
    ids = [lines.range(bound, "global") for bound in (2, lines.add(UOp(ops.CAST, dtypes.int64, (n,))), 5)]
    wide = lines.add(UOp(ops.CAST, dtypes.int64, (n,)))
    lines.store(out, (ids[0] * wide + ids[1]) * 5 + ids[2], ids[0] * 100 + ids[1] * 10 + ids[2])
    program = lines.program(variables=(n,), grid=(2, n, 5))
    answer = execute(program, np.zeros(30, np.int64), variables=(3,), chunks=30)
    expected = [a * 100 + b * 10 + c for a in range(2) for b in range(3) for c in range(5)]
    np.testing.assert_array_equal(answer, expected)


def test_what_is_not_used_is_not_written(lines):
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    value = lines.load(x, 0)
    lines.add(UOp(ops.SQRT, dtypes.float32, (value + 1.0,)))
    lines.store(out, 0, value)
    text = render(lines.program(), CPU())
    assert "sqrt" not in text and "fadd" not in text


def test_programs_without_meaning_are_refused(lines):
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    i = lines.range(4)
    value = lines.load(x, i)
    with pytest.raises(CompileError, match="never closed"):
        render(lines.program(), CPU())
    lines.end(i)
    lines.nodes.remove(value)
    lines.again(
        UOp(ops.STORE, dtypes.void, (out, UOp.const(dtypes.int64, 0), value, UOp.const(dtypes.bool_, True)))
    )
    with pytest.raises(CompileError, match="used before it was computed"):
        render(lines.program(), CPU())
    lines.nodes[:] = [UOp(ops.RANGE, dtypes.int64, (UOp.const(dtypes.int64, 4),), (0, "vector"))]
    with pytest.raises(CompileError, match="vector range"):
        render(lines.program(), CPU())


# --- stores past the caches ---------------------------------------------------------------------------------


def streaming(program):
    return dataclasses.replace(program, streaming=True)


def copy_of_rows(size, lanes, offset=0):
    """``out[i + offset] = x[i] + 1``, two vectors at a time."""
    builder = ProgramBuilder()
    x, out = builder.buffer(0, dtypes.float32, size), builder.buffer(1, dtypes.float32, size + offset)
    i = builder.range(size // (2 * lanes))
    one = UOp.const(dtypes.float32, 1.0, (lanes,))
    values = [builder.add(builder.load(x, i * (2 * lanes) + part, lanes) + one) for part in (0, lanes)]
    for part, value in zip((0, lanes), values, strict=True):
        builder.store(out, i * (2 * lanes) + (part + offset), value)
    builder.end(i)
    return builder.program("copy")


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("shift", [0, 1, 4, 16])
def test_streaming_stores_whatever_the_alignment(execute, lanes, shift):
    program = streaming(copy_of_rows(256, lanes))
    text = render(program, CPU())
    assert text.count("!nontemporal") == 2 and text.count("icmp eq i64") == 1 and "fence seq_cst" in text
    memory = np.zeros(256 + 64, np.float32)
    start = -(memory.ctypes.data // 4) % 16 + shift
    out = memory[start : start + 256]
    x = np.arange(256, dtype=np.float32)
    execute(program, x, out)
    np.testing.assert_array_equal(out, x + 1)
    assert (memory[:start] == 0).all() and (memory[start + 256 :] == 0).all()


def test_what_cannot_be_streamed_is_stored_plainly(execute):
    """Masked stores, scalars, and places that are no whole vectors."""
    assert "!nontemporal" not in render(streaming(scaled_sum(37)), CPU())
    assert "!nontemporal" not in render(streaming(copy_of_rows(256, 16, offset=1)), CPU())
    assert "!nontemporal" not in render(copy_of_rows(256, 16), CPU())
    x, out = np.arange(256, dtype=np.float32), np.zeros(257, np.float32)
    execute(streaming(copy_of_rows(256, 16, offset=1)), x, out)
    np.testing.assert_array_equal(out[1:], x + 1)


# --- asking for memory before it is needed ------------------------------------------------------------------


def sum_of_rows(rows, columns, lanes):
    """``out[k] = sum(a[row, k] for row)``, the rows in the outer loop, and a factor that moves with them only."""
    builder = ProgramBuilder()
    a, factors = builder.buffer(0, dtypes.float32, rows * columns), builder.buffer(1, dtypes.float32, rows)
    out = builder.buffer(2, dtypes.float32, columns)
    row = builder.range(rows)
    factor = builder.add(UOp(ops.SPLAT, dtypes.float32, (builder.load(factors, row),), lanes))
    part = builder.range(columns // lanes)
    value = builder.add(builder.load(a, row * columns + part * lanes, lanes) * factor)
    before = builder.load(out, part * lanes, lanes)
    builder.store(out, part * lanes, builder.add(before + value))
    builder.end(part)
    builder.end(row)
    return builder.program("sums")


@pytest.mark.parametrize(
    ("action", "bytes_ahead"),
    [(Prefetch(0, 5), [5 * 32, 5 * 32]), (Prefetch(1, 2), [2 * 256]), (Prefetch(2, 1), [])],
)
def test_what_is_read_later_is_asked_for(execute, action, bytes_ahead):
    """A loop counts where it moves the address: only the matrix is walked by two, and the factors are no vectors."""
    program = dataclasses.replace(sum_of_rows(10, 64, 8), prefetch=action)
    text = render(program, CPU())
    assert text.count("call void @llvm.prefetch") == len(bytes_ahead)
    for distance in bytes_ahead:
        assert f"i64 {distance}\n" in text
    a, factors = np.random.default_rng(0).normal(size=(10, 64)), np.arange(10.0)
    out = np.zeros(64, np.float32)
    execute(program, a.astype(np.float32), factors.astype(np.float32), out)
    np.testing.assert_allclose(out, factors @ a, rtol=1e-4, atol=1e-5)


def test_nothing_is_asked_for_without_being_told():
    assert "prefetch" not in render(sum_of_rows(10, 64, 8), CPU())

"""Elementwise ops and casts on edge values, scalar and in lanes, compared with numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tinycore_codegen_llvm import CPU, render
from tinycore_codegen_llvm.machine import Machine

from tinycore.errors import CompileError
from tinycore.interpret import conversions
from tinycore.ir import UOp, dtypes, ops

INTS = (*dtypes.SIGNED, *dtypes.UNSIGNED)
FLOATS = (dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
ALL = (dtypes.bool_, *INTS, *FLOATS)
LANES = [None, 8]


def edges(dtype):
    """Values where things go wrong, padded to a multiple of 8."""
    if dtype.kind == "bool":
        values = np.array([False, True] * 8)
    elif dtype.is_int:
        low, high = int(dtype.min), int(dtype.max)
        chosen = [
            low,
            low + 1,
            -1 if low < 0 else 1,
            0,
            1,
            2,
            7,
            high // 2,
            high - 1,
            high,
            100,
            3,
            31,
            8,
            64,
            5,
        ]
        # Next to ties of bfloat16, at every width that loses bits on the way there.
        chosen += [(257 << shift) + step for shift in (16, 40, 51) for step in (0, 1, -1)]
        chosen = [value for value in chosen if low <= value <= high]
        values = np.array(chosen + chosen[: -len(chosen) % 8], dtype.numpy)
    else:
        chosen = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            np.inf,
            -np.inf,
            np.nan,
            127.6,
            -128.9,
            254.9,
            255.5,
            2.0**15,
            2.0**31,
            2.0**32,
            2.0**63,
            2.0**64,
            -(2.0**31),
            -(2.0**63),
            1e-6,
            6e-8,
            65504.0,
            65520.0,
            1 + 2.0**-11,
            1 + 2.0**-11 + 2.0**-40,
            1 + 2.0**-8,
            1 + 2.0**-8 + 2.0**-40,
            3.14159,
        ]
        with np.errstate(over="ignore"):
            values = np.array(chosen, np.float64).astype(dtype.numpy)
    return values


def run(lines, execute, inputs, result, build, lanes):
    """Apply `build` to elements (or rows of lanes) of the inputs and answer all results."""
    size = len(inputs[0][1])
    buffers = [lines.buffer(slot, dtype, size) for slot, (dtype, _) in enumerate(inputs)]
    out = lines.buffer(len(inputs), result, size)
    i = lines.range(size // (lanes or 1))
    index = i * lanes if lanes else i
    loaded = [lines.load(buffer, index, lanes or 1) for buffer in buffers]
    lines.store(out, index, build(*loaded))
    lines.end(i)
    program = lines.program()
    assert "call" not in calls(program), "library calls cannot be linked"
    return execute(program, *[values for _, values in inputs], np.zeros(size, result.numpy))


def calls(program):
    assembly = Machine.host().assembly(render(program, CPU()))
    return [line.split()[0] for line in assembly.splitlines() if line.startswith("\t")]


def same(answer, expected):
    """Equal, NaN as NaN, zeros with their sign."""
    answer, expected = np.asarray(answer), np.asarray(expected)
    if answer.dtype.kind in "fV":  # ml_dtypes are void to numpy
        answer, expected = answer.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_array_equal(np.signbit(answer[answer == 0]), np.signbit(expected[expected == 0]))
    np.testing.assert_array_equal(answer, expected)


def pairs(dtype):
    values = edges(dtype)
    grid = np.array(list(itertools.product(values, values)), dtype.numpy)
    return np.ascontiguousarray(grid[:, 0]), np.ascontiguousarray(grid[:, 1])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("target", ALL, ids=str)
@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts(lines, execute, source, target, lanes):
    values = edges(source)
    answer = run(lines, execute, [(source, values)], target, lambda x: x.cast(target), lanes)
    with np.errstate(all="ignore"):
        same(answer, conversions.cast(target, values))


UNARY = {
    ops.NEG: np.negative,
    ops.SQRT: np.sqrt,
    ops.FLOOR: np.floor,
    ops.TRUNC: np.trunc,
    ops.ROUND: np.rint,
}


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", UNARY, ids=str)
def test_float_unary(lines, execute, op, dtype, lanes):
    values = edges(dtype)
    with np.errstate(invalid="ignore"):
        expected = UNARY[op](values.astype(np.float64)).astype(dtype.numpy)
    same(run(lines, execute, [(dtype, values)], dtype, lambda x: x.alu(op), lanes), expected)


BINARY = {
    ops.ADD: np.add,
    ops.SUB: np.subtract,
    ops.MUL: np.multiply,
    ops.DIV: np.divide,
    ops.MAX: np.maximum,
    ops.MIN: np.minimum,
}
COMPARE = {ops.LT: np.less, ops.LE: np.less_equal, ops.EQ: np.equal, ops.NE: np.not_equal}


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", [*BINARY, *COMPARE], ids=str)
def test_float_binary(lines, execute, op, dtype, lanes):
    a, b = pairs(dtype)
    result = dtypes.bool_ if op in COMPARE else dtype
    # 16-bit floats: one rounding of the exact (or float32) result, which is what wider arithmetic gives.
    wide = np.float32 if dtype.itemsize < 4 else dtype.numpy
    with np.errstate(all="ignore"):
        expected = {**BINARY, **COMPARE}[op](a.astype(wide), b.astype(wide)).astype(result.numpy)
    answer = run(lines, execute, [(dtype, a), (dtype, b)], result, lambda x, y: x.alu(op, y), lanes)
    if op in (ops.MAX, ops.MIN):  # the sign of a zero is unspecified
        answer, expected = answer.astype(np.float64) + 0.0, expected.astype(np.float64) + 0.0
    same(answer, expected)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fma_rounds_once(lines, execute, dtype, lanes):
    random = np.random.default_rng(0)
    # 1.5 times the next number after 1 is a tie, unless something tiny is added.
    tie, tiny = 1 + 2.0**-dtype.mantissa, 2.0**-24 if dtype is dtypes.float16 else 2.0**-60
    a = np.concatenate([np.exp2(random.uniform(-8, 8, 1000)), [tie, 1.5, 2**8, -tie, np.inf, np.nan, 0, 1e4]])
    b = np.concatenate([random.normal(size=1000), [1.5, tie, tie, 1.5, 0, 1, 2, 1e4]])
    c = np.concatenate([random.normal(size=1000), [tiny, -tiny, tiny, tiny, 1, 1, -0.0, -1e8]])
    with np.errstate(all="ignore"):
        a, b, c = (values.astype(dtype.numpy) for values in (a, b, c))
        expected = conversions.fused_multiply_add(dtype, a, b, c)
    inputs = [(dtype, a), (dtype, b), (dtype, c)]
    same(run(lines, execute, inputs, dtype, lambda x, y, z: UOp(ops.FMA, dtype, (x, y, z)), lanes), expected)


def exact(op, a, b, dtype):
    """Integer ops by Python's numbers, wrapped."""
    a, b, width = int(a), int(b), dtype.bits
    if op in (ops.TRUNCDIV, ops.TRUNCMOD):
        if b == 0:
            return 0
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        value = quotient if op is ops.TRUNCDIV else a - quotient * b
    elif op is ops.SHL:
        value = a << b if 0 <= b < width else 0
    elif op is ops.SHR:
        value = a >> b if 0 <= b < width else (-1 if a < 0 else 0)
    else:
        value = {
            ops.ADD: a + b,
            ops.SUB: a - b,
            ops.MUL: a * b,
            ops.MAX: max(a, b),
            ops.MIN: min(a, b),
            ops.AND: a & b,
            ops.OR: a | b,
            ops.XOR: a ^ b,
            ops.LT: a < b,
            ops.LE: a <= b,
            ops.EQ: a == b,
            ops.NE: a != b,
        }[op]
    return value if op in COMPARE else dtype.to_bits(value)


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
    *COMPARE,
]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", INTS, ids=str)
@pytest.mark.parametrize("op", INT_OPS, ids=str)
def test_int_binary(lines, execute, op, dtype, lanes):
    a, b = pairs(dtype)
    result = dtypes.bool_ if op in COMPARE else dtype
    expected = np.array([exact(op, x, y, dtype) for x, y in zip(a, b, strict=True)], result.numpy)
    same(run(lines, execute, [(dtype, a), (dtype, b)], result, lambda x, y: x.alu(op, y), lanes), expected)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    "op", [ops.ADD, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.OR, ops.XOR, *COMPARE], ids=str
)
def test_bool_binary(lines, execute, op, lanes):
    a, b = np.tile([False, False, True, True], 2), np.tile([False, True], 4)
    meaning = {
        ops.ADD: np.logical_or,
        ops.MUL: np.logical_and,
        ops.MAX: np.logical_or,
        ops.MIN: np.logical_and,
        ops.AND: np.logical_and,
        ops.OR: np.logical_or,
        ops.XOR: np.logical_xor,
        **COMPARE,
    }
    answer = run(
        lines, execute, [(dtypes.bool_, a), (dtypes.bool_, b)], dtypes.bool_, lambda x, y: x.alu(op, y), lanes
    )
    same(answer, meaning[op](a, b))


@pytest.mark.parametrize("divisor", [1, -1, 3, 8, -8, 10])
@pytest.mark.parametrize("op", [ops.TRUNCDIV, ops.TRUNCMOD], ids=str)
def test_division_by_constants_is_unguarded_where_it_may(lines, execute, op, divisor):
    values = edges(dtypes.int32)
    answer = run(
        lines,
        execute,
        [(dtypes.int32, values)],
        dtypes.int32,
        lambda x: x.alu(op, x.const_like(divisor)),
        None,
    )
    same(answer, [exact(op, value, divisor, dtypes.int32) for value in values])
    text = render(lines.program(), CPU())
    assert ("select" in text) == (divisor == -1)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_where_and_bitcast(lines, execute, dtype, lanes):
    values = edges(dtype)
    bits = dtypes.by_name({1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}[dtype.itemsize])

    def build(x):
        back = x.bitcast(bits).bitcast(dtype)
        return x.alu(ops.EQ, x).where(back, x.const_like(1))

    expected = np.where(values == values, values, np.ones_like(values))
    same(run(lines, execute, [(dtype, values)], dtype, build, lanes), expected)


MONOIDS = {ops.ADD: np.sum, ops.MUL: np.prod, ops.MAX: np.max, ops.MIN: np.min}


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("op", MONOIDS, ids=str)
def test_lane_reduce(lines, execute, op, dtype):
    values = np.array([1, 2, 3, 1, 1, 2, 1, 1]).astype(dtype.numpy)
    x, out = lines.buffer(0, dtype), lines.buffer(1, dtype)
    lines.store(out, 0, UOp(ops.LANE_REDUCE, dtype, (lines.load(x, 0, 8),), op))
    expected = MONOIDS[op](values.astype(np.float64)) if dtype.kind != "bool" else True
    assert execute(lines.program(), values, np.zeros(1, dtype.numpy))[0] == expected


def test_lane_reduce_hands_nan_on(lines, execute):
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    lines.store(out, 0, UOp(ops.LANE_REDUCE, dtypes.float32, (lines.load(x, 0, 8),), ops.MAX))
    for place in range(8):
        values = np.arange(8, dtype=np.float32)
        values[place] = np.nan
        assert np.isnan(execute(lines.program(), values, np.zeros(1, np.float32))[0])


@pytest.mark.parametrize(
    "bits", [0x7FC00001, 0xFFC00000, 0x7FA00000, 0x80000000, 0x00000001, 0x7F7FFFFF, 0x3DCCCCCD]
)
@pytest.mark.parametrize("lanes", LANES)
def test_float32_constants_are_exact(lines, execute, bits, lanes):
    out = lines.buffer(0, dtypes.uint32, 8)
    shape = (lanes,) if lanes else ()
    lines.store(out, 0, lines.add(UOp.from_bits(dtypes.float32, bits, shape).bitcast(dtypes.uint32)))
    assert execute(lines.program(), np.zeros(8, np.uint32))[0] == bits


def test_what_cannot_be_computed_is_refused(lines):
    x, out = lines.buffer(0, dtypes.float32), lines.buffer(1, dtypes.float32)
    lines.store(out, 0, lines.load(x, 0).alu(ops.SIN))
    with pytest.raises(CompileError, match="no SIN for float32"):
        render(lines.program(), CPU())
    lines.nodes.clear()
    small = lines.buffer(0, dtypes.float8_e4m3)
    value = lines.load(small, 0)
    lines.store(lines.buffer(1, dtypes.float8_e4m3), 0, value + value)
    with pytest.raises(CompileError, match="cannot compute in float8_e4m3"):
        render(lines.program(), CPU())

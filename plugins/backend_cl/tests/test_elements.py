"""Every elementwise op for every dtype, as scalars and with lanes, on values where things go wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tinycore_backend_cl import query

from tinycore.ir import UOp, dtypes, ops

COMPARISONS = (ops.LT, ops.LE, ops.EQ, ops.NE)
BY_KIND = {
    "bool": (ops.ADD, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.OR, ops.XOR, *COMPARISONS),
    "int": (ops.ADD, ops.SUB, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.OR, ops.XOR, *COMPARISONS, ops.NEG),
    "float": (
        ops.ADD,
        ops.SUB,
        ops.MUL,
        ops.DIV,
        ops.MAX,
        ops.MIN,
        *COMPARISONS,
        ops.NEG,
        ops.SQRT,
        ops.FLOOR,
        ops.TRUNC,
        ops.ROUND,
    ),
}
ARITHMETIC = sorted(query.arithmetic_dtypes(half=False, double=True), key=str)
STORED = sorted(query.storage_dtypes(double=True), key=str)
LANES = [0, 3, 16]


def edges(dtype):
    """Values of a dtype among which most mistakes show."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if not dtype.is_float:
        some = {0, 1, 2, 3, 7, 100, int(dtype.max), int(dtype.max) - 1, int(dtype.max) // 2 + 1}
        some |= {-1, -2, -7, int(dtype.min), int(dtype.min) + 1} if dtype.kind == "int" else set()
        return np.array(sorted(some), dtype.numpy)
    values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.1,
        3.7,
        -3.7,
        127.5,
        255.9,
        256.0,
        32768.0,
        65504.0,
        65520.0,
        1e5,
        2147483520.0,
        2147483648.0,
        -2147483648.0,
        -2147483904.0,
        4294967296.0,
        9.2e18,
        9223372036854775808.0,
        -9223372036854775808.0,
        1.8446744073709552e19,
        1e30,
        -1e30,
        1e-30,
        1e-40,
        6e-8,
        5.96e-8,
        2.98e-8,
        1.00390625,
        1.01171875,
        1 + 2**-8 + 2**-40,
        1 + 2**-11 + 2**-40,
        np.inf,
        -np.inf,
        np.nan,
    ]
    with np.errstate(all="ignore"):
        return np.array(values).astype(dtype.numpy)


def padded(array, lanes):
    """A multiple of the lanes."""
    step = max(lanes, 1)
    return np.ascontiguousarray(np.resize(array, -(-array.size // step) * step))


def operands(lines, kit, lanes, *arrays_of):
    """Loads of one element or of lanes for each (slot, dtype, size), in a grid over all of them."""
    size = arrays_of[0][2]
    i = lines.range(size // max(lanes, 1), "global")
    start = lines.add(i * lanes) if lanes else i
    buffers = [lines.buffer(*argument) for argument in arrays_of]
    return start, [lines.load(buffer, start, lanes or 1) for buffer in buffers]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_arithmetic(lines, kit, dtype, lanes):
    pairs = np.array(list(itertools.product(edges(dtype), repeat=2)), dtype.numpy)
    a, b = (padded(pairs[:, k], lanes) for k in range(2))
    start, (x, y) = operands(lines, kit, lanes, (0, dtype, a.size), (1, dtype, a.size))
    outs = []
    for op in BY_KIND["int" if dtype.is_int else dtype.kind]:
        value = lines.add(x.alu(op, *([y] if len(op.operands) == 2 else [])))
        lines.store(lines.buffer(len(outs) + 2, value.dtype, a.size), start, value)
        outs.append(np.zeros(a.size, value.dtype.numpy))
    kit.check(lines.program(), a, b, *outs)


@pytest.mark.parametrize("lanes", [0, 4])
@pytest.mark.parametrize("dtype", [dtypes.bool_, dtypes.int8, dtypes.int32, dtypes.float32], ids=str)
def test_operands_that_are_written_in(lines, kit, dtype, lanes):
    """Operands with one user become part of its text: here choices, which bind weakest of all."""
    pairs = np.array(list(itertools.product(edges(dtype), repeat=2)), dtype.numpy)
    a, b = (padded(pairs[:, k], lanes) for k in range(2))
    start, (x, y) = operands(lines, kit, lanes, (0, dtype, a.size), (1, dtype, a.size))
    gate, outs = lines.add(x < y), []
    shape = (lanes,) if lanes else ()
    for op in BY_KIND["int" if dtype.is_int else dtype.kind]:
        parts = [
            lines.add(gate.where(x, UOp.const(dtype, len(outs) * 2, shape))),
            lines.add(gate.where(UOp.const(dtype, len(outs) * 2 + 1, shape), y)),
        ]
        value = lines.add(parts[0].alu(op, *parts[1 : len(op.operands)]))
        lines.store(lines.buffer(len(outs) + 2, value.dtype, a.size), start, value)
        outs.append(np.zeros(a.size, value.dtype.numpy))
    kit.check(lines.program(), a, b, *outs)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [d for d in ARITHMETIC if d.is_int], ids=str)
def test_division_and_shifts_within_their_domain(lines, kit, dtype, lanes):
    """Rules guard what is outside of it: divisors of 0 and -1, shifts by more than the width."""
    divisors = [d for d in edges(dtype) if d not in (0, -1)]
    pairs = np.array(list(itertools.product(edges(dtype), divisors)), dtype.numpy)
    a, b = (padded(pairs[:, k], lanes) for k in range(2))
    shifts = (np.arange(a.size) % dtype.bits).astype(dtype.numpy)
    arguments = [(slot, dtype, a.size) for slot in range(3)]
    start, (x, y, s) = operands(lines, kit, lanes, *arguments)
    outs = [np.zeros(a.size, dtype.numpy) for _ in range(4)]
    for slot, value in enumerate((x.alu(ops.TRUNCDIV, y), x.alu(ops.TRUNCMOD, y), x << s, x >> s)):
        lines.store(lines.buffer(slot + 3, dtype, a.size), start, lines.add(value))
    kit.check(lines.program(), a, b, shifts, *outs)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_conversions_to_everything(lines, kit, dtype, lanes):
    x = padded(edges(dtype), lanes)
    start, (value,) = operands(lines, kit, lanes, (0, dtype, x.size))
    outs = []
    for slot, target in enumerate(STORED, 1):
        lines.store(lines.buffer(slot, target, x.size), start, lines.add(value.cast(target)))
        outs.append(np.zeros(x.size, target.numpy))
    kit.check(lines.program(), x, *outs)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [*STORED, dtypes.float8_e4m3, dtypes.float8_e5m2], ids=str)
def test_choice_bits_and_constants(lines, kit, dtype, lanes):
    """WHERE, BITCAST, a constant of every edge value, SPLAT, and what a gated load answers elsewhere."""
    x = padded(edges(dtype), lanes)
    shape = (lanes,) if lanes else ()
    start, (value,) = operands(lines, kit, lanes, (0, dtype, x.size))
    wide = {1: dtypes.uint8, 2: dtypes.int16, 4: dtypes.uint32, 8: dtypes.int64}[dtype.itemsize]
    zero = UOp.const(dtype, 0, shape)
    equal = lines.add(value.bitcast(wide).eq(UOp.const(wide, 0, shape)))
    results = [value.bitcast(wide), equal.where(UOp.const(dtype, 1, shape), value), equal.where(value, zero)]
    first = lines.load(lines.buffers[0], 0)
    results.append(kit.splat(first, lanes) if lanes else first)
    results += [equal.where(UOp.const(dtype, number.item(), shape), zero) for number in edges(dtype)]
    outs = []
    for slot, result in enumerate(results, 1):
        lines.store(lines.buffer(slot, result.dtype, x.size), start, lines.add(result))
        outs.append(np.zeros(x.size, result.dtype.numpy))
    kit.check(lines.program(), x, *outs)


@pytest.mark.parametrize("dtype", [d for d in ARITHMETIC if d.is_int], ids=str)
def test_iota_and_bitcast_to_bool(lines, kit, dtype):
    out = lines.buffer(0, dtype, 8)
    lines.store(out, 0, lines.add(kit.iota(8, dtype) * UOp.const(dtype, 3, (8,))))
    assert kit.check(lines.program(), np.zeros(8, dtype.numpy)).tolist() == list(range(0, 24, 3))


@pytest.mark.parametrize("lanes", LANES)
def test_bools_are_bytes(lines, kit, lanes):
    x = padded(np.array([0, 1, 1, 0], np.uint8), lanes)
    start, (value,) = operands(lines, kit, lanes, (0, dtypes.uint8, x.size))
    lines.store(lines.buffer(1, dtypes.bool_, x.size), start, lines.add(value.bitcast(dtypes.bool_)))
    first = lines.load(lines.buffers[0], 1).bitcast(dtypes.bool_)
    same = lines.add(kit.splat(first, lanes) if lanes else first)
    lines.store(lines.buffer(2, dtypes.int32, x.size), start, lines.add(same.cast(dtypes.int32)))
    arrays = (x, np.zeros(x.size, bool), np.zeros(x.size, np.int32))
    kit.check(lines.program(), *arrays)
    _, answer, ones = kit.run(lines.program(), *arrays)
    assert (ones == 1).all() and answer.view(np.uint8).tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("lanes", LANES)
def test_fused_multiply_add_rounds_once(lines, kit, dtype, lanes):
    rng = np.random.default_rng(0)
    a, b = (padded(rng.normal(size=60).astype(dtype.numpy), lanes) for _ in range(2))
    arguments = [(0, dtype, a.size), (1, dtype, a.size), (2, dtype, a.size)]
    start, (x, y, z) = operands(lines, kit, lanes, *arguments)
    lines.store(lines.buffer(3, dtype, a.size), start, lines.add(UOp(ops.FMA, dtype, (x, y, z))))
    kit.check(lines.program(), a, b, -(a * b), np.zeros_like(a))

"""decompose.rules: the stated bound of every approximation, special values, conversions, what is left over.

Distances are counted in floats from the correctly rounded result: 1 means a neighbour of it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from passes_helpers import Context, same_bits, target

import tinycore
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.target import BASIC_OPS
from tinycore.rules import load

UNARY = [ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF]
TRANSCENDENTAL = [*UNARY, ops.POW]
PLAIN, FUSED = target(), target(ops.FMA)
TARGETS = pytest.mark.parametrize("machine", [PLAIN, FUSED], ids=["plain", "fused"])
extended = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here"
)


def decompose(node, machine=PLAIN):
    return load("tinycore.passes.decompose").passes["decompose"](node, Context(machine))


def buffer(identity, dtype, size):
    return UOp(ops.BUFFER, dtype, (), (identity, (size,), "D"))


def run(op, dtype, machine, *arrays):
    leaves = [buffer(k, dtype, len(array)) for k, array in enumerate(arrays)]
    graph = decompose(UOp(op, dtype, tuple(leaves)), machine)
    assert not graph.mask & op.bit
    return interpret([graph], dict(zip(leaves, arrays, strict=True)))[0]


def stated(op, dtype):
    """The n of @approx(ulp, n) in the file."""
    name = "circular" if op in (ops.SIN, ops.COS) else op.name.lower()
    suffix = {"float32": "f32", "float64": "f64"}[dtype.name]
    text = Path(tinycore.__file__).parent.joinpath("passes", "decompose.rules").read_text()
    return int(re.search(rf"\b{name}_{suffix}: .*?@approx\(ulp, (\d+)\)", text, re.DOTALL)[1])


def distance(answer, wanted):
    """How many floats apart; NaN only beside NaN, and zeros must have the right sign."""
    kind = {4: np.int32, 8: np.int64}[answer.dtype.itemsize]
    least = np.iinfo(kind).min

    def place(x):
        bits = x.view(kind)
        return np.where(bits < 0, least - bits, bits)

    steps = np.abs(place(answer).astype(np.longdouble) - place(wanted).astype(np.longdouble))
    wrong = (np.isnan(answer) != np.isnan(wanted)) | (
        (wanted == 0) & (np.signbit(answer) != np.signbit(wanted))
    )
    return np.where(wrong, np.inf, np.where(np.isnan(wanted), 0, steps))


def check(op, dtype, machine, wanted, *arrays):
    with np.errstate(all="ignore"):
        answer = run(op, dtype, machine, *arrays)
        steps = distance(answer, wanted.astype(dtype.numpy))
    worst = int(np.argmax(steps))
    assert steps[worst] <= stated(op, dtype), (op, [a[worst] for a in arrays], answer[worst], wanted[worst])


erf = np.frompyfunc(math.erf, 1, 1)
REFERENCE = {
    ops.EXP: np.exp,
    ops.EXP2: np.exp2,
    ops.LOG: np.log,
    ops.LOG2: np.log2,
    ops.SIN: np.sin,
    ops.COS: np.cos,
    ops.TANH: np.tanh,
    ops.ERF: lambda x: np.asarray(erf(x.astype(np.float64))).astype(np.float64),
}


# --- float32: a dense sample of all floats, and everything around the interesting ones ----------------------


def near(values, dtype, steps=40):
    """The floats around some values, both signs."""
    kind = {4: np.int32, 8: np.int64}[np.dtype(dtype).itemsize]
    bits = np.array([abs(v) for v in values], dtype).view(kind)
    around = (bits[:, None] + np.arange(-steps, steps + 1)[None, :]).reshape(-1)
    positive = around[around >= 0].view(dtype)
    return np.concatenate([positive, -positive])


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 2.0, -2.0]
EDGES = {
    ops.EXP: [88.7228, 87.3365, 103.9721, 103.2789, 0.34657359, 1.0, 89.0, 104.0],
    ops.EXP2: [128.0, 126.0, 149.0, 150.0, 0.5, 1.5, 129.0, 151.0],
    ops.LOG: [1.0, 0.70710678, 1.41421356, 2.0, 1.17549435e-38],
    ops.LOG2: [1.0, 0.70710678, 1.41421356, 2.0, 1.17549435e-38, 8.0],
    ops.TANH: [9.01, 10.0, 0.17, 0.35, 0.5493],
    ops.ERF: [1.0, 3.92, 4.0, 0.5],
    # float32 numbers close to multiples of pi/2, the last the closest of all; limits of the two reductions.
    ops.SIN: [3.1415927, 1.5707964, 3000.0, 2999.9, 1e22, 16367173 * 2.0**72, 2.0**20, 710.0, 3.4e38],
    ops.COS: [3.1415927, 1.5707964, 3000.0, 2999.9, 1e22, 16367173 * 2.0**72, 2.0**20, 710.0, 3.4e38],
}


def sample32(op, seed):
    random = np.random.default_rng(seed)
    dense = np.arange(random.integers(9973), 2**32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    close = random.uniform(-4, 4, 50_000).astype(np.float32)
    multiples = (np.arange(1, 20_000) * (np.pi / 2)).astype(np.float32)
    return np.concatenate(
        [np.array(SPECIAL, np.float32), near(EDGES[op], np.float32), dense, close, multiples]
    )


@TARGETS
@pytest.mark.parametrize("op", UNARY, ids=str)
def test_float32_bounds(op, machine):
    x = sample32(op, op.number)
    with np.errstate(all="ignore"):
        wanted = REFERENCE[op](x.astype(np.float64)).astype(np.float32)
    check(op, dtypes.float32, machine, wanted, x)


def pairs(dtype, seed, size):
    """Arguments of POW: results of every size, bases near 1, and all pairs of special values."""
    random = np.random.default_rng(seed)
    reach = {np.float32: 149, np.float64: 1074}[dtype]
    bases = np.concatenate(
        [
            np.exp2(random.uniform(-reach, reach * 0.8, size)),
            random.uniform(0.7, 1.4, size),
            1 + random.uniform(-1e-3, 1e-3, size),
            np.exp2(random.uniform(-4, 4, size)),
        ]
    ).astype(dtype)
    exponents = random.uniform(-reach, reach * 0.85, 3 * size) / np.log2(bases[: 3 * size].astype(np.float64))
    exponents = np.concatenate([exponents, random.uniform(-5, 5, size)]).astype(dtype)
    limits = np.finfo(dtype)
    special = np.array(
        [
            *SPECIAL,
            3.0,
            -3.0,
            -0.5,
            2.5,
            1e30,
            -1e30,
            1e-30,
            limits.tiny,
            limits.max,
            -limits.max,
            limits.smallest_subnormal,
            16777216,
            16777215,
            -7,
            -1e-40,
        ],
        dtype,
    )
    a, b = np.meshgrid(special, special)
    return np.concatenate([bases, a.ravel()]), np.concatenate([exponents, b.ravel()])


@TARGETS
@extended
@pytest.mark.parametrize("dtype, size", [(dtypes.float32, 60_000), (dtypes.float64, 20_000)], ids=str)
def test_powers(dtype, size, machine):
    if dtype is dtypes.float64 and machine is FUSED:
        size = 500  # the interpreter does FMA of float64 in fractions
    with np.errstate(all="ignore"):
        a, b = pairs(dtype.numpy.type, 5, size)
        wanted = np.power(a.astype(np.longdouble), b.astype(np.longdouble)).astype(dtype.numpy)
    check(ops.POW, dtype, machine, wanted, a, b)


# --- float64 -----------------------------------------------------------------------------------------------

EDGES64 = {
    ops.EXP: [
        709.782712893384,
        708.3964185322641,
        745.1332191019412,
        744.4400719213812,
        0.34657359,
        710.0,
        746.0,
    ],
    ops.EXP2: [1024.0, 1022.0, 1074.0, 1075.0, 0.5, 1025.0, 1076.0],
    ops.LOG: [1.0, 0.7071067811865476, 1.4142135623730951, 2.2250738585072014e-308],
    ops.LOG2: [1.0, 0.7071067811865476, 1.4142135623730951, 2.2250738585072014e-308, 8.0],
    ops.TANH: [19.06, 20.0, 0.17, 0.5493],
    ops.ERF: [1.0, 2.6, 5.86, 6.0, 0.5],
    ops.SIN: [np.pi, np.pi / 2, 1.5e6, 1e22, 6381956970095103 * 2.0**797, 2.0**20, 1.7e308],
    ops.COS: [np.pi, np.pi / 2, 1.5e6, 1e22, 6381956970095103 * 2.0**797, 2.0**20, 1.7e308],
}
RANGES64 = {ops.EXP: 745, ops.EXP2: 1074, ops.TANH: 20, ops.ERF: 6, ops.SIN: 1e7, ops.COS: 1e7}


def sample64(op, size):
    random = np.random.default_rng(op.number)
    spread = np.exp2(random.uniform(-1074, 1023, size))
    parts = [np.array(SPECIAL), near(EDGES64[op], np.float64, 10), spread, random.uniform(-3, 3, size)]
    if op in RANGES64:
        parts += [-spread, random.uniform(-RANGES64[op], RANGES64[op], size)]
    parts.append(random.integers(1, 900_000, size // 4) * (np.pi / 2))
    return np.concatenate(parts)


@TARGETS
@extended
@pytest.mark.parametrize("op", UNARY, ids=str)
def test_float64_bounds(op, machine):
    x = sample64(op, 10_000 if machine is PLAIN else 200)
    with np.errstate(all="ignore"):
        wanted = REFERENCE[op](x.astype(np.longdouble)).astype(np.float64)
    check(op, dtypes.float64, machine, wanted, x)


# --- narrower floats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("op", UNARY, ids=str)
def test_sixteen_bits_are_the_rounded_float32(op, dtype):
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    with np.errstate(all="ignore"):
        answer = run(op, dtype, PLAIN, x).view(np.int16).astype(int)
        wanted = REFERENCE[op](x.astype(np.float64)).astype(np.float32).astype(dtype.numpy)
    nan = np.isnan(wanted.astype(np.float32))
    steps = np.where(nan, 0, np.abs(answer - wanted.view(np.int16)))
    assert np.isnan(np.where(nan, answer.astype(np.int16).view(dtype.numpy).astype(np.float32), np.nan)).all()
    assert steps.max() <= 1
    assert (steps == 0).mean() > 0.999


NARROW = [dtypes.bfloat16, dtypes.float8_e4m3, dtypes.float8_e5m2]
WIDE_ONLY = target(arithmetic=[d for d in dtypes.DATA if d not in NARROW])


def convert(source, dtype, x):
    leaf = buffer(0, source, len(x))
    graph = decompose(leaf.cast(dtype), WIDE_ONLY)
    for node in graph.toposort():  # no conversion from or to these is left
        assert node.op is not ops.CAST or not {node.dtype, node.src[0].dtype} & set(NARROW)
    with np.errstate(all="ignore"):
        return interpret([leaf.cast(dtype)], {leaf: x})[0], interpret([graph], {leaf: x})[0]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("target_dtype", dtypes.DATA, ids=str)
def test_conversions_of_all_narrow_values(dtype, target_dtype):
    unsigned = {1: np.uint8, 2: np.uint16}[dtype.itemsize]
    x = np.arange(1 << dtype.bits, dtype=np.uint32).astype(unsigned).view(dtype.numpy)
    assert same_bits(*convert(dtype, target_dtype, x))


def ties(dtype):
    """All values of a narrow dtype, the middles between neighbours, and what lies just beside both."""
    unsigned = {1: np.uint8, 2: np.uint16}[dtype.itemsize]
    with np.errstate(invalid="ignore"):
        points = (
            np.arange(1 << dtype.bits, dtype=np.uint32).astype(unsigned).view(dtype.numpy).astype(np.float64)
        )
    points = np.unique(points[np.isfinite(points)])
    return np.concatenate(
        [points, (points[1:] + points[:-1]) / 2, points[[0, -1]] * 1.03, points[[0, -1]] * 1.2]
    )


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_rounding_to_narrow_floats(dtype):
    points = ties(dtype)
    with np.errstate(over="ignore"):
        exact = points.astype(np.float32)
    x = np.concatenate(
        [
            exact,
            np.nextafter(exact, np.float32(np.inf)),
            np.nextafter(exact, np.float32(-np.inf)),
            np.array([np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32),
        ]
    )
    assert same_bits(*convert(dtypes.float32, dtype, x))
    beside = np.nextafter(exact, np.float32(np.inf)).astype(np.float64)
    parts = [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf), points * (1 + 2.0**-30)]
    parts += [points * (1 - 2.0**-30), np.nextafter(beside, -np.inf), np.nextafter(beside, np.inf)]
    parts.append(np.array([np.inf, -np.inf, np.nan, 1e-300, 1e300, -1e300, 5e-324]))
    wide = np.concatenate(parts)
    assert same_bits(*convert(dtypes.float64, dtype, wide))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize(
    "source", [dtypes.int32, dtypes.uint32, dtypes.int64, dtypes.uint64, dtypes.int8], ids=str
)
def test_integers_to_narrow_floats_round_once(source, dtype):
    points = ties(dtype)
    low, high = int(source.min), int(source.max)
    whole = {int(p) + d for p in points[np.abs(points) < 2.0**65] for d in (-1, 0, 1)} | {
        low,
        high,
        0,
        1,
        high - 1,
    }
    x = np.array(sorted(v for v in whole if low <= v <= high), dtype=source.numpy)
    assert same_bits(*convert(source, dtype, x))


# --- what is left over --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in dtypes.DATA if d.is_float], ids=str)
@pytest.mark.parametrize("op", TRANSCENDENTAL, ids=str)
def test_only_basic_ops_are_left(op, dtype):
    leaves = tuple(buffer(k, dtype, 4) for k in range(len(op.operands)))
    for machine in (PLAIN, WIDE_ONLY):
        graph = decompose(UOp(op, dtype, leaves), machine)
        assert {node.op for node in graph.toposort()} <= BASIC_OPS | {ops.CONST, ops.BUFFER}
        assert decompose(graph, machine) is graph


@pytest.mark.parametrize("op", TRANSCENDENTAL, ids=str)
def test_native_ops_stay(op):
    leaves = tuple(buffer(k, dtypes.float32, 4) for k in range(len(op.operands)))
    node = UOp(op, dtypes.float32, leaves)
    assert decompose(node, target(op)) is node


def test_quotients_that_cannot_trap_are_left_alone():
    x, y = buffer(0, dtypes.int32, 4), buffer(1, dtypes.int32, 4)
    for node in (x.alu(ops.TRUNCDIV, x.const_like(3)), x.alu(ops.TRUNCMOD, (y & 7) + 1), x << (y & 31)):
        assert decompose(node) is node
    assert (x & 7) // 3 is not decompose((x & 7) // 3)
    assert decompose((x & 7) // 3) is (x & 7).alu(ops.TRUNCDIV, x.const_like(3))
    assert decompose(x // 8) is x >> 3
    assert decompose(x % 8) is x & 7


def test_multiply_add_is_contracted_only_where_it_is_accepted():
    x, y, z = (buffer(k, dtypes.float32, 4) for k in range(3))
    assert decompose(x * y + z, FUSED) is x * y + z
    module = load("tinycore.passes.decompose")
    assert module.groups["isel"](x * y + z, Context(FUSED)) is x * y + z
    assert module.passes["contract"](x * y + z, Context(FUSED)) is UOp(ops.FMA, x.dtype, (x, y, z))
    assert module.passes["contract"](z - x * y, Context(FUSED)) is z - x * y
    assert module.passes["contract"](x * y - z, Context(FUSED)) is UOp(ops.FMA, x.dtype, (x, y, -z))
    assert module.passes["contract"](x * y + z, Context(PLAIN)) is x * y + z


# --- fused multiply-add without the instruction -------------------------------------------------------------

WITHOUT_DOUBLE = [d for d in dtypes.DATA if d is not dtypes.float64]


def products(dtype, size, random):
    """Operands whose sums often cancel, almost or entirely."""
    spread = [np.exp2(random.uniform(-6, 6, size)) * random.choice([-1, 1], size) for _ in range(3)]
    with np.errstate(all="ignore"):
        a, b, c = (x.astype(dtype.numpy) for x in spread)
        distance = random.choice([0, 1e-16, 1e-12, 1e-7, 1e-3], size) * random.normal(size=size)
        close = (-(a.astype(np.float64) * b.astype(np.float64)) * (1 + distance)).astype(dtype.numpy)
    return a, b, np.where(random.random(size) < 0.6, close, c)


def fused(dtype, arithmetic, *arrays):
    leaves = [buffer(k, dtype, len(arrays[0])) for k in range(3)]
    node = UOp(ops.FMA, dtype, tuple(leaves))
    graph = decompose(node, target(arithmetic=arithmetic))
    assert {part.op for part in graph.toposort()} <= BASIC_OPS | {ops.CONST, ops.BUFFER}
    values_ = dict(zip(leaves, arrays, strict=True))
    return interpret([node], values_)[0], interpret([graph], values_)[0]


EXACT = [*((d, None) for d in dtypes.DATA if d.is_float), (dtypes.float32, WITHOUT_DOUBLE)]


@pytest.mark.parametrize(
    "dtype, arithmetic", EXACT, ids=lambda p: "no double" if isinstance(p, list) else str(p)
)
def test_fused_multiply_add_rounds_once(dtype, arithmetic):
    random = np.random.default_rng(dtype.bits)
    size = 3000 if dtype is dtypes.float64 else 50_000
    assert same_bits(*fused(dtype, arithmetic, *products(dtype, size, random)))


@pytest.mark.parametrize("dtype, arithmetic", [(dtypes.float32, None), *EXACT[-1:], (dtypes.float64, None)])
def test_fused_multiply_add_beside_the_middle_of_two_floats(dtype, arithmetic):
    """c + p with p a hair off half a unit of c: rounding twice would round the wrong way."""
    unit = 2.0**-dtype.mantissa
    c = np.array([1 + k * unit for k in range(4)] * 2, dtype.numpy)
    a = np.full(8, unit / 2 * (1 + unit), dtype.numpy)
    b = np.array([1 - unit] * 4 + [1 + unit] * 4, dtype.numpy)
    signs = [(x, y) for x in (1, -1) for y in (1, -1)]
    a, b, c = (np.concatenate(parts) for parts in zip(*[(a * x, b, c * y) for x, y in signs], strict=True))
    assert same_bits(*fused(dtype, arithmetic, a, b, c))


@pytest.mark.parametrize("dtype", [d for d in dtypes.DATA if d.is_float], ids=str)
def test_fused_multiply_add_of_special_values(dtype):
    corners = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3.0, float(np.sqrt(dtypes_max(dtype))) * 1.5]
    if dtype is not dtypes.float64:  # there the product may underflow
        corners += [2.0**-14, 2.0**-16, -(2.0**-9)]
    with np.errstate(all="ignore"):
        points = np.array(corners).astype(dtype.numpy)
    a, b, c = (grid.ravel() for grid in np.meshgrid(points, points, points))
    assert same_bits(*fused(dtype, None, a, b, c))


def dtypes_max(dtype):
    return {"float8_e4m3": 448.0, "float8_e5m2": 57344.0, "float16": 65504.0, "float64": 1e308}.get(
        dtype.name, 3e38
    )


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_fused_multiply_add_of_dtypes_that_have_no_arithmetic(dtype):
    random = np.random.default_rng(7)
    arithmetic = [d for d in dtypes.DATA if d is not dtype]
    assert same_bits(*fused(dtype, arithmetic, *products(dtype, 20_000, random)))

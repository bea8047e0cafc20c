"""The meaning of every elementwise op, on corner values, against plain Python numbers."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.interpret import interpret
from tinycore.interpret.arrays import constant
from tinycore.interpret.conversions import cast, fused_multiply_add
from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.dtypes import CLASSES, DATA
from tinycore.testing.compare import difference
from tinycore.testing.oracle import expected
from tinycore.testing.scalars import round_to


def corners(dtype):
    """Values where meanings differ."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if dtype.is_float:
        with np.errstate(all="ignore"):
            return np.array(
                [
                    0.0,
                    -0.0,
                    1.0,
                    -1.0,
                    0.5,
                    2.5,
                    -2.5,
                    3.5,
                    100.0,
                    1e-3,
                    448.0,
                    65504.0,
                    3e38,
                    -3e38,
                    1e-40,
                    2.0**-24,
                    math.inf,
                    -math.inf,
                    math.nan,
                    0.1,
                ]
            ).astype(dtype.numpy)
    low, high = int(dtype.min), int(dtype.max)
    numbers = {0, 1, 2, 3, 5, 7, 8, 31, 63, 64, 100, high, high - 1, low, low + 1} | (
        {-1, -2, -3, -8} if low else set()
    )
    return np.array(sorted(numbers), dtype.numpy)


def operand_dtypes(op):
    """Every way to choose the operand dtypes of an op."""
    variable = next((name for name in op.operands if ":" in name), op.operands[0])
    for dtype in CLASSES[variable.rpartition(":")[2]]:
        if dtype is not dtypes.index:
            yield tuple(dtypes.bool_ if name == "Bool" else dtype for name in op.operands)


CASES = [
    (op, chosen)
    for op in ops
    if op.elementwise and op not in (ops.CAST, ops.BITCAST)
    for chosen in operand_dtypes(op)
]


@pytest.mark.parametrize(
    ("op", "chosen"), CASES, ids=[f"{op.name}-{chosen[-1].name}" for op, chosen in CASES]
)
def test_every_op_on_corner_values(op, chosen):
    rows = list(itertools.product(*[corners(dtype) for dtype in chosen]))
    if len(rows) > 3000:
        rows = rows[:: len(rows) // 3000]
    nodes = [UOp(ops.BUFFER, dtype, (), (number, (len(rows),), "D")) for number, dtype in enumerate(chosen)]
    arrays = {
        node: np.array([row[k] for row in rows], dtype.numpy)
        for k, (node, dtype) in enumerate(zip(nodes, chosen, strict=True))
    }
    result = UOp(op, dtypes.bool_ if op.dtype == "bool" else chosen[-1], tuple(nodes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (got,) = interpret([result], arrays)
    (want,) = expected([result], arrays)
    assert difference(result, want, got) is None


@pytest.mark.parametrize("target", DATA, ids=str)
@pytest.mark.parametrize("source", DATA, ids=str)
def test_every_cast_on_corner_values(source, target):
    values = corners(source)
    x = UOp(ops.BUFFER, source, (), (0, (len(values),), "D"))
    root = UOp(ops.CAST, target, (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (got,) = interpret([root], {x: values})
    (want,) = expected([root], {x: values})
    assert difference(root, want, got) is None


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(
        [dtypes.bfloat16, dtypes.float8_e4m3, dtypes.float8_e5m2, dtypes.float16, dtypes.float32]
    ),
    st.floats(width=64) | st.integers(-(2**63), 2**63 - 1),
)
def test_casts_to_floats_round_once(target, value):
    source = np.array(value, np.float64 if isinstance(value, float) else np.int64)
    with quiet():
        got = float(np.asarray(cast(target, source)).astype(np.float64))
    want = round_to(target, value if isinstance(value, float) else Fraction(value))
    assert got == want or (math.isnan(got) and math.isnan(want))


def test_double_rounding_is_avoided():
    """1 + 2**-8 + 2**-40 is just above the middle of two bfloat16: through float32 it would be the middle."""
    assert float(cast(dtypes.bfloat16, np.array(1 + 2.0**-8 + 2.0**-40)).astype(np.float64)) == 1.0078125


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([np.float32, np.float64]), st.data())
def test_fused_multiply_add_rounds_once(kind, data):
    floats = st.floats(width=np.dtype(kind).itemsize * 8, allow_nan=False, allow_infinity=False)
    a, b, c = (data.draw(floats) for _ in range(3))
    dtype = dtypes.of_numpy(kind)
    with quiet():
        got = fused_multiply_add(dtype, *[np.array([x], kind) for x in (a, b, c)])[0]
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact:
        want = round_to(dtype, exact)
        assert float(got) == want, (a, b, c)


def test_nan_payloads_survive_movement_and_bitcast():
    node = UOp.from_bits(dtypes.float32, 0x7FC0_0ABC, (2,))
    (bits,) = interpret([UOp(ops.BITCAST, dtypes.uint32, (node,))], {})
    assert bits.tolist() == [0x7FC0_0ABC] * 2
    assert constant(dtypes.float16, 0x7E01).view(np.uint16) == 0x7E01


@pytest.mark.parametrize(
    "op", [ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF], ids=str
)
def test_transcendental_functions_of_float32_are_correctly_rounded(op):
    """Against float64: at most one value in many may be on the wrong side of the middle."""
    x = np.random.default_rng(0).uniform(0.01, 20, 20_000).astype(np.float32)
    with quiet():
        got = np.asarray(MEANING[op](dtypes.float32, x))
    exact = np.asarray(MEANING[op](dtypes.float64, x.astype(np.float64)))
    assert got.dtype == np.float32
    assert (
        np.abs(got.astype(np.float64) - exact) <= np.spacing(np.abs(got)).astype(np.float64) * 0.5001
    ).all()

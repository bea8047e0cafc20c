"""Operands of tests: corners, numbers halfway between others, operands that depend on each other."""

import random
from fractions import Fraction

import numpy as np
import pytest
from tinycore_tools_rules.evaluate import is_nan
from tinycore_tools_rules.values import _pi, hard_angles, random_values

from tinycore.ir import dtypes

SIZE = 8192
FLOATS = [dtype for dtype in dtypes.DATA if dtype.is_float]


def wide(array):
    """The same numbers as float64; NaN may be a signalling one."""
    with np.errstate(invalid="ignore"):
        return array.astype(np.float64)


@pytest.mark.parametrize("dtype", dtypes.DATA, ids=str)
def test_values_are_of_the_dtype_and_the_same_for_the_same_seed(dtype):
    one, two = (random_values(dtype, SIZE, random.Random(3)) for _ in range(2))
    assert one.dtype == dtype.numpy and one.shape == (SIZE,) and one.tobytes() == two.tobytes()
    if dtype.is_int:
        assert {int(dtype.min), int(dtype.max), 0, 1} <= {int(number) for number in one}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_have_their_corners(dtype):
    values = wide(random_values(dtype, SIZE, random.Random(3)))
    assert np.isnan(values).any() and (values == 0).any() and np.signbit(values[values == 0]).any()
    finite = np.abs(values[np.isfinite(values) & (values != 0)])
    assert finite.min() < 2.0 ** (1 - (1 << (dtype.bits - 2 - dtype.mantissa)) + 3)  # a denormal, or nearly
    assert (finite == 1).any()


@pytest.mark.parametrize("dtype", [dtypes.int8, dtypes.uint32, *FLOATS], ids=str)
def test_some_operands_depend_on_those_before(dtype):
    chance = random.Random(5)
    first = random_values(dtype, SIZE, chance)
    second = random_values(dtype, SIZE, chance, before=[first])
    with np.errstate(all="ignore"):
        equal, opposite = first == second, first == -second
    nan = is_nan(first) if dtype.is_float else np.zeros(SIZE, bool)
    assert equal[~nan].mean() > 0.02 and opposite[~nan].mean() > 0.01
    assert (equal | opposite)[~nan].mean() < 0.5


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.float32], ids=str)
def test_products_are_halfway_between_floats_and_sums_nearly_so(dtype):
    chance = random.Random(7)
    x = random_values(dtype, SIZE, chance)
    y = random_values(dtype, SIZE, chance, before=[x])
    z = random_values(dtype, SIZE, chance, before=[x, y])
    halfway = crumbs = 0
    for a, b, c in zip(*(wide(array).tolist() for array in (x, y, z)), strict=True):
        if not np.isfinite([a, b, c]).all() or a == 0 or b == 0:
            continue
        exact = Fraction(a) * Fraction(b)
        bits = abs(exact.numerator // (exact.numerator & -exact.numerator)).bit_length()
        if bits == dtype.mantissa + 2:
            halfway += 1
            crumbs += c != 0 and abs(Fraction(c)) < abs(exact) / 2 ** (dtype.mantissa + 2)
    assert halfway > 100 and crumbs > 10


def test_hard_angles_are_hard():
    """The nearest float64 to a multiple of pi / 2 is among them, and most others are near one too."""
    angles = hard_angles(dtypes.float64)
    assert 6381956970095103 * 2.0**797 in angles
    near = np.minimum(np.abs(np.sin(angles)), np.abs(np.cos(angles)))
    assert np.median(near) < 1e-14 and near.min() < 1e-18


def test_pi():
    assert str(_pi(400) * 10**60 >> 400) == "3141592653589793238462643383279502884197169399375105820974944"

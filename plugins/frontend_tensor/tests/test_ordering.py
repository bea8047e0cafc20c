"""The greatest few and sorting, with ties, extremes and NaN, against Python's `sorted`."""

from __future__ import annotations

import numpy as np
import pytest

from tinycore import Tensor


def elements(shape, dtype):
    """Few different elements, the extremes and NaN among them."""
    array = np.random.default_rng(0).integers(-5, 6, shape).astype(dtype)
    if array.dtype.kind == "f":
        array.flat[::7], array.flat[1::9], array.flat[2::9] = np.nan, np.inf, -np.inf
    else:
        array.flat[::5], array.flat[1::5] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return array


def places(array, axis, descending):
    """Indices in order: NaN is the greatest, equal elements keep their places."""
    rows = np.moveaxis(array, axis, -1)
    result = np.empty(rows.shape, np.int64)
    for where in np.ndindex(rows.shape[:-1]):
        row = rows[where].tolist()
        keys = [(value != value, 0 if value != value else value) for value in row]
        if descending:
            keys = [(not nan, -value) for nan, value in keys]
        result[where] = sorted(range(len(row)), key=keys.__getitem__)
    return np.moveaxis(result, -1, axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int8])
@pytest.mark.parametrize(("shape", "axis"), [((5, 100), 1), ((64, 3, 2), 0), ((90,), 0)])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 8, 40])
def test_topk(dtype, shape, axis, largest, k):
    """A few are found one by one, many by sorting all: both answer the same."""
    array = elements(shape, dtype)
    wanted = places(array, axis, largest).take(range(k), axis)
    values, found = Tensor(array).topk(k, axis, largest)
    np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(array, wanted, axis))


@pytest.mark.parametrize("descending", [True, False])
def test_sort(descending):
    array = elements((6, 50), np.float32)
    wanted = places(array, 1, descending)
    values, found = Tensor(array).sort(1, descending)
    np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(array, wanted, 1))

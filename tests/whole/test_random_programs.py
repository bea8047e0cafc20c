"""Lazy tensors and in-place writes in random order: always what numpy computes eagerly."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from graphs import need
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore import Tensor
from tinycore.config import override

SIZE = 4
KINDS = (
    "new",
    "add",
    "multiply",
    "transpose",
    "row sums",
    "flip",
    "slice",
    "set row",
    "set block",
    "set to",
    "add in place",
    "copy",
    "realize",
    "check",
    "forget",
    "same again",
)


@st.composite
def programs(draw):
    return [
        (draw(st.sampled_from(KINDS)), *(draw(st.integers(0, 999)) for _ in range(3)))
        for _ in range(draw(st.integers(2, 16)))
    ]


def step(kind, a, b, c, values):
    """One step on pairs of a tensor and the array that it must equal."""
    (one, array), (other, other_array) = values[a % len(values)], values[b % len(values)]
    row = c % SIZE
    if kind == "new":
        fresh = np.random.default_rng(c).integers(-9, 10, (SIZE, SIZE)).astype(np.int32)
        values.append((Tensor(fresh), fresh.copy()))
    elif kind == "add":
        values.append((one + other, array + other_array))
    elif kind == "multiply":
        values.append((one * 3 - other, array * 3 - other_array))
    elif kind == "transpose":
        values.append((one.transpose(0, 1) + 1, array.T + 1))
    elif kind == "row sums":
        sums = array.sum(1, keepdims=True, dtype=np.int32)
        values.append((one.sum(1, keepdim=True).cast("int32") + other, sums + other_array))
    elif kind == "flip":
        values.append((one.flip(0), array[::-1].copy()))
    elif kind == "slice":
        values.append((one[row : row + 1].expand(SIZE, SIZE) + 0, np.repeat(array[row : row + 1], SIZE, 0)))
    elif kind == "set row":
        one[row] = other[(row + 1) % SIZE]
        array[row] = other_array[(row + 1) % SIZE].copy()
    elif kind == "set block":
        one[0:2, 1:3] = one[1:3, 0:2] + row
        array[0:2, 1:3] = array[1:3, 0:2] + row
    elif kind == "set to":
        one.assign(one.transpose(0, 1) + other)
        array[...] = (array.T + other_array).copy()
    elif kind == "add in place":
        one.assign(one + other)
        array[...] = array + other_array
    elif kind == "copy":
        values.append((one.clone(), array.copy()))
    elif kind == "realize":
        one.realize()
    elif kind == "check":
        np.testing.assert_array_equal(one.numpy(), array)
    elif kind == "forget" and len(values) > 2:
        del values[a % len(values)]
        gc.collect(0)
    elif kind == "same again":
        values.append((one + 0, array.copy()))


@pytest.mark.parametrize(("device", "examples"), [("INTERPRETER", 60), ("CPU", 25)])
def test_against_eager_arrays(device, examples):
    need(device)

    @settings(max_examples=examples, deadline=None, database=None, print_blob=True)
    @given(programs())
    def holds(program):
        with override(device=device):
            values = []
            for seed in range(2):
                array = np.random.default_rng(seed).integers(-9, 10, (SIZE, SIZE)).astype(np.int32)
                values.append((Tensor(array), array.copy()))
            for kind, a, b, c in program:
                step(kind, a, b, c, values)
            for tensor, array in values:
                np.testing.assert_array_equal(tensor.numpy(), array)

    holds()

"""Sums in two steps: which are split, and that nothing is lost or counted twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_pass_locality import pieces
from tinycore_pass_locality.pieces import by_steps

from tinycore import Tensor
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore.runtime.devices import default_device, get_device

TWO = Capabilities(vector_bytes=64, threads=2)


def product(rows, steps, columns, turned=False):
    """Rows times columns, as a frontend writes it: (rows, columns, steps) summed over the last axis."""

    def buffer(identity, *shape):
        return UOp(ops.BUFFER, dtypes.float32, (), (identity, shape, "X"))

    def spread(node, shape):
        node = UOp(ops.RESHAPE, node.dtype, (node,), shape)
        return UOp(ops.EXPAND, node.dtype, (node,), (rows, columns, steps))

    right = buffer(2, columns, steps) if turned else buffer(2, steps, columns)
    right = right if turned else UOp(ops.PERMUTE, right.dtype, (right,), (1, 0))
    both = spread(buffer(1, rows, steps), (rows, 1, steps)) * spread(right, (1, columns, steps))
    return UOp(ops.REDUCE, both.dtype, (both,), (ops.ADD, (2,)))


@pytest.mark.parametrize(
    ("shape", "split"),
    [
        ((16, 100_000, 16), True),
        ((31, 4096, 33), True),
        ((16, 100_003, 16), True),
        ((64, 30_522, 64), False),  # results enough for two threads
        ((16, 1000, 16), False),  # soon done
        ((4, 100_000, 16), False),  # no matrix
        ((16, 100_000, 1), False),
    ],
)
def test_long_sums_of_few_results_are_split(shape, split):
    found = by_steps(product(*shape), TWO)
    assert (found is not None) is split
    if found is not None:
        assert found.shape == (shape[0], shape[2], 1)
        inner = [node for node in found.toposort() if node.op is ops.REDUCE]
        steps = [math.prod(node.src[0].shape[axis] for axis in node.arg[1]) for node in inner]
        assert max(steps) <= shape[1] // 4


def test_more_threads_share_larger_results():
    many = Capabilities(vector_bytes=64, threads=16)
    assert by_steps(product(64, 30_522, 64), TWO) is None
    assert by_steps(product(64, 30_522, 64), many) is not None
    assert by_steps(product(16, 100_000, 16), Capabilities(vector_bytes=64, threads=1)) is None


@pytest.fixture
def short_pieces(monkeypatch):
    """Sums of few steps are split, too."""
    if get_device(default_device()).target.capabilities.threads < 2:
        pytest.skip("one thread shares nothing")
    monkeypatch.setattr(pieces, "LEAST_STEPS", 3)
    monkeypatch.setattr(pieces, "LEAST_WORK", 1)


@pytest.mark.usefixtures("short_pieces")
def test_any_length():
    @settings(max_examples=30, deadline=None, database=None)
    @given(
        st.tuples(st.integers(8, 20), st.integers(6, 60), st.integers(8, 20)),
        st.booleans(),
        st.booleans(),
        st.sampled_from([np.int32, np.float32]),
    )
    def check(shape, turned, turned_left, dtype):
        rows, steps, columns = shape
        random = np.random.default_rng(steps)
        a = random.integers(-9, 10, (steps, rows) if turned_left else (rows, steps)).astype(dtype)
        b = random.integers(-9, 10, (columns, steps) if turned else (steps, columns)).astype(dtype)
        left, right = Tensor(a), Tensor(b)
        result = (left.T if turned_left else left) @ (right.T if turned else right) + 1
        wanted = (a.T if turned_left else a) @ (b.T if turned else b) + 1
        np.testing.assert_array_equal(result.numpy(), wanted)

    check()

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


# --- images -----------------------------------------------------------------------------------------------


def gradient_by_weights(batch, channels, height, width, filters, size, stride=1, dilation=1, factor=1):
    """The gradient times a factor, and the same by numpy."""
    random = np.random.default_rng(batch)
    image = random.integers(-4, 5, (batch, channels, height, width)).astype(np.float32)
    weight = Tensor(
        random.integers(-4, 5, (filters, channels, size, size)).astype(np.float32), requires_grad=True
    )
    result = Tensor(image).conv2d(weight, stride=stride, padding=1, dilation=dilation)
    cotangent = random.integers(-4, 5, result.shape).astype(np.float32)
    (result * Tensor(cotangent)).sum().backward()
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    wanted = np.zeros(weight.shape)
    for y in range(size):
        for x in range(size):
            rows = slice(y * dilation, y * dilation + stride * (result.shape[2] - 1) + 1, stride)
            columns = slice(x * dilation, x * dilation + stride * (result.shape[3] - 1) + 1, stride)
            wanted[:, :, y, x] = np.einsum("nfij,ncij->fc", cotangent, padded[:, :, rows, columns])
    return weight.grad * factor, wanted * factor


@pytest.mark.parametrize("shape", [(7, 5, 6, 9, 17, 3), (7, 4, 6, 6, 16, 2, 2), (7, 3, 8, 8, 5, 3, 1, 2)])
@pytest.mark.parametrize(("group", "strips"), [(1, 1), (1, 2), (2, 1), (3, 1), (7, 1)])
def test_any_pieces_of_images(monkeypatch, shape, group, strips):
    asked = []

    def sizes(found, full, *_):
        rows = full[found.rows]
        asked.append(found)
        return group, strips if rows % strips == 0 else 1

    monkeypatch.setattr(pieces, "_sizes", sizes)
    factor = 8 * group + strips  # else the schedule would be known
    gradient, wanted = gradient_by_weights(*shape, factor=factor)
    np.testing.assert_array_equal(gradient.numpy(), wanted)
    assert asked


@pytest.mark.parametrize(
    ("batch", "side", "channels", "filters", "group", "strips"),
    [
        (128, 14, 32, 64, 4, 1),  # some images fit
        (127, 14, 32, 64, 6, 1),  # and one is left over
        (8, 56, 64, 64, 1, 4),  # none does
        (8, 14, 32, 64, 1, 1),  # all threads need work
        (64, 7, 1024, 1024, 64, 1),  # the sums of two pieces would need too much memory
    ],
)
def test_pieces_fit_into_a_cache(batch, side, channels, filters, group, strips):
    images = UOp(ops.BUFFER, dtypes.float32, (), (1, (batch, channels, side + 2, side + 2), "X"))
    shape = (filters, channels, 3, 3, batch, side, side)
    found = pieces.SumOfImages(4, 5, (0,), (1,), (5, 6))
    value = UOp(ops.EXPAND, images.dtype, (UOp.const(images.dtype, 1.0, (1,) * 7),), shape)
    reduction = UOp(ops.REDUCE, value.dtype, (value,), (ops.ADD, (4, 5, 6)))
    target = Capabilities(vector_bytes=64, threads=2, cache_bytes=(1 << 15, 1 << 20))
    assert pieces._sizes(found, shape, reduction, target) == (group, strips)
    assert batch // group * strips * 4 * filters * channels * 9 <= pieces.MOST_BYTES

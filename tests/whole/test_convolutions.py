"""Convolutions with any parameters, alone and beside one another, against windows of numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tinycore import Tensor


@dataclass(frozen=True)
class Parameters:
    """What a convolution is asked for; pairs are (rows, columns)."""

    batch: int
    inputs: int
    outputs: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    dilation: int
    groups: int


@st.composite
def parameters(draw):
    kernel = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (7, 1), (3, 2)]))
    dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 5]))
    reach = [dilation * (size - 1) + 1 for size in kernel]
    padding = draw(st.sampled_from([(0, 0), (1, 1), (reach[0] // 2, reach[1] // 2)]))
    return Parameters(
        batch=draw(st.sampled_from([1, 2, 3])),
        inputs=groups * draw(st.sampled_from([1, 3, 8, 17])),
        outputs=groups * draw(st.sampled_from([1, 5, 8, 16, 33, 64])),
        image=tuple(size + draw(st.integers(0, 20)) for size in reach),
        kernel=kernel,
        stride=draw(st.sampled_from([1, 1, 2, 3])),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def integers(*shape):
    """Small enough for exact sums."""
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


def convolved(image, weight, p):
    """The definition."""
    wide = np.pad(image, ((0, 0), (0, 0), *((pad, pad) for pad in p.padding)))
    reach = [p.dilation * (size - 1) + 1 for size in p.kernel]
    pieces = np.lib.stride_tricks.sliding_window_view(wide, reach, (2, 3))
    pieces = pieces[:, :, :: p.stride, :: p.stride, :: p.dilation, :: p.dilation]
    pieces = pieces.reshape(p.batch, p.groups, -1, *pieces.shape[2:])
    weight = weight.reshape(p.groups, -1, *weight.shape[1:])
    result = np.einsum("ngcyxij,gfcij->ngfyx", pieces, weight)
    return result.reshape(p.batch, p.outputs, *result.shape[3:])


def call(image, weight, p):
    return image.conv2d(weight, None, p.stride, p.padding, p.dilation, p.groups)


ONE_DIMENSION = Parameters(1, 17, 64, (18, 6), (7, 1), 1, (0, 0), 1, 1)
"""Rows, columns and channels walk memory as one; a strip of some rows does not."""


@settings(max_examples=30, deadline=None)
@example(ONE_DIMENSION)
@given(parameters())
def test_alone(p):
    x, w = integers(p.batch, p.inputs, *p.image), integers(p.outputs, p.inputs // p.groups, *p.kernel)
    np.testing.assert_array_equal(call(Tensor(x), Tensor(w), p).numpy(), convolved(x, w, p))


@st.composite
def planes(draw):
    """Windows of their own for every channel."""
    kernel = draw(st.sampled_from([(1, 3), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (1, 7), (3, 1), (3, 5)]))
    dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 3, 8, 33, 64]))
    reach = [dilation * (size - 1) + 1 for size in kernel]
    return Parameters(
        batch=draw(st.sampled_from([1, 2, 3])),
        inputs=channels,
        outputs=channels,
        image=tuple(size + draw(st.sampled_from([0, 3, 6, 7, 12, 20, 33, 48, 55, 60])) for size in reach),
        kernel=kernel,
        stride=draw(st.sampled_from([1, 2, 2, 3, 4, 5])),
        padding=draw(st.sampled_from([(0, 0), (1, 1), (2, 0), (reach[0] // 2, reach[1] // 2)])),
        dilation=dilation,
        groups=channels,
    )


@settings(max_examples=30, deadline=None)
@given(planes())
def test_depthwise(p):
    x, w = integers(p.batch, p.inputs, *p.image), integers(p.outputs, 1, *p.kernel)
    np.testing.assert_array_equal(call(Tensor(x), Tensor(w), p).numpy(), convolved(x, w, p))


@settings(max_examples=15, deadline=None)
@given(parameters(), st.sampled_from([8, 20, 32]))
def test_after_another_and_beside_it(p, width):
    """What lies between lies as the kernels like it."""
    before = integers(p.inputs, 3, 1, 1)
    x, w = integers(p.batch, 3, *p.image), integers(p.outputs, p.inputs // p.groups, *p.kernel)
    last = integers(width, p.outputs, 1, 1)
    y = Tensor(x).conv2d(Tensor(before)).relu()
    z = call(y, Tensor(w), p)
    joined = Tensor.cat([z.conv2d(Tensor(last)), z], 1)
    middle = np.maximum(np.einsum("ncyx,fc->nfyx", x, before[:, :, 0, 0]), 0)
    wanted = convolved(middle, w, p)
    beside = np.einsum("ncyx,fc->nfyx", wanted, last[:, :, 0, 0])
    np.testing.assert_array_equal(joined.numpy(), np.concatenate([beside, wanted], 1))


@settings(max_examples=30, deadline=None)
@given(parameters(), st.integers(0, 2))
def test_transposed_is_the_sum_of_what_each_pixel_spreads(p, extra):
    h, w = p.image
    image = integers(p.batch, p.inputs, h, w)
    weight = integers(p.inputs, p.outputs // p.groups, *p.kernel)
    extra = min(extra, max(p.stride, p.dilation) - 1)
    reach = [p.dilation * (size - 1) + 1 for size in p.kernel]
    full = [(size - 1) * p.stride + far + extra for size, far in zip(p.image, reach, strict=True)]
    wanted = np.zeros((p.batch, p.outputs, *full), np.float32)
    shares = np.einsum(
        "ngcyx,gcfij->ngfijyx",
        image.reshape(p.batch, p.groups, -1, h, w),
        weight.reshape(p.groups, -1, *weight.shape[1:]),
    ).reshape(p.batch, p.outputs, *p.kernel, h, w)
    for i in range(p.kernel[0]):
        for j in range(p.kernel[1]):
            rows = slice(i * p.dilation, i * p.dilation + (h - 1) * p.stride + 1, p.stride)
            columns = slice(j * p.dilation, j * p.dilation + (w - 1) * p.stride + 1, p.stride)
            wanted[:, :, rows, columns] += shares[:, :, i, j]
    (top, left), (height, width) = p.padding, full
    assume(height > 2 * top)
    assume(width > 2 * left)
    wanted = wanted[:, :, top : height - top, left : width - left]
    found = Tensor(image).conv_transpose2d(
        Tensor(weight), None, p.stride, p.padding, (extra, extra), p.groups, p.dilation
    )
    np.testing.assert_array_equal(found.numpy(), wanted)

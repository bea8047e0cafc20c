"""The gradient of sliding windows as windows, against the gradient of the movement ops that they are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_frontend_tensor import autograd
from tinycore_frontend_tensor.strided import windows

from tinycore import Tensor
from tinycore.ir import ops, toposort
from tinycore.runtime.report import collect


@st.composite
def convolutions(draw):
    """(image shape, weight shape, strides, paddings, dilations, groups) that fit."""
    groups, spatial = draw(st.sampled_from((1, 1, 2, 4))), draw(st.sampled_from((1, 2, 2, 3)))
    sizes, strides, dilations, paddings, lengths = [], [], [], [], []
    for _ in range(spatial):
        size, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        padding = draw(st.integers(0, 4))
        least = max(1, (size - 1) * dilation + 1 - 2 * padding)
        sizes.append(size)
        strides.append(stride)
        dilations.append(dilation)
        paddings.append(padding)
        lengths.append(draw(st.integers(least, least + 6)))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    image = (draw(st.integers(1, 2)), inputs, *lengths)
    return image, (outputs, inputs // groups, *sizes), strides, paddings, dilations, groups


def gradients(image, weight, stride, padding, dilation, groups):
    """Of a sum of random multiples of a convolution, by image and weights: small integers, so exact."""
    random = np.random.default_rng(0)
    x, w = (
        Tensor(random.integers(-3, 4, shape).astype(np.float32), requires_grad=True)
        for shape in (image, weight)
    )
    y = x.conv2d(w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    factors = Tensor(random.integers(-3, 4, y.shape).astype(np.float32))
    (y * factors).sum().backward()
    return x.grad.numpy(), w.grad.numpy()


@settings(deadline=None, max_examples=40, print_blob=True)
@given(convolutions())
def test_the_gradient_of_windows_is_that_of_their_parts(case):
    with pytest.MonkeyPatch.context() as patch:
        found = gradients(*case)
        patch.setattr(autograd, "slide_of", lambda node: None)
        wanted = gradients(*case)
    for ours, parts in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, parts)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 2), (5, 3), (2, 3)])
def test_the_gradient_of_a_strided_convolution_multiplies_no_zeros(size, stride, groups):
    x = Tensor(np.ones((2, 8, 36, 36), np.float32), requires_grad=True)
    w = Tensor(np.ones((8, 8 // groups, size, size), np.float32))
    y = x.conv2d(w, stride=stride, padding=1, groups=groups)
    (y * Tensor(np.ones(y.shape, np.float32))).sum().backward()
    there, back = (summed_products(tensor) for tensor in (y, x.grad))
    assert 0 < back < 1.2 * there  # rows at the border are in fewer windows


def summed_products(tensor):
    """How many products are summed."""
    sums = [
        node.src[0] for node in toposort((tensor.uop,)) if node.op is ops.REDUCE and node.src[0].op is ops.MUL
    ]
    return sum(math.prod(product.shape) for product in sums)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_sum_of_products_that_both_vary_from_window_to_window(stride):
    random = np.random.default_rng(1)
    count = (11 - 4) // stride + 1
    a, b = (random.integers(-3, 4, (3, count, 4)).astype(np.float32) for _ in range(2))
    x = Tensor(np.zeros(11, np.float32), requires_grad=True)
    (x.unfold(0, 4, stride).reshape(1, count, 4) * (Tensor(a) * Tensor(b))).sum().backward()
    wanted = np.zeros(11, np.float32)
    for window, place in np.ndindex(count, 4):
        wanted[window * stride + place] += (a * b)[:, window, place].sum()
    np.testing.assert_array_equal(x.grad.numpy(), wanted)


@settings(deadline=None, max_examples=40, print_blob=True)
@given(convolutions())
def test_the_gradient_of_a_sum_of_powers_of_windows(case):
    shape, weight, strides, paddings, dilations, _ = case

    def gradient():
        random = np.random.default_rng(0)
        x = Tensor(random.integers(-3, 4, shape).astype(np.float32), requires_grad=True)
        padded = x.pad([(0, 0), (0, 0), *[(amount, amount) for amount in paddings]])
        specs = list(zip(weight[2:], strides, dilations, strict=True))
        pieces = padded._derive(windows(padded.uop, specs))
        factors = Tensor(random.integers(-3, 4, pieces.shape).astype(np.float32))
        (pieces * pieces * factors).sum().backward()
        return x.grad.numpy()

    with pytest.MonkeyPatch.context() as patch:
        found = gradient()
        patch.setattr(autograd, "slide_of", lambda node: None)
        np.testing.assert_array_equal(found, gradient())


def test_windows_without_a_convolution():
    x = Tensor(np.arange(12, dtype=np.float32), requires_grad=True)
    (x.unfold(0, 5, 2) * Tensor([1.0, 2, 3, 4, 5])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2, 4, 6, 9, 6, 9, 6, 8, 4, 5, 0])


def test_the_gradient_of_a_convolution_by_its_image_is_one_kernel():
    x = Tensor(np.ones((2, 4, 9, 9), np.float32), requires_grad=True)
    w = Tensor(np.ones((4, 4, 3, 3), np.float32))
    x.conv2d(w, padding=1).sum().backward()
    with collect() as kernels:
        x.grad.realize()
    assert len(kernels) <= 2  # the weights may be packed


@pytest.mark.parametrize(
    ("stride", "wanted"), [(1, (1, 2, 3, 3, 3, 3, 3, 3, 2, 1)), (2, (1, 1, 2, 1, 2, 1, 2, 1, 1, 0))]
)
def test_second_derivatives(stride, wanted):
    x = Tensor(np.arange(10, dtype=np.float32), requires_grad=True)
    y = (x.unfold(0, 3, stride) ** 2).sum()
    (first,) = y.gradient(x, create_graph=True)
    (second,) = first.sum().gradient(x)
    np.testing.assert_array_equal(second.numpy(), 2 * np.array(wanted, np.float32))

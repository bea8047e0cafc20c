"""The gradient of sliding windows as windows, against the gradient of the movement ops that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_frontend_tensor import autograd

from tinycore import Tensor
from tinycore.runtime.report import collect


@st.composite
def convolutions(draw):
    """(image shape, weight shape, stride, padding, dilation, groups) that fit."""
    groups = draw(st.sampled_from((1, 1, 2)))
    size, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 4))
    least = max(1, (size - 1) * dilation + 1 - 2 * padding)
    height, width = (draw(st.integers(least, least + 6)) for _ in range(2))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    image = (draw(st.integers(1, 2)), inputs, height, width)
    return image, (outputs, inputs // groups, size, size), stride, padding, dilation, groups


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


def test_second_derivatives():
    x = Tensor(np.arange(10, dtype=np.float32), requires_grad=True)
    y = (x.unfold(0, 3, 1) ** 2).sum()
    (first,) = y.gradient(x, create_graph=True)
    (second,) = first.sum().gradient(x)
    np.testing.assert_array_equal(second.numpy(), 2 * np.array([1, 2, 3, 3, 3, 3, 3, 3, 2, 1], np.float32))

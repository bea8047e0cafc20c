"""Physical layouts: what is packed, what lies with its channels last, and that nobody outside sees any of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore import Tensor, jit
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore.runtime.devices import default_device, get_device
from tinycore.runtime.joined import schedule_doors
from tinycore.runtime.report import collect
from tinycore.schedule import KernelStep, make_schedule, number_buffers
from tinycore.schedule.axes import MIXED, STILL, along, trace


def random(*shape):
    return np.random.default_rng(len(shape)).integers(-4, 5, shape).astype(np.float32)


def tensor(*shape):
    return Tensor(random(*shape)).realize()


def steps_of(*tensors, lanes=64):
    numbered, _ = number_buffers([each.uop for each in tensors])
    doors = schedule_doors()
    wide = Capabilities(vector_bytes=lanes)
    return make_schedule(numbered, "X", doors, capabilities=lambda device: wide).steps


def windows_of(image, size):
    """What a convolution with padding needs, by numpy."""
    edge = size // 2
    wide = np.pad(image, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    return np.lib.stride_tricks.sliding_window_view(wide, (size, size), (2, 3))


def convolved(image, weight):
    return np.einsum("ncyxij,fcij->nfyx", windows_of(image, weight.shape[2]), weight)


@pytest.fixture(autouse=True)
def on_lanes():
    """These tests are about a device whose values have lanes."""
    if not get_device(default_device()).target.capabilities.vector_bytes:
        pytest.skip("the default device has no lanes")


# --- axes -------------------------------------------------------------------------------------------------


def buffer(*shape):
    return UOp(ops.BUFFER, dtypes.float32, (), (-1, shape, "X"))


def test_axes_are_followed_through_movement():
    a = buffer(5, 3, 7)
    moved = UOp(ops.PERMUTE, a.dtype, (a,), (2, 0, 1))
    assert trace(moved).axes == (1, 2, 0)
    merged = UOp(ops.RESHAPE, a.dtype, (a,), (15, 1, 7))
    assert trace(merged).axes == (MIXED, MIXED, 2)
    assert trace(merged).mixed == {0}
    wide = UOp(ops.EXPAND, a.dtype, (UOp(ops.RESHAPE, a.dtype, (a,), (1, 5, 3, 7)),), (4, 5, 3, 7))
    assert trace(wide).varying == {1, 2, 3}
    assert trace(UOp(ops.PAD, a.dtype, (a,), ((0, 0), (1, 0), (0, 0)))).axes == (0, MIXED, 2)
    assert trace(UOp(ops.FLIP, a.dtype, (a,), (1,))).axes == (0, 1, 2)
    assert along((moved, a)).axes == (1, 2, 0)


def test_axes_of_one_element_stand_still():
    a = buffer(1, 4)
    assert trace(a).axes == (STILL, 1)
    assert trace(UOp(ops.RESHAPE, a.dtype, (a,), (4, 1, 1))).axes == (STILL, 0)


# --- what is decided --------------------------------------------------------------------------------------


def test_weights_are_packed_in_blocks_and_the_copy_comes_first():
    first, second = steps_of(tensor(1, 8, 6, 6).conv2d(tensor(64, 8, 3, 3)))
    assert isinstance(first, KernelStep)
    assert first.remember
    assert not second.remember
    assert first.buffers[0].arg[1] == (2, 3, 3, 8, 32)


def test_what_lies_between_convolutions_has_its_channels_last():
    x = tensor(1, 8, 6, 6).conv2d(tensor(16, 8, 3, 3), padding=1).relu()
    steps = [step for step in steps_of(x.conv2d(tensor(32, 16, 3, 3)).relu()) if not step.remember]
    shapes = [step.buffers[0].arg[1] for step in steps]
    assert [tuple(size for size in shape if size != 1) for shape in shapes] == [(6, 6, 16), (32, 4, 4)]


def test_an_axis_that_is_lost_on_the_way_stays_where_it_is():
    x = tensor(2, 8, 6, 6).conv2d(tensor(16, 8, 3, 3), padding=1).relu()
    flat = x.reshape(2, 16 * 36) @ tensor(16 * 36, 5)
    steps = [step for step in steps_of(flat) if not step.remember]
    sizes = [size for size in steps[0].buffers[0].arg[1] if size != 1]
    assert sizes == [2, 16, 6, 6]


def test_filters_of_groups_are_packed_group_by_group():
    first, second = steps_of(tensor(1, 8, 6, 6).conv2d(tensor(64, 2, 3, 3), groups=4))
    assert first.remember
    assert not second.remember
    assert tuple(size for size in first.buffers[0].arg[1] if size != 1) == (4, 3, 3, 2, 16)
    x = tensor(1, 8, 6, 6).conv2d(tensor(64, 2, 3, 3), groups=4).relu()
    steps = [step for step in steps_of(x.conv2d(tensor(32, 64, 3, 3))) if not step.remember]
    assert [size for size in steps[0].buffers[0].arg[1] if size != 1] == [4, 4, 64]


def test_pixels_that_lie_apart_meet_packed_filters():
    assert len(steps_of(tensor(1, 8, 12, 12).conv2d(tensor(64, 8, 1, 1), stride=2))) == 2
    assert len(steps_of(tensor(1, 8, 12, 12).conv2d(tensor(64, 8, 1, 1)))) == 1


def test_phases_of_a_transposed_convolution_share_packed_filters():
    steps = steps_of(tensor(1, 8, 6, 6).conv_transpose2d(tensor(8, 16, 2, 2), stride=2))
    assert [step.remember for step in steps] == [True, False]
    assert tuple(size for size in steps[0].buffers[0].arg[1] if size != 1) == (2, 2, 8, 16)


def test_what_stands_side_by_side_has_its_channels_last():
    x = tensor(1, 8, 6, 6).conv2d(tensor(16, 8, 3, 3), padding=1).relu()
    y = x.conv2d(tensor(32, 16, 3, 3), padding=1)
    z = Tensor.cat([x, y], 1).conv2d(tensor(32, 48, 3, 3))
    shapes = [step.buffers[0].arg[1] for step in steps_of(z) if not step.remember]
    sizes = [tuple(size for size in shape if size != 1) for shape in shapes[:3]]
    assert sizes == [(6, 6, 16), (6, 6, 32), (6, 6, 48)]


def test_nothing_changes_without_lanes():
    steps = steps_of(tensor(1, 8, 6, 6).conv2d(tensor(64, 8, 3, 3)), lanes=0)
    assert len(steps) == 1


def test_a_matrix_that_is_read_once_is_not_packed():
    assert len(steps_of(tensor(1, 64) @ tensor(96, 64).transpose())) == 1
    assert len(steps_of(tensor(64, 64) @ tensor(96, 64).transpose())) == 2
    assert len(steps_of(tensor(64, 64) @ tensor(64, 96))) == 1


# --- and that it is right ---------------------------------------------------------------------------------


def network(x, weights):
    first, second, third = weights
    y = x.conv2d(first, padding=1).relu()
    z = (y.conv2d(second, padding=1) + y).relu().max_pool2d(2)
    return z.conv2d(third).mean((2, 3))


def expected(x, weights):
    first, second, third = weights
    y = np.maximum(convolved(x, first), 0)
    z = np.maximum(convolved(y, second) + y, 0)
    n, c, h, w = z.shape
    return convolved(z.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)), third).mean((2, 3))


SHAPES = ((32, 3, 3, 3), (32, 32, 3, 3), (9, 32, 1, 1))


def test_a_network_of_convolutions():
    x, weights = tensor(2, 3, 8, 8), [tensor(*shape) for shape in SHAPES]
    found = network(x, weights).numpy()
    np.testing.assert_allclose(found, expected(x.numpy(), [w.numpy() for w in weights]), rtol=1e-5)


def test_a_copy_is_made_again_only_when_the_weights_change():
    x, w = tensor(2, 4, 6, 6), tensor(16, 4, 3, 3)

    def kernels():
        with collect() as times:
            found = x.conv2d(w, padding=1).numpy()
        np.testing.assert_array_equal(found, convolved(x.numpy(), w.numpy()))
        return len(times)

    assert [kernels(), kernels(), kernels()] == [2, 1, 1]
    w.assign(w * 2).realize()
    assert [kernels(), kernels()] == [2, 1]


def test_a_captured_function_sees_new_weights():
    x, w = tensor(2, 4, 6, 6), tensor(16, 4, 3, 3)
    captured = jit(lambda image: x.conv2d(w, padding=1) + image)
    zero = tensor(2, 16, 6, 6) * 0
    for _ in range(4):
        np.testing.assert_array_equal(captured(zero.realize()).numpy(), convolved(x.numpy(), w.numpy()))
    w.assign(w * 3).realize()
    for _ in range(2):
        np.testing.assert_array_equal(captured(zero.realize()).numpy(), convolved(x.numpy(), w.numpy()))


def test_weights_that_a_captured_function_is_given():
    x = tensor(2, 4, 6, 6)
    captured = jit(lambda w: x.conv2d(w, padding=1))
    for factor in (1, 2, 3, 4):
        w = (tensor(16, 4, 3, 3) * factor).realize()
        for _ in range(2):
            np.testing.assert_array_equal(captured(w).numpy(), convolved(x.numpy(), w.numpy()))
    # What was captured wrote over the copy of the first weights: they must not be taken for packed.
    w = tensor(16, 4, 3, 3)
    np.testing.assert_array_equal(x.conv2d(w, padding=1).numpy(), convolved(x.numpy(), w.numpy()))


def test_training_steps_inside_a_captured_function():
    x, w = tensor(2, 4, 6, 6), tensor(16, 4, 3, 3)

    @jit
    def step(image):
        loss = image.conv2d(w, padding=1).sum((1, 2, 3))
        w.assign(w - 1)
        return loss.realize(w)

    reference = w.numpy()
    for _ in range(5):
        found = step(x).numpy()
        np.testing.assert_array_equal(found, convolved(x.numpy(), reference).sum((1, 2, 3)))
        reference = reference - 1


# --- image by image -----------------------------------------------------------------------------------


def weight_gradient(x, w):
    y = x.conv2d(w, padding=1)
    (y * y).sum().backward()
    return w.grad


def test_the_gradient_by_the_weights_is_summed_image_by_image():
    x, w = tensor(3, 4, 6, 7), Tensor(random(5, 4, 3, 3), requires_grad=True)
    gradient = weight_gradient(x, w)
    shapes = [step.buffers[0].arg[1] for step in steps_of(gradient) if not step.remember]
    assert (3, 4, 3, 3, 5) in [tuple(size for size in shape if size != 1) for shape in shapes]
    y = convolved(x.numpy(), w.numpy())
    wanted = 2 * np.einsum("ncyxij,nfyx->fcij", windows_of(x.numpy(), 3), y)
    np.testing.assert_array_equal(gradient.numpy(), wanted)


def test_a_convolution_itself_is_one_sum():
    sums = [step for step in steps_of(tensor(3, 4, 6, 7).conv2d(tensor(5, 4, 3, 3))) if not step.remember]
    assert len(sums) == 1


# --- random networks --------------------------------------------------------------------------------------

LAYERS = (
    "conv",
    "conv strided",
    "pointwise",
    "grouped",
    "relu",
    "pool",
    "residual",
    "normalise",
    "pad",
    "flip",
)


def layer(kind, x, device):
    """One layer of a network; small integers stay exact."""
    channels = x.shape[1]

    def weights(*shape):
        return Tensor(random(*shape), device=device)

    if min(x.shape[2:]) < 3 and kind != "relu":
        return x.pad(((0, 0), (0, 0), (1, 1), (1, 1)))
    if kind == "conv":
        return x.conv2d(weights(16, channels, 3, 3), padding=1)
    if kind == "conv strided":
        return x.conv2d(weights(9, channels, 2, 2), stride=2)
    if kind == "pointwise":
        return x.conv2d(weights(32, channels, 1, 1))
    if kind == "grouped":
        return x.conv2d(weights(channels, 1, 3, 3), padding=1, groups=channels)
    if kind == "relu":
        return x.relu()
    if kind == "pool":
        return x.max_pool2d(2)
    if kind == "residual":
        return x + x.conv2d(weights(channels, channels, 3, 3), padding=1).relu()
    if kind == "normalise":
        return (x - x.sum((2, 3), keepdim=True)) % 8
    if kind == "pad":
        return x.pad(((0, 0), (0, 0), (1, 0), (0, 2)))
    return x.flip(1)


def stack(kinds, ending, device):
    x = Tensor(random(2, 3, 7, 6), device=device)
    seen = []
    for kind in kinds:
        x = layer(kind, x, device) % 5
        seen.append(x)
    if ending == "flat":
        x = x.reshape(2, -1).sum(1)
    elif ending == "mean":
        x = x.sum((2, 3))
    elif ending == "all":
        Tensor.realize(*seen)
    return x.numpy()


@settings(deadline=None, max_examples=25, print_blob=True)
@given(
    st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4), st.sampled_from(("flat", "mean", "all", ""))
)
def test_random_networks_mean_the_same_as_in_the_interpreter(kinds, ending):
    found = stack(kinds, ending, default_device())
    np.testing.assert_array_equal(found, stack(kinds, ending, "INTERPRETER"))

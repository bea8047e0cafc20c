"""Values that a kernel keeps to itself: when it does, and that results are the same."""

from __future__ import annotations

import numpy as np
import pytest
from tinycore_tools_explain import describe

from tinycore import Tensor
from tinycore.ir import Capabilities, ops
from tinycore.runtime.joined import schedule_doors
from tinycore.runtime.report import collect
from tinycore.schedule import make_schedule, number_buffers

RANDOM = np.random.default_rng(0)


def tensor(*shape):
    return Tensor(RANDOM.standard_normal(shape).astype(np.float32)).realize()


def steps_of(*tensors, lanes=64):
    numbered, _ = number_buffers([each.uop for each in tensors])
    doors = schedule_doors()
    wide = Capabilities(vector_bytes=lanes)
    return make_schedule(numbered, "X", doors, capabilities=lambda device: wide).steps


def kept_in(step):
    return [node for node in step.kernel.toposort() if node.op is ops.CONTIGUOUS]


def attention(q, k, v):
    return (q @ k.transpose(-1, -2) * 0.25).softmax(-1) @ v


def heads(*shape):
    return [tensor(*shape) for _ in range(3)]


@pytest.fixture(autouse=True)
def on_lanes():
    """These tests are about a device whose values have lanes."""
    from tinycore.runtime.devices import default_device, get_device

    if not get_device(default_device()).target.capabilities.vector_bytes:
        pytest.skip("the default device has no lanes")


# --- what is decided --------------------------------------------------------------------------------------


def test_attention_is_one_kernel():
    (step,) = steps_of(attention(*heads(2, 3, 64, 16)))
    assert len(kept_in(step)) == 2  # the scores, and what softmax makes of them
    assert sum("keeps rows" in line for line in describe(step.kernel)) == 2


def test_devices_without_lanes_store():
    steps = steps_of(attention(*heads(2, 3, 64, 16)), lanes=0)
    assert len(steps) == 3
    assert not any(kept_in(step) for step in steps)


def test_what_somebody_else_sees_is_stored():
    q, k, v = heads(2, 3, 64, 16)
    scores = (q @ k.transpose(-1, -2) * 0.25).softmax(-1)
    assert not any(
        node.shape[:4] == scores.shape
        for step in steps_of(scores @ v, scores)
        for node in kept_in(step)
        if node.op is ops.CONTIGUOUS and node.src[0].op in (ops.DIV, ops.EXP)
    )
    assert len(steps_of(scores @ v, scores)) >= 2


def test_what_two_kernels_read_is_stored():
    q, k, v = heads(2, 3, 64, 16)
    scores = (q @ k.transpose(-1, -2) * 0.25).softmax(-1)
    steps = steps_of(scores @ v, scores @ (v * 2 + 1))
    assert len(steps) >= 3
    assert not any(node.src[0].op in (ops.DIV, ops.EXP) for step in steps for node in kept_in(step))


def test_large_weights_are_not_read_again_for_every_few_rows():
    x, first, second = tensor(64, 256), tensor(256, 1024), tensor(1024, 64)
    steps = steps_of((x @ first).relu() @ second)
    assert not any(kept_in(step) for step in steps)


def test_long_rows_are_stored():
    q, k, v = tensor(1, 8, 16), tensor(1, 8192, 16), tensor(1, 8192, 16)
    assert not any(kept_in(step) for step in steps_of(attention(q, k, v)))


def test_kernels_do_not_grow_with_the_graph():
    value = weight = tensor(64, 64)
    for _ in range(40):
        value = (value @ weight) * 0.5
    steps = steps_of(value)
    assert len(steps) >= 8
    assert max(len(kept_in(step)) for step in steps) == 4


def test_small_values_are_stored():
    assert not any(kept_in(step) for step in steps_of(attention(*heads(1, 4, 4))))


# --- results ----------------------------------------------------------------------------------------------


def wanted(q, k, v, scale, mask=None):
    q, k, v = (each.numpy().astype(np.float64) for each in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True) @ v


SHAPES = [
    ((2, 3, 37, 17), 37, 17),
    ((1, 2, 130, 32), 130, 32),
    ((2, 2, 64, 16), 100, 24),
    ((1, 12, 1, 64), 500, 64),
    ((3, 1, 70, 33), 300, 40),
    ((200, 16), 64, 9),
]


@pytest.mark.parametrize(("shape", "keys", "width"), SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_any_size(shape, keys, width, causal):
    *batch, rows, depth = shape
    q, k, v = tensor(*shape), tensor(*batch, keys, depth), tensor(*batch, keys, width)
    with collect() as found:
        result = q.scaled_dot_product_attention(k, v, is_causal=causal).numpy()
    mask = np.arange(keys) <= np.arange(rows)[:, None] if causal else None
    np.testing.assert_allclose(result, wanted(q, k, v, depth**-0.5, mask), rtol=1e-5, atol=2e-6)
    assert len(found) == 1


def test_attention_with_a_mask_and_a_projection():
    q, k, v = heads(2, 4, 50, 16)
    mask, weight = tensor(50, 50), tensor(64, 48)
    attended = q.scaled_dot_product_attention(k, v, attn_mask=mask > 0)
    result = (attended.transpose(1, 2).reshape(2, 50, 64) @ weight).numpy()
    expected = wanted(q, k, v, 0.25, mask.numpy() > 0).swapaxes(1, 2).reshape(2, 50, 64)
    np.testing.assert_allclose(result, expected @ weight.numpy(), rtol=1e-4, atol=1e-4)


def test_normalisation_keeps_its_rows():
    x = tensor(130, 77)
    centred = x - x.mean(-1, keepdim=True)
    result = centred / ((centred * centred).mean(-1, keepdim=True) + 1e-5).sqrt()
    values = x.numpy().astype(np.float64)
    values -= values.mean(-1, keepdims=True)
    expected = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_small_layers_in_one_kernel():
    x, first, second = tensor(300, 24), tensor(24, 40), tensor(40, 30)
    result = ((x @ first).relu() @ second).numpy()
    expected = np.maximum(x.numpy().astype(np.float64) @ first.numpy(), 0) @ second.numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_gradients_through_attention():
    q, k, v = (each.requires_grad_() for each in heads(2, 40, 12))
    attention(q, k, v).sum().backward()
    step = 1e-3
    for operand in (q, k, v):
        values, gradient = operand.numpy(), operand.grad.numpy()
        direction = RANDOM.standard_normal(values.shape).astype(np.float32)
        moved = []
        for sign in (step, -step):
            others = [
                Tensor(each.numpy() + (sign * direction if each is operand else 0)).realize()
                for each in (q, k, v)
            ]
            moved.append(float(wanted(*others, 0.25).sum()))
        assert abs((moved[0] - moved[1]) / (2 * step) - float((gradient * direction).sum())) < 0.05


@pytest.mark.parametrize(("keys", "together"), [(2048, True), (3000, True), (5000, False)])
def test_long_sequences(keys, together):
    """Operands that are no larger than a block of rows are read again for each; longer rows are stored."""
    q, k, v = tensor(1, 40, 64), tensor(1, keys, 64), tensor(1, keys, 64)
    result = q.scaled_dot_product_attention(k, v)
    assert (len(steps_of(result)) == 1) is together
    np.testing.assert_allclose(result.numpy(), wanted(q, k, v, 0.125), rtol=1e-4, atol=2e-6)


def test_rows_that_their_user_does_not_reduce_are_stored():
    """The gradient of pooling: each element of a product is used for four pixels, which have a layout of their own."""
    product = tensor(128, 128) @ tensor(128, 3136)
    image = tensor(128, 64, 14, 14)
    spread = product.reshape(128, 64, 7, 1, 7, 1).expand(128, 64, 7, 2, 7, 2).reshape(128, 64, 14, 14)
    assert len([step for step in steps_of(spread * image) if not step.remember]) == 2

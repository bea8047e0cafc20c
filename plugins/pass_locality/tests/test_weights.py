"""Weights that are powers over their sum: divided behind the sum, and only where that is the same."""

from __future__ import annotations

import numpy as np
import pytest

from tinycore import Tensor
from tinycore.ir import Capabilities, dtypes, ops
from tinycore.runtime.joined import schedule_doors
from tinycore.schedule import make_schedule, number_buffers

RANDOM = np.random.default_rng(0)


def tensor(*shape, dtype=np.float32):
    return Tensor(RANDOM.standard_normal(shape).astype(dtype)).realize()


def steps_of(*tensors):
    numbered, _ = number_buffers([each.uop for each in tensors])
    wide = Capabilities(vector_bytes=64)
    return make_schedule(numbered, "X", schedule_doors(), capabilities=lambda device: wide).steps


def kept_ops(*tensors):
    """The ops of what the kernels keep."""
    steps = steps_of(*tensors)
    return sorted(n.src[0].op.name for s in steps for n in s.kernel.toposort() if n.op is ops.CONTIGUOUS)


def scores(*shape, keys=48):
    *batch, _, depth = shape
    return tensor(*shape) @ tensor(*batch, keys, depth).transpose(-1, -2) * 0.25


@pytest.fixture(autouse=True)
def on_lanes():
    """These tests are about a device whose values have lanes."""
    from tinycore.runtime.devices import default_device, get_device

    if not get_device(default_device()).target.capabilities.vector_bytes:
        pytest.skip("the default device has no lanes")


# --- what is decided --------------------------------------------------------------------------------------


def test_powers_are_kept_instead_of_weights():
    assert kept_ops(scores(2, 3, 64, 16).softmax(-1) @ tensor(2, 3, 48, 16)) == ["EXP", "REDUCE"]


def test_what_follows_the_sum_stays():
    attended = scores(2, 64, 16).softmax(-1) @ tensor(2, 48, 16)
    assert kept_ops((attended * 2 + 1).relu()) == ["EXP", "REDUCE"]


def test_powers_of_anything_may_be_large():
    powers = (scores(2, 64, 16) * 0.5).exp()
    assert kept_ops(powers / powers.sum(-1, keepdim=True) @ tensor(2, 48, 16)) == ["DIV", "REDUCE"]


def test_other_divisors_stay():
    values = scores(2, 64, 16)
    powers = (values - values.max(-1, keepdim=True)).exp()
    sums = (powers * 2).sum(-1, keepdim=True)
    assert "DIV" in kept_ops((powers / sums) @ tensor(2, 48, 16))


def test_small_numbers_have_no_room_for_sums():
    q, k, v = (tensor(2, 64, 16, dtype=np.float16) for _ in range(3))
    assert "EXP" not in kept_ops((q @ k.transpose(-1, -2)).softmax(-1) @ v)


def test_weights_that_are_summed_up_along_other_axes_stay():
    weights = scores(2, 64, 16).softmax(-1)
    assert "EXP" not in kept_ops(weights.transpose(-1, -2) @ tensor(2, 64, 16))


def test_weights_with_two_users_stay():
    weights = scores(2, 64, 16).softmax(-1)
    assert "EXP" not in kept_ops((weights @ tensor(2, 48, 16)) + weights.max(-1, keepdim=True))


# --- results ----------------------------------------------------------------------------------------------


def attention(q, k, v, mask=None):
    """In float64, with IEEE's rules."""
    q, k, v = (each.numpy().astype(np.float64) for each in (q, k, v))
    with np.errstate(all="ignore"):
        found = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            found = np.where(mask, found, -np.inf) if mask.dtype == bool else found + mask
        powers = np.exp(found - found.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True) @ v


def check(q, k, v, mask=None):
    given = None if mask is None else Tensor(mask)
    found = q.scaled_dot_product_attention(k, v, attn_mask=given).numpy()
    np.testing.assert_allclose(found, attention(q, k, v, mask), rtol=2e-5, atol=2e-6)
    return found


@pytest.mark.parametrize("keys", [1, 17, 48, 65, 130])
@pytest.mark.parametrize("queries", [1, 7, 65, 129])
def test_any_length(queries, keys):
    check(tensor(2, 3, queries, 20), tensor(2, 3, keys, 20), tensor(2, 3, keys, 24))


def test_rows_that_are_masked_out():
    mask = RANDOM.random((70, 90)) < 0.5
    mask[[0, 33, 69]] = False  # no key at all: no number
    found = check(tensor(2, 70, 16), tensor(2, 90, 16), tensor(2, 90, 16), mask)
    assert np.isnan(found[:, [0, 33, 69]]).all()
    assert np.isfinite(np.delete(found, [0, 33, 69], 1)).all()


def test_masks_that_are_added():
    mask = RANDOM.standard_normal((3, 1, 1, 90)).astype(np.float32)
    mask[0, ..., 40:] = -np.inf  # a padded batch
    mask[1, ..., :3] = -1e30
    check(tensor(3, 2, 70, 16), tensor(3, 2, 90, 16), tensor(3, 2, 90, 16), mask)


def test_what_is_no_number_stays_in_its_row():
    q, k, v = (RANDOM.standard_normal((2, 70, 16)).astype(np.float32) for _ in range(3))
    q[0, 5, 3] = np.nan
    q[1, 66, 0] = np.inf
    found = check(*map(Tensor, (q, k, v)))
    assert np.isnan(found[0, 5]).all()
    assert np.isnan(found).any(-1).sum() == 2


def test_infinite_values():
    q, k, v = (RANDOM.standard_normal((2, 70, 16)).astype(np.float32) for _ in range(3))
    v[0, 7, 2], v[1, 9, 4], v[1, 11, 4] = np.inf, np.inf, -np.inf
    found = check(*map(Tensor, (q, k, v)))
    assert np.isinf(found[0, :, 2]).all()
    assert np.isnan(found[1, :, 4]).all()


def test_large_values_do_not_overflow():
    q, k = tensor(2, 70, 16), tensor(2, 600, 16)
    v = Tensor(np.full((2, 600, 16), 1e35, np.float32))
    np.testing.assert_allclose(q.scaled_dot_product_attention(k, v).numpy(), 1e35, rtol=1e-5)


def test_double_precision():
    q, k, v = (tensor(2, 70, 16, dtype=np.float64) for _ in range(3))
    assert q.dtype is dtypes.float64
    found = q.scaled_dot_product_attention(k, v).numpy()
    np.testing.assert_allclose(found, attention(q, k, v), rtol=1e-12, atol=1e-13)

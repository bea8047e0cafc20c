"""What a causal mask excludes is not computed: when that is seen, and that results are the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernels import LANES, NARROW, arrays_for, lowered, meaning, run, tiled

import tinycore
from tinycore import Tensor
from tinycore.codegen.shorten import Shorten
from tinycore.ir import Capabilities
from tinycore.runtime.devices import default_device, get_device
from tinycore.runtime.joined import schedule_doors
from tinycore.schedule import make_schedule, number_buffers

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def on_lanes():
    """These tests are about a device whose values have lanes."""
    if not get_device(default_device()).target.capabilities.vector_bytes:
        pytest.skip("the default device has no lanes")


def arrays(batch, queries, keys, depth):
    return [RANDOM.standard_normal((batch, n, depth)).astype(np.float32) for n in (queries, keys, keys)]


def attention(q, k, v, keep, added=None, excluded=-math.inf):
    """Of tensors, or of arrays in float64; `keep(row, key)` says what is attended to."""
    rows, keys = q.shape[-2], k.shape[-2]
    if isinstance(q, Tensor):
        row = Tensor.arange(rows).reshape(rows, 1)
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        scores = keep(row, Tensor.arange(keys)).where(scores, excluded)
        return (scores if added is None else scores + Tensor(added)).softmax(-1) @ v
    q, k, v = (each.astype(np.float64) for each in (q, k, v))
    with np.errstate(all="ignore"):
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        scores = np.where(keep(np.arange(rows)[:, None], np.arange(keys)), scores, excluded)
        scores = scores if added is None else scores + added
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True) @ v


def shortened(result):
    found = tinycore.explain(result, run=False)
    return [action for kernel in found.kernels for action in kernel.actions if isinstance(action, Shorten)]


def check(given, *arguments, **options):
    result = attention(*map(Tensor, given), *arguments, **options)
    found = shortened(result)
    np.testing.assert_allclose(result.numpy(), attention(*given, *arguments, **options), rtol=2e-5, atol=2e-6)
    return found


CONDITIONS = {
    "causal": lambda row, key: key <= row,
    "before": lambda row, key: key < row + 1,
    "some ahead": lambda row, key: key <= row + 5,
    "the other way": lambda row, key: row >= key,
}


@pytest.mark.parametrize("lengths", [(200, 200), (257, 257), (100, 300), (300, 100), (130, 511)])
@pytest.mark.parametrize("name", CONDITIONS)
def test_keys_behind_the_diagonal(name, lengths):
    (action,) = check(arrays(3, *lengths, 24), CONDITIONS[name])
    assert action.offset == (5 if name == "some ahead" else 0)
    assert len(action.readers) == 2 and len(action.others) == 2  # values and sums; scores and their maximum


OTHERS = {
    "keys ahead": lambda row, key: key >= row,
    "none of the first row": lambda row, key: key < row,
    "twice as far": lambda row, key: key <= row * 2,
    "all but one": lambda row, key: key != row,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_conditions(name):
    assert not check(arrays(2, 200, 200, 24), OTHERS[name])


def test_what_is_small_only_is_computed():
    assert not check(arrays(2, 200, 200, 24), CONDITIONS["causal"], excluded=-5.0)


def test_other_masks_beside_it():
    added = RANDOM.standard_normal((2, 1, 200)).astype(np.float32)
    added[0, :, 150:] = -np.inf
    assert check(arrays(2, 200, 200, 24), CONDITIONS["causal"], added)


def test_one_block_of_rows_needs_all():
    check(arrays(40, 32, 32, 24), CONDITIONS["causal"])


def test_what_was_left_in_memory_is_not_seen():
    """Rows wait in memory that others have used: what is not computed may be anything."""
    given = arrays(4, 257, 257, 24)
    nothing = [np.full_like(each, np.nan) for each in given]
    for _ in range(3):
        assert np.isnan(attention(*map(Tensor, nothing), CONDITIONS["causal"]).numpy()).all()
        check(given, CONDITIONS["causal"])


def test_rows_that_are_no_numbers():
    given = arrays(2, 257, 257, 24)
    given[0][0, 5], given[0][1, 200, 3] = np.nan, np.inf
    result = attention(*map(Tensor, given), CONDITIONS["causal"]).numpy()
    expected = attention(*given, CONDITIONS["causal"])
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    assert np.isnan(result).any(-1).sum() == 2


@pytest.mark.parametrize("target", [LANES, NARROW], ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["causal", "some ahead"])
def test_interpreted(name, target):
    """The program, on another target's tiles, against the meaning of the kernel."""
    q, k, v = (Tensor(each).realize() for each in arrays(1, 70, 80, 4))
    numbered, _ = number_buffers([attention(q, k, v, CONDITIONS[name]).uop])
    wide = Capabilities(vector_bytes=64)
    steps = make_schedule(numbered, "X", schedule_doors(), capabilities=lambda device: wide).steps
    (kernel,) = [step.kernel for step in steps]
    assert any(isinstance(action, Shorten) for action in tiled(kernel, target).arg)
    given = arrays_for(kernel, 0)
    np.testing.assert_allclose(run(lowered(kernel, target), given, 0), meaning(kernel, given, 0), rtol=1e-5)

"""Passes in any order that they allow, and without those that are optional: the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from graphs import need

PROGRAM = """
import numpy as np
from tinycore import Tensor, nn
Tensor.manual_seed(1)
random = np.random.default_rng(0)
a, b = (random.standard_normal(shape).astype("f") for shape in ((33, 20), (20, 17)))
found = (Tensor(a) @ Tensor(b)).relu().softmax(-1).numpy()
e = np.exp(np.maximum(a @ b, 0)); e /= e.sum(-1, keepdims=True)
assert np.abs(found - e).max() < 1e-5
layer = nn.Linear(20, 4)
optimizer = nn.optim.SGD(nn.state.get_parameters(layer), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    loss = layer(Tensor(a)).cross_entropy(Tensor(random.integers(0, 4, 33).astype("int32")))
    loss.backward()
    optimizer.step()
print(loss.device, round(loss.item(), 4), Tensor.randint(5, low=0, high=1000).tolist())
"""


def outcome(**settings):
    variables = {"DEV": "CPU", "TINYCORE_CACHE": "0", **settings}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def usual():
    need("CPU")
    return outcome()


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_shuffled(seed, usual):
    assert outcome(TINYCORE_SHUFFLE_PASSES=seed) == usual


@pytest.mark.parametrize("ids", ["pass-tile", "pass-locality", "pass-locality,pass-search,pass-tile"])
def test_without_optional_passes(ids, usual):
    assert outcome(TINYCORE_DISABLE=ids) == usual


def test_validated(usual):
    assert outcome(TINYCORE_VALIDATE="1") == usual


def test_on_the_interpreter(usual):
    assert outcome(DEV="INTERPRETER").split()[1:] == usual.split()[1:]

"""Reductions of what comes from memory: halves of vectors, and rows that are asked for before their turn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernels import LANES, arrays_for, kernels_of, lowered, matmul, meaning, permute, run, tiled, total, x
from test_same_results import launch

from tinycore.codegen.tiling import Bind, Prefetch, Split
from tinycore.runtime.device import Signature
from tinycore.runtime.devices import get_device

COLUMNS = 1000
CASES = {
    "sums of rows": lambda rows: total(x(rows, COLUMNS), 1),
    "a matrix times a vector": lambda rows: matmul(x(rows, COLUMNS), x(COLUMNS, 1, identity=2)),
    "a layer of one row": lambda rows: matmul(x(1, COLUMNS), permute(x(rows, COLUMNS, identity=2), 1, 0)),
}
FEW, MANY = 7, 53
"""Rows that the near caches of all threads hold, and more than that."""


def lanes_of(actions):
    """Sizes of what is bound to lanes."""
    bound = {action.range for action in actions if isinstance(action, Bind) and action.kind == "vector"}
    return {action.size for action in actions if isinstance(action, Split) and action.inner in bound}


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("name", sorted(CASES))
def test_interpreted(name, rows):
    (kernel,) = kernels_of(CASES[name](rows))
    arrays = arrays_for(kernel, 0)
    np.testing.assert_array_equal(run(lowered(kernel, LANES), arrays, 0), meaning(kernel, arrays, 0))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", sorted(CASES))
def test_on_a_device(name, threads):
    device = get_device("CPU")
    capabilities = dataclasses.replace(
        device.target.capabilities, cache_bytes=(1 << 9, 1 << 15), threads=threads
    )
    (kernel,) = kernels_of(CASES[name](MANY))
    program = lowered(kernel, dataclasses.replace(device.target, capabilities=capabilities))
    assert (program.prefetch is None) == (name == "sums of rows")
    signature = Signature(program.name, len(program.parameters), 0, program.group)
    executable = device.load(device.compile(device.render(program), program.name), signature)
    arrays = arrays_for(kernel, 0)
    found = launch(device, executable, program, arrays, 0)
    np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


def test_sums_of_memory_are_read_in_halves_of_vectors():
    for rows, lanes in ((FEW, 16), (MANY, 8)):
        (kernel,) = kernels_of(CASES["sums of rows"](rows))
        assert lanes_of(tiled(kernel, LANES).arg) == {lanes}


@pytest.mark.parametrize("name", ["a matrix times a vector", "a layer of one row"])
def test_the_next_rows_are_asked_for(name):
    for rows, cache in ((FEW, 1 << 15), (MANY, 1 << 15), (MANY, 1 << 13)):
        capabilities = dataclasses.replace(LANES.capabilities, cache_bytes=(1 << 9, cache))
        (kernel,) = kernels_of(CASES[name](rows))
        actions = tiled(kernel, dataclasses.replace(LANES, capabilities=capabilities)).arg
        assert lanes_of(actions) == {16}
        near = cache >= 2 * 4 * COLUMNS * 4  # four rows a tile
        assert (Prefetch(1, 1) in actions) == (near and rows * COLUMNS * 4 > capabilities.threads * cache)

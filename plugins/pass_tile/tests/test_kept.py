"""Kernels that keep values: tiled in every way they mean the same, and every statement gets lanes."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import (
    LANES,
    NARROW,
    arrays_for,
    lowered,
    matmul,
    meaning,
    permute,
    reduce,
    rows,
    run,
    tiled,
    total,
    x,
)
from test_same_results import launch

from tinycore.ir import ops
from tinycore.runtime.device import Signature
from tinycore.runtime.devices import get_device
from tinycore.runtime.joined import schedule_doors
from tinycore.schedule import make_schedule, number_buffers


def scores(batch, queries, keys, depth):
    return matmul(x(batch, queries, depth), permute(x(batch, keys, depth, identity=2), 0, 2, 1))


def attention(batch, queries, keys, depth, width):
    """Integers, so that results are exact: rows without their maximum in the place of softmax."""
    return matmul(rows(scores(batch, queries, keys, depth)), x(batch, keys, width, identity=3))


CASES = {
    "square": lambda: attention(2, 64, 64, 16, 16),
    "odd": lambda: attention(3, 37, 41, 9, 21),
    "blocks and a rest": lambda: attention(1, 130, 70, 8, 33),
    "one row": lambda: attention(12, 1, 400, 16, 16),
    "many batches": lambda: attention(40, 16, 16, 4, 4),
    "sums of rows": lambda: total(rows(scores(2, 50, 60, 8)), 2),
    "small layers": lambda: matmul(
        matmul(x(200, 12), x(12, 40, identity=2)).alu(ops.MAX, x(200, 40, identity=4)), x(40, 30, identity=3)
    ),
    "three in a row": lambda: matmul(
        matmul(matmul(x(150, 8), x(8, 32, identity=2)), x(32, 40, identity=3)), x(40, 20, identity=4)
    ),
    "maximum of differences": lambda: reduce(
        rows(scores(2, 40, 60, 8)) * rows(scores(2, 40, 60, 8)), ops.MAX, 2
    ),
}


def kernels_of(name):
    numbered, _ = number_buffers([CASES[name]()])
    doors = schedule_doors()  # pass_locality decides what is kept
    schedule = make_schedule(numbered, "X", doors, capabilities=lambda device: LANES.capabilities)
    return [step.kernel for step in schedule.steps]


@pytest.mark.parametrize("target", [LANES, NARROW], ids=lambda target: target.name)
@pytest.mark.parametrize("name", CASES)
def test_interpreted(name, target):
    for kernel in kernels_of(name):
        arrays = arrays_for(kernel, 0)
        np.testing.assert_array_equal(run(lowered(kernel, target), arrays, 0), meaning(kernel, arrays, 0))


@pytest.mark.parametrize("name", CASES)
def test_on_the_processor(name):
    device = get_device("CPU")
    for kernel in kernels_of(name):
        program = lowered(kernel, device.target)
        binary = device.compile(device.render(program), program.name)
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        arrays = arrays_for(kernel, 0)
        found = launch(device, device.load(binary, signature), program, arrays, 0)
        np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


def test_kept_values_are_there():
    for name in ("square", "odd", "one row", "small layers", "three in a row"):
        assert any(ops.CONTIGUOUS in {n.op for n in kernel.toposort()} for kernel in kernels_of(name)), name


def test_rows_are_distributed_and_every_statement_has_lanes():
    (kernel,) = kernels_of("square")
    assert any("distribute" in str(action) for action in tiled(kernel, LANES).arg)
    stores = [node for node in lowered(kernel, LANES).linear.src if node.op is ops.STORE]
    assert {node.src[2].shape for node in stores} == {(16,)}
    assert {node.src[0].op for node in stores} == {ops.PARAM, ops.SCRATCH}


def test_blocks_are_whole_and_rows_begin_with_a_vector():
    kernel = next(kernel for kernel in kernels_of("blocks and a rest"))
    actions = tiled(kernel, LANES).arg
    assert any("overlap" in str(action) for action in actions)
    assert {pitch for action in actions if "distribute" in str(action) for pitch in action.pitches} == {80}


def test_what_a_row_is_reduced_to_is_computed_once_for_all_bodies():
    (kernel,) = kernels_of("odd")  # 41 keys: two vectors, and a body for the rest
    program = lowered(kernel, LANES).linear.src
    assert (
        sum(node.op is ops.LANE_REDUCE for node in program) == 2
    )  # both of one maximum: vectors, and a rest


def test_batches_are_shared_by_threads():
    (kernel,) = kernels_of("many batches")
    assert lowered(kernel, LANES).grid

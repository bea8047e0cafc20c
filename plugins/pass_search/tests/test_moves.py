"""Neighbours of a tiling are tilings: whatever can be compiled computes the same."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tinycore_pass_tile
from kernels import CASES, GROUPS, LANES, arrays_for, kernels_of, meaning, run, total, x
from tinycore_pass_search.moves import neighbours, safe

from tinycore.codegen.carry import Carry
from tinycore.codegen.compile import assemble
from tinycore.codegen.pipeline import BEFORE_TILE, Context, after_tile
from tinycore.codegen.staging import StageInThread
from tinycore.codegen.tiling import Bind, GroupReduce, Split, apply
from tinycore.errors import CompileError

NAMES = (
    "matmul odd",
    "long rows",
    "transpose",
    "elementwise",
    "batched",
    "scatter",
    "column sums",
    "convolution",
)
SAMPLE = 16


def chosen(kernel, target):
    context = Context(target)
    for step in BEFORE_TILE:
        kernel = step.run(kernel, context)
    return kernel, tuple(tinycore_pass_tile.run(kernel, context).arg or ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", [LANES, GROUPS], ids=lambda target: target.name)
def test_neighbours_mean_the_same(name, target):
    tried = 0
    for original in kernels_of(CASES[name]()):
        kernel, base = chosen(original, target)
        moves = list(neighbours(kernel, base, target.capabilities))
        expected = meaning(original, arrays_for(original, 0), 0)
        for move in random.Random(7).sample(moves, min(SAMPLE, len(moves))):
            context = Context(target)
            try:
                lowered = safe(kernel, move.actions)
                for step in after_tile(context):
                    lowered = step.run(lowered, context)
            except CompileError:
                continue  # the search counts it as failed
            found = run(assemble(kernel, lowered), arrays_for(original, 0), 0)
            np.testing.assert_array_equal(found, expected, err_msg=str([str(a) for a in move.actions]))
            tried += 1
    assert tried >= 2


def test_a_neighbour_differs_and_comes_once():
    (kernel,) = kernels_of(CASES["matmul odd"]())
    kernel, base = chosen(kernel, LANES)
    found = [move.actions for move in neighbours(kernel, base, LANES.capabilities)]
    assert base not in found and len(found) > 30


def test_there_are_neighbours_of_every_kind():
    kinds = set()
    for name in NAMES:
        for original in kernels_of(CASES[name]()):
            for target in (LANES, GROUPS):
                kernel, base = chosen(original, target)
                kinds |= {move.kind for move in neighbours(kernel, base, target.capabilities)}
    assert kinds == {
        "size", "tail", "bind", "exchange", "order", "split", "stage", "stream", "prefetch", "more"
    }  # fmt: skip


def test_nothing_parallel_is_given_to_a_reduction():
    for name in NAMES:
        for original in kernels_of(CASES[name]()):
            for target in (LANES, GROUPS):
                kernel, base = chosen(original, target)
                if any(isinstance(action, GroupReduce) for action in base):
                    continue
                for move in neighbours(kernel, base, target.capabilities):
                    try:
                        tiled = apply(kernel, move.actions)
                    except Exception:  # noqa: BLE001  counted as failed by a search
                        continue
                    for node in tiled.toposort():
                        if node.op.name == "REDUCE":
                            assert {r.arg[1] for r in node.src[1:] if r.op.name == "RANGE"} <= {
                                "reduce",
                                "unroll",
                                "vector",
                            }, [str(a) for a in move.actions]


@pytest.mark.parametrize(
    ("make", "keeping"), [(CASES["pixels"], StageInThread), (lambda: total(x(600, 4000), 0), Carry)]
)
def test_iterations_that_are_written_out_do_not_share_what_is_kept_for_one(make, keeping):
    (kernel,) = kernels_of(make())
    kernel, base = chosen(kernel, LANES)
    (keeper,) = [action for action in base if isinstance(action, keeping)]
    refused = 0
    for position, action in enumerate(base):
        if isinstance(action, Bind) and action.kind == "global" and action.range not in keeper.inside:
            changed = [*base[:position], Bind(action.range, "unroll"), *base[position + 1 :]]
            with pytest.raises(CompileError, match="kept inside"):
                apply(kernel, changed)
            refused += 1
    assert refused


def test_a_list_that_does_not_fit_is_a_compile_error():
    (kernel,) = kernels_of(CASES["elementwise"]())
    kernel, _ = chosen(kernel, LANES)
    with pytest.raises(CompileError):
        safe(kernel, [Split(99, 4, 100, 101)])
    with pytest.raises(CompileError, match="do not fit"):
        safe(kernel, [object()])

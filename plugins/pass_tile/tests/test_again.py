"""Kernels that pass over rows: what is dear is kept, long rows are stored in whole lines, results stay the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernels import GROUPS, LANES, arrays_for, expand, kernels_of, lowered, meaning, reduce, run, tiled, x
from tinycore_codegen_llvm.memory import multiple_of

from tinycore.ir import UOp, dtypes, ops

SMALL = dataclasses.replace(
    LANES, capabilities=dataclasses.replace(LANES.capabilities, cache_bytes=(1 << 10, 1 << 13, 1 << 14))
)


def exp(a):
    return UOp(ops.EXP, a.dtype, (a,))


def softmax(rows, width):
    a = x(rows, width, dtype=dtypes.float32)
    e = exp(a - expand(reduce(a, ops.MAX, 1), rows, width))
    return e / expand(reduce(e, ops.ADD, 1), rows, width)


def dear_norm(rows, width):
    a = x(rows, width, dtype=dtypes.float32)
    dear = exp(a) * a
    centred = dear - expand(reduce(dear, ops.ADD, 1), rows, width) * (1 / width)
    return centred * expand(reduce(centred * centred, ops.ADD, 1), rows, width)


def biased(rows, width):
    a, b = x(rows, width, dtype=dtypes.float32), x(1, width, identity=2, dtype=dtypes.float32)
    return a * 2 + expand(b, rows, width)


def actions(root, target):
    (kernel,) = kernels_of(root)
    return [str(action) for action in tiled(kernel, target).arg]


def check(root, target):
    (kernel,) = kernels_of(root)
    program = lowered(kernel, target)
    arrays = arrays_for(kernel, 0)
    arrays = {slot: (array % 7 / 8).astype(array.dtype) for slot, array in arrays.items()}
    np.testing.assert_allclose(run(program, arrays, 0), meaning(kernel, arrays, 0), rtol=1e-4, atol=1e-5)
    return program


@pytest.mark.parametrize("width", [16, 33, 100, 130])
@pytest.mark.parametrize("root", [softmax, dear_norm])
def test_what_is_dear_is_computed_once(root, width):
    assert any("computed again" in action for action in actions(root(5, width), LANES))
    program = check(root(5, width), LANES)
    written = [n for n in program.linear.src if n.op is ops.STORE and n.src[0].op is ops.PARAM]
    assert written
    assert not any(ops.EXP in computed(store.src[2]) for store in written)


def computed(value):
    """The ops that a value is computed by, from what is loaded or reduced."""
    found, stack = set(), [value]
    while stack:
        node = stack.pop()
        found.add(node.op)
        if node.op not in (ops.LOAD, ops.AFTER, ops.LANE_REDUCE):
            stack.extend(node.src)
    return found


def test_rows_that_do_not_fit_are_computed_again():
    assert not any("computed again" in action for action in actions(softmax(3, 1000), SMALL))
    check(softmax(3, 1000), SMALL)


def test_devices_with_work_groups_keep_nothing():
    assert not any("computed again" in action for action in actions(softmax(5, 100), GROUPS))


@pytest.mark.parametrize(("root", "width"), [(biased, 1030), (softmax, 1027), (biased, 1111)])
def test_long_rows_are_stored_in_whole_lines(root, width):
    assert any("align" in action for action in actions(root(4, width), SMALL))
    program = check(root(4, width), SMALL)
    written = [n for n in program.linear.src if n.op is ops.STORE and n.src[0].op is ops.PARAM]
    whole = [n for n in written if n.src[3].is_const and n.src[2].shape]
    assert whole
    assert all(multiple_of(n.src[1]) % n.src[2].shape[0] == 0 for n in whole)


def test_rows_of_whole_lines_and_short_ones_are_not_aligned():
    for shape in ((4, 1040), (40, 100)):
        assert not any("align" in action for action in actions(biased(*shape), SMALL))

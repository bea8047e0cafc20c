"""Reductions down the columns of something large: pieces of rows for each thread, asked for ahead."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import LANES, arrays_for, assign, kernels_of, lowered, matmul, meaning, run, tiled, total, x
from test_same_results import launch_on_small_caches

from tinycore.codegen.carry import Carry
from tinycore.codegen.tiling import Bind, Prefetch, Split


def added(base, value):
    return assign(base, base, base + value)


CASES = {
    "a vector times a matrix": lambda: matmul(x(1, 300), x(300, 130, identity=2)),
    "primes": lambda: matmul(x(1, 97), x(97, 257, identity=2)),
    "a few vectors": lambda: matmul(x(3, 101), x(101, 129, identity=2)),
    "sums": lambda: total(x(200, 127), 0),
    "sums of a few rows": lambda: total(x(19, 2100), 0),
    "added to what is there": lambda: added(x(1, 131), matmul(x(1, 97, identity=2), x(97, 131, identity=3))),
    "a batch": lambda: matmul(x(3, 1, 97), x(3, 97, 160, identity=2)),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_interpreted(name):
    (kernel,) = kernels_of(CASES[name]())
    actions = tiled(kernel, LANES).arg
    assert any(isinstance(action, Carry) for action in actions)
    arrays = arrays_for(kernel, 0)
    np.testing.assert_array_equal(run(lowered(kernel, LANES), arrays, 0), meaning(kernel, arrays, 0))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(CASES))
def test_on_a_device(name, threads):
    (kernel,) = kernels_of(CASES[name]())
    program, arrays, found = launch_on_small_caches(kernel, threads)
    assert program.prefetch is not None
    np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


def test_every_thread_has_one_piece_of_the_rows():
    (kernel,) = kernels_of(matmul(x(1, 200), x(200, 256, identity=2)))
    actions = tiled(kernel, LANES).arg
    pieces = {action.range for action in actions if isinstance(action, Bind) and action.kind == "global"}
    (split,) = [action for action in actions if isinstance(action, Split) and action.outer in pieces]
    assert split.size * LANES.capabilities.threads == 256


def test_what_the_caches_hold_is_not_asked_for():
    caches = LANES.capabilities.threads * LANES.capabilities.cache_bytes[1]
    for rows in (caches // 4 // 64, caches // 4 // 64 + 1):
        (kernel,) = kernels_of(matmul(x(1, rows), x(rows, 64, identity=2)))
        (batch,) = kernels_of(matmul(x(3, 1, rows // 2), x(3, rows // 2, 64, identity=2)))
        assert any(isinstance(action, Prefetch) for action in tiled(batch, LANES).arg)  # all of it counts
        asked = any(isinstance(action, Prefetch) for action in tiled(kernel, LANES).arg)
        assert asked == (rows * 64 * 4 > caches)


@pytest.mark.parametrize(("columns", "size"), [(256, 64), (250, 64), (257, 48), (1030, 64)])
def test_pieces_are_whole_vectors(columns, size):
    """The last one begins earlier, unless what it stores is read, too."""
    product = matmul(x(1, 200, identity=2), x(200, columns, identity=3))
    for root in (product, added(x(1, columns), product)):
        (kernel,) = kernels_of(root)
        actions = tiled(kernel, LANES).arg
        grid = {action.range for action in actions if isinstance(action, Bind) and action.kind == "global"}
        (split,) = [action for action in actions if isinstance(action, Split) and action.outer in grid]
        assert (split.size, split.tail) == (size, "overlap" if root is product else "bound")

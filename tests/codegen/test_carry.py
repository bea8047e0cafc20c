"""Partial results that wait in private memory while the loop of a reduction runs outside of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import matmul, node, reduce, total
from lowering import arrays_for, check, equal, expected, indexed, kernel_of, run_kernel

from tinycore.codegen.carry import Carry
from tinycore.codegen.tiling import Bind, Order, Split, apply
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

N = UOp.variable("n", 0, 24)


def x(*shape, identity=1, dtype=dtypes.float32):
    return node(shape, dtype, identity)


def unrolled(reduced, steps=4):
    return (
        Split(reduced, steps, 10, 11, "peel", 12),
        Bind(11, "unroll"),
        Bind(12, "unroll"),
    )


def lanes(columns, vector=8):
    return (
        Split(columns, vector, 20, 21, "peel", 22),
        Bind(21, "vector"),
        Split(22, vector, 23, 24, "mask"),
        Bind(24, "vector"),
    )


@pytest.mark.parametrize(("steps", "columns"), [(20, 40), (21, 40), (20, 43), (23, 37), (8, 8), (9, 3)])
def test_sums_of_columns(steps, columns):
    program = check(
        total(x(steps, columns), 0), *unrolled(1), Carry((10,), (0,)), *lanes(0), Order((10, 20, 23))
    )
    assert any(n.op is ops.SCRATCH for n in program.linear.toposort())


@pytest.mark.parametrize(("rows", "steps", "columns"), [(1, 20, 40), (2, 21, 37), (5, 12, 9)])
def test_a_few_rows_times_a_matrix(rows, steps, columns):
    numbers = (0, 1, 2) if rows > 1 else (None, 0, 1)
    row, column, reduced = numbers
    inside = (column,) if row is None else (row, column)
    bind = () if row is None else (Bind(row, "unroll"),)
    check(
        matmul(x(rows, steps), x(steps, columns, identity=2)) * 2,
        *unrolled(reduced),
        Carry((10,), inside),
        *bind,
        *lanes(column),
        Order((10, 20, 23)),
    )


@pytest.mark.parametrize("op", [ops.ADD, ops.MUL, ops.MAX, ops.MIN])
def test_every_monoid_starts_with_its_identity(op):
    check(reduce(x(3, 9, 7), op, 1), *unrolled(2), Carry((10,), (1,)), Order((0, 10, 1)))


def test_every_pass_of_an_outer_loop_starts_anew():
    """Results of one batch must not reach the next one, nor the first one stand for all."""
    check(total(x(3, 9, 7), 1), Carry((2,), (1,)), Order((0, 2, 1)))


def test_several_reduced_ranges():
    check(total(x(3, 5, 4, 6), 0, 2), Carry((2, 3), (0, 1)), Order((2, 3, 0, 1)))


def test_pieces_of_rows():
    check(
        total(x(11, 50), 0),
        Split(0, 16, 30, 31, "bound"),
        Bind(30, "global"),
        *unrolled(1),
        Carry((10,), (31,)),
        *lanes(31),
        Order((30, 10, 20, 23)),
    )


@pytest.mark.parametrize("size", [0, 1, 3, 4, 24])
@pytest.mark.parametrize("op", [ops.ADD, ops.MAX])
def test_no_steps_at_all(size, op):
    (reduced,) = (Split(1, 4, 10, 11, "peel", 12),)
    check(
        reduce(x(N, 10), op, 0),
        reduced,
        Bind(11, "unroll"),
        Carry((10,), (0,)),
        Order((10, 0)),
        bindings={N: size},
    )


def test_integers_wrap():
    kernel = kernel_of(total(x(9, 5, dtype=dtypes.int8), 0))
    tiled = apply(indexed(kernel), [Carry((1,), (0,)), Order((1, 0))])
    arrays = {slot: np.full_like(array, 100) for slot, array in arrays_for(kernel).items()}
    equal(run_kernel(tiled, arrays), expected(kernel, arrays))


def test_unknown_ranges_are_named():
    with pytest.raises(CompileError, match="no range r9"):
        apply(indexed(kernel_of(total(x(9, 5), 0))), [Carry((9,), (0,))])
    assert "r1" in str(Carry((1,), (0,)))

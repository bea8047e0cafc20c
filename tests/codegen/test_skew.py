"""Rows that begin anywhere in a line: blocks and vectors whose borders move from row to row keep the meaning."""

from __future__ import annotations

import pytest
from graphs import expand, node, pad, permute, reduce, total
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import check, indexed, kernel_of

from tinycore.codegen.skew import Align, Skew
from tinycore.codegen.tiling import Bind, Order, Split, apply
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

N = UOp.variable("n", 0, 40)


def x(*shape, identity=1, dtype=dtypes.int32):
    return node(shape, dtype, identity)


def lines(target, lanes=8, vectors=2):
    """A range of neighbours in whole lines: the loops are r102, r104 and r110."""
    return (
        Align(target, lanes, 100, 101),
        Split(100, lanes, 102, 103, "mask"),
        Bind(103, "vector"),
        Split(101, lanes * vectors, 104, 105, "peel", 106),
        Split(105, lanes, 107, 108, "mask"),
        Bind(107, "unroll"),
        Bind(108, "vector"),
        Split(106, lanes, 110, 109, "mask"),
        Bind(109, "vector"),
    )


def blocks(lanes=4, copies=4, size=16, line=8, height=8):
    """A transpose through memory of the thread, as the pass writes it."""
    return (
        Split(0, height, 50, 51, "bound"),
        Skew(1, 51, size, line, 52, 53, (1,), (54, 55)),
        Split(55, lanes, 60, 61, "peel", 62),
        Bind(61, "vector"),
        Split(62, lanes, 63, 64, "mask"),
        Bind(64, "vector"),
        Split(54, copies, 70, 71, "peel", 72),
        Bind(71, "unroll"),
        Split(72, copies, 73, 74, "mask"),
        Bind(74, "unroll"),
        *lines(53),
        Order((52, 50, 60, 63, 70, 73, 51, 102, 104, 110)),
    )


def addresses(program, kind):
    """The stores to the result whose gate is or is not constant."""
    stores = [n for n in program.linear.src if n.op is ops.STORE and n.src[0].op is ops.PARAM]
    return [n for n in stores if (n.src[3].is_const) is (kind == "whole")]


@pytest.mark.parametrize("width", [2, 7, 8, 9, 31, 40, 45])
def test_rows_in_whole_lines(width):
    program = check(x(5, width) * 2 + expand(x(1, width, identity=2), 5, width), *lines(1), Order((0, 102)))
    if width > 16:
        assert addresses(program, "whole")
        assert bool(addresses(program, "masked")) is (width != 40)


def test_several_loops_around_rows():
    check(pad(x(3, 4, 21), (0, 1), (1, 0), (2, 1)) + 1, *lines(2), Order((0, 1, 102)))


def test_a_reduction_outside_of_the_row():
    row = x(4, 19)
    check(row - expand(reduce(row, ops.MAX, 1), 4, 19), *lines(1), Order((0, 102)))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 33])
def test_rows_of_any_length(size):
    check(x(3, N) * 2, *lines(1), Order((0, 102)), bindings={N: size})


def test_chunks_of_a_row():
    check(x(3, 50) * 2, Split(1, 20, 30, 31, "bound"), *lines(31), Order((0, 30, 102)))


@pytest.mark.parametrize(("rows", "width"), [(16, 33), (9, 7), (17, 31), (3, 64), (20, 47), (8, 17)])
def test_transposed_blocks(rows, width):
    program = check(permute(x(width, rows), 1, 0) + x(rows, width, identity=2), *blocks())
    assert any(n.op is ops.SCRATCH for n in program.linear.toposort())


def test_a_transposed_load_with_a_guard():
    check(permute(pad(x(20, 9), (3, 2), (0, 4)), 1, 0) + 1, *blocks())


def test_transposed_batches():
    actions = (
        Split(1, 8, 50, 51, "bound"),
        Skew(2, 51, 16, 8, 52, 53, (1,), (54, 55)),
        *lines(53),
        Order((0, 52, 50, 54, 55, 51, 102, 104, 110)),
    )
    check(permute(x(3, 21, 10), 0, 2, 1) * 3, *actions)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(2, 24),
    width=st.integers(2, 70),
    lanes=st.sampled_from([2, 4, 8]),
    size=st.sampled_from([8, 16, 24]),
    line=st.sampled_from([4, 8, 16]),
    height=st.integers(2, 12),
)
def test_any_sizes(rows, width, lanes, size, line, height):
    root = permute(x(width, rows), 1, 0) - x(rows, width, identity=2)
    check(root, *blocks(lanes, 4, size, line, height), device=None)


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(CompileError, match="no range r9"):
        apply(indexed(kernel_of(x(9, 5) * 2)), [Align(9, 8, 10, 11)])
    with pytest.raises(CompileError, match="no range of neighbours"):
        apply(indexed(kernel_of(permute(x(9, 5), 1, 0) + x(5, 9, identity=2))), [Align(0, 8, 10, 11)])
    with pytest.raises(CompileError, match="no range of neighbours"):
        apply(indexed(kernel_of(total(x(9, 5), 1))), [Align(1, 8, 10, 11)])
    skew = Skew(1, 0, 16, 8, 20, 21, (1,), (22, 23))
    with pytest.raises(CompileError, match="cannot be staged"):
        apply(indexed(kernel_of(expand(x(1, 9), 5, 9) * x(5, 9, identity=2))), [skew])


def test_actions_say_what_they_do():
    assert str(Align(1, 16, 4, 5)) == "align r1 to 16 -> r4, r5"
    assert "r1 by 256 at multiples of 16 -> r6, r7" in str(Skew(1, 3, 256, 16, 6, 7, (1,), (8, 9)))

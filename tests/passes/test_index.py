"""index.rules: simplifying keeps the value, for all values of the ranges; addresses become plain strides."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passes_helpers import assignments, evaluate, loop

from tinycore.ir import UOp, dims, dtypes, ops, toposort
from tinycore.passes.index import canonical_sum, digest
from tinycore.rules import load

I = dtypes.index  # noqa: E741 - it is everywhere here
N = UOp.variable("n", 1, 40)
M = UOp.variable("m", 4, 64, 4)


def simplify(node):
    return load("tinycore.passes.algebra").passes["simplify"](node)


def const(value):
    return UOp.const(I, value)


def ravel(indices, shape):
    total = const(0)
    for index, stride in zip(indices, dims.strides(shape), strict=True):
        total = total + index * dims.to_node(stride)
    return total


def unravel(flat, shape):
    return [
        flat // dims.to_node(stride) % dims.to_node(size)
        for stride, size in zip(dims.strides(shape), shape, strict=True)
    ]


def reshape(indices, source, target):
    """The indices into `source` of the element that has these indices in `target`."""
    return unravel(ravel(indices, target), source)


def check(before, after):
    ranges = sorted({r for r in before.toposort() if r.op is ops.RANGE}, key=lambda r: r.arg[0])
    variables = [v for v in before.toposort() if v.op is ops.VARIABLE]
    for values in assignments(ranges, variables):
        assert evaluate(before, values) == evaluate(after, values), (before, after, values)


def counts(node):
    found = [part.op for part in toposort((node,))]
    return found.count(ops.FLOORDIV) + found.count(ops.FLOORMOD)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 4), (6, 4), (24,)),
        ((24,), (6, 4), (2, 3, 4)),
        ((24,), (2, 3, 4), (24,)),
        ((6, 4), (24,), (6, 4)),
        ((2, 3, 4), (24,), (4, 6), (24,), (2, 3, 4)),
        ((4, 1, 6), (2, 2, 6), (4, 6)),
        ((8, 9), (8, 3, 3), (72,)),
        ((N, 12), (N, 3, 4), (N, 12)),
        ((N, 12), (dims.multiply(N, 12),), (N, 12)),
        ((2, N, 12), (2, N, 3, 4), (2, N, 12)),
        ((2, N, M), (dims.multiply(2, N), M), (2, N, M)),
        ((2, N, 6), (dims.multiply(dims.multiply(2, N), 6),), (2, N, 6)),
        ((1, N, 384), (1, N, 12, 32), (N, 384), (1, N, 384)),
    ],
)
def test_chains_of_reshapes_end_with_plain_strides(shapes):
    ranges = [loop(k, size) for k, size in enumerate(shapes[-1])]
    indices = ranges
    for source, target in zip(reversed(shapes[:-1]), reversed(shapes[1:]), strict=True):
        indices = reshape(indices, source, target)
    before = ravel(indices, shapes[0])
    after = simplify(before)
    check(before, after)
    assert after is simplify(ravel(ranges, shapes[-1])), after
    assert counts(after) == 0


def test_reshape_splits_what_it_must_and_no_more():
    """(6, 4) seen as (24,) and transposed needs one quotient and one remainder."""
    i = loop(0, 24)
    row, column = reshape([i], (6, 4), (24,))
    after = simplify(ravel([column, row], (4, 6)))
    check(ravel([column, row], (4, 6)), after)
    assert counts(after) == 2


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda i, j, k: (i * 12 + j * 4 + k) // 4, lambda i, j, k: i * 3 + j),
        (lambda i, j, k: (i * 12 + j * 4 + k) % 4, lambda i, j, k: k),
        (lambda i, j, k: (i * 12 + j * 4 + k) // 12, lambda i, j, k: i),
        (lambda i, j, k: (i * 12 + j * 4 + k) % 12, lambda i, j, k: j * 4 + k),
        (lambda i, j, k: (i * 12 + j * 4 + k) // 6, lambda i, j, k: i * 2 + (j * 4 + k) // 6),
        (lambda i, j, k: (j + i * 5) * 3 - i * 15, lambda i, j, k: j * 3),
        (lambda i, j, k: (i * 6 + j * 3) // 9, lambda i, j, k: (i * 2 + j) // 3),
        (lambda i, j, k: (k - 5) // 4, lambda i, j, k: (k + 3) // 4 + -2),
        (lambda i, j, k: (k - 8) % 4, lambda i, j, k: k),
        (lambda i, j, k: (i % 4) // 2 * 2 + i % 2, lambda i, j, k: i),
        (lambda i, j, k: i * 4 + 3 < 8, lambda i, j, k: i < 2),
        (lambda i, j, k: (i * 3 + 1).eq(2), lambda i, j, k: UOp.const(dtypes.bool_, False)),
        (lambda i, j, k: (i * 3 + 1).eq(4), lambda i, j, k: i.eq(1)),
        (lambda i, j, k: (i >= 0) & (i < 4), lambda i, j, k: UOp.const(dtypes.bool_, True)),
    ],
)
def test_simplification(make, expected):
    i, j, k = loop(0, 4), loop(1, 3), loop(2, 4)
    before, after = make(i, j, k), simplify(make(i, j, k))
    check(before, after)
    if make(i, j, k).dtype is I:
        wanted = canonical_sum(expected(i, j, k)) or expected(i, j, k)
        assert after is simplify(wanted)
        assert counts(after) <= counts(wanted)
    else:
        assert after is expected(i, j, k)


def test_the_order_of_terms_does_not_depend_on_the_order_of_construction():
    i, j = loop(0, 8), loop(1, 8)
    a, b = (i + j) // 3, (i * 5 + j) % 7
    assert simplify(a * 4 + b + j) is simplify(j + (b + a * 4))


def test_the_order_of_terms_is_the_same_in_every_process():
    code = (
        "import random, sys; pad = [object() for _ in range(random.randrange(1000))]\n"
        "from tinycore.ir import UOp, dtypes, ops\n"
        "from tinycore.passes.index import canonical_sum, digest\n"
        "eight = UOp.const(dtypes.index, 8)\n"
        "loops = [UOp(ops.RANGE, dtypes.index, (eight,), (k, 'loop')) for k in range(4)]\n"
        "terms = [(x + y) // 3 for x in loops for y in loops if x is not y] + [x % 5 for x in loops]\n"
        "random.shuffle(terms)\n"
        "total = terms[0]\n"
        "for term in terms[1:]: total = total + term\n"
        "print(digest(canonical_sum(total)).hex())\n"
    )
    answers = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(answers) == 1


def test_digests_tell_structures_apart():
    i, j = loop(0, 8), loop(1, 8)
    assert len({digest(x) for x in (i, j, i + j, j + i, i * j, i * 2, loop(0, 9), N)}) == 8


def test_sizes_that_may_be_zero_are_not_divided_out():
    """n // n is 0 for n == 0, and so are x // n and x % n."""
    n = UOp.variable("z", 0, 5)
    x = loop(0, 12)
    for before in (x // n * n + x % n, n // n, (x * n + 1) // n, (x // 2) // n, x % (n * 3) % n):
        check(before, simplify(before))


def test_loops_of_one_iteration_vanish():
    i, one = loop(0, 8), loop(1, 1, "reduce")
    x = UOp(ops.PARAM, dtypes.float32, (), (0, (8,)))
    true = UOp.const(dtypes.bool_, True)
    value = UOp(ops.LOAD, dtypes.float32, (x, i + one, true), 1)
    r = loop(2, 3, "reduce")
    assert simplify(UOp(ops.REDUCE, dtypes.float32, (value, one, r), (ops.ADD, ()))) is UOp(
        ops.REDUCE, dtypes.float32, (value.substitute({i + one: i}), r), (ops.ADD, ())
    )
    assert simplify(UOp(ops.REDUCE, dtypes.float32, (value, one), (ops.ADD, ()))) is value.substitute(
        {i + one: i}
    )


# --- random expressions ------------------------------------------------------------------------------------


@st.composite
def expressions(draw, symbolic=False):
    leaves = [
        loop(0, draw(st.integers(1, 7))),
        loop(1, draw(st.sampled_from([2, 3, 4, 8]))),
        loop(2, draw(st.sampled_from([1, 5, 6]))),
    ]
    if symbolic:
        leaves += [N, M, loop(3, N)]
    pool = list(leaves)
    numbers = st.integers(-12, 24)
    for _ in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from("++*//%%-sw"))
        x = draw(st.sampled_from(pool))
        if kind in "+-":
            y = draw(st.one_of(st.sampled_from(pool), numbers.map(const)))
            pool.append(x + y if kind == "+" else x - y)
        elif kind == "*":
            pool.append(x * draw(numbers))
        elif kind in "/%":
            y = const(draw(st.integers(-6, 24)))
            if symbolic and draw(st.booleans()):
                y = draw(st.sampled_from([N, M, N * 2, M * 3, N * M]))
            pool.append(x // y if kind == "/" else x % y)
        elif kind == "s":
            pool.append(x * draw(st.sampled_from(leaves)))
        else:
            condition = x < draw(numbers)
            pool.append(condition.where(draw(st.sampled_from(pool)), draw(st.sampled_from(pool))))
    return pool[-1]


@settings(max_examples=300, deadline=None)
@given(expressions())
def test_random_expressions_keep_their_value(before):
    check_small(before)


@settings(max_examples=150, deadline=None)
@given(expressions(symbolic=True))
def test_random_symbolic_expressions_keep_their_value(before):
    check_small(before)


def check_small(before):
    after = simplify(before)
    ranges = sorted({r for r in before.toposort() if r.op is ops.RANGE}, key=lambda r: r.arg[0])
    variables = [v for v in before.toposort() if v.op is ops.VARIABLE]
    for values in assignments(ranges, variables, limit=60):
        assert evaluate(before, values) == evaluate(after, values)
    assert simplify(after) is after


@settings(max_examples=200, deadline=None)
@given(expressions(), st.integers(-30, 60), st.sampled_from([ops.LT, ops.LE, ops.EQ, ops.NE]), st.booleans())
def test_random_comparisons_keep_their_value(x, number, op, swapped):
    operands = (const(number), x) if swapped else (x, const(number))
    before = operands[0].alu(op, operands[1])
    check_small(before)


@st.composite
def digits(draw):
    """Sums of quotients and remainders of one number, with coefficients that often fit together."""
    x = draw(st.sampled_from([loop(0, 60), loop(0, 60) + 7, loop(0, 60) - 11, loop(0, 12) * 5 + loop(1, 5)]))
    divisors = st.sampled_from([2, 3, 4, 6, -2, 12])
    terms = []
    for _ in range(draw(st.integers(2, 4))):
        a, b = draw(divisors), draw(divisors)
        coefficient = draw(st.sampled_from([1, 1, 2, a, a * b, 3 * a, b]))
        y = draw(st.sampled_from([x % a, x // a, x // a % b, x // (a * b), x // a // b, x % (a * b)]))
        terms.append(y * coefficient)
    return sum(terms[1:], terms[0])


@settings(max_examples=500, deadline=None)
@given(digits())
def test_digits_of_a_number_keep_their_value(before):
    check_small(before)


def coarsened(draw, shape):
    """A shape that merges neighbours of `shape`."""
    result = [1]
    for dim in shape:
        if draw(st.booleans()):
            result.append(dim)
        else:
            result[-1] *= dim
    return tuple(result)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=1, max_size=4), st.data())
def test_random_reshapes_and_back_are_the_identity(finest, data):
    shape = source = coarsened(data.draw, finest)
    ranges = indices = [loop(k, dim) for k, dim in enumerate(shape)]
    for _ in range(data.draw(st.integers(1, 3))):
        target = coarsened(data.draw, finest)
        indices = reshape(indices, target, source)
        source = target
    before = ravel(indices, source)
    after = simplify(before)
    check(before, after)
    assert after is simplify(ravel(ranges, tuple(shape)))

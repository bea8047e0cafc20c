"""Values that several passes over a row need are computed once: the same meaning, and less work."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import expand, node, permute, reduce, total
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import (
    LANES,
    arrays_for,
    expected,
    indexed,
    kernel_of,
    program_of,
    run_kernel,
    run_on,
    run_program,
)

from tinycore import rules
from tinycore.codegen.keep import Keep, repeated
from tinycore.codegen.tiling import Bind, Order, Split, apply
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime.devices import get_device


def x(*shape, identity=1, dtype=dtypes.float32):
    return node(shape, dtype, identity)


def exp(a):
    return UOp(ops.EXP2, a.dtype, (a,))


def softmax(a, *shape):
    e = exp(a - expand(reduce(a, ops.MAX, 1), *shape))
    return e / expand(total(e, 1), *shape)


def normal(a, *shape):
    """Something dear, then a norm of it: three passes need it."""
    dear = exp(a) * a
    centred = dear - expand(total(dear, 1), *shape) * (1 / shape[1])
    return centred * expand(total(centred * centred, 1), *shape)


def check(root, *actions, device=None):
    """The kernel means the same at every level, up to rounding; answers the program."""
    kernel = kernel_of(root)
    tiled = apply(indexed(kernel), actions)
    arrays = {slot: (array % 7 / 8).astype(array.dtype) for slot, array in arrays_for(kernel).items()}
    wanted = expected(kernel, arrays)
    program = program_of(kernel, tiled, LANES)
    results = [run_kernel(tiled, arrays), run_program(program, arrays)]
    if device:
        results.append(run_on(device, program_of(kernel, tiled, get_device(device).target), arrays))
    for result in results:
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
    return program


def dear(program):
    """In how many places the program computes something dear."""
    return sum(n.op in (ops.EXP2, ops.EXP) for n in program.linear.src)


def lanes(target, first, size=8):
    return (
        Split(target, size, first, first + 1, "peel", first + 2),
        Bind(first + 1, "vector"),
        Split(first + 2, size, first + 3, first + 4, "mask"),
        Bind(first + 4, "vector"),
    )


def test_exponentials_of_a_softmax_are_computed_once():
    root = softmax(x(5, 21), 5, 21)
    assert dear(check(root)) == 2
    program = check(root, Keep(1, 12, (10,)), device="CPU")
    assert dear(program) == 1
    assert any(n.op is ops.SCRATCH for n in program.linear.toposort())


def test_with_lanes():
    root = softmax(x(5, 21), 5, 21)
    check(root, Keep(1, 12, (10,)), *lanes(10, 20), *lanes(1, 30), Order((0, 30, 33)), device="CPU")


def test_a_loop_of_one_iteration_leaves_the_statement_that_is_waited_for():
    kernel = kernel_of(softmax(x(4, 16), 4, 16))
    kept = apply(indexed(kernel), [Keep(1, 12, (10,))])
    long = [n for n in kept.toposort() if n.op is ops.RANGE and n.src[0].vmax == 16]
    once = kept.substitute({n: n.replace(src=(UOp.const(dtypes.index, 1),)) for n in long})
    with rules.trace() as found:
        program = program_of(kernel, once, LANES)
    assert "end_1" in {event.rule.name for event in found.events}
    arrays = arrays_for(kernel)
    np.testing.assert_array_equal(run_program(program, arrays), run_kernel(once, arrays))


@pytest.mark.parametrize("shape", [(1, 9), (4, 16), (3, 17)])
def test_a_value_of_three_passes_goes_first(shape):
    root = normal(x(*shape), *shape)
    (kernel,) = indexed(kernel_of(root)).src
    row = max(kernel.ranges, key=lambda r: r.arg[0])
    (found,) = repeated(kernel, row, 12)
    assert len(found.places) == 3
    assert dear(check(root, Keep(row.arg[0], 12, (10,)), device="CPU")) == 1


def test_several_values():
    a = x(4, 13)
    first, second = exp(a), exp(a * a + 1.0)
    rows = [expand(total(value, 1), 4, 13) for value in (first, second, first)]
    root = first / rows[0] + second / rows[1] * rows[2]
    assert dear(check(root, Keep(1, 12, (10, 11)))) == 2


def test_what_is_cheap_or_computed_once_is_left_alone():
    a = x(4, 13)
    for root in (a - expand(reduce(a, ops.MAX, 1), 4, 13), exp(a) - expand(reduce(a, ops.MAX, 1), 4, 13)):
        (store,) = indexed(kernel_of(root)).src
        row = max(store.ranges, key=lambda r: r.arg[0])
        assert repeated(store, row, 12) == []


def test_another_order_of_the_same_elements_is_another_value():
    a = x(9, 9)
    root = exp(a) * expand(total(exp(permute(a, 1, 0)), 1), 9, 9)
    (store,) = indexed(kernel_of(root)).src
    row = max(store.ranges, key=lambda r: r.arg[0])
    assert repeated(store, row, 12) == []


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 6), width=st.integers(2, 40), size=st.sampled_from([2, 4, 8]))
def test_any_sizes(rows, width, size):
    root = softmax(x(rows, width) * 2.0, rows, width)
    row = 1 if rows > 1 else 0
    order = (0, 30, 33) if rows > 1 else (30, 33)
    check(root, Keep(row, 12, (10,)), *lanes(10, 20, size), *lanes(row, 30, size), Order(order))


def test_more_copies_than_values_are_refused():
    with pytest.raises(CompileError, match="nothing else is computed again"):
        apply(indexed(kernel_of(softmax(x(5, 21), 5, 21))), [Keep(1, 12, (10, 11))])
    assert "r1" in str(Keep(1, 12, (10,)))

"""Values that one kernel stores together: which are, and that they are what each of them is by itself."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import (
    DEVICES,
    assign,
    check,
    compilations,
    contiguous,
    data,
    expand,
    flip,
    kernels,
    matmul,
    need,
    node,
    permute,
    reshape,
    schedule_of,
    shrink,
    total,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.codegen.indexing import lower_indexing
from tinycore.interpret import interpret_kernel
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.statements import joint_statements
from tinycore.runtime.capture import capture
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host
from tinycore.schedule.joint import MOST_STORES

INTS = np.int32


@pytest.fixture(params=DEVICES)
def device(request):
    need(request.param)
    return request.param


def adam(first, second, parameter, gradient):
    first = assign(first, first * 0.9 + gradient * 0.1)
    second = assign(second, second * 0.99 + gradient * gradient * 0.01)
    return [assign(parameter, parameter - first * 0.1 / (second.alu(ops.SQRT) + 0.1)), first, second]


def positive(shape, seed):
    return np.abs(data(shape, seed=seed))


# --- which ----------------------------------------------------------------------------------------------------


def outputs(*roots):
    """How many values each kernel stores."""
    return [step.outputs for step in schedule_of(*roots).steps]


def test_an_optimizer_step_is_one_kernel():
    (step,) = schedule_of(*adam(*[node((8, 3), identity=k) for k in range(4)])).steps
    assert step.outputs == 3 and len(step.buffers) == 4 and len(step.nodes) == 3
    written = {statement.src[0].arg[0] for statement in step.kernel.src}
    assert written == {0, 1, 2}  # the first slots


def test_what_shares_no_operand_stays_apart():
    assert outputs(node((8,)) + 1.0, node((8,), identity=2) + 1.0) == [1, 1]


def test_other_shapes_stay_apart():
    x = node((4, 6))
    assert outputs(x + 1.0, reshape(x, 24) * 2.0, shrink(x, (0, 4), (0, 3)) * 3.0) == [1, 1, 1]


def test_other_orders_of_elements_stay_apart():
    x = node((64, 64))
    assert outputs(x + 1.0, permute(x, 1, 0) * 2.0) == [1, 1]
    assert outputs(x + 1.0, flip(x, 0) * 2.0) == [1, 1]


def test_what_is_read_in_another_order_is_not_computed_again():
    x = node((8,))
    y = x + 1.0
    assert outputs(y, flip(y, 0) + x) == [1, 1]


def test_axes_exchanged_and_exchanged_back():
    x = node((64, 32))
    assert outputs(permute(permute(x, 1, 0) + 1.0, 1, 0) * 3.0, x + 2.0) == [2]


def test_a_small_operand_may_be_read_in_any_way():
    x, row = node((64, 64)), node((64,), identity=2)
    assert outputs(x + expand(row, 64, 64), x * 2.0) == [2]


def test_reductions_and_explicit_stores_stay_apart():
    x = node((8, 8))
    assert outputs(x + 1.0, contiguous(x * 2.0)) == [1, 1]
    assert outputs(x + 1.0, expand(total(x, 1), 8, 8) + x) == [1, 1]


def test_what_all_users_have_computed_is_not_stored():
    x = node((64,))
    value = x
    for _ in range(3):
        value = value.alu(ops.EXP)
    assert outputs(value * 2.0, value + 1.0) == [2]
    assert outputs(value, value * 2.0, value + 1.0) == [3]


def test_kernels_have_a_limit():
    x = node((64,))
    sizes = outputs(*[x * float(k) for k in range(2, 2 * MOST_STORES + 3)])
    assert max(sizes) == MOST_STORES and sum(sizes) == 2 * MOST_STORES + 1


def test_a_task_between_that_needs_the_first_and_is_needed_by_the_last():
    """x + 1, its rows summed up, and what adds them to x: the last cannot run as early as the first."""
    x = node((64, 64))
    y = x + 1.0
    assert outputs(y, x * expand(total(y, 0), 64, 64)) == [1, 1, 1]


def test_joining_takes_time_in_proportion():
    x = node((16,))
    for _ in range(1000):
        x = contiguous(x + 1.0) * 2.0
    assert kernels(x) == 1001


# --- what they compute ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (1003,), (17, 33), (4, 3, 3, 3), (70_001,)])
def test_an_optimizer_step(device, shape):
    arrays = [positive(shape, seed) for seed in range(4)]
    with compilations() as compiled:
        check(lambda *given: adam(*given), arrays, device)
    assert device not in ("CPU", "CL") or len(compiled) <= 1


def test_each_reads_what_the_other_writes(device):
    """Weight decay with momentum: the velocity reads the old parameter, the parameter the old velocity."""

    def build(velocity, parameter, gradient):
        new = assign(velocity, velocity * 2 + gradient + parameter)
        return [new, assign(parameter, parameter - new)]

    for size in (7, 1003):
        arrays = [data((size,), INTS, seed) for seed in range(3)]
        check(build, arrays, device)
    assert outputs(*build(*[node((7,), dtypes.int32, k) for k in range(3)])) == [2]


def test_nothing_is_overwritten_that_another_iteration_reads(device):
    check(lambda x: [flip(x, 0) + x, assign(x, x * 2)], [data((250,), INTS)], device)
    check(
        lambda x, y: [assign(x, x + y), flip(x, 0) * 3 + y], [data((250,), INTS, k) for k in (0, 1)], device
    )


def test_results_of_several_dtypes(device):
    check(
        lambda x: [x * 3, x.cast(dtypes.float64) * 0.5, (x < 2), x.cast(dtypes.int8) + 1],
        [data((1003,), INTS)],
        device,
    )


def test_a_symbolic_size(device):
    size = UOp(ops.VARIABLE, dtypes.index, (), ("size", 1, 100, 1))
    for count in (1, 37, 64):
        array = data((count,), INTS)
        check(lambda x: [x * 3, x + 1], [array], device, {size: count}, [(size,)])


def test_masked_values(device):
    check(lambda x, y: [x * 3, (x < y).where(x, y), x - y], [data((129,), INTS, k) for k in range(2)], device)


def test_a_replay_knows_all_that_is_written(device):
    """What is computed from an array once and kept is computed again after a kernel that wrote it second."""
    weights, other, x = (from_host(data((64, 64), seed=seed), device) for seed in range(3))

    def step():
        (_, new) = realize([assign(other, weights + 1.0), assign(weights, weights * 0.5 + other)])
        return realize([matmul(x, new)])[0]

    with capture() as recording:
        step()
    for _ in range(2):
        recording.replay({})
        found = to_host(step())
        np.testing.assert_allclose(found, to_host(x) @ to_host(weights), rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9), st.booleans()),
        min_size=2,
        max_size=9,
    )
)
def test_random_updates(steps):
    """Aligned updates of three buffers of two shapes' worth of elements, and values beside them."""

    def build(*buffers):
        latest, values = list(buffers), list(buffers)
        for which, a, b, written in steps:
            value = values[a % len(values)] * 3 - values[b % len(values)]
            if written:
                value = latest[which] = assign(latest[which], value)
            values.append(value)
        computed = [value for value in values if value.op not in (ops.BUFFER, ops.ASSIGN)]
        return [each for each in latest if each.op is ops.ASSIGN] + computed[-2:]

    arrays = [data((4, 9), INTS, seed) for seed in range(3)]
    if build(*[node((4, 9), dtypes.int32, k) for k in range(3)]):
        for name in ("INTERPRETER", "CPU"):
            check(build, arrays, name)


# --- joint statements -----------------------------------------------------------------------------------------


def test_joint_statements_read_before_they_write():
    a, b = (UOp(ops.PARAM, dtypes.int32, (), (slot, (4,))) for slot in (0, 1))
    kernel = UOp(ops.SINK, dtypes.void, (assign(a, b), assign(b, a)))
    for form in (kernel, lower_indexing(kernel)):
        memory = {0: np.arange(4, dtype=INTS), 1: np.arange(4, dtype=INTS) * 10}
        interpret_kernel(form, memory)
        assert memory[0].tolist() == [0, 10, 20, 30] and memory[1].tolist() == [0, 1, 2, 3]


def test_joint_statements_of_other_shapes():
    a, b = UOp(ops.PARAM, dtypes.int32, (), (0, (4,))), UOp(ops.PARAM, dtypes.int32, (), (1, (5,)))
    kernel = UOp(ops.SINK, dtypes.void, (assign(a, a + 1), assign(b, b + 1), assign(b, b * 2)))
    assert [len(group) for group in joint_statements(kernel)] == [1, 2]

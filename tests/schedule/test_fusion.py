"""Which values are stored: kernel counts, and what the kernels compute."""

from __future__ import annotations

import gc
import math
import time

import numpy as np
import pytest
from graphs import (
    assign,
    check,
    const,
    contiguous,
    copy,
    data,
    expand,
    flip,
    gather,
    kernels,
    layer_norm,
    matmul,
    node,
    pad,
    permute,
    reduce,
    relu,
    reshape,
    scan,
    scatter,
    schedule_of,
    shrink,
    softmax,
    total,
    touched,
)

from tinycore.errors import DeviceError
from tinycore.ir import UOp, dims, dtypes, ops
from tinycore.schedule import CopyStep


def largest(*roots):
    """Elements of the largest buffer that the schedule makes."""
    return max(
        math.prod(dims.upper(size) for size in buffer.arg[1])
        for step in schedule_of(*roots).steps
        for buffer in touched(step)
        if buffer.arg[0] >= 0
    )


def expensive(x):
    return x.alu(ops.EXP).alu(ops.SIN).alu(ops.EXP)


# --- one kernel ---------------------------------------------------------------------------------------------


def test_elementwise_chain():
    x, y = node((8, 8)), node((8, 8), identity=2)
    assert kernels((x + y).alu(ops.EXP) * x - 1.0) == 1


def test_what_is_summed_is_not_summed_for_zeros():
    a, b, beside = node((40, 33)), node((33, 50), identity=2), node((40, 50), identity=3)
    product = matmul(a, b)
    joined = pad(product, (0, 0), (0, 50)) + pad(beside, (0, 0), (50, 0))
    assert kernels(relu(joined)) == 2  # the matmul, then both side by side
    assert kernels(pad(beside.alu(ops.EXP), (0, 0), (50, 0))) == 1


def test_relu_of_a_matmul_summed():
    a, b = node((40, 33)), node((33, 50), identity=2)
    assert kernels(total(relu(matmul(a, b)), 0, 1)) == 2  # the matmul with its relu, then the sum
    assert largest(total(relu(matmul(a, b)), 0, 1)) == 40 * 50


def test_epilogue_joins_the_matmul():
    a, b, c = node((16, 24)), node((24, 8), identity=2), node((8,), identity=3)
    assert kernels(relu(matmul(a, b) + expand(c, 16, 8)) * 0.5) == 1
    assert kernels(permute(relu(matmul(a, b)), 1, 0)) == 1
    assert kernels(reshape(relu(matmul(a, b)), 4, 4, 8) + 1.0) == 1


def test_softmax_is_one_kernel():
    assert kernels(softmax(node((6, 10)))) == 1
    assert kernels(softmax(node((2, 3, 6, 10)))) == 1
    assert kernels(softmax(node((6, 10)) * 0.125)) == 1


def test_layer_norm_is_one_kernel():
    assert kernels(layer_norm(node((6, 10)), 10)) == 1
    weight, bias = node((10,), identity=2), node((10,), identity=3)
    x = layer_norm(node((6, 10)), 10)
    assert kernels(x * expand(weight, 6, 10) + expand(bias, 6, 10)) == 1


def test_softmax_of_columns_is_right():
    check(lambda x: [softmax(x, 0)], [data((7, 5))])


def test_movement_alone_is_one_kernel():
    x = node((4, 6))
    assert kernels(permute(flip(pad(shrink(x, (0, 3), (1, 5)), (1, 2), (0, 1)), 0), 1, 0)) == 1


# --- several ------------------------------------------------------------------------------------------------


def test_reduction_of_a_reduction():
    x = node((6, 7, 8))
    assert kernels(total(reduce(x, ops.MAX, 2), 1)) == 2
    check(lambda x: [total(reduce(x, ops.MAX, 2), 1)], [data((6, 7, 8))])


def test_reductions_of_different_lengths_have_kernels_of_their_own():
    x, y = node((4, 5)), node((4, 7), identity=2)
    assert kernels(total(x, 1) + total(y, 1)) == 2
    assert kernels(total(x, 1) + total(node((4, 5), identity=2), 1)) == 1
    maximum = expand(reduce(x, ops.MAX, 1), 4, 5)
    assert kernels((x - maximum) * expand(total(y, 1), 4, 5)) == 2
    assert kernels(expand(total(y, 1), 4, 5) * (x - maximum)) == 2
    assert kernels((x - maximum) * expand(total(x * 2.0, 1), 4, 5)) == 1


def test_short_reductions_to_one_result_stay_together():
    x, y = node((50,)), node((7, 9), identity=2)
    assert kernels(total(x, 0) + total(reshape(y, 63), 0)) == 1
    assert kernels(total(x, 0) + reduce(reshape(y, 63), ops.MAX, 0)) == 1
    assert kernels(total(x, 0) + total(node((5000,), identity=3), 0)) == 2


@pytest.mark.parametrize(
    "size", [(1 << 18) - 1, (1 << 18) + 1, 262_139, 1_000_003, (3, 100_003), (1021, 257)]
)
def test_a_large_reduction_of_any_size_is_done_in_pieces(size):
    """All threads get one, and what is left over is summed up with the sums of the pieces."""
    x = node(size if isinstance(size, tuple) else (size,))
    axes = range(len(x.shape))
    for value in (x, expensive(x), x * 2.0 - expand(node((1,), identity=2) * 3.0, *x.shape)):
        pieces, last = schedule_of(total(value, *axes)).steps
        count = math.prod(dims.upper(size) for size in pieces.buffers[0].arg[1])
        assert 64 <= count <= 128
        rest = [buffer for buffer in last.buffers if buffer in pieces.buffers[1:]]
        assert rest or math.prod(x.shape) % count == 0


def test_columns_of_a_long_array_are_summed_in_pieces():
    pieces, *others = schedule_of(total(node((100_003, 100)), 0)).steps
    assert pieces.buffers[0].arg[1][0] == 64 and len(others) <= 2


def test_nothing_large_is_stored_for_the_rest():
    shifted = expensive(shrink(node((1 << 19,)), (1, 524_280)))
    assert largest(total(shifted, 0)) <= 128
    assert largest(total(reshape(shifted, 7, 74_897), 0, 1)) <= 128  # pieces that divide, or none


def test_diamond_of_cheap_values_is_one_kernel():
    x = node((8,))
    shared = x + 1.0
    assert kernels(shared * shared - shared) == 1


def dear_diamond(x):
    """A dear value with two users, dear enough in its turn."""
    for _ in range(3):
        shared = expensive(x)
        x = shared * (shared + 1.0)
    return x


def test_dear_diamonds_below_one_view_are_computed_once():
    x = node((6, 8))
    assert kernels(reshape(dear_diamond(x), 4, 12)) == 1
    assert kernels(permute(dear_diamond(reshape(x, 8, 6)), 1, 0) + 1.0) == 1
    check(lambda x: [permute(dear_diamond(reshape(x, 8, 6)), 1, 0) + 1.0], [data((6, 8)) / 8])


def test_dear_values_seen_through_two_views_are_stored():
    x = node((6, 6))
    value = expensive(x)
    assert kernels(permute(value, 1, 0) + flip(value, 0)) == 2
    assert kernels(permute(value, 1, 0) + value) == 2
    both = permute(reshape(value, 36), 0)
    assert kernels(reshape(both, 6, 6) * reshape(flip(both, 0), 6, 6)) == 2


def test_diamond_over_a_reduction():
    x = node((8, 9))
    rows = total(x, 1)
    assert kernels(rows * 2.0 + rows.alu(ops.EXP)) == 1
    assert kernels(rows * 2.0, permute(rows.alu(ops.EXP), 1, 0)) == 3


def test_dear_shared_value_is_stored_once():
    x = node((8,))
    dear = expensive(x)
    assert kernels(flip(dear, 0) * 2.0, dear + 1.0) == 2  # `dear` is stored beside the sum
    cheap = x * 2.0
    steps = schedule_of(flip(cheap, 0) * 2.0, cheap + 1.0).steps
    assert [step.outputs for step in steps] == [1, 1]


def test_a_value_used_twice_by_one_operation_is_not_shared():
    x = node((8,))
    assert kernels(expensive(x) * expensive(x)) == 1


def test_dear_operand_of_a_matmul_is_stored():
    a, b = node((32, 16)), node((16, 32), identity=2)
    assert kernels(matmul(expensive(a), b)) == 2
    # Both operands of the second matmul are read many times: they are stored, and so is what they share.
    assert kernels(matmul(relu(matmul(a, b)), expensive(matmul(a, b)))) == 4


def test_shared_reduction_is_stored_once():
    a, b = node((8, 8)), node((8, 8), identity=2)
    c = matmul(a, b)
    assert kernels(c + 1.0, permute(c, 1, 0) * 2.0) == 3


def test_a_stored_root_is_used_by_others():
    x = node((8,))
    y = x + 1.0
    steps = schedule_of(y, flip(y, 0) * 2.0).steps
    assert len(steps) == 2


def test_an_explicit_store():
    x = node((8,))
    assert kernels(contiguous(x * 2.0) + 1.0) == 2
    assert kernels(contiguous(contiguous(x * 2.0))) == 1


# --- long and deep ------------------------------------------------------------------------------------------


def test_long_chains_are_cut():
    x = node((8,))
    value = x
    for k in range(1000):
        value = value * (1.0 + k) + 1.5
    count = kernels(value)
    assert 5 <= count <= 40


def test_kernels_read_a_limited_number_of_buffers():
    """Devices have a limit for arguments; a sum of many tensors is cut."""
    value = node((8,))
    for k in range(200):
        value = value + node((8,), identity=k + 2)
    steps = schedule_of(value).steps
    assert max(len(step.buffers) for step in steps) <= 32
    assert len(steps) <= 8
    parts = [pad(node((1, 4), identity=k + 2), (k, 99 - k), (0, 0)) for k in range(100)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + part
    assert max(len(step.buffers) for step in schedule_of(joined).steps) <= 32


def test_deep_networks_never_store_a_product():
    """A cut between the operands of a matmul and its sum would store m * k * n elements."""
    x = node((16, 16))
    for layer in range(120):
        x = relu(matmul(x, node((16, 16), identity=layer + 2)) + float(layer))
    steps = schedule_of(x).steps
    assert len(steps) == 120
    assert largest(x) == 16 * 16


def test_deep_networks_of_long_epilogues():
    x = node((16, 16))
    for layer in range(10):
        x = matmul(x, node((16, 16), identity=layer + 2))
        for k in range(40):
            x = x * (1.0 + k) + 0.5
    assert largest(x) == 16 * 16


def test_a_long_chain_under_an_expand_is_cut_below_it():
    x, y = node((16, 1)), node((16, 64), identity=2)
    for k in range(90):
        x = x * (1.0 + k) + 0.5
    wide = expand(x, 16, 64) * y
    for k in range(20):
        wide = wide * (1.0 + k) + 0.5
    assert largest(total(wide, 1)) <= 16


def deep(kind, count):
    x = node((4, 4))
    value = x
    for k in range(count):
        if kind == "elementwise":
            value = value + x if k % 2 else value * 0.5
        elif kind == "movement":
            value = permute(value, 1, 0) if k % 2 else flip(value, 0) + 1.0
        elif kind == "versions":
            value = assign(value, value * 2.0 + 1.0)
        elif kind == "stored":
            value = contiguous(value + 1.0)
        else:
            value = expand(total(value, 1), 4, 4) + x
    return value


@pytest.mark.parametrize("kind", ["elementwise", "movement", "stored", "reductions", "versions"])
def test_ten_thousand_operations(kind):
    def seconds(count):
        root = deep(kind, count)
        gc.collect()
        start = time.process_time()
        assert kernels(root) >= count // 400
        return time.process_time() - start

    # Four times the operations: a quadratic step would take 16 times as long. One of three tries may be noisy.
    assert any(seconds(10_000) < 9 * seconds(2_500) for _ in range(3))


# --- roots --------------------------------------------------------------------------------------------------


def test_roots_that_are_views_constants_and_duplicates():
    def build(x):
        doubled = x * 2
        return [
            permute(x, 1, 0),
            const(dtypes.float32, 2.5, 3),
            x,
            doubled,
            doubled,
            reshape(doubled, 12),
            x,
            reshape(x, 2, 6),
            const(dtypes.int32, 7),
            shrink(x, (0, 1), (1, 3)),
            expand(shrink(x, (1, 2), (0, 4)), 2, 4),
        ]

    check(build, [data((3, 4))])


@pytest.mark.parametrize("device", ["CPU", "CL"])
def test_roots_on_devices(device):
    check(
        lambda x: [
            permute(x, 1, 0),
            const(dtypes.float32, 2.5, 3),
            x,
            x * 2,
            reshape(x, 12),
            const(dtypes.int32, 7),
        ],
        [data((3, 4))],
        device,
    )


def test_a_stored_root_runs_nothing():
    x = node((4,))
    assert schedule_of(x).steps == ()
    assert schedule_of(reshape(x, 2, 2)).steps == ()


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_empty_tensors(device):
    def build(x, y):
        return [
            x + 1,
            total(x, 1),
            total(x, 0, 1),
            reduce(x, ops.MAX, 1),
            permute(x, 1, 0),
            pad(x, (0, 0), (1, 2)),
            matmul(y, x),
            matmul(x, permute(x, 1, 0)),
            shrink(y, (0, 5), (1, 1)),
            reshape(x, 0),
            total(shrink(y, (0, 5), (1, 1)), 1) + 2,
        ]

    check(build, [data((3, 0)), data((5, 3), seed=1)], device)


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_zero_dimensional(device):
    def build(x, y):
        return [
            x + 1,
            x * reshape(total(y, 0), *()),
            expand(x, 3) * y,
            reshape(x, 1, 1),
            reduce(y, ops.MAX, 0),
        ]

    check(build, [data(()), data((3,), seed=1)], device)


# --- indexed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_scatter_scan_gather(device):
    index = np.array([3, 0, 3, 9, -1, 1], np.int32)

    def build(x, index, updates):
        return [
            scatter(x, index, updates),
            scatter(x * 2, index, updates + 1, op=ops.ADD),
            scatter(x, index, updates, op=ops.MAX) + 1,
            scan(x * 2, 0),
            scan(x, 1, ops.MAX) + 1,
            gather(x + 1, index),
            total(gather(x, index), 0),
            gather(scan(x, 0), index) * 2,
            scan(total(x, 1), 0),
            scatter(permute(x, 1, 0), index, permute(updates, 1, 0), axis=1, op=ops.ADD),
        ]

    check(build, [data((5, 4), np.int32), index, data((6, 4), np.int32, 1)], device)


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_constant_scatter_and_scan(device):
    def build(x):
        return [
            scatter(x, const(dtypes.int32, 2, 7), const(dtypes.int32, 1, 7), op=ops.ADD),
            scatter(x, const(dtypes.int32, 2, 1), const(dtypes.int32, 5, 1)),
            scan(const(dtypes.int32, 1, 9), 0),
            scan(reshape(x, 5, 1), 1),
            scatter(x, const(dtypes.int32, 2), const(dtypes.int32, 5)),
        ]

    check(build, [data((5,), np.int32)], device)


def test_scatter_is_one_kernel():
    x, index, updates = node((5, 4)), node((6,), dtypes.int32, 2), node((6, 4), identity=3)
    assert kernels(scatter(x * 2.0, index, updates * 3.0)) == 1
    assert kernels(scan(x * 2.0, 0)) == 1
    assert kernels(gather(x, index) + 1.0) == 1


# --- devices ------------------------------------------------------------------------------------------------


def steps_of(*roots):
    return ["copy" if isinstance(step, CopyStep) else step.device for step in schedule_of(*roots).steps]


def test_copies():
    x = node((3, 4), device="A")
    assert steps_of(copy(x, "B")) == ["copy"]
    assert steps_of(copy(x, "B") + 1.0) == ["copy", "B"]
    assert steps_of(copy(x + 1.0, "B")) == ["A", "copy"]
    assert steps_of(copy(permute(x, 1, 0), "B")) == ["A", "copy"]
    assert steps_of(copy(reshape(x, 12), "B")) == ["copy"]
    assert steps_of(copy(reshape(x + 1.0, 12), "B") * 2.0) == ["A", "copy", "B"]
    assert steps_of(copy(copy(x, "B"), "A") + x) == ["copy", "copy", "A"]
    assert steps_of(copy(x, "A")) == []


def test_constants_on_a_device():
    x = node((3,), device="A")
    assert steps_of(copy(const(dtypes.float32, 1.0, 3), "B")) == ["B"]
    assert steps_of(copy(const(dtypes.float32, 1.0, 3), "A") + x) in (["A"], ["A", "A"])


def test_two_devices_in_one_operation():
    with pytest.raises(DeviceError, match="A and B") as caught:
        schedule_of(node((3,), device="A") + node((3,), device="B", identity=2))
    assert ".to(" in str(caught.value)


# --- symbolic -----------------------------------------------------------------------------------------------


N = UOp.variable("n", 0, 9)


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
@pytest.mark.parametrize("size", [0, 1, 5, 9])
def test_symbolic(device, size):
    def build(x, y):
        return [
            x * 2 + y,
            total(x, 1),
            total(x, 0),
            total(x, 0, 1),
            scan(x, 0),
            permute(x, 1, 0),
            matmul(permute(x, 1, 0), y),
            matmul(x, permute(y, 1, 0)),
            pad(x, (1, 2), (0, 0)),
            flip(x, 0),
            reshape(x, dims.multiply(N, 3)),
            expand(total(x, 0), N, 3) + y,
        ]

    check(build, [data((size, 3), np.int32), data((size, 3), np.int32, 1)], device, {N: size}, [(N, 3)] * 2)


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_symbolic_rows(device, size):
    def build(x):
        return [softmax(x), softmax(x, 0), softmax(permute(x, 1, 0)), layer_norm(x, 6)]

    check(build, [data((size, 6))], device, {N: size}, [(N, 6)])


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_symbolic_indexed(device):
    index = np.array([3, 0, 3, 9], np.int32)

    def build(x, index, updates):
        return [scatter(x, index, updates, op=ops.ADD), gather(x, index), gather(updates, index), scan(x, 1)]

    check(
        build,
        [data((5, 3), np.int32), index, data((4, 3), np.int32, 1)],
        device,
        {N: 4},
        [(5, 3), (N,), (N, 3)],
    )


def test_what_several_contractions_read_is_stored_once():
    """Even a cheap value: each of them would compute it once for every column."""
    x = node((8, 16), identity=1) + 1.0
    products = [matmul(x, node((16, 32), identity=k)) for k in (2, 3, 4)]
    assert kernels(*products) == 4
    assert kernels(products[0]) == 2

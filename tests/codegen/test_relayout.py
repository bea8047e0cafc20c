"""Accesses in rows with shuffles: any number of lanes and copies, masks, loads and stores, against the meaning."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from graphs import node, pad, permute, reduce, reshape
from lowering import LANES, arrays_for, equal, expected, indexed, kernel_of, program_of, run_on, run_program

from tinycore.codegen.relayout import relayout_of, transposed
from tinycore.codegen.tiling import Bind, Split, apply
from tinycore.ir import UOp, dtypes, ops

SHUFFLES = dataclasses.replace(
    LANES, capabilities=dataclasses.replace(LANES.capabilities, ops=LANES.capabilities.ops | {ops.SHUFFLE})
)


def lanes_of(vector, indices):
    return [vector[k] for k in indices]


@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [(dtypes.float32, (2, 4, 8, 16)), (dtypes.uint8, (2, 16, 32)), (dtypes.float64, (2, 4, 8))],
)
def test_the_network_transposes(dtype, sizes):
    for count, lanes in itertools.product(sizes, sizes):
        places = np.arange(count * lanes).reshape(count, lanes)
        rows = [UOp.const(dtype, number, (lanes,)) for number in range(count)]
        known = dict(zip(rows, places.tolist(), strict=True))
        made = []

        def place(shuffle, known=known, made=made):
            known[shuffle] = lanes_of(known[shuffle.src[0]] + known[shuffle.src[1]], shuffle.arg)
            made.append(shuffle)
            return shuffle

        columns = transposed(rows, place)
        assert [known[column] for column in columns] == places.T.tolist()
        assert len(set(made)) <= count * lanes


def turned(kernel, lanes, copies, vector, unrolled, tail="mask"):
    """A tile of lanes by copies; `vector` and `unrolled` are ranges by id."""
    return apply(
        kernel,
        [
            Split(vector, lanes, 10, 11, tail, 12),
            Bind(11, "vector"),
            Bind(12, "vector"),
            Split(unrolled, copies, 20, 21, tail, 22),
            Bind(21, "unroll"),
            Bind(22, "unroll"),
        ],
    )


def ops_of(program, op):
    return [n for n in program.linear.src if n.op is op]


def check(root, lanes, copies, vector, unrolled, tail="peel mask"):
    kernel = kernel_of(root)
    arrays = arrays_for(kernel)
    program = program_of(kernel, turned(indexed(kernel), lanes, copies, vector, unrolled, tail), SHUFFLES)
    wanted = expected(kernel, arrays)
    equal(run_program(program, arrays), wanted)
    equal(run_on("CPU", program, arrays), wanted)
    assert ops_of(program, ops.SHUFFLE)
    for access in (*ops_of(program, ops.LOAD), *ops_of(program, ops.STORE)):
        assert access.src[1].shape == (), "an access with an address a lane is left"
    return program


def x(*shape, identity=1, dtype=dtypes.float32):
    return node(shape, dtype, identity)


@pytest.mark.parametrize("copies", [2, 4, 5, 8, 14, 16, 24])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_loads_and_stores_of_any_number_of_copies(lanes, copies):
    for shape in ((48, 48), (37, 53)):
        # The lanes along what is stored: loads in rows. The other way round: stores in rows.
        check(permute(x(*shape), 1, 0) + x(*shape[::-1], identity=2), lanes, copies, 1, 0)
        check(permute(x(*shape), 1, 0) + x(*shape[::-1], identity=2), lanes, copies, 0, 1)


@pytest.mark.parametrize("apart", [2, 3, 4])
@pytest.mark.parametrize(("lanes", "copies"), [(8, 4), (8, 3), (16, 2), (16, 8)])
def test_lanes_a_few_elements_apart_are_picked_out_of_neighbours(apart, lanes, copies):
    """As many loads as lanes are elements apart, for as many copies."""
    for tail in ("mask", "peel mask"):
        check(permute(x(53, apart), 1, 0) * 2, lanes, copies, 1, 0, tail)
    whole = check(permute(x(2 * lanes, apart), 1, 0) * 2, lanes, apart, 1, 0, "mask")
    assert len(ops_of(whole, ops.LOAD)) == apart


@pytest.mark.parametrize("padding", [(0, 0), (3, 0), (2, 5)])
def test_guards_that_are_no_end_are_kept(padding):
    padded = pad(x(40, 3), padding, (0, 0))
    check(permute(padded, 1, 0) * 2 + 1, 8, 3, 1, 0)


@pytest.mark.parametrize("dtype", [*(d for d in dtypes.DATA if d.itemsize < 16)], ids=str)
def test_every_dtype(dtype):
    if dtype in (dtypes.float8_e4m3, dtypes.float8_e5m2):
        pytest.skip("not stored by the device")
    check(permute(x(33, 40, dtype=dtype), 1, 0) * 1, 8, 8, 1, 0)
    check(permute(x(33, 40, dtype=dtype), 1, 0) * 1, 16, 16, 0, 1)


def test_tails_masked_in_one_body():
    check(permute(x(19, 21), 1, 0) * 2, 8, 8, 1, 0, "mask")
    check(permute(x(19, 21), 1, 0) * 2, 8, 8, 0, 1, "mask")


def test_guards_of_padding_travel_along():
    padded = pad(x(20, 17), (3, 2), (1, 4))
    check(permute(padded, 1, 0) * 2 + 1, 8, 8, 1, 0)
    check(permute(padded, 1, 0) * 2 + 1, 8, 5, 1, 0)


def test_an_inner_axis_moves():
    nhwc = permute(x(2, 6, 5, 7), 0, 2, 3, 1)
    kernel = indexed(kernel_of(nhwc + 1))
    assert kernel is not None
    check(nhwc + 1, 4, 4, 3, 2)


def test_lanes_along_a_reduction():
    total = reduce(x(24, 40), ops.ADD, 0)
    kernel = kernel_of(reshape(total, 40))
    arrays = arrays_for(kernel)
    tiled = turned(indexed(kernel), 8, 4, 1, 0)
    program = program_of(kernel, tiled, SHUFFLES)
    equal(run_program(program, arrays), expected(kernel, arrays))
    equal(run_on("CPU", program, arrays), expected(kernel, arrays))
    assert ops_of(program, ops.SHUFFLE)


def test_a_target_without_shuffles_keeps_its_accesses():
    kernel = kernel_of(permute(x(16, 16), 1, 0) + 1)
    program = program_of(kernel, turned(indexed(kernel), 8, 8, 1, 0), LANES)
    assert not ops_of(program, ops.SHUFFLE)


def test_what_is_left_alone():
    def range_of(number, bound, kind):
        return UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (number, kind))

    yes = UOp.const(dtypes.bool_, True)
    buffer = UOp(ops.PARAM, dtypes.float32, (), (0, (1 << 20,)))

    def load(index, gate=yes):
        return UOp(ops.LOAD, dtypes.float32, (buffer, index, gate), 1)

    lanes, copies = range_of(0, 8, "vector"), range_of(1, 8, "unroll")
    assert relayout_of(load(lanes * 40 + copies)) is not None
    assert relayout_of(load(lanes + copies * 40)) is None
    assert relayout_of(load(lanes * 40 + copies * 2)) is None
    assert relayout_of(load(range_of(0, 6, "vector") * 40 + copies)) is None
    assert relayout_of(load(lanes * 40 + copies + copies // 2)) is None
    assert relayout_of(load(lanes * 40 + copies, load(lanes).ne(0))) is None

"""The interpreter at its three levels: what each does beyond elementwise arithmetic."""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest

from tinycore.codegen.indexing import lower_indexing
from tinycore.codegen.linearize import linearize
from tinycore.errors import BindingError, InterpretError
from tinycore.interpret import CUSTOM, interpret, interpret_kernel, interpret_program
from tinycore.interpret import kernel as kernel_module
from tinycore.interpret.arrays import contract
from tinycore.ir import Target, UOp, dtypes, ops

F32, I32, INDEX, VOID = dtypes.float32, dtypes.int32, dtypes.index, dtypes.void
TRUE = UOp.const(dtypes.bool_, True)


def buffer(number, shape, dtype=F32):
    return UOp(ops.BUFFER, dtype, (), (number, shape, "D"))


def param(slot, shape, dtype=F32):
    return UOp(ops.PARAM, dtype, (), (slot, shape))


def rng(number, bound, kind="loop"):
    return UOp(ops.RANGE, INDEX, (UOp.const(INDEX, bound),), (number, kind))


def load(memory, index, gate=TRUE):
    return UOp(ops.LOAD, memory.dtype, (memory, index, gate), 1)


def store(memory, index, value, gate=TRUE):
    return UOp(ops.STORE, VOID, (memory, index, value, gate))


def sink(*statements):
    return UOp(ops.SINK, VOID, statements)


def matmul(a, b):
    (m, k), n = a.shape, b.shape[1]
    left = UOp(ops.EXPAND, F32, (UOp(ops.RESHAPE, F32, (a,), (m, k, 1)),), (m, k, n))
    right = UOp(ops.EXPAND, F32, (UOp(ops.RESHAPE, F32, (b,), (1, k, n)),), (m, k, n))
    return UOp(ops.REDUCE, F32, (left * right,), (ops.ADD, (1,)))


RANDOM = np.random.default_rng(0)


# --- tensor level -----------------------------------------------------------------------------------------


def test_a_product_of_broadcasts_never_forms_the_product(monkeypatch):
    """512 x 512 x 512 products would be 512 MiB; as a matrix product it is a millisecond."""
    a, b = buffer(0, (512, 512)), buffer(1, (512, 512))
    x, y = (RANDOM.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    import tinycore.interpret.tensor as tensor

    meaning = dict(tensor.MEANING)
    meaning[ops.MUL] = None
    monkeypatch.setattr(tensor, "MEANING", meaning)
    (got,) = interpret([matmul(a, b)], {a: x, b: y})
    np.testing.assert_allclose(got[:, 0, :], x @ y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "axes"),
    [
        ((4, 1, 3, 2), (1, 5, 3, 2), (2, 3)),
        ((2, 4, 1, 3), (2, 1, 5, 3), (3,)),
        ((3, 4, 1), (3, 1, 5), (0,)),
        ((4, 1, 3), (1, 5, 3), (0, 2)),
    ],
)
def test_contractions(a, b, axes):
    x, y = RANDOM.standard_normal(a), RANDOM.standard_normal(b)
    got = contract(dtypes.float64, x, y, axes)
    shape = np.broadcast_shapes(a, b)
    if any(shape[axis] > 1 and (a[axis] == 1 or b[axis] == 1) for axis in axes):
        assert got is None
    else:
        assert got is not None
        np.testing.assert_allclose(got, (x * y).sum(axes, keepdims=True), rtol=1e-12)


def test_integer_contractions_wrap():
    x, y = np.full((3, 1, 4), 100, np.int8), np.full((1, 2, 4), 3, np.int8)
    got = contract(dtypes.int8, x, y, (2,))
    assert got is not None
    assert got.dtype == np.int8
    assert got.ravel().tolist() == [(1200 + 128) % 256 - 128] * 6


def test_intermediates_are_freed_with_their_last_user(monkeypatch):
    import tinycore.interpret.tensor as tensor

    alive, most = set(), 0
    real = tensor.MEANING[ops.ADD]

    class Tracked(np.ndarray):
        pass

    def add(dtype, a, b):
        nonlocal most
        result = np.asarray(real(dtype, np.asarray(a), np.asarray(b))).view(Tracked)
        alive.add(id(result))
        weakref.finalize(result, alive.discard, id(result))
        most = max(most, len(alive))
        return result

    monkeypatch.setitem(tensor.MEANING, ops.ADD, add)
    monkeypatch.setattr(tensor.np, "asarray", lambda x, *rest: x)
    x = buffer(0, (8,))
    node = x
    for _ in range(50):
        node = node + 1.0
    (got,) = interpret([node], {x: np.zeros(8, np.float32)})
    assert got.tolist() == [50.0] * 8
    gc.collect()
    assert most <= 3


def test_a_deep_graph_is_no_problem():
    x = buffer(0, (2,))
    node = x
    for _ in range(20_000):
        node = -node
    (got,) = interpret([node], {x: np.ones(2, np.float32)})
    assert got.tolist() == [1.0, 1.0]


def test_assign_makes_a_new_version():
    x = buffer(0, (2, 3), I32)
    view = UOp(ops.PERMUTE, I32, (UOp(ops.SHRINK, I32, (x,), ((0, 2), (1, 3))),), (1, 0))
    value = UOp.const(I32, 9, (2, 2))
    old = np.arange(6, dtype=np.int32).reshape(2, 3)
    before, after = interpret([x + 0, UOp(ops.ASSIGN, I32, (x, view, value))], {x: old})
    assert before.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert after.tolist() == [[0, 9, 9], [3, 9, 9]]
    assert old.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_assign_through_a_reshape_that_copies():
    x = buffer(0, (2, 3), I32)
    view = UOp(ops.RESHAPE, I32, (UOp(ops.PERMUTE, I32, (x,), (1, 0)),), (6,))
    value = UOp(ops.SHRINK, I32, (view,), ((0, 2),))
    node = UOp(ops.ASSIGN, I32, (x, UOp(ops.SHRINK, I32, (view,), ((4, 6),)), value))
    (got,) = interpret([node], {x: np.arange(6, dtype=np.int32).reshape(2, 3)})
    assert got.tolist() == [[0, 1, 0], [3, 4, 3]]


def test_call_binds_arguments_by_slot():
    p, q = param(0, (2,)), param(1, (2,))
    x, y = buffer(0, (2,)), buffer(1, (2,))
    inner = UOp(ops.CALL, F32, (p - q, p, q))
    outer = UOp(ops.CALL, F32, (inner * p, y, x))  # slot 0 is y, slot 1 is x
    (got,) = interpret([outer], {x: np.array([1, 2], np.float32), y: np.array([10, 20], np.float32)})
    assert got.tolist() == [90.0, 360.0]


def test_gather_and_scatter_outside_the_axis():
    x, i = buffer(0, (3,)), buffer(1, (4,), I32)
    u = buffer(2, (4,))
    arrays = {
        x: np.array([1, 2, 3], np.float32),
        i: np.array([2, -1, 3, 2], np.int32),
        u: np.array([10, 20, 30, 40], np.float32),
    }
    results = interpret(
        [
            UOp(ops.GATHER, F32, (x, i), 0),
            UOp(ops.SCATTER, F32, (x, i, u), (ops.ADD, 0)),
            UOp(ops.SCATTER, F32, (x, i, u), (None, 0)),
        ],
        arrays,
    )
    assert [result.tolist() for result in results] == [[3, 0, 0, 3], [1, 2, 53], [1, 2, 40]]


def test_symbolic_dimensions():
    n = UOp.variable("n", 1, 8)
    x = buffer(0, (n,))
    total = UOp(ops.REDUCE, F32, (x * 2.0,), (ops.ADD, (0,)))
    memory = np.arange(8, dtype=np.float32)  # reserved for the largest size
    assert interpret([total], {x: memory}, {n: 3})[0].tolist() == [6.0]
    with pytest.raises(BindingError, match="'n' has no value"):
        interpret([total], {x: memory})
    with pytest.raises(BindingError, match=r"not within 1\.\.8"):
        interpret([total], {x: memory}, {n: 9})


def test_custom_ops_have_the_meaning_that_their_plugin_gives(monkeypatch):
    node = UOp(ops.CUSTOM, F32, (buffer(0, (2,)),), ("toy.twice", (2,)))
    data = {node.src[0]: np.ones(2, np.float32)}
    with pytest.raises(InterpretError, match=r"'toy\.twice' has no numpy meaning"):
        interpret([node], data)
    monkeypatch.setitem(CUSTOM, "toy.twice", lambda node, x: x * 2)
    assert interpret([node], data)[0].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no array was given"),
        ({"x": np.zeros(3, np.float32)}, "has shape"),
        ({"x": np.zeros(2, np.float64)}, "holds float32"),
    ],
)
def test_wrong_arrays(given, message):
    x = buffer(0, (2,))
    with pytest.raises(InterpretError, match=message):
        interpret([x + 1.0], {x: given["x"]} if given else {})


def test_no_warnings_leak():
    x = buffer(0, (4,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interpret(
            [x / x.const_like(0.0), x.alu(ops.LOG), x * 3e38],
            {x: np.array([0, -1, 3e38, np.nan], np.float32)},
        )


# --- kernel level -----------------------------------------------------------------------------------------


def matmul_kernel(m, n, k):
    i, j, inner = rng(0, m), rng(1, n), rng(2, k, "reduce")
    product = load(param(1, (m, k)), i * k + inner) * load(param(2, (k, n)), inner * n + j)
    return sink(store(param(0, (m, n)), i * n + j, UOp(ops.REDUCE, F32, (product, inner), (ops.ADD, ()))))


def test_matmul_at_kernel_and_program_level():
    x, y = (
        RANDOM.standard_normal((6, 5)).astype(np.float32),
        RANDOM.standard_normal((5, 7)).astype(np.float32),
    )
    kernel = matmul_kernel(6, 7, 5)
    for run, graph in (
        (interpret_kernel, kernel),
        (interpret_program, linearize(kernel, Target("t"), dtypes.int64)),
    ):
        out = np.zeros((6, 7), np.float32)
        run(graph, {0: out, 1: x, 2: y})
        np.testing.assert_allclose(out, x @ y, rtol=1e-5, atol=1e-5)


def test_large_kernels_are_cut_into_pieces(monkeypatch):
    monkeypatch.setattr(kernel_module, "CHUNK", 50)
    x, y = (
        RANDOM.standard_normal((6, 5)).astype(np.float32),
        RANDOM.standard_normal((5, 7)).astype(np.float32),
    )
    out = np.zeros(42, np.float32)
    interpret_kernel(matmul_kernel(6, 7, 5), {0: out, 1: x, 2: y})
    np.testing.assert_allclose(out.reshape(6, 7), x @ y, rtol=1e-5, atol=1e-5)


def test_ordered_ranges_see_earlier_stores():
    """A running sum in place."""
    i = rng(0, 6, "ordered")
    memory = param(0, (6,), I32)
    previous = load(memory, i - 1, UOp.const(INDEX, 0) < i)
    data = np.arange(1, 7, dtype=np.int32)
    interpret_kernel(sink(store(memory, i, load(memory, i) + previous)), {0: data})
    assert data.tolist() == [1, 3, 6, 10, 15, 21]


def test_stores_happen_in_order():
    memory = param(0, (4,), I32)
    first = store(memory, rng(0, 4), UOp.const(I32, 7))
    i = rng(1, 4)
    second = store(param(1, (4,), I32), i, load(memory, i) + 1)
    arrays = {0: np.zeros(4, np.int32), 1: np.zeros(4, np.int32)}
    interpret_kernel(sink(first, second), arrays)
    assert arrays[1].tolist() == [8] * 4


def test_a_gate_protects_what_is_outside():
    i = rng(0, 6)
    inside = i < 4
    out = np.full(6, 9, np.int32)
    kernel = sink(store(param(0, (6,), I32), i, load(param(1, (4,), I32), i, inside)))
    interpret_kernel(kernel, {0: out, 1: np.array([1, 2, 3, 4], np.int32)})
    assert out.tolist() == [1, 2, 3, 4, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            sink(store(param(0, (4,)), rng(0, 5), UOp.const(F32, 1.0))),
            "STORE reaches element 4 of a buffer of 4",
        ),
        (
            sink(store(param(0, (5,)), rng(0, 5), load(param(1, (4,)), rng(0, 5) - 1))),
            "LOAD reaches element -1",
        ),
    ],
)
def test_accesses_outside_are_errors(kernel, message):
    arrays = {0: np.zeros(kernel.src[0].src[0].shape, np.float32), 1: np.zeros(4, np.float32)}
    with pytest.raises(InterpretError, match=message) as problem:
        interpret_kernel(kernel, arrays)
    assert "gate" in str(problem.value)
    with pytest.raises(InterpretError, match=message):
        interpret_program(linearize(kernel, Target("t"), dtypes.int32), arrays)


def test_unlowered_kernels_are_executed_too():
    out, x = param(0, (2, 3), I32), param(1, (3, 2), I32)
    statement = UOp(ops.ASSIGN, I32, (out, out, UOp(ops.PERMUTE, I32, (x,), (1, 0)) + 1))
    data = np.arange(6, dtype=np.int32)
    for kernel in (sink(statement), lower_indexing(sink(statement))):
        result = np.zeros(6, np.int32)
        interpret_kernel(kernel, {0: result, 1: data})
        assert result.tolist() == [1, 3, 5, 2, 4, 6]


# --- scratch memory and barriers --------------------------------------------------------------------------


def reversing(barrier=True):
    """Each work-group of 8 reverses its part through local memory."""
    group, item = rng(0, 4, "global"), rng(1, 8, "local")
    scratch = UOp(ops.SCRATCH, F32, (), ("local", 0, (8,)))
    fill = store(scratch, item, load(param(1, (32,)), group * 8 + item))
    done = UOp(ops.BARRIER, VOID, (fill,)) if barrier else fill
    staged = UOp(ops.AFTER, F32, (scratch, done))
    return sink(store(param(0, (32,)), group * 8 + item, load(staged, UOp.const(INDEX, 7) - item)))


def test_local_memory_belongs_to_a_group():
    data = np.arange(32, dtype=np.float32)
    want = data.reshape(4, 8)[:, ::-1].ravel()
    out = np.zeros(32, np.float32)
    interpret_kernel(reversing(), {0: out, 1: data})
    assert out.tolist() == want.tolist()
    out[:] = 0
    interpret_program(
        linearize(reversing(), Target("t"), dtypes.int32), {0: out, 1: data}, grid=(4,), group=(8,)
    )
    assert out.tolist() == want.tolist()


def test_a_lost_barrier_is_a_race():
    arrays = {0: np.zeros(32, np.float32), 1: np.zeros(32, np.float32)}
    with pytest.raises(InterpretError, match="a race on local memory"):
        interpret_program(
            linearize(reversing(barrier=False), Target("t"), dtypes.int32), arrays, grid=(4,), group=(8,)
        )


def test_scratch_that_is_filled_in_every_iteration():
    """Rows of 8 are summed in two tiles of 4 that pass through private memory."""
    i, tile, inner, fill = rng(0, 6), rng(1, 2, "reduce"), rng(2, 4, "reduce"), rng(3, 4)
    scratch = UOp(ops.SCRATCH, F32, (), ("private", 0, (4,)))
    filled = UOp(ops.END, VOID, (store(scratch, fill, load(param(1, (6, 8)), i * 8 + tile * 4 + fill)), fill))
    value = load(UOp(ops.AFTER, F32, (scratch, filled)), inner)
    kernel = sink(store(param(0, (6,)), i, UOp(ops.REDUCE, F32, (value, tile, inner), (ops.ADD, ()))))
    data = np.arange(48, dtype=np.float32)
    for run, graph in (
        (interpret_kernel, kernel),
        (interpret_program, linearize(kernel, Target("t"), dtypes.int32)),
    ):
        out = np.zeros(6, np.float32)
        run(graph, {0: out, 1: data})
        assert out.tolist() == data.reshape(6, 8).sum(1).tolist()


# --- program level ----------------------------------------------------------------------------------------


def const(value, dtype=I32, shape=()):
    return UOp.const(dtype, value, shape)


def test_lanes():
    """out[0:4] = x[0:4] * 2 where x > 1, and the sum of the lanes in out[4]."""
    x = UOp(ops.LOAD, F32, (param(1, (4,)), const(0), TRUE), 4)
    double = x * const(2.0, F32, (4,))
    gate = const(1.0, F32, (4,)) < x
    total = UOp(ops.LANE_REDUCE, F32, (double,), ops.ADD)
    body = (
        x,
        double,
        gate,
        store(param(0, (5,)), const(0), double, gate),
        total,
        store(param(0, (5,)), const(4), total),
    )
    out = np.zeros(5, np.float32)
    interpret_program(UOp(ops.LINEAR, VOID, body), {0: out, 1: np.array([1, 2, 3, 1], np.float32)})
    assert out.tolist() == [0, 4, 6, 0, 14]


def test_gather_and_scatter_of_lanes():
    places = UOp(ops.IOTA, I32, (), 4)
    index = const(3, I32, (4,)) - places
    x = UOp(ops.LOAD, I32, (param(1, (4,), I32), index, TRUE), 1)
    out = np.zeros(4, np.int32)
    body = (index, x, store(param(0, (4,), I32), places, x))
    interpret_program(UOp(ops.LINEAR, VOID, body), {0: out, 1: np.arange(4, dtype=np.int32)})
    assert out.tolist() == [3, 2, 1, 0]


def test_conditions_differ_between_work_items():
    item = UOp(ops.RANGE, I32, (const(8),), (0, "global"))
    condition = item < const(3)
    block = UOp(ops.IF, VOID, (condition,))
    body = (
        item,
        condition,
        block,
        store(param(0, (8,), I32), item, item + 1),
        UOp(ops.ENDIF, VOID, (block,)),
    )
    body = (*body[:3], item + 1, *body[3:])
    out = np.zeros(8, np.int32)
    interpret_program(UOp(ops.LINEAR, VOID, body), {0: out}, grid=(8,))
    assert out.tolist() == [1, 2, 3, 0, 0, 0, 0, 0]


def test_loop_bounds_differ_between_work_items():
    """out[g] = 0 + 1 + ... + (g - 1)."""
    item = UOp(ops.RANGE, I32, (const(5),), (0, "global"))
    loop = UOp(ops.RANGE, I32, (item,), (0, "loop"))
    total = UOp(ops.ACCUMULATOR, I32, (const(0),), 0)
    end = UOp(ops.END, VOID, (loop,))
    after = UOp(ops.AFTER, I32, (total, end))
    body = (
        item,
        total,
        loop,
        total + loop,
        UOp(ops.UPDATE, VOID, (total, total + loop)),
        end,
        after,
        store(param(0, (5,), I32), item, after),
    )
    out = np.zeros(5, np.int32)
    interpret_program(UOp(ops.LINEAR, VOID, body), {0: out}, grid=(5,))
    assert out.tolist() == [0, 0, 1, 3, 6]


def test_grid_ids_run_over_the_grid_last_fastest():
    row, column = (
        UOp(ops.RANGE, I32, (const(bound),), (axis, "global")) for axis, bound in enumerate((2, 3))
    )
    place = row * 3 + column
    body = (
        row,
        column,
        row * 3,
        place,
        row * 10,
        row * 10 + column,
        store(param(0, (6,), I32), place, row * 10 + column),
    )
    out = np.zeros(6, np.int32)
    interpret_program(UOp(ops.LINEAR, VOID, body), {0: out}, grid=(2, 3))
    assert out.tolist() == [0, 1, 2, 10, 11, 12]


def test_a_value_must_be_computed_before_it_is_used():
    x = UOp(ops.LOAD, I32, (param(0, (4,), I32), const(0), TRUE), 1)
    with pytest.raises(InterpretError, match="before it is computed"):
        interpret_program(
            UOp(ops.LINEAR, VOID, (store(param(0, (4,), I32), const(1), x),)), {0: np.zeros(4, np.int32)}
        )


def test_work_items_run_in_batches(monkeypatch):
    import tinycore.interpret.program as program

    monkeypatch.setattr(program, "TOGETHER", 3)
    data = np.arange(32, dtype=np.float32)
    out = np.zeros(32, np.float32)
    interpret_program(
        linearize(reversing(), Target("t"), dtypes.int32), {0: out, 1: data}, grid=(4,), group=(8,)
    )
    assert out.tolist() == data.reshape(4, 8)[:, ::-1].ravel().tolist()

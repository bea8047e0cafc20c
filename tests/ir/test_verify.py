"""The verifier finds what is wrong at each level, and shows the node."""

from __future__ import annotations

import pytest

from tinycore.errors import VerifyError
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.verify import verify

F32, I32, INDEX, VOID, BOOL = dtypes.float32, dtypes.int32, dtypes.index, dtypes.void, dtypes.bool_
TRUE = UOp.const(BOOL, True)


def buffer(shape=(4,), dtype=F32, number=0):
    return UOp(ops.BUFFER, dtype, (), (number, shape, "D"))


def param(slot=0, shape=(4,), dtype=F32):
    return UOp(ops.PARAM, dtype, (), (slot, shape))


def const(value, dtype=F32, shape=()):
    return UOp.const(dtype, value, shape)


def rng(number=0, bound=4, kind="loop", dtype=INDEX):
    return UOp(ops.RANGE, dtype, (const(bound, dtype),), (number, kind))


def load(memory, index, gate=TRUE, lanes=1):
    return UOp(ops.LOAD, memory.dtype, (memory, index, gate), lanes)


def store(memory, index, value, gate=TRUE):
    return UOp(ops.STORE, VOID, (memory, index, value, gate))


def numbered(pairs):
    return [pytest.param(*pair, id=str(number)) for number, pair in enumerate(pairs)]


def sink(*statements):
    return UOp(ops.SINK, VOID, statements)


x, ints = buffer(), buffer((4,), I32, 1)
n = UOp.variable("n", 1, 8)


VALID_TENSORS = [
    x + 1.0,
    UOp(ops.EXPAND, F32, (UOp(ops.RESHAPE, F32, (x,), (4, 1)),), (4, 3)),
    UOp(ops.SHRINK, F32, (buffer((n,)),), ((0, n),)),
    UOp(ops.RESHAPE, F32, (buffer((n, 4)),), (4, n)),
    UOp(ops.GATHER, F32, (x, ints), 0),
    UOp(ops.SCATTER, F32, (x, ints, x), (ops.ADD, 0)),
    UOp(ops.SCATTER, F32, (x, ints, x), (None, 0)),
    UOp(ops.ASSIGN, F32, (x, UOp(ops.SHRINK, F32, (x,), ((1, 2),)), const(1.0, F32, (1,)))),
    UOp(ops.CALL, F32, (param() + param(), x)),
    sink(x, ints),
]


@pytest.mark.parametrize("node", VALID_TENSORS, ids=repr)
def test_valid_tensor_graphs(node):
    verify(node, "tensor")


INVALID_TENSORS = [
    (UOp(ops.ADD, F32, (x,)), "has 1 operands instead of 2"),
    (UOp(ops.ADD, F32, (x, ints)), "operand 1 is int32, but T is float32"),
    (UOp(ops.ADD, I32, (x, x)), "its dtype is int32, but follows to be float32"),
    (UOp(ops.SQRT, I32, (ints,)), "not in the class Float"),
    (UOp(ops.LT, F32, (x, x)), "follows to be bool"),
    (UOp(ops.WHERE, F32, (x, x, x)), "operand 0 is float32, which is not in the class Bool"),
    (UOp(ops.ADD, F32, (x, buffer((5,)))), "operand 1 has shape (5,)"),
    (UOp(ops.NEG, F32, (x,), 3), "has no attributes"),
    (UOp(ops.RESHAPE, F32, (x,), (5,)), "has 4 elements"),
    (UOp(ops.RESHAPE, F32, (buffer((n, 4)),), (4, 4)), "elements"),
    (UOp(ops.RESHAPE, F32, (x,), (-4,)), "not a tuple of dimensions"),
    (UOp(ops.EXPAND, F32, (x,), (8,)), "axis 0"),
    (UOp(ops.EXPAND, F32, (x,), (1, 4)), "the rank stays"),
    (UOp(ops.PERMUTE, F32, (buffer((2, 2)),), (0, 0)), "without repeats"),
    (UOp(ops.PERMUTE, F32, (buffer((2, 2)),), (0,)), "does not name every axis"),
    (UOp(ops.PAD, F32, (x,), ((0, -1),)), "is not (before, after)"),
    (UOp(ops.PAD, F32, (x,), ()), "for each of 1 axes"),
    (UOp(ops.SHRINK, F32, (x,), ((2, 5),)), "not inside axis 0"),
    (UOp(ops.SHRINK, F32, (x,), ((3, 2),)), "not inside axis 0"),
    (UOp(ops.FLIP, F32, (x,), (1,)), "do not exist in rank 1"),
    (UOp(ops.REDUCE, F32, (x,), (ops.SUB, (0,))), "does not combine"),
    (UOp(ops.REDUCE, F32, (x,), (ops.ADD, (1,))), "do not exist in rank 1"),
    (UOp(ops.REDUCE, F32, (x,), (ops.ADD, 0)), "axes is 0"),
    (UOp(ops.GATHER, F32, (x, x), 0), "not in the class Int"),
    (UOp(ops.GATHER, F32, (x, ints), 1), "no axis 1"),
    (UOp(ops.SCATTER, F32, (x, ints, buffer((5,))), (None, 0)), "the updates have shape"),
    (UOp(ops.ASSIGN, F32, (x, UOp(ops.PAD, F32, (x,), ((0, 0),)), x)), "not made of"),
    (UOp(ops.ASSIGN, F32, (x, x, buffer((5,)))), "the value (5,)"),
    (UOp(ops.ASSIGN, F32, (x + x, x + x, x)), "only a buffer can be assigned to"),
    (UOp(ops.CALL, F32, (param(1), x)), "a parameter 1, but 1 arguments"),
    (UOp(ops.CALL, F32, (param(0, (5,)), x)), "its parameter is"),
    (UOp(ops.BITCAST, dtypes.int8, (x,)), "differ in size"),
    (UOp(ops.CONST, dtypes.int8, (), (200, ())), "200 is not a value of int8"),
    (UOp(ops.CONST, F32, (), (1 << 32, ())), "is not a value of float32"),
    (UOp(ops.CONST, F32, (), (2.5, ())), "value is 2.5"),
    (UOp(ops.BUFFER, F32, (), (0, (4,))), "is not (id, shape, device)"),
    (UOp(ops.BUFFER, INDEX, (), (0, (4,), "D")), "cannot be stored"),
    (UOp(ops.VARIABLE, INDEX, (), ("n", 5, 2, 1)), "min <= max"),
    (rng(), "cannot stand at tensor level"),
    (UOp(ops.SHRINK, F32, (x,), 7), "for each of 1 axes"),
]


@pytest.mark.parametrize(("node", "message"), numbered(INVALID_TENSORS))
def test_invalid_tensor_graphs(node, message):
    with pytest.raises(VerifyError) as problem:
        verify(sink(node), "tensor")
    assert message in str(problem.value)
    assert f"= {node.op.name}" in next(line for line in str(problem.value).splitlines() if "> %" in line)


def test_the_node_is_shown_in_context():
    with pytest.raises(VerifyError) as problem:
        verify(UOp(ops.ADD, F32, (x, ints)).cast(I32), "tensor")
    lines = str(problem.value).splitlines()
    assert [line for line in lines if line.startswith("  >")] == ["  > %2 = ADD(%0, %1) : float32 (4,)"]
    assert lines[-1] == "  hint: the op table says ADD(T:Any T) -> T"


i, j, k = rng(0), rng(1), rng(2, 4, "reduce")
scratch = UOp(ops.SCRATCH, F32, (), ("local", 0, (4,)))


def test_valid_kernels():
    total = UOp(ops.REDUCE, F32, (load(param(1, (4, 4)), i * 4 + k), k), (ops.ADD, ()))
    verify(sink(store(param(), i, total)), "kernel")
    staged = UOp(ops.BARRIER, VOID, (UOp(ops.END, VOID, (store(scratch, j, const(1.0)), j)),))
    verify(sink(store(param(), i, load(UOp(ops.AFTER, F32, (scratch, staged)), i))), "kernel")


INVALID_KERNELS = [
    (i, "a kernel is a SINK of stores"),
    (sink(load(param(), i)), "its operands are stores, not LOAD"),
    (sink(store(param(), i, const(1.0), const(1, I32))), "operand 3 is int32, which is not in"),
    (sink(store(param(), const(1, I32), const(1.0))), "not in the class Index"),
    (sink(store(param(), i, const(1, I32))), "operand 2 is int32, but T is float32"),
    (sink(store(const(1.0), i, const(1.0))), "which is no memory"),
    (sink(store(param(), i, const(1.0, F32, (2,)))), "values are scalars"),
    (sink(store(param(), i, load(param(1), i, TRUE, 4))), "lanes belong to the program"),
    (sink(store(param(), rng(0, 4) + rng(0, 5), const(1.0))), "two ranges have the id 0"),
    (sink(store(param(), rng(0, 4, "sideways"), const(1.0))), "no kind of range"),
    (sink(store(param(), i, UOp(ops.REDUCE, F32, (const(1.0), const(4, INDEX)), (ops.ADD, ())))), "no range"),
    (sink(store(param(), i, UOp(ops.PERMUTE, F32, (const(1.0),), ()))), "cannot stand at kernel level"),
]


@pytest.mark.parametrize(("node", "message"), numbered(INVALID_KERNELS))
def test_invalid_kernels(node, message):
    with pytest.raises(VerifyError) as problem:
        verify(node, "kernel")
    assert message in str(problem.value)


def linear(*nodes):
    return UOp(ops.LINEAR, VOID, nodes)


def end(loop):
    return UOp(ops.END, VOID, (loop,))


loop = rng(0, 4, "loop", I32)
other = rng(1, 4, "loop", I32)
value = load(param(1), loop)
total = UOp(ops.ACCUMULATOR, F32, (const(0.0),), 0)
update = UOp(ops.UPDATE, VOID, (total, total + value))


def test_valid_programs():
    verify(linear(loop, value, store(param(), loop, value), end(loop)), "program")
    done = UOp(ops.AFTER, F32, (total, end(loop)))
    body = (loop, value, total + value, update, end(loop))
    verify(linear(total, *body, done, store(param(), const(0, I32), done)), "program")
    wide = load(param(1), const(0, I32), TRUE, 4)
    verify(linear(wide, store(param(), const(0, I32), wide)), "program")


INVALID_PROGRAMS = [
    (linear(value, loop, end(loop)), "operand 1 (RANGE) is computed nowhere above"),
    (linear(loop, value, end(loop), store(param(), const(0, I32), value)), "in a block that is closed"),
    (linear(loop), "RANGE: never closed"),
    (linear(loop, other, end(loop), end(other)), "not the innermost open block"),
    (linear(end(loop)), "computed nowhere above"),
    (linear(loop, rng(0, 2, "global", I32), end(loop)), "is read at the top"),
    (linear(rng(0, 4)), "index has no machine width"),
    (linear(rng(0, 4, "vector", I32)), "no kind of range"),
    (linear(store(param(), const(0, I32), load(param(1), const(0, I32), TRUE, 4))), "computed nowhere above"),
    (linear(UOp(ops.SPLAT, F32, (const(1.0, F32, (4,)),), 4)), "has lanes already"),
    (linear(UOp(ops.LANE_REDUCE, F32, (const(1.0),), ops.ADD)), "has no lanes"),
    (linear(UOp(ops.NEG, F32, (const(1.0, F32, (2, 2)),))), "at most one axis of lanes"),
    (linear(load(param(), const(0, I32, (2,)), TRUE, 4)), "the index has shape (2,)"),
    (linear(load(param(), const(0, I32), const(True, BOOL, (2,)), 4)), "the guard has shape (2,)"),
    (linear(UOp(ops.ADD, F32, (const(1.0), const(1.0, F32, (4,))))), "operand 1 has shape (4,)"),
    (linear(UOp(ops.UPDATE, VOID, (const(1.0), const(1.0)))), "only an accumulator is updated"),
    (linear(total, UOp(ops.UPDATE, VOID, (total, const(1.0, F32, (4,))))), "the accumulator has shape ()"),
    (linear(UOp(ops.IF, VOID, (TRUE,))), "IF: never closed"),
    (linear(sink()), "lists do not nest"),
]


@pytest.mark.parametrize(("node", "message"), numbered(INVALID_PROGRAMS))
def test_invalid_programs(node, message):
    with pytest.raises(VerifyError) as problem:
        verify(node, "program")
    assert message in str(problem.value)

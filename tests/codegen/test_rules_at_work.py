"""Each rule of schedule.rules and movement.rules fires on a graph that is made for it, and keeps its meaning."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import (
    const,
    contiguous,
    copy,
    data,
    expand,
    flip,
    gather,
    node,
    pad,
    permute,
    reduce,
    scan,
    scatter,
    shrink,
    total,
)
from lowering import arrays_for, equal, expected, indexed, kernel_of, run_kernel

from tinycore import rules
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops

PREPARE = rules.load("tinycore.passes.schedule").passes["prepare"]
X, Y, K = node((4, 6)), node((4, 6), identity=2), node((3,), dtypes.int32, 3)
M, J = node((4, 6), dtypes.int32, 4), node((4, 6), dtypes.int32, 5)
N = UOp.variable("n", 1, 9)
LARGE = node((64, 4096), identity=6)


def view(op, x, arg):
    """A movement op as it is, also when it does nothing."""
    return UOp(op, x.dtype, (x,), arg)


SCHEDULE = {
    "detach": UOp(ops.DETACH, X.dtype, (X * 2,)),
    "scatter_none": scatter(X, node((0,), dtypes.int32, 7), node((0, 6), identity=8), op=ops.ADD),
    "contiguous": contiguous(X) + 1,
    "contiguous2": contiguous(contiguous(X * 2)),
    "copy_home": copy(X, "X") * 3,
    "reshape_id": view(ops.RESHAPE, X, (4, 6)) * 2,
    "reshape2": view(ops.RESHAPE, view(ops.RESHAPE, X, (24,)), (6, 4)),
    "permute_id": view(ops.PERMUTE, X, (0, 1)) * 2,
    "permute2": permute(permute(view(ops.RESHAPE, X, (2, 2, 6)), 2, 0, 1), 1, 0, 2),
    "expand_id": view(ops.EXPAND, X, (4, 6)) * 2,
    "expand2": view(ops.EXPAND, view(ops.EXPAND, node((1, 1), identity=9), (4, 1)), (4, 6)),
    "shrink_id": shrink(X, (0, 4), (0, 6)) * 2,
    "shrink2": shrink(shrink(X, (1, 4), (0, 5)), (1, 2), (2, 4)),
    "pad_id": pad(X, (0, 0), (0, 0)) * 2,
    "pad2": pad(pad(X, (1, 0), (0, 2)), (2, 1), (0, 1)),
    "flip_id": flip(X) * 2,
    "flip2": flip(flip(X, 0, 1), 0, 1) * 2,
    "reduce_id": reduce(X, ops.MUL) * 2,
    "const_move": X + permute(const(dtypes.float32, 3, 6, 4), 1, 0),
    "split_large": total(LARGE, 0, 1),
}


@pytest.mark.parametrize("name", SCHEDULE)
def test_each_rule_of_the_scheduler_keeps_the_meaning(name: str) -> None:
    root = SCHEDULE[name]
    buffers = {
        each: np.asarray(data(each.shape, each.dtype.numpy, seed)).reshape(-1)
        for seed, each in enumerate(node for node in root.toposort() if node.op is ops.BUFFER)
    }
    with rules.trace() as found:
        after = PREPARE(root)
    assert name in {event.rule.name for event in found.events}
    assert after is not root and after.shape == root.shape and after.dtype is root.dtype
    (before_values,) = interpret([root], buffers)
    (after_values,) = interpret([after], buffers)
    if name == "split_large":  # another order of additions
        np.testing.assert_allclose(after_values, before_values, rtol=1e-4, atol=1e-2)
    else:
        np.testing.assert_array_equal(after_values, before_values)


def test_no_rule_of_the_scheduler_is_forgotten() -> None:
    assert {rule.name for rule in rules.load("tinycore.passes.schedule").rules} == set(SCHEDULE)


F = X + 3.0
POSITIVE = X * X + 0.5
UNARY = ("NEG", "SQRT", "EXP", "EXP2", "LOG", "LOG2", "SIN", "COS", "TANH", "ERF", "FLOOR", "TRUNC", "ROUND")
FLOATS = ("ADD", "SUB", "MUL", "DIV", "POW", "MAX", "MIN", "LT", "LE", "EQ", "NE")
INTEGERS = ("FLOORDIV", "FLOORMOD", "TRUNCDIV", "TRUNCMOD", "AND", "OR", "XOR", "SHL", "SHR")
MOVEMENT = {
    "ix_empty": pad(node((0, 6), identity=9), (2, 0), (0, 0)) * 2,
    "ix_const": X * const(dtypes.float32, 2, 4, 6),
    "ix_variable": X * expand(N.cast(dtypes.float32), 4, 6),
    "ix_param": X * 2,
    "ix_reshape": view(ops.RESHAPE, X, (3, 8)) * 2,
    "ix_permute": permute(X, 1, 0) * 2,
    "ix_expand": expand(node((4, 1), identity=9), 4, 6) * 2,
    "ix_shrink": shrink(X, (1, 3), (2, 6)) * 2,
    "ix_flip": flip(X, 1) * 2,
    "ix_pad": pad(X, (1, 2), (0, 1)) * 2,
    "ix_arange": scan(const(dtypes.int32, 3, 4, 6), 1) + M,
    **{f"ix_unary[{op}]": POSITIVE.alu(getattr(ops, op)) for op in UNARY},
    "ix_cast": X.cast(dtypes.int32) + M,
    "ix_bitcast": UOp(ops.BITCAST, dtypes.int32, (X,)) + M,
    **{f"ix_binary[{op}]": POSITIVE.alu(getattr(ops, op), Y * Y) for op in FLOATS},
    **{f"ix_binary[{op}]": M.alu(getattr(ops, op), J * J) for op in INTEGERS},
    "ix_where": (X < Y).alu(ops.WHERE, X, Y * 2),
    "ix_fma": X.alu(ops.FMA, Y, X),
    "ix_reduce1": total(view(ops.RESHAPE, X, (4, 1, 6)), 1) * 2,
    "ix_reduce": total(X * Y, 1) * 2,
    "ix_gather": gather(X, K) * 2,
    "ix_kept": total(X * Y, 1) * 2,
}


@pytest.mark.parametrize("name", MOVEMENT)
def test_each_rule_of_movement_keeps_the_meaning(name: str) -> None:
    kernel = kernel_of(MOVEMENT[name])
    if name == "ix_kept":  # the scheduler says so for larger values
        kernel = kernel.substitute({n: contiguous(n) for n in kernel.toposort() if n.op is ops.MUL})
    arrays = arrays_for(kernel, {N: 5})
    with rules.trace() as found:
        after = indexed(kernel)
    assert name in {event.rule.name for event in found.events}
    equal(run_kernel(after, arrays, {N: 5}), expected(kernel, arrays, {N: 5}))


def test_no_rule_of_movement_is_forgotten() -> None:
    known = {rule.name for rule in rules.load("tinycore.passes.movement").rules}
    assert known == set(MOVEMENT)

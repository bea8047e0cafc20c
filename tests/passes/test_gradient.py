"""gradient.rules: every cotangent agrees with central differences in float64, computed by the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.ops import ELEMENTWISE, MOVEMENT
from tinycore.rules import load

D = dtypes.float64
STEP = 1e-5


def buffer(identity, shape, dtype=D):
    return UOp(ops.BUFFER, dtype, (), (identity, shape, "D"))


def unary(op):
    return lambda x: x.alu(op)


def integers(values):
    """Constant indices: a buffer that the differences leave alone."""
    return np.array(values, np.int32)


def reduce(op, axes):
    return lambda x: UOp(ops.REDUCE, D, (x,), (op, axes))


def move(op, argument):
    return lambda x: UOp(op, D, (x,), argument)


def scatter(op):
    return lambda base, i, u: UOp(ops.SCATTER, D, (base, i, u), (op, 1))


def assign(view):
    return lambda base, value: UOp(ops.ASSIGN, D, (base, view(base), value))


def box(x):
    flipped = UOp(ops.FLIP, D, (UOp(ops.SHRINK, D, (x,), ((1, 3), (0, 2))),), (1,))
    return UOp(ops.PERMUTE, D, (flipped,), (1, 0))


P, S = (3, 4), "positive"
CASES = {
    "NEG": (unary(ops.NEG), [P]),
    "SQRT": (unary(ops.SQRT), [P], S),
    "EXP": (unary(ops.EXP), [P]),
    "EXP2": (unary(ops.EXP2), [P]),
    "LOG": (unary(ops.LOG), [P], S),
    "LOG2": (unary(ops.LOG2), [P], S),
    "SIN": (unary(ops.SIN), [P]),
    "COS": (unary(ops.COS), [P]),
    "TANH": (unary(ops.TANH), [P]),
    "ERF": (unary(ops.ERF), [P]),
    "ADD": (lambda a, b: a + b, [P, P]),
    "ADD of the same": (lambda a: a + a, [P]),
    "SUB": (lambda a, b: a - b, [P, P]),
    "MUL": (lambda a, b: a * b, [P, P]),
    "DIV": (lambda a, b: a / b, [P, P], S),
    "POW": (lambda a, b: a.alu(ops.POW, b), [P, P], S),
    "MAX": (lambda a, b: a.alu(ops.MAX, b), [P, P]),
    "MIN": (lambda a, b: a.alu(ops.MIN, b), [P, P]),
    "FMA": (lambda a, b, c: UOp(ops.FMA, D, (a, b, c)), [P, P, P]),
    "RESHAPE": (move(ops.RESHAPE, (2, 6)), [P]),
    "PERMUTE": (move(ops.PERMUTE, (2, 0, 1)), [(2, 3, 4)]),
    "EXPAND": (move(ops.EXPAND, (3, 4, 5)), [(3, 1, 1)]),
    "PAD": (move(ops.PAD, ((1, 2), (0, 3))), [P]),
    "SHRINK": (move(ops.SHRINK, ((1, 3), (0, 2))), [P]),
    "FLIP": (move(ops.FLIP, (0, 1)), [P]),
    "REDUCE ADD": (reduce(ops.ADD, (0,)), [P]),
    "REDUCE ADD all": (reduce(ops.ADD, (0, 1)), [P]),
    "REDUCE MAX": (reduce(ops.MAX, (1,)), [P]),
    "REDUCE MIN": (reduce(ops.MIN, (0, 1)), [P]),
    "REDUCE MUL": (reduce(ops.MUL, (1,)), [P]),
    "REDUCE MUL one zero": (reduce(ops.MUL, (1,)), [P], "one zero"),
    "REDUCE MUL two zeros": (reduce(ops.MUL, (1,)), [P], "two zeros"),
    "SCAN ADD": (lambda x: UOp(ops.SCAN, D, (x,), (ops.ADD, 1)), [P]),
    "SCAN MUL": (lambda x: UOp(ops.SCAN, D, (x,), (ops.MUL, 1)), [P]),
    "SCAN MUL one zero": (lambda x: UOp(ops.SCAN, D, (x,), (ops.MUL, 0)), [P], "one zero"),
    "SCAN MUL two zeros": (lambda x: UOp(ops.SCAN, D, (x,), (ops.MUL, 1)), [P], "two zeros"),
    "GATHER": (lambda x, i: UOp(ops.GATHER, D, (x, i), 1), [P, integers([[0, 3, 3], [9, -1, 1]])]),
    "SCATTER ADD": (scatter(ops.ADD), [P, integers([1, 1, 0, 7]), (3, 4)]),
    "SCATTER": (scatter(None), [P, integers([2, 0, 7]), (3, 3)]),
    "CONTIGUOUS": (lambda x: UOp(ops.CONTIGUOUS, D, (x,)), [P]),
    "COPY": (lambda x: UOp(ops.COPY, D, (x,), "E"), [P]),
    "CAST": (lambda x: x.cast(dtypes.float32).cast(D), [P]),
    "ASSIGN": (assign(box), [P, (2, 2)]),
    "ASSIGN all": (assign(lambda base: base), [P, P]),
}
WITHOUT = {
    ops.BITCAST,
    ops.FLOORDIV,
    ops.FLOORMOD,
    ops.TRUNCDIV,
    ops.TRUNCMOD,
    ops.AND,
    ops.OR,
    ops.XOR,
    ops.SHL,
    ops.SHR,
    ops.LT,
    ops.LE,
    ops.EQ,
    ops.NE,
}
"""Elementwise ops whose results are integers, bools or bits: there is nothing to differentiate."""


def pull_back(root, cotangent):
    """Cotangents of everything below `root`: what a frontend does with the rules."""
    gradients = load("tinycore.passes.gradient").gradients
    found = {root: cotangent}
    for node in reversed(root.toposort()):
        if node in found and node.src:
            slots = gradients[node.op](node, found[node])
            assert slots is not None, f"no gradient for {node.op.name}"
            assert len(slots) == len(node.src)
            for operand, slot in zip(node.src, slots, strict=True):
                if slot is not None:
                    assert (slot.dtype, slot.shape) == (operand.dtype, operand.shape)
                    found[operand] = found[operand] + slot if operand in found else slot
    return found


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_central_differences(name):
    function, operands, *notes = CASES[name]
    random = np.random.default_rng(sum(map(ord, name)))
    leaves, arrays = [], {}
    for k, operand in enumerate(operands):
        fixed = isinstance(operand, np.ndarray)
        leaf = buffer(k, operand.shape if fixed else operand, dtypes.int32 if fixed else D)
        data = operand if fixed else random.normal(size=operand)
        if "positive" in notes:
            data = np.abs(data) + 0.5
        for column, note in enumerate(["one zero", "two zeros"]):
            if note in notes:
                data[1, : column + 1] = 0
        leaves.append(leaf)
        arrays[leaf] = data
    y = function(*leaves)
    g = buffer(99, y.shape)
    arrays[g] = random.normal(size=y.shape)
    found = pull_back(y, g)
    loose = 2e-3 if name == "CAST" else 1e-6
    step = 1e-2 if name == "CAST" else STEP
    for leaf in [leaf for leaf in leaves if leaf.dtype is D]:
        direction = random.normal(size=leaf.shape)
        ends = [
            interpret([y], {**arrays, leaf: arrays[leaf] + sign * step * direction})[0] for sign in (1, -1)
        ]
        wanted = float((arrays[g] * (ends[0] - ends[1])).sum() / (2 * step))
        answer = interpret([found[leaf]], arrays)[0] if leaf in found else np.zeros(leaf.shape)
        assert float((answer * direction).sum()) == pytest.approx(wanted, rel=loose, abs=loose)


def test_every_differentiable_op_has_a_gradient_that_is_tested():
    gradients = load("tinycore.passes.gradient").gradients
    wanted = (ELEMENTWISE | MOVEMENT) - WITHOUT
    assert wanted <= set(gradients)
    tested = {name.split()[0] for name in CASES} | {"WHERE", "FLOOR", "TRUNC", "ROUND", "DETACH"}
    assert {op.name for op in gradients} <= tested
    assert not WITHOUT & set(gradients)


def answers(root, wrt, arrays):
    g = UOp.const(D, 1.0, root.shape)
    found = pull_back(root, g)
    return [interpret([found[leaf]], arrays)[0].tolist() for leaf in wrt]


def test_ties_share_evenly():
    a, b = buffer(1, (3,)), buffer(2, (3,))
    arrays = {a: np.array([1.0, 2.0, 3.0]), b: np.array([1.0, 3.0, 2.0])}
    assert answers(a.alu(ops.MAX, b), [a, b], arrays) == [[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]]
    assert answers(a.alu(ops.MIN, b), [a, b], arrays) == [[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]]
    tied = {a: np.array([4.0, 1.0, 4.0])}
    assert answers(UOp(ops.REDUCE, D, (a,), (ops.MAX, (0,))), [a], tied) == [[0.5, 0.0, 0.5]]
    assert answers(UOp(ops.REDUCE, D, (a,), (ops.MIN, (0,))), [a], tied) == [[0.0, 1.0, 0.0]]


def test_where_passes_the_cotangent_to_what_was_chosen():
    a, b, c = buffer(1, (2,)), buffer(2, (2,)), buffer(3, (2,), dtypes.bool_)
    arrays = {a: np.zeros(2), b: np.zeros(2), c: np.array([True, False])}
    assert answers(c.where(a, b), [a, b], arrays) == [[1.0, 0.0], [0.0, 1.0]]


def test_powers_of_zero():
    a, b = buffer(1, (4,)), buffer(2, (4,))
    arrays = {a: np.array([0.0, 0.0, 2.0, 0.0]), b: np.array([0.0, 2.0, 0.0, 1.0])}
    base, exponent = answers(a.alu(ops.POW, b), [a, b], arrays)
    assert base == [0.0, 0.0, 0.0, 1.0]
    assert exponent == pytest.approx([0.0, 0.0, np.log(2.0), 0.0])


@pytest.mark.parametrize("op", [ops.FLOOR, ops.TRUNC, ops.ROUND, ops.DETACH])
def test_steps_and_detached_values_have_no_gradient(op):
    x = buffer(1, (2,))
    node = UOp(op, D, (x,))
    assert load("tinycore.passes.gradient").gradients[op](node, node.const_like(1)) == (None,)


def test_the_cotangent_of_a_copy_goes_back_to_the_device_it_came_from():
    x = buffer(1, (2,))
    node = UOp(ops.COPY, D, (x * 2.0,), "E")
    (back,) = load("tinycore.passes.gradient").gradients[ops.COPY](node, node.const_like(1))
    assert (back.op, back.arg) == (ops.COPY, "D")


def test_gradients_of_symbolic_shapes():
    n = UOp.variable("n", 1, 9)
    x = buffer(1, (n, 4))
    padded = UOp(ops.PAD, D, (x,), ((0, 2), (1, 0)))
    summed = UOp(ops.REDUCE, D, (padded,), (ops.ADD, (0,)))
    found = pull_back(summed, UOp.const(D, 1.0, summed.shape))
    assert found[x].shape == (n, 4)
    shrunk = UOp(ops.SHRINK, D, (x,), ((0, n), (1, 3)))
    assert pull_back(shrunk, UOp.const(D, 1.0, shrunk.shape))[x].shape == (n, 4)

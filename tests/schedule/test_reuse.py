"""Kernels and outlines are found again: equal graphs are the same nodes, whatever buffers they use."""

from __future__ import annotations

import pytest
from graphs import contiguous, expand, node, relu, schedule_of, softmax, total

from tinycore.ir import UOp, dtypes, ops
from tinycore.schedule import number_buffers, outline


def test_equal_kernels_are_one_node():
    x = node((8, 8))
    for _ in range(5):
        x = contiguous(expand(total(relu(x + 1.0), 1), 8, 8) + x)
    found = [step.kernel for step in schedule_of(x).steps]
    assert len(set(found)) <= 2


def test_buffers_are_numbered_in_order_of_appearance():
    x, y = node((4,), identity=70), node((4,), identity=50)
    (root,), inputs = number_buffers([y * x + y])
    assert [buffer.arg[0] for buffer in inputs] == [50, 70]
    assert sorted(b.arg[0] for b in root.toposort() if b.op.name == "BUFFER") == [-2, -1]
    assert outline([y * x + y])[1] == inputs


def a(**changes):
    return node((4, 4), **{"identity": 1, **changes})


def b(**changes):
    return node((4, 4), **{"identity": 2, **changes})


PROGRAMS = {
    "a + b": lambda: [a() + b()],
    "a + a": lambda: [a() + a()],
    "both": lambda: [a() + b(), a()],
    "both the other way": lambda: [a(), a() + b()],
    "(a + b) * a": lambda: [(a() + b()) * a()],
    "(a + b) * b": lambda: [(a() + b()) * b()],
    "(a + b) * (a + b)": lambda: [(a() + b()) * (a() + b())],
    "(a + b) * (a - b)": lambda: [(a() + b()) * (a() - b())],
    "a + (b * a)": lambda: [a() + b() * a()],
    "a + 1": lambda: [a() + 1.0],
    "a + 2": lambda: [a() + 2.0],
    "1 + a": lambda: [UOp.const(dtypes.float32, 1.0, (4, 4)) + a()],
    "another dtype": lambda: [a(dtype=dtypes.float64) + b(dtype=dtypes.float64)],
    "another device": lambda: [a(device="Y") + b(device="Y")],
    "one on another device": lambda: [a(device="Y") + b()],
    "sum 0": lambda: [total(a(), 0)],
    "sum 1": lambda: [total(a(), 1)],
    "another shape": lambda: [node((4, 5)) + node((4, 5), identity=2)],
    "an update": lambda: [UOp(ops.ASSIGN, dtypes.float32, (a(), a(), b()))],
    "softmax": lambda: [softmax(a())],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_outlines_tell_programs_apart_as_numbering_does(name):
    roots = PROGRAMS[name]()
    numbered, inputs = number_buffers(roots)
    found, buffers = outline(roots)
    assert buffers == inputs
    for other in PROGRAMS.values():
        others = other()
        assert (outline(others)[0] == found) == (number_buffers(others)[0] == numbered)


def test_outlines_of_deep_and_shared_graphs_are_short():
    x = a()
    for _ in range(3000):
        x = x * x
    found, _ = outline([x])
    assert len(found) < 6 * 3000

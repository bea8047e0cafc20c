"""Schedules and kernels are found again: equal graphs are the same nodes, whatever buffers they use."""

from __future__ import annotations

from graphs import contiguous, expand, node, relu, schedule_of, softmax, total

from tinycore import schedule
from tinycore.schedule import number_buffers


def test_the_same_program_on_other_buffers_is_one_schedule():
    one = schedule_of(softmax(node((4, 4), identity=11)))
    other = schedule_of(softmax(node((4, 4), identity=12)))
    assert one is other
    assert schedule_of(softmax(node((4, 5), identity=13))) is not one


def test_the_device_of_constants_is_part_of_it():
    root = softmax(node((4, 4)))
    assert schedule_of(root, device="A") is not schedule_of(root, device="B")


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


def test_only_the_latest_schedules_are_kept():
    for size in range(1, schedule._KEPT + 40):
        schedule_of(node((size,)) + 1.0)
    assert len(schedule._keep_alive) <= schedule._KEPT

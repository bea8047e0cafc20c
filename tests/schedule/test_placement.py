"""The door of the scheduler: what passes of the stage `schedule` may answer, and what they may not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import contiguous, node, relu, total

from tinycore.errors import CompileError
from tinycore.interpret import interpret, interpret_kernel
from tinycore.ir import Capabilities, UOp, ops
from tinycore.rules.doors import PassRun, python_door
from tinycore.schedule import KernelStep, Layout, Placement, make_schedule, number_buffers

X, Y = node((6, 4), identity=1), node((6, 4), identity=2)


def graph():
    return total(relu(contiguous(X + 1.0) * Y), 1)


def scheduled(change, root=None, observers=(), **settings):
    numbered, _ = number_buffers([graph() if root is None else root])
    doors = {"schedule": [python_door("change", change)]}
    return make_schedule(numbered, "X", doors, observers, **settings)


def middle(placement):
    (found,) = [value for value in placement.stored if value.op is ops.CONTIGUOUS]
    return found


def by_columns(placement, context):
    return replace(placement, layouts={middle(placement): Layout(order=(1, 0), split=(1, 2))})


def run(schedule, arrays):
    """The result of a schedule by the meaning of its kernels."""
    import numpy as np

    memory = dict(arrays)
    for step in schedule.steps:
        for buffer in step.buffers:
            memory.setdefault(buffer, np.zeros(int(np.prod(buffer.arg[1])), buffer.dtype.numpy))
        interpret_kernel(step.kernel, dict(enumerate(memory[buffer] for buffer in step.buffers)), {})
    (result,) = schedule.results
    while result.op is ops.RESHAPE:
        result = result.src[0]
    return memory[result]


def test_a_layout_changes_memory_and_no_result():
    import numpy as np

    (numbered,), inputs = number_buffers([graph()])
    values = [np.arange(24, dtype=np.float32) - 9 * k for k in range(len(inputs))]
    names = [UOp(ops.BUFFER, b.dtype, (), (-1 - k, *b.arg[1:])) for k, b in enumerate(inputs)]
    arrays = dict(zip(names, values, strict=True))
    schedule = scheduled(by_columns)
    assert schedule.steps[0].buffers[0].arg[1] == (4, 6)
    (expected,) = interpret([numbered], {name: array.reshape(6, 4) for name, array in arrays.items()})
    np.testing.assert_array_equal(run(schedule, arrays), expected.reshape(-1))


def test_a_value_that_is_kept_is_no_kernel_of_its_own():
    def keep(placement, context):
        (root,) = placement.stored - {middle(placement)}
        return replace(placement, stored=frozenset({root}), kept={middle(placement): root})

    (step,) = scheduled(keep).steps
    assert any(value.op is ops.CONTIGUOUS for value in step.kernel.toposort())


def test_what_is_remembered_comes_first():
    def remember(placement, context):
        return replace(placement, remembered=frozenset({middle(placement)}))

    found = [step.remember for step in scheduled(remember).steps if isinstance(step, KernelStep)]
    assert found == [True, False]


def test_passes_are_told_about_devices():
    seen = []

    def ask(placement, context):
        seen.extend((context.device, context.capabilities_of(value).threads) for value in placement.stored)
        return placement

    scheduled(ask, capabilities=lambda device: Capabilities(threads=7))
    assert seen == [("X", 7), ("X", 7)]


def test_observers_see_the_graph_before_and_after():
    seen: list[PassRun] = []
    scheduled(by_columns, observers=[seen.append])
    assert [each.name for each in seen] == ["prepare", "change"]
    assert seen[-1].before.op is ops.SINK and seen[-1].again() is seen[-1].after


WRONG = {
    "other dtypes or shapes": lambda p, root: replace(p, roots=(X,)),
    "both stored and kept": lambda p, root: replace(p, kept={middle(p): root}),
    "is not stored": lambda p, root: replace(p, stored=frozenset({root}), remembered=frozenset({middle(p)})),
    "kept by one that has no kernel": lambda p, root: replace(
        p, stored=frozenset({root}), kept={middle(p): X}
    ),
    "no permutation": lambda p, root: replace(p, layouts={middle(p): Layout(order=(1, 1))}),
    "must answer a Placement": lambda p, root: list(p.roots),
}


@pytest.mark.parametrize("problem", WRONG)
def test_what_is_no_placement_of_these_values_is_an_error(problem):
    def wrong(placement, context):
        (root,) = [value for value in placement.stored if value.op is not ops.CONTIGUOUS]
        return WRONG[problem](placement, root)

    with pytest.raises(CompileError, match=f"(?s)'change'.*{problem}"):
        scheduled(wrong)


def test_what_is_copied_has_no_layout():
    copy = UOp(ops.COPY, X.dtype, (X + 1.0,), "Y")

    def wrong(placement: Placement, context):
        (moved,) = [value for value in placement.stored if value.op is ops.COPY]
        return replace(placement, layouts={moved: Layout(order=(1, 0))})

    with pytest.raises(CompileError, match="copied"):
        scheduled(wrong, copy)

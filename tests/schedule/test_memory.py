"""The memory plan: buffers share memory only when one is dead before the other is born."""

from __future__ import annotations

from graphs import (
    REFERENCE,
    assign,
    contiguous,
    copy,
    data,
    expand,
    meaning,
    node,
    run,
    same,
    schedule_of,
    total,
    touched,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.ir import ops
from tinycore.schedule import nbytes


def lifetimes(schedule):
    """For every made buffer: (first step, last step)."""
    spans = {}
    for position, step in enumerate(schedule.steps):
        for buffer in touched(step):
            if buffer.arg[0] >= 0:
                spans[buffer] = (spans.get(buffer, (position,))[0], position)
    return spans


def check_plan(schedule):
    spans = lifetimes(schedule)
    slots = dict(schedule.slots)
    results = {node for result in schedule.results for node in result.toposort() if node.op is ops.BUFFER}
    assert set(slots) == set(spans) - results
    owners = {}
    for buffer, slot in slots.items():
        for other in owners.setdefault(slot, []):
            assert other.arg[2] == buffer.arg[2], "two devices share a slot"
            (start, end), (other_start, other_end) = spans[buffer], spans[other]
            assert end < other_start or other_end < start, f"{buffer!r} and {other!r} are alive together"
        owners[slot].append(buffer)
    return owners


@st.composite
def programs(draw):
    """(kind, operands by position) of values of several sizes on two devices."""
    kinds = ("stored", "wide", "narrow", "moved", "changed")
    return [
        (draw(st.sampled_from(kinds)), draw(st.integers(0, 99)), draw(st.integers(0, 99)))
        for _ in range(draw(st.integers(2, 25)))
    ]


def build(steps, x, y, devices=("A", "B")):
    """Every value is stored; small ones have 8 elements, wide ones 8 x 64."""
    small, wide, changed = [x, y], [], None
    for kind, a, b in steps:
        one, other = small[a % len(small)], small[b % len(small)]
        if kind == "stored":
            small.append(contiguous(one * 2 + other))
        elif kind == "wide":
            wide.append(contiguous(expand(one, 8, 64) + 1))
        elif kind == "narrow" and wide:
            small.append(total(wide[a % len(wide)] + expand(other, 8, 64), 1))
        elif kind == "moved":
            small.append(copy(contiguous(copy(one, devices[1]) + 1), devices[0]))
        elif kind == "changed":
            changed = assign(x, one + small[0]) if changed is None else assign(changed, changed + other)
            small.append(changed)
    return [*small[-2:], *wide[-1:]]


@settings(max_examples=150, deadline=None, database=None)
@given(programs())
def test_lifetimes_never_overlap(steps):
    check_plan(schedule_of(*build(steps, node((8, 1), device="A"), node((8, 1), device="A", identity=2))))


@settings(max_examples=50, deadline=None, database=None)
@given(programs())
def test_shared_memory_computes_the_same(steps):
    arrays = [data((8, 1), "int32"), data((8, 1), "int32", 1)]

    def graph(x, y):
        return build(steps, x, y, (REFERENCE, REFERENCE))

    same(run(graph, arrays, REFERENCE), meaning(graph, arrays))


def test_a_chain_needs_two_slots():
    x = node((1000,))
    for _ in range(20):
        x = contiguous(x + 1.0)
    assert len(check_plan(schedule_of(x))) == 2


def test_small_buffers_do_not_take_large_slots():
    x = node((1 << 20,))
    large = contiguous(x + 1.0)
    small = contiguous(total(large, 0) + 1.0)
    root = contiguous(small * 2.0) + 1.0
    owners = check_plan(schedule_of(root))
    assert all(max(map(nbytes, group)) <= max(4096, 4 * min(map(nbytes, group))) for group in owners.values())


def test_results_have_memory_of_their_own():
    x = node((8,))
    first = contiguous(x + 1.0)
    second = contiguous(first * 2.0)
    schedule = schedule_of(first, second, second + 1.0)
    assert schedule.slots == ()
    assert len(set(schedule.results)) == 3

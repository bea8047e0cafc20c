"""Buffers that are written in place: every reader sees the version that it was written for."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import (
    REFERENCE,
    assign,
    check,
    contiguous,
    data,
    expand,
    flip,
    gather,
    kernels,
    meaning,
    need,
    node,
    permute,
    reshape,
    run,
    same,
    schedule_of,
    shrink,
    total,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.errors import TinycoreError
from tinycore.ir import dtypes, ops
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host

INTS = np.int32


@pytest.fixture(params=[REFERENCE, "CPU"])
def device(request):
    """The interpreter takes every kernel as a whole; in native code an order of elements can be wrong."""
    need(request.param)
    return request.param


def test_the_buffer_itself_is_changed():
    x = from_host(data((5,), INTS), REFERENCE)
    before = to_host(x)
    (result,) = realize([assign(x, x + 1)])
    assert result is x
    np.testing.assert_array_equal(to_host(x), before + 1)


def test_read_after_write(device):
    def build(x):
        new = assign(x, x * 3)
        return [new, total(new, 0)]

    check(build, [data((6,), INTS)], device)


def test_write_after_read(device):
    def build(x, y):
        return [assign(x, y), total(x, 0), x * 2]

    check(build, [data((6,), INTS), data((6,), INTS, 1)], device)


def test_write_after_write(device):
    def build(x, y):
        first = assign(x, y + 1)
        second = assign(first, first * 2)
        third = assign(second, second - x)
        return [third, second + first, first * 7]

    check(build, [data((6,), INTS), data((6,), INTS, 1)], device)


def test_one_kernel_reads_both_versions(device):
    def build(x):
        new = assign(x, x + 1)
        return [new, x * 10 + new]

    check(build, [data((6,), INTS)], device)


def test_the_next_version_reads_two_old_ones(device):
    def build(x):
        first = assign(x, x + 1)
        return [assign(first, first * 100 + x)]

    check(build, [data((6,), INTS)], device)


def test_a_reader_of_the_old_version_needs_the_new_one(device):
    def build(x):
        new = assign(x, x + 1)
        count = expand(total(new, 0), 6)
        return [new, contiguous(count) * x]

    check(build, [data((6,), INTS)], device)


def test_transposed_into_itself(device):
    def build(x):
        return [assign(x, permute(x, 1, 0) + 1)]

    check(build, [data((5, 5), INTS)], device)
    assert kernels(build(node((5, 5)))[0]) == 2


def test_aligned_update_is_one_kernel():
    x = node((5, 5))
    assert kernels(assign(x, x * 2 + 1)) == 1
    view = shrink(x, (1, 4), (0, 5))
    assert kernels(assign(x, view * 2, view)) == 1
    turned = permute(x, 1, 0)
    assert kernels(assign(x, turned + 1, turned)) == 1


def test_swap(device):
    def build(x, y):
        return [assign(x, y), assign(y, x)]

    check(build, [data((6,), INTS), data((6,), INTS, 1)], device)


def test_rotation_of_three(device):
    def build(x, y, z):
        return [assign(x, y + 1), assign(y, z + 2), assign(z, x + 3)]

    check(build, [data((6,), INTS, k) for k in range(3)], device)


def test_into_a_transposed_view_of_itself(device):
    check(lambda x: [assign(x, x, permute(x, 1, 0))], [data((5, 5), INTS)], device)


def test_a_slice(device):
    def build(x, y):
        return [assign(x, y, shrink(x, (2, 4), (1, 3)))]

    check(build, [data((5, 4), INTS), data((2, 2), INTS, 1)], device)


def test_overlapping_slices(device):
    def build(x):
        return [assign(x, shrink(x, (0, 5)), shrink(x, (1, 6)))]

    check(build, [data((6,), INTS)], device)


def test_slices_one_after_another(device):
    def build(x):
        first = assign(x, shrink(x, (3, 6)) * 2, shrink(x, (0, 3)))
        return [assign(first, shrink(first, (0, 3)) + 1, shrink(first, (3, 6)))]

    check(build, [data((6,), INTS)], device)


def test_reversed_into_itself(device):
    check(lambda x: [assign(x, flip(x, 0))], [data((7,), INTS)], device)


def test_a_reduction_of_itself(device):
    check(lambda x: [assign(x, x - expand(total(x, 1), 4, 5))], [data((4, 5), INTS)], device)
    check(lambda x: [assign(x, total(x, 1) * 2, shrink(x, (0, 4), (2, 3)))], [data((4, 5), INTS)], device)


def test_gathered_from_itself(device):
    def build(x, index):
        return [assign(x, gather(x, index))]

    check(build, [data((6,), INTS), np.array([5, 4, 0, 0, 2, 9], INTS)], device)


def test_two_kernels_that_read_the_old_version_and_need_the_new_one(device):
    def build(x, y):
        new = assign(x, x + expand(total(y, 0), 6))
        wanted = contiguous(expand(total(new, 0), 6))
        return [new, wanted * x, total(wanted * x * x, 0)]

    check(build, [data((6,), INTS), data((6,), INTS, 1)], device)


def test_roots_of_every_version(device):
    def build(x):
        first = assign(x, x + 1)
        second = assign(first, first * 2)
        return [first, x, second, reshape(first, 2, 3), x * 1]

    check(build, [data((6,), INTS)], device)


def test_two_branches_of_one_buffer_are_refused():
    x = node((4,), dtypes.int32)
    with pytest.raises(TinycoreError, match="two") as caught:
        schedule_of(assign(x, x + 1), assign(x, x + 2))
    assert caught.value.hint


def test_many_updates_are_planned_quickly():
    roots = []
    for k in range(400):
        parameter, moment = node((3, 3), identity=2 * k + 1), node((3, 3), identity=2 * k + 2)
        new = assign(moment, moment * 0.9 + parameter)
        roots += [new, assign(parameter, parameter - new * 0.1)]
    assert kernels(*roots) <= 1200


@st.composite
def programs(draw):
    """Steps on three buffers of 4 x 4 integers: (kind, numbers); versions and values are named by position."""
    return [
        (draw(st.sampled_from(KINDS)), *(draw(st.integers(0, 1000)) for _ in range(4)))
        for _ in range(draw(st.integers(1, 9)))
    ]


KINDS = ("add", "transpose", "rows", "stored", "assign", "assign", "assign", "assign part", "assign part")


def build_program(steps, buffers):
    """Roots: the last version of every buffer, and values that read any version."""
    latest = list(buffers)
    values = list(buffers)
    old = []
    for kind, a, b, c, d in steps:
        one, other = values[a % len(values)], values[b % len(values)]
        if kind == "add":
            values.append(one * 3 + other)
        elif kind == "transpose":
            values.append(permute(one, 1, 0) - other)
        elif kind == "rows":
            values.append(expand(total(one, 1), 4, 4) + other)
        elif kind == "stored":
            values.append(contiguous(one + 1))
        else:
            which = c % len(latest)
            base = latest[which]
            if kind == "assign":
                new = assign(base, one + other)
            else:
                start = d % 3
                view = shrink(base, (start, start + 2), (0, 4))
                new = assign(
                    base, shrink(one, (start, start + 2), (0, 4)) + shrink(other, (1, 3), (0, 4)), view
                )
            old.append(base)
            latest[which] = new
            values.append(new)
    computed = [value for value in values if value.op not in (ops.BUFFER, ops.ASSIGN)]
    return [version for version in latest if version.op is ops.ASSIGN] + computed[-3:]


@settings(max_examples=150, deadline=None, database=None)
@given(programs())
def test_random_programs(steps):
    arrays = [data((4, 4), INTS, seed) for seed in range(3)]

    def build(*buffers):
        return build_program(steps, buffers)

    if build(*[node((4, 4), dtypes.int32, k) for k in range(3)]):
        same(run(build, arrays, REFERENCE), meaning(build, arrays))


@settings(max_examples=12, deadline=None, database=None)
@given(programs())
def test_random_programs_in_native_code(steps):
    need("CPU")
    arrays = [data((4, 4), INTS, seed) for seed in range(3)]

    def build(*buffers):
        return build_program(steps, buffers)

    if build(*[node((4, 4), dtypes.int32, k) for k in range(3)]):
        same(run(build, arrays, "CPU"), meaning(build, arrays))


def test_large_buffers_in_parallel(device):
    """Enough elements that several threads work on them."""
    size = 60_000
    check(lambda x: [assign(x, flip(x, 0))], [data((size,), INTS)], device)
    check(
        lambda x: [assign(x, shrink(x, (0, size - 1)), shrink(x, (1, size)))], [data((size,), INTS)], device
    )
    check(lambda x: [assign(x, x - expand(total(x, 0), size))], [data((size,), INTS)], device)
    check(lambda x: [assign(x, permute(x, 1, 0) + x)], [data((250, 250), INTS)], device)
    check(
        lambda x, y: [assign(x, y), assign(y, x), x + y],
        [data((size,), INTS), data((size,), INTS, 1)],
        device,
    )

"""Versions and copies over two devices: every copy is made of the version that it was written for."""

from __future__ import annotations

import numpy as np
from graphs import REFERENCE, assign, contiguous, copy, data, flip, need, permute, reshape
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.interpret import interpret
from tinycore.ir import ops
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host

OTHER = "CPU"
HOMES = (REFERENCE, OTHER, REFERENCE)


def check(build):
    """Three buffers of six integers, the second one on the other device."""
    need(OTHER)
    arrays = [data((6,), np.int32, seed) for seed in range(3)]
    nodes = [from_host(array, device) for array, device in zip(arrays, HOMES, strict=True)]
    roots = build(*nodes)
    wanted = interpret(roots, dict(zip(nodes, [array.copy() for array in arrays], strict=True)))
    for root, expected in zip(realize(roots), wanted, strict=True):
        np.testing.assert_array_equal(to_host(root), expected)


def test_swap_across_devices():
    check(lambda x, y, z: [assign(x, copy(y, REFERENCE)), assign(y, copy(x, OTHER)), z + 1])


def test_copies_of_both_versions():
    def build(x, y, z):
        new = assign(x, x * 2)
        return [new, copy(x, OTHER), copy(new, OTHER), copy(new + x, OTHER)]

    check(build)


def test_a_copied_view_into_a_view():
    def build(x, y, z):
        turned = copy(permute(reshape(assign(x, x + z), 2, 3), 1, 0), OTHER)
        return [assign(y, turned + reshape(copy(x, OTHER), 3, 2), reshape(y, 3, 2))]

    check(build)


@st.composite
def programs(draw):
    kinds = ("add", "copy", "reversed", "stored", "assign", "assign")
    return [
        (draw(st.sampled_from(kinds)), *(draw(st.integers(0, 999)) for _ in range(3)))
        for _ in range(draw(st.integers(1, 8)))
    ]


def build_program(steps, buffers):
    latest, values = list(buffers), list(buffers)
    device = dict(zip(buffers, HOMES, strict=True))

    def on(value, name):
        return value if device[value] == name else copy(value, name)

    for kind, a, b, c in steps:
        one, other = values[a % len(values)], values[b % len(values)]
        home = (REFERENCE, OTHER)[c % 2]
        if kind == "add":
            new = on(one, home) * 3 + on(other, home)
        elif kind == "copy":
            home = OTHER if device[one] == REFERENCE else REFERENCE
            new = copy(one, home)
        elif kind == "reversed":
            new, home = flip(one, 0), device[one]
        elif kind == "stored":
            new, home = contiguous(one + 1), device[one]
        else:
            which = c % 3
            home = HOMES[which]
            new = latest[which] = assign(latest[which], on(one, home) + flip(on(other, home), 0))
        device[new] = home
        values.append(new)
    computed = [value for value in values if value.op not in (ops.BUFFER, ops.ASSIGN)]
    return [version for version in latest if version.op is ops.ASSIGN] + computed[-3:]


@settings(max_examples=25, deadline=None, database=None)
@given(programs())
def test_random_programs(steps):
    check(lambda *buffers: build_program(steps, buffers))

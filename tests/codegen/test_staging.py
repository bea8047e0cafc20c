"""Tiles in shared memory: contractions in random tilings, their operands staged, against the interpreter.

The interpreter of programs reports every race on shared memory: a missing barrier fails here, too.
"""

from __future__ import annotations

import itertools

import pytest
from graphs import matmul, node, pad, permute
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import GROUPS, arrays_for, equal, expected, indexed, kernel_of, program_of, run_program

from tinycore.codegen.staging import Stage
from tinycore.codegen.tiling import Bind, Order, Split, apply, ranges_of
from tinycore.ir import dtypes

FORMS = {
    "plain": lambda m, n, k: matmul(x(m, k), x(k, n, identity=2)),
    "left transposed": lambda m, n, k: matmul(permute(x(k, m), 1, 0), x(k, n, identity=2)),
    "right transposed": lambda m, n, k: matmul(x(m, k), permute(x(n, k, identity=2), 1, 0)),
    "batched": lambda m, n, k: matmul(x(2, m, k), x(2, k, n, identity=2)),
    "padded": lambda m, n, k: matmul(pad(x(m, k), (1, 1), (0, 2)), x(k + 2, n, identity=2)),
}


def x(*shape, identity=1):
    return node(shape, dtypes.int32, identity)


class Tiling:
    """Draws tiles of rows and columns, work-items in them, and the steps of the reduction."""

    def __init__(self, draw, kernel):
        self.draw, self.kernel, self.actions, self.order = draw, kernel, [], []
        self.ids = itertools.count(50)
        self.vector = False

    def do(self, action):
        self.kernel = apply(self.kernel, [action])
        self.actions.append(action)

    def split(self, number, size):
        """The ids of both parts; a part with one iteration is gone."""
        outer, inner = next(self.ids), next(self.ids)
        self.do(Split(number, size, outer, inner, "mask"))
        found = ranges_of(self.kernel)
        return [part if part in found else None for part in (outer, inner)]

    def bind(self, number, *kinds):
        if number is None:
            return
        kind = self.draw(st.sampled_from(kinds))
        self.vector |= kind == "vector"
        self.do(Bind(number, kind))
        if kind not in ("unroll", "vector"):
            self.order.append(number)

    def output(self, number):
        """One axis of the result: groups, work-items, and what each of them computes."""
        size = self.draw(st.sampled_from([2, 4, 8]))
        group, inside = self.split(number, size)
        self.bind(group, "global", "loop")
        if inside is not None and size > 2 and self.draw(st.booleans()):
            item, own = self.split(inside, 2)
            self.bind(item, "local")
            self.bind(own, *(["unroll"] if self.vector else ["unroll", "vector"]))
        else:
            self.bind(inside, "local")

    def reduced(self, number):
        step, inside = self.split(number, self.draw(st.sampled_from([2, 4, 8])))
        if step is not None:
            self.order.append(step)
        self.bind(inside, "reduce", "unroll")
        self.do(Order(tuple(self.order)))
        for slot in (1, 2):
            if step is not None and self.draw(st.integers(0, 4)):
                self.do(Stage(slot, self.order.index(step), 900 + slot))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_random_tiles(form):
    sizes = st.sampled_from([3, 4, 5, 8, 9, 12, 13, 17])

    @settings(max_examples=12, deadline=None, database=None, print_blob=True)
    @given(st.data())
    def holds(data):
        kernel = kernel_of(FORMS[form](*[data.draw(sizes) for _ in range(3)]))
        tiling = Tiling(data.draw, indexed(kernel))
        kinds = {number: r.arg[1] for number, r in sorted(ranges_of(tiling.kernel).items())}
        outputs = [number for number, kind in kinds.items() if kind == "loop"]
        for number in outputs[:-2]:
            tiling.bind(number, "global", "loop")
        for number in outputs[-2:]:
            tiling.output(number)
        tiling.reduced(next(number for number, kind in kinds.items() if kind == "reduce"))
        arrays = arrays_for(kernel)
        program = program_of(kernel, tiling.kernel, GROUPS)
        equal(run_program(program, arrays), expected(kernel, arrays))

    holds()

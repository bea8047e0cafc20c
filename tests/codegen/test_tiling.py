"""Tiling actions keep the meaning of kernels: one by one, and in random legal lists."""

from __future__ import annotations

import itertools

import hypothesis
import pytest
from graphs import (
    assign,
    const,
    expand,
    flip,
    gather,
    matmul,
    need,
    node,
    pad,
    permute,
    reduce,
    scan,
    scatter,
    shrink,
    total,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lowering import (
    GROUPS,
    LANES,
    arrays_for,
    equal,
    expected,
    indexed,
    kernel_of,
    program_of,
    run_kernel,
    run_on,
    run_program,
)

from tinycore.codegen.affine import affine
from tinycore.codegen.staging import GroupReduce, Stage
from tinycore.codegen.tiling import Bind, Flatten, Merge, Order, Split, apply, ranges_of
from tinycore.errors import CompileError
from tinycore.ir import UOp, dims, dtypes, ops
from tinycore.runtime.devices import get_device

N = UOp.variable("n", 0, 24)
INT = dtypes.int32


def x(*shape, identity=1):
    return node(shape, INT, identity)


def window_sums(a, width):
    """A sliding window as sums of slices."""
    size = a.shape[0]
    padded = pad(a, (width // 2, width // 2))
    parts = [shrink(padded, (k, size + k)) for k in range(width)]
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


KERNELS = {
    "elementwise": lambda: x(5, 7) * 2 + x(5, 7, identity=2),
    "transposed": lambda: permute(x(6, 5), 1, 0) - x(5, 6, identity=2),
    "padded": lambda: pad(x(5, 6), (1, 2), (0, 3)) + 1,
    "flipped": lambda: flip(x(4, 9), 0, 1) * x(4, 9),
    "row sums": lambda: total(x(5, 11), 1) * 3,
    "column maximum": lambda: reduce(x(11, 5), ops.MAX, 0),
    "everything": lambda: total(x(7, 9), 0, 1),
    "rows": lambda: x(5, 9) - expand(reduce(x(5, 9), ops.MAX, 1), 5, 9),
    "two row sums": lambda: (
        x(4, 9) * expand(total(x(4, 9) - expand(reduce(x(4, 9), ops.MAX, 1), 4, 9), 1), 4, 9)
    ),
    "matmul": lambda: matmul(x(7, 9), x(9, 10, identity=2)) + 1,
    "batched matmul": lambda: matmul(x(2, 5, 6), permute(x(2, 7, 6, identity=2), 0, 2, 1)),
    "padded sum": lambda: total(pad(x(9, 6), (1, 1), (2, 0)), 0),
    "window": lambda: window_sums(x(19), 3),
    "gather": lambda: gather(x(6, 5), x(7, identity=2)),
    "scan": lambda: scan(x(6, 9), 1),
    "scatter": lambda: scatter(x(6, 5), x(8, identity=2), x(8, 5, identity=3)),
    "scatter add": lambda: scatter(x(6, 5), x(4, 2, identity=2), x(4, 2, 5, identity=3), op=ops.ADD),
    "in place": lambda: assign(x(9, 6), shrink(x(9, 6), (2, 8), (0, 6)) * 2, shrink(x(9, 6), (2, 8), (0, 6))),
    "symbolic": lambda: x(N, 5) * 2 + x(N, 5, identity=2),
    "symbolic sums": lambda: total(x(N, 5), 0) + 1,
    "symbolic rows": lambda: x(3, N) - expand(total(x(3, N), 1), 3, N),
    "constant": lambda: const(INT, 3, 9),
}


class Chooser:
    """Draws a list of legal actions for a kernel."""

    def __init__(self, draw, kernel):
        self.draw, self.kernel, self.actions, self.next = draw, kernel, [], 50
        self.stores = {r for statement in kernel.src for r in statement.ranges}
        self.lanes_used = self.must_order = False
        self.in_order = [number for number, _ in self.ranges("ordered")]

    def fresh(self):
        self.next += 1
        return self.next

    def do(self, *actions):
        self.kernel = apply(self.kernel, actions)
        self.actions += actions

    def ranges(self, *kinds):
        return [(number, r) for number, r in sorted(ranges_of(self.kernel).items()) if r.arg[1] in kinds]

    def split(self):
        candidates = self.ranges("loop", "reduce", "ordered")
        if not candidates:
            return
        number, r = self.draw(st.sampled_from(candidates))
        simple = r.arg[1] == "ordered" or any(r in other.src[0].ranges for _, other in candidates)
        tails = ["bound", "mask"] if simple else ["bound", "peel", "peel mask", "mask"]
        size = self.draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16]))
        if self.repeatable(r, size):
            tails.append("overlap")
        outer, inner, rest = self.fresh(), self.fresh(), self.fresh()
        tail = self.draw(st.sampled_from(tails))
        self.do(Split(number, size, outer, inner, tail, rest))
        self.must_order |= tail == "bound" or number in self.in_order  # new ranges are inside all others
        if number in self.in_order:
            place = self.in_order.index(number)
            self.in_order[place : place + 1] = [outer, inner]

    def repeatable(self, r, size):
        """Whether iterations of a range may run twice."""
        order = self.kernel.toposort()
        written = {n.src[0] for n in order if n.op is ops.STORE}
        bounds = {other.src[0] for other in order if other.op is ops.RANGE}
        return (
            r.arg[1] == "loop"
            and r.src[0].vmin >= size
            and not any(r in bound.ranges for bound in bounds)
            and not any(n.op is ops.LOAD and n.src[0] in written for n in order)
        )

    def bind(self):
        kind = self.draw(st.sampled_from(["vector", "unroll", "unroll", "global"]))
        bounds = {r for other in ranges_of(self.kernel).values() for r in other.src[0].ranges}
        static = [(number, r) for number, r in self.ranges("loop", "reduce") if r.src[0].is_const]
        static = [(number, r) for number, r in static if kind == "global" or r not in bounds]
        if kind == "vector":
            static = [(number, r) for number, r in static if r.src[0].arg[0] in (2, 4, 8)]
            static = [] if self.lanes_used else static
        elif kind == "unroll":
            static = [(number, r) for number, r in static if r.src[0].arg[0] <= 8]
        else:
            free = {r for statement in self.kernel.src for r in statement.ranges}
            static = [(n, r) for n, r in self.ranges("loop") if r in free and not self.bound_depends(r)]
            if len(self.kernel.src) > 1 or len(self.ranges("global")) == 3:
                static = []
        if static:
            number, _ = self.draw(st.sampled_from(static))
            self.lanes_used |= kind == "vector"
            self.do(Bind(number, kind))

    @staticmethod
    def bound_depends(r):
        return bool(r.src[0].ranges)

    def pair(self):
        """Two ranges of the same kind, of the same stores or of the same reduction, with bounds of their own."""
        found = []
        groups = [tuple(statement.ranges) for statement in self.kernel.src]
        groups += [n.src[1:] for n in self.kernel.toposort() if n.op is ops.REDUCE]
        for group in groups:
            several = sorted((r for r in group if r.arg[1] in ("loop", "reduce")), key=lambda r: r.arg[0])
            for outer, inner in itertools.pairwise(several):
                alone = not self.bound_depends(outer) and not self.bound_depends(inner)
                together = all((outer in g) == (inner in g) for g in groups)
                bounds = [r.src[0].ranges for r in ranges_of(self.kernel).values()]
                used = any(outer in ranges or inner in ranges for ranges in bounds)
                if outer.arg[1] == inner.arg[1] and alone and together and not used:
                    found.append((outer, inner))
        return self.draw(st.sampled_from(found)) if found else None

    def flatten(self):
        pair = self.pair()
        if pair is not None:
            self.do(Flatten(pair[0].arg[0], pair[1].arg[0], self.fresh()))

    def merge(self):
        pair = self.pair()
        if pair is not None and walks_as_one(self.kernel, *pair):
            self.do(Merge(pair[0].arg[0], pair[1].arg[0], self.fresh()))

    def order(self):
        """Any order in which bounds are known, and ordered ranges keep theirs."""
        numbers = [number for number, _ in self.ranges("loop", "reduce", "ordered", "global")]
        wanted = self.draw(st.permutations(numbers))
        found, done = ranges_of(self.kernel), []
        in_order = [number for number in self.in_order if number in numbers]
        while len(done) < len(wanted):
            for number in wanted:
                if number in done:
                    continue
                before = {r.arg[0] for r in found[number].src[0].ranges}
                if number in in_order:
                    before |= set(in_order[: in_order.index(number)])
                if before & set(numbers) <= set(done):
                    done.append(number)
                    break
        self.do(Order(tuple(done)))


def walks_as_one(kernel, outer, inner):
    size = inner.src[0]
    if not size.is_const:
        return False
    for n in kernel.toposort():
        if n.op in (ops.LOAD, ops.STORE):
            form = affine(n.src[1])
            if not (form.depends_only_linearly(outer) and form.depends_only_linearly(inner)):
                return False
            if form.factor(outer) != form.factor(inner) * size.arg[0]:
                return False
        gates = {ops.LOAD: n.src[2:3], ops.STORE: n.src[3:]}.get(n.op, ())
        if any(outer in g.ranges or inner in g.ranges for g in gates):
            return False
        used = outer in n.src or inner in n.src
        if used and n.op not in (ops.LOAD, ops.STORE, ops.REDUCE) and n.dtype is not dtypes.index:
            return False
    return True


def choose(draw, kernel, length):
    chooser = Chooser(draw, kernel)
    for _ in range(length):
        getattr(chooser, draw(st.sampled_from(["split", "split", "bind", "bind", "flatten", "merge"])))()
    if chooser.must_order or draw(st.booleans()):
        chooser.order()
    return chooser


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_random_actions(name):
    kernel = kernel_of(KERNELS[name]())
    base = indexed(kernel)
    bindings = {N: 13} if "symbolic" in name else {}

    @settings(max_examples=25, deadline=None, database=None, print_blob=True)
    @given(st.data())
    def holds(data):
        chooser = choose(data.draw, base, data.draw(st.integers(1, 6)))
        size = data.draw(st.sampled_from([0, 1, 7, 24])) if "symbolic" in name else 13
        values = dict.fromkeys(bindings, size)
        arrays = arrays_for(kernel, values)
        wanted = expected(kernel, arrays, values)
        actions = "; ".join(map(str, chooser.actions))
        if not any(chooser.bound_depends(r) for r in ranges_of(chooser.kernel).values()):
            # Bounds that depend on other ranges have a meaning at program level only.
            tiled = run_kernel(chooser.kernel, arrays, values)
            assert (tiled == wanted).all(), f"kernel level: {actions}"
        found = run_program(program_of(kernel, chooser.kernel, LANES), arrays, values)
        assert (found == wanted).all(), f"program level: {actions}"

    holds()


@pytest.mark.parametrize("name", sorted(KERNELS))
@pytest.mark.parametrize("seed", range(2))
def test_random_actions_in_native_code(name, seed):
    need("CPU")
    kernel = kernel_of(KERNELS[name]())
    base = indexed(kernel)
    found = []

    @settings(max_examples=1, deadline=None, database=None, phases=[Phase.generate])
    @hypothesis.seed(seed)
    @given(st.data())
    def draw_one(data):
        found.append(choose(data.draw, base, 5))

    draw_one()
    chooser = found[-1]
    values = {N: 11} if "symbolic" in name else {}
    arrays = arrays_for(kernel, values)
    target = get_device("CPU").target
    program = program_of(kernel, chooser.kernel, target)
    equal(run_on("CPU", program, arrays, values), expected(kernel, arrays, values))


# --- each action --------------------------------------------------------------------------------------------


def tiled(root, *actions, target=LANES):
    """The program of a kernel under these actions, run and compared; answers the program."""
    kernel = kernel_of(root)
    result = apply(indexed(kernel), actions)
    arrays = arrays_for(kernel)
    program = program_of(kernel, result, target)
    equal(run_program(program, arrays), expected(kernel, arrays))
    return program


def count(program, op):
    return sum(n.op is op for n in program.linear.src)


def lanes_of(program):
    return {n.shape for n in program.linear.src if n.op in (ops.LOAD, ops.STORE) or n.op.elementwise} - {()}


def test_actions_can_be_printed():
    assert str(Split(0, 16, outer=7, inner=8, tail="peel")) == "split r0 by 16 -> r7, r8 (peel)"
    assert str(Bind(3, "vector")) == "bind r3 to vector"
    assert str(Order((2, 0, 1))) == "order r2, r0, r1"
    assert str(Merge(0, 1, 5)) == "merge r0, r1 -> r5"
    assert str(Flatten(0, 1, 5)) == "flatten r0, r1 -> r5"
    assert "r4" in str(GroupReduce(4, 9))
    assert "buffer 2" in str(Stage(2, 4, 9))


def test_actions_stay_in_the_kernel():
    actions = (Split(0, 4, 7, 8), Bind(8, "vector"))
    assert apply(indexed(kernel_of(x(16) + 1)), actions).arg == actions


TAILS = ["bound", "peel", "peel mask", "mask", "overlap"]


@pytest.mark.parametrize(
    ("tail", "size"),
    [(tail, size) for tail in TAILS for size in (3, 4, 19, 40) if tail != "overlap" or size <= 19],
)
def test_split(tail, size):
    program = tiled(x(19) + 1, Split(0, size, 7, 8, tail, 9))
    bodies = 2 if tail.startswith("peel") and size < 19 else 1
    assert count(program, ops.STORE) == bodies


def test_lanes_load_and_store_neighbours():
    program = tiled(x(4, 16) + x(4, 16, identity=2), Split(1, 8, 7, 8), Bind(8, "vector"))
    assert lanes_of(program) == {(8,)}
    assert {n.arg for n in program.linear.src if n.op is ops.LOAD} == {8}


def test_lanes_of_a_reduction():
    program = tiled(total(x(4, 16), 1), Split(1, 8, 7, 8), Bind(8, "vector"))
    assert count(program, ops.LANE_REDUCE) == 1


def test_lanes_that_gather():
    program = tiled(permute(x(16, 4), 1, 0) + 1, Split(1, 8, 7, 8), Bind(8, "vector"))
    loads = [n for n in program.linear.src if n.op is ops.LOAD]
    assert [n.src[1].shape for n in loads] == [(8,)]


def test_masked_lanes():
    program = tiled(x(13) + 1, Split(0, 8, 7, 8, "mask"), Bind(8, "vector"))
    assert any(
        not n.src[2].is_const and n.src[2].shape == (8,) for n in program.linear.src if n.op is ops.LOAD
    )


def test_unrolled_copies_share_their_loads():
    a, b = x(8, 16), x(16, 8, identity=2)
    program = tiled(matmul(a, b), Split(0, 4, 7, 8), Bind(8, "unroll"))
    # Four rows of a, one element of b, in each step of the reduction.
    assert count(program, ops.LOAD) == 5
    assert count(program, ops.ACCUMULATOR) == 4


def test_unrolled_reduction_keeps_several_sums():
    program = tiled(total(x(2, 16), 1), Split(1, 4, 7, 8), Bind(8, "unroll"))
    assert count(program, ops.ACCUMULATOR) == 4


def test_merged_ranges_are_one_loop():
    program = tiled(x(4, 16) + 1, Merge(0, 1, 5))
    assert count(program, ops.RANGE) == 1


def test_flattened_ranges_are_one_loop():
    program = tiled(permute(x(4, 6), 1, 0) + 1, Flatten(0, 1, 5))
    assert count(program, ops.RANGE) == 1


def test_grid():
    program = tiled(x(4, 6) + 1, Bind(0, "global"), Bind(1, "global"))
    assert program.grid == (4, 6)
    assert count(program, ops.END) == 0


def test_order():
    program = tiled(permute(x(4, 6), 1, 0) + 1, Order((1, 0)))
    assert [n.src[0].arg[0] for n in program.linear.src if n.op is ops.RANGE] == [4, 6]


def test_symbolic_grid():
    kernel = kernel_of(x(N, 3) + 1)
    result = apply(indexed(kernel), [Split(0, 4, 7, 8, "bound"), Bind(7, "global")])
    program = program_of(kernel, result, LANES)
    (size,) = program.grid
    for length in (0, 1, 4, 5, 24):
        assert dims.evaluate(size, {N: length}) == -(-length // 4)
        arrays = arrays_for(kernel, {N: length})
        equal(run_program(program, arrays, {N: length}), expected(kernel, arrays, {N: length}))


def test_an_unknown_range():
    with pytest.raises(CompileError, match="no range r17"):
        apply(indexed(kernel_of(x(4) + 1)), [Bind(17, "unroll")])


def test_a_range_that_was_not_needed_is_skipped():
    apply(indexed(kernel_of(x(8) + 1)), [Split(0, 8, 5, 6, "peel", 7), Bind(5, "global"), Bind(7, "unroll")])


def test_lanes_need_a_constant_bound():
    kernel = kernel_of(x(N) + 1)
    with pytest.raises(CompileError, match="constant bound"):
        program_of(kernel, apply(indexed(kernel), [Bind(0, "vector")]), LANES)


def test_two_vector_ranges_are_refused():
    kernel = kernel_of(permute(x(4, 4), 1, 0) + 1)
    with pytest.raises(CompileError, match="two vector"):
        program_of(kernel, apply(indexed(kernel), [Bind(0, "vector"), Bind(1, "vector")]), LANES)


def test_bounds_of_peeled_and_unrolled_ranges():
    kernel = indexed(kernel_of(x(19) + 1))
    bound = apply(kernel, [Split(0, 4, 7, 8, "bound")])
    with pytest.raises(CompileError, match="peeled"):
        apply(bound, [Split(7, 2, 10, 11, "peel", 12)])
    with pytest.raises(CompileError, match="unrolled"):
        program_of(kernel_of(x(19) + 1), apply(bound, [Bind(7, "unroll")]), LANES)


def test_overlapping_tiles_are_whole():
    program = tiled(x(19) + 1, Split(0, 8, 7, 8, "overlap"), Bind(8, "vector"))
    assert lanes_of(program) == {(8,)}
    (store,) = [n for n in program.linear.src if n.op is ops.STORE]
    assert store.src[3].is_const  # no mask


@pytest.mark.parametrize(
    ("root", "number"),
    [
        (lambda: total(x(4, 19), 1), 1),  # a sum would have elements twice
        (lambda: x(7) + 1, 0),  # shorter than a tile
        (lambda: x(N) + 1, 0),
        (lambda: assign(x(19), x(19) * 2 + 1), 0),  # what is read may have been written already
    ],
)
def test_tiles_that_must_not_overlap(root, number):
    kernel = indexed(kernel_of(root()))
    with pytest.raises(CompileError, match="overlap"):
        apply(kernel, [Split(number, 8, 7, 8, "overlap")])


# --- work-groups --------------------------------------------------------------------------------------------


def barriers(program):
    return count(program, ops.BARRIER)


@pytest.mark.parametrize("size", [8, 13, 64, 5])
def test_reduction_across_a_group(size):
    program = tiled(
        total(x(3, size), 1) + 1,
        Split(1, 8, 7, 8, "mask"),
        Bind(8, "local"),
        GroupReduce(8, 9),
        Bind(0, "global"),
        target=GROUPS,
    )
    assert program.group == (8,)
    assert barriers(program) >= 1


def test_group_reduction_of_every_monoid():
    for op in (ops.ADD, ops.MUL, ops.MAX, ops.MIN, ops.AND, ops.OR, ops.XOR):
        tiled(
            reduce(x(3, 21), op, 1),
            Split(1, 8, 7, 8, "mask"),
            Bind(8, "local"),
            GroupReduce(8, 9),
            Bind(0, "global"),
            target=GROUPS,
        )


@pytest.mark.parametrize("kind", ["local", "unroll", "vector", "loop"])
@pytest.mark.parametrize("rows", [4, 8, 7])
def test_a_group_reduces_several_rows(kind, rows):
    """Rows that are computed at the same time meet in places of their own."""
    tiled(
        total(x(rows, 21), 1) * 2,
        Split(0, 4, 10, 11, "mask"),
        Bind(11, kind),
        Bind(10, "global"),
        Split(1, 8, 7, 8, "mask"),
        Bind(8, "local"),
        GroupReduce(8, 9),
        target=GROUPS,
    )


def test_one_work_item_stores_the_result_of_a_group():
    program = tiled(
        total(x(3, 21), 1),
        Split(1, 8, 7, 8, "mask"),
        Bind(8, "local"),
        GroupReduce(8, 9),
        Bind(0, "global"),
        target=GROUPS,
    )
    (store,) = (n for n in program.linear.src if n.op is ops.STORE and n.src[0].op is ops.PARAM)
    assert not store.src[3].is_const


def test_group_reduction_in_a_loop():
    tiled(total(x(3, 21), 1), Split(1, 8, 7, 8, "mask"), Bind(8, "local"), GroupReduce(8, 9), target=GROUPS)


def stage_actions(m, n, k, tile=4):
    """Rows and columns in tiles of work-items, both operands staged."""

    def row(number, outer, inner):
        return (Split(number, tile, outer, inner, "mask"), Bind(outer, "global"), Bind(inner, "local"))

    actions = [*row(0, 10, 11), *row(1, 12, 13), Split(2, tile, 14, 15, "mask")]
    sizes = ((10, m), (11, 0), (12, n), (13, 0), (14, k), (15, 0))
    order = [number for number, size in sizes if size == 0 or size > tile]
    actions.append(Order(tuple(order)))
    step = order.index(14)
    return [*actions, Stage(1, step, 100), Stage(2, step, 101)]


@pytest.mark.parametrize(("m", "n", "k"), [(8, 8, 8), (5, 7, 9), (9, 5, 12), (8, 13, 5)])
def test_staged_matmul(m, n, k):
    program = tiled(matmul(x(m, k), x(k, n, identity=2)), *stage_actions(m, n, k), target=GROUPS)
    assert sum(n.op is ops.SCRATCH for n in program.linear.toposort()) == 2
    assert barriers(program) >= 2


@pytest.mark.parametrize(("m", "n", "k"), [(8, 8, 8), (5, 7, 9)])
def test_staged_matmul_on_a_device(m, n, k):
    need("CL")
    kernel = kernel_of(matmul(x(m, k), x(k, n, identity=2)) + 1)
    result = apply(indexed(kernel), stage_actions(m, n, k))
    arrays = arrays_for(kernel)
    program = program_of(kernel, result, get_device("CL").target)
    equal(run_on("CL", program, arrays), expected(kernel, arrays))

"""Plans: a known graph runs again with other buffers, and nothing is scheduled, lowered or looked up for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from graphs import (
    assign,
    contiguous,
    data,
    expand,
    gather,
    layer_norm,
    matmul,
    need,
    node,
    permute,
    relu,
    reshape,
    softmax,
    total,
)

from tinycore import extra_rules
from tinycore.config import override
from tinycore.errors import BindingError, TinycoreError
from tinycore.interpret import interpret
from tinycore.ir import dtypes
from tinycore.runtime import bound, compiler, plan
from tinycore.runtime.capture import capture
from tinycore.runtime.device import Launch
from tinycore.runtime.devices import get_device
from tinycore.runtime.environment import PassSpec, environment, override_environment
from tinycore.runtime.plan import plan_of
from tinycore.runtime.realize import KernelCall, collect, realize
from tinycore.runtime.storage import from_host, storage_of, to_host


@pytest.fixture(autouse=True)
def on_cpu():
    need("CPU")
    plan.forget_plans()


def ones(*shape, value=1.0):
    return from_host(np.full(shape, value, np.float32), "CPU")


def network(x, *weights):
    for weight in weights[:-1]:
        x = relu(matmul(x, weight))
    return softmax(matmul(x, weights[-1]))


PROGRAMS = {
    "one op": (lambda x, y: [x + y], [(5, 7), (5, 7)]),
    "the same twice": (lambda x, y: [x * x + y, x * x + y], [(5, 7), (5, 7)]),
    "views of results": (lambda x, y: [reshape(x + y, 35), reshape(x + y, 7, 5)], [(5, 7), (5, 7)]),
    "views of inputs": (lambda x, y: [reshape(x, 35), x - y], [(5, 7), (5, 7)]),
    "an input itself": (lambda x, y: [x, x - y], [(5, 7), (5, 7)]),
    "network": (lambda *given: [network(*given)], [(9, 20), (20, 33), (33, 33), (33, 6)]),
    "norm and sums": (lambda x: [layer_norm(x, 33), total(x, 0, 1)], [(9, 33)]),
    "temporaries": (lambda x: [contiguous(contiguous(x + 1.0) * 2.0) - 3.0], [(40,)]),
    "constants": (lambda x: [expand(x.const_like(2.0), 4, 3) if not x.shape else x * 0.5], [(4, 3)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_later_uses_have_the_values_of_their_inputs(name):
    program, shapes = PROGRAMS[name]
    for turn in range(4):
        arrays = [data(shape, seed=turn * 10 + place) for place, shape in enumerate(shapes)]
        nodes = [from_host(array, "CPU") for array in arrays]
        found = [to_host(result) for result in realize(program(*nodes))]
        wanted = interpret(program(*nodes), dict(zip(nodes, arrays, strict=True)))
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_third_call_schedules_and_compiles_nothing(monkeypatch):
    weights = [ones(8, 8, value=0.1), ones(8, 8, value=0.2)]
    for _ in range(2):
        realize([network(ones(4, 8), *weights)])

    def never(*arguments, **options):
        raise AssertionError("a known graph was worked on again")

    monkeypatch.setattr(plan, "make_schedule", never)
    monkeypatch.setattr(plan, "number_buffers", never)
    monkeypatch.setattr(bound, "compile_kernels", never)
    monkeypatch.setattr(KernelCall, "run", never)
    monkeypatch.setattr(compiler, "lower", never)
    (result,) = realize([network(ones(4, 8, value=2.0), *weights)])
    np.testing.assert_allclose(to_host(result), 1 / 8, rtol=1e-6)


def test_the_same_program_on_other_buffers_is_one_plan():
    x, y = (node((4, 4), identity=number, device="CPU") for number in (11, 12))
    one, inputs = plan_of([softmax(x)], "CPU")
    other, others = plan_of([softmax(y)], "CPU")
    assert one is other
    assert (inputs, others) == ([x], [y])
    assert plan_of([softmax(node((4, 5), device="CPU"))], "CPU")[0] is not one
    assert plan_of([softmax(node((4, 4), dtypes.float64, device="CPU"))], "CPU")[0] is not one
    assert plan_of([softmax(x)], "INTERPRETER")[0] is not one, "the device of constants is part of it"


def test_passes_and_rules_that_take_part_are_part_of_it(tmp_path):
    x = node((4, 4), device="CPU")
    one, _ = plan_of([softmax(x)], "CPU")
    nothing = PassSpec("nothing", "schedule", run=lambda placement, context: placement)
    known = environment()
    passes = {**known.passes, "schedule": (*known.passes_at("schedule"), nothing)}
    with override_environment(replace(known, passes=passes)):
        assert plan_of([softmax(x)], "CPU")[0] is not one
    path = tmp_path / "mine.rules"
    path.write_text("group mine(bottom_up) @stage(late) { twice: x:Float + x => x * 2 }")
    with extra_rules(path):
        other, _ = plan_of([softmax(x)], "CPU")
        assert other is not one
        assert plan_of([softmax(x)], "CPU")[0] is other
    assert plan_of([softmax(x)], "CPU")[0] is one


def test_only_the_latest_plans_are_kept():
    for size in range(1, plan._KEPT + 40):
        plan_of([node((size,), device="INTERPRETER") + 1.0], "INTERPRETER")
    assert len(plan._plans) <= plan._KEPT


def test_forgotten_plans_are_made_anew():
    x = ones(3)
    first, _ = plan_of([x + 1.0], "CPU")
    compiler.forget_loaded()
    assert plan_of([x + 1.0], "CPU")[0] is not first


def test_changes_in_place_are_seen():
    x, y = ones(6), ones(6, value=5.0)
    for turn in range(1, 6):
        version = storage_of(x).version
        (result,) = realize([assign(x, x + y)])
        assert result is x
        assert storage_of(x).version > version
        np.testing.assert_array_equal(to_host(x), 1 + 5 * turn)


def test_changes_beside_another_one_are_seen():
    x, y = ones(6), ones(6, value=5.0)
    for turn in range(1, 6):
        versions = [storage_of(x).version, storage_of(y).version]
        realize([assign(x, x + 2.0), assign(y, y + x)])  # one kernel: y reads the old x
        assert storage_of(x).version > versions[0] and storage_of(y).version > versions[1]
        np.testing.assert_array_equal(to_host(x), 1 + 2 * turn)
        np.testing.assert_array_equal(to_host(y), 5 + turn * turn)


def test_packed_weights_follow_their_source():
    """The copy of a weight in another layout is made again when the weight has changed, and only then."""
    weight = ones(256, 256, value=0.5)

    def packed():
        (copy,) = storage_of(weight)._derived.values()
        return copy

    versions = []
    for value in (0.5, 0.5, 0.5, 2.0, 2.0, 3.0):
        if versions and to_host(weight)[0, 0] != value:
            storage_of(weight).copy_in(memoryview(np.full(256 * 256, value, np.float32)).cast("B"))
        (result,) = realize([matmul(ones(64, 256), permute(weight, 1, 0))])
        np.testing.assert_array_equal(to_host(result), 256 * value)
        versions.append(packed().version)
    assert versions == [1, 1, 1, 2, 2, 3]


def test_results_are_buffers_of_their_own():
    x = ones(16)
    results = [realize([x + 1.0])[0] for _ in range(5)]
    assert len({storage_of(result).memory for result in results}) == 5
    assert len(set(results)) == 5
    for result in results:
        np.testing.assert_array_equal(to_host(result), 2)


def test_whoever_watches_sees_every_launch():
    x = ones(16)
    for _ in range(3):
        realize([contiguous(x * 3.0) + 1.0])
    with collect() as times:
        realize([contiguous(x * 3.0) + 1.0])
    assert len(times) == 2
    with capture() as recording:
        realize([contiguous(x * 3.0) + 1.0])
    assert len(recording.calls) == 2
    with override(validate=True):
        (result,) = realize([contiguous(x * 3.0) + 1.0])
    np.testing.assert_array_equal(to_host(result), 4)


def test_memory_that_is_not_there_frees_the_rest(monkeypatch):
    x = ones(1 << 10)
    program = lambda: [contiguous(contiguous(x + 1.0) * 2.0) - 3.0]  # noqa: E731
    for _ in range(2):
        realize(program())
    allocator = get_device("CPU").allocator
    before, allocate, allowed = allocator.stats().in_use, type(allocator).allocate, [1]

    def scarce(self, nbytes):
        if not allowed:
            raise TinycoreError("no memory")
        allowed.pop()
        return allocate(self, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(type(allocator), "allocate", scarce)
        with pytest.raises(TinycoreError, match="no memory"):
            realize(program())
    assert allocator.stats().in_use == before
    np.testing.assert_array_equal(to_host(realize(program())[0]), 1)


def test_temporaries_are_given_back():
    x = ones(1 << 10)
    used = []
    for _ in range(6):
        (result,) = realize([contiguous(contiguous(x + 1.0) * 2.0) - 3.0])
        used.append(get_device("CPU").allocator.stats().in_use)
        del result
    assert len(set(used[1:])) == 1


def test_threads_share_a_plan():
    weight = ones(16, 16, value=0.25)
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        for turn in range(60):
            value = float(number * 100 + turn)
            (result,) = realize([contiguous(matmul(ones(4, 16, value=value), weight) + 1.0) * 2.0])
            np.testing.assert_array_equal(to_host(result), (4 * value + 1) * 2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_gathers_scatters_and_integers():
    table = from_host(np.arange(40, dtype=np.int32).reshape(10, 4), "CPU")
    for turn in range(4):
        wanted = (np.arange(6) + turn) % 10
        (result,) = realize([gather(table, from_host(wanted.astype(np.int32), "CPU")) * 2])
        np.testing.assert_array_equal(to_host(result), np.arange(40).reshape(10, 4)[wanted] * 2)


def test_a_graph_takes_the_buffers_of_all_launches():
    device = get_device("CPU")
    x = ones(4)
    with capture() as recording:
        realize([contiguous(x + 1.0) * 2.0])
    launches = [
        Launch(call.compiled.executable, tuple([b.memory for b in call.buffers]), (), call.compiled.grid)
        for call in recording.calls
    ]
    graph = device.capture(launches)
    source, between, target = ones(4, value=7.0), ones(4), ones(4)
    memories = [storage_of(one).memory for one in (between, source, target, between)]
    graph.rebind(memories)
    graph.replay()
    np.testing.assert_array_equal(to_host(target), 16)
    for wrong in (memories[:-1], [*memories, memories[0]]):
        with pytest.raises(BindingError, match="takes 4 buffers"):
            graph.rebind(wrong)

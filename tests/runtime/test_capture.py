"""Capture and replay: other inputs, other symbolic values, on devices with graphs and without."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import DEVICES, assign, compilations, contiguous, copy, data, matmul, need, permute, relu, total

from tinycore.config import override
from tinycore.errors import BindingError, TinycoreError
from tinycore.ir import UOp
from tinycore.runtime import plan
from tinycore.runtime.capture import capture
from tinycore.runtime.device import GraphDevice
from tinycore.runtime.devices import get_device
from tinycore.runtime.realize import CopyCall, collect, realize
from tinycore.runtime.storage import from_host, storage_of, to_host

INTS = np.int32
N = UOp.variable("n", 1, 32)


def program(x, w):
    return [contiguous(relu(matmul(x, w))) + 1, total(x, 0)]


def meaning(x, w):
    return [np.maximum(x @ w, 0) + 1, x.sum(0, keepdims=True, dtype=x.dtype)]


def captured(device):
    x, w = from_host(data((6, 5), INTS), device), from_host(data((5, 7), INTS, 1), device)
    with capture() as recording:
        results = realize(program(x, w))
    recording.declare_inputs([storage_of(x)])
    return recording, results, (x, w)


@pytest.fixture(params=[*DEVICES, "CPU without graphs"])
def device(request, monkeypatch):
    name = request.param.split()[0]
    need(name)
    if request.param != name:
        plan.forget_plans()  # those of the device as it is
        monkeypatch.delattr(type(get_device(name)), "capture")
        assert not isinstance(get_device(name), GraphDevice)
    return name


def test_other_inputs(device):
    recording, results, (_, w) = captured(device)
    weight = to_host(w)
    for seed in range(2, 6):
        array = data((6, 5), INTS, seed)
        with compilations() as names:
            recording.replay([storage_of(from_host(array, device))])
        assert names == []
        for result, wanted in zip(results, meaning(array, weight), strict=True):
            np.testing.assert_array_equal(to_host(result), wanted)


def test_the_same_inputs(device):
    recording, results, (x, w) = captured(device)
    storage_of(x).copy_in(memoryview(data((6, 5), INTS, 9).view(np.uint8).reshape(-1)))
    recording.replay([storage_of(x)])
    for result, wanted in zip(results, meaning(to_host(x), to_host(w)), strict=True):
        np.testing.assert_array_equal(to_host(result), wanted)


def test_capture_runs_as_usual(device):
    _, results, (x, w) = captured(device)
    for result, wanted in zip(results, meaning(to_host(x), to_host(w)), strict=True):
        np.testing.assert_array_equal(to_host(result), wanted)


def test_back_to_an_earlier_input(device):
    recording, results, (x, w) = captured(device)
    first, second = from_host(data((6, 5), INTS, 4), device), from_host(data((6, 5), INTS, 5), device)
    for given in (first, second, first, x, second):
        recording.replay([storage_of(given)])
        np.testing.assert_array_equal(to_host(results[0]), meaning(to_host(given), to_host(w))[0])


def test_a_graph_is_told_only_what_changed(monkeypatch):
    """100 small kernels are one call of the device; another input concerns those that read it."""
    need("CPU")
    graph = type(get_device("CPU").capture([]))
    told: list[int] = []
    update = graph.update
    monkeypatch.setattr(
        graph,
        "update",
        lambda self, position, launch: (told.append(position), update(self, position, launch)),
    )
    x, y = from_host(np.ones(1, INTS), "CPU"), from_host(np.full(1, 5, INTS), "CPU")
    with capture() as recording:
        results = [realize([(x if number % 10 else y) + number])[0] for number in range(1, 101)]
    recording.declare_inputs([storage_of(x), storage_of(y)])
    recording.replay([storage_of(x), storage_of(y)])
    told.clear()
    recording.replay([storage_of(x), storage_of(y)])
    assert told == []
    other = from_host(np.full(1, 7, INTS), "CPU")
    recording.replay([storage_of(x), storage_of(other)])
    assert sorted(told) == list(range(9, 100, 10))
    assert [to_host(node)[0] for node in results] == [(1 if n % 10 else 7) + n for n in range(1, 101)]


def test_state_that_every_replay_changes(device):
    x, step = from_host(np.zeros(40, INTS), device), from_host(np.arange(40, dtype=INTS), device)
    with capture() as recording:
        realize([assign(x, x + step)])
        realize([assign(x, x * 2)])
    wanted = np.arange(40) * 2
    for _ in range(5):
        np.testing.assert_array_equal(to_host(x), wanted)
        recording.replay()
        wanted = (wanted + np.arange(40)) * 2
    np.testing.assert_array_equal(to_host(x), wanted)


def test_other_symbolic_values(device):
    def given(size):
        array = data((size, 3), INTS, size)
        return array, from_host(array, device, shape=(N, 3), bindings={N: size})

    array, x = given(5)
    with capture() as recording:
        sums, turned = realize([total(x, 0) + 1, permute(x * 2, 1, 0)], {N: 5})
    recording.declare_inputs([storage_of(x)])
    for size in (1, 32, 5, 17):
        array, other = given(size)
        recording.replay([storage_of(other)], {N: size})
        np.testing.assert_array_equal(to_host(sums, {N: size})[0], array.sum(0) + 1)
        np.testing.assert_array_equal(to_host(turned, {N: size}), array.T * 2)
    with pytest.raises(BindingError):
        recording.replay([storage_of(x)], {N: 33})


def test_copies_between_devices():
    need("CPU", "CL")
    x = from_host(data((6, 5), INTS), "CPU")
    with capture() as recording:
        (result,) = realize([total(copy(copy(x * 2, "CL") + 1, "CPU"), 0) * 3])
    assert sum(isinstance(call, CopyCall) for call in recording.calls) == 2
    recording.declare_inputs([storage_of(x)])
    array = data((6, 5), INTS, 7)
    recording.replay([storage_of(from_host(array, "CPU"))])
    np.testing.assert_array_equal(to_host(result)[0], (array * 2 + 1).sum(0) * 3)


def test_timed_replays(device, capsys):
    recording, results, (x, w) = captured(device)
    array = from_host(data((6, 5), INTS, 8), device)
    with collect() as rows:
        recording.replay([storage_of(array)])
    assert len(rows) == 3
    with override(debug=2):
        recording.replay([storage_of(x)])
    np.testing.assert_array_equal(to_host(results[0]), meaning(to_host(x), to_host(w))[0])


def test_an_input_that_is_used_twice():
    x = from_host(np.arange(4, dtype=INTS), "INTERPRETER")
    with capture() as recording:
        (result,) = realize([x * x + permute(x, 0)])
    recording.declare_inputs([storage_of(x)])
    recording.replay([storage_of(from_host(np.full(4, 5, INTS), "INTERPRETER"))])
    np.testing.assert_array_equal(to_host(result), [30] * 4)


def test_declaring_one_buffer_twice_is_refused():
    x = from_host(np.arange(4, dtype=INTS), "INTERPRETER")
    with capture() as recording:
        realize([x + 1])
    with pytest.raises(BindingError, match="twice"):
        recording.declare_inputs([storage_of(x), storage_of(x)])


def test_inputs_that_do_not_fit():
    recording, _, _ = captured("INTERPRETER")
    small = from_host(np.zeros(3, INTS), "INTERPRETER")
    with pytest.raises(BindingError, match="input 0"):
        recording.replay([storage_of(small)])
    with pytest.raises(BindingError, match="1 inputs were captured, 0"):
        recording.replay([])
    need("CPU")
    elsewhere = from_host(data((6, 5), INTS), "CPU")
    with pytest.raises(BindingError, match="CPU"):
        recording.replay([storage_of(elsewhere)])


def test_an_exception_inside(device):
    x = from_host(np.arange(4, dtype=INTS), device)
    with pytest.raises(ZeroDivisionError), capture() as recording:
        realize([x + 1])
        raise ZeroDivisionError
    recorded = len(recording.calls)
    realize([x + 2])
    assert len(recording.calls) == recorded, "nothing is recorded any more"
    with capture() as again:
        (result,) = realize([x + 3])
    assert len(again.calls) == 1
    np.testing.assert_array_equal(to_host(result), np.arange(4) + 3)


def test_an_error_of_a_kernel_inside(device, monkeypatch):
    from tinycore.runtime.realize import KernelCall

    x = from_host(np.arange(4, dtype=INTS), device)
    run = KernelCall.run

    def fail(call, bindings):
        monkeypatch.setattr(KernelCall, "run", run)
        raise TinycoreError("no")

    monkeypatch.setattr(KernelCall, "run", fail)
    with capture() as recording:
        with pytest.raises(TinycoreError):
            realize([x + 1])
        (result,) = realize([x + 2])
    np.testing.assert_array_equal(to_host(result), np.arange(4) + 2)
    assert len(recording.calls) == 1, "what failed is not repeated"


def test_recordings_nest():
    x = from_host(np.arange(4, dtype=INTS), "INTERPRETER")
    with capture() as outer:
        realize([x + 1])
        with capture() as inner:
            realize([x + 2])
    assert (len(outer.calls), len(inner.calls)) == (2, 1)


def test_an_empty_recording():
    with capture() as recording:
        pass
    recording.replay()
    assert recording.calls == []


def test_a_recording_keeps_its_memory_alive(device):
    recording, results, _ = captured(device)
    result = to_host(results[0])
    keep = results[0]
    del results, _
    for seed in range(3):  # would take the memory of buffers that are not held
        from_host(data((64, 64), INTS, seed), device)
    recording.replay([recording._inputs[0]])
    np.testing.assert_array_equal(to_host(keep), result)


def test_long_recordings():
    """Hundreds of kernels are replayed by one call of the device."""
    need("CPU")
    x = from_host(np.ones(16, INTS), "CPU")
    value = x
    for _ in range(300):
        value = contiguous(value + 1)
    with capture() as recording:
        (result,) = realize([value])
    assert len(recording.calls) == 300
    recording.replay()
    recording.replay()
    np.testing.assert_array_equal(to_host(result), np.full(16, 301))

"""Memory is given back when nobody can reach it any more."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from graphs import DEVICES, assign, contiguous, data, matmul, need, relu, reshape, total

from tinycore.errors import TinycoreError
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime import storage
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.capture import capture
from tinycore.runtime.devices import get_device
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, storage_of, to_host

MEGABYTE = 1 << 20


class Counting:
    """An allocator that knows what is in use, in front of a device's own."""

    def __init__(self, inner):
        self.inner, self.live, self.peak, self.count = inner, {}, 0, 0

    def allocate(self, nbytes):
        memory = self.inner.allocate(nbytes)
        self.count += 1
        self.live[self.count] = nbytes
        self.peak = max(self.peak, sum(self.live.values()))
        return _Memory(memory, self.count)

    def free(self, memory, nbytes):
        assert self.live.pop(memory.number) == nbytes, "freed with another size, or twice"
        self.inner.free(memory.handle, nbytes)

    def copy_in(self, target, source):
        self.inner.copy_in(target.handle, source)

    def copy_out(self, target, source):
        self.inner.copy_out(target, source.handle)

    def host_view(self, memory, nbytes):
        return self.inner.host_view(memory.handle, nbytes)


class _Memory:
    def __init__(self, handle, number):
        self.handle, self.number = handle, number


@pytest.fixture
def counted(monkeypatch):
    """The interpreter's device with an allocator that counts."""
    device = get_device("INTERPRETER")
    counting = Counting(device.allocator)
    run = device.run
    monkeypatch.setattr(device, "allocator", counting)
    monkeypatch.setattr(
        device,
        "run",
        lambda kernel, buffers, bindings: run(kernel, [memory.handle for memory in buffers], bindings),
    )
    gc.collect()
    yield counting
    gc.collect()
    assert counting.live == {}


def test_results_and_temporaries_are_freed(counted):
    x = from_host(data((256, 256)), "INTERPRETER")
    assert sum(counted.live.values()) == 256 * 256 * 4
    value = x
    for _ in range(10):
        value = contiguous(value + 1.0)
    (result,) = realize([value])
    assert len(counted.live) == 2, "temporaries live as long as the schedule runs"
    assert counted.peak <= 4 * 256 * 256 * 4, "a chain needs two temporaries"
    del result
    gc.collect()
    assert len(counted.live) == 1
    del x, value


def test_unused_buffers_take_no_memory(counted):
    node = storage.new_buffer_node(dtypes.float32, (1 << 20,), "INTERPRETER")
    assert counted.live == {}
    assert storage_of(node).nbytes == 4 << 20
    assert counted.live == {}


def test_in_place_updates_allocate_nothing(counted):
    x = from_host(data((64,), np.int32), "INTERPRETER")
    realize([assign(x, x + 1)])
    before = counted.count
    for _ in range(5):
        realize([assign(x, x + 1)])
    assert counted.count == before
    del x


def test_a_view_keeps_its_buffer(counted):
    x = from_host(data((4, 6)), "INTERPRETER")
    (view,) = realize([reshape(x, 24)])
    del x
    gc.collect()
    assert len(counted.live) == 1
    assert to_host(view).shape == (24,)
    del view


def test_a_recording_keeps_its_buffers(counted):
    x = from_host(data((8,)), "INTERPRETER")
    with capture() as recording:
        realize([contiguous(x + 1.0) * 2.0])
    del x
    gc.collect()
    assert len(counted.live) == 3
    recording.replay()
    del recording


def test_a_failing_schedule_frees_everything(counted, monkeypatch):
    from tinycore.runtime.realize import KernelCall

    x = from_host(data((64,)), "INTERPRETER")
    run, ran = KernelCall.run, []

    def fail(call, bindings):
        ran.append(call)
        if len(ran) == 3:
            raise TinycoreError("no")
        run(call, bindings)

    with monkeypatch.context() as patch:
        patch.setattr(KernelCall, "run", fail)
        with pytest.raises(TinycoreError):
            realize([contiguous(contiguous(contiguous(x + 1.0) + 2.0) + 3.0)])
    ran.clear()
    gc.collect()
    assert len(counted.live) == 1
    del x


def test_cpu_memory_is_constant_over_many_steps():
    need("CPU")
    allocator = get_device("CPU").allocator
    w = from_host(data((100, 100)), "CPU")
    used = []
    for step in range(12):
        x = from_host(data((100, 100), seed=step), "CPU")
        hidden = relu(matmul(x, w))
        realize([assign(w, w - hidden * 0.01), total(hidden, 0, 1)])
        del x, hidden
        gc.collect()
        used.append(allocator.stats().in_use)
    assert used[-1] == used[2]
    before = allocator.stats().in_use
    del w
    gc.collect()
    assert allocator.stats().in_use < before


@pytest.mark.parametrize("device", DEVICES)
def test_buffers_die_with_their_nodes(device):
    need(device)
    x = from_host(data((32,)), device)
    (result,) = realize([x + 1.0])
    memory = weakref.ref(storage_of(result)) if hasattr(Buffer, "__weakref__") else None
    gc.collect()
    known = len(storage._storage)
    del result
    gc.collect()
    assert len(storage._storage) == known - 1
    assert memory is None or memory() is None


def test_two_nodes_may_share_memory():
    x = from_host(data((4,), np.int32), "INTERPRETER")
    other = storage.new_buffer_node(dtypes.int32, (4,), "INTERPRETER", storage_of(x))
    realize([assign(x, x.alu(ops.ADD, x.const_like(1)))])
    np.testing.assert_array_equal(to_host(other), to_host(x))


def test_hand_made_buffers_have_no_memory():
    node = UOp(ops.BUFFER, dtypes.float32, (), (987_654_321, (4,), "INTERPRETER"))
    with pytest.raises(TinycoreError, match="no memory"):
        realize([node + 1.0])


def test_more_memory_than_there_is():
    need("CPU")
    x = from_host(np.ones(1, np.float32), "CPU")
    huge = UOp(ops.EXPAND, x.dtype, (x,), (1 << 55,))
    with pytest.raises(TinycoreError, match="memory"):
        realize([huge + 1.0])
    (result,) = realize([x + 1.0])
    assert to_host(result)[0] == 2


def test_remembered_schedules_keep_no_buffer_alive():
    """The nodes of a schedule are never the nodes of stored buffers, whatever numbers both have."""
    gc.collect()
    before = len(storage._storage)
    for _ in range(40):
        x = from_host(data((8, 8)), "INTERPRETER")
        realize([contiguous(contiguous(x + 1.0) + 1.0) + 1.0, x * 2.0])
    del x
    gc.collect()
    assert len(storage._storage) == before

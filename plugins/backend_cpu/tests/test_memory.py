"""The allocator: aligned, disjoint, reused, bounded."""

from __future__ import annotations

import array
import gc
import os
import random
import signal
import sys
import threading
import time

import pytest
from tinycore_backend_cpu.memory import SMALL, HostAllocator, OutOfMemory, size_class
from tinycore_backend_cpu.pages import HUGE_PAGE, PAGE, map_pages, memory_view, unmap_pages

from tinycore.errors import DeviceError

MEGABYTE = 1 << 20


@pytest.fixture
def allocator():
    made = HostAllocator()
    yield made
    made.trim()


@pytest.mark.parametrize(
    "nbytes", [0, 1, 63, 64, 65, 1000, 4096, 100_000, SMALL, SMALL + 1, 3 * MEGABYTE + 5]
)
def test_alignment_and_use(allocator, nbytes):
    memory = allocator.allocate(nbytes)
    assert memory % 64 == 0
    if nbytes >= HUGE_PAGE:
        assert memory % HUGE_PAGE == 0
    view = allocator.host_view(memory, nbytes)
    assert view.nbytes == nbytes
    view[:] = bytes([7]) * nbytes
    assert bytes(view) == bytes([7]) * nbytes
    allocator.free(memory, nbytes)


def test_size_classes_waste_at_most_a_quarter():
    for nbytes in (*range(1, 3000), *(10**n + 3 for n in range(3, 11))):
        size = size_class(nbytes)
        assert size >= nbytes
        assert size % 64 == 0
        assert size - nbytes <= max(63, nbytes // 4, HUGE_PAGE if nbytes > HUGE_PAGE else 0)
        assert size_class(size) == size
        assert size <= HUGE_PAGE or size % HUGE_PAGE == 0


def test_live_allocations_never_overlap(allocator):
    generator = random.Random(3)
    live = {}
    for turn in range(3000):
        if live and generator.random() < 0.5:
            memory = generator.choice(list(live))
            nbytes, mark = live.pop(memory)
            assert bytes(allocator.host_view(memory, nbytes)) == mark * nbytes
            allocator.free(memory, nbytes)
        else:
            nbytes = generator.choice((0, 1, 64, 200, 5000, generator.randint(1, 300_000)))
            memory = allocator.allocate(nbytes)
            mark = bytes([turn % 251])
            allocator.host_view(memory, nbytes)[:] = mark * nbytes
            assert memory not in live
            live[memory] = nbytes, mark
    for memory, (nbytes, mark) in live.items():
        assert bytes(allocator.host_view(memory, nbytes)) == mark * nbytes
        allocator.free(memory, nbytes)
    assert allocator.stats().in_use == 0


@pytest.mark.parametrize("nbytes", [100, 50_000, 5 * MEGABYTE])
def test_freed_memory_is_used_again(allocator, nbytes):
    first = allocator.allocate(nbytes)
    allocator.free(first, nbytes)
    assert allocator.allocate(nbytes - 1) == first
    assert allocator.stats().idle == 0


def test_idle_memory_is_limited_and_the_oldest_goes_first():
    allocator = HostAllocator(idle_limit=10 * MEGABYTE)
    blocks = [allocator.allocate(4 * MEGABYTE) for _ in range(4)]
    mapped = allocator.stats().mapped
    for block in blocks:
        allocator.free(block, 4 * MEGABYTE)
    after = allocator.stats()
    assert after.idle == 8 * MEGABYTE
    assert mapped - after.mapped == 8 * MEGABYTE
    assert {allocator.allocate(4 * MEGABYTE), allocator.allocate(4 * MEGABYTE)} == set(blocks[2:])


def test_trim_gives_everything_idle_back(allocator):
    allocator.free(allocator.allocate(9 * MEGABYTE), 9 * MEGABYTE)
    assert allocator.stats().idle >= 9 * MEGABYTE
    allocator.trim()
    assert allocator.stats().idle == 0
    assert allocator.stats().mapped == 0


def test_out_of_memory_says_how_much(allocator):
    kept = allocator.allocate(1000)
    with pytest.raises(OutOfMemory, match="1,152,921,504,606,846,976 bytes") as caught:
        allocator.allocate(1 << 60)
    assert isinstance(caught.value, DeviceError)
    assert isinstance(caught.value, MemoryError)
    assert caught.value.hint
    assert allocator.stats().in_use == size_class(1000)
    allocator.free(kept, 1000)
    with pytest.raises(ValueError, match="-1"):
        allocator.allocate(-1)


def test_out_of_memory_first_gives_idle_memory_back(allocator, monkeypatch):
    allocator.free(allocator.allocate(4 * MEGABYTE), 4 * MEGABYTE)

    def scarce(size, alignment):
        if allocator._idle:
            raise MemoryError
        return map_pages(size, alignment)

    monkeypatch.setattr("tinycore_backend_cpu.memory.map_pages", scarce)
    memory = allocator.allocate(64 * MEGABYTE)
    assert allocator.stats().idle == 0
    allocator.free(memory, 64 * MEGABYTE)


def test_copies(allocator):
    numbers = array.array("f", [1.5, 2.5, -3.0])
    memory = allocator.allocate(12)
    allocator.copy_in(memory, memoryview(numbers))
    back = array.array("f", [0.0] * 3)
    allocator.copy_out(memoryview(back), memory)
    assert back == numbers
    part = allocator.view(memory, 4, 8)
    allocator.copy_in(part, memoryview(array.array("f", [9.0])))
    assert list(allocator.host_view(memory, 12).cast("f")) == [1.5, 9.0, -3.0]
    allocator.copy_in(memory, memoryview(b""))
    allocator.copy_out(memoryview(bytearray()), memory)
    allocator.free(memory, 12)


def test_copies_of_arrays(allocator):
    numpy = pytest.importorskip("numpy")
    for shape in ((), (0,), (3, 4), (2, 0, 5), (2, 3, 4)):
        values = numpy.arange(int(numpy.prod(shape)), dtype=numpy.int16).reshape(shape)
        memory = allocator.allocate(values.nbytes)
        allocator.copy_in(memory, memoryview(values))
        back = numpy.empty_like(values)
        allocator.copy_out(memoryview(back), memory)
        assert (back == values).all()
        seen = numpy.frombuffer(allocator.host_view(memory, values.nbytes), numpy.int16)
        assert (seen == values.ravel()).all()
        allocator.free(memory, values.nbytes)


def test_threads(allocator):
    failures = []

    def work(seed):
        generator = random.Random(seed)
        mark = bytes([seed])
        for _ in range(2000):
            nbytes = generator.choice((64, 100, 3000, 70_000))
            memory = allocator.allocate(nbytes)
            view = allocator.host_view(memory, nbytes)
            view[:] = mark * nbytes
            if bytes(view) != mark * nbytes:
                failures.append(seed)
            allocator.free(memory, nbytes)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert allocator.stats().in_use == 0


def test_free_from_a_finalizer_in_the_middle_of_an_allocation(allocator, monkeypatch):
    """The collector may run a finalizer at any allocation of an object, also while the lock is held."""

    class Owner:
        def __init__(self, memory):
            self.memory, self.me = memory, self

        def __del__(self):
            allocator.free(self.memory, 100)

    original = HostAllocator._fresh

    def collecting(self, size, nbytes):
        gc.collect()
        return original(self, size, nbytes)

    monkeypatch.setattr(HostAllocator, "_fresh", collecting)
    Owner(allocator.allocate(100))
    in_use = allocator.stats().in_use
    other = allocator.allocate(5000)
    assert allocator.stats().in_use == in_use - size_class(100) + size_class(5000)
    allocator.free(other, 5000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_while_another_thread_holds_the_lock(allocator):
    allocator._lock.acquire()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        allocator.allocate(100)
        os._exit(0)
    allocator._lock.release()
    deadline = time.time() + 15
    done, status = 0, 0
    while not done and time.time() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    assert (done, status) == (child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's page map")
def test_large_blocks_ask_for_huge_pages(allocator):
    memory = allocator.allocate(8 * MEGABYTE)
    with open("/proc/self/smaps", encoding="ascii") as file:
        text = file.read()
    flags = []
    inside = False
    for line in text.splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= memory < end
        elif inside and head == "VmFlags:":
            flags = line.split()
    assert "hg" in flags
    allocator.free(memory, 8 * MEGABYTE)


def test_pages():
    for alignment in (PAGE, HUGE_PAGE):
        address = map_pages(3 * PAGE, alignment)
        assert address % alignment == 0
        view = memory_view(address, 3 * PAGE)
        assert not any(view)
        view[-1] = 1
        del view
        unmap_pages(address, 3 * PAGE)

"""realize from several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from graphs import DEVICES, contiguous, data, matmul, meaning, need, relu, run, same, softmax, total

from tinycore.config import config, override
from tinycore.ir import dtypes, ops
from tinycore.runtime import compiler
from tinycore.runtime.capture import capture
from tinycore.runtime.plan import plan_of
from tinycore.runtime.realize import collect, realize
from tinycore.runtime.storage import from_host, storage_of, to_host

THREADS = 4


def together(work):
    """Runs ``work(number)`` in four threads that start at the same moment; raises what they raise."""
    barrier = threading.Barrier(THREADS)

    def start(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(start, number) for number in range(THREADS)]]


def program(a, b):
    hidden = relu(matmul(a, b))
    return [softmax(hidden), total(contiguous(hidden * 2.0), 0)]


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_program(device):
    """All threads want to compile the same kernels."""
    need(device)
    compiler.forget_loaded()
    arrays = [data((13, 5)), data((5, 9), seed=1)]
    wanted = meaning(program, arrays)

    def work(number):
        for _ in range(5):
            same(run(program, arrays, device), wanted)

    with override(cache=False):
        together(work)


@pytest.mark.parametrize("device", DEVICES)
def test_different_programs(device):
    need(device)

    def work(number):
        for size in range(3):
            arrays = [data((7 + number, 5 + size)), data((5 + size, 9), seed=1)]
            same(run(program, arrays, device), meaning(program, arrays))

    together(work)


@pytest.mark.parametrize("device", DEVICES)
def test_one_kernel_with_different_buffers(device):
    """Launches of one executable must not mix up their arguments."""
    need(device)

    def work(number):
        array = np.full(1000, number, np.int32)
        x = from_host(array, device)
        for k in range(30):
            y = from_host(np.full(1000, k, np.int32), device)
            (result,) = realize([x * 3 + contiguous(x + y)])
            np.testing.assert_array_equal(to_host(result), array * 4 + k)

    together(work)


def test_thousands_of_plans_at_once():
    """More than are remembered: forgetting is safe among threads."""
    from graphs import node

    def work(number):
        for size in range(1, 400):
            x = node((size, number + 1), device="INTERPRETER")
            root = x + 1.0
            assert len(plan_of([root], "INTERPRETER")[0].schedule([root]).steps) == 1

    together(work)


def test_captures_are_of_one_thread():
    def work(number):
        x = from_host(np.arange(8, dtype=np.int32), "INTERPRETER")
        with capture() as recording:
            for k in range(number + 1):
                realize([contiguous(x * (k + 2)) + number + 1])
        return len(recording.calls)

    assert together(work) == [2 * (number + 1) for number in range(THREADS)]


def test_settings_are_of_one_thread():
    def work(number):
        with override(debug=-number):
            assert config().debug == -number
        return config().debug

    assert together(work) == [0] * THREADS


def test_replays_of_different_recordings():
    need("CPU")

    def work(number):
        x = from_host(np.arange(64, dtype=np.int32), "CPU")
        with capture() as recording:
            (result,) = realize([contiguous(x + number) * 2])
        recording.declare_inputs([storage_of(x)])
        for k in range(30):
            given = from_host(np.arange(64, dtype=np.int32) + k, "CPU")
            recording.replay([storage_of(given)])
            np.testing.assert_array_equal(to_host(result), (np.arange(64) + k + number) * 2)

    together(work)


def test_times_are_collected_in_every_thread():
    need("CPU")
    x = from_host(np.zeros(64, np.float32), "CPU")
    with collect() as rows:
        together(lambda number: [realize([x.alu(ops.ADD, x.const_like(float(k)))]) for k in range(5)])
    assert len(rows) == 5 * THREADS
    assert dtypes.float32.itemsize * 64 * 2 == rows[0].traffic

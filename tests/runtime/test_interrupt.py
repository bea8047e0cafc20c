"""Ctrl-C at any moment leaves everything usable."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from graphs import contiguous, data, layer_norm, matmul, need, relu, run, same, softmax, total

from tinycore.config import override
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime import compiler
from tinycore.runtime.devices import get_device
from tinycore.runtime.realize import KernelCall, realize
from tinycore.runtime.storage import from_host, to_host

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")


@pytest.fixture(autouse=True)
def cache(tmp_path):
    compiler.forget_loaded()
    with override(cache_directory=tmp_path / "cache"):
        yield tmp_path / "cache"
    compiler.forget_loaded()


def program(a, b):
    hidden = relu(matmul(a, b))
    return [softmax(hidden), total(layer_norm(hidden, 9), 0), contiguous(hidden * 2.0) + 1.0]


def expected(arrays):
    nodes = [UOp(ops.BUFFER, dtypes.float32, (), (k, array.shape, "X")) for k, array in enumerate(arrays)]
    return interpret(program(*nodes), dict(zip(nodes, arrays, strict=True)))


def test_while_compiling():
    need("CPU")
    arrays = [data((7, 5)), data((5, 9), seed=1)]

    def interrupt(kernel, lowered, source):
        compiler.compile_hooks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    compiler.compile_hooks.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(program, arrays, "CPU")
    same(run(program, arrays, "CPU"), expected(arrays))


def test_while_storing_an_entry(cache, monkeypatch):
    need("CPU")
    import os

    arrays = [data((7, 5)), data((5, 9), seed=1)]
    replace = os.replace

    def interrupt(*arguments):
        monkeypatch.setattr(os, "replace", replace)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(program, arrays, "CPU")
    assert not list(cache.rglob("*.partial"))
    same(run(program, arrays, "CPU"), expected(arrays))


@pytest.mark.parametrize("device", ["CPU", "CL", "INTERPRETER"])
def test_between_two_kernels(device, monkeypatch):
    need(device)
    arrays = [data((7, 5)), data((5, 9), seed=1)]
    launched = []
    launch = KernelCall.run

    def interrupting(call, bindings):
        launched.append(call)
        if len(launched) == 2:
            raise KeyboardInterrupt
        launch(call, bindings)

    monkeypatch.setattr(KernelCall, "run", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(program, arrays, device)
    same(run(program, arrays, device), expected(arrays))


def interrupted_after(seconds, function):
    """Whether a SIGINT that came after so many seconds stopped a function; it is delivered by a timer."""
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        function()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that hits a __del__
def test_at_any_moment():
    """Programs of ever new sizes, stopped after ever longer times: the same program is right at the next attempt."""
    device = "CPU"
    need(device)
    run(program, [data((7, 5)), data((5, 9), seed=1)], device)  # devices, rules and compilers are loaded
    start = time.perf_counter()
    run(program, [data((8, 6)), data((6, 9), seed=1)], device)
    whole = time.perf_counter() - start
    stopped = 0
    attempts = 12
    for attempt in range(attempts):
        arrays = [data((10 + attempt, 5)), data((5, 9), seed=1)]
        seconds = whole * (attempt + 0.5) / attempts
        stopped += interrupted_after(seconds, lambda arrays=arrays: run(program, arrays, device))
        same(run(program, arrays, device), expected(arrays))
    assert stopped >= 1


def test_a_long_kernel_is_waited_for():
    """Native code cannot be stopped in the middle; what it computed is whole, and the pool works on."""
    need("CPU")
    x = from_host(np.ones((3000, 3000), np.float32), "CPU")
    heavy = total((x + 1.0).alu(ops.SIN).alu(ops.EXP).alu(ops.SIN), 0, 1)
    realize([heavy])
    interrupted_after(0.005, lambda: realize([heavy]))
    (result,) = realize([total(x, 0, 1)])
    assert to_host(result).item() == 9_000_000


def test_other_threads_go_on():
    need("CPU")
    device = get_device("CPU")
    results = []

    def work():
        x = from_host(np.arange(1000, dtype=np.int32), "CPU")
        for k in range(50):
            (result,) = realize([x + k])
            results.append(int(to_host(result)[0]) - k)

    thread = threading.Thread(target=work)
    thread.start()
    arrays = [data((31, 5)), data((5, 9), seed=1)]
    interrupted_after(0.01, lambda: run(program, arrays, device.name))
    thread.join()
    assert results == [0] * 50
    same(run(program, arrays, "CPU"), expected(arrays))

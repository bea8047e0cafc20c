"""What a launch costs on the CPU backend, and what it costs to get there.

    python benchmarks/launch.py [--json]

Best and median of many, in microseconds; the clock itself (about 0.05 us) is taken
off. "asleep" is a launch after the workers went to sleep. Judge figures of one run only against each other.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.device import CpuDevice
from tinycore_backend_cpu.objects import load_object
from tinycore_backend_cpu.pool import ThreadPool

from tinycore.config import set_default
from tinycore.runtime.cache import DiskCache
from tinycore.runtime.capture import Recording, capture
from tinycore.runtime.device import Launch, Signature
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host

NOTHING = "define void @nothing(ptr %words, i64 %chunk, i64 %thread) {\n  ret void\n}"


def measure(
    function: Callable[[], object],
    times: int = 20_000,
    per: int = 1,
    before: Callable[[], object] | None = None,
) -> tuple[float, float]:
    """(best, median) microseconds of one of the `per` things that a call does."""
    clock = time.perf_counter_ns
    samples, empty = [], []
    for _ in range(times):
        if before is not None:
            before()
        start = clock()
        function()
        samples.append(clock() - start)
        start = clock()
        empty.append(clock() - start)
    overhead = min(empty)
    return (min(samples) - overhead) / 1e3 / per, (statistics.median(samples) - overhead) / 1e3 / per


def captured() -> Recording:
    """100 kernels of one element, captured by the runtime; replayed once."""
    one = from_host(np.ones(1, np.float32), "CPU")
    with capture() as recording:
        kept = [realize([one + float(number)]) for number in range(100)]
    assert len(recording.calls) == len(kept)
    recording.replay()
    return recording


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    set_default(cache_directory=Path(tempfile.mkdtemp()))
    device = CpuDevice()
    image = compile_ir(NOTHING)
    kernel = device.load(image, Signature("nothing", 2, 1))
    memory = device.allocator.allocate(64)
    buffers, variables = (memory, memory), (7,)
    native = ctypes.CFUNCTYPE(None)(kernel.function)
    graphs = {
        chunks: device.capture([Launch(kernel, buffers, variables, (chunks,))] * 1000)
        for chunks in (1, 2, 16)
    }
    sleepy = ThreadPool(device.pool.threads, spin_microseconds=0)
    cache = DiskCache(None, "benchmark")
    cache.put("abcd", image)
    host = bytes(1 << 20)
    megabyte = device.allocator.allocate(1 << 20)
    rows = {
        "ctypes call of an empty function": measure(native),
        "launch, 1 chunk": measure(lambda: kernel.launch(buffers, variables, (1,))),
        "launch, 2 chunks, hot": measure(lambda: kernel.launch(buffers, variables, (2,))),
        "launch, 16 chunks, hot": measure(lambda: kernel.launch(buffers, variables, (16,))),
        "launch, 2 chunks, asleep": measure(
            lambda: sleepy.run(kernel.function, 0, 2), 300, before=lambda: time.sleep(0.002)
        ),
        "replay of 1000, 1 chunk, each": measure(graphs[1].replay, 300, 1000),
        "replay of 1000, 2 chunks, each": measure(graphs[2].replay, 300, 1000),
        "replay of 1000, 16 chunks, each": measure(graphs[16].replay, 300, 1000),
        "replay of 100 captured, one element": measure(captured().replay, 2000),
        "allocate and free 64 bytes": measure(
            lambda: device.allocator.free(device.allocator.allocate(64), 64)
        ),
        "copy 1 MB in": measure(lambda: device.allocator.copy_in(megabyte, memoryview(host)), 2000),
        "load an object": measure(lambda: load_object(image), 1000),
        "disk cache hit": measure(lambda: cache.get("abcd"), 2000),
        "compile an empty kernel": measure(lambda: compile_ir(NOTHING), 50),
    }
    cache.clear()
    device.close()
    sleepy.stop()
    if options.json:
        print(json.dumps({name: {"best": best, "median": median} for name, (best, median) in rows.items()}))
        return
    print(f"{device.pool.threads} threads{'best':>36}{'median':>10}   us")
    for name, (best, median) in rows.items():
        print(f"{name:<36}{best:>9.3f}{median:>10.3f}")


if __name__ == "__main__":
    main()

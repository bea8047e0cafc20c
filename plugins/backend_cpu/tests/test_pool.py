"""The thread pool: every chunk once, nothing lost, nothing hangs."""

from __future__ import annotations

import array
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.objects import load_object, process_symbol
from tinycore_backend_cpu.pool import ThreadPool, available_threads
from tinycore_backend_cpu.pool_ir import pool_ir
from tinycore_backend_cpu.pool_layout import EXTERNAL, Platform, StateLayout

from tinycore.config import override
from tinycore.errors import ConfigError

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX")
WAITING = ["futex", "condition", "none"] if sys.platform == "linux" else [None]


@pytest.fixture(params=[(threads, waiting) for waiting in WAITING for threads in (1, 2, 5)])
def pool(request):
    threads, waiting = request.param
    made = ThreadPool(threads, waiting=waiting)
    yield made
    made.stop()


@pytest.fixture
def fast_pool():
    made = ThreadPool(3)
    yield made
    made.stop()


def words(*values):
    """An argument array, and its address."""
    block = (ctypes.c_int64 * max(1, len(values)))(*values)
    return block, ctypes.addressof(block)


def address(data):
    return data.buffer_info()[0]


@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 7, 64, 1000, 50_000])
def test_every_chunk_runs_once(pool, kernels, chunks):
    counters = array.array("i", [0]) * (chunks + 1)
    _kept, arguments = words(address(counters))
    for _ in range(5):
        pool.run(kernels.address("mark"), arguments, chunks)
    assert list(counters) == [5] * chunks + [0]


def test_thousands_of_launches_of_changing_size(pool, kernels):
    counters = array.array("i", [0]) * 40
    _kept, arguments = words(address(counters))
    expected = [0] * 40
    for turn in range(4000):
        chunks = turn * 7 % 41
        pool.run(kernels.address("mark"), arguments, chunks)
        for chunk in range(chunks):
            expected[chunk] += 1
    assert list(counters) == expected


def test_a_job_sees_everything_the_job_before_wrote(fast_pool, kernels):
    """Plain increments by whichever thread, then a sum: a lost update or a stale read shows."""
    length = 256
    data = array.array("q", [0]) * (length + 1)
    _kept, arguments = words(address(data), length)
    records = []
    for _ in range(2000):
        records += [kernels.address("increment"), arguments, length]
    records += [kernels.address("sum_all"), arguments, 1]
    block = (ctypes.c_int64 * len(records))(*records)
    for turn in range(1, 4):
        fast_pool.replay(ctypes.addressof(block), len(records) // 3)
        assert data[length] == 2000 * turn * length
        assert list(data[:length]) == [2000 * turn] * length


def test_launch_takes_the_arguments_from_the_record(pool, kernels):
    counters = array.array("i", [0]) * 10
    record = array.array("q", [kernels.address("mark"), 10, address(counters)]).tobytes()
    pool.launch(record)
    pool.launch(record)
    assert list(counters) == [2] * 10


def test_several_threads_take_part(kernels):
    if available_threads() < 2:
        pytest.skip("one processor")
    pool = ThreadPool(2)
    seen = array.array("q", [-1]) * 64
    _kept, arguments = words(address(seen))
    for _ in range(200):
        pool.run(kernels.address("who"), arguments, 64)
        assert set(seen) <= {0, 1}
        if set(seen) == {0, 1}:
            break
    pool.stop()
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("chunks", [2, 3, 4, 13, 64])
def test_a_thread_does_its_own_block_first(chunks, kernels):
    """So it finds in its caches what it left there; what it does for others comes after that."""
    pool = ThreadPool(4)
    blocks = min(4, chunks)
    least, longer = divmod(chunks, blocks)
    owners = [block for block in range(blocks) for _ in range(least + (block < longer))]
    for _ in range(50):
        log = array.array("q", [0]) * (2 * chunks + 2)
        _kept, arguments = words(address(log), 2000)
        pool.run(kernels.address("turn"), arguments, chunks)
        assert log[0] == chunks
        done = sorted((log[2 * chunk + 3], log[2 * chunk + 2], owners[chunk]) for chunk in range(chunks))
        for thread in range(4):
            own = [owner == thread for _, worker, owner in done if worker == thread]
            assert own == sorted(own, reverse=True)
    pool.stop()


def test_thread_numbers_stay_below_the_number_of_threads(pool, kernels):
    seen = array.array("q", [-1]) * 500
    _kept, arguments = words(address(seen))
    for _ in range(5):
        pool.run(kernels.address("who"), arguments, 500)
        assert 0 <= min(seen) <= max(seen) < pool.threads


@pytest.mark.parametrize("waiting", WAITING)
def test_idle_then_run(kernels, waiting):
    """Workers fall asleep after the spinning time, and the next job wakes them."""
    pool = ThreadPool(3, spin_microseconds=0, waiting=waiting)
    counters = array.array("i", [0]) * 200
    _kept, arguments = words(address(counters))
    for turn in range(100):
        time.sleep(0.002 if turn % 3 else 0)
        pool.run(kernels.address("mark"), arguments, 200)
    pool.stop()
    assert list(counters) == [100] * 200


@pytest.mark.parametrize("waiting", ["futex", "condition"] if sys.platform == "linux" else [None])
def test_late_workers_touch_nothing(kernels, waiting):
    """More threads than processors and no spinning: workers wake long after their job, in a later one.

    One that joins a closed job is counted out of a later one: the count of active workers goes wrong, and
    increments are lost or done twice.
    """
    pool = ThreadPool(12, spin_microseconds=0, waiting=waiting)
    blocks = [array.array("i", [0]) * 8 for _ in range(7)]
    kept = [words(address(block)) for block in blocks]
    records = []
    for turn in range(3000):
        records += [kernels.address("mark"), kept[turn % 7][1], 2 + turn % 7]
    block = (ctypes.c_int64 * len(records))(*records)
    for _ in range(5):
        pool.replay(ctypes.addressof(block), 3000)
        word = ctypes.c_uint32.from_address(pool._address)
        time.sleep(0.002)
        assert word.value == 0, "closed, and nobody active"
    pool.stop()
    expected = [[0] * 8 for _ in range(7)]
    for turn in range(3000):
        for chunk in range(2 + turn % 7):
            expected[turn % 7][chunk] += 5
    assert [list(block) for block in blocks] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's list of threads")
def test_workers_leave_signals_to_python(kernels):
    pool = ThreadPool(3)
    before = set(os.listdir("/proc/self/task"))
    pool.run(kernels.address("nothing"), None, 10)
    workers = set(os.listdir("/proc/self/task")) - before
    assert len(workers) == 2
    time.sleep(0.05)  # the C library blocks everything until a new thread has set itself up
    for worker in workers:
        with open(f"/proc/self/task/{worker}/status", encoding="ascii") as status:
            blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
        assert blocked >> (signal.SIGINT - 1) & 1
        assert blocked >> (signal.SIGTERM - 1) & 1
        assert not blocked >> (signal.SIGSEGV - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pool.stop()


def test_an_idle_pool_burns_nothing(kernels):
    pool = ThreadPool(3)
    pool.run(kernels.address("nothing"), None, 100)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05
    pool.stop()


def test_stop_and_start_again(pool, kernels):
    counters = array.array("i", [0]) * 100
    _kept, arguments = words(address(counters))
    pool.stop()
    for _ in range(50):
        pool.run(kernels.address("mark"), arguments, 100)
        pool.stop()
        pool.stop()
    assert list(counters) == [50] * 100


def test_replay_runs_the_records_in_order(pool, kernels):
    length = 8
    data = array.array("q", [0]) * (length + 1)
    _kept, arguments = words(address(data), length)
    increment, total = kernels.address("increment"), kernels.address("sum_all")
    block, records = words(increment, arguments, length, total, arguments, 1, increment, arguments, length)
    pool.replay(records, 3)
    assert list(data) == [2] * length + [length]
    pool.replay(records, 0)
    assert list(data) == [2] * length + [length]
    del block


def test_python_threads_share_the_pool(fast_pool, kernels):
    """More callers than threads, mixed sizes: all chunks of everybody's jobs run once."""
    failures = []

    def work(seed):
        counters = array.array("i", [0]) * 100
        _kept, arguments = words(address(counters))
        expected = [0] * 100
        for turn in range(1500):
            chunks = (turn * 13 + seed) % 101
            fast_pool.run(kernels.address("mark"), arguments, chunks)
            for chunk in range(chunks):
                expected[chunk] += 1
        if list(counters) != expected:
            failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)
        assert not thread.is_alive()
    assert failures == []


def test_stop_while_another_thread_runs_jobs(fast_pool, kernels):
    counters = array.array("i", [0]) * 50
    _kept, arguments = words(address(counters))

    def work():
        for _ in range(2000):
            fast_pool.run(kernels.address("mark"), arguments, 50)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(50):
        fast_pool.stop()
    thread.join(timeout=50)
    assert not thread.is_alive()
    assert list(counters) == [2000] * 50


def test_other_python_threads_go_on_during_a_kernel(fast_pool, kernels):
    """The GIL is free while native code runs."""
    turns = 0
    _kept, arguments = words(200_000_000)
    running = threading.Thread(target=lambda: fast_pool.run(kernels.address("busy"), arguments, 1))
    running.start()
    while running.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 5


@posix_only
def test_fork(fast_pool, kernels):
    """The child has no worker threads; it starts its own, also when the parent was in the middle of a job."""
    counters = array.array("i", [0]) * 1000
    _kept, arguments = words(address(counters))
    _busy, long_job = words(20_000_000)
    fast_pool.run(kernels.address("mark"), arguments, 1000)
    background = threading.Thread(target=lambda: fast_pool.run(kernels.address("busy"), long_job, 4))
    background.start()
    time.sleep(0.002)
    child = os.fork()
    if child == 0:
        fast_pool.run(kernels.address("mark"), arguments, 1000)
        fast_pool.stop()
        os._exit(0 if list(counters) == [2] * 1000 else 1)
    deadline = time.time() + 20
    done, status = 0, 0
    while not done and time.time() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done, "the child hangs"
    assert status == 0
    background.join()
    fast_pool.run(kernels.address("mark"), arguments, 1000)
    assert list(counters) == [2] * 1000


SCRIPT = """
import array, ctypes, sys, threading, time
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.objects import load_object
from tinycore_backend_cpu.pool import ThreadPool, _stop_all
kernels = load_object(compile_ir(sys.stdin.read()))
pool = ThreadPool(3)
block = (ctypes.c_int64 * 1)(int(sys.argv[2]))
def busy(chunks): pool.run(kernels.address("busy"), ctypes.addressof(block), chunks)
busy(10)
print("running", flush=True)
"""
DAEMON = "threading.Thread(target=lambda: busy(100000), daemon=True).start(); time.sleep(0.02)"
# Handlers run in the reverse order: this one after the pool's, which was registered by its import.
LAST = """
import atexit, os
atexit.unregister(_stop_all)
atexit.register(lambda: print(len(os.listdir("/proc/self/task"))))
atexit.register(_stop_all)
"""
ENDINGS = {
    "plain": "",
    "stopped": "pool.stop()",
    "no handler": "import atexit; atexit.unregister(_stop_all)",
    "in a daemon thread": DAEMON,
    "daemon, no handler": "import atexit; atexit.unregister(_stop_all); " + DAEMON,
    "error": "raise SystemExit(0)",
}


def script(ending, turns, tmp_path):
    command = [sys.executable, "-c", SCRIPT + ending, "x", str(turns)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "TINYCORE_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_clean_exit(ending, kernels_source, tmp_path):
    process = script(ENDINGS[ending], 1000, tmp_path)
    _, errors = process.communicate(kernels_source, timeout=50)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's list of threads")
@pytest.mark.parametrize("ending", ["plain", "error"])
def test_threads_have_ended_when_python_ends(ending, kernels_source, tmp_path):
    process = script(LAST + ENDINGS[ending], 1000, tmp_path)
    output, errors = process.communicate(kernels_source, timeout=50)
    assert (process.returncode, errors) == (0, "")
    assert output.split()[-1] == "1"


@posix_only
def test_interrupt_during_a_kernel(kernels_source, tmp_path):
    """Ctrl-C arrives after the kernel, as KeyboardInterrupt, and the pool still works."""
    ending = """
try:
    for _ in range(1000): busy(8)
    print("not interrupted")
except KeyboardInterrupt:
    busy(100)
    print("interrupted", flush=True)
"""
    process = script(ending, 3_000_000, tmp_path)
    process.stdin.write(kernels_source)
    process.stdin.close()
    assert process.stdout.readline() == "running\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=50) == 0
    assert process.stdout.read() == "interrupted\n"
    process.stdout.close()
    process.stderr.close()


@posix_only
def test_a_signal_handler_may_run_jobs(fast_pool, kernels):
    counters = array.array("i", [0]) * 100
    _kept, arguments = words(address(counters))
    handled = 0

    def handler(number, frame):
        nonlocal handled
        handled += 1
        fast_pool.run(kernels.address("mark"), arguments, 100)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(20_000):
            fast_pool.run(kernels.address("mark"), arguments, 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 3
    assert list(counters) == [20_000 + handled] * 100


def test_the_number_of_threads():
    with override(threads=7):
        assert available_threads() == 7
    with override(threads=None):
        assert 1 <= available_threads() <= (os.cpu_count() or 1)
    assert ThreadPool(10_000).threads == 256
    with pytest.raises(ConfigError, match="TINYCORE_THREADS"):
        ThreadPool(0)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
@pytest.mark.parametrize("waiting", ["futex", "condition", "none"])
def test_every_variant_is_valid_ir_for_its_machine(machine, waiting):
    """What cannot run here is at least compiled for its platform, and calls nothing that is not listed."""
    if waiting == "futex" and machine == "arm64":
        pytest.skip("Linux calls it aarch64")
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "arm64-apple-macosx13" if machine == "arm64" else f"{machine}-unknown-linux-gnu"
    module = llvm.parse_assembly(pool_ir(Platform(waiting, machine, 6 if machine == "arm64" else 1)))
    module.triple = triple
    module.verify()
    declared = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    assert declared == set(EXTERNAL[waiting])
    assembly = llvm.Target.from_triple(triple).create_target_machine(reloc="pic").emit_assembly(module)
    assert "pool_replay" in assembly


PROBE = """
define void @probe(ptr %state) {
  call void @say_core(ptr %state)
  call void @move_away(ptr %state)
  ret void
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="cores are asked for on Linux only")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one core only")
def test_who_runs_on_the_callers_core_moves_and_may_come_back():
    source = pool_ir(Platform("futex", os.uname().machine)) + PROBE
    external = {name: process_symbol(name) for name in EXTERNAL["futex"]}
    image = compile_ir(source, allowed_symbols=frozenset(external))
    loaded = load_object(image, names=("probe",), external=external)
    core_of = ctypes.CDLL(None).sched_getcpu
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("this process may use one core only")
    state = ctypes.create_string_buffer(StateLayout.SIZE + 64)
    probe = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address("probe"))
    moved = 0
    for _ in range(50):
        before = core_of()
        probe((ctypes.addressof(state) + 63) & -64)
        moved += core_of() != before
        assert os.sched_getaffinity(0) == allowed
    assert moved > 25  # the system may move a thread back at any time

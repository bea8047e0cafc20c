"""Threads that run a kernel's chunks, without Python between kernels.

The code is LLVM IR text (`pool_ir`), compiled once and kept on disk, so a warm start maps it without LLVM.
Waiting workers spin for 5 ms, most of them yielding, and then sleep, so an idle pool burns nothing.

Native calls go through `ctypes.CFUNCTYPE`, which releases the GIL: a kernel may run for seconds, and
other Python threads (a data loader, a progress bar) must go on. `PYFUNCTYPE` would save 40 ns a launch and
hold it. Ctrl-C cannot deadlock: the signal only sets a flag while native code runs (workers block signals,
so it always reaches a Python thread), the native call ends by itself and has given up the pool by the time
KeyboardInterrupt is raised.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinycore.config import config
from tinycore.errors import ConfigError
from tinycore.runtime.cache import open_cache
from tinycore_backend_cpu.compile import compile_ir, fingerprint
from tinycore_backend_cpu.objects import LoadedObject, load_object, process_symbol
from tinycore_backend_cpu.pages import map_pages
from tinycore_backend_cpu.pool_ir import pool_ir
from tinycore_backend_cpu.pool_layout import (
    BUSY,
    EXTERNAL,
    FUNCTIONS,
    MAXIMUM_WORKERS,
    STOPPED,
    Platform,
    StateLayout,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SPIN_MICROSECONDS = 5000
"""How long a worker waits for the next job before it sleeps."""

_BUSY_SECONDS = 20e-6
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


class ThreadPool:
    """Runs native kernels on `threads` threads, the calling one included.

    Parameters
    ----------
    threads:
        1 runs everything on the caller; None takes `available_threads()`.
    spin_microseconds:
        How long an idle worker spins before it sleeps.

    Threads start at the first job, stop at exit or at `stop()`, and start again when needed (in the child of
    a fork, too). Jobs of several Python threads run one after another.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        spin_microseconds: int = SPIN_MICROSECONDS,
        waiting: Waiting | None = None,
    ) -> None:
        wanted = available_threads() if threads is None else threads
        if wanted < 1:
            raise ConfigError(f"{wanted} threads", hint="TINYCORE_THREADS is at least 1")
        code = _code(waiting or _waiting_here())
        self.threads = min(wanted, MAXIMUM_WORKERS + 1)
        self._spin = spin_microseconds * 1000
        # Never given back: a thread that the system is slow to end may still read its state.
        self._address = map_pages(StateLayout.SIZE)
        # Ready-made argument objects and no `argtypes`: converting arguments costs more than a launch.
        self._state = ctypes.c_void_p(self._address)
        answer = ctypes.CFUNCTYPE(ctypes.c_int32)
        self._start, self._stop, self._launch, self._replay = (answer(code.address(n)) for n in FUNCTIONS)
        _pools.add(self)

    def launch(self, record: bytes) -> None:
        """Run the kernel of a record ``{function, chunks, words...}`` of 8-byte words.

        Calls ``void function(ptr words, i64 chunk, i64 thread)`` for every chunk from 0 to `chunks` - 1, and
        returns when all are done.
        """
        answer = self._launch(self._state, record)
        if answer:
            self._insist(answer, self._launch, record)

    def run(self, function: int, arguments: int | None, chunks: int) -> None:
        """Call ``void function(ptr arguments, i64 chunk, i64 thread)`` for every chunk, and wait for all."""
        record = (ctypes.c_int64 * 3)(function, arguments or 0, chunks)
        self.replay(ctypes.addressof(record), 1)

    def replay(self, records: int, count: int) -> None:
        """Run `count` records ``{function, arguments, chunks}`` (three 8-byte words each), in order."""
        arguments = ctypes.c_void_p(records), ctypes.c_int64(count)
        answer = self._replay(self._state, *arguments)
        if answer:
            self._insist(answer, self._replay, *arguments)

    def stop(self) -> None:
        """End the threads. The next job starts them again."""
        while self._stop(self._state) == BUSY:
            time.sleep(_BUSY_SECONDS)

    def _insist(self, answer: int, function: Any, *arguments: object) -> None:
        """The pool was busy with another Python thread's job, or its threads do not run: deal with it."""
        while answer:
            if answer == STOPPED:
                self._start_threads()
            else:
                time.sleep(_BUSY_SECONDS)
            answer = function(self._state, *arguments)

    def _start_threads(self) -> None:
        ctypes.c_int64.from_address(self._address + StateLayout.SPIN_NANOSECONDS).value = self._spin
        with _signals_blocked():
            if self._start(self._state, ctypes.c_int32(self.threads - 1)) == BUSY:
                return
        # Fewer than asked for (a limit on processes) is slower, not wrong.
        self.threads = 1 + ctypes.c_int32.from_address(self._address + StateLayout.WORKERS).value

    def _after_fork(self) -> None:
        """In the child: the threads are gone, and so is whoever was in the middle of a job."""
        ctypes.memset(self._address, 0, StateLayout.SIZE)


def available_threads() -> int:
    """How many threads to use: `config().threads`, else the processors that this process may use.

    A CPU quota of the process's control group counts: spinning on more threads than it grants is throttled.
    """
    asked = config().threads
    if asked is not None:
        return asked
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no control groups here, or no limit ("max")
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, -(-int(quota) // int(period))))
    return count


def _waiting_here() -> Waiting:
    if os.name != "posix":
        return "none"
    return "futex" if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") else "condition"


@functools.cache
def _code(waiting: Waiting) -> LoadedObject:
    """The pool's functions for this machine; kept for ever, because threads run in them."""
    clock = 6 if sys.platform == "darwin" else 1
    source = pool_ir(Platform(waiting, platform.machine(), clock))
    external = EXTERNAL[waiting]
    key = hashlib.blake2b(f"{fingerprint()}\0{source}".encode(), digest_size=20).hexdigest()
    cache = open_cache("backend-cpu")
    image = cache.get(key) if cache else None
    if image is None:
        image = compile_ir(source, allowed_symbols=frozenset(external))
        if cache:
            cache.put(key, image)
    return load_object(image, names=FUNCTIONS, external={name: process_symbol(name) for name in external})


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """New threads inherit the mask: signals go to Python's threads, faults still to whoever causes them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    blocked = {number for number in signal.valid_signals() if getattr(number, "name", "") not in _FAULTS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop_all() -> None:
    for pool in list(_pools):
        pool.stop()


def _restart_all() -> None:
    for pool in list(_pools):
        pool._after_fork()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all)

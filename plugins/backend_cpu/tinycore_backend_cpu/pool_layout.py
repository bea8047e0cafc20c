"""What the pool's IR and its Python side agree on: names, answers, offsets; and what differs by platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Waiting: TypeAlias = Literal["futex", "condition", "none"]
"""How workers sleep; `none` is a pool without threads."""

MAXIMUM_WORKERS = 255
FUNCTIONS = ("pool_start", "pool_stop", "pool_launch", "pool_replay")
DONE, BUSY, STOPPED = 0, 1, 2
"""What the functions answer. After BUSY and STOPPED nothing was done."""

EXTERNAL: dict[Waiting, tuple[str, ...]] = {
    "futex": (
        "pthread_create", "pthread_join", "sched_yield", "clock_gettime", "syscall",
        "sched_getcpu", "sched_getaffinity", "sched_setaffinity",
    ),
    "condition": (
        "pthread_create", "pthread_join", "sched_yield", "clock_gettime",
        "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock",
        "pthread_cond_init", "pthread_cond_wait", "pthread_cond_broadcast",
    ),
    "none": (),
}  # fmt: skip
"""The functions of the C library that each variant calls."""


class StateLayout:
    """Offsets in the state block. What different threads write is 128 bytes apart (adjacent lines)."""

    WORD = 0
    GENERATION = 4  # the upper half of the word, little-endian
    FUNCTION, ARGUMENTS, BLOCKS, CALLER_CORE = 256, 264, 272, 280
    SLEEPERS = 384
    STOP, WORKERS, SPIN_NANOSECONDS = 512, 516, 520
    CALLER, STARTED = 640, 644
    MUTEX, CONDITION = 768, 896  # at most 128 bytes each on every platform that has pthread
    THREADS, THREAD_SIZE = 1024, 32  # {i64 handle, ptr state, i64 index}
    CHUNK_BLOCKS, BLOCK_SIZE = 1024 + 32 * 256, 128  # {i64 next, i64 end} of every thread
    SIZE = CHUNK_BLOCKS + 128 * (MAXIMUM_WORKERS + 1)


def at(name: str, offset: int) -> str:
    """A line of IR: the address of a field of the state."""
    return f"  %{name} = getelementptr i8, ptr %state, i64 {offset}\n"


@dataclass(frozen=True, slots=True)
class Platform:
    """What differs between systems: how to wait, numbers of system calls, how to pause a spinning core."""

    waiting: Waiting
    machine: str
    """As `platform.machine()` says it."""
    monotonic_clock: int = 1
    """CLOCK_MONOTONIC: 1 on Linux, 6 on macOS."""

    @property
    def futex_call(self) -> int:
        """The number of the futex system call."""
        return {"x86_64": 202, "aarch64": 98}[self.machine]

    @property
    def pause(self) -> tuple[str, str]:
        """(declaration, call) of the instruction that tells a core it is spinning."""
        if self.machine in ("x86_64", "AMD64"):
            return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
        if self.machine in ("aarch64", "arm64", "ARM64"):
            return "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
        return "", 'fence syncscope("singlethread") seq_cst'

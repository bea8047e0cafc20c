"""Small kernels in LLVM IR that the tests of the native runtime run."""

from __future__ import annotations

import pytest
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.objects import load_object

from tinycore.config import override

KERNELS = """
; words: {pointer to i32 counters}. Counts the calls of each chunk.
define void @mark(ptr %words, i64 %chunk, i64 %thread) {
  %counters = load ptr, ptr %words
  %counter = getelementptr i32, ptr %counters, i64 %chunk
  %old = atomicrmw add ptr %counter, i32 1 monotonic
  ret void
}
; words: {pointer to i64 threads}. Notes which thread ran each chunk, after some work.
define void @who(ptr %words, i64 %chunk, i64 %thread) {
entry:
  %threads = load ptr, ptr %words
  %place = getelementptr i64, ptr %threads, i64 %chunk
  br label %spin
spin:
  %i = phi i64 [ 0, %entry ], [ %j, %spin ]
  %j = add i64 %i, 1
  store volatile i64 %thread, ptr %place
  %more = icmp ult i64 %j, 20000
  br i1 %more, label %spin, label %done
done:
  ret void
}
; words: {pointer to {i64 count, {i64 thread, i64 turn}...}, turns of work}. Notes for each chunk who ran it, and how
; many had been begun before.
define void @turn(ptr %words, i64 %chunk, i64 %thread) {
  %memory = load ptr, ptr %words
  %turn = atomicrmw add ptr %memory, i64 1 seq_cst
  %past = add i64 %chunk, 1
  %place = getelementptr [2 x i64], ptr %memory, i64 %past
  %turn_at = getelementptr i64, ptr %place, i64 1
  store i64 %thread, ptr %place
  store i64 %turn, ptr %turn_at
  %turns = getelementptr i64, ptr %words, i64 1
  call void @busy(ptr %turns, i64 0, i64 0)
  ret void
}
; words: {pointer to i64, its length}. Adds everything up, into the place after the end.
define void @sum_all(ptr %words, i64 %chunk, i64 %thread) {
entry:
  %data = load ptr, ptr %words
  %length_at = getelementptr i64, ptr %words, i64 1
  %length = load i64, ptr %length_at
  %last = getelementptr i64, ptr %data, i64 %length
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %j, %head ]
  %total = phi i64 [ 0, %entry ], [ %more_total, %head ]
  %place = getelementptr i64, ptr %data, i64 %i
  %value = load i64, ptr %place
  %more_total = add i64 %total, %value
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %length
  br i1 %more, label %head, label %done
done:
  store i64 %more_total, ptr %last
  ret void
}
; words: {pointer to i64}. A plain, not atomic, increment.
define void @increment(ptr %words, i64 %chunk, i64 %thread) {
  %data = load ptr, ptr %words
  %place = getelementptr i64, ptr %data, i64 %chunk
  %old = load i64, ptr %place
  %new = add i64 %old, 1
  store i64 %new, ptr %place
  ret void
}
define void @nothing(ptr %words, i64 %chunk, i64 %thread) {
  ret void
}
; words: {turns}. About a nanosecond a turn.
define void @busy(ptr %words, i64 %chunk, i64 %thread) {
entry:
  %memory = alloca i64
  %turns = load i64, ptr %words
  br label %spin
spin:
  %i = phi i64 [ 0, %entry ], [ %j, %spin ]
  store volatile i64 %i, ptr %memory
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %turns
  br i1 %more, label %spin, label %done
done:
  ret void
}
"""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with override(cache_directory=tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="session")
def kernels():
    """The kernels above, loaded: `kernels.address(name)`."""
    return load_object(compile_ir(KERNELS))


@pytest.fixture(scope="session")
def kernels_object():
    """The same, as the bytes of an object."""
    return compile_ir(KERNELS)


@pytest.fixture(scope="session")
def kernels_source():
    """The same, as text."""
    return KERNELS

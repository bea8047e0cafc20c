"""How workers of the pool sleep, are woken, and get off the caller's core: IR text, one variant a system.

Each defines ``@sleep_until_changed(state, last)``, ``@wake(state, at most this many)``, ``@say_core(state)``
(the caller notes where it runs) and ``@move_away(state)`` (a worker that runs there asks for another core).

Systems like to wake a thread on the core of the thread that wakes it, and leave both there for milliseconds
while other cores idle. On Linux a worker that finds itself on the caller's core therefore asks for any other
one, and at once takes the request back, so that the system may place it as it likes afterwards.
"""

from __future__ import annotations

from tinycore_backend_cpu.pool_layout import StateLayout, at

WAIT_BY_FUTEX = f"""
define internal void @say_core(ptr %state) {{
entry:
{at("caller_at", StateLayout.CALLER_CORE)}\
  %core = call i32 @sched_getcpu()
  store atomic i32 %core, ptr %caller_at monotonic, align 4
  ret void
}}
define internal void @move_away(ptr %state) {{
entry:
  %allowed_at = alloca [16 x i64], align 64
  %others_at = alloca [16 x i64], align 64
{at("caller_at", StateLayout.CALLER_CORE)}\
  %caller = load atomic i32, ptr %caller_at monotonic, align 4
  %core = call i32 @sched_getcpu()
  %same = icmp eq i32 %core, %caller
  %known = icmp ult i32 %core, 1024
  %wanted = and i1 %same, %known
  br i1 %wanted, label %look, label %done
look:
  store <16 x i64> zeroinitializer, ptr %allowed_at, align 64
  %got = call i32 @sched_getaffinity(i32 0, i64 128, ptr %allowed_at)
  %allowed = load <16 x i64>, ptr %allowed_at, align 64
  store <16 x i64> %allowed, ptr %others_at, align 64
  %byte = lshr i32 %core, 3
  %byte_at = getelementptr i8, ptr %others_at, i32 %byte
  %eight = load i8, ptr %byte_at, align 1
  %place = and i32 %core, 7
  %place_byte = trunc i32 %place to i8
  %bit = shl i8 1, %place_byte
  %kept = xor i8 %bit, -1
  %without = and i8 %eight, %kept
  store i8 %without, ptr %byte_at, align 1
  %others = load <16 x i64>, ptr %others_at, align 64
  %any = call i64 @llvm.vector.reduce.or.v16i64(<16 x i64> %others)
  %elsewhere = icmp ne i64 %any, 0
  br i1 %elsewhere, label %move, label %done
move:
  %moved = call i32 @sched_setaffinity(i32 0, i64 128, ptr %others_at)
  %restored = call i32 @sched_setaffinity(i32 0, i64 128, ptr %allowed_at)
  br label %done
done:
  ret void
}}
define internal void @sleep_until_changed(ptr %state, i64 %last) {{
entry:
{at("sleepers_at", StateLayout.SLEEPERS)}{at("generation_at", StateLayout.GENERATION)}\
  %expected = trunc i64 %last to i32
  %before = atomicrmw add ptr %sleepers_at, i32 1 seq_cst, align 4
  br label %again
again:
  %r = call i64 (i64, ...) @syscall(i64 FUTEX_CALL, ptr %generation_at, i64 128, i32 %expected, ptr null)
  %word = load atomic i64, ptr %state seq_cst, align 64
  %generation = lshr i64 %word, 32
  %changed = icmp ne i64 %generation, %last
  br i1 %changed, label %done, label %again
done:
  %after = atomicrmw sub ptr %sleepers_at, i32 1 seq_cst, align 4
  ret void
}}
define internal void @wake(ptr %state, i64 %count) {{
entry:
{at("generation_at", StateLayout.GENERATION)}\
  %r = call i64 (i64, ...) @syscall(i64 FUTEX_CALL, ptr %generation_at, i64 129, i64 %count, ptr null)
  ret void
}}
"""

WAIT_BY_CONDITION = f"""
define internal void @say_core(ptr %state) {{
  ret void
}}
define internal void @move_away(ptr %state) {{
  ret void
}}
define internal void @sleep_until_changed(ptr %state, i64 %last) {{
entry:
{at("sleepers_at", StateLayout.SLEEPERS)}\
{at("mutex", StateLayout.MUTEX)}{at("condition", StateLayout.CONDITION)}\
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %before = atomicrmw add ptr %sleepers_at, i32 1 seq_cst, align 4
  br label %check
check:
  %word = load atomic i64, ptr %state seq_cst, align 64
  %generation = lshr i64 %word, 32
  %changed = icmp ne i64 %generation, %last
  br i1 %changed, label %done, label %again
again:
  %woken = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
done:
  %after = atomicrmw sub ptr %sleepers_at, i32 1 seq_cst, align 4
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}
define internal void @wake(ptr %state, i64 %count) {{
entry:
{at("mutex", StateLayout.MUTEX)}{at("condition", StateLayout.CONDITION)}\
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %woken = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}}
"""

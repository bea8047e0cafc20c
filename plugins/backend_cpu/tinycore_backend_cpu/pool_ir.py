"""The thread pool as LLVM IR text: no C compiler, no Python between kernels.

The protocol. One 64-bit word holds ``generation << 32 | open << 31 | active``.

* The caller writes the job, publishes the word with the next generation and `open` set, and wakes sleepers.
* A worker that sees a new generation *joins* by incrementing `active` with a compare-and-swap that succeeds
  only while the word is open and of that generation. A worker that comes late sees it closed and goes back to
  waiting: nobody ever waits for a thread that the system has not scheduled.
* Everyone, the caller too, takes chunks until none is left, of its own block first (`pool_chunks`).
* The caller clears `open` and waits until `active` is 0; the last work of every worker is then visible to it.

So the job's fields are written only while the word is closed and nobody is active, and are read only after a
successful join. Workers that wait spin for a while, then yield in turns, and then sleep: on the upper half of
the word by futex on Linux, on a condition variable elsewhere. A caller that publishes before a worker has
counted itself among the sleepers is seen by the worker's check of the generation; one that publishes after
sees the sleeper.

How they sleep, and how they keep off the caller's core, is `pool_waiting`.

One caller at a time: the functions take the `CALLER` flag, and answer BUSY when another thread has it. They
never wait for it, so a signal handler or a fork cannot deadlock, and a launch pays no Python lock.

All state is in one block of memory that the caller owns, at the offsets of `pool_layout`; the code has none.
"""

from __future__ import annotations

from tinycore_backend_cpu.pool_chunks import SHARE, WORK
from tinycore_backend_cpu.pool_layout import BUSY, DONE, EXTERNAL, STOPPED, Platform, StateLayout, at
from tinycore_backend_cpu.pool_waiting import WAIT_BY_CONDITION, WAIT_BY_FUTEX

SPIN_BEFORE_YIELDING = 200_000
"""Nanoseconds; a worker that waits for longer lets others have its core, but stays on it."""


def pool_ir(platform: Platform) -> str:
    """The whole module for a platform.

    It defines, with `state` the zeroed block of `StateLayout.SIZE` bytes, functions that answer an i32:

    - ``pool_start(state, i32 workers)``: starts threads; STATE's WORKERS says how many there are;
    - ``pool_stop(state)``: stops and joins them;
    - ``pool_launch(state, record)``: the record is ``{function, chunks, words...}``; calls
      ``function(&words, chunk, thread)`` for each chunk, and returns when all are done;
    - ``pool_replay(state, records, i64 count)``: the same for each of the records
      ``{function, pointer to words, chunks}``, in order.
    """
    if platform.waiting == "none":
        return _INLINE_ONLY + _ENTRIES
    return (
        _declarations(platform)
        + SHARE
        + WORK
        + _worker(platform)
        + _PUBLISH
        + _start(platform)
        + _STOP
        + _run(platform)
        + _ENTRIES
    )


def _declarations(platform: Platform) -> str:
    lines = [
        "declare i32 @pthread_create(ptr, ptr, ptr, ptr)",
        "declare i32 @pthread_join(i64, ptr)",
        "declare i32 @sched_yield()",
        "declare i32 @clock_gettime(i32, ptr)",
        "declare i64 @llvm.smin.i64(i64, i64)",
        platform.pause[0],
    ]
    if platform.waiting == "futex":
        lines += [
            "declare i64 @syscall(i64, ...)",
            "declare i32 @sched_getcpu()",
            "declare i32 @sched_getaffinity(i32, i64, ptr)",
            "declare i32 @sched_setaffinity(i32, i64, ptr)",
            "declare i64 @llvm.vector.reduce.or.v16i64(<16 x i64>)",
        ]
    else:
        lines += [f"declare i32 @{name}(ptr, ptr)" for name in EXTERNAL["condition"] if name.endswith("init")]
        lines += [
            "declare i32 @pthread_mutex_lock(ptr)",
            "declare i32 @pthread_mutex_unlock(ptr)",
            "declare i32 @pthread_cond_wait(ptr, ptr)",
            "declare i32 @pthread_cond_broadcast(ptr)",
        ]
    return (
        "\n".join(lines)
        + f"""
define internal i64 @now() {{
entry:
  %time = alloca [2 x i64], align 16
  %ignored = call i32 @clock_gettime(i32 {platform.monotonic_clock}, ptr %time)
  %nanoseconds_at = getelementptr i8, ptr %time, i64 8
  %seconds = load i64, ptr %time, align 16
  %nanoseconds = load i64, ptr %nanoseconds_at, align 8
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}}
"""
    )


def _worker(platform: Platform) -> str:
    """A thread's life: spin, sleep, join, work. `last` is the newest generation it has dealt with."""
    pause = platform.pause[1]
    return (
        f"""
define internal ptr @worker(ptr %record) {{
entry:
  %state_at = getelementptr i8, ptr %record, i64 8
  %thread_at = getelementptr i8, ptr %record, i64 16
  %state = load ptr, ptr %state_at, align 8
  %thread = load i64, ptr %thread_at, align 8
{at("stop_at", StateLayout.STOP)}{at("spin_at", StateLayout.SPIN_NANOSECONDS)}\
  %spin_limit = load i64, ptr %spin_at, align 8
  br label %wait
wait:
  %last = phi i64 [ 0, %entry ], [ %generation, %closed ], [ %generation, %leave ]
  br label %spin
spin:
  %since = phi i64 [ 0, %wait ], [ %start, %politely ], [ %start, %yield ]
  br label %spin_once
spin_once:
  %turn = phi i64 [ 0, %spin ], [ %next_turn, %spin_again ]
  %seen = load atomic i64, ptr %state acquire, align 64
  %seen_generation = lshr i64 %seen, 32
  %changed = icmp ne i64 %seen_generation, %last
  br i1 %changed, label %awake, label %spin_again
spin_again:
  {pause}
  %next_turn = add i64 %turn, 1
  %more_turns = icmp ult i64 %next_turn, 64
  br i1 %more_turns, label %spin_once, label %look_at_clock
look_at_clock:
  %time = call i64 @now()
  %first_look = icmp eq i64 %since, 0
  %start = select i1 %first_look, i64 %time, i64 %since
  %waited = sub i64 %time, %start
  %keep_spinning = icmp ult i64 %waited, %spin_limit
  br i1 %keep_spinning, label %politely, label %sleep
politely:
  %long = icmp ugt i64 %waited, {SPIN_BEFORE_YIELDING}
  br i1 %long, label %yield, label %spin
yield:
  call void @move_away(ptr %state)
  %yielded = call i32 @sched_yield()
  br label %spin
sleep:
  call void @sleep_until_changed(ptr %state, i64 %last)
  call void @move_away(ptr %state)
  br label %awake
"""
        + _JOINING
        + (WAIT_BY_FUTEX if platform.waiting == "futex" else WAIT_BY_CONDITION).replace(
            "FUTEX_CALL", str(platform.futex_call) if platform.waiting == "futex" else ""
        )
    )


# The rest of the worker: join the open job, if it still is, and go back to waiting.
_JOINING = """\
awake:
  %stop = load atomic i32, ptr %stop_at acquire, align 4
  %stopping = icmp ne i32 %stop, 0
  br i1 %stopping, label %exit, label %join
join:
  %word = load atomic i64, ptr %state acquire, align 64
  %generation = lshr i64 %word, 32
  %open_bit = and i64 %word, 2147483648
  %open = icmp ne i64 %open_bit, 0
  br i1 %open, label %try_to_join, label %closed
closed:
  br label %wait
try_to_join:
  %one_more = add i64 %word, 1
  %exchange = cmpxchg ptr %state, i64 %word, i64 %one_more acq_rel monotonic, align 64
  %joined = extractvalue { i64, i1 } %exchange, 1
  br i1 %joined, label %take_part, label %join
take_part:
  call void @work(ptr %state, i64 %thread)
  br label %leave
leave:
  %before = atomicrmw sub ptr %state, i64 1 release, align 64
  br label %wait
exit:
  ret ptr null
}
"""


_PUBLISH = f"""
define internal void @publish(ptr %state, i64 %open_bit, i64 %useful) {{
entry:
{at("sleepers_at", StateLayout.SLEEPERS)}\
  %word = load atomic i64, ptr %state monotonic, align 64
  %generation = lshr i64 %word, 32
  %next_generation = add i64 %generation, 1
  %shifted = shl i64 %next_generation, 32
  %new = or i64 %shifted, %open_bit
  %old = atomicrmw xchg ptr %state, i64 %new seq_cst, align 64
  %sleepers = load atomic i32, ptr %sleepers_at seq_cst, align 4
  %any = icmp ne i32 %sleepers, 0
  br i1 %any, label %some_sleep, label %done
some_sleep:
  call void @wake(ptr %state, i64 %useful)
  br label %done
done:
  ret void
}}
"""


def _start(platform: Platform) -> str:
    initialise = ""
    if platform.waiting == "condition":
        initialise = (
            at("mutex", StateLayout.MUTEX) + at("condition", StateLayout.CONDITION)
            + "  %made_mutex = call i32 @pthread_mutex_init(ptr %mutex, ptr null)\n"
            + "  %made_condition = call i32 @pthread_cond_init(ptr %condition, ptr null)\n"
        )  # fmt: skip
    return f"""
define internal void @start(ptr %state, i32 %wanted) {{
entry:
{at("stop_at", StateLayout.STOP)}{at("sleepers_at", StateLayout.SLEEPERS)}\
{at("workers_at", StateLayout.WORKERS)}{initialise}\
  store atomic i32 0, ptr %stop_at monotonic, align 4
  store atomic i32 0, ptr %sleepers_at monotonic, align 4
  store atomic i64 0, ptr %state release, align 64
  br label %head
head:
  %index = phi i32 [ 0, %entry ], [ %next, %started ]
  %more = icmp slt i32 %index, %wanted
  br i1 %more, label %create, label %done
create:
  %next = add i32 %index, 1
  %wide = zext i32 %index to i64
  %thread = zext i32 %next to i64
  %scaled = mul i64 %wide, {StateLayout.THREAD_SIZE}
  %offset = add i64 %scaled, {StateLayout.THREADS}
  %record = getelementptr i8, ptr %state, i64 %offset
  %record_state = getelementptr i8, ptr %record, i64 8
  %record_thread = getelementptr i8, ptr %record, i64 16
  store ptr %state, ptr %record_state, align 8
  store i64 %thread, ptr %record_thread, align 8
  %error = call i32 @pthread_create(ptr %record, ptr null, ptr @worker, ptr %record)
  %good = icmp eq i32 %error, 0
  br i1 %good, label %started, label %done
started:
  br label %head
done:
  store i32 %index, ptr %workers_at, align 4
  ret void
}}
"""


_STOP = f"""
define internal void @stop(ptr %state) {{
entry:
{at("stop_at", StateLayout.STOP)}{at("workers_at", StateLayout.WORKERS)}\
  store atomic i32 1, ptr %stop_at release, align 4
  call void @publish(ptr %state, i64 0, i64 2147483647)
  %workers = load i32, ptr %workers_at, align 4
  store i32 0, ptr %workers_at, align 4
  br label %head
head:
  %index = phi i32 [ 0, %entry ], [ %next, %join ]
  %more = icmp slt i32 %index, %workers
  br i1 %more, label %join, label %done
join:
  %wide = zext i32 %index to i64
  %scaled = mul i64 %wide, {StateLayout.THREAD_SIZE}
  %offset = add i64 %scaled, {StateLayout.THREADS}
  %record = getelementptr i8, ptr %state, i64 %offset
  %handle = load i64, ptr %record, align 8
  %error = call i32 @pthread_join(i64 %handle, ptr null)
  %next = add i32 %index, 1
  br label %head
done:
  ret void
}}
"""


_INLINE_LOOP = """\
  br label %inline_head
inline_head:
  %chunk = phi i64 [ 0, %INLINE ], [ %next_chunk, %inline_body ]
  %left = icmp slt i64 %chunk, %chunks
  br i1 %left, label %inline_body, label %inline_done
inline_body:
  call void %function(ptr %arguments, i64 %chunk, i64 0)
  %next_chunk = add i64 %chunk, 1
  br label %inline_head
inline_done:
  ret void
"""

_INLINE_ONLY = f"""
define internal void @start(ptr %state, i32 %wanted) {{
  ret void
}}
define internal void @stop(ptr %state) {{
  ret void
}}
define internal void @run(ptr %state, ptr %function, ptr %arguments, i64 %chunks) {{
entry:
{_INLINE_LOOP.replace("%INLINE", "%entry")}}}
"""


def _run(platform: Platform) -> str:
    layout = StateLayout
    return f"""
define internal void @run(ptr %state, ptr %function, ptr %arguments, i64 %chunks) {{
entry:
{at("workers_at", layout.WORKERS)}\
  %workers = load i32, ptr %workers_at, align 4
  %alone = icmp eq i32 %workers, 0
  %single = icmp slt i64 %chunks, 2
  %inline = or i1 %alone, %single
  br i1 %inline, label %by_itself, label %together
by_itself:
{_INLINE_LOOP.replace("%INLINE", "%by_itself")}\
together:
{at("function_at", layout.FUNCTION)}{at("arguments_at", layout.ARGUMENTS)}\
  store ptr %function, ptr %function_at, align 8
  store ptr %arguments, ptr %arguments_at, align 8
  call void @share(ptr %state, i64 %chunks)
  %useful = sub i64 %chunks, 1
  %few = icmp slt i64 %useful, 2147483647
  %count = select i1 %few, i64 %useful, i64 2147483647
  call void @say_core(ptr %state)
  call void @publish(ptr %state, i64 2147483648, i64 %count)
  call void @work(ptr %state, i64 0)
  %closed = atomicrmw and ptr %state, i64 -2147483649 acq_rel, align 64
  br label %look
look:
  %turn = phi i64 [ 0, %together ], [ %next_turn, %pause ], [ 0, %yield ]
  %word = load atomic i64, ptr %state acquire, align 64
  %active = and i64 %word, 2147483647
  %finished = icmp eq i64 %active, 0
  br i1 %finished, label %done, label %busy
busy:
  %next_turn = add i64 %turn, 1
  ; A worker may have been preempted: do not keep its processor from it.
  %patient = icmp ult i64 %next_turn, 20000
  br i1 %patient, label %pause, label %yield
pause:
  {platform.pause[1]}
  br label %look
yield:
  %yielded = call i32 @sched_yield()
  br label %look
done:
  ret void
}}
"""


def _entry(name: str, parameters: str, needs_started: int, body: str) -> str:
    """An exported function: takes the caller's flag, checks that threads run (or do not), does `body`."""
    return f"""
define i32 @{name}(ptr %state{parameters}) {{
enter:
{at("caller_at", StateLayout.CALLER)}{at("started_at", StateLayout.STARTED)}\
  %taken = cmpxchg ptr %caller_at, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %mine, label %check, label %busy
busy:
  ret i32 {BUSY}
check:
  %started = load i32, ptr %started_at, align 4
  %ready = icmp eq i32 %started, {needs_started}
  br i1 %ready, label %body, label %leave
{body}\
leave:
  %result = phi i32 [ {STOPPED if needs_started else DONE}, %check ], [ {DONE}, %body_end ]
  store atomic i32 0, ptr %caller_at release, align 4
  ret i32 %result
}}
"""


_ENTRIES = (
    _entry("pool_start", ", i32 %wanted", 0, """\
body:
  call void @start(ptr %state, i32 %wanted)
  store i32 1, ptr %started_at, align 4
  br label %body_end
body_end:
  br label %leave
""")
    + _entry("pool_stop", "", 1, """\
body:
  call void @stop(ptr %state)
  store i32 0, ptr %started_at, align 4
  br label %body_end
body_end:
  br label %leave
""")
    + _entry("pool_launch", ", ptr %record", 1, """\
body:
  %chunks_at = getelementptr i8, ptr %record, i64 8
  %words = getelementptr i8, ptr %record, i64 16
  %function = load ptr, ptr %record, align 8
  %chunks = load i64, ptr %chunks_at, align 8
  call void @run(ptr %state, ptr %function, ptr %words, i64 %chunks)
  br label %body_end
body_end:
  br label %leave
""")
    + _entry("pool_replay", ", ptr %records, i64 %count", 1, """\
body:
  br label %head
head:
  %index = phi i64 [ 0, %body ], [ %next, %one ]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %one, label %body_end
one:
  %function_at = getelementptr { ptr, ptr, i64 }, ptr %records, i64 %index
  %words_at = getelementptr { ptr, ptr, i64 }, ptr %records, i64 %index, i32 1
  %chunks_at = getelementptr { ptr, ptr, i64 }, ptr %records, i64 %index, i32 2
  %function = load ptr, ptr %function_at, align 8
  %words = load ptr, ptr %words_at, align 8
  %chunks = load i64, ptr %chunks_at, align 8
  call void @run(ptr %state, ptr %function, ptr %words, i64 %chunks)
  %next = add i64 %index, 1
  br label %head
body_end:
  br label %leave
""")
)  # fmt: skip

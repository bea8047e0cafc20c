"""How the threads of the pool share the chunks of a job: IR text.

Every thread has a block of neighbouring chunks, the same at every launch of a kernel, and helps the others when
its own is done. So a thread finds in its caches what it read or wrote there the last time, or what the kernel
before left there; and a thread that the system holds up delays nobody.

It defines ``@share(state, chunks)``, called by the caller before it publishes a job, and ``@work(state, thread)``.
A block's record is ``{next chunk, end}``; `next` runs past `end` when several threads find the block empty.
"""

from __future__ import annotations

from tinycore_backend_cpu.pool_layout import StateLayout, at

SHARE = f"""
define internal void @share(ptr %state, i64 %chunks) {{
entry:
{at("workers_at", StateLayout.WORKERS)}{at("blocks_at", StateLayout.BLOCKS)}\
{at("first_at", StateLayout.CHUNK_BLOCKS)}\
  %workers = load i32, ptr %workers_at, align 4
  %wide = zext i32 %workers to i64
  %threads = add i64 %wide, 1
  %blocks = call i64 @llvm.smin.i64(i64 %threads, i64 %chunks)
  store i64 %blocks, ptr %blocks_at, align 8
  %least = udiv i64 %chunks, %blocks
  %given = mul i64 %least, %blocks
  %longer = sub i64 %chunks, %given
  br label %head
head:
  %block = phi i64 [ 0, %entry ], [ %following, %head ]
  %start = phi i64 [ 0, %entry ], [ %end, %head ]
  %one_more = icmp ult i64 %block, %longer
  %more = zext i1 %one_more to i64
  %size = add i64 %least, %more
  %end = add i64 %start, %size
  %offset = mul i64 %block, {StateLayout.BLOCK_SIZE}
  %next_at = getelementptr i8, ptr %first_at, i64 %offset
  %end_at = getelementptr i8, ptr %next_at, i64 8
  store atomic i64 %start, ptr %next_at monotonic, align 8
  store i64 %end, ptr %end_at, align 8
  %following = add i64 %block, 1
  %again = icmp ult i64 %following, %blocks
  br i1 %again, label %head, label %done
done:
  ret void
}}
"""

WORK = f"""
define internal void @work(ptr %state, i64 %thread) {{
entry:
{at("function_at", StateLayout.FUNCTION)}{at("arguments_at", StateLayout.ARGUMENTS)}\
{at("blocks_at", StateLayout.BLOCKS)}{at("first_at", StateLayout.CHUNK_BLOCKS)}\
  %function = load ptr, ptr %function_at, align 8
  %arguments = load ptr, ptr %arguments_at, align 8
  %blocks = load i64, ptr %blocks_at, align 8
  %owner = icmp ult i64 %thread, %blocks
  %own = select i1 %owner, i64 %thread, i64 0
  br label %visit
visit:
  %visited = phi i64 [ 0, %entry ], [ %visited_now, %empty ]
  %block = phi i64 [ %own, %entry ], [ %wrapped, %empty ]
  %offset = mul i64 %block, {StateLayout.BLOCK_SIZE}
  %next_at = getelementptr i8, ptr %first_at, i64 %offset
  %end_at = getelementptr i8, ptr %next_at, i64 8
  %end = load i64, ptr %end_at, align 8
  br label %look
look:
  %seen = load atomic i64, ptr %next_at monotonic, align 8
  %some = icmp slt i64 %seen, %end
  br i1 %some, label %take, label %empty
take:
  %chunk = atomicrmw add ptr %next_at, i64 1 monotonic, align 8
  %left = icmp slt i64 %chunk, %end
  br i1 %left, label %execute, label %empty
execute:
  call void %function(ptr %arguments, i64 %chunk, i64 %thread)
  br label %look
empty:
  %visited_now = add i64 %visited, 1
  %following = add i64 %block, 1
  %is_last = icmp eq i64 %following, %blocks
  %wrapped = select i1 %is_last, i64 0, i64 %following
  %others = icmp ult i64 %visited_now, %blocks
  br i1 %others, label %visit, label %done
done:
  ret void
}}
"""

"""The order of tasks: data flow, and the hazards of buffers that are written in place.

A version of a buffer is read until the next version is written: every task that reads the old one comes
before the task that overwrites it. Where that would be a cycle (a reader of the old version needs the new
one), the old version is copied first.
"""

from __future__ import annotations

import heapq

from tinycore.errors import VerifyError
from tinycore.ir import UOp, ops, substitute
from tinycore.schedule.kernels import Builder, Task


def order_tasks(tasks: list[Task], builder: Builder) -> list[Task]:
    """The tasks in an order in which they can run, with copies of old versions where they are needed."""
    producer = {task.node: task for task in tasks}
    needs: dict[Task, set[Task]] = {
        task: {producer[read] for read in task.reads if read in producer} for task in tasks
    }
    position = {task: number for number, task in enumerate(tasks)}
    readers: dict[UOp, list[Task]] = {}
    for task in tasks:
        for read in task.reads:
            readers.setdefault(read, []).append(task)
    extra: list[Task] = []
    for old, writer in _writers(tasks).items():
        late = [r for r in readers.get(old, []) if r is not writer and _depends(r, writer, needs)]
        if late:
            copy = copy_version(old, builder)
            for task in late:
                task.body = tuple(substitute(task.body, {builder.buffer_of(old): copy.buffer}))
                task.reads = tuple([read for read in task.reads if read is not old])
            if old in producer:
                needs[copy] = {producer[old]}
            else:
                needs[copy] = set()
            position[copy] = -1
            extra.append(copy)
            needs[writer].add(copy)
            for reader in late:
                needs[reader].add(copy)
        for reader in readers.get(old, []):
            if reader is not writer and reader not in late:
                needs[writer].add(reader)
    return _topological([*tasks, *extra], needs, position)


def _writers(tasks: list[Task]) -> dict[UOp, Task]:
    """The task that overwrites each version, by version. Raises VerifyError when there are two."""
    writers: dict[UOp, Task] = {}
    for task in tasks:
        if task.node.op is not ops.ASSIGN:
            continue
        old = task.node.src[0]
        if old in writers:
            raise VerifyError(
                "two in-place writes start from the same version of a buffer",
                where=f"{writers[old].node!r}\n{task.node!r}",
                hint="let the second one write to the result of the first, or to a copy",
            )
        writers[old] = task
    return writers


def _depends(task: Task, other: Task, needs: dict[Task, set[Task]]) -> bool:
    """Whether `task` needs `other`, directly or not."""
    stack, seen = [task], {task}
    while stack:
        for need in needs[stack.pop()]:
            if need is other:
                return True
            if need not in seen:
                seen.add(need)
                stack.append(need)
    return False


def copy_version(old: UOp, builder: Builder) -> Task:
    """The task that copies a version of a buffer to a buffer of its own."""
    source = builder.buffer_of(old)
    target = builder.fresh_buffer(source)
    statement = UOp(ops.ASSIGN, target.dtype, (target, target, source))
    node = UOp(ops.CONTIGUOUS, source.dtype, (source, target))  # nobody else's
    return Task(node, target, (old,), (statement,))


def _topological(tasks: list[Task], needs: dict[Task, set[Task]], position: dict[Task, int]) -> list[Task]:
    """Kahn's algorithm; among the ready tasks the one that was first in the graph goes first."""
    users: dict[Task, list[Task]] = {task: [] for task in tasks}
    missing = {task: len(needs[task]) for task in tasks}
    for task, required in needs.items():
        for need in required:
            users[need].append(task)
    number = {task: index for index, task in enumerate(tasks)}
    ready = [(position[task], number[task]) for task in tasks if not missing[task]]
    heapq.heapify(ready)
    result: list[Task] = []
    while ready:
        task = tasks[heapq.heappop(ready)[1]]
        result.append(task)
        for user in users[task]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, (position[user], number[user]))
    assert len(result) == len(tasks), "a cycle among tasks"
    return result

"""The order of tasks: data flow, and the hazards of buffers that are written in place.

A version of a buffer is read until the next version is written: every task that reads the old one comes
before the task that overwrites it. Where that would be a cycle (a reader of the old version needs the new
one), the old version is copied first.
"""

from __future__ import annotations

import heapq

from tinycore.ir import UOp, ops
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
    for writer in [task for task in tasks if task.node.op is ops.ASSIGN]:
        old = writer.node.src[0]
        late = [r for r in readers.get(old, []) if r is not writer and _depends(r, writer, needs)]
        if late:
            copy = _copy_old_version(old, late, builder)
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


def _copy_old_version(old: UOp, late: list[Task], builder: Builder) -> Task:
    source = builder.buffer_of(old)
    target = builder.fresh_buffer(source)
    statement = UOp(ops.ASSIGN, target.dtype, (target, target, source))
    for task in late:
        task.body = tuple([_exchange(part, source, target) for part in task.body])
        task.reads = tuple([read for read in task.reads if read is not old])
    node = UOp(ops.CONTIGUOUS, source.dtype, (source,))
    return Task(node, target, (old,), (statement,))


def _exchange(statement: UOp, source: UOp, target: UOp) -> UOp:
    # The written buffer of the statement stays what it is; only what it reads is exchanged.
    written = statement.src[0]
    if written is source:
        rest = [operand.substitute({source: target}) for operand in statement.src[1:]]
        return statement.replace(src=(written, *rest))
    return statement.substitute({source: target})


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


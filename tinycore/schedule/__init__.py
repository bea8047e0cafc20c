"""The scheduler: a tensor graph becomes kernels and copies in order.

>>> from tinycore.ir import UOp, dtypes, ops
>>> a = UOp(ops.BUFFER, dtypes.float32, (), (-1, (4,), "X"))
>>> schedule = make_schedule([a + 1.0], "X")
>>> len(schedule.steps), schedule.results[0].shape
(1, (4,))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinycore.ir import Capabilities, UOp, dims, ops, substitute, toposort
from tinycore.rules import origins
from tinycore.rules.doors import Door, Observer
from tinycore.schedule.fuse import LEAVES, choose_stored
from tinycore.schedule.joint import join_tasks
from tinycore.schedule.kernels import Builder, Task, canonical_kernel, unaligned_read
from tinycore.schedule.memory import nbytes, plan
from tinycore.schedule.order import copy_version, order_tasks
from tinycore.schedule.outline import outline
from tinycore.schedule.placement import Layout, Placement, ScheduleContext
from tinycore.schedule.prepare import place, prepare
from tinycore.schedule.steps import CopyStep, KernelStep, Schedule, Step

__all__ = [
    "CopyStep",
    "KernelStep",
    "Layout",
    "Placement",
    "Schedule",
    "ScheduleContext",
    "Step",
    "make_schedule",
    "nbytes",
    "number_buffers",
    "outline",
]


def number_buffers(roots: list[UOp]) -> tuple[list[UOp], list[UOp]]:
    """(roots, inputs): the k-th BUFFER in order of appearance gets the id ``-1 - k``.

    Graphs that differ only in which buffers they use become the same nodes, which is what makes schedules
    reusable.
    """
    inputs = [node for node in toposort(roots) if node.op is ops.BUFFER]
    mapping = {
        buffer: UOp(ops.BUFFER, buffer.dtype, (), (-1 - k, *buffer.arg[1:]))
        for k, buffer in enumerate(inputs)
    }
    numbered = substitute(roots, mapping)
    unite = origins.uniter()
    if unite is not None:  # substitution keeps the structure, so both graphs have the same order
        for old, new in zip(toposort(roots), toposort(numbered), strict=True):
            unite(old, new)
    return numbered, inputs


def plain(device: str) -> Capabilities:
    """Of a device of which nothing is known."""
    return Capabilities()


def make_schedule(
    roots: list[UOp],
    default_device: str,
    doors: Mapping[str, Sequence[Door]] | None = None,
    observers: Sequence[Observer] = (),
    *,
    capabilities: Callable[[str], Capabilities] = plain,
) -> Schedule:
    """The schedule of roots whose buffers are numbered by `number_buffers`.

    Parameters
    ----------
    roots: tensor-level values.
    default_device: where values made of constants only are stored.
    doors: what joined the stages `tensor` and `schedule`, in order.
    observers: told about every pass over the graph.
    capabilities: what a device can do, by its name; for what joined.

    Raises DeviceError when one operation has operands on two devices.
    """
    doors = doors or {}
    context = ScheduleContext(default_device, capabilities)
    roots = prepare(roots, context, doors.get("tensor", ()), observers)
    placement = Placement(tuple(roots), frozenset(choose_stored(roots)))
    placement = place(placement, context, doors.get("schedule", ()), observers)
    roots, stored = list(placement.roots), placement.stored
    builder = Builder(placement, default_device)
    tasks = [builder.task(node) for node in toposort(roots) if node in stored]
    results = [builder.replace(root) if root.op not in LEAVES or root in stored else root for root in roots]
    results = _keep_versions(results, tasks, builder)
    ordered = order_tasks(_split_hazards(tasks, builder), builder)
    kept = {node for result in results for node in toposort((result,)) if node.op is ops.BUFFER}
    wanted = kept | {builder.homes[buffer] for buffer in kept if buffer in builder.homes}
    ordered = join_tasks(ordered, builder, wanted, placement.remembered)
    steps = [step for task in ordered for step in _step(task, builder, task.node in placement.remembered)]
    # Copies of inputs come first: what follows is one run of kernels for a device that replays them.
    steps.sort(key=lambda step: not (isinstance(step, KernelStep) and step.remember))
    kept |= {step.buffers[0] for step in steps if isinstance(step, KernelStep) and step.remember}
    return Schedule(tuple(steps), tuple(results), plan(steps, kept))


def _keep_versions(results: list[UOp], tasks: list[Task], builder: Builder) -> list[UOp]:
    """The results in the buffers where they are in the end; a version that is overwritten is copied before."""
    overwritten = {task.buffer: task.node.src[0] for task in tasks if task.node.op is ops.ASSIGN}
    places = dict(builder.homes)
    for buffer in {node for result in results for node in toposort((result,)) if node in overwritten}:
        copy = copy_version(overwritten[buffer], builder)
        tasks.append(copy)
        places[buffer] = copy.buffer
    return substitute(results, places)


def _split_hazards(tasks: list[Task], builder: Builder) -> list[Task]:
    """An ASSIGN that reads its own buffer elsewhere computes its value into a buffer of its own first."""
    result: list[Task] = []
    for task in tasks:
        if unaligned_read(task):
            (statement,) = task.body
            base, view, value = statement.src
            temporary = builder.fresh_buffer(value)
            node = UOp(ops.CONTIGUOUS, value.dtype, (task.node.src[2], task.node))
            fill = UOp(ops.ASSIGN, value.dtype, (temporary, temporary, value))
            result.append(Task(node, temporary, task.reads, (fill,)))
            task.body = (statement.replace(src=(base, view, temporary)),)
            task.reads = (*[read for read in task.reads if read is task.node.src[0]], node)
        result.append(task)
    return result


def _step(task: Task, builder: Builder, remember: bool) -> list[Step]:
    device = task.buffer.arg[2]
    written = task.node.src[1].shape if task.node.op is ops.ASSIGN else task.buffer.arg[1]
    if any(dims.upper(dim) == 0 for dim in written):
        return []  # nothing to compute
    if task.node.op is ops.COPY:
        (statement,) = task.body
        source = statement.src[2].under(ops.RESHAPE)
        if source.op is ops.BUFFER:
            return [CopyStep(builder.homes.get(source, source), task.buffer)]
    kernel, buffers = canonical_kernel(task, builder.homes)
    return [KernelStep(kernel, buffers, device, (task.node, *task.others), remember)]

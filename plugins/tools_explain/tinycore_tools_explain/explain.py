"""`tinycore explain` and `tinycore.explain(tensor)`: an expression's way to code, stage by stage.

Nothing here decides anything: the passes of the compiler run as always, with an observer and a trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinycore.codegen.compile import kernel_name, lower
from tinycore.errors import TinycoreError
from tinycore.interpret.arrays import bind
from tinycore.ir import UOp, dims, dtypes, ops, toposort
from tinycore.ir.text import print_graph
from tinycore.rules import Event, RuleInfo, origins, trace
from tinycore.rules.doors import PassRun
from tinycore.runtime.devices import capabilities_of, default_device, get_device
from tinycore.runtime.joined import joined, schedule_doors
from tinycore.runtime.reference import ReferenceDevice
from tinycore.runtime.report import KernelTime, collect
from tinycore.schedule import CopyStep, KernelStep, Schedule, make_schedule, number_buffers
from tinycore_tools_explain.reasons import describe, reasons

if TYPE_CHECKING:
    from tinycore.codegen.program import Program
    from tinycore.rules import Trace


@dataclass(frozen=True)
class Stage:
    """One pass as it ran.

    Attributes
    ----------
    name, level: of the pass, and of what it gives.
    before, after: the graph.
    seconds: how long it took.
    events: every rewrite, in order.
    """

    name: str
    level: str
    before: UOp
    after: UOp
    seconds: float
    events: tuple[Event, ...]

    def rules(self) -> Counter[RuleInfo]:
        """How often each rule fired."""
        return Counter(event.rule for event in self.events)


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes
    ----------
    number: its place among the kernels.
    name, device: as at DEBUG=2.
    step: what the schedule says of it.
    why: why it is a kernel of its own.
    does: what it does, one sentence each.
    origins: lines of the user's program that it computes.
    stages: the passes of its pipeline; none on the interpreter.
    program: what is rendered; None on the interpreter.
    code: the generated code; None on the interpreter.
    time: the second run of it; None when nothing was run.
    """

    number: int
    name: str
    device: str
    step: KernelStep
    why: str
    does: tuple[str, ...]
    origins: tuple[str, ...]
    stages: tuple[Stage, ...] = ()
    program: Program | None = None
    code: str | None = None
    time: KernelTime | None = None

    @property
    def actions(self) -> tuple[Any, ...]:
        """What tiling did, in words when printed."""
        return tuple(self.program.linear.arg or ()) if self.program is not None else ()


@dataclass(frozen=True)
class Explanation:
    """Everything about the way of some tensors to code; `str` of it is the report.

    Attributes
    ----------
    graph: a SINK of the tensors, as they were written.
    stages: the passes over the tensor graph.
    schedule: the kernels and copies.
    kernels: every kernel in order.
    """

    graph: UOp
    stages: tuple[Stage, ...]
    schedule: Schedule
    kernels: tuple[Kernel, ...]
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from tinycore_tools_explain.text import report

        return report(self)

    __repr__ = __str__


def explain(value: Any, *, device: str | None = None, run: bool = True) -> Explanation:
    """How some tensors become code; print the answer, or look at its attributes.

    Parameters
    ----------
    value: a tensor, a list of tensors, or graph nodes. They are not changed.
    device: for values made of constants only; the default device if None.
    run: also run the kernels, to time them (never done for graphs that change a buffer in place).

    Raises TinycoreError for what is no tensor, and whatever compiling raises.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> x = UOp(ops.BUFFER, dtypes.float32, (), (1 << 60, (4,), "INTERPRETER"))
    >>> [kernel.why for kernel in explain(x + 1.0, device="INTERPRETER").kernels]
    ['its result was asked for']
    """
    roots, bindings = _graphs(value)
    home = device or default_device()
    origins.ask(toposort(roots))
    numbered, inputs = number_buffers(roots)
    stages: list[Stage] = []
    with trace() as found:
        recorder = _recorder(stages, found)
        schedule = make_schedule(numbered, home, schedule_doors(), (recorder,), capabilities=capabilities_of)
    notes: list[str] = []
    times: Mapping[tuple[str, str], KernelTime] = {}
    if run and UOp(ops.SINK, dtypes.void, tuple(roots)).mask & ops.ASSIGN.bit:
        notes.append("not timed: it changes a buffer in place")
    elif run:
        times = _measure(roots, inputs, bindings, home)
    kernels = tuple(_kernels(schedule, times))
    return Explanation(
        UOp(ops.SINK, dtypes.void, tuple(roots)), tuple(stages), schedule, kernels, tuple(notes)
    )


def _graphs(value: Any) -> tuple[list[UOp], dict[UOp, int]]:
    """The roots, and a value for every symbolic dimension."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    roots: list[UOp] = []
    known: dict[UOp, int] = {}
    for each in several:
        node = each if isinstance(each, UOp) else getattr(each, "uop", None)
        if not isinstance(node, UOp):
            raise TinycoreError(
                f"a {type(each).__name__} cannot be explained",
                hint="give it a tensor: tinycore.explain(x @ y)",
            )
        while node.op is ops.DETACH:
            node = node.src[0]
        roots.append(node)
        known.update(getattr(each, "bindings", {}))
    return roots, {**bind(toposort(roots)), **known}


def _recorder(stages: list[Stage], found: Trace) -> Any:
    """An observer that turns passes and the trace into `Stage`s."""
    taken = 0

    def record(seen: PassRun) -> None:
        nonlocal taken
        events = tuple(found.events[taken:])
        taken = len(found.events)
        stages.append(Stage(seen.name, seen.gives, seen.before, seen.after, seen.seconds, events))

    return record


def _kernels(schedule: Schedule, times: Mapping[tuple[str, str], KernelTime]) -> Iterator[Kernel]:
    why = reasons(schedule)
    stored = set(why)
    steps = [step for step in schedule.steps if isinstance(step, KernelStep)]
    for number, step in enumerate(steps):
        name = kernel_name(step.kernel)
        reason = "; ".join(dict.fromkeys([why[node] for node in step.nodes if node in why]))
        base = Kernel(
            number, name, step.device, step, reason, tuple(describe(step.kernel)), _lines(step, stored)
        )
        yield _lowered(base, times.get((name, step.device)))


def _lowered(kernel: Kernel, time: KernelTime | None) -> Kernel:
    """The same with its way through the pipeline."""
    device = get_device(kernel.device)
    facts = {
        name: getattr(kernel, name) for name in ("number", "name", "device", "step", "why", "does", "origins")
    }
    if isinstance(device, ReferenceDevice):
        return Kernel(**facts, time=time)
    stages: list[Stage] = []
    with trace() as found:
        program = lower(kernel.step.kernel, device.target, joined().doors, (_recorder(stages, found),))
    return Kernel(**facts, stages=tuple(stages), program=program, code=device.render(program), time=time)


def _lines(step: KernelStep, stored: set[UOp]) -> tuple[str, ...]:
    """Lines of the user's program whose values this kernel computes."""
    found: dict[str, None] = {}
    stack = list(step.nodes)
    seen: set[UOp] = set()
    while stack:
        node = stack.pop()
        if node in seen or (node in stored and node not in step.nodes) or node.op is ops.BUFFER:
            continue
        seen.add(node)
        found.update(dict.fromkeys(sorted(origins.of(node))))
        stack.extend(node.src)
    return tuple(found)


def _measure(
    roots: Sequence[UOp], inputs: Sequence[UOp], bindings: Mapping[UOp, int], device: str
) -> dict[tuple[str, str], KernelTime]:
    """The times of a second run; buffers that have no memory get some."""
    from tinycore.runtime.realize import realize
    from tinycore.runtime.storage import from_host, storage_of

    replaced: dict[UOp, UOp] = {}
    for node in inputs:
        try:
            storage_of(node)
        except TinycoreError:  # an input that is only talked about
            replaced[node] = from_host(_zeros(node, bindings), node.arg[2], node.dtype, node.arg[1], bindings)
    runnable = [root.substitute(replaced) for root in roots]
    realize(runnable, bindings, device)
    with collect() as rows:
        realize(runnable, bindings, device)
    return {(row.name, row.device): row for row in rows}


def _zeros(node: UOp, bindings: Mapping[UOp, int]) -> Any:
    import numpy as np

    from tinycore.runtime.storage import evaluate

    return np.zeros([evaluate(dim, bindings) for dim in node.arg[1]], node.dtype.numpy)


def copies(schedule: Schedule) -> list[CopyStep]:
    """The copies of a schedule."""
    return [step for step in schedule.steps if isinstance(step, CopyStep)]


def to_data(explanation: Explanation) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    return {
        "graph": print_graph(explanation.graph).splitlines(),
        "stages": [_stage_data(stage) for stage in explanation.stages],
        "copies": len(copies(explanation.schedule)),
        "kernels": [_kernel_data(kernel) for kernel in explanation.kernels],
        "notes": list(explanation.notes),
    }


def _stage_data(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "level": stage.level,
        "nodes": [len(stage.before.toposort()), len(stage.after.toposort())],
        "seconds": stage.seconds,
        "rules": [
            {"rule": rule.name, "group": rule.group, "where": f"{rule.path}:{rule.line}", "count": count}
            for rule, count in stage.rules().most_common()
        ],
    }


def _kernel_data(kernel: Kernel) -> dict[str, Any]:
    program = kernel.program
    return {
        "number": kernel.number,
        "name": kernel.name,
        "device": kernel.device,
        "why": kernel.why,
        "does": list(kernel.does),
        "origins": list(kernel.origins),
        "stages": [_stage_data(stage) for stage in kernel.stages],
        "actions": [str(action) for action in kernel.actions],
        "program": print_graph(program.linear).splitlines() if program is not None else None,
        "grid": [dims.upper(size) for size in program.grid] if program is not None else [],
        "group": list(program.group) if program is not None else [],
        "code": kernel.code,
        "seconds": kernel.time.seconds if kernel.time is not None else None,
    }

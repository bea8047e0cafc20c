"""Realize: run the schedule of a graph and answer where its values are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from tinycore.codegen.compile import kernel_name
from tinycore.config import config
from tinycore.errors import BindingError
from tinycore.ir import UOp, ops
from tinycore.runtime import report
from tinycore.runtime.bound import recall_key
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.compiler import Compiled, compile_kernels
from tinycore.runtime.device import Device
from tinycore.runtime.devices import default_device, get_device
from tinycore.runtime.environment import validation
from tinycore.runtime.plan import plan_of
from tinycore.runtime.reference import ReferenceDevice
from tinycore.runtime.report import KernelTime, collect, statistics
from tinycore.runtime.storage import Bindings, check_bindings, evaluate, new_buffer_node, storage_of
from tinycore.schedule import CopyStep, KernelStep, Schedule, Step, nbytes

__all__ = ["Call", "CopyCall", "KernelCall", "KernelTime", "collect", "realize", "recorders", "statistics"]


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One launch with its buffers, ready to be repeated; the first `outputs` of them are written."""

    kernel: UOp
    compiled: Compiled | None
    buffers: tuple[Buffer, ...]
    outputs: int = 1

    def run(self, bindings: Bindings) -> None:
        """Launch, and report at DEBUG=2."""
        for buffer in self.buffers[: self.outputs]:
            buffer.version += 1
        device = self.buffers[0].device
        if self.compiled is None:
            assert isinstance(device, ReferenceDevice)
            memories = [buffer.memory for buffer in self.buffers]
            start = time.perf_counter()
            device.run(self.kernel, memories, bindings)
            if config().debug >= 2 or statistics.active:
                seconds = time.perf_counter() - start
                statistics.report(KernelTime(kernel_name(self.kernel), device.name, seconds, 0, 0))
            return
        if config().validate:
            check = validation().launch
            check(self.kernel, device.name, self.buffers, bindings, lambda: self._launch(bindings))
        else:
            self._launch(bindings)

    def _launch(self, bindings: Bindings) -> None:
        compiled = self.compiled
        assert compiled is not None
        device = self.buffers[0].device
        memories = [buffer.memory for buffer in self.buffers]
        variables, grid = self.arguments(bindings)
        if config().debug >= 2 or statistics.active:
            seconds = device.elapsed(compiled.executable, memories, variables, grid)
            operations = evaluate(compiled.operations, bindings)
            traffic = evaluate(compiled.traffic, bindings)
            statistics.report(KernelTime(compiled.name, device.name, seconds, operations, traffic))
        else:
            compiled.executable.launch(memories, variables, grid)

    def arguments(self, bindings: Bindings) -> tuple[list[int], list[int]]:
        """(variables, grid) of a launch. Raises BindingError for a variable without a value."""
        assert self.compiled is not None
        variables = [_binding(variable, bindings) for variable in self.compiled.variables]
        return variables, [evaluate(dim, bindings) for dim in self.compiled.grid]


@dataclass(frozen=True, slots=True)
class RememberedCall:
    """A launch whose result is a function of one buffer: it is skipped while that buffer is unchanged."""

    call: KernelCall

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Of the launch: the result and what it is computed from."""
        return self.call.buffers

    def run(self, bindings: Bindings) -> None:
        """Launch if the source has changed since the last time."""
        target, source = self.call.buffers
        if not target.follows(source):
            self.call.run(bindings)
            target.set_source(source)


@dataclass(frozen=True, slots=True)
class CopyCall:
    """Bytes from one buffer to another."""

    source: Buffer
    target: Buffer

    def run(self, bindings: Bindings) -> None:
        """Copy through host memory, or directly where both sides are host memory."""
        count = min(self.source.nbytes, self.target.nbytes)
        self.source.device.synchronize()
        visible = self.source.device.allocator.host_view(self.source.memory, count)
        if visible is None:
            visible = memoryview(bytearray(count))
            self.source.copy_out(visible)
        self.target.copy_in(visible)


Call = KernelCall | RememberedCall | CopyCall
Recorder = Callable[[Sequence[Call], Bindings], None]
recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("tinycore_recorders", default=())
"""Called with every list of calls that has run (capture), in this thread or task only."""


def realize(roots: Sequence[UOp], bindings: Bindings | None = None, device: str | None = None) -> list[UOp]:
    """Compute tensor graphs and store them.

    Parameters
    ----------
    roots: any tensor-level values; ASSIGN roots change their buffer in place.
    bindings: the value of every symbolic dimension that occurs.
    device: where values made of constants only are stored; the default device if None.

    Returns
    -------
    For every root a BUFFER node, or a RESHAPE of one, that holds it. Raises BindingError, DeviceError,
    CompileError.
    """
    bindings = bindings or {}
    check_bindings(bindings)
    if all(_stored(root) for root in roots):
        return list(roots)
    home = device or default_device()
    plan, inputs = plan_of(roots, home, fixed=not bindings)
    if not bindings and not _watched():
        bound = plan.bound()
        if bound is not None:
            return bound.run(inputs)
    schedule = plan.schedule(roots)
    if config().debug >= 1:
        report.introduce(home)
        report.scheduled(schedule)
    buffers = {
        UOp(ops.BUFFER, node.dtype, (), (-1 - k, *node.arg[1:])): storage_of(node)
        for k, node in enumerate(inputs)
    }
    _check_sizes(schedule, bindings)
    codes = _codes(schedule.steps)
    _allocate(schedule, buffers)
    _recall(schedule, codes, buffers)
    calls = _calls(schedule.steps, codes, buffers)
    for call in calls:
        call.run(bindings)
    plan.keep()
    for recorder in recorders.get():
        recorder(calls, bindings)
    nodes = dict(zip(list(buffers)[: len(inputs)], inputs, strict=True))
    return [_result(result, buffers, nodes) for result in schedule.results]


def _watched() -> bool:
    """Whether somebody wants to see every launch: a recorder, a collector of times, DEBUG, validation."""
    settings = config()
    return bool(recorders.get() or statistics.active or settings.debug or settings.validate)


def _stored(root: UOp) -> bool:
    return root.under(ops.RESHAPE).op is ops.BUFFER


def _binding(variable: UOp, bindings: Bindings) -> int:
    try:
        return bindings[variable]
    except KeyError:
        raise BindingError(
            f"the symbolic dimension {variable.arg[0]!r} has no value",
            hint="bind it: Variable(...).bind(value)",
        ) from None


def _check_sizes(schedule: Schedule, bindings: Bindings) -> None:
    """Raises BindingError before anything runs: an in-place update must not happen by half."""
    for step in schedule.steps:
        for buffer in (step.source, step.target) if isinstance(step, CopyStep) else step.buffers:
            for dim in buffer.arg[1]:
                if not isinstance(dim, int):
                    evaluate(dim, bindings)


def _allocate(schedule: Schedule, buffers: dict[UOp, Buffer]) -> None:
    """Memory for everything that the schedule makes; buffers of one slot share it."""
    sizes: dict[int, int] = {}
    for node, slot in schedule.slots:
        sizes[slot] = max(sizes.get(slot, 0), nbytes(node))
    shared: dict[int, Buffer] = {}
    for node, slot in schedule.slots:
        if slot not in shared:
            shared[slot] = Buffer(get_device(node.arg[2]), sizes[slot])
        buffers[node] = shared[slot]
    made = [
        b
        for step in schedule.steps
        for b in ((step.source, step.target) if isinstance(step, CopyStep) else step.buffers)
    ]
    made.extend(node for result in schedule.results for node in result.toposort() if node.op is ops.BUFFER)
    for node in made:
        if node not in buffers:
            buffers[node] = Buffer(get_device(node.arg[2]), nbytes(node))


Codes = Mapping[tuple[UOp, str], Compiled]
"""The code of every kernel on its device, but for those that are interpreted."""


def _codes(steps: Sequence[Step]) -> Codes:
    """Raises CompileError before anything runs."""
    kernels = [step for step in steps if isinstance(step, KernelStep)]
    wanted = [(step.kernel, device) for step in kernels if (device := _compiles_for(step)) is not None]
    keys = [(kernel, device.name) for kernel, device in wanted]
    return dict(zip(keys, compile_kernels(wanted), strict=True))


def _recall(schedule: Schedule, codes: Codes, buffers: dict[UOp, Buffer]) -> None:
    """Results that are worth keeping are stored where they were stored the last time."""
    for step in schedule.steps:
        if isinstance(step, KernelStep) and step.remember:
            target, source = step.buffers[0], buffers[step.buffers[1]]
            key = recall_key(step.kernel, codes.get((step.kernel, step.device)))
            known = source.derived(key)
            if known is None:
                source.remember(key, buffers[target])
            else:
                buffers[target] = known


def _calls(steps: Sequence[Step], codes: Codes, buffers: Mapping[UOp, Buffer]) -> list[Call]:
    """Every step with its code and its buffers."""
    calls: list[Call] = []
    for step in steps:
        if isinstance(step, CopyStep):
            calls.append(CopyCall(buffers[step.source], buffers[step.target]))
        else:
            found = codes.get((step.kernel, step.device))
            call = KernelCall(
                step.kernel, found, tuple([buffers[node] for node in step.buffers]), step.outputs
            )
            calls.append(RememberedCall(call) if step.remember else call)
    return calls


def _compiles_for(step: KernelStep) -> Device | None:
    """The device that a kernel is compiled for; None for the one that interprets."""
    device = get_device(step.device)
    return None if isinstance(device, ReferenceDevice) else device


def _result(result: UOp, buffers: Mapping[UOp, Buffer], inputs: dict[UOp, UOp]) -> UOp:
    """The schedule's answer with real BUFFER nodes; one node for one buffer."""
    for node in result.toposort():
        if node.op is ops.BUFFER and node not in inputs:
            inputs[node] = new_buffer_node(node.dtype, node.arg[1], node.arg[2], buffers[node])
    return result.substitute(inputs)

"""A plan as one call of its device: every buffer has a place in a list, every launch takes places of it.

What is bound needs no graph: it can be stored, and run by a process that never scheduled anything.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import cast

from tinycore.ir import DType, Shape, UOp, ops
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.compiler import Compiled, compile_kernels
from tinycore.runtime.device import Graph, GraphDevice, Launch, Opaque
from tinycore.runtime.devices import get_device
from tinycore.runtime.storage import new_buffer_node, storage_of
from tinycore.schedule import KernelStep, Schedule, nbytes

_IDLE_GRAPHS = 4


@dataclass(frozen=True, slots=True)
class Recall:
    """A launch that is left out while its source is unchanged."""

    key: Hashable
    """What the result is remembered by, with its source."""
    compiled: Compiled
    source: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a root is: a place, seen through reshapes."""

    place: int
    shapes: tuple[Shape, ...]


@dataclass(slots=True)
class Bound:
    """A schedule of launches on one device; places are numbers of buffers in one list.

    The list holds the inputs, then what is made for results, then temporaries, then remembered copies.
    """

    device: GraphDevice
    made: tuple[tuple[DType, Shape, int], ...]
    """(dtype, shape, bytes) of every result that is not an input."""
    temporaries: tuple[int, ...]
    """Their bytes."""
    remembered: tuple[Recall, ...]
    launches: tuple[tuple[Compiled, tuple[int, ...]], ...]
    written: tuple[int, ...]
    """Inputs that are changed in place."""
    results: tuple[Place, ...]
    idle: list[Graph] = field(default_factory=list)
    arguments: Callable[[Sequence[Opaque]], tuple[Opaque, ...]] = field(init=False)
    """From the memory of all places the arguments of all launches."""

    def __post_init__(self) -> None:
        flat = [place for _, places in self.launches for place in places]
        self.arguments = itemgetter(*flat) if len(flat) > 1 else lambda memories: (memories[flat[0]],)

    def run(self, inputs: Sequence[UOp]) -> list[UOp]:
        """Launch everything; the nodes of the results. Raises DeviceError when memory is exhausted."""
        device = self.device
        allocator = device.allocator
        buffers = [storage_of(node) for node in inputs]
        made = [Buffer(device, size) for _, _, size in self.made]
        memories: list[Opaque] = [buffer.memory for buffer in buffers]
        memories += [buffer.memory for buffer in made]
        borrowed: list[tuple[Opaque, int]] = []
        try:
            for size in self.temporaries:
                memory = allocator.allocate(size)
                borrowed.append((memory, size))
                memories.append(memory)
            for call in self.remembered:
                memories.append(self._recall(call, buffers[call.source]))
            for place in self.written:
                buffers[place].version += 1
            self._replay(memories)
        finally:
            for memory, size in borrowed:
                allocator.free(memory, size)
        nodes = [*inputs]
        for (dtype, shape, _), buffer in zip(self.made, made, strict=True):
            nodes.append(new_buffer_node(dtype, shape, device.name, buffer))
        return [_shaped(nodes[result.place], result.shapes) for result in self.results]

    def _recall(self, call: Recall, source: Buffer) -> Opaque:
        target = source.derived(call.key)
        if target is None:
            target = Buffer(self.device, call.nbytes)
            source.remember(call.key, target)
        if not target.follows(source):
            target.version += 1
            call.compiled.executable.launch((target.memory, source.memory), (), _grid(call.compiled))
            target.set_source(source)
        return target.memory

    def _replay(self, memories: Sequence[Opaque]) -> None:
        if not self.launches:
            return
        try:
            graph = self.idle.pop()  # one that no other thread uses now
        except IndexError:
            graph = self.device.capture(
                [
                    Launch(code.executable, tuple([memories[place] for place in places]), (), _grid(code))
                    for code, places in self.launches
                ]
            )
        else:
            graph.rebind(self.arguments(memories))
        graph.replay()
        if len(self.idle) < _IDLE_GRAPHS:
            self.idle.append(graph)


def _shaped(node: UOp, shapes: tuple[Shape, ...]) -> UOp:
    for shape in shapes:
        node = UOp(ops.RESHAPE, node.dtype, (node,), shape)
    return node


def _grid(code: Compiled) -> tuple[int, ...]:
    return cast("tuple[int, ...]", code.grid)  # nothing symbolic is bound


def recall_key(kernel: UOp, compiled: Compiled | None) -> Hashable:
    """What the result of a remembered kernel is known by, whoever launches it."""
    return compiled.key if compiled is not None and compiled.key else kernel


def bind(schedule: Schedule, inputs: int) -> Bound | None:
    """The schedule as launches of one device, or None: copies, several devices or symbolic sizes."""
    steps = [step for step in schedule.steps if isinstance(step, KernelStep)]
    names = {step.device for step in steps}
    if len(steps) != len(schedule.steps) or len(names) != 1 or not _static(schedule, steps):
        return None
    device = get_device(names.pop())
    if not isinstance(device, GraphDevice):
        return None
    compiled = compile_kernels([(step.kernel, device) for step in steps])
    if any(code.variables or not _positive(code.grid) for code in compiled):
        return None
    return _Binder(device, schedule, inputs).bound(list(zip(steps, compiled, strict=True)))


def _ints(shape: Sequence[object]) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def _positive(grid: Sequence[object]) -> bool:
    return all(isinstance(dim, int) and dim > 0 for dim in grid)


def _static(schedule: Schedule, steps: Sequence[KernelStep]) -> bool:
    buffers = [buffer for step in steps for buffer in step.buffers]
    buffers += [_base(result)[0] for result in schedule.results]
    return all(_ints(buffer.arg[1]) for buffer in buffers)


def _base(result: UOp) -> tuple[UOp, tuple[Shape, ...]]:
    """The BUFFER of a result, and the shapes that it is seen through, the innermost first."""
    shapes: list[Shape] = []
    while result.op is ops.RESHAPE:
        shapes.append(result.arg)
        result = result.src[0]
    assert result.op is ops.BUFFER
    return result, tuple(reversed(shapes))


class _Binder:
    """Gives every buffer of a schedule its place."""

    def __init__(self, device: GraphDevice, schedule: Schedule, inputs: int) -> None:
        self.device, self.schedule, self.inputs = device, schedule, inputs
        self.made: dict[UOp, int] = {}
        self.slots = dict(schedule.slots)
        self.sizes: list[int] = []
        for node, slot in schedule.slots:
            self.sizes += [0] * (slot + 1 - len(self.sizes))
            self.sizes[slot] = max(self.sizes[slot], nbytes(node))

    def bound(self, steps: Sequence[tuple[KernelStep, Compiled]]) -> Bound | None:
        results = [_base(result) for result in self.schedule.results]
        for node, _ in results:
            if node.arg[0] >= 0:
                self.made.setdefault(node, len(self.made))
        remembered = {
            step.buffers[0]: Recall(
                recall_key(step.kernel, code), code, -1 - step.buffers[1].arg[0], nbytes(step.buffers[0])
            )
            for step, code in steps
            if step.remember
        }
        if any(node in self.made for node in remembered):
            return None  # the copy itself was asked for
        first = self.inputs + len(self.made) + len(self.sizes)
        copies = {node: first + position for position, node in enumerate(remembered)}
        launches = tuple(
            [
                (code, tuple([copies[node] if node in copies else self.place(node) for node in step.buffers]))
                for step, code in steps
                if not step.remember
            ]
        )
        written = [
            self.place(node) for step, _ in steps for node in step.buffers[: step.outputs] if node.arg[0] < 0
        ]
        return Bound(
            self.device,
            tuple([(node.dtype, node.arg[1], nbytes(node)) for node in self.made]),
            tuple(self.sizes),
            tuple(remembered.values()),
            launches,
            tuple(dict.fromkeys(written)),
            tuple([Place(self.place(node), shapes) for node, shapes in results]),
        )

    def place(self, node: UOp) -> int:
        number: int = node.arg[0]
        if number < 0:
            return -1 - number
        if node in self.made:
            return self.inputs + self.made[node]
        return self.inputs + len(self.made) + self.slots[node]

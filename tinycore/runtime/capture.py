"""Capture what realize runs, and run it again with other inputs.

>>> from tinycore.runtime.capture import capture
>>> with capture() as recording:
...     pass                       # every realize in here is recorded, and runs as usual
>>> len(recording.calls)
0

A recording holds the buffers of its calls: results are always written to the same memory. On a
`GraphDevice` a run of kernels is replayed by one call of the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tinycore.config import config
from tinycore.errors import BindingError
from tinycore.ir import UOp
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.device import Graph, GraphDevice, Launch, Opaque
from tinycore.runtime.realize import Call, CopyCall, KernelCall, RememberedCall, recorders, statistics
from tinycore.runtime.storage import Bindings, check_bindings


@dataclass(slots=True)
class _Segment:
    """Consecutive calls that one graph of a device replays; without a device they run one by one."""

    calls: list[Call]
    device: GraphDevice | None = None
    graph: Graph | None = None
    users: dict[Buffer, list[int]] = field(default_factory=dict)
    """For every input which calls have it as an argument."""
    symbolic: list[int] = field(default_factory=list)
    """Calls whose arguments or grid depend on bindings."""
    memories: Mapping[Buffer, Opaque] = field(default_factory=dict)
    """The memory that the graph reads and writes for every input at present; the buffers may be gone."""
    bindings: Bindings = field(default_factory=dict)
    written: dict[Buffer, None] = field(default_factory=dict)

    def replay(self, exchanged: Mapping[Buffer, Buffer], bindings: Bindings) -> None:
        """Run the calls; a graph is told only what changed since the last time."""
        if self.device is None:
            for call in self.calls:
                _with_buffers(call, exchanged).run(bindings)
            return
        memories = {old: exchanged.get(old, old).memory for old in self.users}
        if self.graph is None:
            self.graph = self.device.capture([_launch(call, exchanged, bindings) for call in self.calls])
        else:
            stale = set(self.symbolic) if bindings != self.bindings else set()
            for old, positions in self.users.items():
                if memories[old] != self.memories[old]:
                    stale.update(positions)
            fresh = {position: _launch(self.calls[position], exchanged, bindings) for position in stale}
            for position, launch in fresh.items():
                self.graph.update(position, launch)
        self.memories, self.bindings = memories, bindings
        self.graph.replay()
        for buffer in self.written:
            exchanged.get(buffer, buffer).version += 1


class Recording:
    """The calls of a captured region.

    Attributes
    ----------
    calls: in order, as they were captured.
    bindings: the symbolic values at capture.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.bindings: dict[UOp, int] = {}
        self._inputs: tuple[Buffer, ...] = ()
        self._segments: list[_Segment] | None = None

    def record(self, calls: Sequence[Call], bindings: Bindings) -> None:
        """Add calls (what `realize` calls)."""
        self.calls.extend(calls)
        self.bindings.update(bindings)

    def declare_inputs(self, inputs: Sequence[Buffer]) -> None:
        """Say which buffers of the captured calls are exchanged at replay, by position.

        Raises BindingError for a buffer that is given twice: two inputs could not be told apart.
        """
        if len(set(inputs)) != len(inputs):
            raise BindingError("a buffer is declared twice as an input of a recording")
        self._inputs, self._segments = tuple(inputs), None

    def replay(self, inputs: Sequence[Buffer] = (), bindings: Bindings | None = None) -> None:
        """Run everything again, with other input buffers and other symbolic values.

        Raises BindingError when the inputs do not fit: another number, size or device.
        """
        values = {**self.bindings, **(bindings or {})}
        check_bindings(values)
        exchanged = self._exchanged(inputs)
        if config().debug >= 2 or statistics.active:
            for call in self.calls:
                _with_buffers(call, exchanged).run(values)
            return
        if self._segments is None:
            self._segments = _segments(self.calls, self._inputs)
        for segment in self._segments:
            segment.replay(exchanged, values)

    def _exchanged(self, inputs: Sequence[Buffer]) -> dict[Buffer, Buffer]:
        if len(inputs) != len(self._inputs):
            raise BindingError(f"{len(self._inputs)} inputs were captured, {len(inputs)} were given")
        for position, (old, new) in enumerate(zip(self._inputs, inputs, strict=True)):
            if (old.nbytes, old.device.name) != (new.nbytes, new.device.name):
                raise BindingError(f"input {position} is {new!r}, but {old!r} was captured")
        return {old: new for old, new in zip(self._inputs, inputs, strict=True) if old is not new}


@contextlib.contextmanager
def capture() -> Iterator[Recording]:
    """Record every call that `realize` makes in this block, in this thread or task."""
    recording = Recording()
    token = recorders.set((*recorders.get(), recording.record))
    try:
        yield recording
    finally:
        recorders.reset(token)


def _with_buffers(call: Call, exchanged: Mapping[Buffer, Buffer]) -> Call:
    if not exchanged:
        return call
    if isinstance(call, CopyCall):
        return CopyCall(exchanged.get(call.source, call.source), exchanged.get(call.target, call.target))
    if isinstance(call, RememberedCall):
        changed = _with_buffers(call.call, exchanged)
        assert isinstance(changed, KernelCall)
        return RememberedCall(changed)
    return replace(call, buffers=tuple([exchanged.get(b, b) for b in call.buffers]))


def _segments(calls: Sequence[Call], inputs: Sequence[Buffer]) -> list[_Segment]:
    """Calls grouped by what can replay them together."""
    result: list[_Segment] = []
    known = frozenset(inputs)
    for call in calls:
        compiled = call.compiled if isinstance(call, KernelCall) else None
        device = call.buffers[0].device if isinstance(call, KernelCall) else None
        if isinstance(call, CopyCall) or compiled is None or not isinstance(device, GraphDevice):
            result.append(_Segment([call]))
            continue
        if not result or result[-1].device is not device:
            result.append(_Segment([], device))
        segment = result[-1]
        if compiled.variables or any(not isinstance(dim, int) for dim in compiled.grid):
            segment.symbolic.append(len(segment.calls))
        for buffer in known.intersection(call.buffers):
            segment.users.setdefault(buffer, []).append(len(segment.calls))
        assert isinstance(call, KernelCall)
        segment.written.update(dict.fromkeys(call.buffers[: call.outputs]))
        segment.calls.append(call)
    return result


def _launch(call: Call, exchanged: Mapping[Buffer, Buffer], bindings: Bindings) -> Launch:
    assert isinstance(call, KernelCall) and call.compiled is not None
    variables, grid = call.arguments(bindings)
    memories = tuple([exchanged.get(buffer, buffer).memory for buffer in call.buffers])
    return Launch(call.compiled.executable, memories, tuple(variables), tuple(grid))

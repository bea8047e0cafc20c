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
from dataclasses import dataclass, field

from tinycore.config import config
from tinycore.errors import BindingError
from tinycore.ir import UOp
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.device import Graph, GraphDevice, Launch
from tinycore.runtime.realize import Call, CopyCall, KernelCall, recorders, statistics
from tinycore.runtime.storage import Bindings, check_bindings


@dataclass(slots=True)
class _Segment:
    """Consecutive calls that one graph of a device replays; `graph` is None for a copy or a plain device."""

    calls: list[Call]
    graph: Graph | None = None
    launches: list[Launch] = field(default_factory=list)


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
        self._inputs = tuple(inputs)

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
            self._segments = _segments(self.calls)
        for segment in self._segments:
            _replay(segment, exchanged, values)

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
    return KernelCall(call.kernel, call.compiled, tuple([exchanged.get(b, b) for b in call.buffers]))


def _segments(calls: Sequence[Call]) -> list[_Segment]:
    """Calls grouped by what can replay them together."""
    result: list[_Segment] = []
    previous: object = None
    for call in calls:
        device = call.buffers[0].device if isinstance(call, KernelCall) and call.compiled else None
        groupable = device is not None and isinstance(device, GraphDevice)
        if groupable and device is previous:
            result[-1].calls.append(call)
        else:
            result.append(_Segment([call]))
        previous = device if groupable else None
    return result


def _launch(call: KernelCall, bindings: Bindings) -> Launch:
    assert call.compiled is not None
    variables, grid = call.arguments(bindings)
    memories = tuple([buffer.memory for buffer in call.buffers])
    return Launch(call.compiled.executable, memories, tuple(variables), tuple(grid))


def _replay(segment: _Segment, exchanged: Mapping[Buffer, Buffer], bindings: Bindings) -> None:
    calls = [_with_buffers(call, exchanged) for call in segment.calls]
    first = calls[0]
    if isinstance(first, CopyCall) or first.compiled is None:
        for call in calls:
            call.run(bindings)
        return
    device = first.buffers[0].device
    if not isinstance(device, GraphDevice):
        for call in calls:
            call.run(bindings)
        return
    launches = [_launch(call, bindings) for call in calls if isinstance(call, KernelCall)]
    if segment.graph is None:
        segment.graph = device.capture(launches)
    else:
        for position, (old, new) in enumerate(zip(segment.launches, launches, strict=True)):
            if old != new:
                segment.graph.update(position, new)
    segment.launches = launches
    segment.graph.replay()

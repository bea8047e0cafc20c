"""Which rule fired where.

>>> with trace() as found:
...     pass
>>> found.events
[]
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from tinycore.errors import RuleError
from tinycore.ir.uop import UOp


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """Where a rule stands, and what it says of itself."""

    group: str
    name: str
    path: str
    line: int
    requires: tuple[str, ...] = ()
    grows: bool = False
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.path}:{self.line})"


@dataclass(frozen=True, slots=True)
class Event:
    """One rewrite."""

    rule: RuleInfo
    before: UOp
    after: UOp
    pass_name: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.rule}: {show(self.before)} -> {show(self.after)}"


@dataclass(slots=True)
class Trace:
    """What happened inside a `trace()` block, in order."""

    events: list[Event] = field(default_factory=list)

    def record(self, rule: RuleInfo, before: UOp, after: UOp, pass_name: str) -> None:
        """Add a rewrite."""
        self.events.append(Event(rule, before, after, pass_name))

    def counts(self) -> Counter[RuleInfo]:
        """How often each rule fired."""
        return Counter(event.rule for event in self.events)


_traces: ContextVar[tuple[Trace, ...]] = ContextVar("tinycore_traces", default=())


def current() -> tuple[Trace, ...]:
    """The traces that are being recorded here."""
    return _traces.get()


@contextlib.contextmanager
def trace() -> Iterator[Trace]:
    """Record every rewrite of the block, in this thread or task."""
    recorder = Trace()
    token = _traces.set((*_traces.get(), recorder))
    try:
        yield recorder
    finally:
        _traces.reset(token)


def validate(rule: RuleInfo, before: UOp, after: UOp) -> None:
    """Raise RuleError when a rewrite changed dtype or shape."""
    for what, old, new in (("dtype", before.dtype, after.dtype), ("shape", before.shape, after.shape)):
        if old != new:
            raise RuleError(
                f"rule {rule.name} changes the {what} from {old} to {new}",
                where=f"{rule}\n{show(before)} -> {show(after)}",
                hint="the result of a rule must have the dtype and the shape of what it replaces",
            )


def show(node: UOp, depth: int = 3) -> str:
    """A node as one line, to a few levels."""
    if node.op.name == "CONST":
        return f"{node.value}"
    if depth == 0:
        return "..."
    arg = "" if node.arg is None else f"[{node.arg}]"
    if not node.src:
        return f"{node.op.name}{arg}"
    inner = ", ".join(show(operand, depth - 1) for operand in node.src[:6]) + (
        ", ..." if len(node.src) > 6 else ""
    )
    return f"{node.op.name}{arg}({inner})"

"""TINYCORE_VALIDATE=1: every pass is checked by running the graph before and after it on the interpreter.

Results must be equal bit for bit, except where a pass may reorder a float reduction or replace an op by a
declared approximation: then the stated tolerance holds (`tinycore_tools_validate.samples`). When a pass fails the
check, the rule that changed the meaning is found by checking each of its rewrites, and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinycore.codegen.compile import grid_of
from tinycore.errors import InterpretError, ValidationError
from tinycore.interpret import interpret, interpret_kernel, interpret_program
from tinycore.interpret.arrays import Bindings
from tinycore.ir import Target, UOp, dims, ops
from tinycore.ir.ops import Level
from tinycore.ir.text import digest, print_graph
from tinycore.ir.verify import verify
from tinycore.rules.doors import PassRun
from tinycore_tools_validate.samples import (
    Precision,
    Sample,
    difference,
    draw,
    nudge,
    precision,
    within_noise,
)
from tinycore_tools_validate.suspects import INEXACT, events_of, find_wrong_rule, rules_that_fired

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

PROGRAM_STEPS = 20_000
"""Programs of more statements are not interpreted, but checked by running them: Python is slow."""

HINT = "TINYCORE_VALIDATE=0 runs without this check; `tinycore explain` shows every pass"


@dataclass
class Validator:
    """An observer of one compilation (`tinycore.rules.doors.Observer`).

    Attributes
    ----------
    target: what the kernel is compiled for.
    checked: how many passes were compared.
    skipped: the passes that were not, and why.
    """

    target: Target
    checked: int = 0

    def __post_init__(self) -> None:
        self.skipped: list[str] = []
        self._previous: UOp | None = None
        self._kernel: UOp | None = None
        self._sample: Sample | None = None
        self._expected: dict[int, Array] = {}

    def __call__(self, seen: PassRun) -> None:
        """Check one pass. Raises ValidationError naming it, and the rule where one is to blame."""
        if seen.before is not self._previous:
            self._start(seen.before, seen.takes)
        self._previous = seen.after
        if seen.after is seen.before:
            return
        verify(seen.after, seen.gives)
        if self._sample is None:
            self.skipped.append(f"{seen.name}: too large to interpret")
            return
        if seen.gives == "program" and steps_of(seen.after, self._sample.bindings) > PROGRAM_STEPS:
            self.skipped.append(f"{seen.name}: too long to interpret")
            return
        try:
            found = self._run(seen.after, seen.gives, self._sample)
        except InterpretError as error:
            raise self._failure(seen, f"it cannot be executed any more: {error.what}") from error
        self.checked += 1
        what = self._difference(seen, found)
        if what:
            raise self._failure(seen, what)
        self._expected = found

    def _difference(self, seen: PassRun, found: dict[int, Array]) -> str:
        assert self._sample is not None
        wanted = precision(seen.before.toposort(), seen.after.toposort(), self._sample)
        for slot, expected in self._expected.items():
            what = difference(expected, found[slot], wanted)
            if what and inexact(seen):
                wanted = Precision.REORDERED
                what = difference(expected, found[slot], wanted)
            if what and not (wanted.noisy and self._is_noise(slot, found[slot])):
                return f"buffer {slot}, {what}"
        return ""

    def _is_noise(self, slot: int, found: Array) -> bool:
        assert self._sample is not None and self._kernel is not None
        original = self._run(self._kernel, "tensor", self._sample)[slot]
        changed = replace(self._sample, inputs={n: nudge(a) for n, a in self._sample.inputs.items()})
        nudged = self._run(self._kernel, "tensor", changed)[slot]
        return within_noise(self._expected[slot], found, original, nudged)

    def _start(self, kernel: UOp, level: Level) -> None:
        """Random inputs and the expected outputs of a kernel."""
        self._expected = {}
        self._kernel = kernel
        nodes = kernel.toposort()
        self._sample = draw([kernel], nodes, digest(kernel))
        if self._sample is None:
            return
        self._expected = self._run(kernel, level, self._sample)
        if _mostly_nan(list(self._expected.values())):
            self._sample = draw([kernel], nodes, digest(kernel), positive=True)
            assert self._sample is not None
            self._expected = self._run(kernel, level, self._sample)

    def _run(self, graph: UOp, level: Level, sample: Sample) -> dict[int, Array]:
        arrays = sample.slots()
        if level == "program":
            group = [dims.upper(size) for size in grid_of(graph, "local")]
            interpret_program(graph, arrays, sample.bindings, grid_of(graph, "global"), group)
        else:
            interpret_kernel(graph, arrays, sample.bindings)
        return arrays

    def _failure(self, seen: PassRun, what: str) -> ValidationError:
        assert self._sample is not None
        return failure(seen, "a kernel", what, find_wrong_rule(seen, self._sample))


def inexact(seen: PassRun) -> bool:
    """Whether a rule fired that says itself that its result may differ in the last bits."""
    return any(event.rule.requires and INEXACT.intersection(event.rule.requires) for event in events_of(seen))


def failure(seen: PassRun, of: str, what: str, blamed: str | None) -> ValidationError:
    """The error for a pass that changed the meaning of something."""
    where = blamed or rules_that_fired(seen) or _excerpt(seen.after)
    return ValidationError(
        f"the pass {seen.name!r} changed the meaning of {of}: {what}", where=where, hint=HINT
    )


def check_tensors(seen: PassRun) -> None:
    """Check one pass over a tensor graph, a SINK of its roots. Raises ValidationError.

    A reordered sum deep inside a model may change later values by more than any tolerance (a division by
    something that is almost zero); where every rewrite by itself is right, such a difference is none.
    """
    if seen.after is seen.before:
        return
    verify(seen.after, "tensor")
    below = UOp(ops.SINK, seen.before.dtype, (seen.before, seen.after)).toposort()
    sample = draw([seen.before], below, digest(seen.before))
    if sample is None:
        return
    expected = interpret(seen.before.src, sample.inputs, sample.bindings)
    try:
        found = interpret(seen.after.src, sample.inputs, sample.bindings)
    except InterpretError as error:
        what = f"it cannot be executed any more: {error.what}"
        raise failure(seen, "a tensor graph", what, find_wrong_rule(seen, sample)) from error
    wanted = precision(seen.before.toposort(), seen.after.toposort(), sample)
    for position, (old, new) in enumerate(zip(expected, found, strict=True)):
        what = difference(old, new, wanted)
        if what and inexact(seen):
            what = difference(old, new, Precision.REORDERED)
        if what:
            blamed = find_wrong_rule(seen, sample)
            if blamed is None and wanted is Precision.REORDERED and rules_that_fired(seen):
                return
            raise failure(seen, "a tensor graph", f"root {position}, {what}", blamed)


def _mostly_nan(arrays: Sequence[Array]) -> bool:
    floats = [array for array in arrays if array.dtype.kind not in "iub" and array.size]
    return any(float((array != array).mean()) > 0.2 for array in floats)


def steps_of(linear: UOp, bindings: Mapping[UOp, int]) -> int:
    """About how many statements a program executes, its grid in lock step."""
    known = Bindings(bindings)
    total, factor = 0, 1
    opened: list[int] = []
    for node in linear.src:
        if node.op is ops.RANGE and node.arg[1] not in ("global", "local"):
            opened.append(max(1, known.value(node.src[0]) if node.src[0].is_const else node.src[0].vmax))
            factor *= opened[-1]
        elif node.op is ops.END and node.src[0].op is ops.RANGE and opened:
            factor //= opened.pop()
        total += factor
    return total


def _excerpt(graph: UOp) -> str:
    lines = print_graph(graph).splitlines()
    return "\n".join(lines if len(lines) <= 30 else [*lines[:30], f"... {len(lines) - 30} more lines"])

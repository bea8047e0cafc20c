"""Counting and timing rules while a workload runs, without a second way to run them.

The compiled functions of a file are given other code for a while: the variant that says which rule answered, or
one that tries the rules one by one and takes the time of each. Every caller holds the same functions, so rewrites,
gradients and rendering are all seen, whoever drives them.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from tinycore.ir import UOp
from tinycore.rules import RuleInfo
from tinycore.rules.module import Code
from tinycore_tools_rules.sources import Source, Unit, units_of

Function = Callable[..., Any]


class Fired(threading.local):
    """What generated code tells the number of the rule that answered; counts are shared, the last is a thread's."""

    last = 0

    def __init__(self, counts: Counter[int]) -> None:
        self.counts = counts

    def __setitem__(self, key: int, number: int) -> None:
        self.counts[number] += 1
        self.last = number

    def __getitem__(self, key: int) -> int:
        return self.last


def functions_of(code: Code) -> dict[str, Function]:
    """The compiled functions of a file by name."""
    return {
        function.__name__: function
        for group in code.plain["GROUPS"].values()
        for _, _, function in group["table"]
    }


@contextlib.contextmanager
def counting(codes: Sequence[Code]) -> Iterator[list[Counter[int]]]:
    """Count in the block how often each rule of these files answers; one counter by rule number for each file."""
    counters: list[Counter[int]] = [Counter() for _ in codes]
    with contextlib.ExitStack() as stack:
        for code, counter in zip(codes, counters, strict=True):
            fired = Fired(counter)
            code.plain["fired"] = fired
            stack.callback(code.plain.pop, "fired")
            stack.callback(code.traced.__setitem__, "fired", code.traced["fired"])
            code.traced["fired"] = fired
            for name, function in functions_of(code).items():
                stack.enter_context(_other_code(function, code.traced[name].__code__))
        yield counters


@contextlib.contextmanager
def _other_code(function: Any, code: CodeType) -> Iterator[None]:
    kept = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = kept


@dataclass(slots=True)
class Cost:
    """What one rule cost: nodes it was tried on, answers, and seconds without what it called that was timed too."""

    rule: RuleInfo
    attempts: int = 0
    fired: int = 0
    seconds: float = 0.0


@dataclass
class Profile:
    """The costs of all rules, by file and rule number."""

    costs: dict[tuple[str, int], Cost] = field(default_factory=dict)
    nested: threading.local = field(default_factory=threading.local)

    def timed(self, cost: Cost, function: Function, node: UOp, context: Any) -> Any:
        """Call one rule on a node."""
        outer = getattr(self.nested, "seconds", 0.0)
        self.nested.seconds = 0.0
        start = time.perf_counter()
        try:
            answer = function(node, context)
        finally:
            seconds = time.perf_counter() - start
            cost.seconds += seconds - self.nested.seconds
            self.nested.seconds = outer + seconds
        cost.attempts += 1
        cost.fired += answer is not None
        return answer


@contextlib.contextmanager
def profiling(sources: Sequence[tuple[Source, Code]]) -> Iterator[Profile]:
    """Take the time of every rule of these files in the block; rules are tried one by one, in their order."""
    profile = Profile()
    with contextlib.ExitStack() as stack:
        for source, code in sources:
            for name, (root, units) in _segments(source, code).items():
                key = f"profiled_{name}"
                code.plain[key] = _chain(profile, source, root, units)
                stack.callback(code.plain.pop, key)
                trampoline: dict[str, Any] = {}
                exec(f"def call(n, ctx):\n    return {key}(n, ctx)", trampoline)
                function = functions_of(code)[name]
                stack.enter_context(_other_code(function, trampoline["call"].__code__))
            for number, rule in enumerate(code.rules):
                profile.costs.setdefault((source.name, number), Cost(rule))
        yield profile


def _segments(source: Source, code: Code) -> dict[str, tuple[str, list[tuple[int, Unit]]]]:
    """Function name -> (root op, the rules in it in order with their numbers)."""
    found: dict[str, tuple[str, list[tuple[int, Unit]]]] = {}
    number = itertools.count()
    for group in source.file.groups:
        units = [unit for unit in units_of(source) if unit.group is group]
        numbered = [(next(number), unit) for unit in sorted(units, key=lambda unit: -unit.notes.priority)]
        table = code.plain["GROUPS"][group.name]["table"]
        for root in dict.fromkeys(root for root, _, _ in table):
            mine = [item for item in numbered if any(case.root == root for case in item[1].cases)]
            runs = [list(run) for _, run in itertools.groupby(mine, key=lambda item: item[1].notes.requires)]
            functions = [function for name, _, function in table if name == root]
            for function, run in zip(functions, runs, strict=True):
                found.setdefault(function.__name__, (root, run))
    return found


def _chain(profile: Profile, source: Source, root: str, units: list[tuple[int, Unit]]) -> Function:
    """A function that does what the compiled one does, one rule after the other; they are compiled when called."""
    ready: dict[str, list[tuple[Cost, Function]]] = {}

    def prepare(op: str) -> list[tuple[Cost, Function]]:
        parts: list[tuple[Cost, Function]] = []
        for number, unit in units:
            cost = profile.costs.setdefault((source.name, number), Cost(source.module.rules[number]))
            for found, functions in unit.table().items():
                if found.name == op:
                    parts += [(cost, function) for function in functions]
        return parts

    def call(node: UOp, context: Any) -> Any:
        parts = ready.get(node.op.name)
        if parts is None:
            parts = ready[node.op.name] = prepare(node.op.name)
        for cost, function in parts:
            answer = profile.timed(cost, function, node, context)
            if answer is not None:
                return answer
        return None

    return call

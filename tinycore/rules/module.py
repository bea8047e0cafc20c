"""What a loaded file offers: groups, passes, gradients and renders."""

from __future__ import annotations

import contextlib
import re
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType
from typing import Any

from tinycore.config import config
from tinycore.errors import CompileError, RuleError, RuleLoopError, TinycoreError
from tinycore.ir.ops import TABLE, Op
from tinycore.ir.uop import UOp, adopt
from tinycore.rules import drive, origins, tracing
from tinycore.rules.cache import CompiledText
from tinycore.rules.tracing import RuleInfo

FAST = frozenset({"nnan", "ninf", "nsz", "reassoc", "contract", "arcp"})
DEFAULT_ACCEPT = frozenset({"approx"})
"""What a pass accepts when it says nothing: declared approximations, but nothing that needs fast-math."""
ROUNDS = 1000
"""How often the stages of ``fixpoint(a ; b)`` may change a graph."""


class _Fired(threading.local):
    """Where the traced variant writes the number of the rule that fired; its own in every thread."""

    number = 0

    def __setitem__(self, key: int, value: int) -> None:
        self.number = value

    def __getitem__(self, key: int) -> int:
        return self.number


class Code:
    """A compiled file: its namespace, and the traced variant made when it is first asked for."""

    def __init__(self, compiled: CompiledText, path: str, natives: Mapping[str, Callable[..., Any]]) -> None:
        self.source, self.path, self.natives = compiled.source, path, natives
        code = compiled.code or compile(self.source, f"<rules {path}>", "exec")
        self.filename = code.co_filename
        self.plain = self._run(code)

    def _run(self, code: CodeType) -> dict[str, Any]:
        namespace: dict[str, Any] = {f"f_{name}": function for name, function in self.natives.items()}
        exec(code, namespace)
        return namespace

    @cached_property
    def traced(self) -> dict[str, Any]:
        """The variant in which ``fired[0]`` is the number of the rule that answered, in this thread."""
        text = re.sub(r"#@(\d+)", r"fired[0] = \1", self.source)
        namespace = self._run(compile(text, self.filename, "exec"))
        namespace["fired"] = _Fired()
        return namespace

    @cached_property
    def rules(self) -> tuple[RuleInfo, ...]:
        """Every rule of the file, by number."""
        return tuple(
            [
                RuleInfo(group, name, self.path, line, tuple(requires), grows, why)
                for group, name, line, requires, grows, why in self.plain["RULES"]
            ]
        )

    def rule_near(self, line: int) -> RuleInfo | None:
        """The rule whose code holds a line of the generated source."""
        for text in self.source.splitlines()[line - 1 :]:
            if found := re.search(r"#@(\d+)", text):
                return self.rules[int(found[1])]
        return None


@dataclass(frozen=True, eq=False)
class Group:
    """An ordered list of rewrite rules.

    Attributes
    ----------
    name: as written.
    module: dotted name or path of the file.
    rules: what is in it, by priority.
    strategy: how it is driven when a pass only names it.
    stage: the stage that `@stage(...)` names, or None.
    pure: whether its results depend on the node and the target only, so that a memo may outlive a call.
    """

    name: str
    module: str
    rules: tuple[RuleInfo, ...]
    strategy: str
    stage: str | None
    pure: bool
    code: Code = field(repr=False)

    def entries(
        self, variant: Mapping[str, Any], accept: frozenset[str]
    ) -> list[tuple[Op, Callable[..., Any]]]:
        """(root op, function) in order, without the rules that `accept` does not allow."""
        table = variant["GROUPS"][self.name]["table"]
        return [(TABLE[root], function) for root, requires, function in table if accept.issuperset(requires)]

    def __call__(self, root: UOp, context: Any = None) -> UOp:
        """Drive the group alone, by its own strategy."""
        return self.alone(root, context)

    @cached_property
    def alone(self) -> Pass:
        """The pass that drives this group by its own strategy."""
        return Pass(self.name, (Stage(self.strategy, (self,), DEFAULT_ACCEPT),))


class Memo:
    """Results that outlive a call, for stages whose groups are pure; entries die with their nodes.

    >>> memo = Memo()
    >>> len(memo)
    0
    """

    def __init__(self) -> None:
        self._stages: dict[Hashable, weakref.WeakKeyDictionary[UOp, UOp | None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._stages.values()))

    def of(self, key: Hashable) -> weakref.WeakKeyDictionary[UOp, UOp | None]:
        """The results of one stage; None stands for the node itself, which must not keep itself alive."""
        return self._stages.setdefault(key, weakref.WeakKeyDictionary())


@dataclass(frozen=True, eq=False)
class Stage:
    """One driver over a union of groups."""

    strategy: str
    groups: tuple[Group, ...]
    accept: frozenset[str]

    @cached_property
    def mask(self) -> int:
        """The bits of all root ops."""
        mask = 0
        for group in self.groups:
            for op, _ in group.entries(group.code.plain, self.accept):
                mask |= op.bit
        return mask

    @cached_property
    def table(self) -> drive.Table:
        """The dispatch table of production."""
        return self._table([group.code.plain for group in self.groups], lambda group, f: f)

    def watched(self, watch: Callable[[UOp, UOp, RuleInfo], None]) -> drive.Table:
        """A dispatch table that tells `watch` about every match."""

        def wrap(group: Group, function: Callable[..., Any]) -> Callable[..., Any]:
            fired, rules = group.code.traced["fired"], group.code.rules

            def watched(node: UOp, context: Any) -> Any:
                node = node if node.mask else adopt(node)
                result = function(node, context)
                if result is not None:
                    watch(node, result, rules[fired[0]])
                return result

            return watched

        return self._table([group.code.traced for group in self.groups], wrap)

    def _table(
        self, variants: list[dict[str, Any]], wrap: Callable[[Group, Callable[..., Any]], Any]
    ) -> drive.Table:
        functions: dict[int, list[Any]] = {}
        for group, variant in zip(self.groups, variants, strict=True):
            for op, function in group.entries(variant, self.accept):
                functions.setdefault(op.number, []).append(wrap(group, function))
        return [_chain(functions[number]) if number in functions else None for number in range(len(TABLE))]

    @cached_property
    def pure(self) -> bool:
        """Whether all groups are."""
        return all(group.pure for group in self.groups)


def _chain(functions: list[Callable[..., Any]]) -> Callable[..., Any]:
    if len(functions) == 1:
        return functions[0]

    def chained(node: UOp, context: Any) -> Any:
        for function in functions:
            result = function(node, context)
            if result is not None:
                return result
        return None

    return chained


@dataclass(frozen=True, eq=False)
class Pass:
    """A named strategy over groups: call it with a graph.

    Raises RuleLoopError when rules undo each other or do not come to an end, RuleError when a guard or a
    result raises, and in a validating run RuleError when a result has another dtype or shape than its root.
    """

    name: str
    stages: tuple[Stage | Pass, ...]
    repeat: bool = False
    """Whether the stages run again until nothing changes (``fixpoint(a ; b)``)."""

    def __call__(self, root: UOp, context: Any = None, *, memo: Memo | None = None) -> UOp:
        """The rewritten graph. `memo` keeps the results of pure groups across calls."""
        seen = {root}
        for _ in range(ROUNDS):
            before, root = root, self._once(root, context, memo)
            if not self.repeat or root is before:
                return root
            if root in seen:
                break
            seen.add(root)
        raise self._endless(root, context)

    def _once(self, root: UOp, context: Any, memo: Memo | None = None) -> UOp:
        for stage in self.stages:
            if isinstance(stage, Pass):
                root = stage(root, context, memo=memo)
            elif root.mask & stage.mask:
                root = _run(self.name, stage, root, context, memo)
        return root

    def _endless(self, root: UOp, context: Any) -> RuleLoopError:
        """The error for rounds that lead to each other for ever: what happens in those up to the same graph again."""
        count, end = 1, root
        with tracing.trace() as found:
            root = self._once(root, context)
            while root is not end and count < 16:
                root, count = self._once(root, context), count + 1
        what = f"comes back to where it was after {count}" if root is end else f"is not done after {ROUNDS}"
        first = {event.rule: event for event in reversed(found.events)}
        lines = [
            _line(event.rule, event.before, event.after)
            for event in found.events
            if first[event.rule] is event
        ]
        return RuleLoopError(
            f"pass {self.name} {what} rounds of its stages",
            where="\n".join(lines[:12]),
            hint="a rule of one stage undoes or feeds one of another: give one of them a guard",
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups in it, in order."""
        found: list[Group] = []
        for stage in self.stages:
            found.extend(stage.groups)
        return tuple(dict.fromkeys(found))


def _run(name: str, stage: Stage, root: UOp, context: Any, persistent: Memo | None) -> UOp:
    recorders, validating = tracing.current(), config().validate
    table = stage.table
    if recorders or validating:

        def watch(before: UOp, after: UOp, rule: RuleInfo) -> None:
            if validating:
                tracing.validate(rule, before, after)
            for recorder in recorders:
                recorder.record(rule, before, after, name)

        table = stage.watched(watch)
    run = drive.Run(table, stage.mask, context, Monitor(name, stage), origins.uniter())
    kept = None
    if persistent is not None and stage.pure and stage.strategy == "fixpoint" and not recorders:
        kept = persistent.of((stage.groups, stage.accept, getattr(context, "target", None)))
        for node in root.toposort():
            if node in kept:
                final = kept[node]
                run.memo[node] = final = node if final is None else final
                run.memo[final] = final
    try:
        result = drive.DRIVERS[stage.strategy](root, run)
    except TinycoreError:
        raise
    except Exception as error:
        raise blame([group.code for group in stage.groups], error) from error
    if kept is not None:
        for node, final in run.memo.items():
            kept[node] = None if final is node else final
    return result


def blame(codes: Iterable[Code], error: Exception) -> Exception:
    """The error as a RuleError that names the rule, when it was raised by the code of one."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        for code in codes:
            if frame.f_code.co_filename == code.filename:
                rule = code.rule_near(line)
                node = frame.f_locals.get("n")
                where = f"{rule}" if rule is not None else code.path
                if isinstance(node, UOp):
                    where += f"\nat {_short(node)}"
                return RuleError(
                    f"a rule raised {type(error).__name__}: {error}",
                    where=where,
                    hint="guard the expression, e.g. `if b != 0 and ...`",
                )
    return error


@dataclass(frozen=True)
class Monitor:
    """Makes the errors of the drivers: it asks the traced variant which rules were at work."""

    name: str
    stage: Stage

    def _rule_of(self, node: UOp, result: UOp, context: Any) -> RuleInfo | None:
        """The rule that makes one node of another; None when none does."""
        found: list[RuleInfo] = []
        match = self.stage.watched(lambda before, after, rule: found.append(rule))[node.op.number]
        return found[0] if match is not None and match(node, context) is result else None

    def loop(self, run: drive.Run, chain: drive.Chain) -> RuleLoopError:
        """The error for a cycle; one line a rewrite."""
        lines: list[str] = []
        rules: list[str] = []
        for before, after in chain:
            rule = self._rule_of(before, after, run.context)
            if rule is not None:  # else its operands were rewritten
                lines.append(_line(rule, before, after))
                rules.append(rule.name)
        names = " and ".join(dict.fromkeys(rules)) or "the rules"
        return RuleLoopError(
            f"pass {self.name} loops: {names} undo or feed each other",
            where="\n".join([*lines[:12], *([f"... and {len(lines) - 12} more"] if len(lines) > 12 else [])]),
            hint="make one of them stricter with a guard, or remove it",
        )

    def exhausted(self, run: drive.Run, node: UOp, count: int) -> RuleLoopError:
        """The error for spent fuel: goes on for a while and looks for rules that take turns, else counts them."""
        events: list[tuple[RuleInfo, UOp, UOp]] = []

        def watch(before: UOp, after: UOp, rule: RuleInfo) -> None:
            events.append((rule, before, after))
            if len(events) >= 2000:
                raise _Enough

        with contextlib.suppress(_Enough, RuleLoopError):
            again = drive.Run(self.stage.watched(watch), run.mask, run.context, self)
            drive.DRIVERS[self.stage.strategy](node, again)
        rules = [rule for rule, _, _ in events]
        period = next((k for k in range(1, 13) if rules[k:] == rules[:-k]), 0)
        lines = [_line(*event) for event in events[:period]]
        if not period:
            first = {rule: (rule, before, after) for rule, before, after in reversed(events)}
            lines = [
                f"{number} of {len(rules)} rewrites: {_line(*first[rule])}"
                for rule, number in Counter(rules).most_common(5)
            ]
        return RuleLoopError(
            f"pass {self.name} did {count} rewrites and does not come to an end",
            where="\n".join(lines),
            hint=("these repeat with ever other operands" if period else "a rule feeds itself")
            + ": give one a guard that stops it",
        )


class _Enough(Exception):
    """Enough was counted."""


def _line(rule: RuleInfo, before: UOp, after: UOp) -> str:
    return f"{rule}: {_short(before)} -> {_short(after)}"


def _short(node: UOp) -> str:
    text = tracing.show(node)
    return text if len(text) <= 160 else text[:157] + "..."


@dataclass(frozen=True, eq=False)
class Renders:
    """Render rules by root op: ``renders(node, names, context)``."""

    name: str
    rules: Mapping[Op, tuple[Callable[..., str | None], ...]]

    def __call__(self, node: UOp, names: Callable[[UOp], str], context: Any = None) -> str:
        """The text of a node; `names` names an operand. Raises CompileError when no rule matches."""
        text = self.match(node, names, context)
        if text is None:
            raise CompileError(f"no render rule of {self.name} matches", where=_short(node))
        return text

    def match(self, node: UOp, names: Callable[[UOp], str], context: Any = None) -> str | None:
        """Like a call, but None when no rule matches."""
        for function in self.rules.get(node.op, ()):
            text = function(node, (names, context))
            if text is not None:
                return text
        return None

    def __add__(self, other: Renders) -> Renders:
        """These rules first, then the other's."""
        merged = {
            op: (*self.rules.get(op, ()), *other.rules.get(op, ())) for op in {*self.rules, *other.rules}
        }
        return Renders(f"{self.name}+{other.name}", merged)


@dataclass(frozen=True, eq=False)
class RuleModule:
    """A loaded file.

    Attributes
    ----------
    name: dotted name, or the path of a person's own file.
    groups, passes: by name; groups of rewrite rules only.
    gradients: op -> f(node, cotangent, context=None) -> one gradient an operand (None for none), or None.
    renders: render groups by name.
    """

    name: str
    path: str
    groups: Mapping[str, Group]
    passes: Mapping[str, Pass]
    gradients: Mapping[Op, Callable[..., tuple[UOp | None, ...] | None]]
    renders: Mapping[str, Renders]
    code: Code = field(repr=False)

    @property
    def rules(self) -> tuple[RuleInfo, ...]:
        """Every rule of the file."""
        return self.code.rules

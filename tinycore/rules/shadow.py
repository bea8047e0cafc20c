"""Rules that can never match, because an earlier one of their group takes everything that they would.

Only rules without guards can do that for sure, so this is exact about what it reports and silent about the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE
from tinycore.rules import syntax as s
from tinycore.rules.expand import Case
from tinycore.rules.parse import check_error

T = TypeVar("T")
Landmark = tuple[str, str]
"""A place in a pattern, and the op or the literal that stands there."""


def landmarks(pattern: s.Pattern, place: str = "n") -> Iterator[Landmark]:
    """What any pattern that matches no more than this one has too, the most telling last.

    >>> from tinycore.rules.parse import parse
    >>> list(landmarks(parse("group g(fixpoint) { r: x * 3 => x }").groups[0].items[0].pattern))
    [('n', 'MUL'), ('n_1', 'CONST'), ('n_1', '=3')]
    """
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    if isinstance(pattern, (s.Constant, s.Literal)):
        yield place, "CONST"
    if isinstance(pattern, s.Literal):
        yield place, f"={pattern.value!r}"
    if not isinstance(pattern, s.Apply):
        return
    if len(pattern.ops) == 1 and pattern.ops[0] in TABLE:
        yield place, pattern.ops[0]
    if not any(isinstance(operand, s.Rest) for operand in pattern.operands):
        inner = [list(landmarks(operand, f"{place}_{k}")) for k, operand in enumerate(pattern.operands)]
        yield from sorted((mark for marks in inner for mark in marks), key=lambda mark: mark[1][0] == "=")


class Index(Generic[T]):
    """Patterns by a landmark of theirs: finds the few that may match all that another one matches."""

    def __init__(self) -> None:
        self._by: dict[Landmark | None, list[tuple[int, T]]] = {}
        self._count = 0

    def add(self, pattern: s.Pattern, item: T) -> None:
        """Keep an item under its pattern."""
        last = [None, *landmarks(pattern)][-1]
        self._by.setdefault(last, []).append((self._count, item))
        self._count += 1

    def wider(self, pattern: s.Pattern) -> list[T]:
        """The items whose landmark the pattern has, in the order in which they were added."""
        marks = dict.fromkeys([None, *landmarks(pattern)])
        found = [entry for mark in marks for entry in self._by.get(mark, ())]
        return [item for _, item in sorted(found, key=lambda entry: entry[0])]


class Shadows:
    """Watches the cases of one group in order of priority."""

    def __init__(self, file: s.File) -> None:
        self.file = file
        self._takers: Index[Case] = Index()  # the cases that match whenever their pattern does

    def add(self, rule: s.Rule, cases: list[Case], unconditional: bool) -> None:
        """Raise RuleCheckError when every case of a rule is taken; then let the rule take its own."""
        found = [
            next((t for t in self._takers.wider(c.pattern) if covers(t.pattern, c.pattern, {})), None)
            for c in cases
        ]
        taker = next(iter(found), None)
        if taker is not None and all(found):
            hint = f"put it before {taker.rule.name}, or guard that one"
            what = f"{rule.name} can never match: {taker.rule.name} (line {taker.rule.span.line}) comes first"
            raise check_error(self.file, rule.span, what, hint)
        if unconditional and not rule.clauses:
            for case in cases:
                if not _may_be_root(rule.result[0], case.root):
                    self._takers.add(case.pattern, case)


def _may_be_root(result: s.Expression | None, root: str) -> bool:
    """Whether a result may turn out to be the matched node itself, which counts as no match."""
    if isinstance(result, s.Binary):
        return s.INFIX.get(result.operator) == root
    return isinstance(result, (s.Conditional, s.Call)) or (isinstance(result, s.Build) and result.op == root)


def covers(p: s.Pattern, q: s.Pattern, bound: dict[str, s.Pattern]) -> bool:
    """Whether whatever matches `q` surely matches `p`; `bound` is what p's names stand for."""
    while isinstance(q, s.Capture):
        q = q.pattern
    if isinstance(p, s.Capture):
        return _same(p.name, q, bound) and covers(p.pattern, q, bound)
    if isinstance(p, s.Variable):
        return _type_covers(p.type, q) and _same(p.name, q, bound)
    if isinstance(p, s.Constant):
        return isinstance(q, (s.Constant, s.Literal)) and _type_covers(p.type, q) and _same(p.name, q, bound)
    if isinstance(p, s.Literal):
        return isinstance(q, s.Literal) and repr(p.value) == repr(q.value)
    if not isinstance(p, s.Apply) or not isinstance(q, s.Apply) or not set(q.ops) <= set(p.ops):
        return False
    if p.attributes is not None and p.attributes != q.attributes:
        names = [attribute.name for attribute in p.attributes if attribute.name is not None]
        if any(a.equal is not None or (a.name or "x")[0].isupper() for a in p.attributes) or set(names) & set(
            bound
        ):
            return False
    if len(p.operands) == 1 and isinstance(p.operands[0], s.Rest):
        return True
    if any(isinstance(part, s.Rest) for part in (*p.operands, *q.operands)):
        return p.operands == q.operands
    return len(p.operands) == len(q.operands) and all(
        covers(a, b, bound) for a, b in zip(p.operands, q.operands, strict=True)
    )


def _same(name: str | None, q: s.Pattern, bound: dict[str, s.Pattern]) -> bool:
    if name is None:
        return True
    if name in bound:
        return bound[name] == q and not (isinstance(q, s.Variable) and q.name is None)
    bound[name] = q
    return True


def _type_covers(wanted: str | None, q: s.Pattern) -> bool:
    given = getattr(q, "type", None)
    if wanted is None or (wanted == given and len(wanted) > 1):
        return True
    if given is None or wanted not in dtypes.CLASSES:
        return False
    return given in {d.name for d in dtypes.CLASSES[wanted]} or (
        given in dtypes.CLASSES and set(dtypes.CLASSES[given]) <= set(dtypes.CLASSES[wanted])
    )

"""Tests that follow from a rule itself: it fires and keeps the meaning, in every order, and not where a guard fails."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinycore.errors import RuleError
from tinycore.ir import UOp
from tinycore.rules import syntax as s
from tinycore.rules.expand import rewrite
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.sample import RandomLeaves, Tested, rewritten, try_instance
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.typed import Impossible, Typed, is_scalar, typed_cases

ATTEMPTS = 3000
TYPED_LIMIT = 4000


@dataclass(frozen=True, slots=True)
class Derived:
    """One derived test: positive, commuted or guard-false; `problem` is empty when it passed."""

    kind: str
    identity: str
    where: str
    problem: str = ""
    detail: str = ""


def derive(unit: Unit, seed: int = 0) -> list[Derived]:
    """Run the derived tests of one rule; rules about tensors, gradients and text have a positive one only.

    Rules that say ``@unsafe`` or ``@noverify`` have none: there is nothing that they could be compared with.
    """
    if unit.annotation("unsafe") or unit.annotation("noverify"):
        return []
    if unit.rule.kind == "render" and unit.annotation("language") is None:
        return []
    if unit.rule.kind != "rewrite" or not is_scalar(unit.rule.pattern):
        return [_whole(unit)]
    return list(_scalar(unit, seed))


def _whole(unit: Unit) -> Derived:
    from tinycore_tools_rules.gradients import verify_gradient
    from tinycore_tools_rules.rendered import verify_render
    from tinycore_tools_rules.tensors import verify_tensor

    found = {"vjp": verify_gradient, "render": verify_render}.get(unit.rule.kind, verify_tensor)(unit, 60)
    problem = found.problem or ("" if found.instances else "no instance was found that matches")
    return Derived("positive", unit.identity, unit.where, problem, found.refutation)


def instances(unit: Unit, cases: list[Typed], seed: int) -> Iterator[tuple[UOp, RandomLeaves, int]]:
    """Random graphs that look like the pattern of a rule, their leaves, and the number of the attempt."""
    chance = random.Random(f"{unit.identity} derived {seed}")
    dyadic = bool(unit.notes.flags & {"reassoc", "contract", "arcp"})
    for attempt in range(ATTEMPTS):
        leaves = RandomLeaves(chance, 16, dyadic, plain=attempt % 3 == 0)
        try:
            yield chance.choice(cases).build(leaves), leaves, attempt
        except Impossible:
            continue


def _scalar(unit: Unit, seed: int) -> Iterator[Derived]:
    table = unit.table()
    cases = [typed for typed, _ in zip(typed_cases(unit), range(TYPED_LIMIT), strict=False)]
    places = contexts(unit)
    found = Tested()
    commuted: list[str] = []
    swaps = 0
    for before, leaves, attempt in instances(unit, cases, seed) if cases else ():
        place = places[attempt % len(places)]
        if not try_instance(unit, table, before, leaves.arrays, place, found):
            continue
        if found.problem:
            break
        for swapped in _swapped(unit, before):
            swaps += 1
            if rewritten(table, swapped, place) is None:
                commuted.append(f"it matches {before!r}\nbut not {swapped!r}")
        if found.graphs >= 20:
            break
    problem = found.problem or ("" if found.graphs else "no instance was found that matches")
    yield Derived("positive", unit.identity, unit.where, problem, found.refutation)
    if swaps:
        what = "the rule misses an order of operands" if commuted else ""
        yield Derived("commuted", unit.identity, unit.where, what, commuted[0] if commuted else "")
    if cases and any(isinstance(clause, s.Guard) for clause in unit.rule.clauses) and not found.problem:
        yield from _guard_false(_ordered(unit), seed)


def _swapped(unit: Unit, before: UOp) -> Iterator[UOp]:
    """The instance with the operands of its root exchanged, where the pattern leaves their order open."""
    pattern = unit.rule.pattern
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    if (
        isinstance(pattern, s.Apply)
        and not pattern.ordered
        and before.op.commutative
        and len(before.src) == 2
    ):
        yield before.replace(src=before.src[::-1])


def _ordered(unit: Unit) -> Unit:
    """The rule with one order of operands only: with several, one may match where the guard of another fails."""

    def fix(part: Any) -> Any:
        return dataclasses.replace(part, ordered=True) if isinstance(part, s.Apply) else None

    pattern: Any = unit.cases[0].pattern
    for name in unit.cases[0].capture[::-1]:
        pattern = s.Capture(name, pattern, span=unit.rule.pattern.span)
    return Unit(
        unit.source,
        unit.group,
        dataclasses.replace(unit.rule, pattern=rewrite(pattern, fix), tests=()),
        unit.notes,
    )


def _guard_false(unit: Unit, seed: int) -> Iterator[Derived]:
    """Where the negated rule matches, the rule must not; both are compiled by the same rules of logic."""
    negated = _negated(unit)
    if negated is None:
        return
    try:
        table, opposite = unit.table(), Unit(unit.source, unit.group, negated, unit.notes).table()
    except RuleError:
        return
    places = contexts(unit)
    cases = [typed for typed, _ in zip(typed_cases(unit), range(TYPED_LIMIT), strict=False)]
    for before, _, attempt in instances(unit, cases, seed + 1):
        place = places[attempt % len(places)]
        try:
            denied = rewritten(opposite, before, place) is not None
            taken = rewritten(table, before, place) is not None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            continue  # the right side may have no meaning where the guard fails
        if denied and taken:
            problem = "the rule matches where its guard fails"
            yield Derived("guard-false", unit.identity, unit.where, problem, repr(before))
            return
        if denied:
            yield Derived("guard-false", unit.identity, unit.where)
            return


def _negated(unit: Unit) -> s.Rule | None:
    """The rule with its last guard negated; None when a later ``let`` needs the guard."""
    clauses = list(unit.rule.clauses)
    last = max(k for k, clause in enumerate(clauses) if isinstance(clause, s.Guard))
    if any(isinstance(clause, s.Let) for clause in clauses[last + 1 :]):
        return None
    guard = clauses[last]
    assert isinstance(guard, s.Guard)
    clauses[last] = s.Guard(s.Unary("not", guard.condition, span=guard.span), span=guard.span)
    return dataclasses.replace(unit.rule, clauses=tuple(clauses), tests=())

"""Random orders: graphs made of the left sides of rules, rewritten with the rules shuffled and some left out.

Whatever the order, the meaning must stay. That two orders end in different graphs is allowed, and so is an order
that does not end; both are counted, not complained about.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinycore.errors import RuleLoopError
from tinycore.ir import UOp
from tinycore.ir.ops import TABLE
from tinycore.rules.drive import Run, fixpoint
from tinycore_tools_rules.contexts import Context, contexts
from tinycore_tools_rules.evaluate import differences, evaluate
from tinycore_tools_rules.paste import counterexample
from tinycore_tools_rules.sample import RandomLeaves
from tinycore_tools_rules.sources import Table, Unit
from tinycore_tools_rules.terms import signless
from tinycore_tools_rules.typed import Impossible, Typed, is_scalar, typed_cases

LANES = 24
PER_RULE = 60
"""Typed cases a rule that take part."""


@dataclass(slots=True)
class Fuzzed:
    """What a run found: graphs, rewrites, orders without end, and Python that shows a difference."""

    graphs: int = 0
    changed: int = 0
    endless: int = 0
    problem: str = ""
    refutation: str = ""


class _Silent:
    """The monitor of a driver whose errors are only counted."""

    def loop(self, run: Run, chain: Any) -> Exception:
        return RuleLoopError("a loop")

    def exhausted(self, run: Run, node: UOp, count: int) -> Exception:
        return RuleLoopError("no end")


@dataclass(frozen=True, eq=False)
class _Player:
    unit: Unit
    table: Table
    cases: list[Typed]


class _Nested:
    """Leaves that now and then are whole left sides of other rules."""

    def __init__(
        self, chance: random.Random, players: list[_Player], leaves: RandomLeaves, depth: int
    ) -> None:
        self.chance, self.players, self.leaves, self.depth = chance, players, leaves, depth

    def variable(self, name: str, dtype: Any) -> UOp:
        """A leaf or a left side of that dtype."""
        if self.depth and self.chance.random() < 0.6:
            for _ in range(6):
                player = self.chance.choice(self.players)
                typed = self.chance.choice(player.cases)
                if typed.dtype("n") is dtype:
                    try:
                        return typed.build(_Nested(self.chance, self.players, self.leaves, self.depth - 1))
                    except Impossible:
                        continue
        return self.leaves.variable(name, dtype)

    def constant(self, name: str, dtype: Any) -> UOp:
        """A constant."""
        return self.leaves.constant(name, dtype)


def fuzz(units: list[Unit], rounds: int, seed: int = 0) -> Fuzzed:
    """Rewrite random graphs with the exact scalar rules among `units`, in random order."""
    chance = random.Random(f"{seed} {len(units)}")
    players = [player for unit in units if (player := _player(unit, chance)) is not None]
    found = Fuzzed()
    if not players:
        return found
    for _ in range(rounds):
        leaves = RandomLeaves(chance, LANES, dyadic=False)
        start = chance.choice(players)
        try:
            before = chance.choice(start.cases).build(_Nested(chance, players, leaves, 2))
        except Impossible:
            continue
        chosen = [player for player in players if chance.random() < 0.8]
        chance.shuffle(chosen)
        _one(before, leaves, chosen, contexts(start.unit)[-1 if chance.random() < 0.5 else 0], found)
        if found.problem:
            break
    return found


def _player(unit: Unit, chance: random.Random) -> _Player | None:
    exact = unit.rule.kind == "rewrite" and not unit.notes.requires and not unit.notes.target
    if not exact or not is_scalar(unit.rule.pattern) or unit.annotation("noverify") is not None:
        return None
    cases = list(typed_cases(unit))
    return _Player(unit, unit.table(), chance.sample(cases, min(len(cases), PER_RULE))) if cases else None


def _one(before: UOp, leaves: RandomLeaves, players: list[_Player], place: Context, found: Fuzzed) -> None:
    chains: dict[int, list[Callable[..., Any]]] = {}
    mask = 0
    for player in players:
        for op, functions in player.table.items():
            chains.setdefault(op.number, []).extend(functions)
            mask |= op.bit
    table = [_first(chains[number]) if number in chains else None for number in range(len(TABLE))]
    found.graphs += 1
    try:
        after = fixpoint(before, Run(table, mask, place, _Silent()))
    except RuleLoopError:
        found.endless += 1
        return
    if after is before:
        return
    found.changed += 1
    used = {node for root in (before, after) for node in root.toposort()}
    arrays = {node: array for node, array in leaves.arrays.items() if node in used}
    first, second = evaluate(before, arrays), evaluate(after, arrays)
    wrong = differences(first, second, signless(before, after))
    if after.dtype is not before.dtype or wrong.any():
        at = int(np.flatnonzero(np.broadcast_to(wrong, (LANES,)))[0]) if wrong.any() else 0
        single = {node: np.asarray(array).reshape(-1)[at] for node, array in arrays.items()}
        found.problem = "rules in another order change the meaning"
        found.refutation = counterexample(before, after, single, found.problem)


def _first(functions: list[Callable[..., Any]]) -> Callable[..., Any]:
    def chained(node: UOp, context: Any) -> Any:
        for function in functions:
            result = function(node, context)
            if result is not None:
                return result
        return None

    return chained

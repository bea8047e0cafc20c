"""Termination: an order in which every rule makes terms smaller, found by z3.

Two kinds are tried for every stage, and the one that orients more rules is kept. In a Knuth-Bendix order every op
has a weight and a place in a precedence: results weigh less, or as much and are smaller by precedence, operand by
operand, and no variable stands more often on the right. In a lexicographic path order the precedence alone
decides, and variables may be repeated: right for rules that replace an op by simpler ones.

What no order can be found for says ``@grows``: fuel keeps it in check at run time. Results that natives make are
taken on trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import z3

from tinycore.ir.ops import TABLE
from tinycore.rules.module import Pass, RuleModule, Stage
from tinycore_tools_rules.check import rows_of, stages_of
from tinycore_tools_rules.sides import CONST, Sides, Term, Unordered, sides
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.subsume import Row

EFFORT = 4_000_000
"""What z3 may spend on one question, in its own units: the answer is the same on every machine."""
_HEAVIEST = 60


@dataclass(frozen=True, slots=True)
class Open:
    """A rule that nothing shows to come to an end: why, and the rules that it cannot be ordered together with."""

    unit: Unit
    reason: str
    against: tuple[Unit, ...] = ()


@dataclass(frozen=True, slots=True)
class Orientation:
    """What was found for one stage of a pass.

    Attributes
    ----------
    name: of the pass or group.
    kind: of the order.
    oriented: rules that the order shows to come to an end.
    grows: rules that say ``@grows``.
    needless: those of them that the order shows to come to an end all the same; groups may say it for all their rules.
    trusted: (rule, native): rules whose results natives make.
    open: all others.
    weights, precedence: the order; the greatest op comes first.
    """

    name: str
    kind: str
    oriented: tuple[Unit, ...]
    grows: tuple[Unit, ...]
    needless: tuple[Unit, ...]
    trusted: tuple[tuple[Unit, str], ...]
    open: tuple[Open, ...]
    weights: Mapping[str, int]
    precedence: tuple[str, ...]


class Loop(NamedTuple):
    """Rules that run until nothing changes: their name, the rules, and what runs them."""

    name: str
    rows: list[Row]
    run: Pass


def loops_of(module: RuleModule) -> Iterator[Loop]:
    """Everything in a file that runs until nothing changes, with its rules: each needs an order of its own.

    A stage that rewrites every node once comes to an end by itself, but not inside of ``fixpoint(a ; b)``: the rules
    of all stages of such a pass need one order.
    """
    yield from _loops(module.passes.items())
    for name, stage in stages_of(module):
        if name in module.groups and name not in module.passes and stage.strategy != "bottom_up":
            yield Loop(name, rows_of(stage), Pass(name, (stage,)))


def _loops(passes: Iterable[tuple[str, Pass]]) -> Iterator[Loop]:
    for name, item in passes:
        if item.repeat:
            yield Loop(name, [row for stage in _stages(item) for row in rows_of(stage)], item)
            continue
        for part in item.stages:
            if isinstance(part, Pass):
                yield from _loops([(name, part)])
            elif part.strategy != "bottom_up":
                yield Loop(name, rows_of(part), Pass(name, (part,)))


def _stages(item: Pass) -> Iterator[Stage]:
    for part in item.stages:
        if isinstance(part, Pass):
            yield from _stages(part)
        else:
            yield part


# --- the order ------------------------------------------------------------------------------------------------


class _Order:
    """z3's unknowns for a Knuth-Bendix order: a weight, a place and a direction of comparison for every symbol."""

    name = "Knuth-Bendix"

    def __init__(self, symbols: set[str]) -> None:
        self.weights = {symbol: z3.Int(f"w_{symbol}") for symbol in sorted(symbols)}
        self.places = {symbol: z3.Int(f"p_{symbol}") for symbol in sorted(symbols)}
        self.left_first = {symbol: z3.Bool(f"l_{symbol}") for symbol in sorted(symbols)}
        self.axioms = [
            *[
                z3.And(weight >= _least(symbol), weight <= _HEAVIEST)
                for symbol, weight in self.weights.items()
            ],
            *[z3.And(place >= 0, place < len(symbols)) for place in self.places.values()],
            z3.Distinct(*self.places.values()),
            self.weights[CONST] == 1,
            self.places[CONST] == 0,
        ]

    def decreases(self, pair: Sides) -> Any:
        """Whether the left side is above the right one."""
        return self.greater(pair.left, pair.right, pair.guarded)

    def greater(self, a: Term, b: Term, guarded: frozenset[str]) -> Any:
        """Whether a is above b."""
        if repeated(a, b) or not b.bounded:
            return z3.BoolVal(False)
        if a.name:  # a term that is no constant is above all constants
            return z3.BoolVal(a.name in guarded and b == Term(CONST))
        heavier = self._heavier(a, b)
        return z3.Or(heavier > 0, z3.And(heavier == 0, self._above(a, b, guarded)))

    def _heavier(self, a: Term, b: Term) -> Any:
        """How much more a weighs at least; a variable weighs 1 or more, ``*xs`` 0 or more."""
        mine, others = a.symbols(), b.symbols()
        one = [-count for name, count in b.variables().items() if not name.startswith("*")]
        one += [count for name, count in a.variables().items() if not name.startswith("*")]
        parts = [(mine[symbol] - others[symbol]) * self.weights[symbol] for symbol in {*mine, *others}]
        return z3.Sum([z3.IntVal(sum(one)), *parts])

    def _above(self, a: Term, b: Term, guarded: frozenset[str]) -> Any:
        if b.name:
            return z3.BoolVal(b.name in a.variables() and a != b)
        if a.symbol != b.symbol:
            return self.places[a.symbol] > self.places[b.symbol]
        pairs = list(zip(a.operands, b.operands, strict=False))
        backward = list(zip(a.operands[::-1], b.operands[::-1], strict=False))
        return z3.If(
            self.left_first[a.symbol],
            self._lexicographic(pairs, guarded),
            self._lexicographic(backward, guarded),
        )

    def _lexicographic(self, pairs: list[tuple[Term, Term]], guarded: frozenset[str]) -> Any:
        for x, y in pairs:
            if x != y:
                return self.greater(x, y, guarded)
        return z3.BoolVal(False)


class _PathOrder(_Order):
    """The lexicographic path order: the precedence decides, whatever the size."""

    name = "lexicographic path"

    def greater(self, a: Term, b: Term, guarded: frozenset[str]) -> Any:
        """Whether a is above b."""
        if a.name:
            return z3.BoolVal(a.name in guarded and b == Term(CONST))
        if b.name:
            return z3.BoolVal(b.name in a.variables())
        inside = [z3.BoolVal(True) if x == b else self.greater(x, b, guarded) for x in a.operands]
        parts = [self.greater(a, part, guarded) for part in b.operands]
        by_place = (
            self._above(a, b, guarded)
            if a.symbol == b.symbol
            else self.places[a.symbol] > self.places[b.symbol]
        )
        return z3.Or(*inside, z3.And(by_place, *parts))


def _least(symbol: str) -> int:
    """Unary symbols weigh something, so that a variable is below what contains it."""
    op = TABLE.get(symbol)
    return 1 if op is None or len(op.operands) <= 1 or op.operands[-1].startswith("*") else 0


def repeated(a: Term, b: Term) -> list[str]:
    """The variables that stand more often in b than in a."""
    known = a.variables()
    return [name for name, count in b.variables().items() if count > known[name]]


# --- a stage --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Work:
    """The rules of one stage, sorted by what can be done about them."""

    units: dict[str, Unit] = field(default_factory=dict)
    pairs: dict[str, list[Sides]] = field(default_factory=dict)
    grows: dict[str, Unit] = field(default_factory=dict)
    trusted: dict[str, str] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)


def _sorted(rows: Sequence[Row]) -> _Work:
    work = _Work()
    for row in rows:
        unit = row.unit
        work.units[unit.identity] = unit
        if unit.notes.grows:
            work.grows[unit.identity] = unit
            if all(note.name != "grows" for note in unit.rule.annotations):
                continue
        try:
            work.pairs.setdefault(unit.identity, []).extend(sides(row))
        except Unordered as reason:
            if unit.notes.grows:
                work.pairs[unit.identity] = []
            elif reason.native:
                work.trusted[unit.identity] = reason.native
            else:
                work.open[unit.identity] = str(reason)
    for identity in (*work.trusted, *work.open):
        work.pairs.pop(identity, None)
    return work


def orient(name: str, rows: Sequence[Row], own: str = "") -> Orientation:
    """Find an order for the rules of one stage: for as many as possible, those of other files than `own` first."""
    work = _sorted(rows)
    foreign = {identity: unit.source.name != own and bool(own) for identity, unit in work.units.items()}
    wanted = dict(sorted(work.pairs.items(), key=lambda item: not foreign[item[0]]))
    best: Orientation | None = None
    for kind in (_Order, _PathOrder):
        found = _Search(kind, wanted, work).result(name)
        if best is None or len(found.open) < len(best.open):
            best = found
        if not best.open:
            break
    assert best is not None
    return best


class _Search:
    """The greedy search for one kind of order: a rule is taken when it goes with those before it."""

    def __init__(self, kind: type[_Order], wanted: Mapping[str, list[Sides]], work: _Work) -> None:
        self.kind, self.wanted, self.work = kind, wanted, work
        terms = [term for pairs in wanted.values() for pair in pairs for term in (pair.left, pair.right)]
        self.order = kind({symbol for term in terms for symbol in term.symbols()} | {CONST})
        self.switches = {identity: z3.Bool(f"rule_{k}") for k, identity in enumerate(wanted)}
        self.solver = z3.Solver()
        self.solver.set("rlimit", EFFORT)
        self.solver.add(*self.order.axioms)
        for identity, pairs in wanted.items():
            goals = [self.order.decreases(pair) for pair in dict.fromkeys(pairs)]
            self.solver.add(z3.Implies(self.switches[identity], z3.And(goals)))
        self.taken: list[str] = []
        self.left: list[str] = []
        self.model: Any = None
        self.unsure = False

    def _fits(self, names: Sequence[str]) -> bool:
        answer = self.solver.check([self.switches[name] for name in names])
        if answer != z3.sat:
            self.unsure = answer == z3.unknown
            return False
        self.model = self.solver.model()
        return True

    def _take(self, names: list[str]) -> None:
        if not names:
            return
        if self._fits([*self.taken, *names]):
            self.taken += names
        elif len(names) == 1:
            self.left += names
        else:
            half = len(names) // 2
            self._take(names[:half])
            self._take(names[half:])

    def result(self, name: str) -> Orientation:
        """The best that this kind of order can do."""
        units, grows = self.work.units, self.work.grows
        rules = [identity for identity in self.wanted if identity not in grows]
        alone = [identity for identity in rules if self._fits([identity])]
        self.left = [identity for identity in rules if identity not in set(alone)]
        self._fits([])
        self._take(alone)
        needless = [
            identity
            for identity in grows
            if self.wanted.get(identity) and self._fits([*self.taken, identity])
        ]
        given = [Open(units[identity], reason) for identity, reason in self.work.open.items()]
        return Orientation(
            name,
            self.kind.name,
            tuple([units[identity] for identity in self.taken]),
            tuple(grows.values()),
            tuple([units[identity] for identity in needless]),
            tuple([(units[identity], native) for identity, native in self.work.trusted.items()]),
            (*given, *map(self._open, self.left)),
            *self._found(),
        )

    def _found(self) -> tuple[dict[str, int], tuple[str, ...]]:
        self._fits(self.taken)
        value = {
            key: int(self.model.eval(unknown, model_completion=True).as_long())
            for key, unknown in [
                *((("w", symbol), weight) for symbol, weight in self.order.weights.items()),
                *((("p", symbol), place) for symbol, place in self.order.places.items()),
            ]
        }
        places = sorted(self.order.places, key=lambda symbol: -value["p", symbol])
        return {symbol: value["w", symbol] for symbol in self.order.weights}, tuple(places)

    def _open(self, identity: str) -> Open:
        """Why a rule was not taken."""
        units = self.work.units
        if not self._fits([identity]):
            reason = "z3 did not find out" if self.unsure else self._alone(identity)
            return Open(units[identity], reason)
        against = self._conflict(identity)
        names = " and ".join(dict.fromkeys(units[name].name for name in against))
        return Open(
            units[identity],
            f"no order makes its result smaller, and at the same time those of {names}",
            tuple([units[name] for name in against]),
        )

    def _alone(self, identity: str) -> str:
        for pair in self.wanted[identity]:
            more = [name for name in repeated(pair.left, pair.right) if not name.startswith("_")]
            if more:
                verb = "stands" if len(more) == 1 else "stand"
                return f"{' and '.join(more)} {verb} more often in the result than in the pattern"
            if not pair.right.bounded:
                return "the result has a list of new nodes, of any length"
        return "its result is not smaller in any order"

    def _conflict(self, identity: str) -> list[str]:
        """A small set of taken rules that this one does not go with."""
        kept = list(self.taken)
        step = max(1, len(kept) // 2)
        while step:
            position = 0
            while position < len(kept):
                fewer = kept[:position] + kept[position + step :]
                if self._fits([*fewer, identity]):
                    position += step
                else:
                    kept = fewer
            step //= 2
        return kept

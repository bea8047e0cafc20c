"""Both sides of a rule as terms that an order can compare.

All constants are one symbol: what is built of constants alone is folded when it is built. The operands that
``*xs`` stands for are one variable. What has no shape of its own (results of natives) raises Unordered.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tinycore.errors import TinycoreError
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.ops import TABLE
from tinycore.rules import syntax as s
from tinycore.rules.builtins import FUNCTIONS
from tinycore.rules.expand import names_in, nodes_in
from tinycore.rules.fold import fold
from tinycore_tools_rules.subsume import Row
from tinycore_tools_rules.typed import single_ops

CONST = "CONST"
_EITHER = "?"
_NUMBERS = ("const", "identity", "min", "max", "sum", "prod", "abs", "gcd")
_MOST, _LARGEST = 64, 5_000


class Unordered(Exception):
    """A rule whose result is no term: the reason. `native` names the native that makes it, if one does."""

    def __init__(self, reason: str, native: str = "") -> None:
        super().__init__(reason)
        self.native = native


@dataclass(frozen=True, slots=True)
class Term:
    """A symbol and its operands; a variable has a name and no symbol.

    `size` counts its symbols and variables. Of a constant, `known` says that its value is there when the result is
    built: then ops of constants are folded at once. `many` says that it stands for any number of terms of this form:
    what a comprehension makes.

    >>> Term("ADD", (Term(name="x"), Term("CONST")))
    ADD(x, CONST)
    """

    symbol: str = ""
    operands: tuple[Term, ...] = ()
    name: str = ""
    many: bool = False
    size: int = field(default=1, compare=False)
    known: bool = field(default=True, compare=False)

    def __repr__(self) -> str:
        inside = f"({', '.join(map(repr, self.operands))})" if self.operands else ""
        return f"{'*' if self.many else ''}{self.name or self.symbol}{inside}"

    def variables(self) -> Counter[str]:
        """How often every variable occurs."""
        found: Counter[str] = Counter()
        for term in self.parts():
            if term.name:
                found[term.name] += 1
        return found

    def parts(self) -> Iterator[Term]:
        """The term and everything in it."""
        yield self
        for operand in self.operands:
            yield from operand.parts()

    def symbols(self) -> Counter[str]:
        """How often every symbol occurs."""
        return Counter(term.symbol for term in self.parts() if term.symbol)

    @property
    def bounded(self) -> bool:
        """Whether no symbol in it is repeated an unknown number of times."""
        return not any(term.many and term.symbol for term in self.parts())


@dataclass(frozen=True, slots=True)
class Sides:
    """One case of a rule: what it matches, what it may answer, and the variables that are known not to be constants."""

    left: Term
    right: Term
    guarded: frozenset[str]

    def __str__(self) -> str:
        return f"{self.left!r} => {self.right!r}"


def sides(row: Row) -> list[Sides]:
    """The two sides of one case; one pair for each branch of the result. Raises Unordered."""
    rule = row.unit.rule
    lets: dict[str, Any] = {}

    for let in (*[clause for clause in rule.clauses if isinstance(clause, s.Let)], *rule.block):
        lets[let.name] = let.value
    natives = {native.name: native for native in row.unit.source.file.natives}
    guarded = frozenset(_not_constant(rule))
    found: list[Sides] = []
    for pattern in _forms(row.case.pattern):
        captured: dict[str, Term] = {}
        left = _pattern(pattern, captured)
        for name in row.case.capture:
            captured[name] = left
        right = _Right(captured, natives, lets).term(rule.result[0])
        found += [Sides(left, branch, guarded) for branch in _branches(right)]
    return found


def _forms(pattern: s.Pattern) -> list[s.Pattern]:
    """The pattern once for every choice of ops in it. Raises Unordered when they are too many."""
    found = list(itertools.islice(single_ops(pattern), _MOST + 1))
    if len(found) > _MOST:
        raise Unordered(f"the pattern has more than {_MOST} forms")
    return found


def _not_constant(rule: s.Rule) -> Iterator[str]:
    """Names that a clause ``if not x.is_const`` speaks of."""
    for node in nodes_in(rule.clauses):
        if not (isinstance(node, s.Unary) and node.operator == "not"):
            continue
        asked = node.operand
        if isinstance(asked, s.Attribute) and asked.name == "is_const" and isinstance(asked.value, s.Name):
            yield asked.value.name


def _branches(term: Term) -> list[Term]:
    """Every term that ``a if c else b`` may be, at any depth. Raises Unordered when they are too many."""
    if term.symbol == _EITHER:
        return [branch for operand in term.operands for branch in _branches(operand)]
    if not any(part.symbol == _EITHER for part in term.operands for part in part.parts()):
        return [term]
    choices = list(
        itertools.islice(itertools.product(*[_branches(operand) for operand in term.operands]), _MOST + 1)
    )
    if len(choices) > _MOST:
        raise Unordered(f"the result has more than {_MOST} branches")
    return [replace(term, operands=operands) for operands in choices]


def _pattern(pattern: s.Pattern, captured: dict[str, Term]) -> Term:
    if isinstance(pattern, s.Capture):
        found = captured[pattern.name] = _pattern(pattern.pattern, captured)
        return found
    if isinstance(pattern, s.Apply):
        if pattern.ops == (CONST,):
            return Term(CONST, known=False)
        return Term(pattern.ops[0], tuple([_pattern(operand, captured) for operand in pattern.operands]))
    if isinstance(pattern, (s.Constant, s.Literal)):
        if isinstance(pattern, s.Constant):
            captured[pattern.name] = Term(CONST)
        return Term(CONST)
    assert isinstance(pattern, (s.Variable, s.Rest))
    rest = isinstance(pattern, s.Rest)
    name = ("*" if rest else "") + (pattern.name or f"_{id(pattern)}")
    found = Term(name=name, many=rest)
    captured.setdefault(pattern.name or name, found)
    return found


class _Right:
    """Expressions to terms."""

    def __init__(
        self, captured: dict[str, Term], natives: dict[str, s.Native], lets: Mapping[str, Any]
    ) -> None:
        self.captured, self.natives, self.lets = captured, natives, lets

    def term(self, e: Any) -> Term:
        if isinstance(e, s.Name):
            if e.name in self.lets and e.name not in self.captured:
                self.captured[e.name] = self.term(self.lets[e.name])
            return self.captured.get(e.name, Term(CONST))
        if isinstance(e, s.Item) and isinstance(e.value, s.Name):
            return self.captured.get(e.value.name, Term(CONST))
        if isinstance(e, (s.Number, s.Attribute, s.Item)):
            return Term(CONST)
        if isinstance(e, s.Unary):
            return self._node("NEG", (self.term(e.operand),))
        if isinstance(e, s.Binary):
            parts = (self.term(e.left), self.term(e.right))
            return self._node(s.INFIX[e.operator], parts[::-1] if e.operator in (">", ">=") else parts)
        if isinstance(e, s.Build):
            return self._node(
                e.op, tuple([part for operand in e.operands for part in self._operands(operand)])
            )
        if isinstance(e, s.Conditional):
            return Term(_EITHER, (self.term(e.yes), self.term(e.no)))
        if isinstance(e, s.Call):
            return self._call(e)
        raise Unordered(f"the result has a {type(e).__name__.lower()}, whose size is not known")

    def _node(self, op: str, operands: tuple[Term, ...]) -> Term:
        if all(operand == Term(CONST) and operand.known for operand in operands) and _folds(op):
            return Term(CONST)
        size = 1 + sum(operand.size for operand in operands)
        if size > _LARGEST:
            raise Unordered(f"the result has more than {_LARGEST} nodes, written out")
        return Term(op, operands, size=size)

    def _operands(self, e: Any) -> list[Term]:
        if not isinstance(e, s.Splat):
            return [self.term(e)]
        e = e.value
        if isinstance(e, s.Sequence):
            return [part for item in e.items for part in self._operands(item)]
        if isinstance(e, s.Slice):  # fewer of the same
            e = e.value
        if isinstance(e, s.Name) and e.name in self.lets:
            e = self.lets[e.name]
        if isinstance(e, s.Name):
            return [self.captured.get(e.name, Term(name=f"*{e.name}", many=True))]
        if isinstance(e, s.Comprehension):
            return [self._each(e)]
        if isinstance(e, s.Call) and e.name in self.natives:
            raise Unordered(f"native {e.name} makes operands of the result", e.name)
        raise Unordered("the result has a list of operands")

    def _each(self, e: s.Comprehension) -> Term:
        """One term for all that a comprehension makes; its variables stand for what they go through."""
        inner = _Right(dict(self.captured), self.natives, self.lets)
        for loop in e.loops:
            rests = [name for name in names_in(loop.items) if self.captured.get(name, Term()).many]
            for name in _targets(loop.target):
                inner.captured[name] = self.captured[rests[0]] if rests else Term(CONST)
        return replace(inner.term(e.item), many=True)

    def _call(self, e: s.Call) -> Term:
        native = self.natives.get(e.name)
        if native is not None:
            if native.result.name in ("int", "float", "bool", "number", "value"):
                return Term(CONST)
            raise Unordered(f"native {e.name} makes the result", e.name)
        if e.name in _NUMBERS or FUNCTIONS[e.name].result([]) == "num":
            return Term(CONST)
        raise Unordered(f"{e.name}() makes the result")


@functools.cache
def _folds(name: str) -> bool:
    """Whether an op of constants is folded when it is built."""
    op = TABLE[name]
    if not op.elementwise:
        return False
    for dtype in (dtypes.int32, dtypes.float32, dtypes.bool_):
        one, yes = UOp.const(dtype, 1), UOp.const(dtypes.bool_, True)
        operands = tuple([yes if spec == "Bool" else one for spec in op.operands])
        with contextlib.suppress(TypeError, ValueError, TinycoreError):
            result = dtypes.bool_ if op.dtype == "bool" else dtype
            if fold(op, result, operands).op is ops.CONST:
                return True
    return False


def _targets(target: Any) -> Iterator[str]:
    if isinstance(target, str):
        yield target
    else:
        for part in target:
            yield from _targets(part)

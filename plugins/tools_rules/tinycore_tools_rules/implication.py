"""Whether guards imply others: z3 over what they compare; what it does not know is a truth value of its own.

>>> from tinycore.rules.parse import parse
>>> rule = parse("group g(fixpoint) { r: x // $c if c > 4 and x.vmin >= 0 => x }").groups[0].items[0]
>>> weaker = parse("group g(fixpoint) { r: x // $c if c > 0 => x }").groups[0].items[0]
>>> implies(conditions(rule, {}), conditions(weaker, {})), implies(conditions(weaker, {}), conditions(rule, {}))
(True, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinycore.rules import syntax as s
from tinycore.rules.expand import rewrite
from tinycore_tools_rules.effort import solver_for

_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
TIMEOUT_MS = 200


def conditions(rule: s.Rule, names: Mapping[str, Any]) -> list[s.Expression]:
    """The guards of a rule with captures renamed and ``let``s written out.

    A ``let`` whose native may answer None is a condition too: that it answers at all.
    """
    known: dict[str, Any] = dict(names)
    found: list[s.Expression] = []

    def fill(part: Any) -> Any:
        return known.get(part.name) if isinstance(part, s.Name) else None

    for clause in rule.clauses:
        if isinstance(clause, s.Guard):
            found.append(rewrite(clause.condition, fill))
            continue
        value = rewrite(clause.value, fill)
        if isinstance(value, s.Call):
            found.append(s.Call("_answers", (value,)))
        known[clause.name] = value
    return found


def implies(stronger: list[s.Expression], weaker: list[s.Expression]) -> bool:
    """Whether the first conditions together imply all of the second."""
    if all(condition in stronger for condition in weaker):
        return True
    import z3

    encoder = _Encoder()
    solver = solver_for(TIMEOUT_MS)
    solver.add(*[encoder.truth(condition) for condition in stronger])
    solver.add(z3.Not(z3.And([encoder.truth(condition) for condition in weaker])))
    return bool(solver.check() == z3.unsat)


def compatible(first: list[s.Expression], second: list[s.Expression]) -> bool:
    """Whether both may hold at once, as far as can be told."""
    if not first and not second:
        return True
    import z3

    encoder = _Encoder()
    solver = solver_for(TIMEOUT_MS)
    solver.add(*[encoder.truth(condition) for condition in (*first, *second)])
    return bool(solver.check() != z3.unsat)


class _Encoder:
    """Guards as z3 terms; equal expressions that it does not know are equal unknowns."""

    def __init__(self) -> None:
        self.numbers: dict[Any, Any] = {}
        self.truths: dict[Any, Any] = {}

    def truth(self, e: s.Expression) -> Any:
        import z3

        if isinstance(e, s.Number) and isinstance(e.value, bool):
            return z3.BoolVal(e.value)
        if isinstance(e, s.Logical):
            parts = self.truth(e.left), self.truth(e.right)
            return z3.And(*parts) if e.operator == "and" else z3.Or(*parts)
        if isinstance(e, s.Unary) and e.operator == "not":
            return z3.Not(self.truth(e.operand))
        if isinstance(e, s.Binary) and e.operator in _COMPARE and not (_opaque(e.left) or _opaque(e.right)):
            return _COMPARE[e.operator](self.number(e.left), self.number(e.right))
        if isinstance(e, s.Binary) and e.operator == "!=":
            return z3.Not(self.truth(s.Binary("==", e.left, e.right)))
        return self.truths.setdefault(repr(e), z3.FreshConst(z3.BoolSort(), "t"))

    def number(self, e: s.Expression) -> Any:
        import z3

        if isinstance(e, s.Number) and isinstance(e.value, int):
            return z3.IntVal(int(e.value))
        if isinstance(e, s.Unary) and e.operator == "-":
            return -self.number(e.operand)
        if isinstance(e, s.Binary) and e.operator in _ARITHMETIC:
            return _ARITHMETIC[e.operator](self.number(e.left), self.number(e.right))
        return self.numbers.setdefault(repr(e), z3.FreshConst(z3.IntSort(), "n"))


def _opaque(e: s.Expression) -> bool:
    """Whether a compared value is no whole number: dtypes, ops, texts, lists, floats."""
    if isinstance(e, (s.Text, s.Sequence, s.Comprehension)):
        return True
    if isinstance(e, s.Number):
        return isinstance(e.value, float)
    return isinstance(e, s.Attribute) and e.name in ("dtype", "op", "kind", "name", "shape")

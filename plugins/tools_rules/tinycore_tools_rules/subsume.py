"""When one pattern matches all that another one matches, and when both can match the same node.

Both work on single cases of rules, by the engine's own positions and dtype facts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinycore.ir import dtypes
from tinycore.rules import syntax as s
from tinycore.rules.expand import OP_CLASSES, Case
from tinycore.rules.matcher import Matcher, Pool
from tinycore_tools_rules.implication import compatible, conditions, implies
from tinycore_tools_rules.sources import Unit


@dataclass(frozen=True, eq=False)
class Row:
    """One case of one rule, as a pass tries it."""

    unit: Unit
    case: Case

    @cached_property
    def matcher(self) -> Matcher:
        """The engine's matcher of the case: positions and dtypes."""
        return Matcher(self.unit.source.file, self.case, Pool(), "nsz" in self.unit.notes.flags)


def _plain(pattern: s.Pattern) -> s.Pattern:
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    return pattern


class _Bindings:
    """What the captures of the wider pattern stand for in the narrower one."""

    def __init__(self) -> None:
        self.nodes: dict[str, s.Pattern] = {}
        self.names: dict[str, Any] = {}


def shadows(first: Row, second: Row) -> bool:
    """Whether the first case, tried before, matches every node that the second one matches."""
    bindings = _Bindings()
    if not _wider(first.case.pattern, second.case.pattern, bindings, "n", second):
        return False
    if not _dtypes_wider(first, second):
        return False
    if _may_answer_the_node(first.unit.rule):
        return False
    for name in first.case.capture:
        bindings.names[name] = s.Name(_root_name(second))
    return implies(conditions(second.unit.rule, {}), conditions(first.unit.rule, bindings.names))


def _root_name(row: Row) -> str:
    return row.case.capture[0] if row.case.capture else "_root"


def _may_answer_the_node(rule: s.Rule) -> bool:
    """Whether the result may be the matched node itself, which counts as no match."""
    result = rule.result[0] if rule.result else None
    pattern = _plain(rule.pattern)
    if isinstance(result, (s.Call, s.Conditional)):
        return True
    return (
        isinstance(result, s.Build)
        and isinstance(pattern, s.Apply)
        and result.op in pattern.ops
        and all(isinstance(operand, s.Name) for operand in result.operands)
    )


def _wider(a: s.Pattern, b: s.Pattern, bindings: _Bindings, local: str, row: Row) -> bool:
    names_b = []
    while isinstance(b, s.Capture):
        names_b.append(b.name)
        b = b.pattern
    while isinstance(a, s.Capture):
        bindings.names[a.name] = s.Name(names_b[0]) if names_b else s.Name(f"_{local}")
        a = a.pattern
    if isinstance(a, s.Variable):
        return _bind_node(a, b, names_b, bindings, local)
    if isinstance(a, s.Constant):
        return _bind_constant(a, b, bindings, local)
    if isinstance(a, s.Literal):
        return isinstance(b, s.Literal) and repr(a.value) == repr(b.value)
    if isinstance(a, s.Apply):
        any_constant = a.ops == ("CONST",) and not a.operands and a.attributes is None
        if any_constant and isinstance(b, (s.Constant, s.Literal)):
            return True
        return isinstance(b, s.Apply) and _apply_wider(a, b, bindings, local, row)
    return False


def _bind_node(a: s.Variable, b: s.Pattern, names: list[str], bindings: _Bindings, local: str) -> bool:
    if isinstance(b, s.Rest):
        return False
    if a.name is None:
        return True
    if a.name in bindings.nodes:
        return _untyped(bindings.nodes[a.name]) == _untyped(b) and _determined(b)
    bindings.nodes[a.name] = b
    name = names[0] if names else getattr(b, "name", None)
    bindings.names[a.name] = s.Name(name) if name is not None else s.Name(f"_{local}")
    return True


def _untyped(pattern: s.Pattern) -> s.Pattern:
    """Only the first of several equal variables says its dtype."""
    return dataclasses.replace(pattern, type=None) if isinstance(pattern, s.Variable) else pattern


def _bind_constant(a: s.Constant, b: s.Pattern, bindings: _Bindings, local: str) -> bool:
    if isinstance(b, s.Literal):
        value: Any = s.Number(b.value)
    elif isinstance(b, s.Constant):
        value = s.Name(b.name)
    else:
        return False
    if a.name in bindings.names:
        return bool(bindings.names[a.name] == value)
    bindings.names[a.name] = value
    return True


def _determined(pattern: s.Pattern) -> bool:
    """Whether equal patterns surely match the same node: everything in it is named."""
    if isinstance(pattern, s.Capture):
        return True
    if isinstance(pattern, (s.Variable, s.Rest)):
        return pattern.name is not None
    if isinstance(pattern, s.Apply):
        attributes = pattern.attributes or ()
        fixed = all(part.name is not None or part.equal is not None for part in attributes)
        return len(pattern.ops) == 1 and fixed and all(_determined(operand) for operand in pattern.operands)
    return True


def _apply_wider(a: s.Apply, b: s.Apply, bindings: _Bindings, local: str, row: Row) -> bool:
    ops_a = {name for op in a.ops for name in OP_CLASSES.get(op, (op,))}
    ops_b = {name for op in b.ops for name in OP_CLASSES.get(op, (op,))}
    if not ops_b <= ops_a:
        return False
    for k, attribute in enumerate(a.attributes or ()):
        other = (b.attributes or (s.AttributePattern(),) * len(a.attributes or ()))[k]
        if attribute.equal is not None and attribute.equal != other.equal:
            return False
        if attribute.name is not None:
            bindings.names[attribute.name] = other.equal or s.Name(other.name or f"_{local}_{k}_attribute")
    if len(a.operands) == 1 and isinstance(a.operands[0], s.Rest):
        bindings.names[a.operands[0].name or "_"] = s.Name(f"_{local}_rest")
        return True
    rests_b = [isinstance(operand, s.Rest) for operand in b.operands]
    if any(isinstance(operand, s.Rest) for operand in a.operands) or any(rests_b):
        return dataclasses.replace(a, ops=(), attributes=None) == dataclasses.replace(
            b, ops=(), attributes=None
        )
    return len(a.operands) == len(b.operands) and all(
        _wider(x, y, bindings, f"{local}_{k}", row)
        for k, (x, y) in enumerate(zip(a.operands, b.operands, strict=True))
    )


def _terms(pattern: s.Pattern, local: str = "n") -> Iterator[str]:
    pattern = _plain(pattern)
    yield local
    if isinstance(pattern, s.Apply) and not any(isinstance(operand, s.Rest) for operand in pattern.operands):
        for k, operand in enumerate(pattern.operands):
            yield from _terms(operand, f"{local}_{k}")


def _dtypes_wider(first: Row, second: Row) -> bool:
    """Whether every dtype that the second case accepts is accepted by the first, equalities included."""
    a, b = first.matcher.facts, second.matcher.facts
    terms = list(_terms(first.case.pattern))
    for term in terms:
        if not b.possible(term) - {dtypes.void} <= a.possible(term):
            return False
    for k, x in enumerate(terms):
        for y in terms[k + 1 :]:
            joined = a.find(x) == a.find(y) and b.find(x) != b.find(y)
            if joined and (b.possible(x) != b.possible(y) or len(b.possible(x)) != 1):
                return False
    return True


# --- overlap --------------------------------------------------------------------------------------------------


def overlaps(first: Row, second: Row) -> bool:
    """Whether some node may be matched by both (repeated captures are not looked at)."""
    if not _meet(first.case.pattern, second.case.pattern):
        return False
    a, b = first.matcher.facts, second.matcher.facts
    shared = set(_terms(first.case.pattern)) & set(_terms(second.case.pattern))
    if not all(a.possible(term) & b.possible(term) for term in shared):
        return False
    return compatible(conditions(first.unit.rule, {}), conditions(second.unit.rule, _primed(second)))


def _primed(row: Row) -> dict[str, Any]:
    """The captures of the second rule are others than those of the first."""
    from tinycore.rules.expand import names_in

    return {name: s.Name(f"{name}_") for name in names_in(row.case.pattern)}


def _meet(a: s.Pattern, b: s.Pattern) -> bool:
    a, b = _plain(a), _plain(b)
    if isinstance(a, (s.Variable, s.Rest)) or isinstance(b, (s.Variable, s.Rest)):
        return True
    if isinstance(a, (s.Constant, s.Literal)) and isinstance(b, (s.Constant, s.Literal)):
        return not (isinstance(a, s.Literal) and isinstance(b, s.Literal)) or a.value == b.value
    if not isinstance(a, s.Apply) or not isinstance(b, s.Apply):
        other = a if isinstance(a, s.Apply) else b
        return isinstance(other, s.Apply) and "CONST" in other.ops
    sets = [{name for op in part.ops for name in OP_CLASSES.get(op, (op,))} for part in (a, b)]
    if not sets[0] & sets[1]:
        return False
    if any(isinstance(operand, s.Rest) for operand in (*a.operands, *b.operands)):
        return True
    return len(a.operands) == len(b.operands) and all(
        _meet(x, y) for x, y in zip(a.operands, b.operands, strict=True)
    )

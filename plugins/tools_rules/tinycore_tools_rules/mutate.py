"""Seeded faults: small mistakes put into rules, to see whether `verify` and `test` catch them.

Every operator makes one small change to one rule. A mutant that does not compile is a type error; one that is
proved (or right for every value of the small formats) is equivalent; all others should be caught.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tinycore.errors import RuleError, TinycoreError
from tinycore.ir.ops import TABLE
from tinycore.rules import syntax as s
from tinycore.rules.check import notes_of
from tinycore.rules.expand import nodes_in
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.derive import derive
from tinycore_tools_rules.inline import problem_of
from tinycore_tools_rules.prove import opaque_natives
from tinycore_tools_rules.sample import GivenLeaves, rewritten
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.typed import Impossible, is_scalar, typed_cases
from tinycore_tools_rules.verify import verify_unit

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "!=", "!=": "=="}
_ORDERED = ("-", "/", "//", "%", "<<", ">>", "<", "<=", ">", ">=")
_OTHER_TYPE = {
    "Int": "Float", "Float": "Number", "SizedInt": "Int", "Index": "Int", "bool": "Integral", "Bool": "Integral",
    "Number": "Any", "Unsigned": "Int", "Integral": "Any", "float32": "float64", "float64": "float32",
    "float16": "bfloat16", "int32": "int16", "int64": "int32", "uint32": "int32", "uint64": "int64",
    "uint8": "int8", "bfloat16": "float16", "int8": "uint8", "uint16": "int16", "int16": "uint16",
    "float8_e4m3": "float8_e5m2", "float8_e5m2": "float8_e4m3", "index": "int64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule with one fault."""

    operator: str
    what: str
    rule: s.Rule


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant: type error, equivalent, caught (by what), survived."""

    identity: str
    operator: str
    what: str
    outcome: str
    by: str = ""


def mutants(unit: Unit) -> list[Mutant]:
    """All mutants of a rule that differ from it, in a fixed order."""
    found: list[Mutant] = []
    for operator, makers in OPERATORS.items():
        for what, rule in itertools.chain.from_iterable(make(unit) for make in makers):
            if rule != unit.rule:
                found.append(Mutant(operator, what, rule))
    return found


def draw(units: Sequence[Unit], count: int, seed: int, by_line: bool = False) -> list[tuple[Unit, int]]:
    """`count` different mutants of these rules, as numbers of `mutants`; the same for the same seed.

    Every rule has the same chance (`by_line`: all rules of a loop together have that of one), and of a rule every
    operator, then every place. Text in an unknown language takes no part.
    """
    chance = random.Random(seed)
    written: dict[tuple[str, int, str], list[Unit]] = {}
    for unit in units:
        if unit.rule.kind == "render" and unit.annotation("language") is None:
            continue
        key = (unit.source.name, unit.rule.span.line, "" if by_line else unit.identity)
        written.setdefault(key, []).append(unit)
    keys = sorted(written)
    chosen: dict[tuple[str, int], Unit] = {}
    made: dict[str, list[Mutant]] = {}
    for _ in range(100 * count):
        if len(chosen) == count:
            break
        unit = chance.choice(written[chance.choice(keys)])
        if unit.identity not in made:
            made[unit.identity] = mutants(unit)
        if found := made[unit.identity]:
            operator = chance.choice(sorted({mutant.operator for mutant in found}))
            number = chance.choice([k for k, mutant in enumerate(found) if mutant.operator == operator])
            chosen[unit.identity, number] = unit
    return [(chosen[key], key[1]) for key in sorted(chosen)]


def judge(unit: Unit, mutant: Mutant, patience: float = 2.0) -> Outcome:
    """Whether the mutant is found out."""
    try:
        changed = Unit(
            unit.source, unit.group, mutant.rule, notes_of(unit.source.file, unit.group, mutant.rule)
        )
        code = changed.code
    except RuleError:
        return Outcome(unit.identity, mutant.operator, mutant.what, "type error")
    if code == unit.code:
        return Outcome(unit.identity, mutant.operator, mutant.what, "equivalent", "the same code")
    if _same_graphs(unit, changed):
        return Outcome(unit.identity, mutant.operator, mutant.what, "equivalent", "the same graphs")
    if _fails_inline(unit, changed):
        return Outcome(unit.identity, mutant.operator, mutant.what, "caught", "inline test")
    outcome, by = _found_out(changed, patience)
    return Outcome(unit.identity, mutant.operator, mutant.what, outcome, by)


def _same_graphs(unit: Unit, changed: Unit) -> bool:
    """Whether both answer the very same graph for every dtype; only for rules that depend on nothing else.

    A shape may be handed on: scalars and vectors are tried.
    """
    names = ("vmin", "vmax", "bounds", "value", "is_const")
    depends = any(
        isinstance(part, s.Constant) or (isinstance(part, s.Attribute) and part.name in names)
        for part in nodes_in((unit.rule, changed.rule))
    )
    if depends or unit.rule.kind != "rewrite" or unit.rule.pattern != changed.rule.pattern:
        return False
    if not is_scalar(unit.rule.pattern) or any(
        native.result.name == "bool" for native in opaque_natives(unit)
    ):
        return False
    if any(native.result.optional for native in opaque_natives(unit)):
        return False
    first, second = unit.table(), changed.table()
    fired = False
    for typed, shape in itertools.product(typed_cases(unit), ((), (3,))):
        try:
            before = typed.build(GivenLeaves({}, shape))
            for place in contexts(unit):
                answer = rewritten(first, before, place)
                fired = fired or answer is not None
                if answer is not rewritten(second, before, place):
                    return False
        except (Impossible, TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            return False
    return fired


def _fails_inline(unit: Unit, changed: Unit) -> bool:
    """Whether the mutant fails an inline test that the rule passes (a loop's test need not hold for all of it)."""
    entries = [
        [(root.name, (), function) for root, functions in item.table().items() for function in functions]
        for item in (unit, changed)
    ]
    for test in unit.rule.tests:
        try:
            if problem_of(unit.source.file, unit.rule, test, entries[0]):
                continue
            if problem_of(unit.source.file, changed.rule, test, entries[1]):
                return True
        except TinycoreError:
            return True
    return False


def _found_out(unit: Unit, patience: float) -> tuple[str, str]:
    result = verify_unit(unit, patience)
    if result.status == "refuted":
        return "caught", "verify"
    if result.status == "unverified":
        return "caught", "never matches"
    if any(test.problem for test in derive(unit)):
        return "caught", "derived test"
    if result.status in ("proved", "exhaustive"):
        return "equivalent", result.status
    return "survived", result.describe()


# --- operators ------------------------------------------------------------------------------------------------

Made = Iterator[tuple[str, s.Rule]]


def _replaced(tree: Any, old: Any, new: Any) -> Any:
    """The tree with one node exchanged; the node itself, not its equals."""
    if tree is old:
        return new
    if isinstance(tree, tuple):
        return tuple([_replaced(part, old, new) for part in tree])
    if not isinstance(tree, s.Node):
        return tree
    names = [field.name for field in dataclasses.fields(tree) if field.name != "span"]
    return dataclasses.replace(tree, **{name: _replaced(getattr(tree, name), old, new) for name in names})


def _on_right(rule: s.Rule, old: Any, new: Any) -> s.Rule:
    """The rule with one node of its clauses, block or result exchanged."""
    return dataclasses.replace(
        rule,
        clauses=_replaced(rule.clauses, old, new),
        block=_replaced(rule.block, old, new),
        result=_replaced(rule.result, old, new),
    )


def _right(rule: s.Rule) -> Iterator[s.Node]:
    return nodes_in((rule.clauses, rule.block, rule.result))


def _dropped_guard(unit: Unit) -> Made:
    rule = unit.rule
    for clause in rule.clauses:
        if not isinstance(clause, s.Guard):
            continue
        yield (
            f"without {_place(clause)}",
            dataclasses.replace(rule, clauses=tuple(other for other in rule.clauses if other is not clause)),
        )
        if isinstance(clause.condition, s.Logical) and clause.condition.operator == "and":
            for side in (clause.condition.left, clause.condition.right):
                yield (
                    f"half of {_place(clause)}",
                    _on_right(rule, clause, dataclasses.replace(clause, condition=side)),
                )


def _swapped(unit: Unit) -> Made:
    for node in _right(unit.rule):
        if isinstance(node, s.Binary) and node.operator in _ORDERED and node.left != node.right:
            new: Any = dataclasses.replace(node, left=node.right, right=node.left)
            yield f"{node.operator} swapped at {_place(node)}", _on_right(unit.rule, node, new)
        commutes = isinstance(node, s.Build) and TABLE[node.op].commutative  # swapping those is no fault
        if (
            isinstance(node, s.Build)
            and not commutes
            and len(node.operands) >= 2
            and node.operands[-1] != node.operands[-2]
        ):
            *first, a, b = node.operands
            if not any(isinstance(part, s.Splat) for part in (a, b)):
                swapped = dataclasses.replace(node, operands=(*first, b, a))
                yield f"{node.op} swapped at {_place(node)}", _on_right(unit.rule, node, swapped)


def _off_by_one(unit: Unit) -> Made:
    for node in _right(unit.rule):
        if isinstance(node, s.Number) and type(node.value) is int:
            for step in (1, -1):
                new = dataclasses.replace(node, value=node.value + step)
                yield f"{node.value} becomes {new.value} at {_place(node)}", _on_right(unit.rule, node, new)
    for part in nodes_in(unit.rule.pattern):
        if isinstance(part, s.Literal) and type(part.value) is int:
            other = dataclasses.replace(part, value=part.value + 1)
            pattern = _replaced(unit.rule.pattern, part, other)
            yield (
                f"{part.value} becomes {other.value} in the pattern",
                dataclasses.replace(unit.rule, pattern=pattern),
            )


def _wrong_dtype(unit: Unit) -> Made:
    for part in nodes_in(unit.rule.pattern):
        if isinstance(part, (s.Variable, s.Constant)) and part.type in _OTHER_TYPE:
            other = dataclasses.replace(part, type=_OTHER_TYPE[part.type])
            pattern = _replaced(unit.rule.pattern, part, other)
            yield f"{part.type} becomes {other.type}", dataclasses.replace(unit.rule, pattern=pattern)
    for node in _right(unit.rule):
        if isinstance(node, s.Build) and node.op in ("CAST", "BITCAST") and node.attributes:
            name = node.attributes[0]
            if isinstance(name, s.Name):
                dtype = _OTHER_TYPE.get(name.name, "int8")
                wrong = s.Name(dtype if dtype[0].islower() else "int8", span=name.span)
                new = dataclasses.replace(node, attributes=(wrong,))
                yield (
                    f"{node.op}[{name.name}] becomes {wrong.name} at {_place(node)}",
                    _on_right(unit.rule, node, new),
                )


def _lost_sign(unit: Unit) -> Made:
    for node in _right(unit.rule):
        new: Any = None
        if isinstance(node, s.Unary) and node.operator == "-":
            new = node.operand
        elif isinstance(node, s.Number) and type(node.value) in (int, float) and node.value < 0:
            new = dataclasses.replace(node, value=-node.value)
        elif isinstance(node, s.Binary) and node.operator == "-":
            new = dataclasses.replace(node, operator="+")
        if new is not None:
            yield f"sign lost at {_place(node)}", _on_right(unit.rule, node, new)


def _flipped(unit: Unit) -> Made:
    for node in _right(unit.rule):
        if isinstance(node, s.Binary) and node.operator in _FLIPPED:
            new = dataclasses.replace(node, operator=_FLIPPED[node.operator])
            yield f"{node.operator} becomes {new.operator} at {_place(node)}", _on_right(unit.rule, node, new)


def _wrong_capture(unit: Unit) -> Made:
    names = list(
        dict.fromkeys(
            part.name
            for part in nodes_in(unit.rule.pattern)
            if isinstance(part, (s.Variable, s.Constant)) and part.name is not None
        )
    )
    for node in nodes_in((unit.rule.block, unit.rule.result)):
        if isinstance(node, s.Name) and node.name in names and len(names) > 1:
            wrong = names[(names.index(node.name) + 1) % len(names)]
            new = dataclasses.replace(node, name=wrong)
            yield f"{node.name} becomes {wrong} at {_place(node)}", _on_right(unit.rule, node, new)


# --- operators on the text of render rules --------------------------------------------------------------------

_FIELD = re.compile(r"\{(\w+)\}")
_COMPARED = re.compile(r"(?<=\} )(<=|>=|==|!=|<|>)(?= )")


def _texts(unit: Unit, pattern: re.Pattern[str], change: Callable[[re.Match[str]], str | None]) -> Made:
    """The rule with one match of a pattern in its text exchanged."""
    for part in unit.rule.result if unit.rule.kind == "render" else ():
        if not isinstance(part, s.Text):
            continue
        for found in pattern.finditer(part.value):
            new = change(found)
            if new is not None and new != found[0]:
                value = part.value[: found.start()] + new + part.value[found.end() :]
                text = dataclasses.replace(part, value=value)
                yield f"{part.value!r} becomes {value!r}", _on_right(unit.rule, part, text)


def _text_fields(unit: Unit) -> list[str]:
    return list(
        dict.fromkeys(
            part.name
            for part in nodes_in(unit.rule.pattern)
            if isinstance(part, (s.Variable, s.Constant)) and part.name is not None
        )
    )


def _text_swapped(unit: Unit) -> Made:
    fields = r"\{(\w+)\}( [-/%<>=!&|*+^]+ | [<>]{2} |, )\{(\w+)\}"
    commutes = ("+", "*", "&", "|", "^", "==", "!=")  # swapping those is no fault
    yield from _texts(
        unit,
        re.compile(fields),
        lambda m: None if m[2].strip() in commutes else f"{{{m[3]}}}{m[2]}{{{m[1]}}}",
    )


def _text_off_by_one(unit: Unit) -> Made:
    for step in (1, -1):
        yield from _texts(unit, re.compile(r"(?<![\w{])\d+"), lambda m, step=step: str(int(m[0]) + step))  # type: ignore[misc]


def _text_lost_sign(unit: Unit) -> Made:
    yield from _texts(unit, re.compile(r"(?<=\()-(?=\{)| - "), lambda m: "" if m[0] == "-" else " + ")


def _text_flipped(unit: Unit) -> Made:
    yield from _texts(unit, _COMPARED, lambda m: _FLIPPED[m[1]])


def _text_wrong_capture(unit: Unit) -> Made:
    names = _text_fields(unit)

    def other(m: re.Match[str]) -> str | None:
        if m[1] not in names or len(names) < 2:
            return None
        return f"{{{names[(names.index(m[1]) + 1) % len(names)]}}}"

    yield from _texts(unit, _FIELD, other)


def _place(node: s.Node) -> str:
    return f"{node.span.line}:{node.span.column}"


OPERATORS: dict[str, tuple[Callable[[Unit], Made], ...]] = {
    "dropped guard": (_dropped_guard,),
    "swapped operands": (_swapped, _text_swapped),
    "off by one": (_off_by_one, _text_off_by_one),
    "wrong dtype": (_wrong_dtype,),
    "lost sign": (_lost_sign, _text_lost_sign),
    "flipped comparison": (_flipped, _text_flipped),
    "wrong capture": (_wrong_capture, _text_wrong_capture),
}
"""The mutation operators by name: for rules that build nodes, and for those that write text."""

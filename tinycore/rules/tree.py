"""lark's tree to our syntax tree: one entry a grammar rule, parts first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lark

from tinycore.rules import syntax as s

NONE, SAME = object(), object()  # ``none`` in a vjp, ``same`` in a test


class Block(tuple[Any, Any]):
    """(bindings, result) of a block."""


class Why(str):
    """The text of a ``why``."""


class BadNumber(Exception):
    """A number that is well formed but cannot stand where it does: its place."""

    def __init__(self, span: s.Span) -> None:
        super().__init__(span)
        self.span = span


def build(tree: Any) -> Any:
    """The syntax node of a tree, a plain string for a token; rules without an entry hand on their parts.

    Raises BadNumber.
    """
    if isinstance(tree, lark.Token):
        return str(tree)
    if tree is None:
        return None
    parts = [build(child) for child in tree.children]
    meta = tree.meta
    span = s.Span() if meta.empty else s.Span(meta.line, meta.column, meta.end_line, meta.end_column)
    try:
        if tree.data in _NODES:
            kind, arrange = _NODES[tree.data]
            return kind(*arrange(*parts), span=span)
        if tree.data in _RULES:
            return _RULES[tree.data](span, *parts)
        return _VALUES[tree.data](*parts) if tree.data in _VALUES else parts
    except (ValueError, OverflowError):  # thousands of digits; a bound that is infinite
        raise BadNumber(span) from None


def number(text: str) -> int | float:
    """The number that a NUMBER token spells. Raises ValueError for thousands of digits."""
    if len(text) > 1000:
        raise ValueError("too many digits")
    if text.startswith("0x"):
        return int(text, 16)
    return int(text) if text.isdigit() else float(text)


def unquote(text: str) -> str:
    """The string that a STRING token spells; escapes are \\n, \\t, \\" and \\\\."""
    escapes = (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'))
    parts = text[1:-1].split("\\\\")
    return "\\".join(
        functools.reduce(lambda part, pair: part.replace(*pair), escapes, part) for part in parts
    )


def _of(parts: tuple[Any, ...], *kinds: type) -> tuple[Any, ...]:
    return tuple(part for part in parts if isinstance(part, kinds))


def _signed(minus: str | None, text: str) -> int | float:
    return -number(text) if minus else number(text)


def _literal(pattern: Any) -> Any:
    """``true`` and ``false`` share a grammar rule with expressions."""
    return s.Literal(pattern.value, span=pattern.span) if isinstance(pattern, s.Number) else pattern


def _native(name: str, *parts: Any) -> tuple[Any, ...]:
    kinds = _of(parts, s.Kind)
    return name, kinds[:-1], kinds[-1], frozenset(part[0] for part in _of(parts, list))


def _pattern_infix(left: Any, operator: str, right: Any) -> tuple[Any, ...]:
    operands = (right, left) if operator in (">", ">=") else (left, right)
    return (s.INFIX[operator],), None, False, tuple(map(_literal, operands))


def _apply(ops: Any, attributes: Any, order: Any, *operands: Any) -> tuple[Any, ...]:
    names = tuple(ops[0]) if isinstance(ops[0], list) else tuple(ops)
    given = None if attributes is None else tuple(attributes)
    return names, given, order is not None, tuple(map(_literal, operands))


def _build(op: str, attributes: Any, *operands: Any) -> tuple[Any, ...]:
    return op, None if attributes is None else tuple(attributes), operands


def _declaration(name: str, dtype: str, *rest: Any) -> tuple[Any, ...]:
    bounds = tuple(int(part) for part in rest if not isinstance(part, s.Node))
    return name, dtype, _of(rest, s.Node), bounds or None


def _strategies(kind: str) -> Callable[..., s.Strategy]:
    return lambda span, *parts: parts[0] if len(parts) == 1 else s.Strategy(kind, "", parts, span=span)


def _negative(make: type, op: Callable[[Any], tuple[Any, ...]]) -> Callable[..., Any]:
    """``-`` on a literal is part of the literal."""

    def negate(span: s.Span, minus: str, operand: Any) -> Any:
        if isinstance(operand, (s.Literal, s.Number)) and type(operand.value) is not bool:
            return type(operand)(-operand.value, span=span)
        return make(*op(operand), span=span)

    return negate


def _rule(kind: str) -> Callable[..., s.Rule]:
    def make(span: s.Span, *parts: Any) -> s.Rule:
        names: tuple[str, ...] = ()
        name = f"{kind}_{span.line}"
        if kind == "rewrite":
            name, *parts = parts  # type: ignore[assignment]
        pattern, *rest = parts
        if kind == "vjp":
            names, rest = tuple(part for part in rest[:2] if part is not None), rest[2:]
        others = tuple(rest)
        clauses, tests = _of(others, s.Guard, s.Let), _of(others, s.Test)
        annotations, whys = _of(others, s.Annotation), _of(others, Why)
        taken = {id(part) for part in (*clauses, *tests, *annotations, *whys)}
        result = tuple(part for part in others if id(part) not in taken)
        block: tuple[s.Let, ...] = ()
        if isinstance(result[0], Block):
            block, result = result[0][0], (result[0][1],)
        if kind == "vjp":
            result = tuple(None if slot is NONE else slot for slot in result[0])
        why = whys[0] if whys else None
        return s.Rule(kind, name, pattern, clauses, block, result, annotations, tests, why, names, span=span)

    return make


_NODES: dict[str, tuple[type, Callable[..., tuple[Any, ...]]]] = {
    # items
    "import_stmt": (s.Import, lambda module, *names: (".".join(module), names)),
    "native": (s.Native, _native),
    "view": (s.View, lambda name, parameters, body: (name, tuple(parameters), body)),
    "group": (s.Group, lambda name, kinds, *rest: (name, tuple(kinds), _of(rest, s.Annotation),
                                                    _of(rest, s.Rule, s.ForBlock))),
    "forblock": (s.ForBlock, lambda variable, values, *items: (variable, tuple(values), items)),
    "passdecl": (s.PassDeclaration, lambda name, strategy, *annotations: (name, strategy, annotations)),
    "sname": (s.Strategy, lambda name: ("name", name)),
    "sapply": (s.Strategy, lambda name, part: (name, "", (part,))),
    "guard": (s.Guard, lambda condition: (condition,)),
    "letc": (s.Let, lambda name, value: (name, value)),
    "binding": (s.Let, lambda name, value: (name, value)),
    "annot": (s.Annotation, lambda name, *arguments: (name, arguments)),
    "test": (s.Test, lambda before, after, *where: (before, None if after is SAME else after, where)),
    "decl": (s.Declaration, _declaration),
    "has": (s.Declaration, lambda op: (op,)),
    # patterns
    "pinfix": (s.Apply, _pattern_infix),
    "pcapture": (s.Capture, lambda name, pattern: (name, pattern)),
    "pvar": (s.Variable, lambda name, type_: (name, type_)),
    "pwild": (s.Variable, lambda *parts: (None, parts[-1] if parts and parts[-1] != "_" else None)),
    "pconst": (s.Constant, lambda name, type_: (name, type_)),
    "pnumber": (s.Literal, lambda text: (number(text),)),
    "papp": (s.Apply, _apply),
    "pview": (s.ViewUse, lambda name, *operands: (name, tuple(map(_literal, operands)))),
    "prest": (s.Rest, lambda star, name: (None if name == "_" else name,)),
    "abind": (s.AttributePattern, lambda name: (name,)),
    "atype": (s.AttributePattern, lambda name: (name,)),
    "awild": (s.AttributePattern, lambda name: ()),
    "aeq": (s.AttributePattern, lambda value: (None, value)),
    # expressions
    "infix": (s.Binary, lambda left, operator, right: (operator, left, right)),
    "in_": (s.Binary, lambda left, right: ("in", left, right)),
    "or_": (s.Logical, lambda left, right: ("or", left, right)),
    "and_": (s.Logical, lambda left, right: ("and", left, right)),
    "not_": (s.Unary, lambda operand: ("not", operand)),
    "ternary": (s.Conditional, lambda yes, condition, no: (yes, condition, no)),
    "attribute": (s.Attribute, lambda value, name: (value, name)),
    "method": (s.Method, lambda value, name, *operands: (value, name, operands)),
    "item": (s.Item, lambda value, index: (value, index)),
    "slice": (s.Slice, lambda value, start, colon, stop: (value, start, stop)),
    "name": (s.Name, lambda name: (name,)),
    "type_name": (s.Name, lambda name: (name,)),
    "op_name": (s.Name, lambda name: (name,)),
    "number": (s.Number, lambda text: (number(text),)),
    "string": (s.Text, lambda text: (unquote(text),)),
    "true": (s.Number, lambda: (True,)),
    "false": (s.Number, lambda: (False,)),
    "call": (s.Call, lambda name, *operands: (name, operands)),
    "build": (s.Build, _build),
    "list": (s.Sequence, lambda *items: (items,)),
    "tuple": (s.Sequence, lambda *items: (items,)),
    "splat": (s.Splat, lambda value: (value,)),
    "comp": (s.Comprehension, lambda item, *loops: (item, loops)),
    "cfor": (s.Loop, lambda target, items, condition=None: (target, items, condition)),
}  # fmt: skip
"""Grammar rules that are one syntax node: its class, and how the parts become its fields."""

_RULES: dict[str, Callable[..., Any]] = {
    "rule": _rule("rewrite"),
    "vjp": _rule("vjp"),
    "render": _rule("render"),
    "seq": _strategies("seq"),
    "union": _strategies("union"),
    "pneg": _negative(s.Apply, lambda operand: (("NEG",), None, False, (operand,))),
    "neg": _negative(s.Unary, lambda operand: ("-", operand)),
    "not_in": lambda span, left, right: s.Unary("not", s.Binary("in", left, right, span=span), span=span),
    "aop": lambda span, name: s.AttributePattern(None, s.Name(name, span=span), span=span),
    "anumber": lambda span, *text: s.AttributePattern(None, s.Number(_signed(*text), span=span), span=span),
    "astring": lambda span, text: s.AttributePattern(None, s.Text(unquote(text), span=span), span=span),
}
"""Grammar rules whose entry needs the place itself."""

_VALUES: dict[str, Callable[..., Any]] = {
    "param": lambda name, kind: kind,
    "kind": lambda name, optional=None: s.Kind(name, optional is not None),
    "listkind": lambda element, optional=None: s.Kind("list", optional is not None, element),
    "block": lambda *parts: Block((parts[:-1], parts[-1])),
    "none": lambda: NONE,
    "same": lambda: SAME,
    "why": lambda text: Why(unquote(text)),
    "signed": _signed,
    "type": lambda name: name,
    "tname": lambda name: name,
    "ttuple": lambda *parts: parts,
}
"""Grammar rules that are no node of the tree."""

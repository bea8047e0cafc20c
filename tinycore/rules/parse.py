"""Text to syntax tree. Imports lark, so only a miss of the compiled cache imports this module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lark

from tinycore.errors import RuleCheckError, RuleError, RuleSyntaxError
from tinycore.rules import syntax as s

INFIX = {
    "+": "ADD",
    "-": "SUB",
    "*": "MUL",
    "/": "DIV",
    "//": "FLOORDIV",
    "%": "FLOORMOD",
    "<<": "SHL",
    ">>": "SHR",
    "&": "AND",
    "|": "OR",
    "^": "XOR",
    "<": "LT",
    "<=": "LE",
    "==": "EQ",
    "!=": "NE",
    ">": "LT",
    ">=": "LE",
}
"""The op of every infix operator; the operands of ``>`` and ``>=`` are swapped."""


def parse(text: str, path: str = "<rules>") -> s.File:
    """The syntax tree of a file. Raises RuleSyntaxError with the line and a caret.

    >>> parse("group g(fixpoint) { one: x * 1 => x }").groups[0].items[0].name
    'one'
    """
    try:
        tree = _parser().parse(text)
        items = _children(_Builder(path, text).build(tree))
    except lark.UnexpectedInput as error:
        raise _syntax_error(error, path, text) from None
    except RecursionError:
        raise RuleSyntaxError(
            "the file is nested too deeply", where=path, hint="split the expression"
        ) from None
    return s.File(
        path,
        text,
        *[
            tuple(item for item in items if isinstance(item, kind))
            for kind in (s.Import, s.Native, s.View, s.Group, s.PassDeclaration)
        ],
    )


def parse_expression(text: str) -> s.Expression:
    """One expression (for tests and tools)."""
    file = parse("group g(fixpoint) { r: NEG(x) => " + text + " }")
    rule = file.groups[0].items[0]
    assert isinstance(rule, s.Rule) and rule.result[0] is not None
    return rule.result[0]


@functools.cache
def _parser() -> lark.Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def snippet(path: str, text: str, span: s.Span) -> str:
    """``path:line:column``, the line, and a caret below the place."""
    lines = text.splitlines()
    line = lines[span.line - 1] if 0 < span.line <= len(lines) else ""
    end = span.end_column if span.end_line == span.line else len(line) + 1
    marks = "^" * max(1, min(end, len(line) + 1) - span.column)
    return f"{path}:{span.line}:{span.column}\n{line}\n{' ' * (span.column - 1)}{marks}"


def check_error(file: s.File, span: s.Span, what: str, hint: str | None = None) -> RuleCheckError:
    """A RuleCheckError that points at the place."""
    return RuleCheckError(what, where=snippet(file.path, file.text, span), hint=hint)


def _syntax_error(error: lark.UnexpectedInput, path: str, text: str) -> RuleError:
    line, column = error.line, error.column
    if line < 1 or (isinstance(error, lark.UnexpectedToken) and error.token.type == "$END"):
        line, column = max(1, text.count("\n") + 1), len(text) - text.rfind("\n")
        what = "the file ends in the middle of an item"
    elif isinstance(error, lark.UnexpectedToken):
        what = f"unexpected {str(error.token)!r}"
    else:
        what = f"unexpected character {text[error.pos_in_stream or 0]!r}"
    expected = (
        getattr(error, "accepts", None)
        or getattr(error, "expected", None)
        or getattr(error, "allowed", set())
    )
    names = sorted(_shown(name) for name in expected)
    hint = f"expected {' or '.join(names)}" if 0 < len(names) <= 12 else None
    where = snippet(
        path, text, s.Span(line, column, line, column + len(str(getattr(error, "token", "")) or "x"))
    )
    return RuleSyntaxError(what, where=where, hint=hint)


def _shown(terminal: str) -> str:
    pattern = next((t.pattern for t in _parser().terminals if t.name == terminal), None)
    if pattern is not None and pattern.type == "str":
        return repr(str(pattern.value))
    return {"$END": "the end of the file", "OP": "an OP", "TYPE": "a Type", "NAME": "a name"}.get(
        terminal, terminal.lower()
    )


def _children(value: Any) -> list[Any]:
    return list(value)


def number(text: str) -> int | float:
    """The number that a NUMBER token spells."""
    if text.startswith("0x"):
        return int(text, 16)
    return int(text) if text.isdigit() else float(text)


def unquote(text: str) -> str:
    """The string that a STRING token spells; escapes are \\n, \\t, \\" and \\\\."""
    parts = text[1:-1].split("\\\\")
    escapes = (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'))
    return "\\".join(
        functools.reduce(lambda part, pair: part.replace(*pair), escapes, part) for part in parts
    )


class _Builder:
    """Turns lark's tree into ours: one method a grammar rule; the default hands the children on."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text

    def build(self, tree: Any) -> Any:
        if not isinstance(tree, lark.Tree):
            return tree
        children = [self.build(child) for child in tree.children]
        meta = tree.meta
        span = s.Span() if meta.empty else s.Span(meta.line, meta.column, meta.end_line, meta.end_column)
        method: Callable[..., Any] | None = getattr(self, f"_{tree.data}", None)
        return children if method is None else method(span, *children)

    # items
    def _import_stmt(self, span: s.Span, module: list[Any], names: list[Any]) -> s.Import:
        return s.Import(".".join(module), tuple(map(str, names)), span=span)

    def _native(self, span: s.Span, name: str, *rest: Any) -> s.Native:
        kinds = [part for part in rest if isinstance(part, s.Kind)]
        flags = frozenset(str(part[0]) for part in rest if isinstance(part, list))
        return s.Native(str(name), tuple(kinds[:-1]), kinds[-1], flags, span=span)

    def _param(self, span: s.Span, name: str, kind: s.Kind) -> s.Kind:
        return kind

    def _kind(self, span: s.Span, name: str, optional: Any = None) -> s.Kind:
        return s.Kind(str(name), optional is not None)

    def _listkind(self, span: s.Span, element: s.Kind, optional: Any = None) -> s.Kind:
        return s.Kind("list", optional is not None, element)

    def _view(self, span: s.Span, name: str, parameters: list[Any] | None, body: s.Pattern) -> s.View:
        return s.View(str(name), tuple(map(str, parameters or [])), body, span=span)

    def _group(self, span: s.Span, name: str, kinds: list[Any] | None, *rest: Any) -> s.Group:
        annotations, items = _split(rest, s.Annotation, (s.Rule, s.ForBlock))
        return s.Group(str(name), tuple(map(str, kinds or [])), annotations, items, span=span)

    def _forblock(self, span: s.Span, variable: str, values: list[Any], *items: Any) -> s.ForBlock:
        return s.ForBlock(str(variable), tuple(map(str, values)), tuple(items), span=span)

    def _passdecl(
        self, span: s.Span, name: str, strategy: s.Strategy, *annotations: Any
    ) -> s.PassDeclaration:
        return s.PassDeclaration(str(name), strategy, annotations, span=span)

    def _seq(self, span: s.Span, *parts: s.Strategy) -> s.Strategy:
        return parts[0] if len(parts) == 1 else s.Strategy("seq", "", parts, span=span)

    def _union(self, span: s.Span, *parts: s.Strategy) -> s.Strategy:
        return parts[0] if len(parts) == 1 else s.Strategy("union", "", parts, span=span)

    def _sname(self, span: s.Span, name: str) -> s.Strategy:
        return s.Strategy("name", str(name), span=span)

    def _sapply(self, span: s.Span, name: str, part: s.Strategy) -> s.Strategy:
        return s.Strategy(str(name), "", (part,), span=span)

    def _rule(self, span: s.Span, name: str, pattern: s.Pattern, *rest: Any) -> s.Rule:
        return self._any_rule("rewrite", span, str(name), pattern, rest)

    def _vjp(self, span: s.Span, pattern: s.Pattern, g: str, y: str | None, *rest: Any) -> s.Rule:
        names = (str(g),) if y is None else (str(g), str(y))
        return self._any_rule("vjp", span, f"vjp_{span.line}", pattern, rest, names)

    def _render(self, span: s.Span, pattern: s.Pattern, *rest: Any) -> s.Rule:
        return self._any_rule("render", span, f"render_{span.line}", pattern, rest)

    def _any_rule(
        self,
        kind: str,
        span: s.Span,
        name: str,
        pattern: s.Pattern,
        rest: tuple[Any, ...],
        names: tuple[str, ...] = (),
    ) -> s.Rule:
        clauses, rest = _split(rest, (s.Guard, s.Let), object)
        annotations, rest = _split(rest, s.Annotation, object)
        tests, rest = _split(rest, s.Test, object)
        whys, rest = _split(rest, _Why, object)
        block: tuple[s.Let, ...] = ()
        if kind != "render" and isinstance(rest[0], _Block):
            block, rest = rest[0].bindings, (rest[0].result,)
        result = tuple(_text(token) for token in rest) if kind == "render" else rest
        if kind == "vjp":
            result = tuple(rest[0])
        return s.Rule(
            kind,
            name,
            pattern,
            clauses,
            block,
            result,
            annotations,
            tests,
            str(whys[0]) if whys else None,
            names,
            span=span,
        )

    def _guard(self, span: s.Span, condition: s.Expression) -> s.Guard:
        return s.Guard(condition, span=span)

    def _letc(self, span: s.Span, name: str, value: s.Expression) -> s.Let:
        return s.Let(str(name), value, span=span)

    _binding = _letc

    def _block(self, span: s.Span, *parts: Any) -> _Block:
        return _Block(tuple(parts[:-1]), parts[-1])

    def _slots(self, span: s.Span, *slots: Any) -> list[Any]:
        return [None if slot is _NONE else slot for slot in slots if slot is not None]

    def _none(self, span: s.Span) -> object:
        return _NONE

    def _annot(self, span: s.Span, name: str, *arguments: Any) -> s.Annotation:
        return s.Annotation(str(name), tuple(a for a in arguments if a is not None), span=span)

    def _why(self, span: s.Span, text: str) -> _Why:
        return _Why(unquote(text))

    def _test(self, span: s.Span, before: s.Expression, after: Any, *declarations: Any) -> s.Test:
        return s.Test(
            before, None if after is _SAME else after, tuple(d for d in declarations if d), span=span
        )

    def _same(self, span: s.Span) -> object:
        return _SAME

    def _decl(self, span: s.Span, name: str, dtype: str, *rest: Any) -> s.Declaration:
        bounds = tuple(part for part in rest if isinstance(part, int))
        shape = tuple(part for part in rest if isinstance(part, s.Node))
        return s.Declaration(str(name), str(dtype), shape, bounds if bounds else None, span=span)  # type: ignore[arg-type]

    def _has(self, span: s.Span, op: str) -> s.Declaration:
        return s.Declaration(str(op), span=span)

    def _signed(self, span: s.Span, minus: Any, token: str) -> int:
        return -int(number(token)) if minus else int(number(token))

    # patterns
    def _pinfix(self, span: s.Span, left: s.Pattern, operator: str, right: s.Pattern) -> s.Apply:
        operands = (right, left) if operator in (">", ">=") else (left, right)
        return s.Apply((INFIX[operator],), None, False, tuple(map(_literal, operands)), span=span)

    def _pneg(self, span: s.Span, minus: str, operand: s.Pattern) -> s.Pattern:
        if isinstance(operand, s.Literal) and type(operand.value) is not bool:
            return s.Literal(-operand.value, span=span)
        return s.Apply(("NEG",), None, False, (operand,), span=span)

    def _pcapture(self, span: s.Span, name: str, pattern: s.Pattern) -> s.Capture:
        return s.Capture(str(name), pattern, span=span)

    def _pvar(self, span: s.Span, name: str, type_: str | None) -> s.Variable:
        return s.Variable(str(name), type_, span=span)

    def _pwild(self, span: s.Span, *parts: Any) -> s.Variable:
        return s.Variable(None, parts[-1] if parts else None, span=span)

    def _pconst(self, span: s.Span, name: str, type_: str | None) -> s.Constant:
        return s.Constant(str(name), type_, span=span)

    def _pnumber(self, span: s.Span, token: str) -> s.Literal:
        return s.Literal(number(token), span=span)

    def _type(self, span: s.Span, name: str) -> str:
        return str(name)

    def _opref(self, span: s.Span, ops: Any) -> tuple[str, ...]:
        return tuple(map(str, ops)) if isinstance(ops, list) else (str(ops),)

    def _papp(
        self, span: s.Span, ops: tuple[str, ...], attributes: list[Any] | None, order: Any, *operands: Any
    ) -> s.Apply:
        given = None if attributes is None else tuple(attributes)
        return s.Apply(
            ops, given, order is not None, tuple(_literal(o) for o in operands if o is not None), span=span
        )

    def _pview(self, span: s.Span, name: str, *operands: Any) -> s.ViewUse:
        return s.ViewUse(str(name), tuple(_literal(o) for o in operands if o is not None), span=span)

    def _prest(self, span: s.Span, star: str, name: str) -> s.Rest:
        return s.Rest(None if name == "_" else str(name), span=span)

    def _abind(self, span: s.Span, name: str) -> s.AttributePattern:
        return s.AttributePattern(str(name), span=span)

    def _awild(self, span: s.Span, name: str) -> s.AttributePattern:
        return s.AttributePattern(span=span)

    def _aeq(self, span: s.Span, value: s.Expression) -> s.AttributePattern:
        return s.AttributePattern(None, value, span=span)

    _atype = _abind

    def _aop(self, span: s.Span, name: str) -> s.AttributePattern:
        return s.AttributePattern(None, s.Name(str(name), span=span), span=span)

    def _anumber(self, span: s.Span, minus: Any, token: str) -> s.AttributePattern:
        value = number(token)
        return s.AttributePattern(None, s.Number(-value if minus else value, span=span), span=span)

    def _astring(self, span: s.Span, token: str) -> s.AttributePattern:
        return s.AttributePattern(None, s.Text(unquote(token), span=span), span=span)

    # expressions
    def _infix(self, span: s.Span, left: Any, operator: str, right: Any) -> s.Binary:
        return s.Binary(str(operator), left, right, span=span)

    def _in_(self, span: s.Span, left: Any, right: Any) -> s.Binary:
        return s.Binary("in", left, right, span=span)

    def _not_in(self, span: s.Span, left: Any, right: Any) -> s.Unary:
        return s.Unary("not", s.Binary("in", left, right, span=span), span=span)

    def _or_(self, span: s.Span, left: Any, right: Any) -> s.Logical:
        return s.Logical("or", left, right, span=span)

    def _and_(self, span: s.Span, left: Any, right: Any) -> s.Logical:
        return s.Logical("and", left, right, span=span)

    def _not_(self, span: s.Span, operand: Any) -> s.Unary:
        return s.Unary("not", operand, span=span)

    def _neg(self, span: s.Span, minus: str, operand: Any) -> s.Expression:
        if isinstance(operand, s.Number) and type(operand.value) is not bool:
            return s.Number(-operand.value, span=span)
        return s.Unary("-", operand, span=span)

    def _ternary(self, span: s.Span, yes: Any, condition: Any, no: Any) -> s.Conditional:
        return s.Conditional(yes, condition, no, span=span)

    def _attribute(self, span: s.Span, value: Any, name: str) -> s.Attribute:
        return s.Attribute(value, str(name), span=span)

    def _method(self, span: s.Span, value: Any, name: str, *operands: Any) -> s.Method:
        return s.Method(value, str(name), tuple(o for o in operands if o is not None), span=span)

    def _item(self, span: s.Span, value: Any, index: Any) -> s.Item:
        return s.Item(value, index, span=span)

    def _slice(self, span: s.Span, value: Any, start: Any, colon: str, stop: Any) -> s.Slice:
        return s.Slice(value, start, stop, span=span)

    def _name(self, span: s.Span, name: str) -> s.Name:
        return s.Name(str(name), span=span)

    _type_name = _op_name = _name

    def _number(self, span: s.Span, token: str) -> s.Number:
        return s.Number(number(token), span=span)

    def _string(self, span: s.Span, token: str) -> s.Text:
        return _text(token, span)

    def _true(self, span: s.Span) -> s.Number:
        return s.Number(True, span=span)

    def _false(self, span: s.Span) -> s.Number:
        return s.Number(False, span=span)

    def _call(self, span: s.Span, name: str, *operands: Any) -> s.Call:
        return s.Call(str(name), tuple(o for o in operands if o is not None), span=span)

    def _build(self, span: s.Span, op: str, attributes: list[Any] | None, *operands: Any) -> s.Build:
        given = None if attributes is None else tuple(attributes)
        return s.Build(str(op), given, tuple(o for o in operands if o is not None), span=span)

    def _list(self, span: s.Span, *items: Any) -> s.Sequence:
        flat = [
            part
            for item in items
            if item is not None
            for part in (item if isinstance(item, list) else [item])
        ]
        return s.Sequence(tuple(part for part in flat if part is not None), span=span)

    _tuple = _list

    def _splat(self, span: s.Span, value: Any) -> s.Splat:
        return s.Splat(value, span=span)

    def _comp(self, span: s.Span, item: Any, *loops: Any) -> s.Comprehension:
        return s.Comprehension(item, loops, span=span)

    def _cfor(self, span: s.Span, target: Any, items: Any, condition: Any = None) -> s.Loop:
        return s.Loop(target, items, condition, span=span)

    def _tname(self, span: s.Span, name: str) -> str:
        return str(name)

    def _ttuple(self, span: s.Span, *parts: Any) -> tuple[Any, ...]:
        return parts


class _Why(str):
    """The text of a ``why`` line."""

    __slots__ = ()


class _Block:
    """Bindings and the result of a block."""

    def __init__(self, bindings: tuple[s.Let, ...], result: Any) -> None:
        self.bindings, self.result = bindings, result


_NONE, _SAME = object(), object()


def _text(token: str, span: s.Span | None = None) -> s.Text:
    if span is None:
        line, column = getattr(token, "line", 0), getattr(token, "column", 0)
        span = s.Span(line, column, line, column + len(token))
    return s.Text(unquote(token), span=span)


def _literal(pattern: Any) -> Any:
    """``true`` and ``false`` share a rule of the grammar with expressions."""
    return s.Literal(pattern.value, span=pattern.span) if isinstance(pattern, s.Number) else pattern


def _split(
    parts: tuple[Any, ...] | list[Any], first: Any, second: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The parts that are of the first kind, and the others that are of the second."""
    chosen = tuple(part for part in parts if isinstance(part, first))
    return chosen, tuple(
        p for p in parts if not isinstance(p, first) and isinstance(p, second) and p is not None
    )

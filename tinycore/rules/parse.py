"""Text to syntax tree. Imports lark, so only a miss of the compiled cache imports this module."""

from __future__ import annotations

import functools
from pathlib import Path

import lark

from tinycore.errors import RuleCheckError, RuleError, RuleSyntaxError
from tinycore.rules import syntax as s
from tinycore.rules.tree import BadNumber, build


@functools.lru_cache(maxsize=4)
def parse(text: str, path: str = "<rules>") -> s.File:
    """The syntax tree of a file. Raises RuleSyntaxError with the line and a caret.

    >>> parse("group g(fixpoint) { one: x * 1 => x }").groups[0].items[0].name
    'one'
    """
    try:
        tree = _parser().parse(text)
        items = build(tree)
    except lark.UnexpectedInput as error:
        raise _syntax_error(error, path, text) from None
    except BadNumber as error:
        what = "this number has too many digits, or is not finite where it has to be"
        raise RuleSyntaxError(what, where=snippet(path, text, error.span)) from None
    except RecursionError:
        where = snippet(path, text, longest_line(text))
        raise RuleSyntaxError("this is nested too deeply", where=where, hint="split the expression") from None
    imports = tuple(item for item in items if isinstance(item, s.Import))
    natives = tuple(item for item in items if isinstance(item, s.Native))
    views = tuple(item for item in items if isinstance(item, s.View))
    groups = tuple(item for item in items if isinstance(item, s.Group))
    passes = tuple(item for item in items if isinstance(item, s.PassDeclaration))
    return s.File(path, text, imports, natives, views, groups, passes)


@functools.cache
def _parser() -> lark.Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def snippet(path: str, text: str, span: s.Span) -> str:
    """``path:line:column``, the line, and a caret below the place. What cannot be printed is shown as U+FFFD."""
    lines = text.split("\n")
    line = lines[span.line - 1] if 0 < span.line <= len(lines) else ""
    line = "".join([c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.replace("\t", " ")])
    end = span.end_column if span.end_line == span.line else len(line) + 1
    marks = "^" * max(1, min(end, len(line) + 1) - span.column)
    return f"{path}:{span.line}:{span.column}\n{line}\n{' ' * (span.column - 1)}{marks}"


def longest_line(text: str) -> s.Span:
    """The place of the longest line: the likeliest one for nesting that is too deep."""
    lines = text.split("\n")
    line = max(range(len(lines)), key=lambda number: len(lines[number]))
    column = len(lines[line]) - len(lines[line].lstrip()) + 1
    return s.Span(line + 1, column, line + 1, column + 1)


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
        getattr(error, "accepts", None) or getattr(error, "expected", None) or error.__dict__.get("allowed")
    )
    names = sorted(_shown(name) for name in expected or ())
    hint = f"expected {' or '.join(names)}" if 0 < len(names) <= 12 else None
    end = column + len(str(getattr(error, "token", "")) or "x")
    return RuleSyntaxError(what, where=snippet(path, text, s.Span(line, column, line, end)), hint=hint)


def _shown(terminal: str) -> str:
    pattern = next((t.pattern for t in _parser().terminals if t.name == terminal), None)
    if pattern is not None and pattern.type == "str":
        return repr(str(pattern.value))
    return {"$END": "the end of the file", "OP": "an OP", "TYPE": "a Type", "NAME": "a name"}.get(
        terminal, terminal.lower()
    )

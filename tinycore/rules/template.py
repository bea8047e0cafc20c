"""Templates of render rules: ``"({a}+{b})"``, ``"({T|ctype}){x}"``, doubled braces for braces."""

from __future__ import annotations

import re

from tinycore.rules import syntax as s
from tinycore.rules.express import Expressions

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def render_text(ex: Expressions, rule: s.Rule) -> str:
    """The Python expression of the text of a render rule; several strings are lines."""
    return "n" if not rule.result else _lines(ex, [part for part in rule.result if isinstance(part, s.Text)])


def _lines(ex: Expressions, parts: list[s.Text]) -> str:
    return ' + "\\n" + '.join(_line(ex, part) for part in parts)


def _line(ex: Expressions, text: s.Text) -> str:
    pieces, end = [], 0
    for found in _FIELD.finditer(text.value):
        if found.start() > end:
            pieces.append(repr(text.value[end : found.start()]))
        end = found.end()
        if found[0] in ("{{", "}}"):
            pieces.append(repr(found[0][0]))
        elif found[1] is None:
            raise ex.error(text, f"a single {found[0]} in a template", "double it: {{ or }}")
        else:
            pieces.append(_field(ex, text, found[1]))
    if end < len(text.value):
        pieces.append(repr(text.value[end:]))
    return "(" + (" + ".join(pieces) or '""') + ")"


def _field(ex: Expressions, text: s.Text, field: str) -> str:
    name, _, filter_name = field.partition("|")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or (
        filter_name and not re.fullmatch(r"[a-z][a-z0-9_]*", filter_name)
    ):
        raise ex.error(text, f"{{{field}}} is no field", "write {name} or {name|filter}")
    code = ex.value(s.Name(name, span=text.span))
    value = code.node or code.text
    if filter_name:
        return f"ctx.filters[{filter_name!r}]({value})"
    if code.type in ("node", "const"):
        return f"names({value})"
    if code.type == ("list", "node"):
        return f'", ".join(map(names, {value}))'
    return f"str({value})"

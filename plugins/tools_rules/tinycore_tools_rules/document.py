"""Reference pages from rule files: what the rules are, why they hold, what they assume, and examples.

Comments directly above a rule or group are taken as its description, ``# --- title`` as a heading, and the comment
at the top of a file as its introduction.
"""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tinycore.rules import syntax as s
from tinycore.rules.check import FAST_FLAGS
from tinycore_tools_rules.layout import flat
from tinycore_tools_rules.sources import Source
from tinycore_tools_rules.tokens import Token, tokenize

_FLAGS = dict(
    zip(
        FAST_FLAGS,
        (
            "no operand is NaN", "no operand is infinite", "the sign of zero does not matter",
            "sums and products may be regrouped", "products may be fused with sums",
            "division may be done by the reciprocal",
        ),
        strict=True,
    )
)  # fmt: skip
_KINDS = {"vjp": "gradients", "render": "text of kernels"}


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a page: ``heading`` (with its level), ``text``, ``code``, ``list`` (lines), or ``anchor``."""

    kind: str
    text: str
    level: int = 0


def document(source: Source) -> list[Block]:
    """The page of a file."""
    return list(_Pages(source).blocks())


class _Pages:
    def __init__(self, source: Source) -> None:
        self.source, self.file = source, source.file
        self.tokens = tokenize(self.file.text)
        self.at = {token.place: k for k, token in enumerate(self.tokens)}
        self.lines = self.file.text.splitlines()

    def blocks(self) -> Iterator[Block]:
        yield Block("heading", self.source.name, 1)
        if intro := self._intro():
            yield Block("text", intro)
        if self.file.imports:
            names = [f"`{name}` from `{item.module}`" for item in self.file.imports for name in item.names]
            yield Block("text", f"Uses {', '.join(names)}.")
        if self.file.passes:
            yield Block("heading", "Passes", 2)
            for item in self.file.passes:
                yield from self._described(item)
        if self.file.views:
            yield Block("heading", "Views", 2)
            yield Block("code", "\n".join(self._flat(item) for item in self.file.views))
        for group in self.file.groups:
            yield from self._group(group)
        if self.file.natives:
            yield Block("heading", "Native functions", 2)
            yield Block("code", "\n".join(self._flat(item) for item in self.file.natives))

    def _intro(self) -> str:
        first = list(itertools.takewhile(lambda token: token.kind == "comment", self.tokens))
        return _prose(first[:1] + list(itertools.takewhile(lambda token: token.lines_before < 2, first[1:])))

    def _described(self, item: s.Node) -> Iterator[Block]:
        yield Block("code", self._flat(item))
        if text := self._above(item):
            yield Block("text", text)

    def _above(self, item: s.Node) -> str:
        """The comment directly above an item."""
        k = self.at[item.span.line, item.span.column]
        found: list[Token] = []
        nearest = self.tokens[k].lines_before
        while (
            k > 0
            and nearest == 1
            and self.tokens[k - 1].kind == "comment"
            and self.tokens[k - 1].lines_before
        ):
            found.insert(0, self.tokens[k - 1])
            k, nearest = k - 1, self.tokens[k - 1].lines_before
        return _prose(token for token in found if not _is_title(token))

    def _flat(self, item: s.Node) -> str:
        tokens = [token for token in self._tokens(item) if token.kind != "comment"]
        return flat(tokens, wide_colons=isinstance(item, s.Native)) or ""

    def _tokens(self, item: s.Node) -> list[Token]:
        start = self.at[item.span.line, item.span.column]
        end = (item.span.end_line, item.span.end_column)
        return list(itertools.takewhile(lambda token: token.place < end, self.tokens[start:]))

    def _group(self, group: s.Group) -> Iterator[Block]:
        yield Block("heading", f"Group {group.name}", 2)
        kinds = ", ".join(_KINDS.get(kind, kind) for kind in group.kinds)
        notes = "".join(f" {_spoken(note)}" for note in group.annotations)
        yield Block(
            "text", f"Strategy: {kinds}.{notes}" if group.kinds[0] not in _KINDS else f"Holds {kinds}.{notes}"
        )
        if text := self._above(group):
            yield Block("text", text)
        titles = {
            token.line: token.text.lstrip("# -").rstrip(" -")
            for token in self._tokens(group)
            if token.kind == "comment" and _is_title(token)
        }
        yield from self._items(group.items, titles, "")

    def _items(
        self, items: Iterable[s.Rule | s.ForBlock], titles: dict[int, str], loop: str
    ) -> Iterator[Block]:
        for item in items:
            for line in [line for line in titles if line < item.span.line]:
                yield Block("heading", titles.pop(line), 3)
            if isinstance(item, s.ForBlock):
                again = f"{loop}For {item.variable} in {', '.join(item.values)}. "
                yield from self._items(item.items, titles, again)
            else:
                yield from self._rule(item, loop)

    def _rule(self, rule: s.Rule, loop: str) -> Iterator[Block]:
        name = rule.name if rule.kind == "rewrite" else f"{rule.kind} {', '.join(_ops(rule.pattern))}"
        yield Block("heading", name, 4)
        yield Block("code", self._code(rule))
        above = self._above(rule)
        parts = [loop.strip(), _sentence(rule.why), *map(_spoken, rule.annotations), _sentence(above)]
        if text := " ".join(part for part in parts if part):
            yield Block("text", text)
        examples = [self._flat_test(test) for test in rule.tests]
        if examples:
            yield Block("list", "\n".join(examples))

    def _flat_test(self, test: s.Test) -> str:
        tokens = [token for token in self._tokens(test)[1:] if token.kind != "comment"]
        cut = next((k for k, token in enumerate(tokens) if token.text == "where"), len(tokens))
        left, right = flat(tokens[:cut]) or "", flat(tokens[cut:], wide_colons=True) or ""
        return f"{left} {right}".strip()

    def _code(self, rule: s.Rule) -> str:
        """The rule without what is told in words."""
        ends = [(node.span.line, node.span.column) for node in (*rule.annotations, *rule.tests)]
        tokens = self._tokens(rule)
        ends += [a.place for a, b in itertools.pairwise(tokens) if a.text == "why" and b.kind == "string"]
        tokens = [token for token in tokens if not ends or token.place < min(ends)]
        name = f"{rule.name}: " if rule.kind == "rewrite" else ""
        text = flat(tokens[2:] if name else tokens)
        if text is not None and len(name) + len(text) <= 100:
            return name + text
        last = max(token.line for token in tokens if token.kind != "comment")
        first, *rest = self.lines[rule.span.line - 1 : last]
        shown = [" " * (rule.span.column - 1) + first[rule.span.column - 1 :], *rest]
        end = min(ends, default=(last + 1, 1))
        if end[0] == last:
            shown[-1] = shown[-1][: end[1] - 1].rstrip()
        return textwrap.dedent("\n".join(shown))


def _is_title(token: Token) -> bool:
    return token.text.lstrip("# ").startswith("---")


def _prose(comments: Iterable[Token]) -> str:
    paragraphs = "\n".join(token.text.lstrip("#").strip() for token in comments)
    return "\n\n".join(part.replace("\n", " ").strip() for part in paragraphs.split("\n\n")).strip()


def _sentence(text: str | None) -> str:
    if not text:
        return ""
    first = text.split()[0]
    start = text[0].upper() if first.isalpha() and len(first) > 1 else text[0]
    return start + text[1:] + ("" if text[-1] in ".!?" else ".")


def _ops(pattern: s.Pattern) -> tuple[str, ...]:
    if isinstance(pattern, s.Capture):
        return _ops(pattern.pattern)
    return pattern.ops if isinstance(pattern, s.Apply) else ("any",)


def _spoken(note: s.Annotation) -> str:
    """What an annotation says, as a sentence."""
    words = [str(getattr(part, "name", getattr(part, "value", "?"))) for part in note.arguments]
    if note.name == "fast":
        return f"Holds if {', '.join(_FLAGS.get(word, word) for word in words or FAST_FLAGS)} (`@fast`)."
    if note.name == "approx":
        return f"At most {words[-1] if words else '?'} units in the last place off (`@approx`)."
    told = {
        "exact": "Equal bit for bit.",
        "unsafe": f"Not equal in general (`@unsafe`): {' '.join(words)}.",
        "grows": f"The result may be larger than what it replaces (`@grows`){': ' * bool(words)}{' '.join(words)}.",
        "prio": f"Priority {' '.join(words)}.",
        "noverify": f"Not verified: {' '.join(words)}.",
        "memo": "Results are kept from call to call (`@memo`).",
        "requires": f"Asks for the {' and '.join(words)}.",
        "stage": f"Joins the {' '.join(words)} stage.",
        "language": f"Writes {' '.join(words).upper()}.",
        "accept": f"Accepts {', '.join(words)}.",
    }
    return told.get(note.name, f"`@{note.name}`")


# --- pages --------------------------------------------------------------------------------------------------


def markdown(pages: Iterable[list[Block]]) -> str:
    """The pages as Markdown."""
    lines: list[str] = []
    for block in itertools.chain.from_iterable(pages):
        if block.kind == "heading":
            lines += [f"{'#' * block.level} {_quoted(block.text)}", ""]
        elif block.kind == "code":
            lines += ["```rules", block.text, "```", ""]
        elif block.kind == "list":
            lines += [*(f"- `{line}`" for line in block.text.splitlines()), ""]
        else:
            lines += [_quoted(block.text), ""]
    return "\n".join(lines).rstrip() + "\n"


def _quoted(text: str) -> str:
    """Stars, underscores and angle brackets stand for themselves outside of code."""
    parts = text.split("`")
    for k in range(0, len(parts), 2):
        for sign in ("\\", "*", "_", "<", "["):
            parts[k] = parts[k].replace(sign, f"\\{sign}")
    return "`".join(parts)


_STYLE = """
body { font: 15px/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1f2328; }
h4 { margin-bottom: .2rem; } h2 { border-bottom: 1px solid #d1d9e0; }
pre { background: #f6f8fa; padding: .5rem .8rem; border-radius: 6px; overflow-x: auto; margin: .2rem 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
"""


def page(pages: Iterable[list[Block]], title: str) -> str:
    """The pages as one HTML page with coloured code."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter

    from tinycore_tools_rules.lexer import RulesLexer

    formatter: Any = HtmlFormatter(nowrap=True)
    parts: list[str] = []
    for block in itertools.chain.from_iterable(pages):
        if block.kind == "heading":
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif block.kind == "code":
            parts.append(f"<pre>{highlight(block.text, RulesLexer(), formatter).rstrip()}</pre>")
        elif block.kind == "list":
            rows = "".join(f"<li><code>{html.escape(line)}</code></li>" for line in block.text.splitlines())
            parts.append(f"<ul>{rows}</ul>")
        else:
            parts += [f"<p>{_inline(text)}</p>" for text in block.text.split("\n\n")]
    style = _STYLE + formatter.get_style_defs("pre")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _inline(text: str) -> str:
    parts = [html.escape(part) for part in text.split("`")]
    return "".join(f"<code>{part}</code>" if k % 2 else part for k, part in enumerate(parts))

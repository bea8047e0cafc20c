"""The formatter of rule files.

It moves tokens and never changes one, so that the meaning cannot change: the result is parsed and compared with the
original before anybody gets it. Comments stay where they are; at most one empty line is kept between items.

>>> print(format_text("group g(fixpoint){one:x*1=>x test a*1=>a zero : x:Int*0=>0}"), end="")
group g(fixpoint) {
  one:  x * 1 => x  test a * 1 => a
  zero: x:Int * 0 => 0
}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinycore.errors import RuleError
from tinycore.rules import syntax as s
from tinycore.rules.expand import nodes_in
from tinycore.rules.parse import parse
from tinycore_tools_rules.layout import fill, flat
from tinycore_tools_rules.tokens import Token, tokenize

WIDTH = 118
_HEAD = 24
"""Heads (``name:``, ``vjp ...``) longer than this are not lined up with those of their neighbours."""
_BODY = 72
"""Bodies longer than this have their test on a line of its own."""

Tokens = list[Token]


@dataclass
class Item:
    """A rule, native, view, import or pass as lines; neighbours are lined up in columns.

    Attributes
    ----------
    head, body: of the first line; `body` follows `head` in the column of the run.
    side: what stands at the right of the first line: the only test, or a comment.
    below: more lines.
    blank: whether an empty line comes before.
    leads: whole lines above: comments.
    """

    head: str = ""
    body: str = ""
    side: str = ""
    below: list[str] = field(default_factory=list)
    blank: bool = False
    leads: list[str] = field(default_factory=list)
    whole: list[str] | None = None


def format_text(text: str, path: str = "<rules>", width: int = WIDTH) -> str:
    """The text in the one layout. Raises RuleSyntaxError for what cannot be parsed."""
    file = parse(text, path)
    result = _Formatter(file, width).text()
    again = parse(result, path)
    if meaning(again) != meaning(file) or _words(result) != _words(text):
        raise RuleError(
            "formatting would change the meaning of the file", where=path, hint="please report this file"
        )
    return result


def meaning(file: s.File) -> str:
    """A tree as text without the path, the text, and the lines that name ``vjp`` and ``render`` rules.

    As text, because NaN is not equal to itself.
    """
    groups = tuple(
        dataclasses.replace(group, items=tuple(map(_nameless, group.items))) for group in file.groups
    )
    return repr(dataclasses.replace(file, path="", text="", groups=groups))


def _nameless(item: s.Rule | s.ForBlock) -> s.Rule | s.ForBlock:
    if isinstance(item, s.ForBlock):
        return dataclasses.replace(item, items=tuple(map(_nameless, item.items)))
    return item if item.kind == "rewrite" else dataclasses.replace(item, name="")


def _words(text: str) -> list[str]:
    return [token.text for token in tokenize(text)]


class _Formatter:
    def __init__(self, file: s.File, width: int) -> None:
        self.file, self.width = file, width
        self.tokens = tokenize(file.text)
        self.at = {token.place: k for k, token in enumerate(self.tokens)}
        self.starts: set[int] = set()  # where a clause or a trailer of a rule begins
        for node in nodes_in(file):
            if isinstance(node, (s.Guard, s.Let, s.Annotation, s.Test)):
                self.starts.add(self.at.get((node.span.line, node.span.column), -1))
        self.place = 0

    def text(self) -> str:
        """The whole file."""
        file = self.file
        every: list[s.Node] = [*file.imports, *file.natives, *file.views, *file.groups, *file.passes]
        lines = self._items(
            sorted(every, key=lambda item: (item.span.line, item.span.column)), len(self.tokens), 0
        )
        return "\n".join(lines) + "\n" if lines else ""

    # --- lists of items -------------------------------------------------------------------------------------

    def _items(self, nodes: Sequence[s.Node], end: int, indent: int) -> list[str]:
        """The lines of items up to token `end`, with the comments between them."""
        made: list[Item] = []
        starts = [self.at[node.span.line, node.span.column] for node in nodes]
        for node, start, stop in zip(nodes, starts, [*starts[1:], end], strict=True):
            leads, blank = self._comments(start, indent)
            blank = self._blank(start) if not leads else blank
            last = self._last(start, stop)
            item = self._item(node, self.tokens[start:last], start, indent)
            item.leads, item.blank = leads, blank or (indent == 0 and isinstance(node, s.Group))
            if leads and self._blank(start):
                item.leads.append("")
            self.place = last
            made.append(item)
        tail, blank = self._comments(end, indent)
        return _join(made, indent, self.width) + ([""] if tail and blank and made else []) + tail

    def _last(self, start: int, stop: int) -> int:
        """One past the last token of an item: comments on lines of their own after it belong to what follows."""
        last = stop
        while last > start + 1 and self.tokens[last - 1].kind == "comment":
            last -= 1
        if last < stop and self.tokens[last].lines_before == 0:
            last += 1
        return last

    def _blank(self, k: int) -> bool:
        return 0 < k < len(self.tokens) and self.tokens[k].lines_before > 1 and self.tokens[k - 1].text != "{"

    def _comments(self, stop: int, indent: int) -> tuple[list[str], bool]:
        """The comments from here up to a token as lines, and whether an empty line comes before them."""
        lines: list[str] = []
        blank = self._blank(self.place) if self.place < stop else False
        for k in range(self.place, stop):
            if lines and self._blank(k):
                lines.append("")
            lines.append(" " * indent + self.tokens[k].text)
        self.place = stop
        return lines, blank

    def _item(self, node: s.Node, tokens: Tokens, start: int, indent: int) -> Item:
        if isinstance(node, (s.Group, s.ForBlock)):
            return self._block(node, tokens, start, indent)
        if isinstance(node, s.Rule):
            return self._rule(node, tokens, start, indent)
        side = ""
        if tokens[-1].kind == "comment":
            side, tokens = tokens[-1].text, tokens[:-1]
        colons = isinstance(node, s.Native)
        cut = next((k for k, token in enumerate(tokens) if token.text == "="), 0)
        line = flat(tokens, wide_colons=colons)
        if line is None or len(line) > self.width:
            whole = fill(tokens, "", 4, self.width, wide_colons=colons)
            whole[-1] += f"  {side}" if side else ""
            return Item(whole=whole)
        if isinstance(node, s.View):
            return Item(flat(tokens[:cut]) or "", flat(tokens[cut:]) or "", side)
        return Item("", line, side)

    def _block(self, node: s.Group | s.ForBlock, tokens: Tokens, start: int, indent: int) -> Item:
        """A group or a ``for``: header, items, brace."""
        brace = next(k for k, token in enumerate(tokens) if token.text == "{")
        end = max(k for k, token in enumerate(tokens) if token.text == "}")
        header = self._header(tokens[:brace], start, indent)
        self.place = start + brace + 1
        if self.place < start + end and self._aside(self.place):
            header[-1] += f"  {self.tokens[self.place].text}"
            self.place += 1
        body = self._items(node.items, start + end, indent + 2)
        closing = " " * indent + "}"
        if end + 1 < len(tokens):
            closing += f"  {tokens[-1].text}"
        return Item(whole=[*header, *body, closing])

    def _aside(self, k: int) -> bool:
        return self.tokens[k].kind == "comment" and self.tokens[k].lines_before == 0

    def _header(self, tokens: Tokens, start: int, indent: int) -> list[str]:
        line = flat(tokens)
        if line is not None and indent + len(line) + 2 <= self.width and tokens[-1].kind != "comment":
            return [" " * indent + line + " {"]
        lines: list[str] = []
        for part in self._split(tokens, start):
            lines += fill(part, " " * (indent + (4 if lines else 0)), indent + 8, self.width)
        if tokens[-1].kind == "comment":
            return [*lines, " " * indent + "{"]
        return [*lines[:-1], lines[-1] + " {"]

    # --- rules ----------------------------------------------------------------------------------------------

    def _split(self, tokens: Tokens, start: int) -> list[Tokens]:
        """The parts of a rule: pattern, clauses, ``=>`` with the result, trailers."""
        parts: list[Tokens] = [[]]
        depth, arrow, braces = 0, False, 0
        for k, token in enumerate(tokens):
            text = token.text
            begins = start + k in self.starts or (
                depth == 0
                and ((text == "=>" and not arrow) or (text == "why" and arrow and _is_why(tokens, k)))
            )
            if begins and depth == 0 and parts[-1]:
                parts.append([])
            arrow = arrow or (text == "=>" and depth == 0)
            depth += (text in "([{") - (text in ")]}") if token.kind == "sign" else 0
            braces += text == "{"
            parts[-1].append(token)
        return parts

    def _rule(self, node: s.Rule, tokens: Tokens, start: int, indent: int) -> Item:
        comment = ""
        if tokens[-1].kind == "comment":
            comment, tokens = tokens[-1].text, tokens[:-1]
        parts = self._split(tokens, start)
        arrow = next(k for k, part in enumerate(parts) if part[0].text == "=>")
        trailers = parts[arrow + 1 :]
        notes = [part for part in trailers if part[0].text == "@"]
        others = [part for part in trailers if part[0].text != "@"]
        if trailers != notes + others:  # annotations after tests: the order is kept
            notes, others = [], trailers
        item = self._main(node, parts[:arrow], parts[arrow], notes, indent)
        tests = [part for part in others if part[0].text == "test"]
        line = flat(tests[0], wide_colons=True) if len(tests) == len(others) == 1 else None
        if line is not None and item.whole is None and not item.below and not comment:
            item.side = line
        else:
            for part in others:
                start_line = " " * (indent + 2)
                colons = part[0].text == "test"
                item.below += fill(part, start_line, indent + 6, self.width, wide_colons=colons)
        if comment and item.below:
            item.below[-1] += f"  {comment}"
        elif comment and item.whole is not None:
            item.whole[-1] += f"  {comment}"
        elif comment:
            item.side = comment
        return item

    def _main(
        self, node: s.Rule, left: list[Tokens], result: Tokens, notes: list[Tokens], indent: int
    ) -> Item:
        """Pattern, clauses and result: on one line if they fit."""
        head, rest = _heading(node, left, result)
        heading = flat(head) if head else ""
        parts = [flat([token for part in rest for token in part]), *map(flat, notes)]
        ends = [part[-1] for part in (head, *rest, *notes) if part]
        if heading is not None and None not in parts and all(token.kind != "comment" for token in ends):
            body = "  ".join(
                [parts[0] or "", *([" ".join(part or "" for part in parts[1:])] if notes else [])]
            )
            several = node.kind == "render" and len(node.result) > 1  # each string has a line
            if not several and indent + len(heading) + 1 + len(body) <= self.width:
                return Item(heading, body)
        first, *below = self._long(left, result, notes, indent)
        first = first[indent:]
        if heading and first.startswith(heading):
            return Item(heading, first.removeprefix(heading).strip(), below=below)
        return Item("", first, below=below)

    def _long(self, left: list[Tokens], result: Tokens, notes: list[Tokens], indent: int) -> list[str]:
        """Lines for a rule that one line does not hold; the first one begins with its name."""
        name = ""
        if len(left[0]) > 2 and left[0][1].text == ":":
            name, left = f"{left[0][0].text}: ", [left[0][2:], *left[1:]]
        first = [token for part in left for token in part]
        line, deep = flat(first), indent + 4
        if line is not None and indent + len(name) + len(line) <= self.width - 5:
            lines = [" " * indent + name + line]
        else:
            lines = []
            for part in left:
                lines += fill(
                    part, " " * (deep if lines else indent) + ("" if lines else name), deep + 4, self.width
                )
        block = len(result) > 1 and result[1].text == "{"
        if block and lines[-1].strip() and first[-1].kind != "comment":
            lines[-1] += " => {"
            lines += self._bindings(result[2:], indent)
        elif block:
            lines += [" " * (indent + 2) + "=> {", *self._bindings(result[2:], indent)]
        else:
            for text in _lines_of(result):
                lines += fill(
                    text, " " * (indent + 2 if text[0].text == "=>" else indent + 5), indent + 5, self.width
                )
        for part in notes:
            line = flat(part)
            if (
                line is not None
                and part is notes[0]
                and result[-1].kind != "comment"
                and (len(lines[-1]) + 2 + len(line) <= self.width)
            ):
                lines[-1] += (" " if lines[-1].strip() == "}" else "  ") + line
            elif line is not None and part is not notes[0] and len(lines[-1]) + 1 + len(line) <= self.width:
                lines[-1] += " " + line
            else:
                lines += fill(part, " " * (indent + 2), indent + 6, self.width)
        return lines

    def _bindings(self, tokens: Tokens, indent: int) -> list[str]:
        """The inside of a block, one binding a line, and its brace."""
        lines: list[str] = []
        part: Tokens = []
        depth = 0
        end = len(tokens)
        for k, token in enumerate(tokens):
            if depth == 0 and token.text == "}":
                end = k
                break
            if token.kind == "comment" and not part and token.lines_before == 0 and lines:
                lines[-1] += f"  {token.text}"
                continue
            depth += (token.text in "([{") - (token.text in ")]}") if token.kind == "sign" else 0
            part.append(token)
            if (token.text == ";" and depth == 0) or (token.kind == "comment" and len(part) == 1):
                lines += fill(part, " " * (indent + 2), indent + 6, self.width)
                part = []
        if part:
            lines += fill(part, " " * (indent + 2), indent + 6, self.width)
        lines.append(" " * indent + "}")
        after = tokens[end + 1 :]
        if after:  # a comment behind the brace
            lines[-1] += "  " + " ".join(token.text for token in after)
        return lines


def _lines_of(result: Tokens) -> list[Tokens]:
    """The result of a rule; the strings of a ``render`` rule apart."""
    parts: list[Tokens] = [[]]
    for token in result:
        if token.kind == "string" and parts[-1] and parts[-1][-1].kind == "string":
            parts.append([])
        parts[-1].append(token)
    return parts


def _is_why(tokens: Tokens, k: int) -> bool:
    rest = [token for token in tokens[k + 1 :] if token.kind != "comment"]
    return bool(rest) and rest[0].kind == "string"


def _heading(node: s.Rule, left: list[Tokens], result: Tokens) -> tuple[Tokens, list[Tokens]]:
    """What is lined up on the left, and the rest."""
    if node.kind == "rewrite" and len(left[0]) > 2 and left[0][1].text == ":":
        return left[0][:2], [left[0][2:], *left[1:], result]
    if node.kind == "vjp":
        return [token for part in left for token in part], [result]
    return [], [*left, result]


# --- columns ------------------------------------------------------------------------------------------------


def _join(items: list[Item], indent: int, width: int) -> list[str]:
    """Items to lines; runs without empty lines or comments between them are lined up."""
    lines: list[str] = []
    run: list[Item] = []

    def flush() -> None:
        if run:
            lines.extend(_columns(run, indent, width))
            run.clear()

    for item in items:
        if item.blank or item.leads or item.whole is not None:
            flush()
            if item.blank and lines:
                lines.append("")
            lines.extend(item.leads)
        if item.whole is not None:
            lines.extend([*item.whole, *item.below])
        else:
            run.append(item)
    flush()
    return lines


def _columns(run: list[Item], indent: int, width: int) -> list[str]:
    start = " " * indent
    head = max((len(item.head) for item in run if len(item.head) <= _HEAD), default=0)
    firsts = []
    for item in run:
        gap = head if len(item.head) <= _HEAD and indent + head + 1 + len(item.body) <= width else 0
        firsts.append((start + (f"{item.head:{gap}} {item.body}" if item.head else item.body)).rstrip())
    sided = [len(line) for line, item in zip(firsts, run, strict=True) if item.side and len(line) <= _BODY]
    column = max(sided, default=0)
    lines: list[str] = []
    for line, item in zip(firsts, run, strict=True):
        comment = item.side.startswith("#")
        if not item.side:
            lines.append(line)
        elif len(line) <= column and column + 2 + len(item.side) <= width:
            lines.append(f"{line:{column}}  {item.side}")
        elif comment or (len(line) + 2 + len(item.side) <= width and len(line) <= _BODY):
            lines.append(f"{line}  {item.side}")
        else:
            lines += [line, f"{start}  {item.side}"]
        lines += item.below
    return lines

"""Tokens to lines: what stands between two tokens, and where a line that is too long is broken."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tinycore_tools_rules.tokens import Token, tokenize

_SPACED = {"if", "and", "or", "not", "in", "else", "let", "for", "test", "where", "import", "from", "why"}
"""Words before which and after which there is always a space: keywords that stand before a bracket."""
_BINARY = {"+", "-", "*", "/", "//", "%", "&", "|", "^", "<<", ">>", "<", "<=", ">", ">=", "==", "!="}
_LEVELS = ("if else for", "or", "and", "|", "^", "&", "+ -", "* / // %")
_BINDING = {word: level for level, words in enumerate(_LEVELS, 1) for word in words.split()}
"""Where a line may be broken, and how tightly what stands around it is bound: the less, the better."""
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
_FAR = 64
"""Lines below a bracket that is farther right than this are only indented, not aligned with it."""


def is_prefix(tokens: Sequence[Token], k: int) -> bool:
    """Whether the ``-`` or ``*`` at k belongs to what follows, and is no operator between two operands."""
    if tokens[k].text not in ("-", "*"):
        return False
    if k == 0:
        return True
    before = tokens[k - 1]
    if before.kind == "sign":
        return before.text not in (")", "]", "?")
    if before.kind == "word" and before.text in _SPACED:
        return not (k > 1 and tokens[k - 2].text == ".")
    return False


@functools.lru_cache(maxsize=4096)
def _stay_apart(first: str, second: str) -> bool:
    return [token.text for token in tokenize(first + second)] == [first, second]


def space(tokens: Sequence[Token], k: int, *, wide_colons: bool = False) -> str:
    """What stands between the tokens k - 1 and k of a line: a space or nothing."""
    if k == 0:
        return ""
    tight = _tight(tokens, k, wide_colons)
    return "" if tight and _stay_apart(tokens[k - 1].text, tokens[k].text) else " "


def _tight(tokens: Sequence[Token], k: int, wide_colons: bool) -> bool:
    before, after = tokens[k - 1], tokens[k]
    first, second = before.text, after.text
    if after.kind == "comment" or before.kind == "comment":
        return False
    if second in (",", ")", "]", "?", "!") or (second == ";" and not _of_pass(tokens)):
        return True
    if first in ("(", "[", "$", ".", "..") or second in (".", ".."):
        return True
    if second == "@":
        return before.kind == "word" and _is_capture(tokens, k)
    if first == "@":
        return True
    if second == ":" or first == ":":
        return second == ":" or not wide_colons
    if first == "=" and k > 1 and tokens[k - 2].text in ("[", ","):
        return True
    if is_prefix(tokens, k - 1):
        return True
    if second in ("(", "["):
        keyword = first in _SPACED and not (k > 1 and tokens[k - 2].text == ".")
        return (before.kind == "word" and not keyword) or first in (")", "]", "!")
    if first == "|" or second == "|":
        return _in_op_set(tokens, k if second == "|" else k - 1)
    return False


def _of_pass(tokens: Sequence[Token]) -> bool:
    return tokens[0].text == "pass"


def _is_capture(tokens: Sequence[Token], k: int) -> bool:
    """``n@pattern``, and not the annotation of a group or pass."""
    return tokens[0].text not in ("group", "pass")


def _in_op_set(tokens: Sequence[Token], k: int) -> bool:
    """Whether the ``|`` at k joins the names of ops or dtypes: ``(ADD|SUB)``."""
    low = high = k
    while low > 0 and (tokens[low - 1].kind == "word" or tokens[low - 1].text == "|"):
        low -= 1
    while high + 1 < len(tokens) and (tokens[high + 1].kind == "word" or tokens[high + 1].text == "|"):
        high += 1
    words = [token.text for token in tokens[low : high + 1] if token.kind == "word"]
    bracketed = (
        low > 0 and tokens[low - 1].text == "(" and high + 1 < len(tokens) and tokens[high + 1].text == ")"
    )
    return bracketed and (all(re.match("[A-Z]", word) for word in words) or tokens[0].text == "for")


def flat(tokens: Sequence[Token], *, wide_colons: bool = False) -> str | None:
    """The tokens on one line; None when a comment stands among them."""
    if any(token.kind == "comment" for token in tokens[:-1]):
        return None
    parts = [space(tokens, k, wide_colons=wide_colons) + token.text for k, token in enumerate(tokens)]
    if tokens and tokens[-1].kind == "comment":
        parts[-1] = ("  " if len(tokens) > 1 else "") + tokens[-1].text
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What is not parted: texts with the gaps before them, and how good it is to break the line before it.

    `rank` is (open brackets, how tightly the operator binds): the less, the better.
    """

    pieces: tuple[tuple[str, str], ...]
    rank: tuple[int, int]

    def text(self, fresh: bool) -> str:
        """All of it; at the beginning of a line without its first gap."""
        text = "".join(gap + piece for gap, piece in self.pieces)
        return text[len(self.pieces[0][0]) :] if fresh else text


class _Filler:
    """Lines that are being filled; the next one begins below the innermost open bracket, or at `indent`."""

    def __init__(self, start: str, indent: int, width: int) -> None:
        self.lines, self.indent, self.width = [start], indent, width
        self.brackets: list[int] = []

    @property
    def fresh(self) -> bool:
        return not self.lines[-1].strip() or self.lines[-1].endswith(" ")

    def next_line(self) -> None:
        """Begin a line."""
        far = not self.brackets or self.brackets[-1] > _FAR
        self.lines.append(" " * (self.indent if far else self.brackets[-1]))

    def comment(self, text: str, own_line: bool) -> None:
        """Place a comment, and begin a line after it."""
        if own_line and self.lines[-1].strip():
            self.next_line()
        self.lines[-1] += ("" if self.fresh else "  ") + text
        self.next_line()

    def place(self, chunks: list[_Chunk]) -> None:
        """Place chunks, breaking lines where it is best among the places beyond the first part of the line."""
        while chunks:
            ends = [len(self.lines[-1])]
            for k, chunk in enumerate(chunks):
                end = ends[-1] + len(chunk.text(self.fresh and k == 0))
                if end > self.width and not (self.fresh and k == 0):
                    break
                ends.append(end)
            fitting = len(ends) - 1
            if fitting < len(chunks) and fitting:
                enough = ends[0] + (self.width - ends[0]) // 4
                good = [k for k in range(1, fitting + 1) if ends[k] >= enough] or [fitting]
                fitting = min(good, key=lambda k: (chunks[k].rank, -k))
            for chunk in chunks[:fitting]:
                self._append(chunk)
            chunks = chunks[fitting:]
            if chunks:
                self.next_line()

    def _append(self, chunk: _Chunk) -> None:
        fresh = self.fresh
        for k, (gap, piece) in enumerate(chunk.pieces):
            self.lines[-1] += ("" if fresh and k == 0 else gap) + piece
            if piece in _OPEN:
                self.brackets.append(len(self.lines[-1]))
            elif piece in _CLOSE and self.brackets:
                self.brackets.pop()


def fill(
    tokens: Sequence[Token], start: str, indent: int, width: int, *, wide_colons: bool = False
) -> list[str]:
    """The tokens on as few lines as hold them; the first line begins with `start`.

    A line is broken after a comma or before an operator, where that parts the least.
    """
    filler = _Filler(start, indent, width)
    chunks: list[_Chunk] = []
    depth = 0
    for k, token in enumerate(tokens):
        if token.kind == "comment":
            filler.place(chunks)
            chunks = []
            filler.comment(token.text, token.lines_before > 0)
            continue
        piece = (space(tokens, k, wide_colons=wide_colons), token.text)
        if chunks and not _may_break(tokens, k):
            last = chunks[-1]
            chunks[-1] = _Chunk((*last.pieces, piece), last.rank)
        else:
            binding = _BINDING.get(token.text, 0) if k and tokens[k - 1].text not in (",", ";") else 0
            chunks.append(_Chunk((piece,), (depth, binding)))
        if token.kind == "sign":
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
    filler.place(chunks)
    lines = filler.lines
    return lines if lines[-1].strip() else lines[:-1]


def _may_break(tokens: Sequence[Token], k: int) -> bool:
    if tokens[k - 1].text in (",", ";"):
        return True
    text = tokens[k].text
    return text in _BINDING and not is_prefix(tokens, k) and space(tokens, k) == " "

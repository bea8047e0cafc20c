"""Tokens to lines: what stands between two tokens, and where a line that is too long is broken."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from tinycore_tools_rules.tokens import Token, tokenize

_SPACED = {"if", "and", "or", "not", "in", "else", "let", "for", "test", "where", "import", "from", "why"}
"""Words before which and after which there is always a space: keywords that stand before a bracket."""
_BINARY = {"+", "-", "*", "/", "//", "%", "&", "|", "^", "<<", ">>", "<", "<=", ">", ">=", "==", "!="}
_BREAK_BEFORE = {"+", "-", "*", "/", "//", "%", "&", "|", "^", "and", "or", "if", "else", "for"}
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


def fill(
    tokens: Sequence[Token], start: str, indent: int, width: int, *, wide_colons: bool = False
) -> list[str]:
    """The tokens on as few lines as hold them; the first line begins with `start`.

    A line is broken after a comma or before an operator; the next begins below the innermost open bracket,
    or at `indent`.
    """
    lines, brackets = [start], list[int]()
    chunk: list[tuple[str, str]] = []  # (space before, text) of what must not be parted
    for k, token in enumerate(tokens):
        gap = space(tokens, k, wide_colons=wide_colons)
        if chunk and _may_break(tokens, k):
            _place(lines, chunk, brackets, indent, width)
            chunk = []
        if token.kind == "comment":
            _place(lines, chunk, brackets, indent, width)
            chunk = []
            own_line = token.lines_before > 0 and lines[-1].strip() != ""
            if own_line:
                lines.append(" " * _column(brackets, indent) + token.text)
            else:
                lines[-1] += ("  " if lines[-1].strip() else "") + token.text
            lines.append(" " * _column(brackets, indent))
            continue
        chunk.append((gap, token.text))
    _place(lines, chunk, brackets, indent, width)
    if not lines[-1].strip():
        lines.pop()
    return lines


def _may_break(tokens: Sequence[Token], k: int) -> bool:
    if tokens[k - 1].text in (",", ";"):
        return True
    text = tokens[k].text
    return text in _BREAK_BEFORE and not is_prefix(tokens, k) and space(tokens, k) == " "


def _column(brackets: list[int], indent: int) -> int:
    return brackets[-1] if brackets and brackets[-1] <= _FAR else indent


def _place(
    lines: list[str], chunk: list[tuple[str, str]], brackets: list[int], indent: int, width: int
) -> None:
    """Append a chunk to the last line, or to a new one when it does not fit."""
    if not chunk:
        return
    text = chunk[0][1] + "".join(gap + piece for gap, piece in chunk[1:])
    fresh = not lines[-1].strip() or lines[-1].endswith(" ")
    gap = "" if fresh else chunk[0][0]
    if not fresh and len(lines[-1]) + len(gap) + len(text) > width:
        lines.append(" " * _column(brackets, indent))
        gap = ""
    column = len(lines[-1]) + len(gap)
    lines[-1] += gap + text
    for position, (before, piece) in enumerate(chunk):
        column += len(before) if position else 0
        column += len(piece)
        if piece in _OPEN:
            brackets.append(column)
        elif piece in _CLOSE and brackets:
            brackets.pop()

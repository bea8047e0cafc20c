"""The words of a rule file with their places, comments included: what the formatter and the server work on.

>>> [token.text for token in tokenize("one: x*1=>x # done")]
['one', ':', 'x', '*', '1', '=>', 'x', '# done']
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<number>0x[0-9a-fA-F]+|\d+(?:\.(?!\.)\d*)?(?:[eE][+-]?\d+)?|(?:inf|nan)\b)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>=>|->|\.\.|<<|>>|<=|>=|==|!=|//|[^\s])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text.

    Attributes
    ----------
    kind: comment, string, number, word or sign.
    text: as written.
    line, column: where it begins, from 1.
    lines_before: line ends between the token before and this one.
    """

    kind: str
    text: str
    line: int
    column: int
    lines_before: int

    @property
    def place(self) -> tuple[int, int]:
        """(line, column)."""
        return self.line, self.column


def tokenize(text: str) -> list[Token]:
    """All tokens of a text, in order. Any text can be taken apart; whether it makes sense is the parser's matter."""
    found: list[Token] = []
    line, start, ends = 1, 0, 0
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup or "sign", match.group()
        if kind == "space":
            ends = piece.count("\n")
            if ends:
                line += ends
                start = match.start() + piece.rindex("\n") + 1
            continue
        found.append(
            Token(kind, piece.rstrip() if kind == "comment" else piece, line, match.start() - start + 1, ends)
        )
        ends = 0
    return found

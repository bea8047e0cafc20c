"""The rule language for Pygments: Sphinx, MkDocs, rich and everything else that colours code with it.

>>> from pygments.lexers import get_lexer_by_name
>>> get_lexer_by_name("tinycore-rules").name
'tinycore rules'
"""

from __future__ import annotations

from typing import Any, ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from tinycore.ir import dtypes
from tinycore.rules.builtins import FUNCTIONS
from tinycore.rules.check import ANNOTATIONS

_groups: Any = bygroups
_DTYPES = tuple(sorted({dtype.name for dtype in dtypes.CLASSES["Any"]} | {"void"}))
_CLASSES = tuple(sorted(dtypes.CLASSES))
BUILTINS = tuple(FUNCTIONS)
"""The functions of the language."""


class RulesLexer(RegexLexer):
    """Tokens of a ``.rules`` file."""

    name = "tinycore rules"
    aliases: ClassVar[list[str]] = ["tinycore-rules", "rules"]
    filenames: ClassVar[list[str]] = ["*.rules"]
    url = "https://pypi.org/project/tinycore-tools-rules"

    tokens: ClassVar[dict[str, Any]] = {
        "root": [
            (r"\s+", Text.Whitespace),
            (r"#[^\n]*", Comment.Single),
            (r'"', String.Double, "string"),
            (r"(group|view|native|pass)(\s+)([a-z_]\w*)",
             _groups(Keyword.Declaration, Text.Whitespace, Name.Function)),
            (r"(from)(\s+)([\w.]+)(\s+)(import)\b",
             _groups(Keyword.Namespace, Text.Whitespace, Name.Namespace, Text.Whitespace, Keyword.Namespace)),
            (r"(@)([a-z]\w*)(?=\s*\()", _groups(Name.Decorator, Name.Decorator)),
            (words((*ANNOTATIONS, "accept"), prefix="@", suffix=r"\b"), Name.Decorator),
            (r"([a-z]\w*)(@)", _groups(Name.Variable, Operator)),
            (r"(\.)([a-z]\w*)", _groups(Punctuation, Name.Attribute)),
            (words(("vjp", "render", "test", "why", "where", "has", "let", "if", "else", "for", "same", "none"),
                   prefix=r"\b", suffix=r"\b"), Keyword),
            (words(("and", "or", "not", "in"), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (words(("pure", "ctx", "smt"), prefix=r"\b", suffix=r"\b"), Keyword.Pseudo),
            (r"(?:true|false|inf|nan)\b", Keyword.Constant),
            (words(_DTYPES, prefix=r"\b", suffix=r"\b"), Keyword.Type),
            (words(_CLASSES, prefix=r"\b", suffix=r"\b"), Name.Class),
            (r"[A-Z][A-Z0-9_]+(?![a-z])", Name.Builtin),
            (r"[A-Z]\w*", Name.Class),
            (words(BUILTINS, prefix=r"\b", suffix=r"(?=\()"), Name.Builtin.Pseudo),
            (r"([a-z]\w*)(:)(?=\s)", _groups(Name.Label, Punctuation)),
            (r"\$[a-z]\w*", Name.Variable.Magic),
            (r"0x[0-9a-fA-F]+", Number.Hex),
            (r"\d+(?:\.(?!\.)\d*)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+", Number.Float),
            (r"\d+", Number.Integer),
            (r"=>|->|\.\.|<<|>>|<=|>=|==|!=|//|[-+*/%&|^<>=!?@$]", Operator),
            (r"[()\[\]{},;:.]", Punctuation),
            (r"[a-z_]\w*", Name),
        ],
        "string": [
            (r'"', String.Double, "#pop"),
            (r"\\.", String.Escape),
            (r"\{\{|\}\}", String.Escape),
            (r"\{[a-z_]\w*(?:\|\w+)?\}|\{[A-Z]\w*(?:\|\w+)?\}", String.Interpol),
            (r'[^"\\{}\n]+|[{}]', String.Double),
            (r"\n", Text.Whitespace, "#pop"),
        ],
    }  # fmt: skip

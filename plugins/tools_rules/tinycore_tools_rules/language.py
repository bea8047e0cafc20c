"""What an editor asks about a rule file, without any protocol: problems, hover, definitions, completions.

Everything works on text that is being typed: what the parser refuses is looked at word by word.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinycore.errors import RuleError, did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE, Op
from tinycore.rules import syntax as s
from tinycore.rules.builtins import ATTRIBUTES, FUNCTIONS, METHODS
from tinycore.rules.check import ANNOTATIONS, STRATEGIES, notes_of
from tinycore.rules.expand import cases_of, rules_of
from tinycore.rules.generate import CaseBuilder, Generator
from tinycore.rules.loading import find
from tinycore.rules.parse import parse
from tinycore_tools_rules.check import Finding, check_passes, check_text, finding_of
from tinycore_tools_rules.sources import compile_alone, source_of_text
from tinycore_tools_rules.tokens import Token, tokenize

_DTYPES = {dtype.name: dtype for dtype in dtypes.CLASSES["Any"]}
_KEYWORDS = (
    *(
        "group",
        "pass",
        "native",
        "view",
        "from",
        "import",
        "vjp",
        "render",
        "test",
        "why",
        "where",
        "has",
        "let",
    ),
    *("if", "else", "for", "and", "or", "not", "in", "same", "none", "true", "false"),
)
_ATTRIBUTES = tuple(
    dict.fromkeys([*(name for kind in ATTRIBUTES.values() for name in kind), *(m for _, m in METHODS)])
)
_PLACE = re.compile(r":(\d+):(\d+)$")


@dataclass(frozen=True, slots=True)
class Place:
    """A range of a file on one line; line and columns count from 1."""

    path: str
    line: int
    column: int
    end: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where; `severity` is error, warning or info."""

    message: str
    place: Place
    severity: str = "error"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A completion: the word, what sort of thing it is, and a line about it."""

    word: str
    sort: str
    detail: str = ""


@dataclass(frozen=True)
class Document:
    """A rule file as it stands in an editor.

    Attributes
    ----------
    text: its text.
    path: where it is, or will be.
    counts: how often the rules of files fired, by path and line, as `tinycore rules coverage --json` says.
    """

    text: str
    path: str
    counts: Mapping[tuple[str, int], int] = dataclasses.field(default_factory=dict)

    # --- problems -------------------------------------------------------------------------------------------

    def problems(self) -> list[Problem]:
        """Everything that `tinycore rules check` finds; of a file that cannot be parsed the first place only."""
        found = check_text(self.text, self.path)
        try:
            found_imports = list(self._imports(parse(self.text, self.path)))
        except RuleError:
            found_imports = []
        if not found_imports and all(item.severity != "error" for item in found):
            try:
                found += check_passes(source_of_text(self.text, self.path))
            except RuleError as error:
                found.append(finding_of(error))
        problems = [*found_imports, *map(self._problem, found)]
        return sorted(dict.fromkeys(problems), key=lambda problem: (problem.place.line, problem.place.column))

    def _imports(self, file: s.File) -> Iterator[Problem]:
        for item in file.imports:
            try:
                other = _parsed(find(item.module))
            except RuleError as error:
                yield Problem(_message(error.what, error.hint), self._span(item.span))
                continue
            known = {group.name for group in other.groups} | {found.name for found in other.passes}
            for name in item.names:
                if name not in known:
                    message = f"{item.module} has no group or pass {name}"
                    yield Problem(_message(message, did_you_mean(name, known)), self._span(item.span))

    def _problem(self, found: Finding) -> Problem:
        """The place is in the text of a finding: ``path:line:column``, the line, and carets."""
        head, *rest = found.where.splitlines() or [""]
        place = _PLACE.search(head)
        message = _message(found.message, found.hint)
        if place is None or not head.startswith(f"{self.path}:"):  # in another file, or nowhere
            elsewhere = f"{message}\n{head}" if head else message
            return Problem(elsewhere, Place(self.path, 1, 1, 1), found.severity)
        line, column = int(place[1]), int(place[2])
        carets = next((each.strip() for each in rest if set(each.strip()) == {"^"}), "^")
        return Problem(message, Place(self.path, line, column, column + len(carets)), found.severity)

    def _span(self, span: s.Span) -> Place:
        lines = self.text.splitlines()
        end = span.end_column if span.end_line == span.line else len(lines[span.line - 1]) + 1
        return Place(self.path, span.line, span.column, end)

    # --- words ----------------------------------------------------------------------------------------------

    def _at(self, line: int, column: int) -> tuple[list[Token], int] | None:
        """All tokens, and the number of the word at a place."""
        tokens = tokenize(self.text)
        for k, token in enumerate(tokens):
            inside = token.line == line and token.column <= column <= token.column + len(token.text)
            if inside and token.kind == "word":
                return tokens, k
        return None

    def _rule_at(self, line: int, column: int) -> tuple[s.File, s.Group, s.Rule] | None:
        """The rule at a place, with loops written out; None while the file cannot be parsed."""
        try:
            file = parse(self.text, self.path)
            for group in file.groups:
                for rule in rules_of(file, group):
                    span = rule.span
                    if (span.line, span.column) <= (line, column) <= (span.end_line, span.end_column):
                        return file, group, rule
        except RuleError:
            pass
        return None

    # --- hover ----------------------------------------------------------------------------------------------

    def hover(self, line: int, column: int) -> str | None:
        """What to show for the word at a place, as Markdown."""
        found = self._at(line, column)
        if found is None:
            return None
        tokens, k = found
        word = tokens[k].text
        if k and tokens[k - 1].text == "@" and word in ANNOTATIONS and not _is_capture(tokens, k):
            return f"annotation `@{word}`"
        inside = self._rule_at(line, column)
        if inside is not None:
            file, group, rule = inside
            if (tokens[k].line, tokens[k].column) == (rule.span.line, rule.span.column):
                return self._rule_text(file, group, rule)
            if text := _capture_text(file, group, rule, word):
                return text
        return self._word_text(word)

    def _word_text(self, word: str) -> str | None:
        if word in TABLE:
            return _op_text(TABLE[word])
        if word in dtypes.CLASSES:
            return f"`{word}`: {', '.join(dtype.name for dtype in dtypes.CLASSES[word])}"
        if word in _DTYPES:
            return f"`{word}`: {_DTYPES[word].kind}, {_DTYPES[word].bits} bits"
        for place in self._declared(word):
            return f"```rules\n{self.text.splitlines()[place.line - 1].strip()}\n```"
        return f"function `{word}`" if word in FUNCTIONS else None

    def _rule_text(self, file: s.File, group: s.Group, rule: s.Rule) -> str:
        """Why a rule is there, how often it fired, and the Python that it becomes."""
        parts = [f"rule `{rule.name}` of group `{group.name}`"]
        if rule.why:
            parts.append(rule.why)
        count = self.counts.get((str(Path(self.path).resolve()), rule.span.line))
        if count is not None:
            parts.append(f"fired {count} times")
        try:
            code = compile_alone(file, group, rule)
        except RuleError as error:
            return "\n\n".join([*parts, _message(error.what, error.hint)])
        functions = code[code.index("\ndef ") : code.index("\nRULES = ")].strip()
        return "\n\n".join([*parts, f"```python\n{functions}\n```"])

    # --- definitions ----------------------------------------------------------------------------------------

    def definition(self, line: int, column: int) -> Place | None:
        """Where the word at a place is defined: here, in the file that it is imported from, or in Python."""
        found = self._at(line, column)
        if found is None:
            return None
        tokens, k = found
        word = tokens[k].text
        here = Place(self.path, tokens[k].line, tokens[k].column, tokens[k].column + len(word))
        if k and tokens[k - 1].text == "native":
            return self._python(word) or here
        inside = self._rule_at(line, column)
        if inside is not None:
            bound = _bound_at(tokens, inside[2], word)
            if bound is not None:
                return Place(self.path, bound.line, bound.column, bound.column + len(word))
        return next(self._declared(word), None) or self._imported(word)

    def _declared(self, word: str) -> Iterator[Place]:
        tokens = tokenize(self.text)
        for before, token in itertools.pairwise(tokens):
            if (
                token.text == word
                and before.text in ("native", "view", "group", "pass")
                and before.kind == "word"
            ):
                yield Place(self.path, token.line, token.column, token.column + len(word))

    def _imported(self, word: str) -> Place | None:
        for module, names in _import_lines(self.text):
            if word not in names and word not in module.split("."):
                continue
            try:
                path = find(module)
                other = Document(path.read_text(encoding="utf-8"), str(path))
            except (RuleError, OSError, UnicodeDecodeError):
                continue
            return next(other._declared(word), None) or Place(str(path), 1, 1, 1)
        return None

    def _python(self, name: str) -> Place | None:
        """The function of a native in the Python file beside the rules; nothing is imported."""
        path = Path(self.path).with_suffix(".py")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        for number, line in enumerate(lines, 1):
            if re.match(rf"def {re.escape(name)}\b", line):
                return Place(str(path), number, 5, 5 + len(name))
        return None

    # --- completion -----------------------------------------------------------------------------------------

    def completions(self, line: int, column: int) -> list[Proposal]:
        """Words that may stand at a place."""
        lines = self.text.splitlines()
        before = lines[line - 1][: column - 1] if line <= len(lines) else ""
        start = re.search(r"\w*$", before)
        lead = before[: start.start()] if start else before
        if lead.endswith("@") and not re.search(r"\w@$", lead):
            return [Proposal(name, "annotation") for name in (*ANNOTATIONS, "accept")]
        if re.search(r"[\w)\]]\.$", lead):
            return [Proposal(name, "attribute") for name in _ATTRIBUTES]
        found = [
            Proposal(token.text, before_.text)
            for before_, token in itertools.pairwise(tokenize(self.text))
            if before_.text in ("native", "view", "group", "pass") and token.kind == "word"
        ]
        found += [Proposal(name, "import") for _, names in _import_lines(self.text) for name in names]
        if re.match(r"\s*pass\b.*=", before):
            return [
                *(item for item in found if item.sort not in ("native", "view")),
                *_proposals("driver", STRATEGIES),
            ]
        if re.search(r"\w:$", lead):
            return [*_proposals("class", dtypes.CLASSES), *_proposals("dtype", _DTYPES)]
        inside = self._rule_words(line, column)
        return [
            *_proposals("capture", inside),
            *found,
            *(Proposal(op.name, "op", op.summary) for op in TABLE.values()),
            *_proposals("function", FUNCTIONS),
            *_proposals("dtype", _DTYPES),
            *_proposals("class", dtypes.CLASSES),
            *_proposals("keyword", _KEYWORDS),
        ]

    def _rule_words(self, line: int, column: int) -> list[str]:
        """Small words since the beginning of the rule, which is the last ``name:`` at the head of a line."""
        words: dict[str, None] = {}
        for a, b in itertools.pairwise(tokenize(self.text)):
            if (a.line, a.column + len(a.text)) >= (line, column):
                break
            if (
                a.lines_before
                and a.kind == "word"
                and (b.text == ":" or a.text in ("vjp", "render", "group"))
            ):
                words = {}
            elif a.kind == "word" and re.fullmatch(r"[a-z]\w*", a.text) and b.text != "(":
                words.setdefault(a.text)
        return [word for word in words if word not in _KEYWORDS and word not in _DTYPES]


def _proposals(sort: str, words: object) -> list[Proposal]:
    assert isinstance(words, (list, tuple, Mapping))
    return [Proposal(word, sort) for word in words]


def _message(what: str, hint: str | None) -> str:
    return f"{what}\n{hint}" if hint else what


def _parsed(path: Path) -> s.File:
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"cannot read {path}: {error}") from error


def _import_lines(text: str) -> list[tuple[str, list[str]]]:
    pattern = re.compile(r"^\s*from\s+([\w.]+)\s+import\s+(\w+(?:\s*,\s*\w+)*)", re.MULTILINE)
    return [(found[1], re.split(r"\s*,\s*", found[2])) for found in pattern.finditer(text)]


def _is_capture(tokens: list[Token], k: int) -> bool:
    """Whether the ``@`` before k follows a word without a space: ``n@pattern``."""
    if k < 2:
        return False
    before, sign = tokens[k - 2], tokens[k - 1]
    return (
        before.line == sign.line and before.column + len(before.text) == sign.column and before.kind == "word"
    )


def _bound_at(tokens: list[Token], rule: s.Rule, word: str) -> Token | None:
    """Where a rule first names a capture, a ``let`` or a name of its block."""
    from tinycore.rules.expand import nodes_in

    lets = {let.name: let for let in (*rule.block, *rule.clauses) if isinstance(let, s.Let)}
    names = {getattr(node, "name", None) for node in nodes_in(rule.pattern)}
    if word not in names and word not in lets and word not in rule.names:
        return None
    span = lets[word].span if word in lets else rule.span
    end = (rule.span.end_line, rule.span.end_column)
    inside = [token for token in tokens if (span.line, span.column) <= token.place < end]
    return next((token for token in inside if token.text == word and token is not inside[0]), inside[0])


def _op_text(op: Op) -> str:
    attributes = f"[{', '.join(op.attributes)}]" if op.attributes else ""
    facts = [name for name in ("commutative", "associative", "idempotent", "statement") if getattr(op, name)]
    signature = f"```rules\n{op.name}{attributes}({', '.join(op.operands)})\n```"
    return "\n\n".join([signature, op.summary, *([", ".join(facts)] if facts else [])])


def _capture_text(file: s.File, group: s.Group, rule: s.Rule, word: str) -> str | None:
    """What a name of a rule stands for, and of which dtypes it can be."""
    try:
        builder = CaseBuilder(Generator(file), notes_of(file, group, rule), cases_of(file, rule)[0])
        builder.build()
    except RuleError:
        return None
    kind, local = builder.matcher.captures.get(word, ("", ""))
    if kind in ("node", "const"):
        possible = builder.matcher.facts.possible(local)
        shown = next(
            (name for name, members in dtypes.CLASSES.items() if set(members) == set(possible)), None
        )
        names = shown or " or ".join(sorted(dtype.name for dtype in possible))
        return f"`{word}`: {'the value of a constant' if kind == 'const' else 'a node'} of {names}"
    if kind == "rest":
        return f"`*{word}`: any number of nodes"
    code = builder.ex.names.get(word)
    return f"`{word}`: {_type_text(code.type)}" if code is not None else None


def _type_text(found: object) -> str:
    if isinstance(found, tuple):
        inner = found[1] if len(found) > 1 else "any"
        return (
            f"{found[0]} of {_type_text(inner)}" if not isinstance(inner, tuple) or inner else str(found[0])
        )
    return {"num": "a number", "const": "the value of a constant"}.get(str(found), f"a {found}")

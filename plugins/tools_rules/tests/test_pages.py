"""Reference pages, the Pygments lexer and the TextMate grammar."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pygments.lexers import get_lexer_by_name, guess_lexer_for_filename
from pygments.token import Comment, Error, Keyword, Name, String
from tinycore_tools_rules.document import document, markdown, page
from tinycore_tools_rules.lexer import RulesLexer
from tinycore_tools_rules.sources import core_names, open_source
from tinycore_tools_rules.tokens import tokenize

from tinycore.cli import main
from tinycore.ir import dtypes
from tinycore.rules.check import ANNOTATIONS
from tinycore.rules.loading import find

EDITOR = Path(__file__).parents[1] / "editors" / "vscode"

MINE = """\
# Rules of mine.
#
# More about them.

# Turns things around.
group mine(fixpoint) @stage(kernel) {
  # --- first things
  # Nothing is lost here.
  one: x * 1 => x  @fast(nsz)
    why "one does nothing"
    test a * 1 => a
    test a * 2 => same where a: int32
  for OP in (MAX|MIN) {
    same: OP(x, x) => x
  }
}
pass clean = fixpoint(mine)
"""


def test_markdown(tmp_path: Path) -> None:
    path = tmp_path / "mine.rules"
    path.write_text(MINE)
    text = markdown([document(open_source(str(path)))])
    assert (
        text.split("## Passes")[1]
        == r"""

```rules
pass clean = fixpoint(mine)
```

## Group mine

Strategy: fixpoint. Joins the kernel stage.

Turns things around.

### first things

#### one

```rules
one: x * 1 => x
```

One does nothing. Holds if the sign of zero does not matter (`@fast`). Nothing is lost here.

- `a * 1 => a`
- `a * 2 => same where a: int32`

#### same

```rules
same: OP(x, x) => x
```

For OP in MAX, MIN.
"""
    )
    assert "Rules of mine." in text and "More about them." in text


@pytest.mark.parametrize("name", core_names())
def test_pages_hold_every_rule_and_reason_of_the_core(name: str) -> None:
    source = open_source(name)
    pages = [document(source)]
    text, html = markdown(pages), page(pages, name)
    plain = text.replace("\\", "")
    for rule in source.module.rules:
        if not rule.name.startswith(("vjp_", "render_")):
            assert f"#### {rule.name.partition('[')[0]}\n" in plain
        assert rule.why[1:] in plain
    assert html.count("<h4>") == text.count("\n#### ") > 0
    assert 'class="err"' not in html


@pytest.mark.parametrize("name", core_names())
def test_the_lexer_knows_everything_and_loses_nothing(name: str) -> None:
    text = find(name).read_text(encoding="utf-8")
    found = list(RulesLexer().get_tokens(text))
    assert not [piece for kind, piece in found if kind is Error]
    assert "".join(piece for _, piece in found).strip() == text.strip()
    comments = [piece for kind, piece in found if kind is Comment.Single]
    assert [piece.rstrip() for piece in comments] == [t.text for t in tokenize(text) if t.kind == "comment"]


def test_what_the_lexer_says() -> None:
    found = [
        (k, v)
        for k, v in RulesLexer().get_tokens('group g(fixpoint) { one: MAX(x:Int, $c) => "{x}" }')
        if v.strip()
    ]
    assert found[:2] == [(Keyword.Declaration, "group"), (Name.Function, "g")]
    assert (Name.Label, "one") in found and (Name.Builtin, "MAX") in found and (Name.Class, "Int") in found
    assert (Name.Variable.Magic, "$c") in found and (String.Interpol, "{x}") in found


def test_the_lexer_is_an_entry_point() -> None:
    (point,) = importlib.metadata.entry_points(group="pygments.lexers", name="tinycore-rules")
    assert point.load() is RulesLexer
    assert isinstance(get_lexer_by_name("tinycore-rules"), RulesLexer)
    assert isinstance(guess_lexer_for_filename("my.rules", "group g(fixpoint) { }"), RulesLexer)


def test_the_grammar_of_the_editor() -> None:
    """Every pattern compiles, is reachable from the top, and knows the words of the language."""
    grammar = json.loads((EDITOR / "syntaxes" / "rules.tmLanguage.json").read_text())
    package = json.loads((EDITOR / "package.json").read_text())
    (contributed,) = package["contributes"]["grammars"]
    assert contributed["scopeName"] == grammar["scopeName"]
    for item in (*package["contributes"]["grammars"], *package["contributes"]["languages"]):
        assert (EDITOR / item.get("path", item.get("configuration"))).is_file()
    assert {item["include"][1:] for item in grammar["patterns"]} == set(grammar["repository"])
    patterns: dict[str, list[str]] = {}
    for name, entry in grammar["repository"].items():
        for part in (entry, *entry.get("patterns", ())):
            patterns.setdefault(name, []).extend(
                part[key] for key in ("match", "begin", "end") if key in part
            )
    for every in patterns.values():
        for pattern in every:
            re.compile(pattern)
    (dtype,) = patterns["dtype"]
    assert all(re.fullmatch(dtype, item.name) for item in dtypes.CLASSES["Any"])
    assert all(re.fullmatch(patterns["annotation"][0], f"@{name}") for name in (*ANNOTATIONS, "accept"))
    assert re.match(patterns["op"][0], "MAX(") and not re.match(patterns["op"][0], "Int")


def scopes(text: str) -> list[tuple[str, str]]:
    """(word, innermost scope) of a text by the editor's grammar: a small reader of the TextMate rules it uses."""
    grammar = json.loads((EDITOR / "syntaxes" / "rules.tmLanguage.json").read_text())
    top: list[dict[str, Any]] = []
    for item in grammar["patterns"]:
        entry = grammar["repository"][item["include"][1:]]
        top += [entry] if "match" in entry or "begin" in entry else entry["patterns"]
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        place, inside = 0, None  # the region that is open: strings end with their line
        while place < len(line):
            rules = inside.get("patterns", []) if inside else top
            starts = [
                (rule, re.compile(rule.get("match") or rule["begin"]).search(line, place)) for rule in rules
            ]
            hits = [(match.start(), k, rule, match) for k, (rule, match) in enumerate(starts) if match]
            end = re.compile(inside["end"]).search(line, place) if inside else None
            if end is not None and (not hits or end.start() <= min(hits)[0]):
                found.append((line[place : end.end()], inside["name"] if inside else ""))
                place, inside = end.end(), None
                continue
            if not hits:
                break
            _, _, rule, match = min(hits, key=lambda hit: hit[:2])
            if "begin" in rule:
                inside = rule
            for group, scope in rule.get("captures", {}).items():
                if match[int(group)]:
                    found.append((match[int(group)], scope["name"]))
            if "name" in rule:
                found.append((match.group(), rule["name"]))
            place = max(match.end(), place + 1)
    return found


@pytest.mark.parametrize("name", core_names())
def test_the_grammar_of_the_editor_reads_the_core(name: str) -> None:
    """It and the Pygments lexer agree about comments, ops, dtypes and keywords of every file."""
    text = find(name).read_text(encoding="utf-8")
    found = scopes(text)
    lexed = [(kind, piece.rstrip()) for kind, piece in RulesLexer().get_tokens(text)]
    for kind, scope in (
        (Comment.Single, "comment.line"),
        (Name.Builtin, "support.function.op"),
        (Keyword.Type, "support.type"),
    ):
        mine = Counter(word.rstrip() for word, each in found if each.startswith(scope))
        assert mine == Counter(piece for each, piece in lexed if each is kind), scope


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert main(["rules", "doc", "tinycore.passes.kernel", "--html", "-o", str(target)]) == 0
    assert "<h4>where_load</h4>" in target.read_text()
    assert main(["rules", "doc", "tinycore.passes.kernel"]) == 0
    assert "#### where\\_load" in capsys.readouterr().out
    assert main(["rules", "doc", "tinycore.passes.kernel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["file"] == "tinycore.passes.kernel"


def test_compiled_rules_for_a_wheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.rules"
    path.write_text(MINE)
    assert main(["rules", "compile", str(path), "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert (
        Path(made["compiled"]).parent == tmp_path / "_compiled"
        and "def r_mine" in Path(made["compiled"]).read_text()
    )
    assert main(["rules", "compile", str(path)]) == 0 and "_compiled" in capsys.readouterr().out
    assert main(["rules", "compile"]) == 2
    path.write_text("group g(fixpoint) { a: ADDD(x, y) => x }")
    assert main(["rules", "compile", str(path)]) == 1
    assert "did you mean 'ADD'?" in capsys.readouterr().err

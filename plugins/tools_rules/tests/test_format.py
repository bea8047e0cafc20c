"""The formatter: the same tree, the same comments, and nothing left to do the second time."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_tools_rules.format import format_text, meaning
from tinycore_tools_rules.sources import core_names
from tinycore_tools_rules.tokens import tokenize

from tinycore.cli import main
from tinycore.errors import RuleSyntaxError
from tinycore.rules.loading import find
from tinycore.rules.parse import parse

NAMES = core_names()
SHORT = [name for name in NAMES if not name.endswith("decompose")]


def text_of(name: str) -> str:
    return find(name).read_text(encoding="utf-8")


def comments(text: str) -> list[str]:
    return [token.text for token in tokenize(text) if token.kind == "comment"]


@pytest.mark.parametrize("name", NAMES)
def test_core_files_keep_their_meaning_and_are_stable(name: str) -> None:
    text = text_of(name)
    once = format_text(text, name)
    assert meaning(parse(once)) == meaning(parse(text))
    assert comments(once) == comments(text) and len(comments(text)) > 0
    assert format_text(once, name) == once == text, f"run: tinycore rules fmt {name}"
    assert not [line for line in once.splitlines() if line != line.rstrip()]


def disarray(text: str, seed: int) -> str:
    """The same tokens with other white space, and comments in unlikely places."""
    chance, parts = random.Random(seed), list[str]()
    for token in tokenize(text):
        gap = chance.choice([" ", " ", " ", "  ", "\n", "\n\n\n", "\t"])
        if chance.random() < 0.02:
            gap = f" # note {chance.randrange(100)}\n"
        parts += [gap, token.text, "\n" if token.kind == "comment" else ""]
    return "".join(parts)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHORT), st.integers(0, 1 << 30), st.sampled_from([60, 90, 118]))
def test_any_layout(name: str, seed: int, width: int) -> None:
    text = disarray(text_of(name), seed)
    once = format_text(text, name, width)
    assert meaning(parse(once)) == meaning(parse(text_of(name)))
    assert comments(once) == comments(text)
    assert format_text(once, name, width) == once


def test_layout_without_comments_does_not_matter() -> None:
    """Where there are no comments and no empty lines, every layout ends as the same text."""
    text = "\n".join(
        line for line in text_of("tinycore.passes.kernel").splitlines() if line and line[0] != "#"
    )
    flat = " ".join(token.text for token in tokenize(text))
    assert format_text(flat).replace("\n\n", "\n") == format_text(text).replace("\n\n", "\n")


def test_the_layout() -> None:
    ugly = """
# top
from a.b import g , h
native f(a:int,b : node?)->int?  pure # what
group  g ( fixpoint )@memo{ # here
  one:x*1=>x test a*1=>a
  # about two
  two_longer : CAST [ =float32 ] (x:Int)if x.vmin>=0and not(x.vmax in (1,2)) => - x - -1 @fast(nsz)why"so"
     test a=>same where a:index in -1..7,has FMA
  for OP in(MAX | MIN){ r:OP!(n@_,*_,$c)=>{a=-c;OP(a,*[k for k in x.shape[1:]])} }
}
pass p=top_down(g);fixpoint(g+h)@accept(fast)
"""
    assert (
        format_text(ugly.replace("node?", "node"))
        == """\
# top
from a.b import g, h
native f(a: int, b: node) -> int? pure  # what

group g(fixpoint) @memo {  # here
  one: x * 1 => x  test a * 1 => a
  # about two
  two_longer: CAST[=float32](x:Int) if x.vmin >= 0 and not (x.vmax in (1, 2)) => -x - -1  @fast(nsz)
    why "so"
    test a => same where a: index in -1..7, has FMA
  for OP in (MAX|MIN) {
    r: OP!(n@_, *_, $c) => { a = -c; OP(a, *[k for k in x.shape[1:]]) }
  }
}
pass p = top_down(g) ; fixpoint(g + h) @accept(fast)
"""
    )


def test_long_lines_are_broken_where_it_parts_the_least() -> None:
    ugly = """group g(bottom_up) {
  one: WHERE(c, x, y) if x.vmin > 3 => { first = MAX(first_operand, second_operand) * (x + third) + fourth * y; first }
  two_more: x:Int // $c if long_name_of_a_condition(x) and another_name(c) => [MAX(f(k, 1), n) for (k, n) in zip(x, y)]
  three: -x => x @approx(ulp, 1)
}
group h(render) { render n@ADD(a, b) if is_long_enough(n) => "first line {a}" "second line {b}"
  render SUB(a, b) => "({a} - {b})" }
"""
    assert (
        format_text(ugly, width=60)
        == """\
group g(bottom_up) {
  one:      WHERE(c, x, y) if x.vmin > 3 => {
    first = MAX(first_operand, second_operand) * (x + third)
        + fourth * y;
    first
  }
  two_more: x:Int // $c
      if long_name_of_a_condition(x) and another_name(c)
    => [MAX(f(k, 1), n) for (k, n) in zip(x, y)]
  three:    -x => x  @approx(ulp, 1)
}

group h(render) {
  render n@ADD(a, b) if is_long_enough(n)
    => "first line {a}"
       "second line {b}"
  render SUB(a, b) => "({a} - {b})"
}
"""
    )


def test_signs_before_and_between_operands() -> None:
    text = format_text("group g(fixpoint){r:x=>f(x)-1+a[0]*-b- -c if not-x<y else(x)-y}")
    assert text.splitlines()[1] == "  r: x => f(x) - 1 + a[0] * -b - -c if not -x < y else (x) - y"


def test_errors_point_at_the_place() -> None:
    with pytest.raises(RuleSyntaxError, match=r"mine\.rules:1:9"):
        format_text("group g fixpoint", "mine.rules")


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.rules"
    path.write_text("group g(fixpoint) { one:x*1=>x }")
    assert main(["rules", "fmt", "--check", str(path)]) == 1
    assert "would reformat" in capsys.readouterr().out
    assert main(["rules", "fmt", "--diff", str(path)]) == 1
    assert "+  one: x * 1 => x" in capsys.readouterr().out
    assert path.read_text() == "group g(fixpoint) { one:x*1=>x }"
    assert main(["rules", "fmt", "--json", str(path)]) == 0
    assert '"changed"' in capsys.readouterr().out
    assert path.read_text() == "group g(fixpoint) {\n  one: x * 1 => x\n}\n"
    assert main(["rules", "fmt", "--check", str(path)]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("pass  p = g"))
    capsys.readouterr()
    assert main(["rules", "fmt", "-"]) == 0
    assert capsys.readouterr().out == "pass p = g\n"
    assert main(["rules", "fmt"]) == 2

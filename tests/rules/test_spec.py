"""Every example of specs/rules.md is executed."""

import re
import sys
from pathlib import Path

import pytest
from tinycore_tools_rules.inline import evaluate, leaves_of, run_inline_tests

from tinycore import rules
from tinycore.errors import RuleError
from tinycore.rules import loading
from tinycore.rules.parse import parse

SPEC = Path(__file__).parents[2] / "specs" / "rules.md"
BLOCKS = [
    (kind.strip(), body) for kind, body in re.findall(r"^```(.*?)\n(.*?)^```", SPEC.read_text(), re.M | re.S)
]


def _blocks(kind):
    found = [body for name, body in BLOCKS if name == kind]
    assert found
    return found


@pytest.mark.parametrize("text", _blocks("rules"))
def test_examples_load_and_their_tests_pass(text, tmp_path):
    path = tmp_path / "example.rules"
    path.write_text(text)
    results = run_inline_tests(rules.load_file(path))
    assert not [str(result) for result in results if not result.passed]
    assert len(results) >= text.count("test ") - text.count("tests "), "a test was lost"


@pytest.mark.parametrize("text", _blocks("rules error"))
def test_wrong_examples_fail_as_they_say(text, tmp_path):
    path = tmp_path / "wrong.rules"
    path.write_text(text)
    with pytest.raises(RuleError) as caught:
        rules.load_file(path)
    assert text.splitlines()[0].removeprefix("# ") in caught.value.what
    assert "wrong.rules" in (caught.value.where or "")


def _claims(text, path):
    """(pass or group, the graph before, the graph after) of the ``#>`` lines of a block, and the ``#!`` lines."""
    module = rules.load_file(path)
    found = []
    for line in (line[3:] for line in text.splitlines() if line.startswith("#> ")):
        name, _, body = line.partition(": ")
        file = parse(f"group g(fixpoint) {{ r: x => x test\n{body}\n}}")
        (test,) = file.groups[0].items[0].tests
        leaves = leaves_of(file, test)
        before = evaluate(file, test.before, leaves)
        after = evaluate(file, test.after, leaves, before)
        found.append((module.passes.get(name) or module.groups[name], before, after))
    assert found
    return found, [line[3:] for line in text.splitlines() if line.startswith("#! ")]


@pytest.mark.parametrize("text", _blocks("rules run"))
def test_passes_do_what_the_examples_say(text, tmp_path):
    path = tmp_path / "example.rules"
    path.write_text(text)
    for run, before, after in _claims(text, path)[0]:
        assert run(before) is after


@pytest.mark.parametrize("text", _blocks("rules loop"))
def test_errors_of_running_passes_are_as_shown(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("wrong.rules").write_text(text)
    claims, shown = _claims(text, "wrong.rules")
    for run, before, _ in claims:
        with pytest.raises(RuleError) as caught:
            run(before)
        lines = [caught.value.what, *caught.value.where.splitlines()]
        assert len(shown) > 1 and all(any(line.startswith(each) for line in lines) for each in shown), lines


def test_the_grammar_is_the_one_that_runs():
    """The same nonterminals, and the same words and signs in each of them."""
    (shown,) = (body for kind, body in BLOCKS if kind == "ebnf")
    grammar = Path(loading.__file__).with_name("grammar.lark").read_text()
    rule = re.compile(r"^[?!]?([a-z_]\w*):((?:.*)(?:\n +\|.*)*)", re.M)
    real = dict(rule.findall(grammar))
    entry = re.compile(r"(?:^|  )([a-z]\w*) +=((?:(?!  [a-z]\w* +=).)*(?:\n {12}.*)*)", re.M)
    told = dict(entry.findall(shown))
    helpers = {"cfor", "comp", "_gitem", "_pargs", "_args", "_exprs"}
    assert set(told) - {"item"} == set(real) - (helpers - set(told)) - {"item"}

    def terminals(body):
        body = re.sub(r"-> *\w+", "", body)  # names of trees
        for sign, text in (("SHIFT", '"<<" ">>"'), ("MULOP", '"/" "//" "%"'), ("ORD", '"!"'), ("OPTIONAL", '"?"'),
                           ("PLUS", '"+"'), ("MINUS", '"-"'), ("STAR", '"*"'), ("BAR", '"|"'), ("CARET", '"^"'),
                           ("AMP", '"&"'), ("COLON", '":"'), ("UNDERSCORE", '"_"')):  # fmt: skip
            body = re.sub(rf"\b{sign}\b", text, body)
        return set(re.findall(r'"([^"]+)"', body)) - set(",(){}[]*")

    for name in set(told) & set(real):
        assert terminals(told[name]) == terminals(real[name]), name


def test_native_example(tmp_path, monkeypatch):
    package = tmp_path / "spec_example"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "shifts.py").write_text(_blocks("python native")[0])
    (package / "shifts.rules").write_text(_blocks("rules native")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    results = run_inline_tests(rules.load("spec_example.shifts"))
    assert len(results) == 2 and all(result.passed for result in results), results
    loading._loaded.pop("spec_example.shifts")
    for name in ("spec_example", "spec_example.shifts"):
        sys.modules.pop(name, None)


def test_python_example(tmp_path, monkeypatch):
    (tmp_path / "algebra.rules").write_text(_blocks("rules")[0])
    monkeypatch.chdir(tmp_path)
    exec(_blocks("python")[0], {})


def test_the_tables_name_what_exists():
    from tinycore.rules.builtins import ATTRIBUTES, FUNCTIONS
    from tinycore.rules.check import ANNOTATIONS
    from tinycore.rules.expand import OP_CLASSES

    text = SPEC.read_text()
    words = set(re.findall(r"\w+", text))
    assert set(FUNCTIONS) <= words
    assert set(OP_CLASSES) <= words
    assert all(f"@{name}" in text for name in ANNOTATIONS)
    for kind in ("node", "dtype", "op"):
        assert set(ATTRIBUTES[kind]) <= words

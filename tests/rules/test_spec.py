"""Every example of specs/rules.md is executed."""

import re
import sys
from pathlib import Path

import pytest

from tinycore import rules
from tinycore.errors import RuleError
from tinycore.rules import loading
from tinycore.rules.inline import run_inline_tests

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

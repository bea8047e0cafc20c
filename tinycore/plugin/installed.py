"""Installed distributions: what `importlib.metadata` would find, read without it (importing it costs 20 ms).

Folders of `sys.path` are read here. Where something else could know of distributions (an archive on the path, a
finder of somebody's own), `importlib.metadata` is asked as usual.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

_METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


class Distribution(Protocol):
    """The part of `importlib.metadata.Distribution` that is used of one."""

    def read_text(self, filename: str) -> str | None:
        """A file of its metadata, None where there is none."""


@dataclass(frozen=True)
class Folder:
    """A distribution whose metadata is a folder."""

    path: str

    def read_text(self, filename: str) -> str | None:
        """A file of its metadata, None where there is none."""
        try:
            with open(os.path.join(self.path, filename), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None


@dataclass(frozen=True)
class EntryPoint:
    """One line of a distribution's entry points.

    >>> EntryPoint("cpu", "tinycore_backend_cpu").value
    'tinycore_backend_cpu'
    """

    name: str
    value: str


@dataclass(frozen=True)
class Installed:
    """What is asked of a distribution; `name` and `version` are None where damaged metadata lost them."""

    distribution: Distribution

    @cached_property
    def _headers(self) -> dict[str, str]:
        found = (self.distribution.read_text(name) for name in _METADATA.values())
        text = next((text for text in found if text), "")
        lines = text.split("\n\n", 1)[0].splitlines()
        pairs = [line.partition(":") for line in lines if not line.startswith((" ", "\t"))]
        return {key.lower(): value.strip() for key, colon, value in reversed(pairs) if colon}

    @property
    def name(self) -> str | None:
        """What it is called on the package index."""
        return self._headers.get("name") or None

    @property
    def version(self) -> str | None:
        """Its version."""
        return self._headers.get("version") or None

    def entry_points(self, group: str) -> list[EntryPoint]:
        """Its entry points of a group; distributions without any are only searched for a word."""
        text = self.distribution.read_text("entry_points.txt") or ""
        found, section = [], ""
        for line in text.splitlines() if group in text else ():
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]").strip()
            elif section == group and "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                found.append(EntryPoint(name.strip(), value.strip()))
        return found


def installed() -> Iterator[Installed]:
    """Every distribution, those of earlier folders of `sys.path` first."""
    if any(os.path.isfile(entry) for entry in sys.path) or any(map(_finds_distributions, sys.meta_path)):
        from importlib.metadata import distributions

        yield from map(Installed, distributions())
        return
    for entry in dict.fromkeys(sys.path):
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            if os.path.splitext(name)[1].lower() in _METADATA:
                yield Installed(Folder(os.path.join(entry, name)))


def version_of(name: str) -> str | None:
    """The version of a distribution, by its name on the package index; None when it is not installed.

    >>> version_of("no-such-distribution") is None
    True
    """
    wanted = _normal(name)
    for found in installed():
        folder = found.distribution
        if isinstance(folder, Folder) and _normal(os.path.basename(folder.path).partition("-")[0]) != wanted:
            continue
        if _normal(found.name or "") == wanted:
            return found.version
    return None


def _normal(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").lower()


def _finds_distributions(finder: object) -> bool:
    usual = getattr(finder, "__module__", "") == "_frozen_importlib_external"
    return hasattr(finder, "find_distributions") and not usual

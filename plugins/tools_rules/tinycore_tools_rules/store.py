"""Results on disk, by a digest of everything that they depend on.

The key of a rule holds its text as it is compiled, the verifier itself with the meaning of all ops, and, if it has
natives, every module of the package that they are in, since they may call any of them; so a cached result is as good
as a fresh one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import tinycore
from tinycore.config import config, user_cache_directory
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.verify import Result

PARTS = (
    "contexts ctext effort evaluate gradients judge paste prove rendered sample shapes sources symbols tensors "
    "terms typed values verify"
)
"""The modules of this package that a result depends on."""


@functools.cache
def verifier_digest() -> str:
    """A digest of the verifier, the rule compiler, the op table and the interpreter."""
    state = hashlib.sha256(repr((sys.version_info[:3], platform.machine())).encode())
    here, core = Path(__file__).parent, Path(tinycore.__file__).parent
    files = [here / f"{name}.py" for name in PARTS.split()]
    for folder in ("ir", "rules", "interpret"):
        files += sorted((core / folder).glob("*.py"))
    for path in files:
        if path.is_file():
            state.update(path.name.encode() + b"\0" + path.read_bytes())
    for package in ("z3-solver", "numpy", "ml_dtypes"):
        state.update(metadata.version(package).encode())
    return state.hexdigest()


@functools.lru_cache(maxsize=64)
def _package_digest(folder: Path) -> bytes:
    """A digest of all modules of the outermost package that a folder is in; of the folder, if it is in none."""
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py") if (folder / "__init__.py").is_file() else folder.glob("*.py")):
        state.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return state.digest()


def key_of(unit: Unit, patience: float) -> str:
    """The key of a rule's result."""
    state = hashlib.sha256(verifier_digest().encode())
    state.update(
        f"{unit.identity}\n{unit.rule!r}\n{unit.group.annotations!r}\n{patience}\n{unit.code}".encode()
    )
    if unit.rule.kind == "render":  # the rules before it are asked first
        state.update(repr(unit.group).encode())
    functions = unit.source.module.code.natives
    for path in sorted({str(inspect.getsourcefile(functions[name])) for name in unit.natives}):
        state.update(_package_digest(Path(path).parent))
    return state.hexdigest()[:40]


class Store:
    """A folder of results; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> Result | None:
        """The result of that key, if there is one."""
        if self.folder is None:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Result(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
        return None

    def put(self, key: str, result: Result) -> None:
        """Keep a result. A full or read-only disk only costs time next time."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(result), file)
            os.replace(temporary, self.folder / f"{key}.json")


def open_store(fresh: bool = False) -> Store:
    """The results of this user; none when caches are off."""
    settings = config()
    if fresh or not settings.cache:
        return Store(None)
    folder = (settings.cache_directory or user_cache_directory() / "tinycore") / "verified"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Store(None)
    return Store(folder)

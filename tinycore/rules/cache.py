"""Compiled rules by content: beside the package (shipped in wheels), else in the user's cache.

The key covers the text, the rows of the op table that the text mentions, and the generator itself. An entry of
the user's cache is executed, so it is believed only from a directory and a file that belong to the user and
that nobody else may write, and only if its checksum is right. A cache that cannot be used costs time, never an
error.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from tinycore.config import config, user_cache_directory
from tinycore.ir.ops import TABLE, Op

_SOURCES = (
    "grammar.lark",
    "parse.py",
    "syntax.py",
    "expand.py",
    "check.py",
    "matcher.py",
    "express.py",
    "building.py",
    "builtins.py",
    "template.py",
    "generate.py",
)
_HEAD = "# tinycore compiled rules, sha256 "


@functools.cache
def generator_digest() -> str:
    """A digest of the code that turns text into Python, and of the op classes that it knows."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _row(op: Op) -> str:
    return repr(
        (
            op.name,
            op.operands,
            op.attributes,
            op.dtype,
            op.shape,
            op.elementwise,
            op.movement,
            op.commutative,
            op.identity,
        )
    )


def key_of(text: str) -> str:
    """The key of a text: the rows that it mentions by name or by class are part of it."""
    words = set(re.findall(r"\b[A-Z][A-Za-z0-9_]*\b", text)) | set(_INFIX_OPS)
    classes = {"Elementwise", "Unary", "Binary", "Ternary", "Movement", "Comparison", "Commutative", "Monoid"}
    rows = sorted(_row(op) for op in TABLE.values() if op.name in words or words & classes)
    digest = hashlib.sha256("\0".join((generator_digest(), *rows, text)).encode())
    return digest.hexdigest()[:32]


_INFIX_OPS = (
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "FLOORDIV",
    "FLOORMOD",
    "SHL",
    "SHR",
    "AND",
    "OR",
    "XOR",
    "LT",
    "LE",
    "EQ",
    "NE",
    "NEG",
    "CONST",
)


def fetch(text: str, path: str, package_file: Path | None) -> str:
    """The Python source of a text; compiled only when no cache has it."""
    key = key_of(text)
    if package_file is not None:
        shipped = shipped_path(package_file, key)
        with contextlib.suppress(OSError, ValueError):
            return _checked(shipped.read_text(encoding="utf-8"))
    directory = _directory()
    entry = directory / f"{key}.py" if directory is not None else None
    if entry is not None and _trusted(entry):
        with contextlib.suppress(OSError, ValueError):
            return _checked(entry.read_text(encoding="utf-8"))
    source = compile_text(text, path)
    if entry is not None:
        _write(entry, source)
    return source


def compile_text(text: str, path: str) -> str:
    """Parse, check and generate. This is what imports lark."""
    from tinycore.rules.generate import generate
    from tinycore.rules.parse import parse

    return generate(parse(text, path))


def shipped_path(package_file: Path, key: str) -> Path:
    """Where the compiled form of a package's file is shipped."""
    return package_file.parent / "_compiled" / f"{package_file.stem}_{key}.py"


def _checked(data: str) -> str:
    head, _, source = data.partition("\n")
    if head != _HEAD + hashlib.sha256(source.encode()).hexdigest():
        raise ValueError("damaged")
    return source


def sealed(source: str) -> str:
    """The source with its checksum in the first line."""
    return f"{_HEAD}{hashlib.sha256(source.encode()).hexdigest()}\n{source}"


def _directory() -> Path | None:
    settings = config()
    if not settings.cache:
        return None
    root = settings.cache_directory or user_cache_directory() / "tinycore"
    directory = root / "rules"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return directory if _trusted(root) and _trusted(directory) else None


def _trusted(path: Path) -> bool:
    """Whether only this user can have written here."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if os.name == "nt":
        return True
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and not stat.S_ISLNK(status.st_mode)
    )


def _write(entry: Path, source: str) -> None:
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=entry.parent, suffix=".partial")  # mode 0600
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(sealed(source))
            os.replace(temporary, entry)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def natives_of(source: str) -> list[str]:
    """The names of the natives that a compiled source declares, without running it."""
    line = next(line for line in source.splitlines() if line.startswith("NATIVES = "))
    return list(ast.literal_eval(line.removeprefix("NATIVES = ")))

"""Compiled rules by content: beside the package (shipped in wheels), else in the user's cache.

The key covers the text, the rows of the op table that the text mentions, and the generator itself. Imported
groups are linked when a file is loaded, not compiled in, so their text is no part of it. An entry of the
user's cache is executed, so it is believed only from a directory and a file that belong to the user and that
nobody else may write, and only if its checksum is right. A cache that cannot be used costs time,
never an error.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import marshal
import os
import re
import stat
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from tinycore.config import config, user_cache_directory
from tinycore.errors import RuleSyntaxError
from tinycore.ir.ops import TABLE, Op
from tinycore.rules.infix import INFIX

_SOURCES = (
    "grammar.lark", "parse.py", "tree.py", "infix.py", "syntax.py", "expand.py", "check.py", "matcher.py", "express.py",
    "building.py", "shadow.py", "builtins.py", "template.py", "generate.py",
)  # fmt: skip
_OP_CLASSES = {"Elementwise", "Unary", "Binary", "Ternary", "Movement", "Comparison", "Commutative", "Monoid"}
_IMPLIED = {*INFIX.values(), "NEG", "CONST"}
"""Ops that a text may mean without naming them."""
_HEAD = "# tinycore compiled rules, sha256 "
_MAGIC = b"tinycore rules\0" + importlib.util.MAGIC_NUMBER


class CompiledText(NamedTuple):
    """The generated Python of a file; `code` is its bytecode where a cache had it."""

    source: str
    code: CodeType | None = None


@functools.cache
def generator_digest() -> str:
    """A digest of the code that turns text into Python."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _row(op: Op) -> str:
    facts = (op.elementwise, op.movement, op.commutative, op.associative, op.identity)
    return repr((op.name, op.operands, op.attributes, op.dtype, op.shape, *facts))


def key_of(text: str) -> str:
    """The key of a text: the rows that it mentions by name or by class are part of it."""
    words = set(re.findall(r"\b[A-Z][A-Za-z0-9_]*\b", text)) | _IMPLIED
    rows = sorted(_row(op) for op in TABLE.values() if op.name in words or words & _OP_CLASSES)
    return hashlib.sha256("\0".join((generator_digest(), *rows, text)).encode()).hexdigest()[:32]


def fetch(text: str, path: str, package_file: Path | None) -> CompiledText:
    """The Python source of a text; compiled only when no cache has it."""
    key = key_of(text)
    if package_file is not None:
        shipped = shipped_path(package_file, key)
        with contextlib.suppress(OSError, ValueError):
            source = _unsealed(shipped.read_text(encoding="utf-8"))
            return CompiledText(source, SourceFileLoader(shipped.stem, str(shipped)).get_code(shipped.stem))
    directory = _directory()
    entry = directory / f"{key}.rules" if directory is not None else None
    if entry is not None and _trusted(entry):
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            return _unpacked(entry.read_bytes())
    compiled = _compile(text, path)
    if entry is not None:
        _write(entry, _packed(compiled))
    return compiled


def compile_text(text: str, path: str) -> str:
    """Parse, check and generate: the Python of a text. Raises RuleSyntaxError and RuleCheckError."""
    return _compile(text, path).source


@functools.lru_cache(maxsize=2)
def _compile(text: str, path: str) -> CompiledText:
    # These two import lark.
    from tinycore.rules.generate import generate
    from tinycore.rules.parse import longest_line, parse, snippet

    file = parse(text, path)
    try:
        source = generate(file)
        return CompiledText(source, compile(source, f"<rules {path}>", "exec"))
    except (RecursionError, SyntaxError, MemoryError):  # Python's own limits on nesting
        hint = "name parts of the expression in a block: { a = ...; b = ...; a + b }"
        where = snippet(path, text, longest_line(text))
        raise RuleSyntaxError(
            "an expression or pattern is nested too deeply", where=where, hint=hint
        ) from None


# --- shipped with a package --------------------------------------------------------------------------------


def shipped_path(package_file: Path, key: str) -> Path:
    """Where the compiled form of a package's file is shipped."""
    return package_file.parent / "_compiled" / f"{package_file.stem}_{key}.py"


def ship(package_file: Path) -> Path:
    """Compile a package's file into the `_compiled` folder beside it; older forms of it are removed."""
    text = package_file.read_text(encoding="utf-8-sig")
    target = shipped_path(package_file, key_of(text))
    source = compile_text(text, package_file.name)
    target.parent.mkdir(exist_ok=True)
    for old in target.parent.glob(f"{package_file.stem}_{'[0-9a-f]' * 32}.py"):
        old.unlink()
    target.write_text(f"{_HEAD}{hashlib.sha256(source.encode()).hexdigest()}\n{source}", encoding="utf-8")
    return target


def _unsealed(data: str) -> str:
    head, _, source = data.partition("\n")
    if head != _HEAD + hashlib.sha256(source.encode()).hexdigest():
        raise ValueError("damaged")
    return source


# --- the user's cache --------------------------------------------------------------------------------------


def _packed(compiled: CompiledText) -> bytes:
    source, code = compiled.source.encode(), marshal.dumps(compiled.code)
    content = len(source).to_bytes(8, "little") + source + code
    return _MAGIC + hashlib.sha256(content).digest() + content


def _unpacked(data: bytes) -> CompiledText:
    start = len(_MAGIC) + 32
    content = data[start:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : start] != hashlib.sha256(content).digest():
        raise ValueError("damaged")
    end = 8 + int.from_bytes(content[:8], "little")
    code = marshal.loads(content[end:])
    if not isinstance(code, CodeType):
        raise ValueError("damaged")
    return CompiledText(content[8:end].decode(), code)


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
    if os.name == "nt":  # access there is by control lists; the user's own directory is private by default
        return True
    foreign = status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not foreign and not stat.S_ISLNK(status.st_mode)


def _write(entry: Path, data: bytes) -> None:
    import tempfile

    with contextlib.suppress(OSError):  # a full or read-only disk costs time next time
        handle, temporary = tempfile.mkstemp(dir=entry.parent, suffix=".partial")  # mode 0600
        try:
            with open(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, entry)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def natives_of(source: str) -> list[str]:
    """The names of the natives that a compiled source declares, without running it."""
    start = source.index("\nNATIVES = ") + len("\nNATIVES = ")
    return list(ast.literal_eval(source[start : source.index("\n", start)]))

"""Compiled things on disk, by content.

`DiskCache` maps a hex digest to bytes. Several processes may use one directory at the same time: an entry is
written to a temporary file beside its final name and renamed over it, so a reader sees all of it or nothing.
Nothing read back is believed before it is checked, because what is stored here is mapped as native code:
the directory must belong to the user and be writable by nobody else, and each entry carries a magic number,
its length and a checksum over namespace, key and content.

A cache never makes a program fail. A directory that cannot be used, a full disk or a damaged entry costs one
warning, and the work is done again.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     cache = DiskCache(Path(directory) / "kernels", "example")
...     cache.put("ab12", b"machine code")
...     cache.get("ab12"), cache.get("cd34")
(b'machine code', None)
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import stat
import struct
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinycore.config import config, user_cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x93TCENTR1"
HEADER = struct.Struct("<8sQ32s")
_numbers = itertools.count()
_warned: dict[Path, set[str]] = {}
"""What has been warned of, by root: namespaces have the trouble with their root in common."""
SUFFIX = ".entry"
PARTIAL = ".partial"
_KEY = re.compile(r"[0-9a-f]{4,128}\Z")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_TOUCH_SECONDS = 60.0
"""An entry's time of last use is renewed only when older than this: a get stays one open and one read."""
_STALE_SECONDS = 3600.0
"""A temporary file older than this was left by a process that died."""


class CacheWarning(UserWarning):
    """The disk cache could not be used as asked; results are right, work is repeated."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache did in this process, and what it holds on disk."""

    directory: Path
    usable: bool
    hits: int
    misses: int
    writes: int
    rejected: int
    """Entries that were damaged or foreign, and were removed."""
    entries: int
    bytes: int


class DiskCache:
    """A content-addressed cache in `directory`, safe among threads and processes.

    Parameters
    ----------
    directory:
        The root shared by all namespaces; None takes `config().cache_directory`, else `tinycore` in the
        user's cache directory. Created with mode 0700. A directory that another user owns, or that group or
        others may write, is refused with a `CacheWarning`.
    namespace:
        What kind of thing is stored: a sub-directory, and part of each entry's checksum.
    limit:
        Bytes that the whole root may take; None takes `config().cache_bytes`. The least recently used entries
        of all namespaces go first.

    Raises
    ------
    ValueError
        For a namespace that is not a plain lower-case name, or (from `get` and `put`) a key that is not a
        lower-case hex digest: such a key would be a caller's bug, and could name a file elsewhere.
    """

    def __init__(self, directory: Path | str | None, namespace: str, *, limit: int | None = None) -> None:
        if not _NAMESPACE.match(namespace):
            raise ValueError(f"cache namespace {namespace!r} is not a plain lower-case name")
        chosen = directory if directory is not None else config().cache_directory
        self.root = Path(chosen) if chosen is not None else user_cache_directory() / "tinycore"
        self.namespace = namespace
        self.directory = self.root / namespace
        self.limit = config().cache_bytes if limit is None else limit
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._hits = self._misses = self._writes = self._rejected = 0
        self._unswept: int | None = None  # bytes written since the last sweep; None before the first
        self._writable = True
        self.usable = self._prepare(self.root) and self._prepare(self.directory)

    # -- the interface

    def get(self, key: str) -> bytes | None:
        """The content stored under the hex digest `key`, or None. A damaged entry is removed: a miss."""
        path = self._path(key)
        content = self._read(key, path) if self.usable else None
        with self._lock:
            if content is None:
                self._misses += 1
            else:
                self._hits += 1
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store `content` under the hex digest `key`. Never fails: the first trouble is a `CacheWarning`."""
        path = self._path(key)
        if not (self.usable and self._writable):
            return
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._write(path, HEADER.pack(MAGIC, len(content), self._checksum(key, content)), content)
        except OSError as error:
            # A second attempt would fail for the same reason and cost time at every kernel.
            self._writable = False
            self._warn(
                "write",
                f"the disk cache cannot store to {self.directory} ({error.strerror or error}); "
                "going on without",
            )
            return
        with self._lock:
            self._writes += 1
            due = self._unswept is None or self._unswept + len(content) > self.limit // 16
            self._unswept = 0 if due else (self._unswept or 0) + len(content)
        if due:
            self._sweep()

    def stats(self) -> CacheStatistics:
        """Counts of this process, and the entries and bytes of this namespace on disk."""
        sizes = [size for _, size, path in self._entries(self.directory) if path.endswith(SUFFIX)]
        with self._lock:
            return CacheStatistics(
                self.directory, self.usable, self._hits, self._misses, self._writes, self._rejected,
                len(sizes), sum(sizes),
            )  # fmt: skip

    def clear(self) -> None:
        """Remove every entry of this namespace. Other processes see misses."""
        if self.usable:
            for _, _, path in list(self._entries(self.directory)):
                _remove(path)

    # -- reading and writing one entry

    def _path(self, key: str) -> Path:
        if not _KEY.match(key):
            raise ValueError(f"cache key {key!r} is not a lower-case hex digest")
        return self.directory / key[:2] / (key + SUFFIX)

    def _checksum(self, key: str, content: bytes) -> bytes:
        digest = hashlib.blake2b(digest_size=32, person=b"tinycore cache")
        digest.update(f"{self.namespace}\0{key}\0".encode())
        digest.update(content)
        return digest.digest()

    def _read(self, key: str, path: Path) -> bytes | None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_CLOEXEC", 0)
        try:
            with open(os.open(path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                problem = _distrust(status)
                data = b"" if problem else file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", f"the disk cache cannot read {path} ({error.strerror or error})")
            return None
        content = data[HEADER.size :]
        if problem is None:
            problem = self._damage(key, data, content)
        if problem is not None:
            with self._lock:
                self._rejected += 1
            self._warn("entry", f"the disk cache removed {path}: {problem}")
            _remove(path)
            return None
        if time.time() - status.st_mtime > _TOUCH_SECONDS:
            with contextlib.suppress(OSError):  # a read-only cache still serves
                os.utime(path)
        return content

    def _damage(self, key: str, data: bytes, content: bytes) -> str | None:
        if len(data) < HEADER.size:
            return f"it has {len(data)} bytes, fewer than its header"
        magic, length, checksum = HEADER.unpack_from(data)
        if magic != MAGIC:
            return "it was not written by this cache"
        if length != len(content):
            return f"it holds {len(content)} bytes instead of {length}"
        return None if checksum == self._checksum(key, content) else "its checksum is wrong"

    def _write(self, path: Path, header: bytes, content: bytes) -> None:
        # `tempfile` would do the same, and take a third of the time that a warm start has for imports.
        temporary = path.parent / f"{os.getpid()}-{threading.get_ident()}-{next(_numbers)}{PARTIAL}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(temporary, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(header)
                file.write(content)
            try:
                os.replace(temporary, path)
            except PermissionError:
                # Windows refuses while another process has the entry open; it is the same content then.
                if os.name != "nt" or not path.exists():
                    raise
                _remove(temporary)
        except BaseException:
            _remove(temporary)
            raise

    # -- the directory

    def _prepare(self, directory: Path) -> bool:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.stat(directory)
        except OSError as error:
            self._warn(
                "directory",
                f"the disk cache cannot use {directory} ({error.strerror or error}); going on without. "
                "Set TINYCORE_CACHE_DIR to a directory of your own, or TINYCORE_CACHE=0",
            )
            return False
        problem = _distrust(status)
        if problem is None:
            return True
        fix = "set TINYCORE_CACHE_DIR to a directory of your own"
        if "writable" in problem and not status.st_mode & stat.S_ISVTX:  # never for /tmp and its like
            fix = f"run: chmod go-w {directory}"
        self._warn("directory", f"the disk cache refuses {directory}: {problem}; {fix}")
        return False

    def _entries(self, directory: Path) -> Iterator[tuple[float, int, str]]:
        """(time of last use, bytes, path) of every file below, in no order; vanishing files are skipped."""
        pending = [os.fspath(directory)]
        while pending:
            try:
                with os.scandir(pending.pop()) as found:
                    for item in found:
                        if item.is_dir(follow_symlinks=False):
                            pending.append(item.path)
                        elif item.name.endswith((SUFFIX, PARTIAL)):
                            with contextlib.suppress(FileNotFoundError):
                                status = item.stat(follow_symlinks=False)
                                yield status.st_mtime, status.st_size, item.path
            except OSError:  # removed by another process, or not ours to read: nothing to evict there
                continue

    def _sweep(self) -> None:
        """Remove what was least recently used until an eighth of the limit is free; once in many writes."""
        now = time.time()
        kept: list[tuple[float, int, str]] = []
        for used, size, path in self._entries(self.root):
            if path.endswith(SUFFIX):
                kept.append((used, size, path))
            elif now - used > _STALE_SECONDS:
                _remove(path)
        total = sum(size for _, size, _ in kept)
        if total <= self.limit:
            return
        for _, size, path in sorted(kept):
            if total <= self.limit - self.limit // 8:
                break
            _remove(path)
            total -= size

    def _warn(self, kind: str, message: str) -> None:
        with self._lock:
            warned = self._warned if kind == "entry" else _warned.setdefault(self.root, set())
            first = kind not in warned
            warned.add(kind)
        if first:
            warnings.warn(message, CacheWarning, stacklevel=4)


def open_cache(namespace: str) -> DiskCache | None:
    """The cache that the settings ask for, or None when `TINYCORE_CACHE=0`."""
    return DiskCache(None, namespace) if config().cache else None


def _distrust(status: os.stat_result) -> str | None:
    """Why a file or directory with this status may have been written by someone else, or None."""
    if os.name == "nt":  # access there is by control lists; the user's own directory is private by default
        return None
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to you ({os.geteuid()})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"it is writable by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def _remove(path: str | Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or not ours: either way not served
        os.unlink(path)

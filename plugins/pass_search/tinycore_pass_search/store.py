"""What searches found, on disk: one checked JSON entry a kernel, target and version of the actions.

The entries lie beside the compiled kernels (`TINYCORE_CACHE_DIR`), are written to a temporary file and renamed,
and carry a checksum; a damaged one is removed with a warning and the kernel is compiled as if nothing was known.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinycore.codegen.tiling import Action
from tinycore.config import config, user_cache_directory
from tinycore.errors import DataError
from tinycore.ir import Target, UOp, ops
from tinycore.ir.text import digest
from tinycore.runtime.cache import CacheWarning, DiskCache
from tinycore_pass_search.actions import from_json, to_json, version

FORMAT = 1
NAMESPACE = "search"


@dataclass(frozen=True, slots=True)
class Record:
    """The best tiling that was found for a kernel on a target.

    Attributes
    ----------
    kernel, target: names, for people.
    base: the actions that it was measured against; when those change, the record says nothing any more.
    actions: the fastest that was found; `base` itself when nothing was faster.
    before, after: seconds of both, measured in turns.
    tried: how many candidates were measured, and `seed` the seed of their order.
    """

    kernel: str
    target: str
    base: tuple[Action, ...]
    actions: tuple[Action, ...]
    before: float
    after: float
    tried: int
    seed: int

    @property
    def improved(self) -> bool:
        """Whether the search found something faster."""
        return self.actions != self.base


def name_of(kernel: UOp) -> str:
    """A short name for people: what it is, the shape of its result, and a digest of its content."""
    buffer = kernel.src[-1].src[0]
    shape = "x".join(str(d) if isinstance(d, int) else "n" for d in buffer.arg[1]) or "scalar"
    return f"{'reduce' if kernel.mask & ops.REDUCE.bit else 'each'} {shape} {digest(kernel)[:8]}"


def key_of(kernel: UOp, target: Target) -> str:
    """The hex digest that a kernel's record is stored under."""
    threads = target.capabilities.threads
    parts = (digest(kernel), target.name, target.architecture, target.fingerprint, str(threads), version())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()


class Store:
    """Records in memory, and on disk in `directory`; None for memory only.

    >>> Store(None).load("ab12") is None
    True
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._known: dict[str, Record] = {}

    @functools.cached_property
    def _disk(self) -> DiskCache | None:
        return None if self._directory is None else DiskCache(self._directory, NAMESPACE)

    @functools.cached_property
    def _filled(self) -> bool:
        directory = None if self._directory is None else self._directory / NAMESPACE
        return directory is not None and directory.is_dir() and next(directory.iterdir(), None) is not None

    @property
    def empty(self) -> bool:
        """Whether there is no record at all: then a start costs nothing. The disk is looked at once."""
        return not (self._known or self._filled)

    def load(self, key: str) -> Record | None:
        """The record of a key; None, with a warning, for an entry that is no record."""
        found = self._known.get(key)
        if found is not None or self._disk is None:
            return found
        content = self._disk.get(key)
        if content is None:
            return None
        try:
            record = unpack(content)
        except DataError as error:
            warnings.warn(f"a stored search result is ignored: {error.what}", CacheWarning, stacklevel=2)
            return None
        self._known[key] = record
        return record

    def save(self, key: str, record: Record) -> None:
        """Keep a record. Never fails; the first trouble with the disk is a `CacheWarning`."""
        self._known[key] = record
        if self._disk is not None:
            self._disk.put(key, pack(record))

    def forget(self) -> None:
        """Remove every record."""
        self._known.clear()
        if self._disk is not None:
            self._disk.clear()

    def records(self) -> Iterator[Record]:
        """Every record on disk that can be read."""
        if self._disk is not None:
            for path in sorted(self._disk.directory.glob("*/*.entry")):
                record = self.load(path.stem)
                if record is not None:
                    yield record


def pack(record: Record) -> bytes:
    """A record as JSON."""
    data = {
        "format": FORMAT,
        "kernel": record.kernel,
        "target": record.target,
        "base": to_json(record.base),
        "actions": to_json(record.actions),
        "before": record.before,
        "after": record.after,
        "tried": record.tried,
        "seed": record.seed,
    }
    return json.dumps(data, separators=(",", ":")).encode()


def unpack(content: bytes) -> Record:
    """What `pack` wrote. Raises DataError for anything else."""
    try:
        data = json.loads(content)
        if data["format"] != FORMAT:
            raise DataError("it has another format")
        return Record(
            str(data["kernel"]),
            str(data["target"]),
            from_json(data["base"]),
            from_json(data["actions"]),
            float(data["before"]),
            float(data["after"]),
            int(data["tried"]),
            int(data["seed"]),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"it is not a record ({type(error).__name__})") from None


@functools.cache
def _store(directory: Path | None) -> Store:
    return Store(directory)


def store() -> Store:
    """The records of the settings in force; in memory only where `TINYCORE_CACHE=0`."""
    directory = config().cache_directory or user_cache_directory() / "tinycore"
    return _store(directory if config().cache else None)

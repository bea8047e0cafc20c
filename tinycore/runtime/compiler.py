"""Kernels to loaded code, with a memory cache and a disk cache in front of the compiler.

The disk entry of a kernel holds everything that a launch needs (code, argument list, grid), so a warm start
runs no pass and imports no compiler. The key covers whatever can change the code: the kernel, the target's
fingerprint, the versions of the core and of every plugin, the rules, and the rules that a user added.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import json
import os
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tinycore.codegen.compile import lower
from tinycore.codegen.program import Program
from tinycore.config import config
from tinycore.errors import CompileError, DataError, TinycoreError
from tinycore.ir import Dim, Target, UOp, dtypes, ops
from tinycore.ir.text import digest, parse, print_graph
from tinycore.rules.doors import Observer
from tinycore.runtime import report
from tinycore.runtime.cache import CacheWarning, DiskCache, open_cache
from tinycore.runtime.device import Device, Executable, Signature
from tinycore.runtime.environment import environment, validation
from tinycore.runtime.joined import joined, lowering_digests, lowering_key

FORMAT = 1
_HEADER = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Compiled:
    """Loaded code and what a launch needs to know.

    Attributes
    ----------
    name: the kernel's name, as shown at DEBUG=2.
    executable: loaded code.
    variables: the integer arguments, in order.
    grid: bounds of the grid, possibly symbolic.
    operations, traffic: estimates for reports.
    buffers: how many there are.
    key: of its entry in the disk cache; empty without one.
    """

    name: str
    executable: Executable
    variables: tuple[UOp, ...]
    grid: tuple[Dim, ...]
    operations: Dim
    traffic: Dim
    buffers: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is cached on disk."""

    binary: bytes
    signature: Signature
    variables: tuple[UOp, ...]
    grid: tuple[Dim, ...]
    operations: Dim
    traffic: Dim


_Key: TypeAlias = tuple[UOp, str, bool, tuple[object, ...]]
_loaded: dict[_Key, Compiled] = {}
_by_key: dict[tuple[str, str], Compiled] = {}
"""What came from the disk cache, by device and key."""
compile_hooks: list[Callable[[UOp, Program, str], None]] = []
"""Called with (kernel, program, source) after each real compilation: DEBUG=4, ledgers, tests."""


def compile_kernel(kernel: UOp, device: Device) -> Compiled:
    """The loaded code of a canonical kernel. Raises CompileError."""
    return compile_kernels([(kernel, device)])[0]


def compile_kernels(wanted: Sequence[tuple[UOp, Device]]) -> list[Compiled]:
    """The loaded code of canonical kernels, in order; equal ones are compiled once. Raises CompileError.

    Several that are new are lowered here, while another thread runs the backend's compiler on the one before.
    """
    plugins = lowering_key()
    keys = [(kernel, device.name, config().validate, plugins) for kernel, device in wanted]
    new: list[tuple[_Key, UOp, Device]] = []
    for key, (kernel, device) in dict(zip(keys, wanted, strict=True)).items():
        if key not in _loaded and not _find(key, kernel, device):
            new.append((key, kernel, device))
    if new:
        with _compilers(len(new)) as start:
            jobs = [(key, device, _Job(kernel, device, start)) for key, kernel, device in new]
            for key, device, job in jobs:
                _loaded[key] = _finish(job, device)
    return [_loaded[key] for key in keys]


def forget_loaded() -> None:
    """Drop all loaded code and every plan (tests and benchmarks of cold starts)."""
    from tinycore.runtime.plan import forget_plans

    _loaded.clear()
    _by_key.clear()
    forget_plans()


def _find(key: _Key, kernel: UOp, device: Device) -> bool:
    """Load a kernel from the disk cache, where that has it."""
    settings = config()  # what is to be printed, checked or searched has to be compiled
    if _cache() is None or settings.debug >= 3 or settings.validate or settings.search:
        return False
    begin = time.perf_counter()
    found = load_kernel(cache_key(kernel, device.target), device)
    if found is None:
        return False
    _loaded[key] = found
    _report(found, device, begin, "loaded from the cache")
    return True


def load_kernel(key: str, device: Device) -> Compiled | None:
    """The code that the disk cache has under a key, where it has it."""
    found = _by_key.get((device.name, key))
    cache = _cache()
    if found is not None or cache is None:
        return found
    content = cache.get(key)
    if content is None:
        return None
    try:
        found = _ready(_unpack(content), device, key)
    except (DataError, CompileError) as error:
        _warn_of_entry(error.what)
        return None
    _by_key[device.name, key] = found
    return found


def _ready(entry: _Entry, device: Device, key: str = "") -> Compiled:
    signature = entry.signature
    executable = device.load(entry.binary, signature)
    return Compiled(
        signature.name,
        executable,
        entry.variables,
        entry.grid,
        entry.operations,
        entry.traffic,
        signature.buffers,
        key,
    )


def _report(compiled: Compiled, device: Device, begin: float, how: str) -> None:
    if config().debug >= 2:
        report.compiled(compiled.name, device.name, time.perf_counter() - begin, how)


@functools.cache
def _warn_of_entry(problem: str) -> None:
    warnings.warn(
        f"an entry of the kernel cache was of no use, and is replaced: {problem}", CacheWarning, stacklevel=2
    )


_Start: TypeAlias = "Callable[[Callable[[], bytes]], Callable[[], bytes]]"
"""Starts to make some bytes; the answer waits for them."""


@contextlib.contextmanager
def _compilers(count: int) -> Iterator[_Start]:
    """What runs a backend's compiler: at once, or in a thread when there are several kernels to compile."""
    settings = config()
    if count < 2 or settings.debug >= 2 or settings.search:  # somebody wants to know how long it takes
        yield _at_once
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1, "tinycore-compile")  # compilers are not asked to be safe among threads
    with _short_turns:
        try:
            yield lambda make: pool.submit(contextvars.copy_context().run, make).result
        finally:
            pool.shutdown(cancel_futures=True)


class _ShortTurns:
    """Threads take turns more often than each 5 ms, which the calls into a compiler would wait for each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._usual = 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, 0.0002))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._usual)


_short_turns = _ShortTurns()


def _at_once(make: Callable[[], bytes]) -> Callable[[], bytes]:
    binary = make()
    return lambda: binary


class _Job:
    """A kernel that is lowered, and whose code is being made."""

    def __init__(self, kernel: UOp, device: Device, start: _Start) -> None:
        self.kernel, self.begin = kernel, time.perf_counter()
        self.program = lower(kernel, device.target, joined().doors, observers(device.target))
        source = device.render(self.program)
        for hook in compile_hooks:
            hook(kernel, self.program, source)
        if config().debug >= 3:
            report.actions(self.program.name, self.program.linear.arg or ())
        if config().debug >= 4:
            report.code(source)
        self.binary = start(functools.partial(device.compile, source, self.program.name))

    def entry(self) -> _Entry:
        """The code, when it is there."""
        program = self.program
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        return _Entry(
            self.binary(), signature, program.variables, program.grid, program.operations, program.traffic
        )


def _finish(job: _Job, device: Device) -> Compiled:
    """Store what a job made on disk, and load it."""
    entry = job.entry()
    cache = _cache()
    key = cache_key(job.kernel, device.target) if cache is not None else ""
    if cache is not None:
        cache.put(key, _pack(entry))
    compiled = _ready(entry, device, key)
    _report(compiled, device, job.begin, "compiled")
    return compiled


def observers(target: Target) -> tuple[Observer, ...]:
    """What watches the passes of a kernel: validation when it is asked for, the printer at DEBUG=5."""
    found: list[Observer] = []
    if config().debug >= 5:
        found.append(report.passed)
    if config().validate:
        found.append(validation().kernel(target))
    return tuple(found)


def tensor_observers() -> tuple[Observer, ...]:
    """What watches the passes over the tensor graph."""
    found: list[Observer] = []
    if config().debug >= 5:
        found.append(report.passed)
    if config().validate:
        found.append(validation().tensors())
    return tuple(found)


@functools.cache
def _cache_for(directory: Path | None) -> DiskCache | None:
    return open_cache("kernels")


def _cache() -> DiskCache | None:
    return _cache_for(config().cache_directory) if config().cache else None


def cache_key(kernel: UOp, target: Target) -> str:
    """A hex digest of everything that decides what code a kernel becomes."""
    known = environment()
    parts = [
        str(FORMAT),
        digest(kernel),
        target.name,
        target.architecture,
        target.fingerprint,
        compiler_digest(known.sources),
        repr(known.versions),
        *lowering_digests(),
    ]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()


@functools.cache
def compiler_digest(sources: tuple[Path, ...]) -> str:
    """Of every file of the compiler and its plugins: a developer's edit must never meet old code."""
    import tinycore

    root = Path(tinycore.__file__).parent
    hashed = hashlib.blake2b(digest_size=16)
    for folder in (
        *[root / room for room in ("ir", "rules", "passes", "codegen", "schedule", "runtime")],
        *sources,
    ):
        for where, inner, names in os.walk(folder):  # every warm start waits for this
            inner[:] = sorted(name for name in inner if name != "_compiled")
            for name in sorted(names):
                if name.endswith((".py", ".rules", ".lark")):
                    path = os.path.join(where, name)
                    hashed.update(os.path.relpath(path, folder).encode())
                    with open(path, "rb") as file:
                        hashed.update(file.read())
    return hashed.hexdigest()


def _pack(entry: _Entry) -> bytes:
    numbers = UOp(
        ops.SINK,
        dtypes.void,
        (*entry.variables, *[_node(dim) for dim in (*entry.grid, entry.operations, entry.traffic)]),
        None,
    )
    signature = entry.signature
    header = json.dumps(
        {
            "name": signature.name,
            "buffers": signature.buffers,
            "variables": signature.variables,
            "group": signature.group,
            "grid": len(entry.grid),
            "numbers": print_graph(numbers),
        }
    ).encode()
    return _HEADER.pack(FORMAT, len(header)) + header + entry.binary


def _node(dim: Dim) -> UOp:
    from tinycore.ir.dims import to_node

    return to_node(dim)


def _unpack(content: bytes) -> _Entry:
    """What `_pack` packed. Raises DataError for anything else."""
    try:
        return _unpack_format(content)
    except (ValueError, LookupError, TypeError, TinycoreError):
        raise DataError("a cache entry has another format") from None


def _unpack_format(content: bytes) -> _Entry:
    from tinycore.ir.dims import to_dim

    if len(content) < _HEADER.size:
        raise DataError("a cache entry is too short")
    version, length = _HEADER.unpack_from(content)
    if version != FORMAT or _HEADER.size + length > len(content):
        raise DataError("a cache entry has another format")
    header = json.loads(content[_HEADER.size : _HEADER.size + length])
    nodes = parse(header["numbers"]).src
    count, grid = header["variables"], header["grid"]
    numbers = [to_dim(node) for node in nodes[count:]]
    signature = Signature(header["name"], header["buffers"], count, tuple(header["group"]))
    return _Entry(
        content[_HEADER.size + length :],
        signature,
        tuple(nodes[:count]),
        tuple(numbers[:grid]),
        numbers[grid],
        numbers[grid + 1],
    )

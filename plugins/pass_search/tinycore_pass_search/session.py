"""The pass, and when it measures: `TINYCORE_SEARCH=seconds`, or a block `with tuned(...)`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinycore.codegen.pipeline import AFTER_TILE, Context
from tinycore.codegen.tiling import Action, apply, ranges_of
from tinycore.config import config, override
from tinycore.errors import TinycoreError
from tinycore.ir import UOp
from tinycore.runtime.cache import CacheWarning
from tinycore.runtime.compiler import forget_loaded
from tinycore_pass_search.store import Record, key_of, name_of, store

if TYPE_CHECKING:
    from tinycore_pass_search.child import Child
    from tinycore_pass_search.climb import Clock
    from tinycore_pass_search.progress import Progress

KERNEL_SECONDS = 10.0
LEAST_SECONDS = 1e-5
"""Kernels that take less are as fast as a launch; time is better spent on others."""
SHARE = 5000.0
"""Seconds of searching for each second of a kernel: those that take long gain most."""


class SearchWarning(UserWarning):
    """A kernel could not be searched; it is compiled as if nothing had been asked for."""


@dataclass
class Tuning:
    """A search that is under way.

    Attributes
    ----------
    kernel_seconds: the time box of one kernel.
    seed: of the order in which candidates are tried.
    again: search kernels that have a stored result, too.
    records: what was found or known, by the kernel's name, in the order of compilation.
    """

    clock: Clock
    progress: Progress
    child: Child
    kernel_seconds: float = KERNEL_SECONDS
    seed: int = 0
    again: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


_active: ContextVar[Tuning | None] = ContextVar("tinycore_pass_search", default=None)


def run(kernel: UOp, context: Context) -> UOp:
    """The kernel with the best actions that are known for it; without any it is left to `pass_tile`.

    Measures when asked to, see `tuned`. It never raises because of a search.
    """
    measuring = config().search > 0
    known = store()
    if kernel.arg or not ranges_of(kernel) or (known.empty and not measuring):
        return kernel
    key = key_of(kernel, context.target)
    record = known.load(key)
    if record is None and not measuring:
        return kernel
    base = _base(kernel, context)
    if base is None:
        if measuring:
            _warn(name_of(kernel), "its tiling cannot be replayed as a list of actions")
        return kernel
    if record is not None and record.base != base:
        record = None
    tuning = _tuning() if measuring else None
    if tuning is not None and (record is None or (tuning.again and key not in tuning.done)):
        record = _search(kernel, context, base, tuning) or record
        tuning.done.add(key)
        if record is not None:
            known.save(key, record)
    if record is None:
        return kernel
    if tuning is not None:
        tuning.records[record.kernel] = record
    return _applied(kernel, record) if record.improved else kernel


def _base(kernel: UOp, context: Context) -> tuple[Action, ...] | None:
    """What `pass_tile` chooses; None when its choice cannot be replayed as actions."""
    tiled = kernel
    for door in context.plugins.get("tile", ()):
        if door.id == "tile":
            tiled = door.run(kernel, context)
    actions = tuple(tiled.arg or ())
    try:
        replayed = apply(kernel, actions)
    except TinycoreError:
        return None
    if replayed.src != tiled.src:  # it may have simplified between actions
        for step in AFTER_TILE:
            tiled, replayed = step.run(tiled, context), step.run(replayed, context)
    return actions if replayed.src == tiled.src else None


def _applied(kernel: UOp, record: Record) -> UOp:
    try:
        return apply(kernel, record.actions)
    except TinycoreError as error:
        warnings.warn(
            f"a stored search result does not fit its kernel, and is ignored: {error.what}",
            CacheWarning,
            stacklevel=2,
        )
        return kernel


def _search(kernel: UOp, context: Context, base: Sequence[Action], tuning: Tuning) -> Record | None:
    """Measure, unless time is up or this kernel cannot be measured here."""
    from tinycore.rules.doors import extra_doors
    from tinycore.runtime.environment import STAGES
    from tinycore_pass_search.child import ChildMeasurer
    from tinycore_pass_search.climb import climb

    seconds = min(tuning.kernel_seconds, tuning.clock.left)
    if seconds <= 0:
        return None
    name = name_of(kernel)
    if any(extra_doors(stage) for stage in STAGES):
        _warn(name, "rules of extra_rules are in force, which the measuring process does not have")
        return None
    capabilities = context.target.capabilities
    measurer = ChildMeasurer(tuning.child, kernel, context.target)
    try:
        with tuning.progress.kernel(name, seconds) as show:
            outcome = climb(
                kernel,
                base,
                capabilities,
                measurer,
                seconds,
                tuning.seed,
                show,
                least=LEAST_SECONDS,
                share=SHARE,
            )
    except TinycoreError as error:
        _warn(name, f"{error.what}: {error.hint}" if error.hint else error.what)
        return None
    tuning.progress.found(name, outcome)
    tried = sum(outcome.tried.values())
    actions = outcome.actions
    return Record(
        name, context.target.name, tuple(base), actions, outcome.before, outcome.after, tried, tuning.seed
    )


def _warn(name: str, why: str) -> None:
    warnings.warn(f"{name} is not searched: {why}", SearchWarning, stacklevel=2)


def _tuning() -> Tuning:
    return _active.get() or _of_process()


@functools.cache
def _of_process() -> Tuning:
    """The search that `TINYCORE_SEARCH` asks for; its time counts from the first kernel."""
    tuning = _make(config().search, KERNEL_SECONDS, 0, False, False)
    atexit.register(tuning.child.close)
    return tuning


def _make(seconds: float, kernel_seconds: float, seed: int, quiet: bool, again: bool) -> Tuning:
    from tinycore_pass_search.child import Child
    from tinycore_pass_search.climb import Clock
    from tinycore_pass_search.progress import Progress

    progress = Progress(quiet)
    progress.begin(seconds, seed)
    return Tuning(Clock(seconds), progress, Child(), kernel_seconds, seed, again)


@contextlib.contextmanager
def tuned(
    seconds: float = 60.0,
    *,
    kernel_seconds: float = KERNEL_SECONDS,
    seed: int = 0,
    quiet: bool = False,
    again: bool = False,
) -> Iterator[Tuning]:
    """Kernels that are compiled in this block are searched for a faster tiling first.

    Parameters
    ----------
    seconds: time box of all kernels together.
    kernel_seconds: time box of one kernel.
    seed: of the order in which candidates are tried; the same seed tries the same ones.
    quiet: show no progress.
    again: search kernels that have a stored result, too.

    Yields the `Tuning`; its `records` name what was found. Results are kept on disk, and used from then on by
    every process with the same cache directory, without measuring. What was captured before (`jit`) keeps its
    kernels: capture inside the block.

    Raises ValueError for a time box that is not positive.

    >>> with tuned(5, quiet=True) as tuning:
    ...     pass
    >>> tuning.records
    {}
    """
    if seconds <= 0 or kernel_seconds <= 0:
        raise ValueError("a search needs more than 0 seconds")
    tuning = _make(seconds, kernel_seconds, seed, quiet, again)
    token = _active.set(tuning)
    forget_loaded()
    try:
        with override(search=max(1, round(seconds))):
            yield tuning
    finally:
        _active.reset(token)
        tuning.child.close()
        tuning.progress.end()

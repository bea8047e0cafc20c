"""Work on rules in several processes, with a progress bar when somebody is watching."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from tinycore_tools_rules.sources import Unit, open_source, units_of

T = TypeVar("T")
FEW = 3
"""So few rules are done in this process: starting others would take longer."""


@functools.lru_cache(maxsize=64)
def _units(word: str) -> list[Unit]:
    return units_of(open_source(word))


def _work(task: Callable[..., T], word: str, identity: str, options: dict[str, Any]) -> T:
    unit = next(unit for unit in _units(word) if unit.identity == identity)
    return task(unit, **options)


def each_rule(
    task: Callable[..., T], units: Sequence[Unit], jobs: int | None = None, **options: Any
) -> Iterator[tuple[Unit, T]]:
    """``task(unit, **options)`` of every rule, in any order; `task` is a function of a module."""
    count = min(jobs or os.cpu_count() or 1, len(units))
    if count <= 1 or len(units) <= FEW:
        for unit in units:
            yield unit, task(unit, **options)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        pending = {pool.submit(_work, task, unit.source.name, unit.identity, options): unit for unit in units}
        for future in as_completed(pending):
            yield pending[future], future.result()


def watched(items: Iterator[T], total: int, title: str) -> Iterator[T]:
    """The same items, with a progress bar on a terminal."""
    if total <= FEW or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, title, total, console=Console(stderr=True), transient=True)

"""What a search shows on standard error: a bar for the kernel under way, a line for each that is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from tinycore_pass_search.climb import Outcome

Show = Callable[[float, float, int], None]


def show_time(seconds: float) -> str:
    """Seconds for people.

    >>> show_time(0.00012), show_time(0.0123), show_time(3)
    ('120.0 us', '12.30 ms', '3.00 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


class Progress:
    """Shows searches; with `quiet`, nothing. A bar is drawn on a terminal only, lines everywhere."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(stderr=True, highlight=False)
        self._open = False

    def begin(self, seconds: float, seed: int) -> None:
        """What is about to happen; the line is printed with the first kernel."""
        self._opening = f"searching tilings for at most {seconds:g} s, seed {seed}"

    @contextlib.contextmanager
    def kernel(self, name: str, seconds: float) -> Iterator[Show]:
        """A bar for one kernel; what it yields is told about every candidate."""
        if self._quiet:
            yield lambda first, best, tried: None
            return
        if not self._open:
            self._open = True
            self._console.print(self._opening)
        if not self._console.is_terminal:
            yield lambda first, best, tried: None
            return
        columns = (TextColumn("{task.description:30}"), BarColumn(), TextColumn("{task.fields[state]}"))
        start = time.monotonic()
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(name, total=seconds, state="")

            def show(first: float, best: float, tried: int) -> None:
                state = f"{tried} tried, {show_time(first)} -> {show_time(best)}"
                bars.update(task, completed=min(seconds, time.monotonic() - start), state=state)

            yield show

    def found(self, name: str, outcome: Outcome) -> None:
        """A kernel is done. Nothing is said of those that take too little to be searched: there are many."""
        if self._quiet or not outcome.tried:
            return
        counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.tried.items()))
        if outcome.actions == outcome.base:
            result = f"{show_time(outcome.before)}, nothing faster"
        else:
            result = f"{show_time(outcome.before)} -> {show_time(outcome.after)} ({outcome.speedup:.2f} times faster)"
        self._console.print(f"{name:30} {result}; {counts}", soft_wrap=True)

    def end(self) -> None:
        """Nothing more is shown."""

"""How much resident memory a piece of code takes at its peak, beyond what was there before.

Linux keeps the peak of a process in /proc and forgets it when asked to; elsewhere there is no answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Filled when the block ends; None where the system does not tell."""

    grown: int | None = None
    total: int | None = None


def resident() -> tuple[int, int] | None:
    """(bytes now, bytes at the peak), or None."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    try:
        return tuple(int(found[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    except KeyError:
        return None


@contextlib.contextmanager
def peak() -> Iterator[Peak]:
    """What the block takes: `grown` beyond what the process had, `total` of the process."""
    answer = Peak()
    before = None
    with contextlib.suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")
        before = resident()
    try:
        yield answer
    finally:
        after = resident()
        if before is not None and after is not None:
            answer.grown, answer.total = max(0, after[1] - before[0]), after[1]

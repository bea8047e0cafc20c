"""All rows, by name. Every module holds one family in `ROWS`."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from benchmarks.model import Row
from benchmarks.rows import (
    attention,
    convnets,
    convolution,
    elementwise,
    graphs,
    indexing,
    matmul,
    neighbours,
    networks,
    reductions,
    sequences,
)

MODULES = (
    matmul,
    elementwise,
    reductions,
    convolution,
    attention,
    indexing,
    networks,
    convnets,
    graphs,
    neighbours,
    sequences,
)
ROWS: dict[str, Row] = {row.name: row for module in MODULES for row in module.ROWS}


def select(names: Sequence[str], suites: Sequence[str]) -> list[Row]:
    """Rows by name, family or pattern, in the order of the table; all of the suites for no names.
    Raises KeyError with the first name that fits no row.
    """
    for name in names:
        if not any(_fits(row, name) for row in ROWS.values()):
            raise KeyError(name)
    return [
        row
        for row in ROWS.values()
        if (any(_fits(row, name) for name in names) if names else row.suite in suites)
    ]


def _fits(row: Row, name: str) -> bool:
    if name == row.family:
        return row.suite not in ("sweep", "compile")  # asked for by pattern or by suite
    return fnmatch.fnmatchcase(row.name, name)

"""Reading at indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.model import Row
from benchmarks.rows.data import integers, nbytes, one

TABLE, PLACES = (50257, 768), (8, 1024)


def _arguments(generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    return one(generator, TABLE), integers(generator, TABLE[0], PLACES)


def _elements(generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    return one(generator, (1 << 22,)), integers(generator, 1 << 22, (1 << 20,))


def _embedding(kit: Any, table: Any, places: Any) -> Any:
    return kit.take(table, places)


def _gather(kit: Any, source: Any, places: Any) -> Any:
    return source[kit.index(places)] if hasattr(kit, "index") else source[places]


ROWS = (
    Row(
        "embedding.8x1024x768",
        "8x1024 rows of a 50257x768 table",
        "more",
        _arguments,
        _embedding,
        tolerance=0.0,
        traffic=2 * nbytes((*PLACES, 768)),
    ),
    Row(
        "gather.1m",
        "1M elements out of 4M",
        "more",
        _elements,
        _gather,
        tolerance=0.0,
        traffic=nbytes((1 << 20,)) * 4,
    ),
)

"""Attention by itself."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal

SHAPE = (8, 8, 256, 64)


def _attention(kit: Any, q: Any, k: Any, v: Any) -> Any:
    return kit.attention(q, k, v)


def _causal(kit: Any, q: Any, k: Any, v: Any) -> Any:
    return kit.attention(q, k, v, causal=True)


ROWS = tuple(
    Row(
        name,
        f"{what} {'x'.join(map(str, SHAPE))}",
        suite,
        normal(SHAPE, SHAPE, SHAPE),
        compute,
        tolerance=1e-5,
        operations=4.0 * 64 * 256 * 256 * 64,
        traffic=nbytes(*[SHAPE] * 4),
    )
    for name, what, suite, compute in (
        ("attention.8x8x256x64", "attention", "design", _attention),
        ("attention.causal", "causal attention", "more", _causal),
    )
)

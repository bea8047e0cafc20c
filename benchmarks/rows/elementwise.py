"""Elementwise chains and movement."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal

MANY = (1 << 24,)
SQUARE = (4096, 4096)


def _chain(kit: Any, a: Any, b: Any) -> Any:
    return kit.relu(a * 2 + b) * a - b * 0.5


def _exp(kit: Any, x: Any) -> Any:
    return kit.exp(x)


def _exp_into(kit: Any, out: Any, x: Any) -> Any:
    return kit.exp(x, out=out)


def _transposed(kit: Any, a: Any, b: Any) -> Any:
    return kit.add(kit.transpose(a), b)


def _transposed_into(kit: Any, out: Any, a: Any, b: Any) -> Any:
    return kit.add(kit.transpose(a), b, out=out)


ROWS = (
    Row(
        "relu_chain.16m",
        "relu(a*2+b)*a-b*0.5, 16M",
        "design",
        normal(MANY, MANY),
        _chain,
        tolerance=1e-6,
        traffic=nbytes(MANY, MANY, MANY),
    ),
    Row(
        "exp.16m",
        "exp, 16M",
        "design",
        normal(MANY),
        _exp,
        _exp_into,
        tolerance=1e-6,
        traffic=nbytes(MANY, MANY),
    ),
    Row(
        "transpose_add.4096",
        "a.T + b, 4096x4096",
        "design",
        normal(SQUARE, SQUARE),
        _transposed,
        _transposed_into,
        tolerance=1e-6,
        traffic=nbytes(SQUARE, SQUARE, SQUARE),
    ),
)

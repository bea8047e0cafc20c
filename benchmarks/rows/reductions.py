"""Sums, softmax, normalisation, argmax, running sums."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal

SQUARE = (4096, 4096)
TOKENS = (4096, 1024)


def _sum(kit: Any, x: Any) -> Any:
    return kit.sum(x)


def _sum_columns(kit: Any, x: Any) -> Any:
    return kit.sum(x, 0)


def _sum_columns_into(kit: Any, out: Any, x: Any) -> Any:
    return kit.sum(x, 0, out=out)


def _softmax(kit: Any, x: Any) -> Any:
    return kit.softmax(x)


def _layer_norm(kit: Any, x: Any, weight: Any, bias: Any) -> Any:
    return kit.layer_norm(x, weight, bias)


def _argmax(kit: Any, x: Any) -> Any:
    return kit.argmax(x, 1)


def _cumsum(kit: Any, x: Any) -> Any:
    return kit.cumsum(x, 1)


ROWS = (
    Row("sum.16m", "sum, 16M", "design", normal((1 << 24,)), _sum, tolerance=1e-4, traffic=nbytes(SQUARE)),
    Row(
        "sum.axis0",
        "sum over axis 0, 4096x4096",
        "design",
        normal(SQUARE),
        _sum_columns,
        _sum_columns_into,
        tolerance=1e-5,
        traffic=nbytes(SQUARE),
    ),
    Row(
        "softmax.4096",
        "softmax 4096x4096",
        "design",
        normal(SQUARE),
        _softmax,
        tolerance=1e-5,
        traffic=nbytes(SQUARE, SQUARE),
    ),
    Row(
        "layernorm.4096x1024",
        "layernorm 4096x1024",
        "design",
        normal(TOKENS, (1024,), (1024,)),
        _layer_norm,
        tolerance=1e-5,
        traffic=nbytes(TOKENS, TOKENS),
    ),
    Row(
        "argmax.4096",
        "argmax over axis 1, 4096x4096",
        "more",
        normal(SQUARE),
        _argmax,
        tolerance=0.0,
        traffic=nbytes(SQUARE),
    ),
    Row(
        "cumsum.4096x1024",
        "cumsum over axis 1, 4096x1024",
        "more",
        normal(TOKENS),
        _cumsum,
        tolerance=1e-5,
        traffic=nbytes(TOKENS, TOKENS),
    ),
)

"""Matrix products: the sizes of the design, other dtypes, odd sizes, batches, a sweep."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal


def _product(kit: Any, a: Any, b: Any) -> Any:
    return kit.matmul(a, b)


def _into(kit: Any, out: Any, a: Any, b: Any) -> Any:
    return kit.matmul(a, b, out=out)


def _wide(kit: Any, a: Any, b: Any) -> Any:
    return kit.matmul_wide(a, b)


ITEMSIZE = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int8": 1}
TOLERANCE = {"float32": 1e-5, "float64": 1e-14, "float16": 4e-3, "bfloat16": 3e-2, "int8": 0.0}
"""Relative to the greatest element; numpy sums float16 in float16."""


def matmul_row(
    name: str,
    suite: str,
    m: int,
    k: int,
    n: int,
    dtype: str = "float32",
    batch: tuple[int, ...] = (),
    size: int | None = None,
) -> Row:
    """(batch, m, k) times (batch, k, n)."""
    a, b = (*batch, m, k), (*batch, k, n)
    count = 1
    for number in batch:
        count *= number
    small = dtype == "int8"
    return Row(
        name=name,
        what=f"({', '.join(map(str, a))}) x ({', '.join(map(str, b))})"
        + ("" if dtype == "float32" else f" {dtype}" + (" summed in int32" if small else "")),
        suite=suite,
        arguments=normal(a, b, dtype=dtype),
        compute=_wide if small else _product,
        into=_into if dtype in ("float32", "float64") else None,
        tolerance=TOLERANCE[dtype],
        operations=2.0 * count * m * n * k,
        traffic=nbytes(a, b, (*batch, m, n), itemsize=ITEMSIZE[dtype]),
        width=max(4, ITEMSIZE[dtype]),
        size=size,
    )


ROWS = (
    *[matmul_row(f"matmul.{n}", "design", n, n, n) for n in (512, 1024, 2048)],
    matmul_row("gemv.4096", "design", 1, 4096, 4096),
    *[
        matmul_row(f"matmul.{t}", "more", 512, 512, 512, t)
        for t in ("float16", "bfloat16", "float64", "int8")
    ],
    matmul_row("matmul.127", "more", 127, 127, 127),
    matmul_row("matmul.1000x33x517", "more", 1000, 33, 517),
    matmul_row("matmul.batched", "more", 128, 64, 128, batch=(32,)),
    *[
        matmul_row(f"sweep.matmul.{n}", "sweep", n, n, n, size=n)
        for n in (64, 128, 256, 512, 1024, 2048, 4096)
    ],
)

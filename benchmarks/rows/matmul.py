"""Matrix products: the sizes of the design, other dtypes, odd sizes, batches, a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal


@dataclass(frozen=True)
class Product:
    """What a row computes of two operands, either of which may lie transposed ("T" for "N")."""

    lie: str = "NN"
    wide: bool = False

    def __call__(self, kit: Any, a: Any, b: Any) -> Any:
        """A new result."""
        product = kit.matmul_wide if self.wide else kit.matmul
        return product(self._upright(kit, a, 0), self._upright(kit, b, 1))

    def into(self, kit: Any, out: Any, a: Any, b: Any) -> Any:
        """The same in memory that is there."""
        return kit.matmul(self._upright(kit, a, 0), self._upright(kit, b, 1), out=out)

    def _upright(self, kit: Any, x: Any, operand: int) -> Any:
        if self.lie[operand] == "N":
            return x
        *batch, rows, columns = range(len(x.shape))
        return kit.transpose(x, *batch, columns, rows)


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
    lie: str = "NN",
) -> Row:
    """(batch, m, k) times (batch, k, n); `lie` says which of the two lie transposed in memory."""
    a, b = (*batch, *((m, k) if lie[0] == "N" else (k, m))), (*batch, *((k, n) if lie[1] == "N" else (n, k)))
    transposed = tuple(".T" if letter == "T" else "" for letter in lie)
    count = 1
    for number in batch:
        count *= number
    small = dtype == "int8"
    return Row(
        name=name,
        what=f"({', '.join(map(str, a))}){transposed[0]} x ({', '.join(map(str, b))}){transposed[1]}"
        + ("" if dtype == "float32" else f" {dtype}" + (" summed in int32" if small else "")),
        suite=suite,
        arguments=normal(a, b, dtype=dtype),
        compute=(product := Product(lie, small)),
        into=product.into if dtype in ("float32", "float64") else None,
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
        matmul_row(f"matmul.{t}.turned", "more", 128, 768, 768, t, lie="TN")
        for t in ("float32", "float16", "bfloat16", "int8")
    ],
    matmul_row("matmul.linear.10", "more", 10, 768, 3072, lie="NT"),
    matmul_row("matmul.linear.128", "more", 128, 3072, 768, lie="NT"),
    matmul_row("matmul.vocabulary", "more", 8, 768, 30522, lie="NT"),
    matmul_row("matmul.few.columns", "more", 8192, 784, 10),
    matmul_row("matmul.three.columns", "more", 1000, 500, 3),
    matmul_row("matmul.long.sums", "more", 16, 100_003, 16),
    *[
        matmul_row(f"sweep.matmul.{n}", "sweep", n, n, n, size=n)
        for n in (64, 128, 256, 512, 1024, 2048, 4096)
    ],
)

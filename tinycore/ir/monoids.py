"""Monoids: what a REDUCE, a SCAN or a SCATTER starts from."""

from __future__ import annotations

from tinycore.errors import DTypeError
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import Op


def identity(op: Op, dtype: DType) -> Scalar:
    """The value that leaves the other operand of a monoid alone. Raises DTypeError for an op that is no monoid.

    >>> from tinycore.ir import dtypes, ops
    >>> identity(ops.MAX, dtypes.float32), identity(ops.MUL, dtypes.int8), identity(ops.AND, dtypes.uint8)
    (-inf, 1, 255)
    """
    values: dict[str | None, Scalar] = {"zero": 0, "one": 1, "min": dtype.min, "max": dtype.max}
    values["ones"] = dtype.max if dtype.kind in ("bool", "uint") else -1
    if op.identity not in values:
        raise DTypeError(f"{op.name} is not a monoid: it has no identity")
    return values[op.identity]

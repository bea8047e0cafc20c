"""Lists of Python numbers to elements in memory and back, without numpy (its import takes 80 ms).

What these functions cannot do exactly as numpy does it, they leave to numpy by answering None.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

from tinycore.ir import DType, dtypes
from tinycore_frontend_tensor.core import DEFAULT_FLOAT, DEFAULT_INT

_FORMATS = {
    dtypes.bool_: "?", dtypes.float32: "f", dtypes.float64: "d",
    dtypes.int8: "b", dtypes.int16: "h", dtypes.int32: "i", dtypes.int64: "q",
    dtypes.uint8: "B", dtypes.uint16: "H", dtypes.uint32: "I", dtypes.uint64: "Q",
}  # fmt: skip
_EXACT = 1 << 53
"""Integers up to here are exact as float64, so that rounding them once more is the only rounding."""


def packed(data: Any, dtype: DType | None) -> tuple[memoryview, DType, tuple[int, ...]] | None:
    """(bytes, dtype, shape) of nested lists of Python numbers; None for anything less plain.

    >>> packed([[1, 2], [3, 4]], None)[1:] == (dtypes.int64, (2, 2))
    True
    """
    flat = _flat(data)
    if flat is None:
        return None
    values, shape = flat
    kinds = set(map(type, values))
    if kinds == {bool} and dtype in (None, dtypes.bool_):
        return memoryview(bytes(values)), dtypes.bool_, shape
    if not kinds or not kinds <= {int, float}:
        return None
    wanted = dtype or (DEFAULT_FLOAT if float in kinds else DEFAULT_INT)
    form = _FORMATS.get(wanted)
    if form is None or wanted is dtypes.bool_ or (wanted.is_int and float in kinds):
        return None
    if wanted.is_float and kinds == {int} and not -_EXACT <= min(values) <= max(values) <= _EXACT:
        return None
    try:
        return memoryview(array(form, values)).cast("B"), wanted, shape
    except OverflowError:
        return None


def _flat(data: Any) -> tuple[Sequence[Any], tuple[int, ...]] | None:
    """The numbers of nested lists in order, and the shape; None where a level is empty or uneven."""
    shape: list[int] = []
    if type(data) not in (list, tuple):
        return None
    while True:
        if not data:
            return None
        shape.append(len(data) // math.prod(shape))
        if type(data[0]) not in (list, tuple):
            return data, tuple(shape)
        size = len(data[0])
        if any(type(part) not in (list, tuple) or len(part) != size for part in data):
            return None
        data = [value for part in data for value in part]


def nested(content: bytearray, dtype: DType, shape: tuple[int, ...]) -> Any:
    """Nested lists of the elements, a number without axes; None where numpy has to read them.

    >>> nested(bytearray([1, 0]), dtypes.bool_, (2, 1))
    [[True], [False]]
    """
    form = _FORMATS.get(dtype)
    if form is None or not content:
        return None
    return memoryview(content).cast(form, shape).tolist()  # type: ignore[call-overload]

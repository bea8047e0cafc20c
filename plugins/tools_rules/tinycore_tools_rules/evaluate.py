"""Values of scalar graphs for many valuations at once, by the interpreter's own meanings, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.ir import UOp
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops

Array = NDArray[Any]


def evaluate(root: UOp, leaves: Mapping[UOp, Array]) -> Array:
    """The value of a scalar graph for every valuation: leaves have arrays of one shape, constants are single.

    >>> from tinycore.ir import dtypes
    >>> n = UOp.variable("n", 0, 9)
    >>> evaluate(n * 3 + 1, {n: np.arange(3)}).tolist()
    [1, 4, 7]
    """
    known: dict[UOp, Array] = dict(leaves)
    with quiet():
        for node in root.toposort():
            if node in known:
                continue
            if node.op is ops.CONST:
                known[node] = bits_array(node.dtype, np.array(node.arg[0], dtype=object))
            else:
                operands = [known[operand] for operand in node.src]
                known[node] = np.asarray(MEANING[node.op](node.dtype, *operands))
    return known[root]


def bits_array(dtype: DType, bits: Array) -> Array:
    """Canonical bits as values of a dtype."""
    if dtype.is_float:
        return np.asarray(bits).astype(f"uint{dtype.bits}").view(dtype.numpy)
    return np.asarray(bits).astype(dtype.numpy)


def unsigned_view(array: Array) -> Array:
    """The bits of floats."""
    return np.asarray(array).view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.itemsize])


def is_nan(array: Array) -> Array:
    """Where a float array (of any format) is NaN."""
    with np.errstate(all="ignore"):
        return np.asarray(np.isnan(array.astype(np.float64)))


def differences(expected: Array, answer: Array, signless: bool = False) -> Array:
    """Where two arrays differ bit for bit; any NaN is as good as another, with `signless` any zero."""
    expected, answer = np.broadcast_arrays(expected, answer)
    if expected.dtype.kind not in "fV":
        return np.asarray(expected != answer)
    equal = unsigned_view(expected) == unsigned_view(answer)
    if signless:
        with quiet():
            equal = equal | ((expected == 0) & (answer == 0))
    return np.asarray(~(equal | (is_nan(expected) & is_nan(answer))))

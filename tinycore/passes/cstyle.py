"""Natives of ``cstyle.rules``: how types and constants are spelled, and when machine arithmetic is exact.

What a language looks like comes from the dialect in the render context (`tinycore.codegen.cstyle.Dialect`).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from tinycore.ir import UOp, bounds, dtypes

if TYPE_CHECKING:
    from tinycore.ir import DType


def type_of(context: Any, node: UOp) -> str:
    """The type of a value, lanes included."""
    return str(context.dialect.type_of(node))


def element(context: Any, node: UOp) -> str:
    """The type of one element of a buffer in memory."""
    return str(context.dialect.element_of(node))


def wide(context: Any, node: UOp) -> str:
    """The unsigned type in which the arithmetic of an integer value wraps instead of being undefined."""
    dtype = dtypes.uint64 if node.dtype.itemsize == 8 or node.dtype.kind == "index" else dtypes.uint32
    return str(context.dialect.types[dtype.name])


def is_plain(node: UOp) -> bool:
    """Whether C's own + - * answer what an integer node means: it cannot overflow, or wraps by definition.

    >>> from tinycore.ir import ops
    >>> x = UOp(ops.RANGE, dtypes.int32, (UOp.const(dtypes.int32, 8),), (0, "loop"))
    >>> is_plain(x * 4), is_plain(x * 500_000_000)
    (True, False)
    """
    if node.dtype.kind == "uint" and (node.dtype.itemsize >= 4 or node.shape):
        return True
    whole = node.replace(dtype=dtypes.index) if node.dtype.kind != "index" else node
    low, high = bounds.RULES[node.op.bounds](whole, *[operand.bounds for operand in node.src])
    least, most = bounds.of_dtype(dtypes.int64 if node.dtype.kind == "index" else node.dtype)
    return least <= low and high <= most


def is_narrow(node: UOp) -> bool:
    """Whether C computes in a wider type than this integer's."""
    return 0 < node.dtype.itemsize < 4


def is_bool(node: UOp) -> bool:
    """Whether a value is a bool."""
    return node.dtype.kind == "bool"


def is_float(node: UOp) -> bool:
    """Whether a value is a float."""
    return node.dtype.is_float


def literal(context: Any, node: UOp) -> str:
    """A finite constant (one lane of it), exactly: floats are in hexadecimal unless they are short."""
    dialect, dtype = context.dialect, node.dtype
    if dtype.kind == "bool":
        return "true" if node.arg[0] else "false"
    register: DType = dialect.register(dtype)
    suffix = dialect.suffixes.get(register.name, "")
    if register is not dtype:
        return f"{node.arg[0]}{suffix}"
    if not dtype.is_float:
        return _integer(int(node.arg[0]), register, suffix)
    value = float(node.value)
    short = f"{value:.1f}"
    text = short if abs(value) < 1e6 and float(short) == value else re.sub(r"\.?0+p", "p", value.hex())
    return f"({text}{suffix})" if math.copysign(1.0, value) < 0 else f"{text}{suffix}"


def _integer(value: int, dtype: DType, suffix: str) -> str:
    if value == dtype.min and dtype.kind != "uint":  # C reads it as minus a number that does not fit
        return f"({value + 1}{suffix} - 1)"
    return f"({value}{suffix})" if value < 0 else f"{value}{suffix}"


def constant(context: Any, node: UOp) -> str:
    """A finite constant in every lane."""
    text = literal(context, node)
    return str(context.dialect.vector(type_of(context, node), [text], node.dtype)) if node.shape else text


def zero(context: Any, node: UOp) -> str:
    """The zero of a value's dtype, in every lane."""
    return constant(context, UOp.from_bits(node.dtype, 0, node.shape))


def iota(context: Any, node: UOp) -> str:
    """0, 1, ... in the lanes."""
    texts = [literal(context, UOp.const(node.dtype, lane)) for lane in range(node.arg)]
    return str(context.dialect.vector(type_of(context, node), texts, node.dtype))


def is_finite(node: UOp) -> bool:
    """Whether a constant is a number that a literal can spell."""
    return not node.dtype.is_float or math.isfinite(node.value)

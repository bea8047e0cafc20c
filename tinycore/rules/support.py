"""What compiled rules call: literal tables, constants, and the built-in functions of the language.

Nothing here is reached by name from a rule file except through the checker's list of functions
(`tinycore.rules.express.FUNCTIONS`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

from tinycore.ir import dims, dtypes
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import MONOIDS, Op, ops
from tinycore.ir.uop import Shape, UOp

__all__ = [
    "Bits",
    "Exact",
    "all_of",
    "alu",
    "argsort",
    "as_node",
    "bounded_range",
    "build",
    "coerce",
    "const",
    "dim_add",
    "dim_floordiv",
    "dim_max",
    "dim_min",
    "dim_mod",
    "dim_mul",
    "dim_sub",
    "frozen",
    "identity",
    "is_inf",
    "is_nan",
    "like",
    "prod",
    "shift_left",
    "surely_eq",
    "surely_le",
    "surely_lt",
    "surely_ne",
    "total",
]

LIMIT = 1 << 20
"""Longest ``range`` and widest shift that a rule may ask for."""


class Bits(dict[DType, int]):
    """dtype -> the canonical bits of one number, converted as constants are."""

    def __init__(self, value: Scalar) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, dtype: DType) -> int:
        bits = self[dtype] = dtype.to_bits(self.value)
        return bits


class Exact(dict[DType, Any]):
    """dtype -> the bits that a literal in a pattern matches; None where the dtype has no such value.

    ``true`` and ``false`` match bools only. Integers match only what they are; floats are rounded.
    With `signless` the entry of a zero is the set of both zeros.
    """

    def __init__(self, value: Scalar, signless: bool = False) -> None:
        super().__init__()
        self.value, self.signless = value, signless

    def __missing__(self, dtype: DType) -> Any:
        self[dtype] = found = self._find(dtype)
        return found

    def _find(self, dtype: DType) -> Any:
        value = self.value
        if isinstance(value, bool) and dtype.kind != "bool":
            return () if self.signless else None
        if not dtype.is_float:
            known = (isinstance(value, int) or value.is_integer()) and dtype.from_bits(
                dtype.to_bits(value)
            ) == value
            bits = dtype.to_bits(value) if known else None
            return (() if bits is None else (bits,)) if self.signless else bits
        try:
            bits = dtype.to_bits(value)
        except OverflowError:  # an integer greater than every float
            return () if self.signless else None
        return (bits, dtype.to_bits(-0.0 if value == 0 else value)) if self.signless else bits


def const(dtype: DType, value: Scalar, shape: Shape = ()) -> UOp:
    """A constant; raises TypeError for what is no number."""
    if type(value) is int and dtype.kind == "index":
        return UOp(ops.CONST, dtype, (), (value, shape))
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"{value!r} is not a number")
    return UOp(ops.CONST, dtype, (), (dtype.to_bits(value), shape))


def coerce(node: UOp, dtype: DType, shape: Shape) -> UOp:
    """A captured constant where another dtype or shape is expected."""
    if node.dtype is dtype and node.arg[1] == shape:
        return node
    if node.dtype is dtype:
        return UOp(ops.CONST, dtype, (), (node.arg[0], shape))
    return UOp(ops.CONST, dtype, (), (dtype.to_bits(node.value), shape))


def as_node(value: Any, dtype: DType | None = None, shape: Shape = ()) -> UOp:
    """A node stays; a number becomes a constant of the expected dtype."""
    if isinstance(value, UOp):
        return value
    if dtype is None:
        raise TypeError(f"the dtype of {value!r} is not known here; write const(dtype, value)")
    return const(dtype, value, shape)


def alu(op: Op, *operands: Any) -> UOp:
    """An elementwise node of operands whose dtype is known only now; numbers take it from the others."""
    if len(operands) == 2:  # both operands of a binary op have one dtype
        a, b = operands
        if isinstance(a, UOp):
            b = b if isinstance(b, UOp) else const(a.dtype, b, a.shape)
            return UOp(op, dtypes.bool_ if op.dtype == "bool" else b.dtype, (a, b))
        if isinstance(b, UOp):
            return UOp(op, dtypes.bool_ if op.dtype == "bool" else b.dtype, (const(b.dtype, a, b.shape), b))
    variable = [spec.split(":")[0] == "T" for spec in op.operands]
    model = next((x for x, same in zip(operands, variable, strict=True) if same and isinstance(x, UOp)), None)
    any_node = next((x for x in operands if isinstance(x, UOp)), None)
    if any_node is None:
        raise TypeError(f"the dtype of the operands of {op.name} is not known; write const(dtype, value)")
    dtype = model.dtype if model is not None else None
    src = tuple(
        [
            as_node(x, dtype if same else dtypes.bool_, any_node.shape)
            for x, same in zip(operands, variable, strict=True)
        ]
    )
    return build(op, src, None)


def build(op: Op, src: tuple[UOp, ...], arg: Any) -> UOp:
    """A node whose dtype follows from its operands."""
    if op.dtype == "T":
        which = next(k for k, spec in enumerate(op.operands) if spec.lstrip("*").split(":")[0] == "T")
        return UOp(op, src[which].dtype, src, arg)
    return UOp(op, src[0].dtype if op.dtype == "operand" else dtypes.by_name(op.dtype), src, arg)


def frozen(value: Any) -> Any:
    """Lists (of lists ...) as tuples: what attributes are made of."""
    return tuple([frozen(part) for part in value]) if isinstance(value, (list, tuple)) else value


def like(node: UOp, *operands: UOp) -> UOp:
    """A node of the same op, dtype and attributes on other operands."""
    return UOp(node.op, node.dtype, operands, node.arg)


# --- arithmetic on numbers, dimensions and values of unknown kind ------------------------------------------


def _binary(op: Op, on_numbers: Callable[[Any, Any], Any], on_dims: Callable[[Any, Any], Any] | None) -> Any:
    def function(a: Any, b: Any) -> Any:
        if not (isinstance(a, UOp) or isinstance(b, UOp)):
            return on_numbers(a, b)
        dims_only = all(isinstance(x, int) or (isinstance(x, UOp) and not x.mask & ~_DIM_OPS) for x in (a, b))
        return on_dims(a, b) if on_dims is not None and dims_only else alu(op, a, b)

    return function


_DIM_OPS = (
    ops.VARIABLE.bit
    | ops.CONST.bit
    | ops.ADD.bit
    | ops.SUB.bit
    | ops.MUL.bit
    | ops.FLOORDIV.bit
    | ops.NEG.bit
)


def shift_left(a: int, b: int) -> int:
    """a << b of bounded width."""
    if not 0 <= b <= 4096:
        raise ValueError(f"shift by {b}")
    return a << b


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        if a.bit_length() + b.bit_length() > 8192:
            raise ValueError("the product is too wide")
        return a * b
    return float(a) * float(b)


def _plus(a: Any, b: Any) -> Any:
    return tuple(a) + tuple(b) if isinstance(a, (list, tuple)) else a + b


dim_add = _binary(ops.ADD, _plus, dims.add)
dim_sub = _binary(ops.SUB, lambda a, b: a - b, dims.subtract)
dim_mul = _binary(ops.MUL, _times, dims.multiply)
dim_floordiv = _binary(
    ops.FLOORDIV,
    lambda a, b: a // b,
    lambda a, b: dims.floor_divide(a, b) if isinstance(b, int) else dims.divide(a, b),
)
dim_mod = _binary(ops.FLOORMOD, lambda a, b: a % b, None)


def _low(x: Any) -> Any:
    return x.bounds[0] if isinstance(x, UOp) else x


def _high(x: Any) -> Any:
    return x.bounds[1] if isinstance(x, UOp) else x


def surely_lt(a: Any, b: Any) -> bool:
    """a < b whatever the values of symbolic dimensions are."""
    return bool(_high(a) < _low(b))


def surely_le(a: Any, b: Any) -> bool:
    """a <= b whatever the values of symbolic dimensions are."""
    return bool(_high(a) <= _low(b)) or a is b


def surely_eq(a: Any, b: Any) -> bool:
    """a == b whatever the values of symbolic dimensions are (nodes: the same node)."""
    return bool(frozen(a) == frozen(b))


def surely_ne(a: Any, b: Any) -> bool:
    """a != b whatever the values of symbolic dimensions are."""
    if isinstance(a, UOp) or isinstance(b, UOp):
        return bool(_high(a) < _low(b) or _high(b) < _low(a))
    a, b = frozen(a), frozen(b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) != len(b) or any(surely_ne(x, y) for x, y in zip(a, b, strict=True))
    return bool(a != b)


# --- built-in functions -------------------------------------------------------------------------------------


def bounded_range(*limits: int) -> range:
    """range, of bounded length."""
    result = range(*limits)
    if len(result) > LIMIT:
        raise ValueError(f"range of {len(result)} items")
    return result


def argsort(items: Sequence[Any]) -> tuple[int, ...]:
    """The positions in ascending order of their items: the inverse of a permutation."""
    return tuple(sorted(range(len(items)), key=items.__getitem__))


def total(items: Iterable[Any]) -> Any:
    """The sum of numbers, dimensions or nodes; 0 for none."""
    return reduce(dim_add, items) if (items := list(items)) else 0


def prod(items: Iterable[Any]) -> Any:
    """The product of numbers or dimensions; 1 for none."""
    return reduce(dim_mul, items, 1)


def all_of(nodes: Iterable[UOp]) -> UOp:
    """The conjunction of bool nodes; true for none."""
    return reduce(lambda a, b: a & b, nodes) if (nodes := list(nodes)) else UOp.const(dtypes.bool_, True)


def dim_min(*items: Any) -> Any:
    """min of numbers; of symbolic dimensions the one that is surely least, else ValueError."""
    candidates = list(items[0]) if len(items) == 1 else list(items)
    for candidate in candidates:
        if all(surely_le(candidate, other) for other in candidates):
            return candidate
    raise ValueError(f"which of {candidates} is least is not known")


def dim_max(*items: Any) -> Any:
    """max of numbers; of symbolic dimensions the one that is surely greatest, else ValueError."""
    candidates = list(items[0]) if len(items) == 1 else list(items)
    for candidate in candidates:
        if all(surely_le(other, candidate) for other in candidates):
            return candidate
    raise ValueError(f"which of {candidates} is greatest is not known")


def identity(op: Op, dtype: DType) -> Scalar:
    """The value that leaves the other operand of a monoid alone.

    >>> identity(ops.MUL, dtypes.float32), identity(ops.MAX, dtypes.int8)
    (1, -128)
    """
    if op not in MONOIDS:
        raise ValueError(f"{op.name} is no monoid")
    if op.identity == "ones":
        return 1 if dtype.kind == "bool" else dtype.max if dtype.kind == "uint" else -1
    return {"zero": 0, "one": 1, "min": dtype.min, "max": dtype.max}[op.identity or ""]


def is_nan(value: Scalar) -> bool:
    """Whether a number is a NaN."""
    return value != value


def is_inf(value: Scalar) -> bool:
    """Whether a number is an infinity."""
    return isinstance(value, float) and math.isinf(value)

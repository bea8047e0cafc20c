"""Integer bounds: the least and greatest value that a node can have, one rule a row of the op table.

Sized integers wrap, so a result that could leave its dtype has the bounds of the dtype. `index` arithmetic
never overflows and is exact. Floats have no bounds here (asking gives the whole int64 range).

>>> from tinycore.ir import UOp, dtypes, ops
>>> i = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (0, "loop"))
>>> (i * 4 + 3).bounds
(3, 31)
"""

from __future__ import annotations

from collections.abc import Callable

from tinycore.ir.dtypes import DType
from tinycore.ir.ops import TABLE, ops
from tinycore.ir.uop import UOp

Bounds = tuple[int, int]
UNKNOWN: Bounds = (-(1 << 63), (1 << 63) - 1)
"""The bounds of an `index` node about which nothing is known, and of floats."""


def of_dtype(dtype: DType) -> Bounds:
    """All that a dtype can hold."""
    if dtype.kind in ("bool", "int", "uint"):
        return int(dtype.min), int(dtype.max)
    return UNKNOWN


def _wrap(node: UOp, low: int, high: int) -> Bounds:
    if node.dtype.kind == "index":
        return low, high
    least, most = of_dtype(node.dtype)
    return (low, high) if least <= low and high <= most else (least, most)


def _corners(a: Bounds, b: Bounds, function: Callable[[int, int], int]) -> Bounds:
    values = [function(x, y) for x in a for y in b]
    return min(values), max(values)


def _add(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    kind = node.dtype.kind
    if kind == "index":
        return a[0] + b[0], a[1] + b[1]
    return _or(node, a, b) if kind == "bool" else _wrap(node, a[0] + b[0], a[1] + b[1])


def _mul(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if a[0] >= 0 <= b[0]:
        return _wrap(node, a[0] * b[0], a[1] * b[1])
    return _wrap(node, *_corners(a, b, lambda x, y: x * y))


def _floordiv(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if a[0] >= 0 < b[0]:
        return a[0] // b[1], a[1] // b[0]
    if b[0] <= 0 <= b[1]:
        return of_dtype(node.dtype)
    return _wrap(node, *_corners(a, b, lambda x, y: x // y))


def _floormod(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if b[0] > 0:
        if a[0] >= 0 and a[1] < b[0]:
            return a
        if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:
            return a[0] % b[0], a[1] % b[0]
        return (0, min(a[1], b[1] - 1)) if a[0] >= 0 else (0, b[1] - 1)
    return of_dtype(node.dtype)


def _truncdiv(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if b[0] <= 0 <= b[1]:  # a divisor of 0 gives 0; any other leaves at most the dividend's magnitude
        most = max(abs(a[0]), abs(a[1]))
        return (0, a[1]) if a[0] >= 0 and b[0] >= 0 else _wrap(node, -most, most)
    return _wrap(node, *_corners(a, b, lambda x, y: abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)))


def _truncmod(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    most = max(abs(b[0]), abs(b[1]), 1) - 1
    return -min(max(-a[0], 0), most), min(max(a[1], 0), most)


def _and(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if a[0] >= 0 and b[0] >= 0:
        return (min(a[0], b[0]) if a == (1, 1) == b else 0), min(a[1], b[1])
    if b[0] >= 0:
        return 0, b[1]
    return (0, a[1]) if a[0] >= 0 else of_dtype(node.dtype)


def _or(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if a[0] >= 0 and b[0] >= 0:
        return max(a[0], b[0]), min((1 << max(a[1].bit_length(), b[1].bit_length())) - 1, a[1] + b[1])
    return of_dtype(node.dtype)


def _xor(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if a[0] >= 0 and b[0] >= 0:
        if a[0] == a[1] and b[0] == b[1]:
            return a[0] ^ b[0], a[0] ^ b[0]
        return 0, (1 << max(a[1].bit_length(), b[1].bit_length())) - 1
    return of_dtype(node.dtype)


def _shl(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if b[0] >= 0 and b[1] < 64:
        return _wrap(node, *_corners(a, b, lambda x, y: x << y))
    return of_dtype(node.dtype)


def _shr(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if b[0] >= 0 and b[1] < 64:
        return _corners(a, b, lambda x, y: x >> y)
    return of_dtype(node.dtype)


def _truth(yes: bool, no: bool) -> Bounds:
    return (1, 1) if yes else (0, 0) if no else (0, 1)


def _comparable(node: UOp) -> bool:
    return not node.src[0].dtype.is_float


def _lt(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    return _truth(a[1] < b[0], a[0] >= b[1]) if _comparable(node) else (0, 1)


def _le(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    return _truth(a[1] <= b[0], a[0] > b[1]) if _comparable(node) else (0, 1)


def _eq(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    if not _comparable(node):
        return 0, 1
    same = node.src[0] is node.src[1] or a[0] == a[1] == b[0] == b[1]
    return _truth(same, a[1] < b[0] or b[1] < a[0])


def _ne(node: UOp, a: Bounds, b: Bounds) -> Bounds:
    low, high = _eq(node, a, b)
    return (1 - high, 1 - low) if _comparable(node) else (0, 1)


def _where(node: UOp, condition: Bounds, a: Bounds, b: Bounds) -> Bounds:
    if condition == (1, 1):
        return a
    if condition == (0, 0):
        return b
    return min(a[0], b[0]), max(a[1], b[1])


def _cast(node: UOp, a: Bounds) -> Bounds:
    if node.src[0].dtype.is_float:
        return of_dtype(node.dtype)
    if node.dtype.kind == "bool":
        return _truth(a[0] > 0 or a[1] < 0, a == (0, 0))
    if node.dtype.kind == "index" and a[1] > UNKNOWN[1]:
        return UNKNOWN  # the upper half of uint64 becomes negative: machine integers have 64 bits
    return _wrap(node, *a) if not node.dtype.is_float else UNKNOWN


def _reduce(node: UOp, a: Bounds, *ranges: Bounds) -> Bounds:
    op = node.arg[0]
    if op in (ops.MAX, ops.MIN, ops.AND, ops.OR) and not ranges and 0 not in node.src[0].shape and a[0] >= 0:
        return (0 if op in (ops.AND,) else a[0]), (
            a[1] if op in (ops.MAX, ops.MIN, ops.AND) else (1 << a[1].bit_length()) - 1
        )
    return of_dtype(node.dtype)


def _const(node: UOp) -> Bounds:
    return UNKNOWN if node.dtype.is_float else (int(node.arg[0]), int(node.arg[0]))


RULES: dict[str, Callable[..., Bounds]] = {
    "dtype": lambda node, *operands: of_dtype(node.dtype),
    "const": _const,
    "variable": lambda node: (node.arg[1], node.arg[2]),
    "neg": lambda node, a: _wrap(node, -a[1], -a[0]),
    "add": _add,
    "sub": lambda node, a, b: _wrap(node, a[0] - b[1], a[1] - b[0]),
    "mul": _mul,
    "floordiv": _floordiv,
    "floormod": _floormod,
    "truncdiv": _truncdiv,
    "truncmod": _truncmod,
    "max": lambda node, a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "min": lambda node, a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "and": _and,
    "or": _or,
    "xor": _xor,
    "shl": _shl,
    "shr": _shr,
    "lt": _lt,
    "le": _le,
    "eq": _eq,
    "ne": _ne,
    "where": _where,
    "cast": _cast,
    "same": lambda node, a, *rest: a,
    "reduce": _reduce,
    "range": lambda node, bound: (0, max(bound[1] - 1, 0)),
    # A guarded load may answer 0 and is otherwise anything that the dtype holds.
    "load": lambda node, *operands: of_dtype(node.dtype),
    "iota": lambda node: (0, node.arg - 1),
}
"""The bounds rules by the names that the op table uses: (node, bounds of each operand) -> bounds."""


def infer(node: UOp) -> Bounds:
    """The bounds of a node; stored on it and on everything it was derived from."""
    stack = [node]
    while stack:
        current = stack.pop()
        if current._bounds is not None:
            continue
        rule = _RULE_OF.get(current.op)
        dtype = current.dtype
        if rule is None or dtype.kind == "float":
            current._bounds = of_dtype(dtype)
            continue
        src = current.src
        if len(src) == 2:
            x, y = src
            a, b = x._bounds, y._bounds
            if a is None or b is None:
                stack += (current, x, y)
            else:
                current._bounds = rule(current, a, b)
            continue
        missing = [operand for operand in src if operand._bounds is None]
        if missing:
            stack.append(current)
            stack += missing
        else:
            current._bounds = rule(current, *[operand._bounds for operand in src])
    found = node._bounds
    assert found is not None
    return found


_RULE_OF = {op: RULES[op.bounds] for op in TABLE.values() if op.bounds != "dtype"}


def free_ranges(node: UOp) -> frozenset[UOp]:
    """The RANGEs that a value depends on and that no REDUCE or END inside has consumed."""
    stack = [node]
    while stack:
        current = stack[-1]
        if hasattr(current, "_ranges"):
            stack.pop()
            continue
        if not current.mask & ops.RANGE.bit:
            current._ranges = _NONE
            stack.pop()
            continue
        missing = [operand for operand in current.src if not hasattr(operand, "_ranges")]
        if missing:
            stack.extend(missing)
            continue
        if current.op in _CONSUMERS:
            consumed = frozenset(current.src[1:])
            inner = current.src[0]._ranges.union(*[operand._ranges - {operand} for operand in consumed])
            current._ranges = inner - consumed
        else:
            found = _NONE.union(*[operand._ranges for operand in current.src])
            current._ranges = found | {current} if current.op is ops.RANGE else found
        stack.pop()
    return node._ranges


_NONE: frozenset[UOp] = frozenset()
_CONSUMERS = frozenset({ops.REDUCE, ops.END})

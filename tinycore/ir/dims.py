"""Arithmetic on dimensions: plain ints, or symbolic bounded integers in a canonical form.

A dimension is an ``int`` or an `index` node over VARIABLEs. Sums of products are kept in one canonical
order, so that equal polynomials are the same node and shapes can be compared with ``==``:

>>> from tinycore.ir import UOp
>>> n = UOp.variable("n", 1, 512)
>>> add(n, n) is multiply(2, n), subtract(add(n, 3), n)
(True, 3)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping

from tinycore.errors import ShapeError
from tinycore.ir import dtypes
from tinycore.ir.ops import Op, ops
from tinycore.ir.uop import Dim, Shape, UOp

# A polynomial: factors of a product (sorted by name) -> coefficient. () is the constant term.
_Polynomial = dict[tuple[UOp, ...], int]


def to_node(dim: Dim) -> UOp:
    """The dimension as an `index` node."""
    return dim if isinstance(dim, UOp) else UOp.const(dtypes.index, dim)


def to_dim(node: UOp) -> Dim:
    """An `index` node over VARIABLEs as a canonical dimension; an int when it is constant."""
    return _build(_polynomial(node))


def add(a: Dim, b: Dim) -> Dim:
    """a + b."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return _build(_sum(_polynomial(a), _polynomial(b), 1))


def subtract(a: Dim, b: Dim) -> Dim:
    """a - b."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return _build(_sum(_polynomial(a), _polynomial(b), -1))


def multiply(a: Dim, b: Dim) -> Dim:
    """a * b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return _build(_product(_polynomial(a), _polynomial(b)))


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dimensions; 1 for none."""
    result: Dim = 1
    for dim in dims:
        result = result * dim if type(dim) is int and type(result) is int else multiply(result, dim)
    return result


def divide(a: Dim, b: Dim) -> Dim:
    """a / b where b divides a exactly as a polynomial. Raises ShapeError where that is not known."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0 or a % b:
            raise ShapeError(f"{a} is not divisible by {b}")
        return a // b
    dividend, divisor = _polynomial(a), _polynomial(b)
    if len(divisor) == 1:
        ((factors, coefficient),) = divisor.items()
        quotient: _Polynomial = {}
        for terms, count in dividend.items():
            rest = list(terms)
            if count % coefficient or any(factor not in rest for factor in factors):
                break
            for factor in factors:
                rest.remove(factor)
            quotient[tuple(rest)] = count // coefficient
        else:
            return _build(quotient)
    if to_node(a) is to_node(b):
        return 1
    raise ShapeError(f"{a} is not known to be divisible by {b}")


def floor_divide(a: Dim, b: int) -> Dim:
    """a // b for a positive int b, exact where the polynomial divides, else an opaque term."""
    if isinstance(a, int):
        return a // b
    try:
        return divide(a, b)
    except ShapeError:
        return _build({(UOp(ops.FLOORDIV, dtypes.index, (to_node(a), to_node(b))),): 1})


def upper(dim: Dim) -> int:
    """The greatest value that the dimension can have: what memory must be reserved for."""
    return dim if isinstance(dim, int) else dim.vmax


def lower(dim: Dim) -> int:
    """The least value that the dimension can have."""
    return dim if isinstance(dim, int) else dim.vmin


def variables(shape: Shape) -> set[UOp]:
    """The VARIABLEs in a shape."""
    return {
        node for dim in shape if isinstance(dim, UOp) for node in dim.toposort() if node.op is ops.VARIABLE
    }


def evaluate(dim: Dim, values: Mapping[UOp, int]) -> int:
    """The value of a dimension, or of any integer expression that a bound became. KeyError: a VARIABLE without one.

    >>> from tinycore.ir import UOp
    >>> n = UOp.variable("n", 1, 512)
    >>> evaluate(add(multiply(2, n), 1), {n: 7})
    15
    """
    if isinstance(dim, int):
        return dim
    memo: dict[UOp, int] = {}
    for node in dim.toposort():
        if node.op is ops.CONST:
            memo[node] = int(node.arg[0])
        elif node.op is ops.VARIABLE:
            memo[node] = values[UOp(ops.VARIABLE, dtypes.index, (), node.arg)]
        else:
            memo[node] = ARITHMETIC[node.op](*[memo[operand] for operand in node.src])
    return memo[dim]


ARITHMETIC: dict[Op, Callable[..., int]] = {
    ops.NEG: operator.neg,
    ops.ADD: operator.add,
    ops.SUB: operator.sub,
    ops.MUL: operator.mul,
    ops.FLOORDIV: lambda a, b: a // b if b else 0,
    ops.FLOORMOD: lambda a, b: a % b if b else 0,
    ops.TRUNCDIV: lambda a, b: (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0,
    ops.MIN: min,
    ops.MAX: max,
    ops.SHL: operator.lshift,
    ops.SHR: operator.rshift,
    ops.LT: operator.lt,
    ops.LE: operator.le,
    ops.EQ: operator.eq,
    ops.NE: operator.ne,
    ops.AND: operator.and_,
    ops.WHERE: lambda condition, a, b: a if condition else b,
    ops.CAST: int,
}
"""Integer arithmetic on Python numbers: what may stand in a bound."""


def strides(shape: Shape) -> Shape:
    """Row-major strides in elements.

    >>> strides((2, 3, 4))
    (12, 4, 1)
    """
    result: list[Dim] = []
    stride: Dim = 1
    for dim in reversed(shape):
        result.append(stride)
        stride = multiply(stride, dim)
    return tuple(reversed(result))


def _polynomial(dim: Dim) -> _Polynomial:
    if isinstance(dim, int):
        return {(): dim} if dim else {}
    if dim.op is ops.CONST:
        number = int(dim.arg[0])
        return {(): number} if number else {}
    if dim.op is ops.ADD:
        return _sum(_polynomial(dim.src[0]), _polynomial(dim.src[1]), 1)
    if dim.op is ops.SUB:
        return _sum(_polynomial(dim.src[0]), _polynomial(dim.src[1]), -1)
    if dim.op is ops.NEG:
        return _sum({}, _polynomial(dim.src[0]), -1)
    if dim.op is ops.MUL:
        return _product(_polynomial(dim.src[0]), _polynomial(dim.src[1]))
    if dim.op is ops.FLOORDIV and dim.src[1].op is ops.CONST:
        inner = _build(_polynomial(dim.src[0]))
        divisor = int(dim.src[1].arg[0])
        if isinstance(inner, int):
            return _polynomial(inner // divisor)
        if inner is not dim.src[0]:
            return _polynomial(floor_divide(inner, divisor))
    return {(dim,): 1}


def _sum(a: _Polynomial, b: _Polynomial, sign: int) -> _Polynomial:
    result = dict(a)
    for factors, coefficient in b.items():
        result[factors] = result.get(factors, 0) + sign * coefficient
        if not result[factors]:
            del result[factors]
    return result


def _product(a: _Polynomial, b: _Polynomial) -> _Polynomial:
    result: _Polynomial = {}
    for left, count in a.items():
        for right, other in b.items():
            factors = tuple(sorted(left + right, key=_sort_key))
            result = _sum(result, {factors: count * other}, 1)
    return result


def _sort_key(node: UOp) -> str:
    return str(node.arg[0]) if node.op is ops.VARIABLE else "~" + repr(node)


def _build(polynomial: _Polynomial) -> Dim:
    if not polynomial:
        return 0
    terms: list[UOp] = []
    for factors in sorted(polynomial, key=lambda fs: [_sort_key(f) for f in fs] or ["~~"]):
        coefficient = polynomial[factors]
        if not factors:
            if len(polynomial) == 1:
                return coefficient
            terms.append(to_node(coefficient))
            continue
        term = factors[0]
        for factor in factors[1:]:
            term = UOp(ops.MUL, dtypes.index, (term, factor))
        terms.append(term if coefficient == 1 else UOp(ops.MUL, dtypes.index, (term, to_node(coefficient))))
    result = terms[0]
    for term in terms[1:]:
        result = UOp(ops.ADD, dtypes.index, (result, term))
    return result

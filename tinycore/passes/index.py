"""Natives of ``index.rules``: index expressions as polynomials with a deterministic order of terms.

An `index` expression is seen as a sum of monomials: ``{(factor, ...): coefficient}``, the empty monomial
being the constant term. Factors are nodes that are not sums or products themselves (ranges, variables,
quotients, remainders, loads). The order of factors and terms depends on the structure of the graph only,
never on addresses in memory, so equal addresses become equal nodes in every process.

>>> from tinycore.ir import UOp, dtypes, ops
>>> i, j = (UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (k, "loop")) for k in (0, 1))
>>> canonical_sum((j + i * 2) + i * 2) is i * 4 + j
True
"""

from __future__ import annotations

import hashlib
import math
import weakref
from typing import Any

from tinycore.ir import UOp, dtypes, ops, toposort

Monomial = tuple[UOp, ...]
Polynomial = dict[Monomial, int]
Key = tuple[int, int, str, bytes]

_SUMS = frozenset({ops.ADD, ops.SUB, ops.NEG, ops.MUL, ops.CONST})
_UNBOUNDED = 1 << 62  # bounds beyond this come from values about which nothing is known
_digests: weakref.WeakKeyDictionary[UOp, bytes] = weakref.WeakKeyDictionary()


# --- a deterministic order ---------------------------------------------------------------------------------


def _attribute_text(attribute: Any) -> str:
    if isinstance(attribute, UOp):
        return digest(attribute).hex()
    if isinstance(attribute, tuple):
        return "(" + ",".join([_attribute_text(part) for part in attribute]) + ")"
    return repr(attribute)


def digest(node: UOp) -> bytes:
    """A digest of the structure below a node; the same in every process.

    >>> from tinycore.ir import UOp
    >>> digest(UOp.variable("n", 1, 8)) == digest(UOp.variable("n", 1, 9))
    False
    """
    known = _digests.get(node)
    if known is not None:
        return known
    for part in toposort((node,)):
        if part not in _digests:
            text = f"{part.op.name} {part.dtype.name} {_attribute_text(part.arg)}".encode()
            _digests[part] = hashlib.blake2b(
                text + b"".join([_digests[operand] for operand in part.src]), digest_size=12
            ).digest()
    return _digests[node]


def order_key(node: UOp) -> Key:
    """What terms are sorted by: ranges from the outermost in, then variables by name, then all the rest."""
    if node.op is ops.RANGE:
        return 0, int(node.arg[0]), "", digest(node)
    if node.op is ops.VARIABLE:
        return 1, 0, str(node.arg[0]), digest(node)
    return 2, node.op.number, "", digest(node)


def _sorted(factors: Monomial) -> Monomial:
    return factors if len(factors) < 2 else tuple(sorted(factors, key=order_key))


# --- polynomials -------------------------------------------------------------------------------------------


def polynomial(node: UOp, scale: int = 1) -> Polynomial:
    """The node times `scale` as a sum of monomials; products of sums are multiplied out."""
    result: Polynomial = {}
    stack = [(node, scale)]
    while stack:
        current, factor = stack.pop()
        op = current.op
        if op is ops.ADD:
            stack += [(current.src[1], factor), (current.src[0], factor)]
        elif op is ops.SUB:
            stack += [(current.src[1], -factor), (current.src[0], factor)]
        elif op is ops.NEG:
            stack.append((current.src[0], -factor))
        elif op is ops.CONST:
            _accumulate(result, (), factor * int(current.arg[0]))
        elif op is ops.MUL:
            left, right = current.src
            if right.op is ops.CONST or left.op is ops.CONST:
                number, rest = (right, left) if right.op is ops.CONST else (left, right)
                stack.append((rest, factor * int(number.arg[0])))
            else:
                other = polynomial(right)
                for a, count in polynomial(left, factor).items():
                    for b, number_ in other.items():
                        _accumulate(result, _sorted(a + b), count * number_)
        else:
            _accumulate(result, (current,), factor)
    return result


def _accumulate(result: Polynomial, monomial: Monomial, coefficient: int) -> None:
    total = result.get(monomial, 0) + coefficient
    if total:
        result[monomial] = total
    else:
        result.pop(monomial, None)


def build(terms: Polynomial) -> UOp:
    """The canonical node of a polynomial: sorted terms, coefficients right, the constant term last."""
    constant = terms.get((), 0)
    result: UOp | None = None
    for monomial in sorted(filter(None, terms), key=lambda key: [order_key(factor) for factor in key]):
        term = monomial[0]
        for factor in monomial[1:]:
            term = UOp(ops.MUL, dtypes.index, (term, factor))
        if terms[monomial] != 1:
            term = UOp(ops.MUL, dtypes.index, (term, UOp.const(dtypes.index, terms[monomial])))
        result = term if result is None else UOp(ops.ADD, dtypes.index, (result, term))
    if result is None:
        return UOp.const(dtypes.index, constant)
    return UOp(ops.ADD, dtypes.index, (result, UOp.const(dtypes.index, constant))) if constant else result


def _monomial(node: UOp) -> tuple[int, Monomial] | None:
    """(coefficient, factors) of a divisor that is one monomial, else None."""
    terms = polynomial(node)
    if len(terms) != 1:
        return None
    ((factors, coefficient),) = terms.items()
    return coefficient, factors


def _without(factors: Monomial, taken: Monomial) -> Monomial | None:
    """`factors` less those of `taken`; None unless all of them are there."""
    rest = list(factors)
    for factor in taken:
        if factor not in rest:
            return None
        rest.remove(factor)
    return tuple(rest)


# --- natives -----------------------------------------------------------------------------------------------


def canonical_sum(node: UOp) -> UOp | None:
    """The canonical form of a sum or product, with quotients and remainders joined; None when it is that."""
    if node.shape:
        return None
    terms = polynomial(node)
    if node.mask & ops.FLOORMOD.bit:
        while _join(terms):
            pass
    result = build(terms)
    return None if result is node else result


def _join(terms: Polynomial) -> bool:
    """Joins one pair ``(x // a) * (k * a) + (x % a) * k`` into ``x * k``, or the like below a modulus."""
    for monomial in terms:
        for factor in monomial:
            if factor.op is ops.FLOORMOD and _join_at(terms, monomial, factor):
                return True
    return False


def _join_at(terms: Polynomial, monomial: Monomial, factor: UOp) -> bool:
    x, a = factor.src
    divisor = _monomial(a)
    if a.vmin <= 0 or divisor is None:
        return False
    size, factors = divisor
    rest = _without(monomial, (factor,)) or ()
    coefficient = terms[monomial]
    quotients = [UOp(ops.FLOORDIV, dtypes.index, (x, a))]
    if x.op is ops.FLOORDIV and x.src[1].vmin > 0:  # (x // b) // a is written x // (b * a)
        quotients.append(UOp(ops.FLOORDIV, dtypes.index, (x.src[0], build(polynomial(x.src[1] * a)))))
    for quotient in quotients:
        partner = _sorted((*rest, *factors, quotient))
        if partner != monomial and terms.get(partner) == coefficient * size:
            del terms[monomial], terms[partner]
            _add_product(terms, x, rest, coefficient)
            return True
    for partner, count in terms.items():  # ((x // a) % m) * (k * a) + (x % a) * k is (x % (a * m)) * k
        upper = _without(partner, (*rest, *factors)) if count == coefficient * size else None
        if upper is None or len(upper) != 1 or upper[0].op is not ops.FLOORMOD or upper[0].src[1].vmin <= 0:
            continue
        if upper[0].src[0] in quotients:
            modulus = build(polynomial(a * upper[0].src[1]))
            del terms[monomial], terms[partner]
            _accumulate(terms, _sorted((*rest, UOp(ops.FLOORMOD, dtypes.index, (x, modulus)))), coefficient)
            return True
    return False


def _add_product(terms: Polynomial, x: UOp, rest: Monomial, coefficient: int) -> None:
    for monomial, count in polynomial(x, coefficient).items():
        _accumulate(terms, _sorted(monomial + rest), count)


def _split(x: UOp, divisor: UOp) -> tuple[Polynomial, Polynomial]:
    """x as quotient * divisor + remainder, term by term; ({}, x) where nothing divides.

    The constant term goes to the side that leaves the remainder's least value in 0..divisor-1, so that
    equal quotients meet and what is left needs no floor correction.
    """
    terms = polynomial(x)
    single = _monomial(divisor)
    quotient: Polynomial = {}
    if single is None:
        return quotient, terms
    size, factors = single
    remainder: Polynomial = {}
    for monomial, coefficient in terms.items():
        rest = _without(monomial, factors) if coefficient % size == 0 and (monomial or factors) else None
        if rest is not None:
            quotient[rest] = coefficient // size
        elif not factors and 0 < size < coefficient and monomial:
            # (11 a + b) // 10 is a + (a + b) // 10: sliding windows are written so.
            quotient[monomial], remainder[monomial] = divmod(coefficient, size)
        else:
            remainder[monomial] = coefficient
    if not factors and size > 0:
        least = build(remainder).vmin
        whole = (least if least > -_UNBOUNDED else remainder.get((), 0)) // size
        _accumulate(remainder, (), -whole * size)
        _accumulate(quotient, (), whole)
    return quotient, remainder


def quotient_part(x: UOp, divisor: UOp) -> UOp | None:
    """The terms of x that `divisor` (not zero) divides, divided by it; None when there are none."""
    if divisor.vmin <= 0:
        return None
    quotient, _ = _split(x, divisor)
    return build(quotient) if quotient else None


def remainder_part(x: UOp, divisor: UOp) -> UOp | None:
    """The terms of x that `divisor` does not divide; None when that is all of x."""
    if divisor.vmin <= 0:
        return None
    quotient, remainder = _split(x, divisor)
    return build(remainder) if quotient else None


def common_factor(x: UOp, divisor: UOp) -> UOp | None:
    """A proper factor g of a divisor for which ``x = q * g + r`` with 0 <= r < g, the greatest one known.

    Then ``x // divisor`` is ``q // (divisor / g)``, and ``x % divisor`` is ``q % (divisor / g) * g + r``.
    """
    single = _monomial(divisor)
    if divisor.vmin <= 0 or single is None:
        return None
    size, factors = single
    candidates: set[tuple[int, Monomial]] = set()
    for monomial, coefficient in polynomial(x).items():
        if monomial:
            shared = tuple([factor for factor in factors if factor in monomial])
            candidates.add((math.gcd(coefficient, size), shared))
    candidates -= {(1, ()), (size, factors)}
    found = [build({shared: count}) for count, shared in candidates]
    for g in sorted(found, key=lambda g: (g.vmax, order_key(g)), reverse=True):
        if g.vmin > 0 and fits(build(_split(x, g)[1]), g):
            return g
    return None


def divided(divisor: UOp, factor: UOp) -> UOp:
    """divisor / factor, where `factor` came from `common_factor`."""
    return build(_split(divisor, factor)[0])


# --- facts (no nodes are made) -----------------------------------------------------------------------------


def fits(x: UOp, limit: UOp) -> bool:
    """Whether 0 <= x < limit is certain, from the bounds or because ranges end at symbolic sizes."""
    if x.vmin < 0:
        return False
    if x.vmax < limit.vmin:
        return True
    return limit.op is not ops.CONST and build(polynomial(limit - greatest(x))).vmin > 0


def greatest(x: UOp) -> UOp:
    """An upper bound of x in which every RANGE with a symbolic size has been exchanged for its last value."""
    result: Polynomial = {}
    for monomial, coefficient in polynomial(x).items():
        term = UOp.const(dtypes.index, coefficient)
        for factor in monomial:
            if coefficient > 0 and factor.op is ops.RANGE and all(other.vmin >= 0 for other in monomial):
                term = term * (factor.src[0] - 1)
            else:
                term = term * factor
        for key, count in polynomial(term).items():
            _accumulate(result, key, count)
    return build(result)


def content(x: UOp) -> UOp | None:
    """The greatest number that divides every term of x, the constant one too; None when it is 1 or x is 0."""
    divisor = math.gcd(*polynomial(x).values())
    return UOp.const(dtypes.index, divisor) if divisor > 1 else None

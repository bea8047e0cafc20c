"""Index expressions as sums: ``constant + sum(factor * atom)``."""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.ir import UOp, dtypes, ops


@dataclass(frozen=True, slots=True)
class Affine:
    """A sum of products; atoms are nodes that are not sums themselves (ranges, quotients, loads, ...)."""

    terms: tuple[tuple[UOp, int], ...]
    constant: int

    def factor(self, atom: UOp) -> int:
        """The factor of an atom; 0 where it does not occur."""
        for candidate, factor in self.terms:
            if candidate is atom:
                return factor
        return 0

    def depends_only_linearly(self, atom: UOp) -> bool:
        """Whether the atom occurs in no other atom."""
        return all(candidate is atom or atom not in candidate.ranges for candidate, _ in self.terms)


def affine(node: UOp) -> Affine:
    """The sum of products that an `index` expression is.

    >>> i = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (0, "loop"))
    >>> affine((i * 4 + 3) * 2).constant, affine((i * 4 + 3) * 2).factor(i)
    (6, 8)
    """
    terms: dict[UOp, int] = {}
    constant = 0
    stack = [(node, 1)]
    while stack:
        current, scale = stack.pop()
        if current.op is ops.CONST:
            constant += scale * int(current.arg[0])
        elif current.dtype is not dtypes.index:
            terms[current] = terms.get(current, 0) + scale
        elif current.op is ops.ADD:
            stack.extend((operand, scale) for operand in reversed(current.src))
        elif current.op is ops.SUB:
            stack.append((current.src[1], -scale))
            stack.append((current.src[0], scale))
        elif current.op is ops.NEG:
            stack.append((current.src[0], -scale))
        elif current.op is ops.MUL and current.src[1].is_const:
            stack.append((current.src[0], scale * int(current.src[1].arg[0])))
        elif current.op is ops.MUL and current.src[0].is_const:
            stack.append((current.src[1], scale * int(current.src[0].arg[0])))
        else:
            terms[current] = terms.get(current, 0) + scale
    return Affine(tuple([(atom, factor) for atom, factor in terms.items() if factor]), constant)

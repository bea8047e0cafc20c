"""Index expressions in parts, by when they are known: the same for all unrolled copies of an access."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tinycore.codegen.affine import affine
from tinycore.codegen.nest import Environment, constant_bound, kind_of
from tinycore.errors import CompileError
from tinycore.ir import DType, UOp, ops

Place = Callable[[UOp], UOp]
"""Lists a program node."""


@dataclass(frozen=True, slots=True)
class Address:
    """An index expression as a sum.

    Attributes
    ----------
    constant: its constant term.
    unrolled: unrolled ranges and their factors: constants of each copy.
    lanes: stride and size of the vector range in it.
    terms: what has to be computed, and the factors.
    copies: the unrolled ranges that the terms depend on.
    whole: whether the expression is no sum, but a term itself.
    """

    constant: int
    unrolled: tuple[tuple[UOp, int], ...]
    lanes: tuple[int, int] | None
    terms: tuple[tuple[UOp, int], ...]
    copies: frozenset[UOp]
    whole: bool

    def offset(self, environment: Environment) -> int:
        """The constant term of one copy. Raises CompileError where the environment has no value for a range."""
        values = dict(environment)
        missing = [atom for atom, _ in self.unrolled if atom not in values]
        if missing:
            raise CompileError("the bound of a loop depends on an unrolled range", where=repr(missing[0]))
        return self.constant + sum([factor * values[atom] for atom, factor in self.unrolled])


def address_of(node: UOp, unrolled_below: Callable[[UOp], Iterable[UOp]]) -> Address:
    """The parts of an index expression; `unrolled_below` says which unrolled ranges a term depends on.

    Raises CompileError for a vector range whose bound is not a constant.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> i, j, k = (
    ...     UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (number, kind))
    ...     for number, kind in enumerate(("loop", "unroll", "vector"))
    ... )
    >>> found = address_of(i * 64 + j * 8 + k + 5, lambda term: ())
    >>> found.constant, found.unrolled == ((j, 8),), found.lanes, found.terms == ((i, 64),)
    (5, True, (1, 8), True)
    """
    form = affine(node)
    unrolled: list[tuple[UOp, int]] = []
    terms: list[tuple[UOp, int]] = []
    lanes: tuple[int, int] | None = None
    for atom, factor in form.terms:
        kind = kind_of(atom) if atom.op is ops.RANGE else ""
        if kind == "unroll":
            unrolled.append((atom, factor))
        elif kind == "vector":
            lanes = factor, constant_bound(atom.src[0])
        else:
            terms.append((atom, factor))
    copies = frozenset(itertools.chain.from_iterable(unrolled_below(atom) for atom, _ in terms))
    return Address(form.constant, tuple(unrolled), lanes, tuple(terms), copies, whole=form.factor(node) != 0)


def summed(
    products: Sequence[tuple[UOp, int]], dtype: DType, depth_of: Callable[[UOp], int], place: Place
) -> UOp:
    """Products of values and factors added from the outermost loop inwards, so that partial sums leave the loops."""
    emitted: list[tuple[int, int, UOp]] = []
    for order, (value, factor) in enumerate(products):
        if factor != 1:
            constant: UOp = UOp.const(dtype, factor, value.shape)
            value = place(UOp(ops.MUL, dtype, (value, constant)))
        emitted.append((depth_of(value) + (1000 if value.shape else 0), order, value))
    emitted.sort(key=lambda item: item[:2])
    result = emitted[0][2]
    for _, _, value in emitted[1:]:
        if value.shape and not result.shape:
            result = splat(result, int(value.shape[0]), place)  # type: ignore[arg-type]
        result = place(UOp(ops.ADD, dtype, (result, value)))
    return result


def spread(base: UOp, stride: int, lanes: int, place: Place) -> UOp:
    """An index for each lane, `stride` apart."""
    iota: UOp = UOp(ops.IOTA, base.dtype, (), lanes)
    if stride != 1:
        iota = place(UOp(ops.MUL, base.dtype, (iota, UOp.const(base.dtype, stride, (lanes,)))))
    return place(UOp(ops.ADD, base.dtype, (splat(base, lanes, place), iota)))


def splat(value: UOp, lanes: int, place: Place) -> UOp:
    """A value in every lane; one that has lanes as it is."""
    if value.shape:
        return value
    if value.is_const:
        return UOp.from_bits(value.dtype, value.arg[0], (lanes,))
    return place(UOp(ops.SPLAT, value.dtype, (value,), lanes))

"""What a load touches while some of its ranges run: a box of memory, with sliding windows as one dimension.

The index ``(y + ky) * 56 + (x + kx) - 57`` under the guard ``0 < y + ky & y + ky < 57 & ...`` walks two
dimensions, not four: `y` and `ky` only ever occur as a sum. Its footprint has a dimension of
``bound(y) + bound(ky) - 1`` rows, and every guard and address can be said in terms of those rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinycore.codegen.affine import affine
from tinycore.ir import UOp, dtypes, ops

_COMPARISONS = frozenset({ops.LT, ops.LE, ops.EQ, ops.NE})


@dataclass(frozen=True, slots=True)
class Dimension:
    """Ranges that occur as one sum ``ratio[0] * range[0] + ratio[1] * range[1] + ...``.

    Attributes
    ----------
    unit: by how many elements of memory the sum moves the address when it grows by one.
    extent: how many values the sum has, at most.
    ranges: the ranges with their ratios; one of them has the ratio 1.
    """

    unit: int
    extent: int
    ranges: tuple[tuple[UOp, int], ...]

    @property
    def slides(self) -> bool:
        """Whether several ranges share the dimension: neighbouring windows overlap."""
        return len(self.ranges) > 1

    @property
    def is_static(self) -> bool:
        """Whether the extent is a constant; else it is the largest that it may be."""
        return all(node.src[0].is_const for node, _ in self.ranges)

    @property
    def bound(self) -> UOp:
        """The extent as a node, which is what the range may end early at."""
        if self.is_static:
            return UOp.const(dtypes.index, self.extent)
        return self.ranges[0][0].src[0]

    def separate(self) -> tuple[Dimension, ...]:
        """The dimension of each range alone, where no two combinations of them meet; else this one."""
        reach = 1
        for node, ratio in sorted(self.ranges, key=lambda item: item[1]):
            if ratio < reach:
                return (self,)
            reach = ratio * (_last(node) + 1)
        return tuple([Dimension(self.unit * ratio, _last(n) + 1, ((n, 1),)) for n, ratio in self.ranges])

    def substitution(self, position: UOp) -> dict[UOp, UOp]:
        """The ranges exchanged for a position in the dimension."""
        zero = UOp.const(dtypes.index, 0)
        leader = next(node for node, ratio in self.ranges if ratio == 1)
        return {node: position if node is leader else zero for node, _ in self.ranges}


def footprint(load: UOp, inside: Iterable[UOp]) -> tuple[Dimension, ...] | None:
    """The dimensions that a LOAD walks while the ranges `inside` run, the largest unit first.

    None where there is no box: an address that is not a sum of ranges, a guard that looks at a range in another
    way than the address does.
    """
    wanted = frozenset(inside)
    address = affine(load.src[1])
    factors: dict[UOp, int] = {}
    for node in load.ranges:
        if node in wanted:
            factor = address.factor(node)
            if factor <= 0 or not address.depends_only_linearly(node):
                return None
            factors[node] = factor
    guards = list(_guard_sums(load.src[2], wanted))
    if any(sums is None for sums in guards):
        return None
    groups = _groups(factors, [sums for sums in guards if sums])
    found = [_dimension(group, factors) for group in groups]
    dimensions = [dimension for dimension in found if dimension is not None]
    if len(dimensions) < len(found):
        return None
    for sums in guards:
        if sums and not any(_proportional(sums, dimension) for dimension in dimensions):
            return None
    return tuple(sorted(dimensions, key=lambda dimension: -dimension.unit))


def _guard_sums(guard: UOp, wanted: frozenset[UOp]) -> Iterator[dict[UOp, int] | None]:
    """For every comparison of a guard the factors of the wanted ranges; None for what is no such comparison."""
    if not wanted & guard.ranges:
        return
    if guard.op is ops.AND:
        for operand in guard.src:
            yield from _guard_sums(operand, wanted)
    elif guard.op in _COMPARISONS and guard.src[0].dtype is dtypes.index:
        form = affine(guard.src[0] - guard.src[1])
        if all(form.depends_only_linearly(node) for node in wanted & guard.ranges):
            yield {node: form.factor(node) for node in guard.ranges if node in wanted and form.factor(node)}
        else:
            yield None
    else:
        yield None


def _groups(factors: dict[UOp, int], sums: list[dict[UOp, int]]) -> list[list[UOp]]:
    """Ranges that share a dimension: compared together, or walking the same memory."""
    home: dict[UOp, list[UOp]] = {node: [node] for node in factors}

    def join(one: UOp, other: UOp) -> None:
        if home[one] is not home[other]:
            home[one].extend(home[other])
            for node in home[other]:
                home[node] = home[one]

    guarded = {node for each in sums for node in each}
    for each in sums:
        first, *rest = each
        for node in rest:
            join(first, node)
    free = sorted((node for node in factors if node not in guarded), key=lambda node: factors[node])
    for position, node in enumerate(free):
        for other in free[:position]:
            size = sum(_last(n) * factors[n] for n in home[other]) + factors[other]
            if factors[node] < size and factors[node] % factors[other] == 0:
                join(other, node)
    return list({id(group): group for group in home.values()}.values())


def _last(node: UOp) -> int:
    return node.src[0].vmax - 1


def _dimension(group: list[UOp], factors: dict[UOp, int]) -> Dimension | None:
    unit = functools.reduce(math.gcd, [factors[node] for node in group])
    ranges = tuple(sorted(((n, factors[n] // unit) for n in group), key=lambda item: int(item[0].arg[0])))
    if all(ratio != 1 for _, ratio in ranges):
        return None
    return Dimension(unit, sum(_last(node) * ratio for node, ratio in ranges) + 1, ranges)


def _proportional(sums: dict[UOp, int], dimension: Dimension) -> bool:
    """Whether a comparison sees exactly the sum that the address sees, or a multiple of it."""
    ratios = dict(dimension.ranges)
    if sums.keys() != ratios.keys():
        return False
    scales = {factor // ratios[node] if factor % ratios[node] == 0 else 0 for node, factor in sums.items()}
    return len(scales) == 1 and 0 not in scales

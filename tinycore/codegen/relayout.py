"""Accesses whose lanes do not walk memory while unrolled copies do: contiguous accesses and shuffles.

Where the range that has the lanes moves an address by more than one element, and an unrolled range moves it
by exactly one, the copies of the access together cover rows of neighbours. Each row is accessed as a whole,
and a network of shuffles exchanges rows and lanes. Both ways: a LOAD is transposed after it, a STORE before.
Lanes that are few elements apart are picked out of vectors of neighbours instead: a LOAD of every other one.

The access of a row is the same kernel node with the two ranges bound the other way round, so that guards and
addresses need no thought of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tinycore.codegen.affine import affine
from tinycore.codegen.nest import TRUE, Environment, constant_bound, id_of, kind_of
from tinycore.ir import UOp, dtypes, ops

Value = Callable[[UOp, Environment], UOp]
"""The program node of a kernel node for one combination of unrolled ranges."""
Place = Callable[[UOp], UOp]
"""Lists a program node."""

MOST_APART = 4
"""Lanes that are further apart cost more shuffles than loads of rows."""
BLOCK_BYTES = 16
"""Processors with registers of any width interleave blocks of this size in one instruction."""


@dataclass(frozen=True, slots=True)
class Relayout:
    """How the copies of one LOAD or STORE are accessed in rows.

    Attributes
    ----------
    node: the access.
    vector: the range that has the lanes.
    unrolled: the unrolled range along which neighbours lie.
    width: elements that are accessed at once, a power of 2.
    """

    node: UOp
    vector: UOp
    unrolled: UOp
    width: int

    @property
    def lanes(self) -> int:
        """Lanes of the value, which are the rows in memory."""
        return constant_bound(self.vector.src[0])

    @property
    def copies(self) -> int:
        """How many copies there are."""
        return constant_bound(self.unrolled.src[0])

    def load(self, environment: Environment, value: Value, place: Place) -> dict[Environment, UOp]:
        """The values of those copies of a LOAD that lie in the same rows as one copy."""
        copy = dict(environment)[self.unrolled]
        first = copy // self.width * self.width
        row, rest = self._row(first), self._without(environment)
        rows = [value(row, self._with(rest, row, number)) for number in range(self.lanes)]
        columns = transposed(rows, place)
        return {
            _sorted((*rest, (self.unrolled, number))): columns[number - first]
            for number in range(first, min(first + self.width, self.copies))
        }

    def stores(
        self, environments: Sequence[Environment], value: Callable[[Environment], UOp], place: Place
    ) -> Iterator[tuple[UOp, Environment, UOp]]:
        """The rows of a STORE whose copies are `environments`: node, environment and the value with lanes."""
        for rest in dict.fromkeys(self._without(environment) for environment in environments):
            for first in range(0, self.copies, self.width):
                last = min(first + self.width, self.copies)
                columns = [value(_sorted((*rest, (self.unrolled, n)))) for n in range(first, last)]
                columns += [columns[-1]] * (self.width - len(columns))
                row = self._row(first)
                for number, elements in enumerate(transposed(columns, place)):
                    yield row, self._with(rest, row, number), elements

    def _row(self, first: int) -> UOp:
        """The access with lanes along the neighbours, from copy `first` on, and the former lanes unrolled."""
        number, width = id_of(self.unrolled), UOp.const(dtypes.index, self.width)
        lane = UOp(ops.RANGE, dtypes.index, (width,), (number, "vector"))
        copy = lane + first if first else lane
        mapping = {self.vector: self._rows, self.unrolled: copy}
        buffer, index, *stored, gate = self.node.src
        index, gate = index.substitute(mapping), gate.substitute(mapping)
        if first + self.width > self.copies:
            inside = copy < self.copies
            gate = inside if gate is TRUE else gate & inside
        return self.node.replace(src=(buffer, index, *stored, gate))

    @property
    def _rows(self) -> UOp:
        return self.vector.replace(arg=(id_of(self.vector), "unroll"))

    def _with(self, rest: Environment, row: UOp, number: int) -> Environment:
        return _sorted((*rest, (self._rows, number)))

    def _without(self, environment: Environment) -> Environment:
        return tuple([pair for pair in environment if pair[0] is not self.unrolled])


@dataclass(frozen=True, slots=True)
class Picked:
    """How the copies of one LOAD whose lanes are few elements apart are loaded as neighbours.

    Attributes
    ----------
    node: the access.
    vector: the range that has the lanes.
    unrolled: the unrolled range along which neighbours lie.
    stride: by how many elements the lanes are apart.
    """

    node: UOp
    vector: UOp
    unrolled: UOp
    stride: int

    def load(self, environment: Environment, value: Value, place: Place) -> dict[Environment, UOp]:
        """The values of as many copies as there are elements between two lanes: they share their vectors."""
        rest = tuple([pair for pair in environment if pair[0] is not self.unrolled])
        first = dict(environment)[self.unrolled] // self.stride * self.stride
        lanes = constant_bound(self.vector.src[0])
        members = min(self.stride, constant_bound(self.unrolled.src[0]) - first)
        last = self.stride * (lanes - 1) + members - lanes  # nothing behind the last lane is loaded
        starts = [min(number * lanes, last) for number in range(self.stride)]
        pieces = [value(self._neighbours(first, start, members), rest) for start in starts]
        return {
            _sorted((*rest, (self.unrolled, first + member))): self._picked(pieces, starts, member, place)
            for member in range(members)
        }

    def _neighbours(self, first: int, start: int, members: int) -> UOp:
        """The elements from one on; those before the end of what the last lane would load."""
        buffer, index, gate = self.node.src
        offset = first + start
        element = self.vector + offset if offset else self.vector
        index = index.substitute({self.vector: UOp.const(dtypes.index, 0), self.unrolled: element})
        changed: dict[UOp, UOp] = {}
        for limit in _conditions(gate):
            if self.vector in limit.ranges:
                zero = {self.vector: UOp.const(dtypes.index, 0)}
                left, right = (side.substitute(zero) for side in limit.src)
                ahead = self.vector + (start + self.stride - members)
                changed[limit] = ahead < (right - left) * self.stride
        return self.node.replace(src=(buffer, index, gate.substitute(changed)))

    def _picked(self, pieces: Sequence[UOp], starts: Sequence[int], member: int, place: Place) -> UOp:
        """The lanes of one copy, from one vector after the other."""
        lanes = _lanes(pieces[0])
        elements = range(member, member + self.stride * lanes, self.stride)
        homes = [min(element // lanes, self.stride - 1) for element in elements]
        places = [element - starts[home] for element, home in zip(elements, homes, strict=True)]
        result = pieces[0]
        for number in range(1, self.stride):
            taken = [
                lanes + spot if home == number else (spot if number == 1 else lane)
                for lane, (home, spot) in enumerate(zip(homes, places, strict=True))
            ]
            taken = [spot if home <= number else 0 for spot, home in zip(taken, homes, strict=True)]
            result = _shuffle(result, pieces[number], taken, place)
        return result


def _sorted(environment: Environment) -> Environment:
    return tuple(sorted(environment, key=lambda pair: id_of(pair[0])))


def relayout_of(node: UOp) -> Relayout | Picked | None:
    """How a LOAD or STORE is better accessed in rows, or None when its lanes are neighbours as they are.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> def range_of(number, bound, kind):
    ...     return UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (number, kind))
    >>> matrix = UOp(ops.PARAM, dtypes.float32, (), (0, (16, 40)))
    >>> index = range_of(0, 16, "vector") * 40 + range_of(1, 14, "unroll")
    >>> found = relayout_of(UOp(ops.LOAD, dtypes.float32, (matrix, index, UOp.const(dtypes.bool_, True)), 1))
    >>> found.lanes, found.copies, found.width
    (16, 14, 16)
    """
    index, gate = node.src[1], node.src[-1]
    if gate.mask & ops.LOAD.bit:
        return None
    form = affine(index)
    vectors = [(atom, factor) for atom, factor in form.terms if _is(atom, "vector")]
    unrolled = [atom for atom, factor in form.terms if factor == 1 and _is(atom, "unroll")]
    if len(vectors) != 1 or not unrolled or vectors[0][1] == 1:
        return None
    vector, copies = vectors[0][0], max(unrolled, key=lambda atom: constant_bound(atom.src[0]))
    lanes = constant_bound(vector.src[0])
    count = constant_bound(copies.src[0])
    if count < 2 or lanes < 2 or lanes & (lanes - 1):
        return None
    if not (form.depends_only_linearly(vector) and form.depends_only_linearly(copies)):
        return None
    near = node.op is ops.LOAD and 1 < vectors[0][1] <= min(MOST_APART, lanes // 2)
    if near and copies not in gate.ranges and _ends(gate, vector):
        return Picked(node, vector, copies, vectors[0][1])
    return Relayout(node, vector, copies, min(lanes, 1 << (count - 1).bit_length()))


def _conditions(gate: UOp) -> tuple[UOp, ...]:
    return tuple([part for each in gate.src for part in _conditions(each)]) if gate.op is ops.AND else (gate,)


def _ends(gate: UOp, vector: UOp) -> bool:
    """Whether a guard only lets the first lanes pass, however many."""
    for part in _conditions(gate):
        if vector in part.ranges:
            if part.op is not ops.LT or part.src[0].dtype is not dtypes.index:
                return False
            form = affine(part.src[0] - part.src[1])
            if form.factor(vector) != 1 or not form.depends_only_linearly(vector):
                return False
    return True


def _is(atom: UOp, kind: str) -> bool:
    return atom.op is ops.RANGE and kind_of(atom) == kind


# --- the network ------------------------------------------------------------------------------------------


def transposed(rows: Sequence[UOp], place: Place) -> list[UOp]:
    """As many vectors as the rows have lanes; lane k of each comes from row k. Both counts are powers of 2.

    Think of the bits of the row's number and of the lane's number. Every step moves one bit of each to the
    other side, with two operands a shuffle: first those inside small blocks by interleaving, then blocks as
    a whole. Rows are joined before, or cut after, when there are more of one than of the other.
    """
    rows = list(rows)
    count, lanes = len(rows), _lanes(rows[0])
    while len(rows) > lanes:
        rows = [
            _shuffle(a, b, range(2 * _lanes(a)), place)
            for start in range(0, len(rows), 2 * lanes)
            for a, b in zip(rows[start : start + lanes], rows[start + lanes : start + 2 * lanes], strict=True)
        ]
    square = min(count, lanes)
    block = min(square, max(1, BLOCK_BYTES // rows[0].dtype.itemsize))
    step = block >> 1
    while step:
        rows = _exchanged(rows, step, _interleaving(_lanes(rows[0]), block), place)
        step >>= 1
    step = block
    while step < square:
        rows = _exchanged(rows, step, _gathering(_lanes(rows[0]), block, square), place)
        step <<= 1
    if count >= lanes:
        return rows
    cuts = [range(start, start + count) for start in range(0, lanes, count)]
    return [_shuffle(row, row, cut, place) for cut in cuts for row in rows]


def _exchanged(rows: list[UOp], step: int, places: tuple[list[int], list[int]], place: Place) -> list[UOp]:
    """Rows that are `step` apart become two shuffles of both."""
    result = list(rows)
    for number, row in enumerate(rows):
        if not number & step:
            for offset, indices in zip((0, step), places, strict=True):
                result[number + offset] = _shuffle(row, rows[number + step], indices, place)
    return result


def _interleaving(lanes: int, block: int) -> tuple[list[int], list[int]]:
    """In every block: the lower halves of both operands in turn; the upper halves."""
    halves: tuple[list[int], list[int]] = ([], [])
    for start in range(0, lanes, block):
        for half, indices in enumerate(halves):
            begin = start + half * (block // 2)
            for lane in range(begin, begin + block // 2):
                indices += (lane, lanes + lane)
    return halves


def _gathering(lanes: int, block: int, square: int) -> tuple[list[int], list[int]]:
    """In every square: the even blocks of both operands, one operand after the other; the odd blocks."""
    halves: tuple[list[int], list[int]] = ([], [])
    for start in range(0, lanes, square):
        for half, indices in enumerate(halves):
            for operand in (0, lanes):
                for begin in range(start + half * block, start + square, 2 * block):
                    indices += range(operand + begin, operand + begin + block)
    return halves


def _shuffle(a: UOp, b: UOp, indices: Sequence[int], place: Place) -> UOp:
    return place(UOp(ops.SHUFFLE, a.dtype, (a, b), tuple(indices)))


def _lanes(value: UOp) -> int:
    return int(value.shape[0])  # type: ignore[arg-type]

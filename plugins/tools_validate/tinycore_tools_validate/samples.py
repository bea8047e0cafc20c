"""Random inputs for checking that two graphs mean the same, and the comparison of what they answer.

Where the order of a float sum may change, inputs are small whole numbers if the graph allows it: then every
order gives the same bits, and the comparison can stay exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from tinycore.interpret.arrays import Bindings, bind
from tinycore.ir import UOp, ops
from tinycore.ir.ops import Op

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LARGEST = 1 << 22
"""Graphs whose inputs have more elements are not interpreted."""
WORK = 1 << 25
"""Graphs with a value of more elements, reduced axes included, are not interpreted."""

APPROXIMATED = (ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF, ops.POW)
"""Ops that a device may compute with a declared error."""

_WHOLE = (
    ops.ADD,
    ops.SUB,
    ops.MUL,
    ops.NEG,
    ops.MAX,
    ops.MIN,
    ops.WHERE,
    ops.FMA,
    ops.LT,
    ops.LE,
    ops.EQ,
    ops.NE,
    ops.CAST,
    ops.FLOOR,
    ops.TRUNC,
    ops.ROUND,
)
"""Float ops that answer whole numbers for whole numbers."""
_WHOLE_LIMIT = {8: 2.0**50, 4: 2.0**23, 2: 2.0**10}


class Precision(Enum):
    """How equal two results must be."""

    EXACT = "bit for bit, any NaN for any NaN"
    UNSIGNED = "bit for bit, but for the sign of zeros"
    APPROXIMATE = "within declared approximations"
    REORDERED = "within what the order of a sum decides"

    @property
    def noisy(self) -> bool:
        """Whether results may differ in digits that mean nothing."""
        return self in (Precision.APPROXIMATE, Precision.REORDERED)


@dataclass(frozen=True)
class Sample:
    """Inputs for a graph.

    Attributes
    ----------
    inputs: flat arrays by PARAM or BUFFER node.
    bindings: a value for every VARIABLE.
    whole: whether sums of floats are exact in any order.
    """

    inputs: Mapping[UOp, Array]
    bindings: Mapping[UOp, int]
    whole: bool

    def slots(self) -> dict[int, Array]:
        """Copies of the inputs by slot, for kernels: what is stored to may be changed."""
        return {int(node.arg[0]): array.copy() for node, array in self.inputs.items()}


def draw(roots: Sequence[UOp], nodes: Iterable[UOp], seed: str, *, positive: bool = False) -> Sample | None:
    """Inputs for a graph, the same for the same seed; None for one that is too large to interpret.

    Parameters
    ----------
    roots: the graph.
    nodes: everything below them.
    seed: any text.
    positive: no negative floats: for graphs that answer NaN otherwise (logarithms, roots).
    """
    import numpy as np

    nodes = list(nodes)
    memories = [node for node in nodes if node.op in (ops.PARAM, ops.BUFFER)]
    bindings = bind(nodes)
    values = Bindings(bindings)
    sizes = [_product(values.shape(_dims_of(node))) for node in memories]
    if sum(sizes) > LARGEST or any(_elements(node, values) > WORK for node in nodes):
        return None
    whole = not positive and _whole(nodes, values)
    reduces = any(node.op in (ops.REDUCE, ops.SCAN, ops.SCATTER) and node.dtype.is_float for node in nodes)
    generator = np.random.default_rng(zlib.crc32(seed.encode()))
    inputs = {
        node: _array(node, size, generator, whole=whole, positive=positive, special=not reduces)
        for node, size in zip(memories, sizes, strict=True)
    }
    return Sample(inputs, bindings, whole)


def _dims_of(memory: UOp) -> tuple[Any, ...]:
    return tuple(memory.arg[1])


def _product(sizes: Iterable[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _elements(node: UOp, values: Bindings) -> int:
    if node.op in (ops.EXPAND, ops.CONST) or not node.shape:
        return 1
    return _product(values.shape(node.shape))


SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 1e30, 1e-30)


def _array(
    node: UOp, size: int, generator: np.random.Generator, *, whole: bool, positive: bool, special: bool
) -> Array:
    """Normal floats, every fourth a whole number (so that equal ones meet), and what floats are odd about."""
    import numpy as np

    dtype = node.dtype
    if dtype.is_float:
        values = generator.integers(-3, 4, size) if whole else generator.standard_normal(size)
        if not whole:
            values[::4] = np.round(values[::4] * 2)
        if special and size >= 4 * len(SPECIAL):
            values[generator.choice(size, len(SPECIAL), replace=False)] = SPECIAL
        if positive:
            values = np.abs(values) + 1e-3
    elif dtype.kind == "bool":
        values = generator.integers(0, 2, size)
    else:
        values = generator.integers(0 if dtype.kind == "uint" else -3, 12, size)
    return np.asarray(values.astype(dtype.numpy))


def _whole(nodes: Sequence[UOp], values: Bindings) -> bool:
    """Whether small whole inputs keep every float of a tensor graph whole and small enough to be exact."""
    reduced, factor, smallest = 1, 1, 8
    for node in nodes:
        if not node.dtype.is_float:
            continue
        smallest = min(smallest, node.dtype.itemsize)
        if node.op is ops.CONST:
            value = float(node.value)
            if value != value or abs(value) > 64 or value != int(value):
                return False
            factor = max(factor, int(abs(value)))
        elif node.op is ops.MUL or node.op is ops.FMA:
            factor *= 3
        elif node.op is ops.REDUCE:
            if node.arg[0] is ops.MUL:
                return False
            before = values.shape(node.src[0].shape)
            reduced *= _product(before[axis] for axis in node.arg[1])
        elif node.op.elementwise and node.op not in _WHOLE:
            return False
        if reduced * factor > _WHOLE_LIMIT.get(smallest, 0):
            return False
    return reduced > 1


def nudge(array: Array) -> Array:
    """The same with every float changed in its last place, at random: what comes of it is noise."""
    import numpy as np

    epsilon = {1: 2.0**-3, 2: 2.0**-8, 4: 2.0**-23, 8: 2.0**-52}[array.dtype.itemsize]
    if array.dtype.kind in "iub":
        return array.copy()
    generator = np.random.default_rng(array.size)
    with np.errstate(all="ignore"):
        changed = array.astype(np.float64) * (1 + epsilon * generator.uniform(-1, 1, array.shape))
        return np.asarray(changed.astype(array.dtype))


# --- comparing --------------------------------------------------------------------------------------------

_ZERO_SIGN_FREE = (ops.MAX, ops.MIN, ops.REDUCE, ops.SCAN)
_REORDERED = {2: 2e-2, 4: 2e-4, 8: 1e-10}
_APPROXIMATE = {2: 1e-2, 4: 1e-5, 8: 1e-12}


def precision(before: Iterable[UOp], after: Iterable[UOp], sample: Sample) -> Precision:
    """How equal two graphs must be, by what the second may do differently."""
    before, after = list(before), list(after)
    if not sample.whole and any(node.op is ops.REDUCE and node.dtype.is_float for node in before):
        return Precision.REORDERED
    if _approximated(before) - _approximated(after):
        return Precision.APPROXIMATE
    return signed_zeros(before)


def signed_zeros(nodes: Iterable[UOp]) -> Precision:
    """Exact, except that the op table leaves the sign of a zero open for maxima and reductions."""
    free = any(node.op in _ZERO_SIGN_FREE and node.dtype.is_float for node in nodes)
    return Precision.UNSIGNED if free else Precision.EXACT


def _approximated(nodes: Iterable[UOp]) -> set[tuple[Op, Any]]:
    return {(node.op, node.dtype) for node in nodes if node.op in APPROXIMATED}


def difference(expected: Array, found: Array, wanted: Precision) -> str:
    """The first element that is not equal enough, in words; the empty string when there is none.

    >>> import numpy
    >>> difference(numpy.array([1, 2]), numpy.array([1, 3]), Precision.EXACT)
    'element 1 was 2 and became 3'
    """
    import numpy as np

    expected, found = expected.reshape(-1), found.reshape(-1)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{expected.size} elements of {expected.dtype} became {found.size} of {found.dtype}"
    with np.errstate(all="ignore"):
        if expected.dtype.kind in "iub" or wanted is Precision.EXACT:
            close = _same_bits(expected, found)
        elif wanted is Precision.UNSIGNED:
            close = _same_bits(expected, found) | (expected == found)
        else:
            close = _close(expected, found, wanted)
    if close.all():
        return ""
    at = int(np.argmin(close))
    return f"element {at} was {expected[at]} and became {found[at]}"


def _same_bits(expected: Array, found: Array) -> Array:
    import numpy as np

    if not expected.size:
        return np.ones(0, bool)
    bits = (expected.reshape(-1, 1).view(np.uint8) == found.reshape(-1, 1).view(np.uint8)).all(axis=1)
    return np.asarray(bits | ((expected != expected) & (found != found)))


def _close(expected: Array, found: Array, wanted: Precision) -> Array:
    import numpy as np

    a, b = expected.astype(np.float64), found.astype(np.float64)
    size = np.abs(np.where(np.isfinite(a), a, 0))
    largest = float(np.quantile(size, 0.9)) if size.size else 0.0  # a few odd ones must not excuse the rest
    if wanted is Precision.REORDERED:
        tolerance = _REORDERED.get(expected.dtype.itemsize, 0.3) * np.maximum(size, largest)
    else:
        tolerance = _APPROXIMATE.get(expected.dtype.itemsize, 0.3) * (size + min(1.0, largest))
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance + 1e-38))


NOISE = 128
"""How many times what a change in the last place of the inputs does is still taken for noise."""


def within_noise(expected: Array, found: Array, original: Array, nudged: Array) -> bool:
    """Whether a difference is noise: sums that cancel have no digits that their order could not change.

    `original` and `nudged` are what the same graph answers for inputs, and for `nudge` of them.

    >>> import numpy
    >>> a, b = numpy.array([3e-9]), numpy.array([8e-9])
    >>> within_noise(a, b, a, numpy.array([-2e-9])), within_noise(a, b, a, a)
    (True, False)
    """
    import numpy as np

    if expected.dtype.kind in "iub":
        return False
    a, b, c, d = (each.reshape(-1).astype(np.float64) for each in (expected, found, original, nudged))
    finite = np.isfinite(a)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        change = np.abs(c - d)
        noise = change[np.isfinite(change)].max(initial=0.0)
        return bool((same | (finite & (np.abs(a - b) <= NOISE * noise))).all())

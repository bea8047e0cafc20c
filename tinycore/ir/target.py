"""What a kernel is compiled for: capabilities as data, no device named anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinycore.ir.dtypes import DATA, DType
from tinycore.ir.ops import Op, ops

BASIC_OPS: frozenset[Op] = frozenset(
    {
        ops.NEG,
        ops.ADD,
        ops.SUB,
        ops.MUL,
        ops.DIV,
        ops.TRUNCDIV,
        ops.TRUNCMOD,
        ops.AND,
        ops.OR,
        ops.XOR,
        ops.SHL,
        ops.SHR,
        ops.LT,
        ops.LE,
        ops.EQ,
        ops.NE,
        ops.WHERE,
        ops.CAST,
        ops.BITCAST,
        ops.SQRT,
        ops.FLOOR,
        ops.TRUNC,
        ops.ROUND,
        ops.MAX,
        ops.MIN,
    }
)
"""The elementwise ops that every backend must render; all others are decomposed into these by rules."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A kind of DOT: groups of `size` products of `left` and `right` are summed in `accumulator`."""

    accumulator: DType
    left: DType
    right: DType
    size: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do. Claims; the conformance kit proves them.

    Attributes
    ----------
    ops: elementwise ops that the renderer writes natively (others are decomposed), and SHUFFLE where values
        with lanes can be shuffled.
    dtypes: dtypes that buffers may have.
    arithmetic: dtypes that arithmetic is done in; others are computed in a wider one.
    vector_bytes: width of a vector register in bytes; 0 when values have no lanes.
    vector_registers: how many there are; what register tiles are chosen by.
    threads: how many workers run chunks of the grid at once.
    workgroups: whether a grid has work-groups with `local` ranges, shared memory and barriers.
    local_size: most work-items in a work-group.
    shared_bytes: bytes of shared memory of a work-group.
    index_bits: widths that address arithmetic may have, the preferred one first.
    gather: whether loads with a vector index are possible.
    max_buffers: most buffers that one kernel may have; None for no limit.
    cache_bytes: sizes of the caches, nearest first.
    dots: kinds of DOT that the renderer writes natively, for registers of `vector_bytes`.
    """

    ops: frozenset[Op] = BASIC_OPS
    dtypes: frozenset[DType] = frozenset(DATA)
    arithmetic: frozenset[DType] = frozenset(DATA)
    vector_bytes: int = 0
    vector_registers: int = 16
    threads: int = 1
    workgroups: bool = False
    local_size: int = 1
    shared_bytes: int = 0
    index_bits: tuple[int, ...] = (64,)
    gather: bool = True
    max_buffers: int | None = None
    cache_bytes: tuple[int, ...] = ()
    dots: tuple[Dot, ...] = ()

    def has(self, op: Op) -> bool:
        """Whether the renderer writes this op natively (what rules ask as `target.has(SQRT)`)."""
        return op in self.ops

    def lanes(self, dtype: DType) -> int:
        """How many elements of a dtype one vector register holds (at least 1)."""
        return max(1, self.vector_bytes // max(1, dtype.itemsize))


@dataclass(frozen=True, slots=True)
class Target:
    """A device kind and architecture, e.g. ("NAME", "arch"), with what it can do.

    `fingerprint` is everything that makes compiled code differ (compiler version, cpu features); it goes
    into cache keys.
    """

    name: str
    architecture: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)
    fingerprint: str = ""

    def has(self, op: Op) -> bool:
        """See `Capabilities.has`."""
        return op in self.capabilities.ops

"""Loop nests under construction: blocks of statements, and small questions about ranges."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.ops import Op

LOOP_KINDS = frozenset({"loop", "ordered", "reduce"})
GRID_KINDS = frozenset({"global", "local"})
TRUE = UOp.const(dtypes.bool_, True)
Environment = tuple[tuple[UOp, int], ...]
"""Values of the unroll ranges, sorted by range id."""


@dataclass(eq=False)
class Block:
    """One open loop: what was put into it so far."""

    kernel_range: UOp | None
    opening: UOp | None
    items: list[UOp | Block] = field(default_factory=list)
    placed: set[UOp] = field(default_factory=set)
    values: dict[tuple[UOp, Environment], UOp] = field(default_factory=dict)
    bases: dict[tuple[UOp, Environment], UOp] = field(default_factory=dict)
    """The computed parts of addresses that are known here."""
    barrier: bool = False


def kind_of(node: UOp) -> str:
    """What a RANGE is bound to."""
    return str(node.arg[1])


def id_of(node: UOp) -> int:
    """The id of a RANGE: its place in the nest."""
    return int(node.arg[0])


def loops_among(ranges: Iterable[UOp]) -> list[UOp]:
    """Those ranges that are real loops, outermost first."""
    return sorted((node for node in ranges if kind_of(node) in LOOP_KINDS), key=id_of)


def changing_loads(order: Iterable[UOp]) -> frozenset[UOp]:
    """Loads that may see another value next time: the kernel writes their buffer, or what stores into the
    same scratch reads them."""
    found: set[UOp] = set()
    written: set[UOp] = set()
    loads: list[UOp] = []
    for node in order:
        if node.op is ops.LOAD:
            loads.append(node)
        elif node.op is ops.STORE and node.src[0].op is ops.PARAM:
            written.add(node.src[0])
        elif node.op is ops.STORE and node.src[0].op is ops.SCRATCH:
            found.update(n for n in node.src[2].toposort() if n.op is ops.LOAD and n.src[0] is node.src[0])
    found.update(load for load in loads if load.src[0] in written)
    return frozenset(found)


def bodies_of(after: UOp, changing: frozenset[UOp]) -> list[tuple[UOp, ...]]:
    """What memory waits for, those statements together that may share loops: the bodies that a loop was peeled
    into, which then share what is computed for all of them (the sum of a row, say)."""
    statements = after.src[1:]
    alike = len({statement.ranges for statement in statements if statement.op is ops.END}) == 1
    if alike and all(statement.op is ops.END for statement in statements):
        loads = {node for each in statements for node in each.toposort() if node.op is ops.LOAD}
        if changing.isdisjoint(loads):  # one body does not see what another one wrote
            return [statements]
    return [(statement,) for statement in statements]


def constant_bound(node: UOp) -> int:
    """The bound of a range that becomes lanes. Raises CompileError when it is not a constant."""
    if not node.is_const:
        raise CompileError("a range bound to lanes needs a constant bound", where=repr(node))
    return int(node.arg[0])


def combinations(unrolled: Sequence[UOp]) -> list[Environment]:
    """Every combination of the values of some unrolled ranges."""
    bounds = [range(constant_bound(each.src[0])) for each in unrolled]
    return [tuple(zip(unrolled, values, strict=True)) for values in itertools.product(*bounds)]


def lanes_of(node: UOp) -> int:
    """How many lanes a value has; 0 for a scalar. Raises CompileError when that is not a constant."""
    vectors = [r for r in node.ranges if kind_of(r) == "vector"]
    return constant_bound(vectors[0].src[0]) if vectors else 0


def final_value(accumulator: UOp, loop: UOp | None) -> UOp:
    """What an accumulator holds after a loop."""
    after = (UOp(ops.END, dtypes.void, (loop,)),) if loop is not None else ()
    return UOp(ops.AFTER, accumulator.dtype, (accumulator, *after))


def combined(op: Op, parts: Sequence[UOp], place: Callable[[UOp], UOp]) -> UOp:
    """Values joined by an op, pairwise, so that the additions do not wait for one another."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [place(UOp(op, pair[0].dtype, tuple(pair))) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


def flatten(block: Block, out: list[UOp]) -> None:
    """The statements of a nest as one list, loops opened by their RANGE and closed by END."""
    for item in block.items:
        if isinstance(item, Block):
            assert item.opening is not None
            out.append(item.opening)
            flatten(item, out)
            out.append(UOp(ops.END, dtypes.void, (item.opening,)))
        else:
            out.append(item)

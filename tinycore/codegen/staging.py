"""Actions that use scratch memory: of a work-group (reductions across its work-items, staged tiles) or of a thread."""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.codegen.footprint import Dimension, footprint
from tinycore.codegen.nest import TRUE
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops

ZERO = UOp.const(dtypes.index, 0)


@dataclass(frozen=True, slots=True)
class GroupReduce:
    """A REDUCE over a `local` range: partial results meet in shared memory, and `final` combines them."""

    range: int
    final: int

    def __str__(self) -> str:
        return f"reduce r{self.range} across the work-group by r{self.final}"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a kernel loads from buffer `slot` inside range `at` is copied to shared memory first, by all
    work-items together; `copy` is the loop of that copy."""

    slot: int
    at: int
    copy: int

    def __str__(self) -> str:
        return f"stage buffer {self.slot} inside r{self.at} in shared memory, copied by r{self.copy}"


@dataclass(frozen=True, slots=True)
class StageInThread:
    """What a kernel loads from buffer `slot` while the ranges `inside` run is copied to memory of the thread first.

    The copy holds a zero wherever the load's guard is false, so that loads from it need no guard: the padding
    of a convolution is paid once an image strip. It is made in the innermost loop that the load depends on
    beside `inside`, by the loops `copies`, one for each dimension of the load's `footprint`, the innermost
    last. `pitch` elements are added to every row where rows would lie a multiple of 4 KB apart: they would
    share the sets of a cache. `order` names one range of every dimension in the order in which the
    dimensions lie in the copy, outermost first (a load that lacks one of them is left alone); left out, they
    lie as in memory. A `wide` copy holds what the elements are cast to, which each is once then.
    """

    slot: int
    inside: tuple[int, ...]
    copies: tuple[int, ...]
    pitch: int = 0
    order: tuple[int, ...] = ()
    wide: bool = False

    def __str__(self) -> str:
        inside, copies = (", ".join(f"r{k}" for k in numbers) for numbers in (self.inside, self.copies))
        cast = ", as what it is cast to" if self.wide else ""
        return f"stage buffer {self.slot} over {inside} in memory of the thread, copied by {copies}{cast}"


def _range(number: int, bound: int, kind: str) -> UOp:
    return UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (number, kind))


def _find(kernel: UOp, number: int) -> UOp:
    for node in kernel.toposort():
        if node.op is ops.RANGE and node.arg[0] == number:
            return node
    raise CompileError(f"the kernel has no range r{number}")


def _scratches(kernel: UOp) -> int:
    return sum(node.op is ops.SCRATCH for node in kernel.toposort())


def group_reduce(kernel: UOp, action: GroupReduce) -> UOp:
    """See `GroupReduce`. Only one work-item of each group stores the result."""
    local = _find(kernel, action.range)
    size = int(local.src[0].arg[0])
    mapping: dict[UOp, UOp] = {}
    count = _scratches(kernel)
    for node in kernel.toposort():
        if node.op is ops.REDUCE and local in node.src[1:]:
            value = node.src[0].substitute(mapping)
            kept = tuple([r for r in node.src[1:] if r is not local])
            partial = node.replace(src=(value, *kept)) if kept else value
            place, places = _place_among(node)
            scratch = UOp(ops.SCRATCH, node.dtype, (), ("local", count, (places * size,)))
            count += 1
            store = UOp(ops.STORE, dtypes.void, (scratch, place * size + local, partial, TRUE))
            ready = UOp(ops.AFTER, node.dtype, (scratch, UOp(ops.BARRIER, dtypes.void, (store,))))
            final = _range(action.final, size, "reduce")
            load = UOp(ops.LOAD, node.dtype, (ready, place * size + final, TRUE), 1)
            mapping[node] = UOp(ops.REDUCE, node.dtype, (load, final), node.arg)
    statements = []
    first = local.eq(0)
    for statement in kernel.src:
        changed = statement.substitute(mapping)
        if changed is not statement and local not in statement.ranges:
            gate = changed.src[3]
            changed = changed.replace(src=(*changed.src[:3], first if gate is TRUE else gate & first))
        statements.append(changed)
    return kernel.replace(src=tuple(statements))


def _place_among(reduction: UOp) -> tuple[UOp, int]:
    """Which of the results that one work-group computes at the same time this is, and how many there are."""
    place, places = ZERO, 1
    for r in sorted(reduction.ranges, key=lambda r: int(r.arg[0])):
        if r.arg[1] in ("local", "unroll", "vector"):
            place = place * int(r.src[0].arg[0]) + r
            places *= int(r.src[0].arg[0])
    return place, places


def stage(kernel: UOp, action: Stage) -> UOp:
    """See `Stage`. The tile is what the ranges inside `at` span: local, unrolled, vector and reduce ranges."""
    at = _find(kernel, action.at)
    loads = [
        n
        for n in kernel.toposort()
        if n.op is ops.LOAD and n.src[0].op is ops.PARAM and n.src[0].arg[0] == action.slot and at in n.ranges
    ]
    local = sorted(
        (n for n in kernel.toposort() if n.op is ops.RANGE and n.arg[1] == "local"),
        key=lambda n: int(n.arg[0]),
    )
    mapping: dict[UOp, UOp] = {}
    for load in loads:
        mapping[load] = _staged(load, at, local, action.copy, _scratches(kernel) + len(mapping))
    return kernel.substitute(mapping)


def _staged(load: UOp, at: UOp, local: list[UOp], copy: int, number: int) -> UOp:
    """The load of a tile in shared memory that the work-items fill together."""
    inside = sorted((r for r in load.ranges if _is_inside(r, at)), key=lambda r: int(r.arg[0]))
    sizes = [int(r.src[0].arg[0]) for r in inside]
    total = 1
    for size in sizes:
        total *= size
    items = 1
    for r in local:
        items *= int(r.src[0].arg[0])
    scratch = UOp(ops.SCRATCH, load.dtype, (), ("local", number, (total,)))
    item = ZERO
    for r in local:
        item = item * r.src[0] + r if item is not ZERO else r
    rounds = -(-total // items)
    position: UOp = item
    loops: tuple[UOp, ...] = ()
    if rounds > 1:
        loop = _range(copy, rounds, "loop")
        position, loops = loop * items + item, (loop,)
    mapping: dict[UOp, UOp] = {}
    stride = total
    for r, size in zip(inside, sizes, strict=True):
        stride //= size
        part = position // stride if stride > 1 else position
        mapping[r] = part % size if stride * size < total or total % items else part
    full = TRUE if total % items == 0 else position < total
    gate = load.src[2].substitute(mapping)
    gate = gate if full is TRUE else full if gate is TRUE else gate & full
    source = load.replace(src=(load.src[0], load.src[1].substitute(mapping), gate))
    store = UOp(ops.STORE, dtypes.void, (scratch, position, source, full))
    filled = UOp(ops.END, dtypes.void, (store, *loops)) if loops else store
    ready = UOp(ops.AFTER, load.dtype, (scratch, UOp(ops.BARRIER, dtypes.void, (filled,))))
    index = ZERO
    stride = total
    for r, size in zip(inside, sizes, strict=True):
        stride //= size
        term = r if stride == 1 else r * stride
        index = term if index is ZERO else index + term
    return UOp(ops.LOAD, load.dtype, (ready, index, TRUE), 1)


def _is_inside(candidate: UOp, at: UOp) -> bool:
    """Whether a range varies within one iteration of `at`."""
    if candidate is at or candidate.arg[1] == "global":
        return False
    return candidate.arg[1] in ("local", "unroll", "vector") or candidate.arg[0] > at.arg[0]


# --- memory of a thread -----------------------------------------------------------------------------------

_ALIASING_BYTES = 4096
"""Addresses that differ by a multiple of this share the sets of a first-level cache."""


def stage_in_thread(kernel: UOp, action: StageInThread) -> UOp:
    """See `StageInThread`. Raises CompileError where a load has no footprint, or another number of dimensions."""
    mapping: dict[UOp, UOp] = {}
    order = kernel.toposort()
    wanted = {node for node in order if node.op is ops.RANGE and node.arg[0] in action.inside}
    least = len(action.order) or len(wanted)
    for load in order:
        if load.op is not ops.LOAD or load.src[0].op is not ops.PARAM or load.src[0].arg[0] != action.slot:
            continue
        inside = [node for node in load.ranges if node in wanted]
        if not inside or len(inside) < least:  # another load of the buffer, which goes its own way
            continue
        dimensions = _laid_out(footprint(load, inside), action.order)
        if dimensions is None or len(dimensions) != len(action.copies):
            raise CompileError(
                f"buffer {action.slot} cannot be staged over {action.inside}", where=repr(load)
            )
        kept = next(n for n in order if n.op is ops.CAST and n.src[0] is load) if action.wide else load
        mapping[kept] = _strip(load, kept, dimensions, action, _scratches(kernel) + len(mapping))
    return kernel.substitute(mapping)


def _strip(
    load: UOp, kept: UOp, dimensions: tuple[Dimension, ...], action: StageInThread, number: int
) -> UOp:
    """The load of a box of the kept values in scratch memory, after the loops that fill it."""
    pitches = pitches_of(dimensions, kept.dtype.itemsize, action.pitch)
    total = pitches[0] * dimensions[0].extent
    scratch = UOp(ops.SCRATCH, kept.dtype, (), ("private", number, (total,)))
    exchanged: dict[UOp, UOp] = {}
    loops: list[UOp] = []
    target, place = ZERO, ZERO
    for dimension, pitch, copy in zip(dimensions, pitches, action.copies, strict=True):
        loop = _copying(copy, dimension)
        if loop is not ZERO:
            loops.append(loop)
            target = _plus(target, loop * pitch if pitch > 1 else loop)
        exchanged.update(dimension.substitution(loop))
        for node, ratio in dimension.ranges:
            place = _plus(place, node * (ratio * pitch) if ratio * pitch > 1 else node)
    index, guard = (operand.substitute(exchanged) for operand in load.src[1:])
    source = load.replace(src=(load.src[0], index, guard))
    value = source if kept is load else kept.replace(src=(source,))
    store = UOp(ops.STORE, dtypes.void, (scratch, target, value, TRUE))
    filled = UOp(ops.END, dtypes.void, (store, *loops)) if loops else store
    return UOp(ops.LOAD, kept.dtype, (UOp(ops.AFTER, kept.dtype, (scratch, filled)), place, TRUE), 1)


def check_kept(kernel: UOp) -> None:
    """Raises CompileError where iterations that are written out would share what a thread keeps for one of them."""
    for node in kernel.toposort():
        if node.op is not ops.STORE:
            continue
        memory = node.src[0]
        while memory.op is ops.AFTER:
            memory = memory.src[0]
        if memory.op is not ops.SCRATCH or memory.arg[0] != "private":
            continue
        for r in node.ranges:
            if r.arg[1] in ("unroll", "vector") and r not in node.src[1].ranges:
                raise CompileError(f"r{r.arg[0]} cannot be bound to {r.arg[1]}: values are kept inside it")


def _copying(number: int, dimension: Dimension) -> UOp:
    if dimension.extent == 1 and dimension.is_static:
        return ZERO
    return UOp(ops.RANGE, dtypes.index, (dimension.bound,), (number, "loop"))


def _laid_out(
    dimensions: tuple[Dimension, ...] | None, order: tuple[int, ...]
) -> tuple[Dimension, ...] | None:
    """The dimensions of the copy; None where windows slide over a range that may end early."""
    if dimensions is not None and order:
        parts = [part for dimension in dimensions for part in dimension.separate()]
        dimensions = tuple(sorted(parts, key=lambda part: _place_in(part, order)))
    if dimensions is None or any(part.slides and not part.is_static for part in dimensions):
        return None
    return dimensions


def _place_in(dimension: Dimension, order: tuple[int, ...]) -> int:
    return next((n for n, k in enumerate(order) if any(r.arg[0] == k for r, _ in dimension.ranges)), 0)


def pitches_of(dimensions: tuple[Dimension, ...], itemsize: int, pitch: int = 0) -> list[int]:
    """By how many elements of the copy each dimension moves; see `StageInThread.pitch`."""
    result = [1]
    for dimension in reversed(dimensions[1:]):
        step = result[0] * dimension.extent
        result.insert(0, step if step * itemsize % _ALIASING_BYTES else step + pitch)
    return result


def _plus(one: UOp, other: UOp) -> UOp:
    return other if one is ZERO else one + other

"""A canonical kernel at tensor level becomes a kernel over ranges: stores, loads and index arithmetic."""

from __future__ import annotations

import functools

from tinycore.codegen.nest import TRUE
from tinycore.errors import CompileError
from tinycore.ir import Shape, UOp, dims, dtypes, ops
from tinycore.ir.ops import Op
from tinycore.ir.statements import joint_statements
from tinycore.passes.movement import is_arange
from tinycore.rules import Pass, load

ZERO = UOp.const(dtypes.index, 0)


@functools.cache
def _movement() -> Pass:
    return load("tinycore.passes.movement").passes["lower_movement"]


@functools.cache
def _simplify() -> Pass:
    return load("tinycore.passes.kernel").passes["simplify"]


class Ranges:
    """Hands out the ranges of one kernel: the loops of its stores, then those of its reductions."""

    def __init__(self) -> None:
        self.count = 0
        self.reductions: dict[UOp, dict[int, UOp]] = {}
        self.filled: dict[tuple[UOp, tuple[UOp, ...]], UOp] = {}

    def fresh(self, size: UOp | int, kind: str) -> UOp:
        """A new RANGE, inside all earlier ones; 0 where there is a single iteration."""
        if size == 1:
            return ZERO
        node = UOp(ops.RANGE, dtypes.index, (dims.to_node(size),), (self.count, kind))
        self.count += 1
        return node

    def loops(self, shape: Shape, ordered: frozenset[int] = frozenset()) -> tuple[UOp, ...]:
        """A range for every axis of a store."""
        return tuple(
            [self.fresh(size, "ordered" if axis in ordered else "loop") for axis, size in enumerate(shape)]
        )

    def reduce_ranges(self, node: UOp) -> dict[int, UOp]:
        """The ranges of the REDUCE that an INDEX node reads; every use has loops of its own."""
        known = self.reductions.get(node)
        if known is None:
            reduce = node.src[0]
            shape = reduce.src[0].shape
            known = {axis: self.fresh(shape[axis], "reduce") for axis in reduce.arg[1]}
            self.reductions[node] = known
        return known

    def kept(self, node: UOp) -> UOp:
        """The element of a CONTIGUOUS value that an INDEX node reads.

        One row of the value, its last axis of more than one element, is computed into memory of the thread
        before, in those loops that the other axes are; all users of the row share it.
        """
        value, gate, *indices = node.src
        shape = value.shape
        outer = max([axis for axis, size in enumerate(shape) if size != 1], default=0)
        key = value, tuple(indices[:outer])
        if key not in self.filled:
            total = dims.upper(dims.product(shape[outer:]))
            scratch = UOp(ops.SCRATCH, value.dtype, (), ("private", len(self.filled), (total,)))
            loops = tuple([self.fresh(size, "loop") for size in shape[outer:]])
            item = _index(value.src[0], (*indices[:outer], *loops))
            store = UOp(ops.STORE, dtypes.void, (scratch, _position(loops, shape[outer:]), item, TRUE))
            walked = tuple([loop for loop in loops if loop is not ZERO])
            end = UOp(ops.END, dtypes.void, (store, *walked)) if walked else store
            self.filled[key] = UOp(ops.AFTER, value.dtype, (scratch, end))
        place = _position(tuple(indices[outer:]), shape[outer:])
        return UOp(ops.LOAD, value.dtype, (self.filled[key], place, gate), 1)


def lower_indexing(kernel: UOp) -> UOp:
    """SINK of STOREs over ranges, from a SINK of ASSIGN, SCATTER and SCAN statements over PARAMs.

    Joint statements (`tinycore.ir.statements`) share their loops; others have loops of their own, and are tiled
    by themselves.
    """
    ranges = Ranges()
    stores: list[UOp] = []
    for statements in joint_statements(kernel):
        loops = ranges.loops(statements[0].src[1].shape) if len(statements) > 1 else None
        for statement in statements:
            ranges.reductions.clear()
            ranges.filled.clear()
            stores.append(_movement()(_statement(statement, ranges, loops), ranges))
    return UOp(ops.SINK, dtypes.void, tuple(stores), kernel.arg)


def _statement(statement: UOp, ranges: Ranges, joint: tuple[UOp, ...] | None) -> UOp:
    if statement.op is ops.SCATTER:
        return _scatter(statement, ranges)
    if statement.op is not ops.ASSIGN:
        raise CompileError(f"{statement.op.name} is not a statement of a kernel", where=repr(statement))
    base, view, value = statement.src
    if value.op is ops.SCAN and not is_arange(value):
        return _scan(base, value, ranges)
    loops = ranges.loops(view.shape) if joint is None else joint
    target = _movement()(_index(view, loops), ranges)
    if target.op is not ops.LOAD or target.src[0] is not base:
        raise CompileError("the target of an assignment is not a view of its buffer", where=repr(view))
    return UOp(ops.STORE, dtypes.void, (base, target.src[1], _index(value, loops), target.src[2]))


def _index(value: UOp, indices: tuple[UOp, ...], gate: UOp = TRUE) -> UOp:
    return UOp(ops.INDEX, value.dtype, (value, gate, *indices))


def _position(indices: tuple[UOp, ...], shape: Shape) -> UOp:
    result = ZERO
    for index, stride in zip(indices, dims.strides(shape), strict=True):
        result = result + index * dims.to_node(stride)
    return result


def _scan(base: UOp, value: UOp, ranges: Ranges) -> UOp:
    """Each element combines the one before it, which the same loop has stored."""
    op, axis = value.arg
    loops = ranges.loops(value.shape, frozenset({axis}))
    position = _position(loops, value.shape)
    item = _index(value.src[0], loops)
    if loops[axis] is ZERO:
        return UOp(ops.STORE, dtypes.void, (base, position, item, TRUE))
    later = UOp.const(dtypes.index, 0) < loops[axis]
    stride = dims.to_node(dims.strides(value.shape)[axis])
    before = UOp(ops.LOAD, base.dtype, (base, position - stride, later), 1)
    combined = later.where(before.alu(op, item), item)
    return UOp(ops.STORE, dtypes.void, (base, position, combined, TRUE))


def _repeated(op: Op, at: UOp, update: UOp, loops: tuple[UOp, ...], ranges: Ranges) -> UOp:
    """The update, combined with itself along those loops that neither it nor its place depends on.

    A loop is there only where something depends on it: a constant that is added many times would be added once.
    """
    at, update = (_simplify()(_movement()(node, ranges)) for node in (at, update))
    unused = [loop for loop in loops if loop is not ZERO and loop not in at.ranges | update.ranges]
    if not unused:
        return update
    return UOp(
        ops.REDUCE,
        update.dtype,
        (update, *[ranges.fresh(loop.src[0], "reduce") for loop in unused]),
        (op, ()),
    )


def _scatter(statement: UOp, ranges: Ranges) -> UOp:
    """Updates in the order of their index; an index outside the axis is dropped."""
    op, axis = statement.arg
    base, index, updates = statement.src
    rank = len(index.shape)
    loops = ranges.loops(updates.shape, frozenset(range(axis, axis + rank)))
    at = _index(index, loops[axis : axis + rank]).cast(dtypes.index)
    size = dims.to_node(base.shape[axis])
    gate = (at >= 0) & (at < size)
    position = _position((*loops[:axis], at, *loops[axis + rank :]), base.shape)
    update = _index(updates, loops)
    if op is not None:
        update = _repeated(op, at, update, loops[axis : axis + rank], ranges)
        update = UOp(ops.LOAD, base.dtype, (base, position, gate), 1).alu(op, update)
    return UOp(ops.STORE, dtypes.void, (base, position, update, gate))

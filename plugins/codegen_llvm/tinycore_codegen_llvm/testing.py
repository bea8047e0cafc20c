"""Programs written by hand, for tests of flavours and of backends that build on them.

>>> builder = ProgramBuilder()
>>> x, y = builder.buffer(0, dtypes.float32, 8), builder.buffer(1, dtypes.float32, 8)
>>> i = builder.range(8)
>>> builder.store(y, i, builder.load(x, i) * 2.0)
>>> _ = builder.end(i)
>>> len(builder.program("double").linear.src)
5
"""

from __future__ import annotations

from tinycore.codegen.program import Program
from tinycore.ir import Dim, DType, Op, UOp, dtypes, ops

YES = UOp.const(dtypes.bool_, True)
_LEAVES = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
_CONTROL = frozenset({ops.RANGE, ops.END, ops.IF, ops.ENDIF, ops.ACCUMULATOR, ops.AFTER})


def integer(value: int) -> UOp:
    """An int64 constant."""
    return UOp.const(dtypes.int64, value)


def splat(node: UOp, lanes: int) -> UOp:
    """A scalar in every lane."""
    return UOp(ops.SPLAT, node.dtype, (node,), lanes)


def iota(lanes: int, dtype: DType = dtypes.int64) -> UOp:
    """0, 1, ... lanes-1."""
    return UOp(ops.IOTA, dtype, (), lanes)


class ProgramBuilder:
    """Collects statements in order. Operands that are not listed yet are listed before their users.

    Attributes
    ----------
    nodes: the statements so far.
    """

    def __init__(self) -> None:
        self.nodes: list[UOp] = []
        self._buffers: dict[int, UOp] = {}
        self._written: set[int] = set()
        self._count = 0

    def buffer(self, slot: int, dtype: DType, size: int = 1) -> UOp:
        """The buffer argument of a slot."""
        self._buffers[slot] = UOp(ops.PARAM, dtype, (), (slot, (size,)))
        return self._buffers[slot]

    def add(self, node: UOp) -> UOp:
        """List an expression, operands first, what is listed already excepted."""
        listed = set(self.nodes)
        for part in node.toposort():
            if part in listed or part.op in _LEAVES or (part.op in _CONTROL and part is not node):
                continue
            listed.add(part)
            self.nodes.append(part)
        return node

    def again(self, node: UOp) -> UOp:
        """List one node, whether or not it was listed before."""
        self.nodes.append(node)
        return node

    def range(self, bound: int | UOp, kind: str = "loop") -> UOp:
        """Open a loop, or name a grid or work-item id."""
        size = integer(bound) if isinstance(bound, int) else self.add(bound)
        return self.again(UOp(ops.RANGE, size.dtype, (size,), (self._next(), kind)))

    def end(self, node: UOp) -> UOp:
        """Close a loop."""
        return self.again(UOp(ops.END, dtypes.void, (node,)))

    def load(self, buffer: UOp, index: int | UOp, lanes: int = 1, gate: UOp = YES) -> UOp:
        """Read an element, neighbours, or (an index with lanes) elements anywhere."""
        index = integer(index) if isinstance(index, int) else index
        return self.add(UOp(ops.LOAD, buffer.dtype, (buffer, index, gate), lanes))

    def store(self, buffer: UOp, index: int | UOp, value: UOp, gate: UOp = YES) -> None:
        """Write where the gate holds."""
        index = integer(index) if isinstance(index, int) else index
        if buffer.op is ops.PARAM:
            self._written.add(buffer.arg[0])
        self.add(UOp(ops.STORE, dtypes.void, (buffer, index, value, gate)))

    def accumulator(self, initial: UOp) -> UOp:
        """A register."""
        return self.add(UOp(ops.ACCUMULATOR, initial.dtype, (initial,), self._next()))

    def update(self, accumulator: UOp, value: UOp) -> None:
        """Set a register."""
        self.add(value)
        self.again(UOp(ops.UPDATE, dtypes.void, (accumulator, value)))

    def after(self, value: UOp, *ends: UOp) -> UOp:
        """A register's content, or memory, once something has happened."""
        return self.again(UOp(ops.AFTER, value.dtype, (value, *ends)))

    def barrier(self) -> UOp:
        """All work-items wait."""
        return self.again(UOp(ops.BARRIER, dtypes.void))

    def reduce_lanes(self, op: Op, value: UOp) -> UOp:
        """Combine the lanes of a value."""
        return self.add(UOp(ops.LANE_REDUCE, value.dtype, (value,), op))

    def program(
        self,
        name: str = "kernel",
        variables: tuple[UOp, ...] = (),
        grid: tuple[Dim, ...] = (),
        group: tuple[int, ...] = (),
    ) -> Program:
        """What was collected."""
        linear = UOp(ops.LINEAR, dtypes.void, tuple(self.nodes))
        parameters = tuple(self._buffers[slot] for slot in sorted(self._buffers))
        return Program(name, linear, parameters, variables, frozenset(self._written), grid, group)

    def _next(self) -> int:
        self._count += 1
        return self._count


def scaled_sum(size: int, lanes: int = 16) -> Program:
    """``out = x * 2 + y`` over `size` float32, a chunk of lanes at a time, the tail masked."""
    builder = ProgramBuilder()
    x, y, out = (builder.buffer(slot, dtypes.float32, size) for slot in range(3))
    chunks = -(-size // lanes)
    start = builder.range(chunks, "global") * lanes
    places = splat(start, lanes) + iota(lanes)
    gate = places < UOp.const(dtypes.int64, size, (lanes,))
    a, b = builder.load(x, start, lanes, gate), builder.load(y, start, lanes, gate)
    builder.store(out, start, a * UOp.const(dtypes.float32, 2.0, (lanes,)) + b, gate)
    return builder.program("scaled_sum", grid=(chunks,))


def matmul(m: int, n: int, k: int, lanes: int = 8, rows: int = 4) -> Program:
    """Float32 ``a @ b`` by register tiles of `rows` times `lanes`; accumulators in the innermost loop."""
    builder = ProgramBuilder()
    a, b, c = (builder.buffer(slot, dtypes.float32, size) for slot, size in enumerate((m * k, k * n, m * n)))
    i, j = builder.range(m // rows), builder.range(n // lanes)
    zero = UOp.const(dtypes.float32, 0.0, (lanes,))
    accumulators = [builder.accumulator(zero) for _ in range(rows)]
    kk = builder.range(k, "reduce")
    right = builder.load(b, kk * n + j * lanes, lanes)
    for row, accumulator in enumerate(accumulators):
        left = splat(builder.load(a, (i * (rows * k) + kk) + row * k), lanes)
        builder.update(accumulator, UOp(ops.FMA, dtypes.float32, (left, right, accumulator)))
    end = builder.end(kk)
    for row, accumulator in enumerate(accumulators):
        builder.store(c, (i * (rows * n) + j * lanes) + row * n, builder.after(accumulator, end))
    builder.end(j)
    builder.end(i)
    return builder.program("matmul")


def row_sums(rows: int, items: int = 64) -> Program:
    """The sum of every row of ``items * 4`` float32, through memory that a work-group shares."""
    builder = ProgramBuilder()
    x, out = builder.buffer(0, dtypes.float32, rows * items * 4), builder.buffer(1, dtypes.float32, rows)
    row, item = builder.range(rows, "global"), builder.range(items, "local")
    scratch = UOp(ops.SCRATCH, dtypes.float32, (), ("local", 0, (items,)))
    part = builder.reduce_lanes(ops.ADD, builder.load(x, row * (items * 4) + item * 4, 4))
    builder.store(scratch, item, part)
    shared = builder.after(scratch, builder.barrier())
    total = builder.accumulator(UOp.const(dtypes.float32, 0.0))
    other = builder.range(items, "reduce")
    builder.update(total, total + builder.load(shared, other))
    result = builder.after(total, builder.end(other))
    builder.store(out, row, result, item.eq(0))
    return builder.program("row_sums", grid=(rows,), group=(items,))


SAMPLES = {"scaled_sum": scaled_sum(1000, 4), "matmul": matmul(16, 32, 24, 4, 4), "row_sums": row_sums(8)}
"""Programs that use vectors and masks, accumulators in nested loops, and shared memory with a barrier."""

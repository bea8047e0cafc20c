"""Random tensor graphs for hypothesis.

>>> import hypothesis
>>> from tinycore.ir import verify
>>> @hypothesis.given(cases(max_ops=4))
... @hypothesis.settings(max_examples=3, database=None)
... def holds(case):
...     verify.verify(UOp(ops.SINK, dtypes.void, case.roots), "tensor")
>>> holds()

Graphs are drawn operation by operation from a pool that starts with one to four buffers. Every graph is
valid, and every answer is determined up to the error that `tinycore.testing.oracle` keeps: nothing discrete
(a comparison, a cast to int) is asked of a value that may differ in its last bits, nothing that shows the
sign of zero (a division, a bitcast) of a zero whose sign is unspecified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from tinycore.ir import dtypes
from tinycore.ir.dtypes import DATA, DType
from tinycore.ir.ops import Op, ops
from tinycore.ir.uop import UOp, toposort
from tinycore.testing.compare import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]
T = TypeVar("T")
Sizes = tuple[int, ...]

MAX_ELEMENTS = 160
MAX_RANK = 5
SIZES = (1, 2, 3, 3, 4, 5, 0)
TRANSCENDENTAL = (ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF)
TOLERANT = (ops.EXP, ops.SIN, ops.COS, ops.TANH, ops.ERF)
"""Transcendental functions whose error stays bounded by that of their operand."""


@st.composite
def cases(draw: Draw, dtypes: Sequence[DType] = DATA, max_ops: int = 28, device: str = "D") -> Case:
    """A random graph with data.

    Parameters
    ----------
    dtypes: what buffers and casts may be.
    max_ops: how many operations are drawn at most; an operation may add movement ops of its own.
    device: the device attribute of its BUFFERs.
    """
    graph = _Graph(draw, tuple(dtypes), device)
    for _ in range(draw(st.integers(1, 3))):
        graph.buffer(draw(shapes()), draw(st.sampled_from(graph.dtypes)))
    for _ in range(draw(st.integers(min(3, max_ops), max_ops))):
        graph.step()
    return Case(graph.roots(), draw(st.integers(0, 2**16)))


@st.composite
def contractions(draw: Draw, dtypes: Sequence[DType] = DATA, device: str = "D") -> Case:
    """A matrix product or a long reduction, large enough for tiles, staging and shared reductions.

    Sizes are odd ones, operands are transposed, shrunk or cast, and the result has an epilogue.
    """
    graph = _Graph(draw, tuple(dtypes), device)
    dtype = draw(st.sampled_from([dtype for dtype in graph.dtypes if dtype.kind != "bool"]))
    if draw(st.integers(0, 3)) == 0:
        rows, length = draw(st.sampled_from([(1, 257), (3, 300), (2, 256), (5, 70)]))
        x = graph.operand(rows, length, dtype)
        result = graph.add(ops.REDUCE, dtype, (x,), (graph.monoid(x), (draw(st.sampled_from([1, 1, 1, 0])),)))
    else:
        sizes = st.sampled_from([16, 17, 19, 33, 4, 8, 32])
        m, n, k = draw(sizes), draw(sizes), draw(sizes)
        left = graph.add(ops.RESHAPE, dtype, (graph.operand(m, k, dtype),), (m, k, 1))
        right = graph.add(ops.RESHAPE, dtype, (graph.operand(k, n, dtype),), (1, k, n))
        pair = tuple([graph.add(ops.EXPAND, dtype, (x,), (m, k, n)) for x in (left, right)])
        result = graph.add(ops.REDUCE, dtype, (graph.add(ops.MUL, dtype, pair),), (ops.ADD, (1,)))
    graph.pool = [node for node in graph.pool if node.op is ops.BUFFER]
    for _ in range(draw(st.integers(0, 2))):
        result = graph.add(ops.ADD, dtype, (result, graph.like(_sizes(result), dtype)))
    return Case((result,), draw(st.integers(0, 2**16)))


@st.composite
def shapes(draw: Draw, max_rank: int = 3) -> Sizes:
    """A small shape; sizes 0 and 1 occur."""
    sizes: list[int] = draw(st.lists(st.sampled_from(SIZES), max_size=max_rank))
    while math.prod(sizes) > MAX_ELEMENTS:
        sizes.pop()
    return tuple(sizes)


def operations(case: Case) -> int:
    """How many operations a case has: all nodes but its leaves."""
    return sum(node.op not in (ops.BUFFER, ops.CONST) for node in toposort(case.roots))


class _Graph:
    """A graph that grows: the pool of values, and what is known about them."""

    def __init__(self, draw: Draw, dtypes: tuple[DType, ...], device: str) -> None:
        self.draw = draw
        self.dtypes = dtypes
        self.device = device
        self.pool: list[UOp] = []
        self.inexact: set[UOp] = set()
        self.unsigned_zero: set[UOp] = set()
        self.versions: dict[int, UOp] = {}

    # --- the pool -----------------------------------------------------------------------------------------

    def buffer(self, shape: Sizes, dtype: DType) -> UOp:
        number = len(self.versions)
        node = UOp(ops.BUFFER, dtype, (), (number, shape, self.device))
        self.versions[number] = node
        self.pool.append(node)
        return node

    def add(self, op: Op, dtype: DType, src: tuple[UOp, ...], arg: Any = None) -> UOp:
        """A new value, with what follows about it."""
        node = UOp(op, dtype, src, arg)
        if dtype.is_float:
            combines = arg[0] if op in (ops.REDUCE, ops.SCAN, ops.SCATTER) else None
            reordered = op is ops.REDUCE and combines in (ops.ADD, ops.MUL)
            fuzzy = reordered or op in TRANSCENDENTAL or op is ops.POW
            if fuzzy or any(operand in self.inexact for operand in src):
                self.inexact.add(node)
            free = op in (ops.MAX, ops.MIN, ops.REDUCE) or combines in (ops.MAX, ops.MIN)
            if free or fuzzy or any(operand in self.unsigned_zero for operand in src):
                self.unsigned_zero.add(node)
        if node not in self.pool:
            self.pool.append(node)
        return node

    def sample(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))  # type: ignore[no-any-return]

    def pick(self, allowed: Callable[[UOp], bool] = lambda node: True) -> UOp | None:
        """A value from the pool, a recent one rather than an old one."""
        found = [node for node in self.pool if allowed(node)]
        return found[-1 - self.draw(st.integers(0, min(len(found), 6) - 1))] if found else None

    def operand(self, rows: int, columns: int, dtype: DType) -> UOp:
        """A matrix, as it is stored or seen through a transposition or a SHRINK."""
        way = self.draw(st.integers(0, 3))
        if way == 0:
            return self.add(ops.PERMUTE, dtype, (self.buffer((columns, rows), dtype),), (1, 0))
        if way == 1:
            whole = self.buffer((rows + 1, columns + 2), dtype)
            return self.add(ops.SHRINK, dtype, (whole,), ((1, rows + 1), (1, columns + 1)))
        return self.buffer((rows, columns), dtype)

    def exact(self, node: UOp) -> bool:
        return node not in self.inexact

    def like(self, shape: Sizes, dtype: DType, allowed: Callable[[UOp], bool] = lambda node: True) -> UOp:
        """A second operand of that shape and dtype: from the pool, a constant, or a new buffer."""
        way = self.draw(st.integers(0, 5))
        if way <= 2:
            same = self.pick(lambda node: node.shape == shape and node.dtype is dtype and allowed(node))
            if same is not None:
                return same
        if way <= 4:
            near = self.pick(lambda n: n.dtype is dtype and allowed(n) and _fits(_sizes(n), shape))
            if near is not None:
                return self.broadcast(near, shape)
        if way == 5 and len(self.versions) < 4:
            return self.buffer(shape, dtype)
        return UOp.const(dtype, self.draw(_numbers(dtype)), shape)

    def broadcast(self, node: UOp, shape: Sizes) -> UOp:
        sizes = (1,) * (len(shape) - len(node.shape)) + _sizes(node)
        if sizes != node.shape:
            node = self.add(ops.RESHAPE, node.dtype, (node,), sizes)
        return self.add(ops.EXPAND, node.dtype, (node,), shape) if sizes != shape else node

    def roots(self) -> tuple[UOp, ...]:
        """Up to five values that nothing uses, the deepest first, and any value besides."""
        used = {operand for node in self.pool for operand in node.src}
        kept = [node for node in self.pool if self.lasting(node)]
        ends = [node for node in kept if node not in used and node.op is not ops.BUFFER]
        ends.sort(key=lambda node: len(toposort((node,))), reverse=True)
        extra = self.pick(self.lasting)
        return tuple(dict.fromkeys([*ends[:4], *([] if extra is None else [extra])]))

    def lasting(self, node: UOp) -> bool:
        """Whether a value is there when all is done: an older version of a buffer has been overwritten."""
        node = node.under(ops.RESHAPE, ops.DETACH)
        return node.op not in (ops.BUFFER, ops.ASSIGN) or node in self.versions.values()

    def step(self) -> None:
        """One operation; nothing where the one drawn has no operands."""
        getattr(self, self.sample(_STEPS))()

    # --- elementwise --------------------------------------------------------------------------------------

    def unary(self) -> None:
        x = self.pick(lambda node: node.dtype.kind != "bool")
        if x is None:
            return
        choices = [ops.NEG]
        if x.dtype.is_float:
            choices += TRANSCENDENTAL if self.exact(x) else TOLERANT
        self.add(self.sample(choices), x.dtype, (x,))

    def rounding(self) -> None:
        x = self.pick(lambda node: node.dtype.is_float and self.exact(node))
        if x is not None:
            self.add(self.sample([ops.SQRT, ops.FLOOR, ops.TRUNC, ops.ROUND]), x.dtype, (x,))

    def binary(self) -> None:
        x = self.pick()
        if x is None:
            return
        dtype = x.dtype
        choices = [ops.ADD, ops.MUL, ops.MAX, ops.MIN, *([ops.SUB] if dtype.kind != "bool" else [])]
        exact = self.exact(x)
        if dtype.is_int:
            choices += [ops.FLOORDIV, ops.FLOORMOD, ops.TRUNCDIV, ops.TRUNCMOD, ops.SHL, ops.SHR]
        if not dtype.is_float:
            choices += [ops.AND, ops.OR, ops.XOR]
        elif exact:
            choices += [ops.DIV]
        op = self.sample(choices)
        if op is ops.DIV:
            y = self.like(_sizes(x), dtype, lambda node: self.exact(node) and node not in self.unsigned_zero)
            self.add(op, dtype, (x, y))
            return
        y = self.like(_sizes(x), dtype)
        self.add(op, dtype, (x, y) if self.draw(st.booleans()) else (y, x))

    def compare(self) -> None:
        x = self.pick(self.exact)
        if x is None:
            return
        y = self.like(_sizes(x), x.dtype, self.exact)
        self.add(self.sample([ops.LT, ops.LE, ops.EQ, ops.NE]), dtypes.bool_, (x, y))

    def where(self) -> None:
        x = self.pick()
        if x is None:
            return
        y = UOp.const(x.dtype, 0, x.shape) if self.draw(st.booleans()) else self.like(_sizes(x), x.dtype)
        self.add(ops.WHERE, x.dtype, (self.like(_sizes(x), dtypes.bool_), x, y))

    def power(self) -> None:
        x = self.pick(lambda n: n.dtype.is_float and self.exact(n) and n not in self.unsigned_zero)
        if x is not None:
            exponent = UOp.const(x.dtype, self.sample([2.0, 0.5, -1.0, 3.0, 0.0, 1.5]), x.shape)
            self.add(ops.POW, x.dtype, (x, exponent))

    def fused(self) -> None:
        x = self.pick(lambda node: node.dtype in (dtypes.float32, dtypes.float64) and self.exact(node))
        if x is not None:
            y, z = (self.like(_sizes(x), x.dtype, self.exact) for _ in range(2))
            self.add(ops.FMA, x.dtype, (x, y, z))

    def cast(self) -> None:
        x = self.pick()
        if x is None:
            return
        targets = [t for t in self.dtypes if t is not x.dtype and (t.is_float or self.exact(x))]
        if targets:
            self.add(ops.CAST, self.sample(targets), (x,))

    def bitcast(self) -> None:
        """Of floats only as they were stored: the payload of a computed NaN is unspecified."""
        x = self.pick(lambda node: node.dtype.is_int or (node.dtype.is_float and _stored(node)))
        if x is None:
            return
        size = x.dtype.itemsize
        same = [t for t in self.dtypes if t.itemsize == size and t.kind != "bool" and t is not x.dtype]
        if same:
            self.add(ops.BITCAST, self.sample(same), (x,))

    # --- movement -----------------------------------------------------------------------------------------

    def reshape(self) -> None:
        x = self.pick()
        if x is not None:
            self.add(ops.RESHAPE, x.dtype, (x,), self.draw(_reshapes(_sizes(x))))

    def permute(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 1)
        if x is not None:
            self.add(ops.PERMUTE, x.dtype, (x,), tuple(self.draw(st.permutations(range(len(x.shape))))))

    def expand(self) -> None:
        x = self.pick(lambda node: len(node.shape) < MAX_RANK)
        if x is None:
            return
        if 1 not in x.shape:
            at = self.draw(st.integers(0, len(x.shape)))
            x = self.add(ops.RESHAPE, x.dtype, (x,), (*x.shape[:at], 1, *x.shape[at:]))
        room = MAX_ELEMENTS // max(1, math.prod(_sizes(x)))
        sizes = [self.sample([1, 2, 3, 0, 5]) if size == 1 else size for size in _sizes(x)]
        if math.prod(sizes) <= room * max(1, math.prod(_sizes(x))):
            self.add(ops.EXPAND, x.dtype, (x,), tuple(sizes))

    def pad(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0)
        if x is None:
            return
        padding = tuple([(self.sample([0, 0, 1, 2]), self.sample([0, 0, 1, 2])) for _ in x.shape])
        grown = [before + size + after for size, (before, after) in zip(_sizes(x), padding, strict=True)]
        if math.prod(grown) <= MAX_ELEMENTS:
            self.add(ops.PAD, x.dtype, (x,), padding)

    def shrink(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0)
        if x is not None:
            self.add(ops.SHRINK, x.dtype, (x,), self.limits(_sizes(x)))

    def limits(self, shape: Sizes) -> tuple[tuple[int, int], ...]:
        result = []
        for size in shape:
            start = self.draw(st.integers(0, min(1, size)))
            result.append((start, max(start, size - self.sample([0, 0, 1, 2]))))
        return tuple(result)

    def flip(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0)
        if x is not None:
            self.add(ops.FLIP, x.dtype, (x,), self.axes(x))

    def axes(self, x: UOp) -> tuple[int, ...]:
        chosen: set[int] = self.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1))
        return tuple(sorted(chosen))

    def contiguous(self) -> None:
        x = self.pick()
        if x is not None:
            self.add(self.sample([ops.CONTIGUOUS, ops.DETACH]), x.dtype, (x,))

    # --- reductions, indexing, memory ---------------------------------------------------------------------

    def monoid(self, x: UOp) -> Op:
        choices = [ops.ADD, ops.ADD, ops.MAX, ops.MIN, *([ops.MUL] if self.exact(x) else [])]
        return self.sample(choices if x.dtype.is_float else [*choices, ops.AND, ops.OR, ops.XOR])

    def reduce(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0)
        if x is not None:
            self.add(ops.REDUCE, x.dtype, (x,), (self.monoid(x), self.axes(x)))

    def scan(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0 and self.exact(node))
        if x is not None:
            axis = self.draw(st.integers(0, len(x.shape) - 1))
            self.add(ops.SCAN, x.dtype, (x,), (self.monoid(x), axis))

    def index(self) -> UOp:
        found = self.pick(lambda n: n.dtype.is_int and len(n.shape) <= 2 and math.prod(_sizes(n)) <= 8)
        if found is not None and self.draw(st.booleans()):
            return found
        ints = [dtype for dtype in self.dtypes if dtype.is_int] or [dtypes.int32]
        return self.like(self.sample([(), (1,), (3,), (2, 2), (0,)]), self.sample(ints))

    def gather(self) -> None:
        x = self.pick(lambda node: len(node.shape) > 0)
        if x is None:
            return
        i = self.index()
        small = math.prod(_sizes(x)) * math.prod(_sizes(i)) <= 2 * MAX_ELEMENTS
        if small and len(x.shape) + len(i.shape) <= MAX_RANK:
            self.add(ops.GATHER, x.dtype, (x, i), self.draw(st.integers(0, len(x.shape) - 1)))

    def scatter(self) -> None:
        base = self.pick(lambda node: len(node.shape) > 0)
        if base is None:
            return
        i, axis = self.index(), self.draw(st.integers(0, len(base.shape) - 1))
        shape = _sizes(base)[:axis] + _sizes(i) + _sizes(base)[axis + 1 :]
        if math.prod(shape) > MAX_ELEMENTS or len(shape) > MAX_RANK:
            return
        op = self.sample([None, ops.ADD, ops.MAX]) if self.exact(base) else None
        updates = self.like(shape, base.dtype, lambda node: op is None or self.exact(node))
        self.add(ops.SCATTER, base.dtype, (base, i, updates), (op, axis))

    def assign(self) -> None:
        """The next version of a buffer; only its latest version can be assigned to."""
        number = self.sample(sorted(self.versions))
        base = self.versions[number]
        view = base
        for _ in range(self.draw(st.integers(0, 3))):
            way = self.sample([ops.SHRINK, ops.PERMUTE, ops.RESHAPE, ops.FLIP])
            rank = len(view.shape)
            if way is ops.RESHAPE:
                view = UOp(way, view.dtype, (view,), self.draw(_reshapes(_sizes(view))))
            elif rank and way is ops.SHRINK:
                view = UOp(way, view.dtype, (view,), self.limits(_sizes(view)))
            elif rank:
                orders = st.permutations(range(rank))
                arg = tuple(self.draw(orders)) if way is ops.PERMUTE else self.axes(view)
                view = UOp(way, view.dtype, (view,), arg)
        value = self.like(_sizes(view), view.dtype)
        self.versions[number] = self.add(ops.ASSIGN, base.dtype, (base, view, value))


_WEIGHTS = {
    "unary": 3,
    "rounding": 1,
    "binary": 6,
    "compare": 2,
    "where": 2,
    "power": 1,
    "fused": 1,
    "cast": 3,
    "bitcast": 1,
    "reshape": 4,
    "permute": 2,
    "expand": 2,
    "pad": 2,
    "shrink": 2,
    "flip": 1,
    "contiguous": 1,
    "reduce": 4,
    "scan": 1,
    "gather": 2,
    "scatter": 1,
    "assign": 1,
}
_STEPS = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]


def _sizes(node: UOp) -> Sizes:
    return tuple([dim for dim in node.shape if isinstance(dim, int)])


def _fits(sizes: Sizes, shape: Sizes) -> bool:
    """Whether sizes can be broadcast to a shape, aligned at the right."""
    tail = shape[len(shape) - len(sizes) :]
    pairs = zip(sizes, tail, strict=False)
    return len(sizes) <= len(shape) and all(size in (1, wanted) for size, wanted in pairs)


def _stored(node: UOp) -> bool:
    while node.op.movement:
        node = node.src[0]
    return node.op in (ops.BUFFER, ops.CONST)


def _numbers(dtype: DType) -> st.SearchStrategy[Any]:
    """Constants of a dtype: small ones, and its corners."""
    if dtype.kind == "bool":
        return st.booleans()
    if dtype.is_float:
        return st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, -0.0, 3.0, -2.5, 0.1, 100.0])
    negative = [-1, -3] if dtype.kind == "int" else []
    return st.sampled_from([0, 1, 2, 3, 5, 7, 8, *negative, int(dtype.max)])


@st.composite
def _reshapes(draw: Draw, shape: Sizes) -> Sizes:
    """Another shape of as many elements: axes merged, split, and of size 1 added or removed."""
    sizes = [math.prod(shape)] if draw(st.booleans()) else list(shape)
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.integers(0, 3))
        at = draw(st.integers(0, max(0, len(sizes) - 1)))
        if way == 0 and len(sizes) < MAX_RANK:
            sizes.insert(at, 1)
        elif way == 1 and at + 1 < len(sizes):
            sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
        elif way == 2 and sizes and sizes[at] == 1:
            del sizes[at]
        elif way == 3 and len(sizes) < MAX_RANK and sizes and sizes[at]:
            divisors = [number for number in range(1, sizes[at] + 1) if sizes[at] % number == 0]
            divisor = draw(st.sampled_from(divisors))
            sizes[at : at + 1] = [divisor, sizes[at] // divisor]
    return tuple(sizes)

"""UOp: the one immutable, hash-consed node.

``UOp(op, dtype, src, arg)`` answers the same object for the same four things, so identity is equality
and shared work is shared by construction. There is no tag and no scratch field: what a pass wants to
remember it keeps beside the graph. Derived facts (shape, bounds, op mask, free ranges) depend on the four
fields only, and are computed once.

Interning is exact: constants hold canonical bits (`tinycore.ir.dtypes`), so 0.0 and -0.0, or 1 and True,
are never merged. It is thread-safe without a lock: look-ups and insertions are single atomic dict operations,
and one thread only wins the right to replace or to remove a dead entry. Entries die with their nodes, and
nothing recurses: a chain of 100,000 nodes can be built, walked and freed.

>>> x = UOp.const(dtypes.float32, 1.5)
>>> x is UOp.const(dtypes.float32, 1.5), x is UOp.const(dtypes.float64, 1.5)
(True, False)
>>> (x + 2.0).src[1].value
2.0
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from tinycore.ir import dtypes
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import TABLE, Op, ops

Dim = Union[int, "UOp"]
Shape = tuple[Dim, ...]


_Home = dict[Any, "_Reference"]


class _Reference(weakref.ref["UOp"]):
    """A weak reference that knows its entry, so that a dead node can leave its table.

    Whoever deletes the `home` of a reference, which is one atomic step, may take its entry out of the table or
    replace it: nobody else will. A reference without a home has no entry.
    """

    __slots__ = ("home", "key", "origin")
    home: _Home
    key: tuple[Any, ...]
    origin: Any


_plain: dict[Op, dict[DType, _Home]] = {op: {dtype: {} for dtype in dtypes.ALL} for op in TABLE.values()}
"""Nodes without attributes, most of all nodes, by their operands; a key is the very `src` of its node."""
_table: _Home = {}
"""All other nodes, by their four fields."""


def _forget(reference: _Reference) -> None:
    try:
        home = reference.home
        del reference.home
    except AttributeError:
        return
    home.pop(reference.key)


def _settle(home: _Home, key: tuple[Any, ...], node: UOp, fresh: _Reference) -> UOp:
    """What happens when the key was taken: by another thread's node, or by one that has just died."""
    while True:
        winner = home.setdefault(key, fresh)
        if winner is fresh:
            return node
        existing = winner()
        if existing is not None:
            del fresh.home
            return existing
        try:
            del winner.home
        except AttributeError:  # another thread is about to remove the dead entry
            time.sleep(0)
        else:
            home[key] = fresh
            return node


_new = object.__new__


class UOp:
    """One node of the graph; see the module's docstring. Fields are read-only by convention and by a test.

    Attributes
    ----------
    op: the row of the op table.
    dtype: the element type of the result (`void` for statements).
    src: the operands.
    arg: the attributes, see `tinycore.ir.ops`.
    mask: the bits of all ops in the graph below, this one included.
    """

    __slots__ = ("__weakref__", "_bounds", "_ranges", "_shape", "arg", "dtype", "mask", "op", "src")
    op: Op
    dtype: DType
    src: tuple[UOp, ...]
    arg: Any
    mask: int
    _shape: Shape | None
    _bounds: tuple[int, int] | None
    _ranges: frozenset[UOp]

    def __new__(cls, op: Op, dtype: DType, src: tuple[UOp, ...] = (), arg: Any = None) -> UOp:
        """The node of these four fields: the one that exists, or a new one."""
        key: tuple[Any, ...]
        if arg is None:
            home, key = _plain[op][dtype], src
        else:
            home, key = _table, (op, dtype, src, arg)
        reference = home.get(key)
        if reference is not None:
            node = reference()
            if node is not None:
                return node
        node = _new(cls)
        node.op = op
        node.dtype = dtype
        node.src = src
        node.arg = arg
        mask = op.bit
        for operand in src:
            mask |= operand.mask
        node.mask = mask
        node._shape = node._bounds = None
        fresh = _Reference(node, _forget)
        fresh.home = home
        fresh.key = key
        winner = home.setdefault(key, fresh)  # atomic: hashing and comparing keys runs no Python code
        return node if winner is fresh else _settle(home, key, node, fresh)

    def __reduce__(self) -> Any:
        from tinycore.ir.text import parse, print_graph

        return parse, (print_graph(self),)

    def __repr__(self) -> str:
        from tinycore.ir.text import summary

        return summary(self)

    # --- derived facts ------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The shape of a tensor value; at program level ``()`` or ``(lanes,)``; ``()`` for statements."""
        known = self._shape
        return known if known is not None else _facts.shape(self)

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and greatest possible value of an integer or bool node, both included (bools are 0 and 1)."""
        known = self._bounds
        return known if known is not None else _facts.bounds(self)

    @property
    def vmin(self) -> int:
        """Least possible value, see `bounds`."""
        return self.bounds[0]

    @property
    def vmax(self) -> int:
        """Greatest possible value, see `bounds`."""
        return self.bounds[1]

    @property
    def ranges(self) -> frozenset[UOp]:
        """The RANGE nodes that the value depends on and that no REDUCE inside has consumed."""
        try:
            return self._ranges
        except AttributeError:
            return _facts.ranges(self)

    @property
    def value(self) -> Scalar:
        """The Python number of a CONST."""
        if self.op is not ops.CONST:
            raise TypeError(f"{self.op.name} is not a constant")
        return self.dtype.from_bits(self.arg[0])

    @property
    def is_const(self) -> bool:
        """Whether this is a CONST."""
        return self.op is ops.CONST

    # --- construction -------------------------------------------------------------------------------------

    @staticmethod
    def const(dtype: DType, value: Scalar, shape: Shape = ()) -> UOp:
        """A constant of that dtype (the value is converted as `DType.to_bits` says)."""
        return UOp(ops.CONST, dtype, (), (dtype.to_bits(value), shape))

    @staticmethod
    def from_bits(dtype: DType, bits: int, shape: Shape = ()) -> UOp:
        """A constant of canonical bits."""
        return UOp(ops.CONST, dtype, (), (bits, shape))

    @staticmethod
    def variable(name: str, minimum: int, maximum: int, multiple_of: int = 1) -> UOp:
        """A symbolic integer; see VARIABLE in the op table. 0 and 1 are never guessed."""
        if not (0 <= minimum <= maximum and multiple_of >= 1):
            from tinycore.errors import BindingError

            raise BindingError(
                f"variable {name!r} needs 0 <= min <= max and multiple_of >= 1, got "
                f"{minimum}, {maximum}, {multiple_of}"
            )
        return UOp(ops.VARIABLE, dtypes.index, (), (name, minimum, maximum, multiple_of))

    def const_like(self, value: Scalar) -> UOp:
        """A constant of this node's dtype and shape."""
        return UOp.const(self.dtype, value, self.shape)

    def replace(
        self,
        *,
        op: Op | None = None,
        dtype: DType | None = None,
        src: tuple[UOp, ...] | None = None,
        **arg: Any,
    ) -> UOp:
        """A node that differs in some fields (``arg=...`` replaces the arg)."""
        operands = self.src if src is None else src
        return UOp(op or self.op, dtype or self.dtype, operands, arg.get("arg", self.arg))

    def alu(self, op: Op, *others: UOp) -> UOp:
        """An elementwise node of this op; comparison results are bool, all others of the common dtype."""
        src = (self, *others)
        return UOp.__new__(UOp, op, dtypes.bool_ if op.dtype == "bool" else src[-1].dtype, src)

    def cast(self, dtype: DType) -> UOp:
        """This value as another dtype; itself when nothing changes."""
        return self if dtype is self.dtype else UOp(ops.CAST, dtype, (self,))

    def bitcast(self, dtype: DType) -> UOp:
        """The same bits as another dtype of the same size."""
        return self if dtype is self.dtype else UOp(ops.BITCAST, dtype, (self,))

    def where(self, yes: UOp, no: UOp) -> UOp:
        """`yes` where this bool holds, else `no`."""
        return UOp(ops.WHERE, yes.dtype, (self, yes, no))

    def _operand(self, other: UOp | Scalar) -> UOp:
        return other if isinstance(other, UOp) else self.const_like(other)

    # --- operators: build elementwise nodes; == and hash stay identity -------------------------------------

    def __add__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.ADD, self._operand(other))

    def __radd__(self, other: Scalar) -> UOp:
        return self._operand(other).alu(ops.ADD, self)

    def __sub__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.SUB, self._operand(other))

    def __rsub__(self, other: Scalar) -> UOp:
        return self._operand(other).alu(ops.SUB, self)

    def __mul__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.MUL, self._operand(other))

    def __rmul__(self, other: Scalar) -> UOp:
        return self._operand(other).alu(ops.MUL, self)

    def __truediv__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.DIV, self._operand(other))

    def __floordiv__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.FLOORDIV, self._operand(other))

    def __mod__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.FLOORMOD, self._operand(other))

    def __neg__(self) -> UOp:
        return self.alu(ops.NEG)

    def __and__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.AND, self._operand(other))

    def __or__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.OR, self._operand(other))

    def __xor__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.XOR, self._operand(other))

    def __lshift__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.SHL, self._operand(other))

    def __rshift__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.SHR, self._operand(other))

    def __lt__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.LT, self._operand(other))

    def __le__(self, other: UOp | Scalar) -> UOp:
        return self.alu(ops.LE, self._operand(other))

    def __gt__(self, other: UOp | Scalar) -> UOp:
        return self._operand(other).alu(ops.LT, self)

    def __ge__(self, other: UOp | Scalar) -> UOp:
        return self._operand(other).alu(ops.LE, self)

    def eq(self, other: UOp | Scalar) -> UOp:
        """Elementwise equality (``==`` is identity of nodes)."""
        return self.alu(ops.EQ, self._operand(other))

    def ne(self, other: UOp | Scalar) -> UOp:
        """Elementwise inequality."""
        return self.alu(ops.NE, self._operand(other))

    def __bool__(self) -> bool:
        raise TypeError("the truth of a symbolic value is unknown; compare nodes with `is`, or use `.bounds`")

    __hash__ = object.__hash__

    # --- walking ------------------------------------------------------------------------------------------

    def under(self, *kinds: Op) -> UOp:
        """The first node that is none of these ops, from this one down through first operands.

        >>> x = UOp.variable("n", 0, 9)
        >>> UOp(ops.NEG, x.dtype, (UOp(ops.NEG, x.dtype, (x,)),)).under(ops.NEG) is x
        True
        """
        node = self
        while node.op in kinds:
            node = node.src[0]
        return node

    def toposort(self) -> list[UOp]:
        """Every node below this one, operands before users, this one last; each once; no recursion."""
        return toposort((self,))

    def substitute(self, mapping: Mapping[UOp, UOp]) -> UOp:
        """This graph with nodes exchanged; what is put in is not searched again. See `substitute`."""
        return substitute((self,), mapping)[0]


def toposort(roots: Iterable[UOp]) -> list[UOp]:
    """Every node below the roots, operands before users, each once."""
    order: list[UOp] = []
    seen: set[UOp] = set()
    stack: list[UOp | None] = [*roots]
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None:  # the node below the mark has had all its operands
            order.append(stack.pop())  # type: ignore[arg-type]
        elif node not in seen:
            seen.add(node)
            if node.src:
                stack += (node, None)
                stack += node.src[::-1]
            else:
                order.append(node)
    return order


def substitute(roots: Iterable[UOp], mapping: Mapping[UOp, UOp]) -> list[UOp]:
    """The roots with the keys of `mapping` exchanged for its values, sharing one memo.

    Replaced nodes are not searched again, so a mapping may refer to its own keys. Symbolic dimensions in
    attributes are exchanged too.
    """
    roots = list(roots)
    wanted = 0
    for key in mapping:
        wanted |= key.op.bit
    dims = any(key.op is ops.VARIABLE for key in mapping)
    memo: dict[UOp, UOp] = dict(mapping)
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in memo:
            continue
        if not dims and not node.mask & wanted:
            memo[node] = node
        elif ready:
            src = tuple([memo[operand] for operand in node.src])
            arg = _substitute_dims(node.arg, mapping) if dims else node.arg
            unchanged = arg == node.arg and all(map(_is, src, node.src))
            memo[node] = node if unchanged else UOp(node.op, node.dtype, src, arg)
        else:
            stack.append((node, True))
            stack.extend((operand, False) for operand in node.src if operand not in memo)
    return [memo[root] for root in roots]


def _is(a: object, b: object) -> bool:
    return a is b


def _substitute_dims(arg: Any, mapping: Mapping[UOp, UOp]) -> Any:
    """An attribute with symbolic dimensions exchanged; a dimension that became constant is a plain int."""
    if isinstance(arg, UOp):
        from tinycore.ir.dims import to_dim

        return to_dim(substitute((arg,), mapping)[0])
    if isinstance(arg, tuple):
        return tuple([_substitute_dims(part, mapping) for part in arg])
    return arg


class _Facts:
    """Inference of derived facts; `tinycore.ir` fills it in, so that the table of rules may import UOp."""

    shape: Callable[[UOp], Shape]
    bounds: Callable[[UOp], tuple[int, int]]
    ranges: Callable[[UOp], frozenset[UOp]]


_facts = _Facts()


def draft(op: Op, dtype: DType, src: tuple[UOp, ...], arg: Any) -> UOp:
    """A node outside the table, to be looked at and then dropped or given to `adopt`; nothing may refer to it.

    It has the four fields, shape and bounds; its mask is 0, and it has no ranges. Rewriting tries rules on
    drafts, because many of the nodes that are rebuilt on new operands are rewritten at once.
    """
    node = _new(UOp)
    node.op = op
    node.dtype = dtype
    node.src = src
    node.arg = arg
    node.mask = 0
    node._shape = node._bounds = None
    return node


def adopt(node: UOp) -> UOp:
    """The node of a draft's four fields: the one that exists, or the draft itself, now in the table."""
    mask = node.op.bit
    for operand in node.src:
        mask |= operand.mask
    node.mask = mask
    fresh = _Reference(node, _forget)
    home: _Home
    key: tuple[Any, ...]
    if node.arg is None:
        home, key = _plain[node.op][node.dtype], node.src
    else:
        home, key = _table, (node.op, node.dtype, node.src, node.arg)
    fresh.home = home
    fresh.key = key
    winner = home.setdefault(key, fresh)
    return node if winner is fresh else _settle(home, key, node, fresh)


def keep_origin(node: UOp, origin: Any) -> None:
    """Keep where a node came from beside it, with its entry in the table, unless something is kept already."""
    for reference in weakref.getweakrefs(node):
        if type(reference) is _Reference and getattr(reference, "origin", None) is None:
            reference.origin = origin


def origin_of(node: UOp) -> Any:
    """What `keep_origin` kept; None if nothing."""
    for reference in weakref.getweakrefs(node):
        if type(reference) is _Reference:
            return getattr(reference, "origin", None)
    return None


def table_size() -> int:
    """How many nodes are alive (for tests and benchmarks)."""
    return len(_table) + sum(len(home) for homes in _plain.values() for home in homes.values())

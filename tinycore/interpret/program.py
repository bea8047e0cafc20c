"""The program level: the list, statement by statement.

All work-items of some work-groups run in lock step; what differs between them is the first axis of every
value (size 1 where it does not). Loops are Python loops, lanes the second axis. Local memory is watched: a
work-item that reads what another one wrote, or overwrites what another one read, with no BARRIER between is
an error here, because on a device it is a race.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import InterpretError
from tinycore.interpret.arrays import Bindings, as_stored, constant, reduce_axes
from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.interpret.plan import check_inside
from tinycore.interpret.tensor import CUSTOM
from tinycore.ir.ops import ops
from tinycore.ir.uop import Dim, UOp

Array = NDArray[Any]

TOGETHER = 1 << 14
"""Work-items that run in lock step at most (one work-group at least)."""

_ALIASES = (ops.PARAM, ops.SCRATCH)
_NOBODY = 1 << 62


def interpret_program(
    linear: UOp,
    buffers: Mapping[int, Array],
    bindings: Mapping[UOp, int] | None = None,
    grid: Sequence[Dim] = (),
    group: Sequence[int] = (),
) -> None:
    """Execute a program: a LINEAR node.

    Parameters
    ----------
    linear: the statements.
    buffers: the elements of every PARAM by slot, contiguous; those that are stored to are changed.
    bindings: the value of every VARIABLE (found by name: the program may have given it a machine dtype).
    grid: bounds of the global ranges, in the order in which they are listed.
    group: bounds of the local ranges.

    Raises InterpretError, naming the statement, for an access outside a buffer whose guard holds, for a value
    that is used before it is computed, and for a race on local memory.

    >>> import numpy
    >>> from tinycore.ir import UOp, dtypes, ops
    >>> x, true = UOp(ops.PARAM, dtypes.int32, (), (0, (4,))), UOp.const(dtypes.bool_, True)
    >>> i = UOp(ops.RANGE, dtypes.int32, (UOp.const(dtypes.int32, 4),), (0, "loop"))
    >>> double = i * 2
    >>> store = UOp(ops.STORE, dtypes.void, (x, i, double, true))
    >>> body = (i, double, store, UOp(ops.END, dtypes.void, (i,)))
    >>> memory = numpy.zeros(4, "int32")
    >>> interpret_program(UOp(ops.LINEAR, dtypes.void, body), {0: memory})
    >>> memory.tolist()
    [0, 2, 4, 6]
    """
    known = Bindings(bindings or {})
    values = {variable.arg[0]: value for variable, value in (bindings or {}).items()}
    groups = math.prod(known.shape(grid))
    size = math.prod(group)
    step = max(1, TOGETHER // max(1, size))
    with quiet():
        for first in range(0, groups, step):
            items = _Items(first, min(groups, first + step), known.shape(grid), tuple(group))
            _Run(linear, buffers, known, values, items).run()


@dataclass(frozen=True, slots=True)
class _Items:
    """The work-items that run together: some work-groups, all of their items."""

    first: int
    last: int
    grid: tuple[int, ...]
    group: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.group)

    @property
    def count(self) -> int:
        return (self.last - self.first) * self.size

    def identifiers(self, kind: str, axis: int) -> Array:
        """The grid or work-item id of every item along one axis; the last axis runs fastest."""
        items = np.arange(self.count)
        flat, shape = (
            (items // self.size + self.first, self.grid)
            if kind == "global"
            else (items % self.size, self.group)
        )
        return np.asarray(np.unravel_index(flat, shape)[axis])


class _Local:
    """Local memory of the running groups, which remembers who touched what since the last barrier."""

    def __init__(self, groups: int, size: int, dtype: np.dtype[Any]) -> None:
        self.elements = np.zeros((groups, size), dtype)
        self.clear()

    def clear(self) -> None:
        """A barrier: everything before it is visible to everybody."""
        self.writer = np.full(self.elements.shape, -1)
        self.least_reader = np.full(self.elements.shape, _NOBODY)
        self.greatest_reader = np.full(self.elements.shape, -1)

    def read(self, node: UOp, places: tuple[Array, Array], items: Array) -> None:
        writer = self.writer[places]
        if ((writer != -1) & (writer != items)).any():
            raise _race(node, "reads what another work-item wrote")
        np.minimum.at(self.least_reader, places, items)
        np.maximum.at(self.greatest_reader, places, items)

    def write(self, node: UOp, places: tuple[Array, Array], items: Array) -> None:
        if (self.least_reader[places] < items).any() or (self.greatest_reader[places] > items).any():
            raise _race(node, "overwrites what another work-item read")
        self.writer[places] = items


def _race(node: UOp, what: str) -> InterpretError:
    return InterpretError(
        f"a race on local memory: a work-item {what} since the last barrier",
        where=repr(node),
        hint="put a BARRIER between the two",
    )


class _Run:
    """One execution of the list for some work-groups."""

    def __init__(
        self,
        linear: UOp,
        buffers: Mapping[int, Array],
        bindings: Bindings,
        values: Mapping[str, int],
        items: _Items,
    ) -> None:
        if linear.op is not ops.LINEAR:
            raise InterpretError(f"a program is a LINEAR node, not {linear.op.name}")
        self.list = linear.src
        self.given = buffers
        self.bindings = bindings
        self.variables = values
        self.items = items
        self.all_items = np.arange(items.count)
        self.known: dict[UOp, Array] = {}
        self.memory: dict[UOp, Array | _Local] = {}
        self.active: list[Array | None] = [None]
        self.axes = {"global": 0, "local": 0}
        self.starts = {node: place for place, node in enumerate(self.list) if node.op is ops.RANGE}
        closing = (ops.END, ops.ENDIF)
        self.ends = {node.src[0]: place for place, node in enumerate(self.list) if node.op in closing}

    def run(self) -> None:
        """Statement by statement; a jump back for every END of a loop that is not over."""
        place = 0
        while place < len(self.list):
            node = self.list[place]
            op = node.op
            if op is ops.RANGE and node.arg[1] not in self.axes:
                place = self._open(node, place)
            elif op is ops.END:
                place = self._next_iteration(node, place)
            elif op is ops.IF:
                self._push(self._value(node.src[0]))
                place = place + 1 if self._any_active() else self.ends[node]
            elif op is ops.ENDIF:
                self.active.pop()
                place += 1
            else:
                self._statement(node)
                place += 1

    # --- control flow -------------------------------------------------------------------------------------

    def _push(self, condition: Array) -> None:
        outer = self.active[-1]
        inner = condition if outer is None else condition & outer
        self.active.append(None if inner.all() else np.broadcast_to(inner, (self.items.count,)))

    def _any_active(self) -> bool:
        mask = self.active[-1]
        return mask is None or bool(mask.any())

    def _open(self, node: UOp, place: int) -> int:
        if node not in self.ends:
            raise InterpretError("a loop is never closed", where=repr(node))
        bound = self._value(node.src[0])
        self.known[node] = np.zeros(1, node.dtype.numpy)
        self._push(self.known[node] < bound)
        if self._any_active():
            return place + 1
        self.active.pop()
        return self.ends[node] + 1

    def _next_iteration(self, node: UOp, place: int) -> int:
        loop = node.src[0]
        self.active.pop()
        self.known[loop] = self.known[loop] + np.ones((), loop.dtype.numpy)
        self._push(self.known[loop] < self._value(loop.src[0]))
        if self._any_active():
            return self.starts[loop] + 1
        self.active.pop()
        return place + 1

    # --- statements ---------------------------------------------------------------------------------------

    def _statement(self, node: UOp) -> None:
        if node.op is ops.STORE:
            self._store(node)
        elif node.op is ops.UPDATE:
            register, value = node.src
            held, new = self._value(register), self._value(value)
            mask = self._mask(held.ndim)
            self.known[register] = new if mask is None else np.where(mask, new, held)
        elif node.op is ops.BARRIER:
            if self.active[-1] is not None and self.items.size > 1:
                raise InterpretError("not all work-items reach a barrier", where=repr(node))
            for memory in self.memory.values():
                if isinstance(memory, _Local):
                    memory.clear()
        elif not node.op.statement:
            self.known[node] = self._evaluate(node)

    def _mask(self, rank: int) -> Array | None:
        mask = self.active[-1]
        return mask if mask is None or rank == 1 else mask[:, None]

    def _store(self, node: UOp) -> None:
        _, index, value, gate = node.src
        elements = self._value(value)
        places, gates = self._places(index, gate, elements.shape[1] if elements.ndim > 1 else 0)
        self._access(node, places, gates, elements)

    def _places(self, index: UOp, gate: UOp, lanes: int) -> tuple[Array, Array]:
        """Positions and guards of an access, of equal rank: neighbours for a scalar index with lanes."""
        places, gates = self._value(index).astype(np.int64), self._value(gate)
        if lanes and places.ndim == 1:
            places = places[:, None] + np.arange(lanes)
        if gates.ndim < places.ndim:
            gates = gates[:, None]
        elif places.ndim < gates.ndim:
            places = places[:, None]
        mask = self._mask(places.ndim)
        return places, gates if mask is None else gates & mask

    def _access(self, node: UOp, places: Array, gates: Array, stored: Array | None) -> Array:
        """Read (stored is None) or write elements where the guards hold; answers what was read."""
        memory = self._memory(node.src[0].under(ops.AFTER))
        held = memory.elements if isinstance(memory, _Local) else memory
        shape = np.broadcast_shapes(places.shape, gates.shape, () if stored is None else stored.shape)
        if held.ndim > 1:
            shape = (self.items.count, *shape[1:])
        gates = np.broadcast_to(gates, shape)
        chosen = np.broadcast_to(places, shape)[gates]
        check_inside(node, chosen, held.shape[-1])
        where: Any = chosen
        if held.ndim > 1:
            items = np.broadcast_to(self.all_items.reshape([-1] + [1] * (len(shape) - 1)), shape)[gates]
            where = (items, chosen)
            if isinstance(memory, _Local):
                where = (items // self.items.size, chosen)
                (memory.read if stored is None else memory.write)(node, where, items)
        if stored is not None:
            held[where] = np.broadcast_to(stored, shape)[gates]
            return stored
        result = np.zeros(shape, held.dtype)
        result[gates] = held[where]
        return result

    def _memory(self, node: UOp) -> Array | _Local:
        if node not in self.memory:
            self.memory[node] = self._allocate(node)
        return self.memory[node]

    def _allocate(self, node: UOp) -> Array | _Local:
        if node.op is ops.PARAM:
            slot = node.arg[0]
            if slot not in self.given:
                raise InterpretError(f"no array was given for slot {slot}", where=repr(node))
            flat = self.given[slot].reshape(-1)
            as_stored(f"slot {slot}", flat, node.dtype, node.arg[1], self.bindings)
            return flat
        if node.op is not ops.SCRATCH:
            raise InterpretError(f"{node.op.name} is no memory", where=repr(node))
        size = math.prod(self.bindings.shape(node.arg[2]))
        if node.arg[0] == "local":
            return _Local(self.items.last - self.items.first, size, node.dtype.numpy)
        return np.zeros((self.items.count, size), node.dtype.numpy)

    # --- values -------------------------------------------------------------------------------------------

    def _value(self, node: UOp) -> Array:
        """What a value holds now: computed before, or a leaf."""
        known = self.known.get(node)
        if known is not None:
            return known
        if node.op is ops.CONST:
            lanes = node.arg[1]
            return np.broadcast_to(constant(node.dtype, node.arg[0]), (1, *lanes))
        if node.op is ops.VARIABLE:
            if node.arg[0] not in self.variables:
                raise InterpretError(f"the variable {node.arg[0]!r} has no value", where=repr(node))
            return np.array([self.variables[node.arg[0]]], node.dtype.numpy)
        if node.op is ops.IOTA:
            return np.arange(node.arg, dtype=node.dtype.numpy)[None]
        raise InterpretError("a value is used before it is computed", where=repr(node))

    def _evaluate(self, node: UOp) -> Array:
        op = node.op
        if op is ops.RANGE:
            axis = self.axes[node.arg[1]]
            self.axes[node.arg[1]] += 1
            return self.items.identifiers(node.arg[1], axis).astype(node.dtype.numpy)
        if op is ops.LOAD:
            places, gates = self._places(node.src[1], node.src[2], node.arg if (node.arg or 1) > 1 else 0)
            return self._access(node, places, gates, None)
        if op in _ALIASES:
            self._memory(node)
            return np.zeros(1, np.int64)  # a name for memory; nothing computes with it
        if op is ops.AFTER:
            source = node.under(ops.AFTER)
            return self._evaluate(source) if source.op in _ALIASES else self._value(node.src[0])
        operands = [self._value(operand) for operand in node.src]
        if op in MEANING:
            return np.asarray(MEANING[op](node.dtype, *operands))
        if op is ops.ACCUMULATOR:
            return operands[0]
        if op is ops.SPLAT:
            return np.broadcast_to(operands[0][:, None], (len(operands[0]), node.arg))
        if op is ops.SHUFFLE:
            items = max(len(operand) for operand in operands)
            both = [np.broadcast_to(operand, (items, operand.shape[1])) for operand in operands]
            return np.concatenate(both, axis=1)[:, list(node.arg)]
        if op is ops.DOT:
            start, left, right = operands
            products = MEANING[ops.MUL](
                node.dtype, *[MEANING[ops.CAST](node.dtype, x) for x in (left, right)]
            )
            sums = reduce_axes(ops.ADD, node.dtype, products.reshape(len(products), node.shape[0], -1), (2,))
            return np.asarray(MEANING[ops.ADD](node.dtype, start, sums[:, :, 0]))
        if op is ops.LANE_REDUCE:
            return reduce_axes(node.arg, node.dtype, operands[0], (1,))[:, 0]
        if op in (ops.CONST, ops.VARIABLE, ops.IOTA):
            return self._value(node)
        if op is ops.CUSTOM and node.arg[0] in CUSTOM:
            return CUSTOM[node.arg[0]](node, *operands)
        raise InterpretError(f"{op.name} has no value at program level", where=repr(node))

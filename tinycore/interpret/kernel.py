"""The kernel level: every loop at once.

Each RANGE of a kernel has a numpy axis of its own; a value that does not depend on it has size 1 there, so a
kernel costs a few numpy calls however many iterations it has. `ordered` ranges run one iteration after the
other. Stores happen in the order of the SINK, joint ones (`tinycore.ir.statements`) together, and each is whole:
the loops of a kernel other than `ordered` ones are free to run in any order, so no store may depend on how far
another one's loop is.

A kernel that has not been lowered yet, a SINK of ASSIGN and SCATTER statements over PARAMs, is executed as
the tensor graph that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import InterpretError
from tinycore.interpret.arrays import Bindings, as_stored, constant, contract, reduce_axes
from tinycore.interpret.elementwise import MEANING, quiet
from tinycore.interpret.plan import Batch, Loop, Plan, check_inside
from tinycore.interpret.static import with_static_bounds
from tinycore.interpret.tensor import CUSTOM, interpret
from tinycore.ir import dtypes
from tinycore.ir.ops import ops
from tinycore.ir.statements import joint_statements
from tinycore.ir.uop import UOp

Array = NDArray[Any]

CHUNK = 1 << 24
"""Elements that one evaluation may have before the outermost range is cut into pieces."""

_MEMORY = (ops.PARAM, ops.SCRATCH)
_ZERO = UOp.const(dtypes.index, 0)


def interpret_kernel(
    kernel: UOp, buffers: Mapping[int, Array], bindings: Mapping[UOp, int] | None = None
) -> None:
    """Execute a kernel: a SINK of STOREs, or of ASSIGN and SCATTER statements.

    Parameters
    ----------
    kernel: the SINK.
    buffers: the elements of every PARAM by slot, flat or in any shape but contiguous; those that the kernel
        stores to are changed.
    bindings: the value of every VARIABLE.

    Raises InterpretError, naming the node, for an access outside a buffer whose guard holds.

    >>> import numpy
    >>> from tinycore.ir import UOp, dtypes, ops
    >>> x, true = UOp(ops.PARAM, dtypes.int32, (), (0, (4,))), UOp.const(dtypes.bool_, True)
    >>> i = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 4),), (0, "loop"))
    >>> store = UOp(ops.STORE, dtypes.void, (x, i, i.cast(dtypes.int32) * 2, true))
    >>> memory = numpy.zeros(4, "int32")
    >>> interpret_kernel(UOp(ops.SINK, dtypes.void, (store,)), {0: memory})
    >>> memory.tolist()
    [0, 2, 4, 6]
    """
    if any(statement.op is not ops.STORE for statement in kernel.src):
        _run_statements(kernel, buffers, bindings or {})
        return
    with quiet():
        run = _Kernel(with_static_bounds(kernel), buffers, Bindings(bindings or {}))
        run.run(run.plan.steps)


def _run_statements(kernel: UOp, buffers: Mapping[int, Array], bindings: Mapping[UOp, int]) -> None:
    """Statements at tensor level: each makes the next version of the parameter that it is based on."""
    parameters = {
        node: buffers[node.arg[0]]
        for node in kernel.toposort()
        if node.op is ops.PARAM and node.arg[0] in buffers
    }
    for statement in kernel.src:
        if statement.op not in (ops.ASSIGN, ops.SCATTER) or statement.src[0].op is not ops.PARAM:
            raise InterpretError(
                "a statement of a kernel is a STORE, or an ASSIGN or SCATTER over a PARAM",
                where=repr(statement),
            )
    for statements in joint_statements(kernel):
        versions = interpret(statements, parameters, bindings)
        if len(versions) > 1:  # a value may be another one's memory
            versions = [version.copy() for version in versions]
        for statement, version in zip(statements, versions, strict=True):
            buffers[statement.src[0].arg[0]].reshape(-1)[: version.size] = version.reshape(-1)


class _Kernel:
    """One execution: memory, and which part of each range is being evaluated."""

    def __init__(self, kernel: UOp, buffers: Mapping[int, Array], bindings: Bindings) -> None:
        self.given = buffers
        self.bindings = bindings
        self.plan = Plan(kernel, bindings)
        self.axes = self.plan.axes
        self.window = {node: (0, bound) for node, bound in self.plan.bounds.items()}
        self.memory = {node: self._allocate(node) for node in self.plan.nodes if node.op in _MEMORY}
        self.values: dict[UOp, Array] = {}

    def _allocate(self, node: UOp) -> Array:
        if node.op is ops.SCRATCH:
            copies = [self.plan.bounds[copy] for copy in self.plan.copies.get(node, ())]
            size = int(np.prod(self.bindings.shape(node.arg[2]), dtype=np.int64))
            return np.zeros([*copies, size], node.dtype.numpy)
        slot = node.arg[0]
        if slot not in self.given:
            raise InterpretError(f"no array was given for slot {slot}", where=repr(node))
        array = self.given[slot]
        if not array.flags.c_contiguous:
            raise InterpretError(f"the array for slot {slot} is not contiguous", where=repr(node))
        flat = array.reshape(-1)
        as_stored(f"slot {slot}", flat, node.dtype, node.arg[1], self.bindings)
        return flat

    # --- statements ---------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Loop | Batch]) -> None:
        """Execute steps of the plan in order (loops nest as deep as kernels have `ordered` ranges)."""
        for step in steps:
            if isinstance(step, Batch):
                self._batch(step)
                continue
            bound = self.plan.bounds[step.over]
            for iteration in range(bound):
                self.window[step.over] = (iteration, iteration + 1)
                self.run(step.steps)
            self.window[step.over] = (0, bound)

    def _batch(self, batch: Batch) -> None:
        """Evaluate stores; in pieces of the outermost range where the whole would not fit in memory."""
        if batch.outer is None or batch.volume <= CHUNK:
            self._store_all(batch.stores)
            return
        bound = self.plan.bounds[batch.outer]
        step = max(1, bound * CHUNK // batch.volume)
        for start in range(0, bound, step):
            self.window[batch.outer] = (start, min(bound, start + step))
            self._store_all(batch.stores)
        self.window[batch.outer] = (0, bound)

    def _store_all(self, stores: Sequence[UOp]) -> None:
        self.values = {}
        operands = [[self._value(operand) for operand in store.src[1:]] for store in stores]
        self.values = {}
        for store, (index, value, gate) in zip(stores, operands, strict=True):
            self._store(store, index, value, gate)

    def _store(self, store: UOp, index: Array, value: Array, gate: Array) -> None:
        target = store.src[0].under(ops.AFTER)
        memory = self.memory[target]
        copies = self._coordinates(target)
        shape = np.broadcast_shapes(index.shape, value.shape, gate.shape, *[copy.shape for copy in copies])
        parts = [np.broadcast_to(part, shape) for part in (*copies, index, value)]
        if not gate.all():
            mask = np.broadcast_to(gate, shape)
            parts = [part[mask] for part in parts]
        *places, value = parts
        check_inside(store, places[-1], memory.shape[-1])
        memory[tuple(places)] = value

    # --- values -------------------------------------------------------------------------------------------

    def _value(self, root: UOp) -> Array:
        """The value of a node over the axes; operands first, no recursion."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.values:
                stack.pop()
                continue
            operands = self._operands(node)
            missing = [operand for operand in operands if operand not in self.values]
            if missing:
                stack.extend(missing)
                continue
            self.values[node] = self._evaluate(node, [self.values[operand] for operand in operands])
            stack.pop()
        return self.values[root]

    def _operands(self, node: UOp) -> tuple[UOp, ...]:
        if node.op is ops.LOAD:
            return node.src[1:]
        if node.op is ops.AFTER:
            return node.src[:1]
        if node.op is ops.INDEX:
            return node.src[1:]
        if node.op is ops.REDUCE:
            return node.src[0].src if _is_contraction(node) else node.src[:1]
        return node.src if node.op is not ops.RANGE else ()

    def _evaluate(self, node: UOp, operands: list[Array]) -> Array:
        op = node.op
        if op in MEANING:
            return np.asarray(MEANING[op](node.dtype, *operands))
        if op is ops.RANGE:
            shape = [1] * len(self.axes)
            shape[self.axes[node]] = -1
            return np.arange(*self.window[node]).reshape(shape)
        if op is ops.CONST:
            return constant(node.dtype, node.arg[0]).reshape((1,) * len(self.axes))
        if op is ops.VARIABLE:
            return np.full((1,) * len(self.axes), self.bindings.value(node), np.int64)
        if op is ops.DOT:
            start, *factors = operands
            product = MEANING[ops.MUL](node.dtype, *[MEANING[ops.CAST](node.dtype, f) for f in factors])
            return np.asarray(MEANING[ops.ADD](node.dtype, start, product))
        if op is ops.LOAD:
            return self._load(node, *operands)
        if op is ops.AFTER:
            return operands[0]
        if op is ops.REDUCE:
            return self._reduce(node, operands)
        if op is ops.INDEX:
            return self._index(node, *operands)
        if op is ops.CUSTOM and node.arg[0] in CUSTOM:
            return CUSTOM[node.arg[0]](node, *operands)
        raise InterpretError(f"{op.name} has no value at kernel level", where=repr(node))

    def _coordinates(self, memory: UOp) -> list[Array]:
        """Which copy of a scratch each iteration uses; [] for buffers."""
        return [self._evaluate(node, []) for node in self.plan.copies.get(memory, ())]

    def _load(self, node: UOp, index: Array, gate: Array) -> Array:
        if node.arg not in (None, 1):
            raise InterpretError("a LOAD of several lanes belongs to the program level", where=repr(node))
        memory = self.memory[node.src[0].under(ops.AFTER)]
        size = memory.shape[-1]
        everywhere = bool(gate.all())
        if not everywhere:
            index = np.where(gate, index, 0)
            if not size:
                gate = gate & np.broadcast_to(False, index.shape)
                return np.zeros(np.broadcast_shapes(index.shape, gate.shape), memory.dtype)
        check_inside(node, index, size)
        copies = self._coordinates(node.src[0].under(ops.AFTER))
        loaded = memory[(*copies, index)] if copies else memory.take(index)
        return loaded if everywhere else np.where(gate, loaded, np.zeros((), memory.dtype))

    def _reduce(self, node: UOp, operands: list[Array]) -> Array:
        op, axes = node.arg
        if axes:
            raise InterpretError("a REDUCE over axes belongs to the tensor level", where=repr(node))
        ranges = [operand for operand in node.src[1:] if operand.op is ops.RANGE]
        # A loop of one iteration may have become the constant 0.
        if any(operand.op is not ops.RANGE and operand is not _ZERO for operand in node.src[1:]):
            raise InterpretError("a REDUCE names loops after its value", where=repr(node))
        places = tuple([self.axes[operand] for operand in ranges])
        if _is_contraction(node):
            result = contract(node.dtype, operands[0], operands[1], places)
            if result is not None:
                return result
            operands = [np.asarray(MEANING[ops.MUL](node.dtype, *operands))]
        sizes = list(operands[0].shape)
        for operand in ranges:
            sizes[self.axes[operand]] = self.window[operand][1] - self.window[operand][0]
        return reduce_axes(op, node.dtype, np.broadcast_to(operands[0], sizes), places)

    def _index(self, node: UOp, gate: Array, *indices: Array) -> Array:
        leaves = {leaf: self.memory[leaf] for leaf in node.src[0].toposort() if leaf.op is ops.PARAM}
        known = {leaf: self.bindings.value(leaf) for leaf in node.toposort() if leaf.op is ops.VARIABLE}
        (tensor,) = interpret([node.src[0]], leaves, known)
        shape = np.broadcast_shapes(gate.shape, *[index.shape for index in indices])
        if not tensor.size:
            if np.broadcast_to(gate, shape).any():  # loops without iterations read nothing
                raise InterpretError("an element of an empty tensor is read", where=repr(node))
            return np.zeros(shape, tensor.dtype)
        places = [np.where(gate, index, 0) for index in indices]
        for place, size in zip(places, tensor.shape, strict=True):
            check_inside(node, place, size)
        taken = np.broadcast_to(tensor[tuple(places)], shape)
        return np.where(gate, taken, np.zeros((), tensor.dtype))


def _is_contraction(node: UOp) -> bool:
    return node.arg[0] is ops.ADD and node.src[0].op is ops.MUL

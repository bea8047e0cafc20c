"""Rules about tensors, movement, indexing and memory: random instances through the interpreter.

An instance is a graph that satisfies the pattern, with random shapes and attributes. At tensor level both sides
are interpreted as they are; at kernel level they are stored over all their loops.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import TinycoreError
from tinycore.interpret import interpret, interpret_kernel
from tinycore.interpret.arrays import Bindings
from tinycore.ir import Shape, Target, UOp, dims, dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import TABLE, Op, ops
from tinycore.rules import syntax as s
from tinycore.rules.expand import Case
from tinycore.rules.matcher import Matcher, Pool
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.evaluate import differences
from tinycore_tools_rules.judge import malformed
from tinycore_tools_rules.paste import counterexample, instance, kernels
from tinycore_tools_rules.sample import Tested, rewritten
from tinycore_tools_rules.shapes import attributes_of, random_shape
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.terms import signless
from tinycore_tools_rules.typed import Impossible, single_cases
from tinycore_tools_rules.values import random_values

Array = NDArray[Any]
WANTED, ATTEMPTS = 1000, 12_000
_KERNEL = {"INDEX", "LOAD", "RANGE"}
_COMMON = ("float32", "int32", "bool", "float64", "int64", "uint8", "float16", "int8")
NO_MEANING = (TinycoreError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What the interpreter may raise for a graph that breaks the rules of its level."""
TRUE = UOp.const(dtypes.bool_, True)
ZERO, ONE = UOp.const(dtypes.index, 0), UOp.const(dtypes.index, 1)


@dataclass(frozen=True, slots=True)
class TensorContext:
    """The context of rules that lower kernels: a target, and ranges for the reductions of one instance."""

    target: Target
    reductions: dict[UOp, dict[int, UOp]]

    def reduce_ranges(self, node: UOp) -> dict[int, UOp]:
        """A RANGE, or 0 for size 1, for each axis of the REDUCE that an INDEX reads."""
        if node not in self.reductions:
            reduce, start = node.src[0], 100 + 10 * len(self.reductions)
            self.reductions[node] = {
                axis: self._range(dims.to_node(reduce.src[0].shape[axis]), start + axis)
                for axis in reduce.arg[1]
            }
        return self.reductions[node]

    def _range(self, size: UOp, number: int) -> UOp:
        return ZERO if size is ONE else UOp(ops.RANGE, dtypes.index, (size,), (number, "reduce"))


def verify_tensor(unit: Unit, wanted: int = WANTED) -> Tested:
    """Random instances of a rule that is not scalar, until enough of them matched."""
    found = Tested()
    chance = random.Random(unit.identity)
    table = unit.table()
    singles = list(single_cases(unit))
    matchers = [Matcher(unit.source.file, case, Pool(), "nsz" in unit.notes.flags) for case in singles]
    sizes = ["normal", "normal", "tiny"]
    for attempt in range(4 * ATTEMPTS):
        if found.instances >= wanted or found.problem:
            break
        if attempt >= ATTEMPTS and found.instances < wanted // 4:
            break  # four times as many would not do either
        if attempt == 600 and not found.instances:
            sizes = ["large"]
        which = attempt % len(singles)
        maker = Maker(chance, singles[which], matchers[which], chance.choice(sizes))
        try:
            before = maker.build()
        except Impossible:
            continue
        for place in contexts(unit):
            _try(unit, table, before, maker, TensorContext(place.target, {}), found)
    return found


def _try(unit: Unit, table: Any, before: UOp, maker: Maker, context: TensorContext, found: Tested) -> None:
    try:
        after = rewritten(table, before, context)
    except Exception as error:  # noqa: BLE001  whatever a rule raises is a finding, and is shown
        found.problem = f"the rule raises {type(error).__name__}: {error}"
        found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
        return
    if after is None:
        return
    loops = sorted(before.ranges, key=lambda loop: (loop.arg[0], loop.vmax))
    try:
        expected, defined = maker.value(before, loops), maker.defined(before, loops)
    except NO_MEANING:
        return  # the instance itself has no meaning
    if not defined.any():
        return  # an INDEX whose guard never holds: there is nothing to compare
    found.instances += 1
    found.graphs += 1
    found.dtypes.add(before.dtype.name)
    try:
        if after.dtype is not before.dtype or after.shape != before.shape:
            problem = (
                f"the result is {after.dtype.name}{list(after.shape)}, "
                f"not {before.dtype.name}{list(before.shape)}"
            )
        elif wrong := malformed(before, after):
            problem = f"the result has no meaning: {wrong}"
        else:
            answer = maker.value(after, loops)
            loose = signless(before, after) or "nsz" in unit.notes.flags
            same = (
                expected.shape == answer.shape and not (differences(expected, answer, loose) & defined).any()
            )
            problem = "" if same else "the sides differ"
    except NO_MEANING as error:
        problem = f"the result has no meaning: {type(error).__name__}: {error}".splitlines()[0]
    if problem:
        found.problem = problem
        found.refutation = maker.paste(before, after, f"rule {unit.name} at {unit.where}: {problem}")


class Maker:
    """Makes one instance of one pattern, and computes what graphs over its leaves mean."""

    def __init__(self, chance: random.Random, case: Case, matcher: Matcher, size: str) -> None:
        self.chance, self.case, self.matcher, self.size = chance, case, matcher, size
        self.kernel = any(name in _KERNEL for name in _ops_in(case.pattern)) or _has_ranges(case.pattern)
        self.dtypes: dict[str, DType] = {}
        self.known: dict[str, UOp] = {}
        self.arrays: dict[UOp, Array] = {}
        self.bindings: dict[UOp, int] = {}
        self.loops: list[UOp] = []
        self.reducing = any(name in ("REDUCE", "SCAN") for name in _ops_in(case.pattern))

    def build(self) -> UOp:
        """The instance. Raises Impossible."""
        return self.node("n", self.case.pattern, None, not self.kernel)

    def dtype(self, local: str) -> DType:
        """The dtype of a position, chosen once for all that share it."""
        term = self.matcher.facts.find(local)
        if term not in self.dtypes:
            possible = sorted(self.matcher.facts.possible(term) - {dtypes.void}, key=lambda dtype: dtype.name)
            common = [dtype for dtype in possible if dtype.name in _COMMON]
            if not possible:
                raise Impossible
            self.dtypes[term] = self.chance.choice(common or possible)
        return self.dtypes[term]

    # --- patterns -----------------------------------------------------------------------------------------

    def node(self, local: str, pattern: s.Pattern, shape: Shape | None, tensor: bool) -> UOp:
        """An instance of a part; `tensor` says whether it is a tensor value or a scalar of a kernel."""
        if isinstance(pattern, s.Capture):
            return self.node(local, pattern.pattern, shape, tensor)
        dtype = self.dtype(local)
        if isinstance(pattern, s.Literal):
            return UOp.const(dtype, pattern.value, shape or ())
        if isinstance(pattern, (s.Variable, s.Constant)):
            name = pattern.name or f"_{local}"
            if name not in self.known:
                self.known[name] = self.leaf(dtype, shape, tensor, isinstance(pattern, s.Constant))
            return self.known[name]
        assert isinstance(pattern, s.Apply)
        return self.apply(local, pattern, dtype, shape, tensor)

    def leaf(self, dtype: DType, shape: Shape | None, tensor: bool, constant: bool) -> UOp:
        """What stands for a variable."""
        if constant or (tensor and self.chance.random() < 0.05):
            value = self.chance.choice([0, 1, 1, 2])
            return UOp.const(dtype, value, (shape or ()) if tensor else ())
        if tensor:
            found = random_shape(self.chance, self.size) if shape is None else shape
            return self.stored(dtype, found)
        if dtype.kind == "index":
            return self.chance.choice([self.loop(), self.loop() + 1, UOp.const(dtype, 1), self.loop() * 2])
        if dtype.kind == "bool":
            return self.gate()
        memory = self.stored(dtype, (self.chance.choice([1, 4, 6]),))
        index = self.loop(int(memory.shape[0]))  # type: ignore[arg-type]
        return UOp(ops.LOAD, dtype, (memory, index, TRUE), 1)

    def stored(self, dtype: DType, shape: Shape) -> UOp:
        """A buffer (tensor level) or parameter (kernel level) with random elements."""
        if dtype.kind == "index":
            raise Impossible
        arg = (len(self.arrays), shape) if self.kernel else (len(self.arrays), shape, "D")
        node = UOp(ops.PARAM if self.kernel else ops.BUFFER, dtype, (), arg)
        actual = tuple([self.bound(dim) if isinstance(dim, UOp) else dim for dim in shape])
        count = int(np.prod(actual, dtype=np.int64))
        if self.reducing:
            few = [1, -1, 2] if count <= 12 else [1, -1, 0, 2] if count <= 64 else [1, 0, 0, 1]
            plain = np.array([self.chance.choice(few) for _ in range(min(count, 64))] or [1])
            array = np.resize(plain, count).astype(dtype.numpy)
        else:
            array = np.resize(random_values(dtype, max(1, min(count, 256)), self.chance), count)
        self.arrays[node] = array.reshape(actual)
        return node

    def bound(self, size: UOp) -> int:
        """The value of a symbolic size; its variables are bound when they are first seen."""
        for node in size.toposort():
            if node.op is ops.VARIABLE:
                self.bindings.setdefault(node, self.chance.randint(node.arg[1], node.arg[2]))
        return int(Bindings(self.bindings).shape((size,))[0])

    def loop(self, size: int | None = None, kind: str = "loop") -> UOp:
        """A new RANGE, or one of that size that is there already."""
        size = self.chance.choice([2, 3, 4]) if size is None else size
        if size == 1:
            return ZERO
        there = [loop for loop in self.loops if loop.vmax == size - 1 and loop.arg[1] == kind]
        if there and self.chance.random() < 0.3:
            return self.chance.choice(there)
        node = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, size),), (len(self.loops), kind))
        self.loops.append(node)
        return node

    def gate(self) -> UOp:
        """A condition over a loop."""
        if self.chance.random() < 0.2:
            return TRUE
        return self.loop() < self.chance.choice([0, 1, 2, 5])

    def apply(self, local: str, pattern: s.Apply, dtype: DType, shape: Shape | None, tensor: bool) -> UOp:
        """An op, its operands first."""
        op = TABLE[pattern.ops[0]]
        special = {ops.CONST: self._const, ops.VARIABLE: self._variable, ops.PARAM: self._parameter,
                   ops.BUFFER: self._parameter}  # fmt: skip
        if op in special:
            return special[op](dtype, shape)
        if op is ops.INDEX:
            return self._index(local, pattern)
        if op is ops.LOAD:
            return self._load(local, pattern)
        if op is ops.RANGE:
            bound = self.node(f"{local}_0", pattern.operands[0], (), False)
            return UOp(op, dtype, (bound,), (len(self.loops) + 50, "loop"))
        if op is ops.SCATTER:
            return self._scatter(local, pattern, dtype)
        if op is ops.ASSIGN:
            return self._assign(local, pattern, dtype)
        if op is ops.REDUCE and not tensor:
            return self._kernel_reduce(local, pattern, dtype)
        if not tensor and not op.elementwise:
            raise Impossible
        src = self._operands(local, pattern, op, shape, tensor)
        arg = self._attributes(op, pattern, src)
        if op is ops.BITCAST and (
            src[0].dtype.bits != dtype.bits or "bool" in (dtype.kind, src[0].dtype.kind)
        ):
            raise Impossible
        return UOp(op, dtype, src, arg)

    def _operands(
        self, local: str, pattern: s.Apply, op: Op, shape: Shape | None, tensor: bool
    ) -> tuple[UOp, ...]:
        src: dict[int, UOp] = {}
        named = list(operand_names(local, pattern))
        same = shape if op.elementwise or op is ops.CONTIGUOUS else None
        if op is ops.EXPAND and tensor:
            same = tuple([self.chance.choice([1, 1, 2, 3]) for _ in range(self.chance.randrange(4))])
        order = sorted(
            range(len(named)),
            key=lambda k: isinstance(_plain(named[k][1]), (s.Variable, s.Constant, s.Literal)),
        )
        for k in order:
            name, operand = named[k]
            if isinstance(operand, s.Rest):
                raise Impossible
            if op is ops.GATHER and k == 1:
                same = None
            src[k] = self.node(name, operand, same, tensor)
            if op.elementwise and tensor and same is None:
                same = src[k].shape
        found = tuple([src[k] for k in range(len(named))])
        if op.elementwise and any(part.shape != found[0].shape for part in found):
            raise Impossible
        return found

    def _attributes(self, op: Op, pattern: s.Apply, src: tuple[UOp, ...]) -> Any:
        arg = attributes_of(op, src, self.chance)
        names = [name for name in op.attributes if name != "dtype"]
        if pattern.attributes is None or not names:
            return arg
        given = [a for name, a in zip(op.attributes, pattern.attributes, strict=True) if name != "dtype"]
        parts = [arg] if len(names) == 1 else list(arg)
        for k, attribute in enumerate(given):
            fixed = _literal_value(attribute.equal)
            if fixed is not None:
                parts[k] = fixed
        return parts[0] if len(names) == 1 else tuple(parts)

    def _const(self, dtype: DType, shape: Shape | None) -> UOp:
        found = random_shape(self.chance, "normal") if shape is None else shape
        value = (
            self.chance.choice([0, 1, 2, -1, 3])
            if dtype.kind not in ("bool", "uint")
            else self.chance.choice([0, 1])
        )
        return UOp.const(dtype, 0.1 if dtype.is_float and self.chance.random() < 0.3 else value, found)

    def _variable(self, dtype: DType, shape: Shape | None) -> UOp:
        node = UOp.variable("n", 1, 4)
        self.bound(node)
        return node

    def _parameter(self, dtype: DType, shape: Shape | None) -> UOp:
        return self.stored(dtype, random_shape(self.chance, self.size) if shape is None else shape)

    def _scatter(self, local: str, pattern: s.Apply, dtype: DType) -> UOp:
        base = self.node(f"{local}_0", pattern.operands[0], None, True)
        if not base.shape or any(isinstance(dim, UOp) for dim in base.shape):
            raise Impossible
        axis = self.chance.randrange(len(base.shape))
        size, count = int(base.shape[axis]), self.chance.choice([0, 1, 2, 3])  # type: ignore[arg-type]
        at = self.stored(dtypes.int32, (count,))
        places = list(range(-1, size + 1))
        self.arrays[at] = np.array(self.chance.sample(places, min(count, len(places))), np.int32)
        if len(self.arrays[at]) != count:
            raise Impossible
        shape = (*base.shape[:axis], count, *base.shape[axis + 1 :])
        update = self.node(f"{local}_2", pattern.operands[2], shape, True)
        arg = (self.chance.choice([None, ops.ADD, ops.MUL, ops.MAX]), axis)
        if pattern.attributes is not None:
            fixed = _literal_value(pattern.attributes[0].equal)
            arg = (fixed if fixed is not None else arg[0], axis)
        return UOp(ops.SCATTER, dtype, (base, at, update), arg)

    def _assign(self, local: str, pattern: s.Apply, dtype: DType) -> UOp:
        base = self.node(f"{local}_0", pattern.operands[0], None, True)
        view = base
        if pattern.operands[1] != pattern.operands[0]:
            for _ in range(self.chance.randrange(3)):
                op = self.chance.choice([ops.SHRINK, ops.FLIP, ops.PERMUTE])
                view = UOp(op, dtype, (view,), attributes_of(op, (view,), self.chance))
        value = self.node(f"{local}_2", pattern.operands[2], view.shape, True)
        return UOp(ops.ASSIGN, dtype, (base, view, value))

    # --- kernel level -------------------------------------------------------------------------------------

    def _index(self, local: str, pattern: s.Apply) -> UOp:
        value = self.node(f"{local}_0", pattern.operands[0], None, True)
        gate = TRUE if self.chance.random() < 0.5 else self.gate()
        indices = []
        for dim in value.shape:
            size = self.bound(dim) if isinstance(dim, UOp) else dim
            if size == 0:
                gate = UOp.const(dtypes.bool_, False)
                indices.append(ZERO)
                continue
            index = self.chance.choice([self.loop(size), self.loop(size), UOp.const(dtypes.index, size - 1)])
            if self.chance.random() < 0.3:
                index = index + self.chance.choice([-1, 1, 2])
                inside = (UOp.const(dtypes.index, 0) <= index) & (index < dims.to_node(size))
                gate = inside if gate is TRUE else gate & inside
            indices.append(index)
        return UOp(ops.INDEX, value.dtype, (value, gate, *indices))

    def _load(self, local: str, pattern: s.Apply) -> UOp:
        memory = self.stored(self.dtype(local), (self.chance.choice([1, 4, 6]),))
        size = int(memory.shape[0])  # type: ignore[arg-type]
        gate = pattern.operands[2]
        name = getattr(_plain(gate), "name", None)
        if name is not None and name in self.known:
            condition = self.known[name]
        else:
            condition = TRUE if self.chance.random() < 0.2 else self.gate()
            if self.chance.random() < 0.6:  # guards that imply what was captured before
                for known in [node for node in self.known.values() if node.dtype is dtypes.bool_]:
                    condition = condition & known if condition is not TRUE else known
            if name is not None:
                self.known[name] = condition
        return UOp(ops.LOAD, memory.dtype, (memory, self.loop(size), condition), 1)

    def _kernel_reduce(self, local: str, pattern: s.Apply, dtype: DType) -> UOp:
        named = list(operand_names(local, pattern))
        value = self.node(*named[0], (), False)
        ranges: list[UOp] = []
        for name, operand in named[1:]:
            if isinstance(operand, s.Rest):
                ranges += [self.loop(None, "reduce") for _ in range(self.chance.randrange(3))]
            else:
                self.dtypes[self.matcher.facts.find(name)] = dtypes.index
                ranges.append(self.node(name, operand, (), False))
        free = [loop for loop in dict.fromkeys(ranges) if loop.op is ops.RANGE]
        if len(free) != len([loop for loop in ranges if loop.op is ops.RANGE]):
            raise Impossible
        extra = free[0].cast(dtype) if free and dtype.is_int and dtype.kind != "index" else None
        value = value + extra if extra is not None and self.chance.random() < 0.7 else value
        return UOp(
            ops.REDUCE, dtype, (value, *ranges), self._attributes(ops.REDUCE, pattern, (value, *ranges))
        )

    # --- meaning ------------------------------------------------------------------------------------------

    def value(self, node: UOp, loops: list[UOp]) -> Array:
        """The elements of a tensor, or a scalar for every iteration of the loops (one axis each)."""
        if not self.kernel:
            return np.asarray(interpret([node], self.arrays, self.bindings)[0])
        sink, out = self.stored_by(node, loops)
        sizes = [loop.vmax + 1 for loop in loops]
        buffers = {leaf.arg[0]: array.reshape(-1) for leaf, array in self.arrays.items()}
        found = buffers[out.arg[0]] = np.zeros(out.arg[1], out.dtype.numpy)
        interpret_kernel(sink, buffers, self.bindings)
        return found.reshape(sizes)

    def stored_by(self, node: UOp, loops: list[UOp]) -> tuple[UOp, UOp]:
        """A kernel that stores a scalar for every iteration of the loops, and the parameter that it stores to."""
        stored = node.cast(dtypes.int64) if node.dtype.kind == "index" else node
        position = ZERO
        for loop in loops:
            position = position * (loop.vmax + 1) + loop
        count = math.prod(loop.vmax + 1 for loop in loops)
        out = UOp(ops.PARAM, stored.dtype, (), (len(self.arrays), (count,)))
        store = UOp(ops.STORE, dtypes.void, (out, position, stored, TRUE))
        return UOp(ops.SINK, dtypes.void, (store,)), out

    def defined(self, node: UOp, loops: list[UOp]) -> Array:
        """Where the value of a node is specified: that of an INDEX is not where its guard is false."""
        if node.op is ops.INDEX and node.src[1] is not TRUE:
            return self.value(node.src[1], loops)
        return np.asarray(True)

    def paste(self, before: UOp, after: UOp, note: str) -> str:
        """The counterexample as Python."""
        if after.dtype is not before.dtype or after.shape != before.shape or malformed(before, after):
            return instance(before, after, note)
        if not self.kernel:
            return counterexample(before, after, self.arrays, note, self.bindings)
        loops = sorted(before.ranges, key=lambda loop: (loop.arg[0], loop.vmax))
        first, out = self.stored_by(before, loops)
        second, _ = self.stored_by(after, loops)
        buffers = {leaf: array.reshape(-1) for leaf, array in self.arrays.items()}
        buffers[out] = np.zeros(out.arg[1], out.dtype.numpy)
        return kernels(first, second, buffers, self.bindings, note)


def operand_names(local: str, pattern: s.Apply) -> Iterator[tuple[str, s.Pattern]]:
    """The matcher's name of every operand, rests included."""
    rests = [k for k, operand in enumerate(pattern.operands) if isinstance(operand, s.Rest)]
    first = rests[0] if rests else len(pattern.operands)
    last = rests[-1] if rests else len(pattern.operands)
    for k, operand in enumerate(pattern.operands):
        if k < first or isinstance(operand, s.Rest):
            yield f"{local}_{k}", operand
        elif k > last:
            yield f"{local}_e{k - last - 1}", operand
        else:
            yield f"{local}_m{k - first - 1}", operand


def _plain(pattern: s.Pattern) -> s.Pattern:
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    return pattern


def _ops_in(pattern: s.Pattern) -> Iterator[str]:
    pattern = _plain(pattern)
    if isinstance(pattern, s.Apply):
        yield from pattern.ops
        for operand in pattern.operands:
            yield from _ops_in(operand)


def _has_ranges(pattern: s.Pattern) -> bool:
    pattern = _plain(pattern)
    return isinstance(pattern, s.Apply) and pattern.ops[0] == "REDUCE" and len(pattern.operands) > 1


def _literal_value(expression: s.Expression | None) -> Any:
    if isinstance(expression, s.Name) and expression.name in TABLE:
        return TABLE[expression.name]
    if isinstance(expression, (s.Number, s.Text)):
        return expression.value
    if isinstance(expression, s.Sequence):
        return tuple([_literal_value(item) for item in expression.items])
    return None

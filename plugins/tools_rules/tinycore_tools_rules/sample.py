"""Random and exhaustive instances of scalar rules: leaves with corner cases, bounds that guards can use."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.ir import Shape, UOp, dtypes
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import ops
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.judge import judge, malformed
from tinycore_tools_rules.paste import counterexample, instance
from tinycore_tools_rules.prove import edge_values
from tinycore_tools_rules.sources import Table, Unit
from tinycore_tools_rules.typed import Impossible, Typed
from tinycore_tools_rules.values import DYADIC, random_values

Array = NDArray[Any]
LANES = 64
EXHAUSTIVE_BITS = 17


@dataclass(slots=True)
class Tested:
    """What testing found: instances that matched, graphs, the greatest error, a counterexample or an error."""

    instances: int = 0
    graphs: int = 0
    ulp: int = 0
    problem: str = ""
    refutation: str = ""
    dtypes: set[str] = field(default_factory=set)


class RandomLeaves:
    """Leaves of one random instance; `arrays` has the values of the buffers, ranges and variables used."""

    def __init__(
        self, chance: random.Random, lanes: int, dyadic: bool, plain: bool = False, structured: bool = False
    ) -> None:
        self.chance, self.lanes, self.dyadic, self.plain = chance, lanes, dyadic, plain
        self.structured = structured
        self.arrays: dict[UOp, Array] = {}

    def buffer(self, dtype: DType) -> UOp:
        """A leaf of which only the dtype is known."""
        node = UOp(ops.BUFFER, dtype, (), (len(self.arrays), (), "D"))
        others = [array for leaf, array in self.arrays.items() if leaf.dtype is dtype]
        self.arrays[node] = random_values(dtype, self.lanes, self.chance, self.dyadic, others)
        return node

    def variable(self, name: str, dtype: DType) -> UOp:
        """A leaf, or a small expression with tighter bounds."""
        if dtype.kind == "index":
            return self.index()
        node = self.buffer(dtype)
        if self.plain or dtype.is_float:
            return node
        if dtype.kind == "bool":
            if self.chance.random() < 0.1:
                return UOp.const(dtype, self.chance.random() < 0.5)
            return node
        return self._tighter(node, dtype)

    def _tighter(self, node: UOp, dtype: DType) -> UOp:
        if self.structured and self.chance.random() < 0.5:
            other = self.buffer(dtype)
            return self.chance.choice(
                [node * 4 + other, node * 4, node * 6, node * 4 + 1, node // 4, node % 6, node + 1]
            )
        choice = self.chance.randrange(10)
        if choice < 4:
            return node
        if choice == 4:
            return UOp.const(dtype, self.chance.choice(edge_values(dtype)))
        if choice < 7:
            low = self.chance.choice([0, 1, 2, -1, -8, 5])
            low = low if low >= int(dtype.min) else 0
            clamped = UOp(ops.MAX, dtype, (node, UOp.const(dtype, low)))
            if choice == 5:
                return clamped
            return UOp(
                ops.MIN, dtype, (clamped, UOp.const(dtype, low + self.chance.choice([0, 1, 3, 7, 40])))
            )
        mask = UOp.const(dtype, self.chance.choice([1, 3, 7, 15]))
        least = UOp.const(dtype, self.chance.choice([0, 1, 8, 100]))
        return UOp(ops.ADD, dtype, (UOp(ops.AND, dtype, (node, mask)), least))

    def loop(self, identity: int, bound: int) -> UOp:
        """A RANGE and its values."""
        node = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (identity, "loop"))
        generator = np.random.default_rng(self.chance.getrandbits(32))
        self.arrays.setdefault(node, generator.integers(0, bound, self.lanes))
        return node

    def symbolic(self) -> UOp:
        """A VARIABLE, or a RANGE over one."""
        size = UOp.variable("n", 1, 9)
        generator = np.random.default_rng(self.chance.getrandbits(32))
        sizes = self.arrays.setdefault(size, generator.integers(1, 10, self.lanes))
        if self.chance.random() < 0.5:
            return size
        node = UOp(ops.RANGE, dtypes.index, (size,), (9, "loop"))
        self.arrays.setdefault(node, generator.integers(0, 1 << 30, self.lanes) % sizes)
        return node

    def index(self) -> UOp:
        """Sums, quotients and remainders of loops; now and then a constant, a size or an unknown number."""
        draw = self.chance.random()
        if draw < 0.25:
            return self.constant("", dtypes.index)
        if draw < 0.32:
            return self.symbolic()
        if draw < 0.45 or self.plain:
            return self.buffer(dtypes.index)
        i, j, k = self.loop(0, 48), self.loop(1, 4), self.loop(2, 3)
        n = self.loop(3, self.chance.choice([2, 6]))
        return self.chance.choice(
            [i, j, k, n, i * 4 + j, i * 3 + k, j * 6 + k * 2, k * -4 + 8, i * 12 + j * 3 + k, j * k + 1, k + 1,
             i - 30, i // 2, i % 6, i // 4 % 3, (i * 4 + j) // 6 % 2, (i - 9) // 5, i * 6, j * 4, j * self.symbolic()]
        )  # fmt: skip

    def constant(self, name: str, dtype: DType) -> UOp:
        """A constant from the edges, or any number."""
        if dtype.kind == "index":
            return UOp.const(dtype, self.chance.choice([0, 1, 2, 3, 4, 6, 8, 12, 24, -1, -2, -6, 5, 7, 48]))
        if dtype.is_float and self.dyadic:
            return UOp.const(dtype, self.chance.choice(DYADIC))
        if self.chance.random() < 0.2 and dtype.kind in ("int", "uint"):
            return UOp.const(dtype, self.chance.randint(int(dtype.min), int(dtype.max)))
        return UOp.const(dtype, self.chance.choice(edge_values(dtype)))


# --- testing ------------------------------------------------------------------------------------------------


def rewritten(table: Table, before: UOp, context: Any) -> UOp | None:
    """The result of the rule alone at the root; None when it does not match."""
    for function in table.get(before.op, ()):
        after = function(before, context)
        if after is not None:
            return after  # type: ignore[no-any-return]
    return None


def try_instance(
    unit: Unit, table: Table, before: UOp, arrays: Mapping[UOp, Array], context: Any, found: Tested
) -> bool:
    """Apply the rule to one graph and compare; whether it matched."""
    try:
        after = rewritten(table, before, context)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        found.problem = f"the rule raises {type(error).__name__}: {error}"
        found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
        return True
    if after is None:
        return False
    if after.dtype is not before.dtype or after.shape != before.shape:
        found.problem = (
            f"the result is {after.dtype.name}{list(after.shape)}, "
            f"not {before.dtype.name}{list(before.shape)}"
        )
        found.refutation = instance(before, after, f"{unit.name} at {unit.where}\n{found.problem}")
        return True
    if wrong := malformed(before, after):
        found.problem = f"the result has no meaning: {wrong}"
        found.refutation = instance(before, after, f"{unit.name} at {unit.where}\n{found.problem}")
        return True
    used = {node for root in (before, after) for node in root.toposort()}
    leaves = {node: array for node, array in arrays.items() if node in used}
    try:
        verdict = judge(unit, before, after, leaves)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        wide = "a number of dtype index that 64 bits do not hold"
        what = wide if isinstance(error, OverflowError) else f"{type(error).__name__}: {error}"
        found.problem = f"the result has no meaning: {what}"
        found.refutation = instance(before, after, f"{unit.name} at {unit.where}\n{found.problem}")
        return True
    found.instances += verdict.count
    found.graphs += 1
    found.ulp = max(found.ulp, verdict.ulp)
    if verdict.wrong is not None:
        found.problem = "the sides differ"
        shape = np.broadcast_shapes(*[np.shape(array) for array in leaves.values()])
        single = {
            node: np.broadcast_to(np.asarray(array), shape).reshape(-1)[verdict.wrong]
            for node, array in leaves.items()
        }
        found.refutation = counterexample(before, after, single, f"rule {unit.name} at {unit.where}")
    return True


def sample(
    unit: Unit,
    table: Table,
    cases: list[Typed],
    wanted: int,
    lanes: int = LANES,
    *,
    seed: int = 0,
    attempts: int = 0,
) -> Tested:
    """Random instances of the typed cases in turn, until `wanted` of them matched; stops at the first wrong one."""
    found = Tested()
    if not cases:
        return found
    chance = random.Random(f"{unit.identity} {seed}")
    order = list(cases)
    chance.shuffle(order)
    places = contexts(unit)
    dyadic = bool(unit.notes.flags & {"reassoc", "contract", "arcp"})
    least = len(order)
    for attempt in range(attempts or max(3 * least, 3 * min(wanted, 1000))):
        if found.instances >= wanted and attempt >= least:
            break
        typed = order[attempt % least]
        leaves = RandomLeaves(chance, lanes, dyadic, plain=attempt % 3 == 0, structured=bool(unit.natives))
        try:
            before = typed.build(leaves)
        except Impossible:
            continue
        if try_instance(unit, table, before, leaves.arrays, places[attempt % len(places)], found):
            found.dtypes.add(str(typed))
        if found.problem:
            break
    return found


class GivenLeaves:
    """Leaves that take every value of their dtypes, in all combinations; constants that are given."""

    def __init__(self, given: Mapping[str, Scalar], shape: Shape = ()) -> None:
        self.given, self.shape = given, shape
        self.nodes: list[UOp] = []

    def variable(self, name: str, dtype: DType) -> UOp:
        """A leaf."""
        self.nodes.append(UOp(ops.BUFFER, dtype, (), (len(self.nodes), self.shape, "D")))
        return self.nodes[-1]

    def constant(self, name: str, dtype: DType) -> UOp:
        """The given constant."""
        return UOp.const(dtype, self.given[name])

    def arrays(self) -> dict[UOp, Array]:
        """All combinations of values."""
        axes = [all_values(node.dtype) for node in self.nodes]
        grids = np.meshgrid(*[np.arange(len(axis)) for axis in axes], indexing="ij") if axes else []
        return {
            node: axis[grid.reshape(-1)] for node, axis, grid in zip(self.nodes, axes, grids, strict=True)
        }


def all_values(dtype: DType) -> Array:
    """Every value of a dtype of at most 16 bits."""
    if dtype.kind == "bool":
        return np.array([False, True])
    return np.arange(1 << dtype.bits).astype(f"uint{dtype.bits}").view(dtype.numpy)


def exhaust_in_pieces(unit: Unit, table: Table, typed: Typed, found: Tested) -> None:
    """Every value of up to 24 bits of leaves: the first leaf is a constant array at a time."""
    leaves = GivenLeaves({})
    try:
        before = typed.build(leaves)
    except Impossible:
        return
    first, rest = leaves.nodes[0], GivenLeaves({})
    rest.nodes = leaves.nodes[1:]
    arrays = rest.arrays()
    for value in all_values(first.dtype):
        for context in contexts(unit):
            try_instance(unit, table, before, {first: np.asarray(value), **arrays}, context, found)
        if found.problem or not found.graphs:
            return


def exhaust(unit: Unit, table: Table, typed: Typed, constants: Mapping[str, DType], found: Tested) -> bool:
    """Every value of every leaf and constant; False when a graph with plain leaves never matches."""
    lists = [list(_every_constant(dtype)) for dtype in constants.values()]
    matched = False
    for chosen in itertools.product(*lists):
        leaves = GivenLeaves(dict(zip(constants, chosen, strict=True)))
        try:
            before = typed.build(leaves)
        except Impossible:
            return False
        arrays = leaves.arrays()
        for context in contexts(unit):
            matched |= try_instance(unit, table, before, arrays, context, found)
            if found.problem:
                return True
    return matched


def _every_constant(dtype: DType) -> Iterator[Scalar]:
    patterns: Callable[[int], Scalar] = dtype.from_bits
    if dtype.kind == "int":
        return (patterns(v) for v in range(int(dtype.min), int(dtype.max) + 1))
    return (patterns(v) for v in range(2 if dtype.kind == "bool" else 1 << dtype.bits))

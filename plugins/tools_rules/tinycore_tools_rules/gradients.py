"""Gradient rules: every cotangent agrees with central differences in float64, computed by the interpreter.

Where the root is elementwise, every element is an instance; else every graph is one, in a random direction.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.interpret import interpret
from tinycore.ir import Shape, UOp, dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops
from tinycore.rules.matcher import Matcher, Pool
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.paste import counterexample, instance
from tinycore_tools_rules.sample import Tested
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.tensors import NO_MEANING, Maker
from tinycore_tools_rules.typed import Impossible, single_cases

Array = NDArray[Any]
WANTED, ATTEMPTS = 1000, 6000
STEP, TOLERANCE = 1e-5, 2e-6
COARSE_STEP, COARSE_TOLERANCE = 1e-2, 5e-3
"""For graphs with narrower floats, whose rounding drowns small differences."""
_POSITIVE = frozenset({ops.SQRT, ops.LOG, ops.LOG2, ops.POW, ops.DIV})
_STEPS = frozenset({ops.DETACH, ops.FLOOR, ops.TRUNC, ops.ROUND})
"""Ops whose gradient is none by convention."""


class GradientMaker(Maker):
    """Instances in float64, with values away from kinks."""

    def dtype(self, local: str) -> DType:
        """float64 where that is possible."""
        term = self.matcher.facts.find(local)
        if term not in self.dtypes:
            possible = self.matcher.facts.possible(term) - {dtypes.void}
            if dtypes.float64 in possible:
                cast = local == "n" and self.case.root == "CAST"
                choices = [dtypes.float64, dtypes.float32, dtypes.int32] if cast else [dtypes.float64]
                if local == "n_0" and self.case.root == "CAST":
                    # A gradient for an integer would be a mistake.
                    choices = [dtypes.float64, dtypes.int32]
                self.dtypes[term] = self.chance.choice([dtype for dtype in choices if dtype in possible])
        return super().dtype(local)

    def leaf(self, dtype: DType, shape: Shape | None, tensor: bool, constant: bool) -> UOp:
        """Always a buffer."""
        elementwise = self.case.pattern.ops and shape is None and self.chance.random() < 0.8
        return self.stored(dtype, (64,) if elementwise and self.elementwise else shape or self.shape())

    @property
    def elementwise(self) -> bool:
        """Whether the root is elementwise."""
        from tinycore.ir.ops import TABLE

        return TABLE[self.case.root].elementwise

    def shape(self) -> Shape:
        """A small shape."""
        return tuple([self.chance.choice([1, 2, 3, 4]) for _ in range(self.chance.choice([1, 2, 2, 3]))])

    def stored(self, dtype: DType, shape: Shape) -> UOp:
        """Random elements; now and then a zero where products are reduced."""
        node = super().stored(dtype, shape)
        if dtype.is_float:
            generator = np.random.default_rng(self.chance.getrandbits(32))
            array = generator.normal(size=self.arrays[node].shape)
            if any(op in _POSITIVE for op in [self.root_op]):
                array = np.abs(array) + 0.5
                if self.root_op is ops.POW:
                    array = self._power(array, first=len(self.arrays) == 1)
            elif self.reducing and array.size and self.chance.random() < 0.4:
                array.reshape(-1)[generator.integers(0, array.size, self.chance.choice([1, 2]))] = 0
            self.arrays[node] = array.astype(dtype.numpy)
        return node

    def _power(self, array: Array, first: bool) -> Array:
        """Bases and exponents with zeros at the same places: 0 to a whole power, and x to the 0."""
        flat = array.reshape(-1)
        flat[0::4], flat[1::4] = (0.0, flat[1::4]) if first else (2.0 + (np.arange(flat[0::4].size) % 2), 0.0)
        flat[2::8], flat[3::8] = (0.0, flat[3::8]) if first else (0.0, -1.0)
        return array

    @property
    def root_op(self) -> Any:
        """The op at the root."""
        from tinycore.ir.ops import TABLE

        return TABLE[self.case.root]


def verify_gradient(unit: Unit, wanted: int = WANTED) -> Tested:
    """Random instances of a ``vjp`` rule against central differences."""
    found = Tested()
    chance = random.Random(unit.identity)
    table = unit.table()
    singles = list(single_cases(unit))
    matchers = [Matcher(unit.source.file, case, Pool(), False) for case in singles]
    for attempt in range(ATTEMPTS):
        if found.instances >= wanted or found.problem:
            break
        which = attempt % len(singles)
        maker = GradientMaker(chance, singles[which], matchers[which], "normal")
        try:
            before = maker.build()
        except Impossible:
            continue
        _try(unit, table, before, maker, found)
    return found


def _try(unit: Unit, table: Any, before: UOp, maker: GradientMaker, found: Tested) -> None:
    g = UOp(ops.BUFFER, before.dtype, (), (9999, before.shape, "D"))
    slots: Any = None
    try:
        for function in table.get(before.op, ()):
            slots = function(before, (g, SimpleNamespace(target=contexts(unit)[0].target)))
            if slots is not None:
                break
    except Exception as error:  # noqa: BLE001  whatever a rule raises is a finding, and is shown
        found.problem = f"the rule raises {type(error).__name__}: {error}"
        found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
        return
    if slots is None:
        return
    if len(slots) != len(before.src):
        found.problem = f"{len(slots)} gradients for {len(before.src)} operands"
        found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
        return
    for operand, slot in zip(before.src, slots, strict=True):
        if slot is not None and not operand.dtype.is_float:
            found.problem = f"a gradient for an operand of {operand.dtype.name}"
            found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
            return
        if slot is not None and (slot.dtype is not operand.dtype or slot.shape != operand.shape):
            found.problem = (
                f"a gradient is {slot.dtype.name}{list(slot.shape)}, "
                f"the operand {operand.dtype.name}{list(operand.shape)}"
            )
            found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")
            return
    try:
        _compare(unit, before, g, slots, maker, found)
    except NO_MEANING as error:
        found.problem = f"a gradient has no meaning: {type(error).__name__}: {error}".splitlines()[0]
        found.refutation = instance(before, None, f"{unit.name} at {unit.where}\n{found.problem}")


def _compare(unit: Unit, before: UOp, g: UOp, slots: Any, maker: GradientMaker, found: Tested) -> None:
    generator = np.random.default_rng(maker.chance.getrandbits(32))
    arrays = dict(maker.arrays)
    shape = np.shape(interpret([before], arrays, maker.bindings)[0])
    arrays[g] = generator.normal(size=shape).astype(g.dtype.numpy)
    leaves = [leaf for leaf in maker.arrays if leaf.dtype.is_float and leaf in before.src]
    coarse = any(node.dtype.is_float and node.dtype.itemsize < 8 for node in before.toposort())
    step, tolerance = (COARSE_STEP, COARSE_TOLERANCE) if coarse else (STEP, TOLERANCE)
    for leaf in leaves:
        mine = [
            slot
            for operand, slot in zip(before.src, slots, strict=True)
            if operand is leaf and slot is not None
        ]
        if not mine and before.op in _STEPS:
            continue
        direction = generator.normal(size=arrays[leaf].shape)
        ends = [
            interpret([before], {**arrays, leaf: (arrays[leaf] + sign * step * direction).astype(leaf.dtype.numpy)},
                      maker.bindings)[0].astype(np.float64)
            for sign in (1, -1)
        ]  # fmt: skip
        wanted = arrays[g] * (ends[0] - ends[1]) / (2 * step)
        answers = interpret(mine, arrays, maker.bindings)
        answer = sum((part.astype(np.float64) for part in answers), np.zeros(arrays[leaf].shape)) * direction
        if not (before.op.elementwise and wanted.shape == answer.shape):
            wanted, answer = np.asarray(wanted.sum()), np.asarray(answer.sum())
        close = np.abs(wanted - answer) <= tolerance * (1 + np.abs(wanted) + np.abs(answer))
        close = close | ~np.isfinite(wanted)  # there is no derivative
        if not close.all():
            found.problem = "a gradient differs from the central difference"
            found.refutation = counterexample(
                before,
                mine[0] if mine else before,
                arrays,
                f"vjp rule at {unit.where}: what is differentiated, and the gradient",
                maker.bindings,
            )
            return
    if leaves:
        found.instances += int(np.prod(shape)) if before.op.elementwise else 1
        found.graphs += 1
        found.dtypes.add(before.dtype.name)
    elif all(slot is None for slot in slots):
        found.instances += 1
        found.dtypes.add(before.dtype.name)

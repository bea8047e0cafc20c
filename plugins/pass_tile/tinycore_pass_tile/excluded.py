"""What a condition excludes for all rows of a block need not be computed: the keys behind a causal mask.

Where ``step <= row + offset`` does not hold, what a kernel keeps is 0, whatever the steps before it left there. So
sums of it end early, and so do the loops that compute it. As everywhere where a mask leaves terms out, 0 times
infinity does not arise then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinycore.codegen.affine import affine
from tinycore.codegen.shorten import Shorten
from tinycore.ir import UOp, ops
from tinycore.ir.monoids import identity
from tinycore_pass_tile.analysis import number


@dataclass
class _Search:
    """One try to show that a kept value is 0 for some steps.

    Attributes
    ----------
    rows: the loop over rows.
    step: the range whose later iterations are excluded.
    zero: the kept value that is known to be 0 there, once it is.
    offsets: of the conditions that were made use of.
    """

    rows: UOp
    step: UOp
    zero: UOp | None = None
    offsets: list[int] = field(default_factory=list)

    def value(self, node: UOp) -> float | None:
        """What a node is where the conditions do not hold; None where that is not known."""
        if node.op is ops.CONST:
            return float(node.value) if node.dtype.is_float else None
        if node.op is ops.LOAD and self.zero is not None and node.src[0] is self.zero:
            return 0.0 if _walks(node.src[1], self.step) else None
        if node.op is ops.WHERE:
            offset = _offset(node.src[0], self.step, self.rows)
            if offset is not None:
                self.offsets.append(offset)
                return self.value(node.src[2])
            yes, no = self.value(node.src[1]), self.value(node.src[2])
            return yes if yes == no and _is_certain(node.src[0]) else None
        known = [self.value(operand) for operand in node.src] if node.op in _RULES else []
        certain = [k is not None or _is_certain(operand) for k, operand in zip(known, node.src, strict=False)]
        return _RULES[node.op](known) if known and all(certain) else None


def _minus_infinity(known: Sequence[float | None]) -> float | None:
    return -math.inf if known[0] == -math.inf else None


def _either(known: Sequence[float | None]) -> float | None:
    return -math.inf if -math.inf in known else None


def _product(known: Sequence[float | None]) -> float | None:
    if 0.0 in known:
        return 0.0
    positive = [each for each in known if each is not None and 0 < each < math.inf]
    return -math.inf if -math.inf in known and positive else None


def _power(known: Sequence[float | None]) -> float | None:
    return 0.0 if known[0] == -math.inf else None


_RULES = {
    ops.ADD: _either,
    ops.SUB: _minus_infinity,
    ops.MUL: _product,
    ops.EXP: _power,
    ops.EXP2: _power,
}


def _is_certain(node: UOp) -> bool:
    """Whether a value reads no kept one but through a reduction: the others may not have been computed."""
    if node.op is ops.REDUCE:
        return True
    if node.op is ops.LOAD and node.src[0].op is ops.AFTER:
        return False
    return all(map(_is_certain, node.src))


def _walks(index: UOp, step: UOp) -> bool:
    return affine(index).terms == ((step, 1),) and affine(index).constant == 0


def _offset(condition: UOp, step: UOp, rows: UOp) -> int | None:
    """The offset of a condition that says ``step <= row + offset``."""
    if condition.op not in (ops.LE, ops.LT):
        return None
    left, right = (_sum(operand) for operand in condition.src)
    if left is None or right is None or left[0] is not step or right[0] is not rows:
        return None
    return right[1] - left[1] - (condition.op is ops.LT)


def _sum(node: UOp) -> tuple[UOp, int] | None:
    """(range, constant) of their sum, in any integer type that holds it."""
    constant = 0
    while node.op is not ops.RANGE:
        if node.op is ops.ADD and node.src[1].is_const:
            constant += int(node.src[1].value)
        elif node.op is not ops.CAST or not node.dtype.is_int or node.dtype.itemsize < 4:
            return None
        node = node.src[0]
    return (node, constant) if node.src[0].vmax < 1 << 30 else None


def excluded_steps(kernel: UOp, kept: Sequence[UOp], rows: UOp) -> Shorten | None:
    """The action for a kernel with kept values whose loops are not split yet; None where nothing is excluded."""
    for zero in reversed(kept):
        ends = [statement for statement in zero.src[1:] if statement.op is ops.END]
        if len(zero.src) != 2 or not ends or len(ends[0].src) != 2 or rows not in zero.ranges:
            continue
        store, step = ends[0].src
        search = _Search(rows, step)
        if _walks(store.src[1], step) and search.value(store.src[2]) == 0.0:
            found = _consumers(kernel, zero, store, search)
            return found if found is None or found.offset >= 0 else None
    return None


def _consumers(kernel: UOp, zero: UOp, store: UOp, search: _Search) -> Shorten | None:
    """Every use of the value, and of what it is computed from step by step; None where one needs all steps."""
    known = _of_one_step(store.src[2], search.step)
    read = {load.src[0] for load in known}
    if not all(
        len(each.src) == 2 and each.src[1].op is ops.END and len(each.src[1].src) == 2 for each in read
    ):
        return None
    readers: list[int] = []
    others = [number(each.src[1].src[1]) for each in read]
    order = kernel.toposort()
    for node in order:
        if node.op is not ops.REDUCE or len(node.src) != 2:
            continue
        loads = [load for load in _of_one_step(node.src[0], node.src[1]) if load.src[0] in {*read, zero}]
        inner = _Search(search.rows, node.src[1], zero)
        if loads and inner.value(node.src[0]) == float(identity(node.arg[0], node.dtype)):
            known += loads
            search.offsets += inner.offsets
            (readers if zero in {load.src[0] for load in loads} else others).append(number(node.src[1]))
    uses = {node for node in order if node.op is ops.LOAD and node.src[0] in {*read, zero}}
    if not readers or not uses <= set(known):
        return None
    return Shorten(
        number(search.rows), number(search.step), tuple(readers), tuple(others), max(search.offsets)
    )


def _of_one_step(value: UOp, step: UOp) -> list[UOp]:
    """The loads of this step of kept values that a value is computed from, not through a reduction."""
    found: list[UOp] = []
    stack, seen = [value], set()
    while stack:
        node = stack.pop()
        if node in seen or node.op is ops.REDUCE:
            continue
        seen.add(node)
        if node.op is ops.LOAD and node.src[0].op is ops.AFTER:
            found += [node] if _walks(node.src[1], step) else []
        else:
            stack.extend(node.src)
    return found

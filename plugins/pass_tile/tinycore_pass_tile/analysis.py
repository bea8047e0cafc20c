"""What a kernel does to memory: its accesses as sums of ranges, and which ranges belong where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinycore.codegen.affine import Affine, affine
from tinycore.ir import UOp, ops, toposort
from tinycore.ir.statements import joint_statements

DYNAMIC = 1 << 10
"""What a bound that is not a constant is taken for."""
_CHUNK_SIZES = 64
"""How many sizes of chunks are compared."""
_STEPS = 1 << 10
"""How far a divisor is looked for: compiling must not take longer for larger tensors."""


def bound(node: UOp) -> int:
    """Iterations of a range; the largest number where it is symbolic."""
    return int(node.src[0].arg[0]) if node.src[0].is_const else node.src[0].vmax


def is_static(node: UOp) -> bool:
    """Whether the number of iterations is a constant."""
    return node.src[0].is_const


def number(node: UOp) -> int:
    """The id of a range."""
    return int(node.arg[0])


@dataclass(frozen=True)
class Access:
    """One LOAD or STORE.

    Attributes
    ----------
    node: the LOAD or STORE.
    form: its address as a sum.
    inside: the reduction that it is repeated by, or None.
    """

    node: UOp
    form: Affine
    inside: UOp | None

    def stride(self, of: UOp) -> int | None:
        """By how many elements the address moves with a range; None where that is not constant."""
        if not self.form.depends_only_linearly(of):
            return None
        return self.form.factor(of)


@dataclass(frozen=True)
class Nest:
    """One STORE with its loops, or several that share them.

    Attributes
    ----------
    store: the statement.
    loops: its free ranges that may be tiled, outermost first.
    ordered: its ranges whose order matters.
    reductions: every REDUCE below it, with the ranges that it consumes.
    accesses: every LOAD, and the STOREs first.
    others: further statements in the same loops.
    """

    store: UOp
    loops: tuple[UOp, ...]
    ordered: tuple[UOp, ...]
    reductions: tuple[tuple[UOp, tuple[UOp, ...]], ...]
    accesses: tuple[Access, ...]
    others: tuple[UOp, ...] = ()

    @property
    def nodes(self) -> list[UOp]:
        """Everything that the statements are made of."""
        return toposort((self.store, *self.others))

    def within(self, reduction: UOp) -> list[Access]:
        """The accesses that a reduction repeats."""
        return [access for access in self.accesses if access.inside is reduction]

    @property
    def work(self) -> int:
        """Iterations of everything."""
        total = 1
        for node in (*self.loops, *self.ordered):
            total *= bound(node)
        inner = 1
        for _, ranges in self.reductions:
            count = 1
            for node in ranges:
                count *= bound(node)
            inner = max(inner, count)
        return total * inner


def nests_of(kernel: UOp) -> list[Nest]:
    """The nests of a kernel in order; joint STOREs are one."""
    return [nest_of(*statements) for statements in joint_statements(kernel)]


def nest_of(store: UOp, *others: UOp) -> Nest:
    """The loops and accesses of one STORE, or of several with the same loops."""
    free = sorted(store.ranges, key=number)
    reductions: list[tuple[UOp, tuple[UOp, ...]]] = []
    accesses = [Access(node, affine(node.src[1]), None) for node in (store, *others)]
    inside: dict[UOp, UOp | None] = dict.fromkeys((store, *others))
    order = toposort((store, *others))
    for node in reversed(order):
        if node not in inside:
            continue
        here = inside[node]
        if node.op is ops.REDUCE:
            reductions.append((node, tuple([r for r in node.src[1:] if r.op is ops.RANGE])))
            here = node
        for operand in node.src:
            inside[operand] = here
        if node.op is ops.LOAD:
            accesses.append(Access(node, affine(node.src[1]), inside[node]))
    return Nest(
        store,
        tuple([r for r in free if r.arg[1] == "loop"]),
        tuple([r for r in free if r.arg[1] == "ordered"]),
        tuple(reversed(reductions)),
        tuple(accesses),
        others,
    )


def separate_rows(nest: Nest) -> bool:
    """Whether iterations of the loops around `ordered` ranges never see what other ones wrote: a running sum of
    each row, but not what is scattered to places that data say."""
    written = nest.accesses[0]
    strides = [written.stride(loop) for loop in nest.loops]
    if None in strides or 0 in strides or any(written.stride(each) is None for each in nest.ordered):
        return False
    same = [a for a in nest.accesses if a.node.src[0] is written.node.src[0]]
    return all([access.stride(loop) for loop in nest.loops] == strides for access in same)


def mergeable(nest: Nest, outer: UOp, inner: UOp) -> bool:
    """Whether two neighbouring ranges only ever occur as ``outer * bound(inner) + inner`` in addresses."""
    if not is_static(inner) or not is_static(outer):
        return False
    size = bound(inner)
    for access in nest.accesses:
        a, b = access.stride(outer), access.stride(inner)
        if a is None or b is None or a != b * size:
            return False
    return not any(
        _used_outside_addresses(store, each)
        for store in (nest.store, *nest.others)
        for each in (outer, inner)
    )


def _used_outside_addresses(store: UOp, wanted: UOp) -> bool:
    stack: list[UOp] = [store.src[2], store.src[3]]
    seen: set[UOp] = set()
    while stack:
        node = stack.pop()
        if node is wanted:
            return True
        if node in seen or not node.mask & ops.RANGE.bit:
            continue
        seen.add(node)
        if node.op is ops.LOAD:
            stack.append(node.src[2])
            if node.src[0].op is ops.AFTER:
                stack.extend(node.src[0].src[1:])
        elif node.op is ops.STORE:
            stack += node.src[2:]
        elif node.op is ops.END:
            stack.append(node.src[0])
        elif node.op is ops.REDUCE:
            stack.append(node.src[0])
            stack.extend(r.src[0] for r in node.src[1:])
        else:
            stack.extend(node.src)
    return False


def largest_itemsize(nest: Nest) -> int:
    """Bytes of the widest element that the kernel loads, stores or computes with."""
    sizes = [
        node.dtype.itemsize for node in nest.nodes if node.op.elementwise or node.op in (ops.LOAD, ops.REDUCE)
    ]
    return max([*sizes, *[store.src[2].dtype.itemsize for store in (nest.store, *nest.others)], 1])


def divisor_near(total: int, wanted: int, multiple: int) -> int:
    """A multiple of `multiple` near `wanted`, one that divides `total` if there is one within a factor of 2.

    >>> divisor_near(1000, 130, 8), divisor_near(127, 32, 8)
    (200, 32)
    """
    rounded = max(multiple, -(-wanted // multiple) * multiple)
    for distance in range(min(rounded // multiple, _STEPS) + 1):
        for size in (rounded - distance * multiple, rounded + distance * multiple):
            if size >= multiple and 2 * size >= wanted and total % size == 0:
                return size
    return rounded


def balanced(total: int, wanted: int, step: int, threads: int) -> int:
    """A multiple of `step` near `wanted` in which chunks keep all threads busy to the end.

    >>> balanced(4097, 512, 16, 2), balanced(1000, 112, 16, 2), balanced(4095, 511, 1, 2)
    (512, 128, 512)
    """

    def longest(size: int) -> tuple[int, int]:
        whole, rest = divmod(total, size)
        share = -(-whole // threads) * size + (rest if whole % threads == 0 else 0)
        return share, abs(size - wanted)

    wide = max(step, wanted // _CHUNK_SIZES // step * step)
    sizes = [wanted, wanted + step]
    sizes += range(max(step, wanted // 2 // step * step), wanted + wanted // 2 + 1, wide)
    return min(sizes, key=longest)


def loops_of(nests: Sequence[Nest]) -> list[UOp]:
    """All tileable ranges of several stores, outermost first, each once."""
    return sorted({r for nest in nests for r in nest.loops}, key=number)

"""Tiling decisions as data: a list of actions that can be printed, replayed, searched and cached.

An action names ranges by their ids in the kernel that it is applied to; new ranges get the ids that the
action says. `apply` answers the tiled kernel, with the actions kept as the `info` of its SINK.

>>> print(Split(0, 16, outer=7, inner=8, tail="peel"))
split r0 by 16 -> r7, r8 (peel)

What becomes of a rest that `size` does not divide is said by `tail`:

- ``bound``: the inner range ends early, its bound is ``min(size, N - outer * size)``;
- ``overlap``: the last tile begins earlier, so that it is whole, too: some iterations run twice, with the same results;
- ``peel``: the whole tiles, then a second body for the rest, its inner range as long as the rest;
- ``peel mask``: a second body of full size in which what lies outside is masked;
- ``mask``: one body, masked everywhere.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tinycore.codegen.carry import Carry, carry
from tinycore.codegen.distribute import Distribute, distribute
from tinycore.codegen.dots import Offset, as_dots, offset
from tinycore.codegen.keep import Keep, keep
from tinycore.codegen.nest import TRUE
from tinycore.codegen.shorten import Shorten, shorten
from tinycore.codegen.skew import Align, Skew, aligned_parts, neighbours, skew
from tinycore.codegen.staging import (
    GroupReduce,
    Stage,
    StageInThread,
    check_kept,
    group_reduce,
    stage,
    stage_in_thread,
)
from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops, toposort
from tinycore.ir.monoids import identity

Tail = Literal["bound", "overlap", "peel", "peel mask", "mask"]
ZERO = UOp.const(dtypes.index, 0)


@dataclass(frozen=True, slots=True)
class Split:
    """``range = outer * size + inner``; a `peel` tail gets the range `rest` (and its own copies of nothing else)."""

    range: int
    size: int
    outer: int
    inner: int
    tail: Tail = "mask"
    rest: int = -1

    def __str__(self) -> str:
        return f"split r{self.range} by {self.size} -> r{self.outer}, r{self.inner} ({self.tail})"


@dataclass(frozen=True, slots=True)
class Bind:
    """Say what a range is bound to: loop, global, local, vector, unroll, group."""

    range: int
    kind: str

    def __str__(self) -> str:
        return f"bind r{self.range} to {self.kind}"


@dataclass(frozen=True, slots=True)
class Merge:
    """Two neighbouring ranges become one: ``merged = outer * bound(inner) + inner``, where all addresses allow it."""

    outer: int
    inner: int
    merged: int

    def __str__(self) -> str:
        return f"merge r{self.outer}, r{self.inner} -> r{self.merged}"


@dataclass(frozen=True, slots=True)
class Order:
    """Nest these ranges in this order, outermost first; the others stay inside, in their order."""

    ranges: tuple[int, ...]

    def __str__(self) -> str:
        return "order " + ", ".join(f"r{number}" for number in self.ranges)


@dataclass(frozen=True, slots=True)
class Flatten:
    """Two ranges become one by division and remainder, whatever the addresses (a grid has three dimensions)."""

    outer: int
    inner: int
    merged: int

    def __str__(self) -> str:
        return f"flatten r{self.outer}, r{self.inner} -> r{self.merged}"


@dataclass(frozen=True, slots=True)
class Stream:
    """The results are not read again soon: where the target can, they are stored past the caches."""

    def __str__(self) -> str:
        return "stream results"


@dataclass(frozen=True, slots=True)
class Prefetch:
    """What a load will read `steps` iterations of a loop later is asked for in time, where the target can.

    `loop` counts the loops that move the load's address from the inside, 0 the innermost.
    """

    loop: int
    steps: int

    def __str__(self) -> str:
        return f"prefetch {self.steps} steps of loop {self.loop} ahead"


Action = (
    Stream
    | Prefetch
    | Split
    | Align
    | Skew
    | Bind
    | Merge
    | Order
    | Flatten
    | GroupReduce
    | Stage
    | StageInThread
    | Carry
    | Keep
    | Distribute
    | Offset
    | Shorten
)


def apply(kernel: UOp, actions: Sequence[Action]) -> UOp:
    """The kernel with the actions carried out in order.

    A range that an earlier action declared but did not need (one iteration, no rest) has gone, and actions on
    it do nothing. Raises CompileError for an action on a range that never was, and for actions that cannot
    go together.
    """
    declared: set[int] = set()
    for action in actions:
        if isinstance(action, Split):
            declared |= {action.outer, action.inner, action.rest}
        elif isinstance(action, Align):
            declared |= {action.head, action.rest}
        if (
            isinstance(action, Split | Align | Bind)
            and action.range in declared
            and action.range not in ranges_of(kernel)
        ):
            continue
        if isinstance(action, Shorten):
            kernel = shorten(kernel, action, [each for each in actions if isinstance(each, Split)])
            continue
        kernel = _APPLY[type(action)](kernel, action)
    if kernel.mask & ops.SCRATCH.bit:
        check_kept(kernel)
    return kernel.replace(arg=(*(kernel.arg or ()), *actions))


@functools.lru_cache(maxsize=8)
def ranges_of(kernel: UOp) -> Mapping[int, UOp]:
    """Every RANGE of a kernel by its id. Actions and what chooses them ask for the same kernel several times."""
    found: dict[int, UOp] = {}
    for node in kernel.toposort():
        if node.op is ops.RANGE:
            found[int(node.arg[0])] = node
    return found


def _range(kernel: UOp, number: int) -> UOp:
    try:
        return ranges_of(kernel)[number]
    except KeyError:
        raise CompileError(f"the kernel has no range r{number}") from None


def _make(number: int, bound: UOp | int, kind: str) -> UOp:
    bound = bound if isinstance(bound, UOp) else UOp.const(dtypes.index, bound)
    if bound.vmin == bound.vmax == 1:
        return ZERO
    return UOp(ops.RANGE, dtypes.index, (bound,), (number, kind))


# --- rebuilding -------------------------------------------------------------------------------------------


def _rebuild(
    roots: Iterable[UOp],
    old: UOp,
    new: UOp,
    parts: Sequence[UOp],
    valid: UOp | None,
    known: Mapping[UOp, UOp] | None = None,
) -> dict[UOp, UOp]:
    """Every node below the roots with a range exchanged, and what is `known` of nodes over it.

    `parts` are the ranges that a REDUCE over `old` consumes instead. Under `valid`, loads and stores that
    depended on the range are guarded, and a reduction over it ignores what lies outside.
    """
    memo: dict[UOp, UOp] = {old: new, **(known or {})}
    touched = set(memo)
    for node in toposort(roots):
        if node in memo:
            continue
        if touched.isdisjoint(node.src):
            memo[node] = node
            continue
        touched.add(node)
        src = [memo[operand] for operand in node.src]
        if node.op in (ops.REDUCE, ops.END) and old in node.src[1:]:
            kept = [memo[r] for r in node.src[1:] if r is not old]
            value = src[0]
            if valid is not None and node.op is ops.REDUCE:
                neutral = UOp.const(node.dtype, identity(node.arg[0], node.dtype))
                value = valid.where(value, neutral)
            memo[node] = node.replace(src=(value, *kept, *[p for p in parts if p.op is ops.RANGE]))
        elif valid is not None and node.op is ops.LOAD and old in node.ranges:
            memo[node] = node.replace(src=(src[0], src[1], _both(src[2], valid)))
        elif valid is not None and node.op is ops.STORE and old in node.ranges:
            memo[node] = node.replace(src=(src[0], src[1], src[2], _both(src[3], valid)))
        else:
            memo[node] = node.replace(src=tuple(src))
    return memo


def _both(a: UOp, b: UOp) -> UOp:
    return b if a is TRUE else a & b


def _everywhere(
    kernel: UOp,
    old: UOp,
    new: UOp,
    parts: Sequence[UOp],
    valid: UOp | None = None,
    known: Mapping[UOp, UOp] | None = None,
) -> UOp:
    return _rebuild((kernel,), old, new, parts, valid, known)[kernel]


# --- the actions ------------------------------------------------------------------------------------------


def _split(kernel: UOp, action: Split) -> UOp:
    old = _range(kernel, action.range)
    (bound,), kind = old.src, str(old.arg[1])
    size = UOp.const(dtypes.index, action.size)
    whole = bound.is_const and bound.arg[0] % action.size == 0
    inner = _make(action.inner, action.size, kind)
    if whole or action.tail == "mask":
        rounded = (
            int(bound.arg[0]) // action.size
            if whole
            else (
                -(-int(bound.arg[0]) // action.size)
                if bound.is_const
                else (bound + (action.size - 1)) // size
            )
        )
        outer = _make(action.outer, rounded, kind)
        joined = _join(outer, size, inner)
        # The quotient and the remainder of the split itself need no division any more.
        parts = {
            UOp(ops.FLOORDIV, dtypes.index, (old, size)): outer,
            UOp(ops.FLOORMOD, dtypes.index, (old, size)): inner,
        }
        return _everywhere(kernel, old, joined, (outer, inner), None if whole else joined < bound, parts)
    if action.tail in ("bound", "overlap"):
        count = (
            -(-int(bound.arg[0]) // action.size) if bound.is_const else (bound + (action.size - 1)) // size
        )
        outer = _make(action.outer, count, kind)
        if action.tail == "overlap":
            _check_repeatable(kernel, action, old)
            start = UOp(ops.MIN, dtypes.index, (outer * size, bound - size))
            return _everywhere(kernel, old, _join(start, UOp.const(dtypes.index, 1), inner), (outer, inner))
        rest = UOp(ops.MIN, dtypes.index, (bound - outer * size, size))
        inner = _make(action.inner, rest, kind)
        return _everywhere(kernel, old, _join(outer, size, inner), (outer, inner))
    return _peel(kernel, action, old, size, inner)


def _check_repeatable(kernel: UOp, action: Split, old: UOp) -> None:
    """Raises CompileError where running an iteration twice is not the same as running it once."""
    if old.src[0].vmin < action.size or any(
        old in other.src[0].ranges for other in ranges_of(kernel).values()
    ):
        raise CompileError(f"the tiles of r{action.range} cannot overlap: it may be shorter than one")
    order = kernel.toposort()
    reduced = any(node.op is ops.REDUCE and old in node.src[1:] for node in order)
    written = {node.src[0] for node in order if node.op is ops.STORE and node.src[0].op is ops.PARAM}
    if reduced or any(node.op is ops.LOAD and node.src[0] in written for node in order):
        raise CompileError(f"the tiles of r{action.range} cannot overlap: an iteration may run once only")


def _join(outer: UOp, size: UOp, inner: UOp) -> UOp:
    if outer is ZERO:
        return inner
    return outer * size if inner is ZERO else outer * size + inner


def _peel(kernel: UOp, action: Split, old: UOp, size: UOp, inner: UOp) -> UOp:
    (bound,), kind = old.src, str(old.arg[1])
    if any(old in other.src[0].ranges for other in ranges_of(kernel).values()):
        raise CompileError(f"r{action.range} cannot be peeled: the bound of another range depends on it")
    if bound.is_const:
        count = int(bound.arg[0])
        tiles: UOp | int = count // action.size
        start = UOp.const(dtypes.index, count - count % action.size)
        rest: UOp | int = count % action.size
    else:
        tiles = bound // size
        start = tiles * size
        rest = bound - start
    if action.tail == "peel mask":
        last = _make(action.rest, action.size, kind)
    else:
        last = _make(action.rest, rest, kind)
    at_end = start + last if last is not ZERO else start
    valid = at_end < bound if action.tail == "peel mask" else None

    def second(root: UOp) -> UOp:
        return _rebuild((root,), old, at_end, (last,), valid)[root]

    if bound.is_const and bound.arg[0] < action.size:
        return _replace_bodies(kernel, old, lambda root: (second(root),))
    outer = _make(action.outer, tiles, kind)
    joined = _join(outer, size, inner)
    return _replace_bodies(
        kernel, old, lambda root: (_rebuild((root,), old, joined, (outer, inner), None)[root], second(root))
    )


def _align(kernel: UOp, action: Align) -> UOp:
    old = neighbours(kernel, action.range)
    return _replace_bodies(kernel, old, lambda store: aligned_parts(store, old, action))


def _replace_bodies(kernel: UOp, old: UOp, bodies: Callable[[UOp], tuple[UOp, ...]]) -> UOp:
    """Stores over the range become several stores, as do those that memory waits for; reductions over it
    become several, joined by their monoid."""
    memo: dict[UOp, UOp] = {}
    for node in kernel.toposort():
        if node.op is ops.REDUCE and old in node.src[1:]:
            inner = node.replace(src=tuple([memo[operand] for operand in node.src]))
            several = bodies(inner)
            result = several[0]
            for other in several[1:]:
                result = UOp(node.arg[0], node.dtype, (result, other))
            memo[node] = result
        elif node.op is ops.SINK:
            stores: list[UOp] = []
            # Neighbours over the range stay together: they share their loops.
            for over, statements in itertools.groupby(node.src, lambda each: old in memo[each].ranges):
                copies = [bodies(memo[each]) if over else (memo[each],) for each in statements]
                stores.extend(itertools.chain.from_iterable(zip(*copies, strict=True)))
            memo[node] = node.replace(src=tuple(stores))
        elif node.op is ops.AFTER and any(_closes(statement, old) for statement in node.src[1:]):
            waits: list[UOp] = []
            for statement in node.src[1:]:
                waits.extend(bodies(memo[statement]) if _closes(statement, old) else (memo[statement],))
            memo[node] = node.replace(src=(memo[node.src[0]], *waits))
        elif any(memo[operand] is not operand for operand in node.src):
            memo[node] = node.replace(src=tuple([memo[operand] for operand in node.src]))
        else:
            memo[node] = node
    return memo[kernel]


def _closes(statement: UOp, old: UOp) -> bool:
    return statement.op is ops.END and old in statement.src[1:]


def _bind(kernel: UOp, action: Bind) -> UOp:
    old = _range(kernel, action.range)
    new = old.replace(arg=(action.range, action.kind))
    kernel = _everywhere(kernel, old, new, (new,))
    return as_dots(kernel, new) if action.kind == "group" else kernel


def _merge(kernel: UOp, action: Merge) -> UOp:
    outer, inner = _range(kernel, action.outer), _range(kernel, action.inner)
    merged = _make(action.merged, _product(outer.src[0], inner.src[0]), str(inner.arg[1]))
    # Where every address has factor(outer) == factor(inner) * bound(inner), the sum of both is one term.
    kernel = _everywhere(kernel, outer, ZERO, ())
    return _everywhere(kernel, inner, merged, (merged,))


def _flatten(kernel: UOp, action: Flatten) -> UOp:
    outer, inner = _range(kernel, action.outer), _range(kernel, action.inner)
    size = inner.src[0]
    merged = _make(action.merged, _product(outer.src[0], size), str(inner.arg[1]))
    kernel = _everywhere(kernel, outer, merged // size, ())
    return _everywhere(kernel, inner, merged % size, (merged,))


def _product(a: UOp, b: UOp) -> UOp:
    if a.is_const and b.is_const:
        return UOp.const(dtypes.index, int(a.arg[0]) * int(b.arg[0]))
    return a * b


def _order(kernel: UOp, action: Order) -> UOp:
    found = ranges_of(kernel)
    listed = [number for number in action.ranges if number in found]
    rest = sorted(number for number in found if number not in listed)
    mapping = {
        found[number]: found[number].replace(arg=(position, found[number].arg[1]))
        for position, number in enumerate([*listed, *rest])
    }
    return _renumber(kernel, mapping)


def _renumber(kernel: UOp, mapping: Mapping[UOp, UOp]) -> UOp:
    memo: dict[UOp, UOp] = {}
    for node in kernel.toposort():
        src = tuple([memo[operand] for operand in node.src])
        arg = mapping[node].arg if node in mapping else node.arg
        memo[node] = node if src == node.src and arg == node.arg else node.replace(src=src, arg=arg)
    return memo[kernel]


_APPLY: dict[type, Callable[..., UOp]] = {
    Split: _split,
    Align: _align,
    Skew: skew,
    Bind: _bind,
    Merge: _merge,
    Order: _order,
    Flatten: _flatten,
    GroupReduce: group_reduce,
    Stage: stage,
    StageInThread: stage_in_thread,
    Carry: carry,
    Keep: keep,
    Distribute: distribute,
    Offset: offset,
    Stream: lambda kernel, action: kernel,
    Prefetch: lambda kernel, action: kernel,
}

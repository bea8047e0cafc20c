"""The neighbours of a list of actions: the same list with one decision changed.

Every neighbour means the same program. Those that a device cannot run, or that are slow, are found by trying;
only what can never be right is left out here: parallel reductions, and ranges whose order matters.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from tinycore.codegen.staging import Stage, StageInThread
from tinycore.codegen.tiling import Action, Bind, Order, Prefetch, Split, Stream, Tail, apply, ranges_of
from tinycore.errors import CompileError
from tinycore.ir import Capabilities, UOp, ops

PARALLEL = frozenset({"global", "local"})
"""Kinds that only ranges of a store may be bound to: iterations of a reduction would race."""
TAILS: tuple[Tail, ...] = get_args(Tail)
COPIED = frozenset({"vector", "unroll"})
"""Kinds whose iterations are written out."""
LONGEST = 64
UNROLLS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Move:
    """A neighbour, and what kind of change made it (kinds that have helped are tried first)."""

    kind: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """A list of actions with the ranges that each of them sees.

    Attributes
    ----------
    actions: the list.
    before: the ranges by id before each action, and after the last.
    fresh: the first id that is free.
    """

    actions: tuple[Action, ...]
    before: tuple[Mapping[int, UOp], ...]
    fresh: int


def neighbours(kernel: UOp, actions: Sequence[Action], capabilities: Capabilities) -> Iterator[Move]:
    """Every list that differs from `actions` by one decision.

    >>> from tinycore.ir import UOp, dtypes, ops
    >>> r = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 64),), (0, "loop"))
    >>> memory = UOp(ops.PARAM, dtypes.float32, (), (0, (64,)))
    >>> true = UOp.const(dtypes.bool, True)
    >>> store = UOp(ops.STORE, dtypes.void, (memory, r, UOp.const(dtypes.float32, 1.0), true))
    >>> kernel = UOp(ops.SINK, dtypes.void, (store,), None)
    >>> start = [Split(0, 16, outer=1, inner=2), Bind(2, "vector")]
    >>> [str(m.actions[0]) for m in neighbours(kernel, start, Capabilities()) if m.kind == "size"]
    ['split r0 by 32 -> r1, r2 (mask)', 'split r0 by 8 -> r1, r2 (mask)']
    """
    state = _state(kernel, tuple(actions))
    for position, action in enumerate(state.actions):
        if isinstance(action, Split):
            yield from _sizes(state, position, action)
            yield from _tails(state, position, action)
            yield from _without_split(state, position, action)
        elif isinstance(action, Bind):
            yield from _kinds(state, position, action)
        elif isinstance(action, Order):
            yield from _orders(state, position, action)
        elif isinstance(action, Stage):
            yield from _without(state, position, "stage", {action.copy})
        elif isinstance(action, StageInThread):
            yield from _without(state, position, "stage", set(action.copies))
        elif isinstance(action, Stream):
            yield Move("stream", _replaced(state, position, ()))
        elif isinstance(action, Prefetch):
            yield Move("prefetch", _replaced(state, position, ()))
    if not capabilities.workgroups and Stream() not in state.actions:
        yield Move("stream", (Stream(), *state.actions))
    if not capabilities.workgroups and not any(isinstance(action, Prefetch) for action in state.actions):
        yield Move("prefetch", (*state.actions, Prefetch(loop=1, steps=1)))
    yield from _exchanged(state)
    yield from _further_splits(state, capabilities)
    if not any(isinstance(action, Order) for action in state.actions):
        yield from _first_orders(state)


def _state(kernel: UOp, actions: tuple[Action, ...]) -> _State:
    seen: list[Mapping[int, UOp]] = []
    original = kernel
    for position in range(len(actions)):
        seen.append(ranges_of(apply(original, actions[:position])))
    final = ranges_of(apply(original, actions))
    seen.append(final)
    used = {number for found in seen for number in found}
    for action in actions:
        used |= {number for number in _numbers(action) if number < 1000}
    return _State(actions, tuple(seen), max(used, default=-1) + 1)


def _numbers(action: Action) -> set[int]:
    """Every id that an action mentions."""
    found: set[int] = set()
    for field in dataclasses.fields(action):
        value = getattr(action, field.name)
        if field.name not in ("size", "slot", "pitch", "loop", "steps"):
            found |= set(value) if isinstance(value, tuple) else {value} if type(value) is int else set()
    return found


def _replaced(state: _State, position: int, by: Sequence[Action]) -> tuple[Action, ...]:
    return (*state.actions[:position], *by, *state.actions[position + 1 :])


def _bound(node: UOp | None) -> int | None:
    """Iterations of a range; None where that is not a constant."""
    return int(node.src[0].arg[0]) if node is not None and node.src[0].is_const else None


# --- one split --------------------------------------------------------------------------------------------


def _sizes(state: _State, position: int, action: Split) -> Iterator[Move]:
    node = state.before[position].get(action.range)
    if node is None:
        return
    total = _bound(node)
    sizes = [action.size * 2, action.size // 2]
    if not _inner_is(state, action, "vector", "local"):
        sizes += [action.size * 3 // 2, action.size * 3 // 4, action.size * 4, action.size // 4]
        sizes += _divisors_around(total, action.size)
    for size in dict.fromkeys(sizes):
        if size >= 1 and size != action.size and (total is None or size <= max(total, 2)):
            yield Move("size", _replaced(state, position, (replace(action, size=size),)))


def _inner_is(state: _State, action: Split, *kinds: str) -> bool:
    """Whether the inner part of a split is bound to one of these."""
    return any(isinstance(a, Bind) and a.range == action.inner and a.kind in kinds for a in state.actions)


def _divisors_around(total: int | None, size: int) -> list[int]:
    if total is None:
        return []
    limit = min(total, 4 * size)
    below = next((n for n in range(size - 1, 1, -1) if total % n == 0), 0)
    above = next((n for n in range(size + 1, limit + 1) if total % n == 0), 0)
    return [below, above]


def _tails(state: _State, position: int, action: Split) -> Iterator[Move]:
    node = state.before[position].get(action.range)
    total = _bound(node)
    if node is None or (total is not None and total % action.size == 0):
        return
    if _inner_is(state, action, "local"):
        return  # every work-group has the same size
    for tail in TAILS:
        if tail != action.tail:
            rest = action.rest
            if tail.startswith("peel") and rest < 0:
                rest = state.fresh
            yield Move("tail", _replaced(state, position, (replace(action, tail=tail, rest=rest),)))


def _without_split(state: _State, position: int, action: Split) -> Iterator[Move]:
    """The range whole again."""
    rests = {action.rest} if action.rest >= 0 else set()
    if not _refers_after_order(state):
        yield from _without(state, position, "split", {action.outer, action.inner} | rests, action.range)


def _without(state: _State, position: int, kind: str, gone: set[int], whole: int = -1) -> Iterator[Move]:
    """The list without an action; what was decided about the ranges that it made goes with it."""
    kept: list[Action] = []
    for later in state.actions[position + 1 :]:
        if isinstance(later, Order):
            kept.append(Order(_merged(later.ranges, gone, whole)))
            gone = set()  # `Order` gives new ids
        elif isinstance(later, Split) and later.range in gone:
            gone = gone | {later.outer, later.inner} | ({later.rest} if later.rest >= 0 else set())
        elif not gone & _numbers(later):
            kept.append(later)
        elif not isinstance(later, Bind):
            return
    yield Move(kind, (*state.actions[:position], *kept))


def _merged(listed: Sequence[int], gone: set[int], whole: int) -> tuple[int, ...]:
    """The list with the first of the ids that are gone exchanged for the whole range."""
    found: list[int] = []
    for number in listed:
        if number not in gone:
            found.append(number)
        elif whole >= 0 and whole not in found:
            found.append(whole)
    return tuple(found)


# --- what ranges are bound to -----------------------------------------------------------------------------


def _kinds(state: _State, position: int, action: Bind) -> Iterator[Move]:
    node = state.before[position].get(action.range)
    if node is None or node.arg[1] == "ordered":
        return
    if action.kind == "local" or _refers_after_order(state):
        return  # a work-group is rebuilt by other sizes, not by binding less
    if action.kind != "loop":
        yield Move("bind", _replaced(state, position, (replace(action, kind=str(node.arg[1])),)))
    if action.kind in ("vector", "loop") and (_bound(node) or LONGEST) <= LONGEST // 4:
        yield Move("bind", _replaced(state, position, (replace(action, kind="unroll"),)))


def _exchanged(state: _State) -> Iterator[Move]:
    """Two ranges exchange what they are bound to: lanes for another range, another range for the grid."""
    binds = [
        (position, action, state.before[position].get(action.range))
        for position, action in enumerate(state.actions)
        if isinstance(action, Bind)
    ]
    for (i, a, first), (j, b, second) in itertools.combinations(binds, 2):
        if first is None or second is None or a.kind == b.kind:
            continue
        if PARALLEL & {a.kind, b.kind} and first.arg[1] != second.arg[1]:
            continue
        if not (_fits(first, b.kind) and _fits(second, a.kind)):
            continue
        changed = list(state.actions)
        changed[i], changed[j] = replace(a, kind=b.kind), replace(b, kind=a.kind)
        yield Move("exchange", tuple(changed))


def _fits(node: UOp, kind: str) -> bool:
    """Whether a range is short enough for lanes or copies: code must not explode."""
    return kind not in COPIED or (_bound(node) or LONGEST + 1) <= LONGEST


# --- the order of loops -----------------------------------------------------------------------------------


def _orders(state: _State, position: int, action: Order) -> Iterator[Move]:
    if _refers_after_order(state):
        return
    found = state.before[position]
    listed = [number for number in action.ranges if number in found]
    loops = [number for number in listed if found[number].arg[1] in ("loop", "global")]
    for i, j in itertools.combinations(range(len(loops)), 2):
        changed = list(listed)
        a, b = changed.index(loops[i]), changed.index(loops[j])
        changed[a], changed[b] = changed[b], changed[a]
        yield Move("order", _replaced(state, position, (Order(tuple(changed)),)))
        if j - i > 1:
            changed = list(listed)
            changed.insert(listed.index(loops[i]), changed.pop(listed.index(loops[j])))
            yield Move("order", _replaced(state, position, (Order(tuple(changed)),)))


def _first_orders(state: _State) -> Iterator[Move]:
    """Orders for a kernel that has none yet."""
    final = state.before[-1]
    loops = sorted(number for number, node in final.items() if node.arg[1] in ("loop", "global"))
    for a, b in itertools.combinations(loops, 2):
        changed = sorted(final)
        i, j = changed.index(a), changed.index(b)
        changed[i], changed[j] = changed[j], changed[i]
        yield Move("order", (*state.actions, Order(tuple(changed))))


def _refers_after_order(state: _State) -> bool:
    """Whether later actions name ranges by the places that an `Order` gave them."""
    orders = [position for position, action in enumerate(state.actions) if isinstance(action, Order)]
    return bool(orders) and orders[0] < len(state.actions) - 1


# --- more splits ------------------------------------------------------------------------------------------


def _further_splits(state: _State, capabilities: Capabilities) -> Iterator[Move]:
    """A range that nothing is bound to yet is split, for unrolling, lanes or the grid."""
    orders = [position for position, action in enumerate(state.actions) if isinstance(action, Order)]
    if orders and orders[0] < len(state.actions) - 1:
        return
    place = orders[0] if orders else len(state.actions)
    found = state.before[place]
    taken = {action.range for action in state.actions if isinstance(action, Bind) and action.kind != "loop"}
    gridded = any(node.arg[1] in PARALLEL for node in found.values())
    for number, node in sorted(found.items()):
        total = _bound(node)
        if number in taken or node.op is not ops.RANGE or node.arg[1] not in ("loop", "reduce"):
            continue
        if total is not None and total < 2:
            continue
        for size, kind in _purposes(node, total, capabilities, gridded):
            yield Move("more", _with_split(state, place, number, size, kind, total))


def _purposes(
    node: UOp, total: int | None, capabilities: Capabilities, gridded: bool
) -> Iterator[tuple[int, str]]:
    for size in UNROLLS:
        if total is None or size <= total:
            yield size, "unroll"
    lanes = capabilities.vector_bytes // 4
    while lanes >= 4:
        if total is None or lanes <= total:
            yield lanes, "vector"
        lanes //= 2
    if node.arg[1] != "loop" or gridded:
        return
    if capabilities.workgroups:
        yield min(64, capabilities.local_size), "local"
    elif capabilities.threads > 1 and total is not None:
        for chunks in (capabilities.threads, 4 * capabilities.threads):
            if total >= chunks:
                yield -(-total // chunks), "global"


def _with_split(
    state: _State, place: int, number: int, size: int, kind: str, total: int | None
) -> tuple[Action, ...]:
    outer, inner, rest = state.fresh, state.fresh + 1, state.fresh + 2
    whole = total is not None and total % size == 0
    inserted: list[Action]
    if kind == "global":
        inserted = [Split(number, size, outer, inner, "bound"), Bind(outer, "global")]
    elif kind == "local":
        inserted = [Split(number, size, outer, inner, "mask"), Bind(outer, "global"), Bind(inner, "local")]
    elif whole:
        inserted = [Split(number, size, outer, inner, "mask"), Bind(inner, kind)]
    else:
        tail: Tail = "peel" if kind == "unroll" and total is not None else "peel mask"
        inserted = [Split(number, size, outer, inner, tail, rest), Bind(inner, kind), Bind(rest, kind)]
    after = list(state.actions[place:])
    if after and isinstance(after[0], Order):
        listed = after[0].ranges
        if number in listed:
            at = listed.index(number)
            parts = [outer] if kind in ("unroll", "vector") else [outer, inner]
            ends = [inner, rest] if kind in ("unroll", "vector") else []
            after[0] = Order((*listed[:at], *parts, *listed[at + 1 :], *ends))
    return (*state.actions[:place], *inserted, *after)


def safe(kernel: UOp, actions: Sequence[Action]) -> UOp:
    """The kernel with the actions carried out. Raises CompileError for a list that cannot be, whatever fails."""
    try:
        return apply(kernel, actions)
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(f"these actions do not fit the kernel: {type(error).__name__}: {error}") from error

"""Tiling for processors with vector registers and threads: which range gets the lanes, which are unrolled.

Rules of thumb, measured on AVX-512 and kept general: lanes go to the range that most accesses walk with
stride 1; a contraction keeps a tile of accumulators in registers, rows times vectors, as large as the register
file allows; anything else is unrolled until the latency of its reduction is hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from tinycore.codegen.skew import Align
from tinycore.codegen.tiling import Action, Bind, Order, Split
from tinycore.ir import Capabilities, UOp, ops
from tinycore_pass_tile.analysis import (
    Access,
    Nest,
    balanced,
    bound,
    divisor_near,
    is_static,
    largest_itemsize,
    number,
)
from tinycore_pass_tile.columns import choose_columns, columns_of
from tinycore_pass_tile.lines import along_lines, is_long, streams, unaligned
from tinycore_pass_tile.streamed import next_rows, streamed_load

INSIDE, MOST_INSIDE = 4.0, 64.0
"""How much more an access inside a reduction counts than one outside: at least and, in a long one, at most."""
SERIAL_WORK = 1 << 14
"""Kernels of fewer iterations are not worth waking a thread for."""
CHUNKS_PER_THREAD = 4
LEAST_CHUNK = 1 << 13
MANY_LINES = 64
"""Shorter rows lose more at their ends than they gain in whole lines."""
ROWS = 8
"""Rows of a register tile: more of them than a cache has ways would throw one another out where they alias."""


@dataclass
class _Plan:
    """The actions chosen so far for one store."""

    ids: Iterator[int]
    actions: list[Action] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)


def choose_lanes(nest: Nest, capabilities: Capabilities, ids: Iterator[int], parallel: bool) -> list[Action]:
    """The actions for one store (its ranges are merged already)."""
    plan = _Plan(ids)
    lanes = max(1, capabilities.vector_bytes // largest_itemsize(nest))
    vector = _vector_range(nest, lanes)
    columns = columns_of(nest, vector, capabilities)
    if columns is not None:
        return choose_columns(nest, columns, capabilities, ids, parallel)
    rows = _row_ranges(nest, vector)
    if nest.ordered and vector is None:
        rows = list(nest.loops[-1:])  # one step waits for the one before it: several rows at a time
    tile = _tile(nest, vector, rows, lanes, capabilities)
    load = streamed_load(nest, capabilities) if vector is None else None
    tile.streamed = load is not None
    grid = _parallel(nest, plan, vector, tile, capabilities) if parallel else None
    renamed = {number(node): number(node) for node in nest.loops}
    if grid is not None:
        renamed[grid[0]] = grid[1]
    for node, size in tile.rows:
        _unroll_rows(plan, renamed[number(node)], node, size, grid)
    if parallel and vector is not None and _in_lines(nest, vector, tile, capabilities):
        plan.actions += along_lines(renamed[number(vector)], tile.lanes, 1, ids)[0]
    elif vector is not None and vector in nest.loops:
        _vectorize(
            plan,
            renamed[number(vector)],
            vector,
            tile.lanes,
            tile.vectors,
            exact=grid is None or grid[0] != number(vector) or grid[2],
        )
    for reduction, ranges in nest.reductions:
        _reduction(plan, nest, reduction, ranges, vector, lanes, tile)
    _order(plan, nest, vector, grid, tile, renamed)
    if load is not None and tile.rows:
        plan.actions += next_rows(load, tile.rows, capabilities)
    return plan.actions


# --- choosing ---------------------------------------------------------------------------------------------


def _repeats(access: Access) -> float:
    """How often an access is made for each one outside of all reductions, within limits."""
    if access.inside is None:
        return 1.0
    steps = 1
    for each in access.inside.src[1:]:
        steps *= bound(each) if each.op is ops.RANGE else 1
    return min(MOST_INSIDE, max(INSIDE, steps / 8))


def _score(accesses: list[Access], candidate: UOp) -> float:
    total = 0.0
    for access in accesses:
        stride = access.stride(candidate)
        store = access.node.op.statement
        weight = _repeats(access)
        if stride == 1:
            total += weight * (2.0 if store else 1.0)
        elif stride == 0 and not store:
            total += weight * 0.5
        else:
            total -= weight * 1.5
    return total


def _vector_range(nest: Nest, lanes: int) -> UOp | None:
    """The range of the store that gets the lanes, or None when the reductions should have them (or nobody)."""
    if lanes < 2:
        return None
    best, best_score = None, 0.0
    for candidate in nest.loops:
        if is_static(candidate) and bound(candidate) < 4:
            continue
        score = _score(list(nest.accesses), candidate)
        if is_static(candidate) and bound(candidate) < lanes:
            score *= bound(candidate) / lanes
        if score > best_score:
            best, best_score = candidate, score
    inner = 0.0
    for reduction, ranges in nest.reductions:
        if best is not None and best not in reduction.ranges:
            continue  # it can have lanes of its own
        inner += max(
            [_score(nest.within(reduction), r) * min(1.0, bound(r) / lanes) for r in ranges], default=0.0
        )
    return best if best is not None and best_score >= inner else (None if inner > 0 else best)


def _row_ranges(nest: Nest, vector: UOp | None) -> list[UOp]:
    """Ranges along which loads inside a reduction are reused; those that reuse vectors first, inner ones first."""
    result: list[tuple[int, UOp]] = []
    for candidate in reversed(nest.loops):
        if candidate is vector or not is_static(candidate) or bound(candidate) < 2:
            continue
        for reduction, _ in nest.reductions:
            if vector is not None and vector not in reduction.ranges:
                continue  # done once a row: a tile of rows and vectors would repeat it for every tile of vectors
            loads = nest.within(reduction)
            strides = [access.stride(candidate) for access in loads]
            if candidate in reduction.ranges and 0 in strides and any(s != 0 for s in strides):
                reused = any(
                    s == 0 and vector is not None and access.stride(vector) != 0
                    for access, s in zip(loads, strides, strict=True)
                )
                result.append((0 if reused else 1, candidate))
                break
    return [candidate for _, candidate in sorted(result, key=lambda entry: entry[0])]


@dataclass
class _Tile:
    """Sizes of the register tile: lanes times vectors, times rows."""

    lanes: int
    vectors: int
    rows: list[tuple[UOp, int]]
    contraction: bool
    streamed: bool = False
    """Whether reductions wait for memory."""


def _tile(nest: Nest, vector: UOp | None, rows: list[UOp], lanes: int, capabilities: Capabilities) -> _Tile:
    registers = capabilities.vector_registers
    if vector is None:
        # Lanes along the reduction: a square of accumulators, each a vector.
        side = 4 if registers >= 32 else 2
        sizes = [side, side + 1] if nest.reductions else [ROWS // 2]
        chosen = [(r, _even_size(bound(r), size)) for r, size in zip(rows[:2], sizes, strict=False)]
        return _Tile(lanes, 1, chosen, bool(rows))
    while lanes > bound(vector) and lanes > 1:
        lanes //= 2
    if not rows:
        if any(vector in reduction.ranges for reduction, _ in nest.reductions):
            vectors = 4  # independent sums
        else:
            vectors = 4 if len(nest.nodes) < 60 else 1
        while vectors > 1 and bound(vector) < 2 * lanes * vectors:
            vectors //= 2
        return _Tile(lanes, vectors, [], False)
    vectors = 2 if bound(vector) >= 2 * lanes else 1
    most = max(1, (registers - vectors - 1) // vectors)
    first = _row_size(bound(rows[0]), min(most, ROWS))
    chosen = [(rows[0], first)]
    if len(rows) > 1 and first * vectors * 2 <= most * vectors and first * vectors < 12:
        chosen.append((rows[1], _row_size(bound(rows[1]), max(2, most // first // 2 * 2))))
    return _Tile(lanes, vectors, chosen, True)


def _in_lines(nest: Nest, vector: UOp, tile: _Tile, capabilities: Capabilities) -> bool:
    """Whether a result is to be stored in whole lines, and where they begin differs from row to row."""
    if vector not in nest.loops or tile.rows or not is_long(nest, vector, MANY_LINES):
        return False
    reduced = any(vector in reduction.ranges for reduction, _ in nest.reductions)
    if reduced or nest.ordered or nest.others:
        return False
    return unaligned(nest, vector) and streams(nest.store, capabilities)


def _row_size(total: int, most: int) -> int:
    """How many rows a tile has: all of a few, else a divisor that is not much smaller than the most."""
    if total <= most:
        return total
    fitting = [size for size in range(max(2, most - 2), most + 1) if total % size == 0]
    return max(fitting) if fitting else max(2, min(most, 8))


def _even_size(total: int, most: int) -> int:
    """Rows of a square tile: a few more than half of the most are better than many and a rest.

    >>> [_even_size(total, 5) for total in (4, 7, 8, 10, 11, 12, 4096)]
    [4, 4, 4, 5, 4, 4, 5]
    """
    return -(-total // -(-total // most))


# --- writing actions --------------------------------------------------------------------------------------


def _parallel(
    nest: Nest, plan: _Plan, vector: UOp | None, tile: _Tile, capabilities: Capabilities
) -> tuple[int, int, bool, int] | None:
    """Bind chunks of one range to the grid: (its id, id of the rest, whether chunks are all full, grid id)."""
    if capabilities.threads < 2 or nest.work < SERIAL_WORK or not nest.loops:
        return None
    steps = {number(r): size for r, size in tile.rows}
    if vector is not None:
        steps[number(vector)] = tile.lanes * tile.vectors
    best: UOp | None = None
    for candidate in nest.loops:
        units = bound(candidate) // steps.get(number(candidate), 1)
        if units >= 2 * capabilities.threads and candidate is not vector:
            best = candidate
            break
    if best is None:
        best = max(nest.loops, key=lambda r: bound(r) // steps.get(number(r), 1))
    step, total = steps.get(number(best), 1), bound(best)
    if total // step < 2:
        return None
    chunks = min(capabilities.threads * CHUNKS_PER_THREAD, max(2, nest.work // LEAST_CHUNK))
    if not is_static(best):
        size = max(step, -(-total // chunks // step) * step)
    elif number(best) in steps:  # chunks of one size need no tiles for a rest
        size = divisor_near(total, max(step, -(-total // chunks)), step)
    else:
        size = balanced(total, max(1, total // chunks), 1, capabilities.threads)
    outer, inner = next(plan.ids), next(plan.ids)
    plan.actions += [
        Split(number(best), size, outer, inner, "bound"),
        Bind(outer, "global"),
        Bind(inner, "loop"),
    ]
    return number(best), inner, is_static(best) and total % size == 0, outer


def _unroll_rows(
    plan: _Plan, target: int, node: UOp, size: int, grid: tuple[int, int, bool, int] | None
) -> None:
    outer, inner, rest = next(plan.ids), next(plan.ids), next(plan.ids)
    plan.actions += [Split(target, size, outer, inner, "peel", rest), Bind(inner, "unroll")]
    dynamic = grid is not None and grid[0] == number(node) and not grid[2]
    if not dynamic and is_static(node):
        plan.actions.append(Bind(rest, "unroll"))
    plan.outer.append(outer)


def _vectorize(plan: _Plan, target: int, node: UOp, lanes: int, vectors: int, exact: bool) -> None:
    """Split a range into (outer, unroll, vector); what remains is a masked body of its own."""
    outer, tile, rest = next(plan.ids), next(plan.ids), next(plan.ids)
    dynamic = not (exact and is_static(node))
    tail = "peel mask" if dynamic else "peel"
    plan.actions.append(Split(target, lanes * vectors, outer, tile, tail, rest))  # type: ignore[arg-type]
    for part in (tile, rest):
        unrolled, vector = next(plan.ids), next(plan.ids)
        plan.actions += [
            Split(part, lanes, unrolled, vector, "mask"),
            Bind(unrolled, "unroll"),
            Bind(vector, "vector"),
        ]
    plan.outer.append(outer)


def _reduction(
    plan: _Plan,
    nest: Nest,
    reduction: UOp,
    ranges: tuple[UOp, ...],
    vector: UOp | None,
    lanes: int,
    tile: _Tile,
) -> None:
    """Lanes or unrolling for the ranges that a reduction consumes."""
    if not ranges:
        return
    if vector is not None and vector in reduction.ranges:
        innermost = ranges[-1]
        if tile.contraction and is_static(innermost) and bound(innermost) > 4:
            _unroll_steps(plan, innermost)
        return
    loads = nest.within(reduction)
    best = max(ranges, key=lambda r: _score(loads, r) * min(1.0, bound(r) / lanes))
    while lanes > bound(best) and lanes > 1:
        lanes //= 2
    if lanes >= 4 and _score(loads, best) > 0:
        vectors = 1 if tile.rows else 4
        if tile.streamed and not tile.rows:
            # Two loads a line of the cache: measured, they bring 3 to 6 % more from memory than one does.
            lanes, vectors = lanes // 2, vectors * 2
        while vectors > 1 and bound(best) < 2 * lanes * vectors:
            vectors //= 2
        _vectorize(plan, number(best), best, lanes, vectors, exact=True)
    elif not tile.rows and is_static(ranges[-1]) and bound(ranges[-1]) >= 8:
        _unroll_steps(plan, ranges[-1])


def _unroll_steps(plan: _Plan, node: UOp) -> None:
    """Write out four steps of a reduction, and those that are left over."""
    outer, inner, rest = next(plan.ids), next(plan.ids), next(plan.ids)
    plan.actions += [
        Split(number(node), 4, outer, inner, "peel", rest),
        Bind(inner, "unroll"),
        Bind(rest, "unroll"),
    ]


def _order(
    plan: _Plan,
    nest: Nest,
    vector: UOp | None,
    grid: tuple[int, int, bool, int] | None,
    tile: _Tile,
    renamed: dict[int, int],
) -> None:
    """Grid first, then the loops as they were, the vector's tiles outside the rows' tiles in a contraction."""
    splits = {action.range: action for action in plan.actions if isinstance(action, Split | Align)}

    def expanded(target: int) -> list[int]:
        split = splits.get(target)
        if split is None:
            return [target]
        if isinstance(split, Align):
            return [*expanded(split.head), *expanded(split.rest)]
        parts = [*expanded(split.outer), *expanded(split.inner)]
        return parts if split.rest < 0 else [*parts, *expanded(split.rest)]

    rows = [number(node) for node, _ in tile.rows]
    vector_id = number(vector) if vector is not None and vector in nest.loops else None
    order = [number(node) for node in nest.loops if number(node) not in rows and number(node) != vector_id]
    last = [vector_id] if vector_id is not None else []
    order += [*last, *rows] if tile.contraction else [*rows, *last]
    if not tile.contraction and vector_id is not None:
        # An elementwise nest keeps its own order: the innermost loop should walk memory.
        order = [number(node) for node in nest.loops]
    listed = list(itertools.chain.from_iterable(expanded(target) for target in order))
    if grid is not None:
        listed.remove(grid[3])
        listed.insert(0, grid[3])
    plan.actions.append(Order(tuple(listed)))
    del renamed

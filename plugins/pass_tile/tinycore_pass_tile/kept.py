"""Kernels that keep values to themselves (attention): rows in blocks, every statement tiled by itself.

The loop over the rows that share operands is cut into blocks, and what is kept of one row is kept of a block.
Then each kept value is computed by a nest of its own, a contraction or a pass over rows like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from tinycore.codegen.distribute import Distribute, kept_values
from tinycore.codegen.tiling import Action, Bind, Order, Split, apply
from tinycore.ir import Capabilities, UOp, ops
from tinycore.rules import load
from tinycore_pass_tile.analysis import Nest, bound, divisor_near, is_static, nest_of, number
from tinycore_pass_tile.excluded import excluded_steps

ROWS = 64
"""Rows of a block: enough for register tiles and for operands to be read again out of a cache."""
TILE = 4
"""Rows that register tiles are multiples of."""
OVERHEAD = 2
"""What a block costs beside its rows, in rows."""
SETS = 1 << 11
"""Rows so many bytes apart, or a multiple, crowd into few sets of the first cache."""
SERIAL_WORK = 1 << 14
CHUNKS_PER_THREAD = 4
LEAST_CACHE = 1 << 18

Choose = Callable[[Nest, Iterator[int]], list[Action]]
"""The actions of one statement."""


def choose_kept(kernel: UOp, capabilities: Capabilities, ids: Iterator[int], choose: Choose) -> list[Action]:
    """The actions for a kernel of one store with kept values; none for any other."""
    kept = kept_values(kernel)
    if not kept:
        return []
    actions: list[Action] = []
    outer = sorted(set().union(*[after.ranges for after in kept]), key=number)
    loops = [r for r in nest_of(kernel.src[0]).loops if r in outer]
    rows = _rows(kernel, kept, loops)
    sizes = {number(r): bound(r) for r in loops if r is not rows}
    if rows is not None and bound(rows) > 1:
        size = _block(kept, rows, capabilities)
        block, inner = next(ids), next(ids)
        whole = is_repeatable(kernel) and bound(rows) > size
        actions.append(Split(number(rows), size, block, inner, "overlap" if whole else "bound"))
        dependent = [after for after in kept if rows in after.ranges]
        pitches = tuple([_pitch(after, capabilities) for after in dependent])
        actions.append(Distribute(inner, tuple([next(ids) for _ in dependent]), pitches))
        if bound(rows) > size:
            sizes[block] = -(-bound(rows) // size)
    many = capabilities.threads > 1 and nest_of(kernel.src[0]).work >= SERIAL_WORK
    order = _grid(actions, sizes, ids, CHUNKS_PER_THREAD * capabilities.threads if many else 1)
    distributed = [action for action in actions if isinstance(action, Distribute)]
    inner_rows = frozenset(itertools.chain.from_iterable((a.range, *a.copies) for a in distributed))
    blocked = load("tinycore.passes.kernel").passes["simplify"](apply(kernel, actions))
    orders = [order]
    for nest in _nests(blocked, frozenset(order), inner_rows):
        chosen = choose(nest, ids)
        orders += [list(action.ranges) for action in chosen if isinstance(action, Order)]
        actions += [action for action in chosen if not isinstance(action, Order)]
    shortened = excluded_steps(kernel, kept, rows) if rows is not None else None
    actions += [] if shortened is None else [shortened]
    return [*actions, Order(tuple(itertools.chain.from_iterable(orders)))]


def _rows(kernel: UOp, kept: list[UOp], loops: list[UOp]) -> UOp | None:
    """The innermost loop whose iterations share an operand of a contraction."""
    nests = list(_nests(kernel, frozenset(), frozenset()))
    depending = {after.src[0]: after.ranges for after in kept}
    for candidate in reversed(loops):
        for nest in nests:
            for reduction, _ in nest.reductions:
                varies = [
                    candidate in access.node.src[1].ranges | depending.get(access.node.src[0], frozenset())
                    for access in nest.within(reduction)
                ]
                if is_static(candidate) and any(varies) and not all(varies):
                    return candidate
    return None


def _block(kept: list[UOp], rows: UOp, capabilities: Capabilities) -> int:
    """Rows of a block: their kept values fill half of the second cache at most."""
    caches = capabilities.cache_bytes
    room = max(caches[1] if len(caches) > 1 else LEAST_CACHE, LEAST_CACHE) // 2
    row = sum(int(after.src[0].arg[2][0]) * after.dtype.itemsize for after in kept)
    most = max(1, min(ROWS, room // max(1, row)))
    total = bound(rows)
    if total <= most:
        return total

    def cost(size: int) -> tuple[int, bool, int]:
        blocks = -(-total // size)
        return blocks * (-(-size // TILE) * TILE + OVERHEAD), total % size != 0, blocks

    return min(range(max(1, most // 2), most + 1), key=cost)


def _pitch(after: UOp, capabilities: Capabilities) -> int:
    """Elements from row to row: every row begins with a vector, and neighbours share no sets of the first cache."""
    lanes = max(1, capabilities.vector_bytes // after.dtype.itemsize)
    size = int(after.src[0].arg[2][0])
    if size < lanes:
        return size
    vectors = -(-size // lanes)
    return lanes * (vectors + (vectors * capabilities.vector_bytes % SETS == 0))


def is_repeatable(kernel: UOp) -> bool:
    """Whether iterations may run twice: nothing is read that the kernel writes."""
    written = {statement.src[0] for statement in kernel.src}
    return not any(node.op is ops.LOAD and node.src[0] in written for node in kernel.toposort())


def _grid(plan: list[Action], sizes: dict[int, int], ids: Iterator[int], wanted: int) -> list[int]:
    """Share the outermost loops among threads, in as many chunks as wanted; all loops in their order."""
    order: list[int] = []
    for target, size in sizes.items():
        if wanted < 2 or len([a for a in plan if isinstance(a, Bind)]) == 3:
            order.append(target)
            continue
        chunk = divisor_near(size, max(1, size // wanted), 1)
        if chunk > 1:
            outer, inner = next(ids), next(ids)
            plan += [Split(target, chunk, outer, inner, "bound"), Bind(outer, "global")]
            order += [outer, inner]
        else:
            plan.append(Bind(target, "global"))
            order.append(target)
        wanted = -(-wanted * chunk // size)
    return order


def _nests(kernel: UOp, outer: frozenset[int], rows: frozenset[int]) -> Iterator[Nest]:
    """Each statement as a nest of its own: what it waits for is memory, and the loops around it are not its."""
    memory = {after: after.src[0] for after in kept_values(kernel)}
    for after in memory:
        for statement in after.src[1:]:
            store = statement.src[0] if statement.op is ops.END else statement
            yield _nest(store, memory, outer, rows)
    yield _nest(kernel.src[0], memory, outer, rows)


def _nest(store: UOp, memory: dict[UOp, UOp], outer: frozenset[int], rows: frozenset[int]) -> Nest:
    """The loops over the rows of a block are the outermost of a statement, whatever their ids."""
    nest = nest_of(store.substitute(memory))
    loops = [r for r in nest.loops if number(r) not in outer]
    return replace(nest, loops=tuple(sorted(loops, key=lambda r: (number(r) not in rows, number(r)))))

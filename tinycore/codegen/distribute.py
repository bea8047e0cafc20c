"""Kept values for many iterations of a loop: one loop around several statements becomes a loop in each.

``for i: {fill row; use row}`` becomes ``for i: fill row i`` and ``for i: use row i``: then each statement can
be tiled by itself, in the loop over `i`, too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tinycore.errors import CompileError
from tinycore.ir import UOp, dtypes, ops


@dataclass(frozen=True, slots=True)
class Distribute:
    """What is kept in memory of the thread for one iteration of `range` is kept for all of them; `copies` are
    the loops that fill it, one for each kept value, in the order in which they are computed. `pitches` say how
    many elements lie between their rows, where that is more than they have."""

    range: int
    copies: tuple[int, ...]
    pitches: tuple[int, ...] = ()

    def __str__(self) -> str:
        copies = ", ".join(f"r{number}" for number in self.copies)
        return f"distribute r{self.range} over kept values, filled by {copies}"


def kept_values(kernel: UOp) -> list[UOp]:
    """The AFTER nodes of memory of the thread, those that others are computed from first."""
    return [node for node in kernel.toposort() if _is_kept(node)]


def _is_kept(node: UOp) -> bool:
    memory = node.src[0] if node.op is ops.AFTER else node
    return memory is not node and memory.op is ops.SCRATCH and memory.arg[0] == "private"


def distribute(kernel: UOp, action: Distribute) -> UOp:
    """See `Distribute`. Raises CompileError for a range that there is not, or whose bound is unknown."""
    order = kernel.toposort()
    found = [node for node in order if node.op is ops.RANGE and node.arg[0] == action.range]
    if not found:
        raise CompileError(f"the kernel has no range r{action.range}")
    loop = found[0]
    kept = [node for node in order if _is_kept(node) and loop in node.ranges]
    if len(kept) != len(action.copies):
        raise CompileError(f"r{action.range} has {len(kept)} kept values, not {len(action.copies)}")
    copies = dict(zip(kept, action.copies, strict=True))
    wanted = itertools.chain(action.pitches, itertools.repeat(0))
    pitches = {node: max(_size(node), pitch) for node, pitch in zip(kept, wanted, strict=False)}
    memo: dict[UOp, UOp] = {}
    for node in order:
        src = tuple([memo[operand] for operand in node.src])
        if node in copies:
            copy = loop.replace(arg=(copies[node], "loop"))
            memo[node] = _filled(node, src, loop, copy, pitches[node])
        elif node.op is ops.LOAD and node.src[0] in copies:
            memo[node] = node.replace(src=(src[0], _moved(src[1], pitches[node.src[0]], loop), src[2]))
        else:
            memo[node] = node if src == node.src else node.replace(src=src)
    return memo[kernel]


def _size(after: UOp) -> int:
    return int(after.src[0].arg[2][0])


def _moved(index: UOp, pitch: int, loop: UOp) -> UOp:
    """A place in the row of one iteration."""
    row = loop if pitch == 1 else loop * pitch
    return row + index


def _filled(after: UOp, src: tuple[UOp, ...], loop: UOp, copy: UOp, pitch: int) -> UOp:
    """The rows of all iterations, filled by a loop of their own."""
    scope, number, _ = after.src[0].arg
    scratch = after.src[0].replace(arg=(scope, number, (loop.src[0].vmax * pitch,)))
    statements = []
    for statement in src[1:]:
        store, loops = (statement.src[0], statement.src[1:]) if statement.op is ops.END else (statement, ())
        _, index, value, gate = store.src
        store = store.replace(src=(scratch, _moved(index, pitch, loop), value, gate)).substitute({loop: copy})
        statements.append(UOp(ops.END, dtypes.void, (store, copy, *loops)))
    return after.replace(src=(scratch, *statements))

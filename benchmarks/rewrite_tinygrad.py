"""The rules of `rewrite.rules` in tinygrad's own terms, and graphs carried over to its nodes.

They stand in the order of the file, in two spellings. `USUAL` builds results with Python's operators on nodes,
as tinygrad's own `symbolic` does. `TUNED` is what a person would write who had profiled tinygrad: no operators,
because they promote and broadcast, and constants folded on Python's integers. Functions of a PatternMatcher
may not be closures.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygrad.dtype import dtypes
from tinygrad.uop import Ops
from tinygrad.uop.ops import PatternMatcher, UOp, UPat, exec_alu, graph_rewrite

from tinycore.ir import UOp as Node
from tinycore.ir import ops, toposort

INDEX = dtypes.weakint
x, y, z = (UPat.var(name, INDEX) for name in "xyz")
a, b, c = (UPat.cvar(name) for name in "abc")
other = UPat(tuple(op for op in Ops if op is not Ops.CONST), name="x")


def number(value: int) -> UOp:
    """A constant of tinygrad's index dtype."""
    return UOp.const(value, INDEX)


def fold(node: UOp) -> UOp:
    """The constant that an op of constants is."""
    return number(exec_alu(node.op, node.dtype, [operand.val for operand in node.src], False))


def divides(a: UOp, b: UOp) -> bool:
    """Whether a positive b divides a."""
    return b.val > 0 and a.val % b.val == 0


RULES: list[tuple[UPat, Callable, Callable | None]] = [
    (x + 0, lambda x: x, None),
    (x * 1, lambda x: x, None),
    (x * 0, lambda x: x.const_like(0), lambda x: number(0)),
    (x // 1, lambda x: x, None),
    (x % 1, lambda x: x.const_like(0), lambda x: number(0)),
    (UPat(Ops.SUB, src=(x, UPat.const(0))), lambda x: x, None),
    (UPat(Ops.SUB, src=(x, x)), lambda x: x.const_like(0), lambda x: number(0)),
    (UPat(Ops.ADD, src=(UPat.cvar(), UPat.cvar()), name="node"), fold, None),
    (UPat(Ops.ADD, src=(a, other)), lambda a, x: x + a, lambda a, x: x.alu(Ops.ADD, a)),
    (
        (x + a) + b,
        lambda x, a, b: x + (a + b),
        lambda x, a, b: x.alu(Ops.ADD, number(a.val + b.val)),
    ),
    (UPat(Ops.MUL, src=(UPat.cvar(), UPat.cvar()), name="node"), fold, None),
    (UPat(Ops.MUL, src=(a, other)), lambda a, x: x * a, lambda a, x: x.alu(Ops.MUL, a)),
    (
        (x * a) * b,
        lambda x, a, b: x * (a * b),
        lambda x, a, b: x.alu(Ops.MUL, number(a.val * b.val)),
    ),
    (
        x * a + x * b,
        lambda x, a, b: x * (a + b),
        lambda x, a, b: x.alu(Ops.MUL, number(a.val + b.val)),
    ),
    (x * a + x, lambda x, a: x * (a + 1), lambda x, a: x.alu(Ops.MUL, number(a.val + 1))),
    (x + x, lambda x: x * 2, lambda x: x.alu(Ops.MUL, number(2))),
    (
        (x + a) * b,
        lambda x, a, b: x * b + (a * b),
        lambda x, a, b: x.alu(Ops.MUL, b).alu(Ops.ADD, number(a.val * b.val)),
    ),
    (x % c, lambda x, c: x if x.vmin >= 0 and x.vmax < c.val else None, None),
    (
        x // c,
        lambda x, c: (
            x.const_like(x.vmin // c.val) if c.val > 0 and x.vmin // c.val == x.vmax // c.val else None
        ),
        lambda x, c: number(x.vmin // c.val) if c.val > 0 and x.vmin // c.val == x.vmax // c.val else None,
    ),
    (
        (x * a + y) % b,
        lambda y, a, b, **_: y % b if divides(a, b) else None,
        lambda y, a, b, **_: y.alu(Ops.FLOORMOD, b) if divides(a, b) else None,
    ),
    (
        (x * a) % b,
        lambda x, a, b: x.const_like(0) if divides(a, b) else None,
        lambda a, b, **_: number(0) if divides(a, b) else None,
    ),
    (
        (x * a + y) // b,
        lambda x, y, a, b: x * (a.val // b.val) + y // b if divides(a, b) else None,
        lambda x, y, a, b: (
            x.alu(Ops.MUL, number(a.val // b.val)).alu(Ops.ADD, y.alu(Ops.FLOORDIV, b))
            if divides(a, b)
            else None
        ),
    ),
    (
        (x // a) // b,
        lambda x, a, b: x // (a * b) if a.val > 0 and b.val > 0 else None,
        lambda x, a, b: x.alu(Ops.FLOORDIV, number(a.val * b.val)) if a.val > 0 and b.val > 0 else None,
    ),
    (
        (x % a) % b,
        lambda x, a, b: x % b if divides(a, b) else None,
        lambda x, a, b: x.alu(Ops.FLOORMOD, b) if divides(a, b) else None,
    ),
    (
        UPat(Ops.ADD, src=(x, UPat(Ops.ADD, src=(y, z)))),
        lambda x, y, z: (x + y) + z,
        lambda x, y, z: x.alu(Ops.ADD, y).alu(Ops.ADD, z),
    ),
]
"""Pattern, function as usual, tuned function where that differs."""

USUAL = PatternMatcher([(pattern, usual) for pattern, usual, _ in RULES])
TUNED = PatternMatcher([(pattern, tuned or usual) for pattern, usual, tuned in RULES])

_SAME = {
    ops.ADD: Ops.ADD,
    ops.SUB: Ops.SUB,
    ops.MUL: Ops.MUL,
    ops.FLOORDIV: Ops.FLOORDIV,
    ops.FLOORMOD: Ops.FLOORMOD,
}


def carried_over(root: Node) -> UOp:
    """A graph of index arithmetic as tinygrad's nodes; a RANGE keeps its number."""
    known: dict[Node, UOp] = {}
    for node in toposort((root,)):
        src = tuple([known[operand] for operand in node.src])
        if node.op is ops.CONST:
            known[node] = number(int(node.value))
        elif node.op is ops.RANGE:
            known[node] = UOp.range(int(node.src[0].value), node.arg[0])
        elif node.op is ops.SINK:
            known[node] = UOp(Ops.SINK, dtypes.void, src)
        else:
            known[node] = UOp(_SAME[node.op], INDEX, src)
    return known[root]


def rewritten(root: UOp, matcher: PatternMatcher) -> UOp:
    """The normal form."""
    return graph_rewrite(root, matcher)


def size(root: UOp) -> int:
    """How many nodes."""
    return len(root.toposort())


def evaluate(root: UOp, values: dict[int, int]) -> list[int]:
    """The value of every operand of a sink, from the values of its RANGEs by number."""
    known: dict[UOp, int] = {}
    for node in root.toposort():
        if node.op is Ops.CONST:
            known[node] = node.val
        elif node.op is Ops.RANGE:
            known[node] = values[node.arg[0]]
        elif node.op is not Ops.SINK:
            known[node] = exec_alu(node.op, node.dtype, [known[operand] for operand in node.src], False)
    return [known[operand] for operand in root.src]

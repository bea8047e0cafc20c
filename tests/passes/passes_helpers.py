"""What the tests of the rule files share: evaluation of small graphs, targets, random instances."""

from __future__ import annotations

import itertools

import numpy as np

from tinycore.ir import Capabilities, Target, UOp, dtypes, ops, toposort
from tinycore.ir.target import BASIC_OPS


def loop(identity, bound, kind="loop"):
    """A RANGE over an int or a symbolic size."""
    size = bound if isinstance(bound, UOp) else UOp.const(dtypes.index, bound)
    return UOp(ops.RANGE, dtypes.index, (size,), (identity, kind))


def truncated(a, b):
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


MEANING = {
    ops.ADD: lambda a, b: a + b, ops.SUB: lambda a, b: a - b, ops.MUL: lambda a, b: a * b, ops.NEG: lambda a: -a,
    ops.FLOORDIV: lambda a, b: a // b if b else 0, ops.FLOORMOD: lambda a, b: a % b if b else 0,
    ops.TRUNCDIV: truncated, ops.TRUNCMOD: lambda a, b: a - truncated(a, b) * b if b else 0,
    ops.LT: lambda a, b: a < b, ops.LE: lambda a, b: a <= b, ops.EQ: lambda a, b: a == b, ops.NE: lambda a, b: a != b,
    ops.AND: lambda a, b: a & b, ops.OR: lambda a, b: a | b, ops.XOR: lambda a, b: a ^ b,
    ops.MAX: max, ops.MIN: min, ops.SHL: lambda a, b: a << b, ops.SHR: lambda a, b: a >> b,
    ops.WHERE: lambda c, a, b: a if c else b, ops.CAST: lambda a: a,
}


def evaluate(node, values):
    """The value of an index expression, in unbounded integers: an oracle that shares nothing with the rules."""
    known = dict(values)
    for part in toposort((node,)):
        if part in known:
            continue
        if part.op is ops.CONST:
            known[part] = part.value
        else:
            known[part] = MEANING[part.op](*[known[operand] for operand in part.src])
    return known[node]


def assignments(ranges, variables=(), limit=4096):
    """Every value of the ranges, for a few values of each variable; thinned out to about `limit`."""
    choices = [sorted({v.arg[1], v.arg[2], min(v.arg[1] + 1, v.arg[2]), (v.arg[1] + v.arg[2]) // 2}) for v in variables]
    for chosen in itertools.product(*choices):
        known = dict(zip(variables, chosen, strict=True))
        sizes = [range(evaluate(r.src[0], known)) for r in ranges]
        total = int(np.prod([len(size) for size in sizes], dtype=object)) if sizes else 1
        step = max(1, total // limit)
        for point in itertools.islice(itertools.product(*sizes), 0, None, step):
            yield {**known, **dict(zip(ranges, point, strict=True))}


def target(*extra, without=(), arithmetic=None):
    """A target with the basic ops, some more, some less."""
    has = (BASIC_OPS | set(extra)) - set(without)
    arithmetic = frozenset(dtypes.DATA) if arithmetic is None else frozenset(arithmetic)
    return Target("test", capabilities=Capabilities(ops=frozenset(has), arithmetic=arithmetic))


class Context:
    """What groups with @requires(target) are given."""

    def __init__(self, target):
        self.target = target

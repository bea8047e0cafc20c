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
    ops.ADD: lambda a, b: a + b,
    ops.SUB: lambda a, b: a - b,
    ops.MUL: lambda a, b: a * b,
    ops.NEG: lambda a: -a,
    ops.FLOORDIV: lambda a, b: a // b if b else 0,
    ops.FLOORMOD: lambda a, b: a % b if b else 0,
    ops.TRUNCDIV: truncated,
    ops.TRUNCMOD: lambda a, b: a - truncated(a, b) * b if b else 0,
    ops.LT: lambda a, b: a < b,
    ops.LE: lambda a, b: a <= b,
    ops.EQ: lambda a, b: a == b,
    ops.NE: lambda a, b: a != b,
    ops.AND: lambda a, b: a & b,
    ops.OR: lambda a, b: a | b,
    ops.XOR: lambda a, b: a ^ b,
    ops.MAX: max,
    ops.MIN: min,
    ops.SHL: lambda a, b: a << b if 0 <= b < 64 else 0,
    ops.SHR: lambda a, b: a >> b if 0 <= b < 64 else -(a < 0),
    ops.WHERE: lambda c, a, b: a if c else b,
    ops.CAST: lambda a: a,
}


def evaluate(node, values):
    """The value of an index expression in unbounded integers: an oracle that shares nothing with rules."""
    known = dict(values)
    for part in toposort((node,)):
        if part in known:
            continue
        if part.op is ops.CONST:
            known[part] = part.value
        else:
            value = MEANING[part.op](*[known[operand] for operand in part.src])
            known[part] = bool(value) if part.dtype is dtypes.bool_ else value
    return known[node]


def assignments(ranges, variables=(), limit=4096):
    """Every value of the ranges, for a few values of each variable; thinned out to about `limit`."""
    choices = [
        sorted({v.arg[1], v.arg[2], min(v.arg[1] + 1, v.arg[2]), (v.arg[1] + v.arg[2]) // 2})
        for v in variables
    ]
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


def values(dtype, size, chance):
    """Random elements of a dtype, with all its corner cases among them."""
    random = np.random.default_rng(chance.randrange(1 << 32))
    if dtype.kind == "bool":
        return random.integers(0, 2, size).astype(bool)
    if dtype.is_float:
        corners = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            2.5,
            3.0,
            np.inf,
            -np.inf,
            np.nan,
            1e-45,
            -1e-45,
            6e-8,
            448.0,
            65504.0,
            3e38,
        ]
        plain = np.concatenate([corners, random.normal(size=size) * 10.0 ** random.integers(-3, 4, size)])[
            :size
        ]
        with np.errstate(all="ignore"):
            return random.permutation(plain).astype(dtype.numpy)
    low, high = int(dtype.min), int(dtype.max)
    corners = [low, low + 1, high, high - 1, 0, 1, 2, 3, 7, 8, 63, 64]
    plain = np.array(corners + random.integers(-9 if low else 0, 10, size).tolist(), dtype=object)[:size]
    return random.permutation(plain).astype(dtype.numpy)


def same_bits(a, b, signless=False):
    """Whether two arrays agree bit for bit; any NaN is as good as another, with `signless` any zero."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind not in "fV":
        return bool((a == b).all())
    with np.errstate(invalid="ignore"):
        nan_a, nan_b = np.isnan(a.astype(np.float64)), np.isnan(b.astype(np.float64))
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    equal = a.view(unsigned) == b.view(unsigned)
    if signless:
        equal |= (a == 0) & (b == 0)
    return bool(np.where(nan_a | nan_b, nan_a & nan_b, equal).all())

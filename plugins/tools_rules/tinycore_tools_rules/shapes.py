"""Random shapes, and random attributes that fit the operands of an op."""

from __future__ import annotations

import math
import random
from typing import Any

from tinycore.ir import Shape, UOp
from tinycore.ir.ops import MONOIDS, Op, ops
from tinycore_tools_rules.typed import Impossible

LARGE = (1 << 15, 40_000, 33_000)


def random_shape(chance: random.Random, size: str) -> Shape:
    """A shape of rank 0 to 4; `size` is normal, tiny (with axes of size 1 and 0) or large."""
    if size == "large":
        rest = [chance.choice([1, 1, 2]) for _ in range(chance.randrange(2))]
        dims = [*rest, chance.choice(LARGE)]
        chance.shuffle(dims)
        return tuple(dims)
    choices = [0, 1, 1, 2] if size == "tiny" else [1, 2, 2, 3, 4]
    shape: list[Any] = [chance.choice(choices) for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 4]))]
    if size == "normal" and shape and chance.random() < 0.1:
        shape[chance.randrange(len(shape))] = UOp.variable("n", 1, 4)
    return tuple(shape)


def attributes_of(op: Op, src: tuple[UOp, ...], chance: random.Random) -> Any:
    """A random arg that makes `op` valid on these operands. Raises Impossible for ops without a generator."""
    shape = src[0].shape if src else ()
    makers: dict[Op, Any] = {
        ops.RESHAPE: lambda: _reshaped(shape, chance),
        ops.PERMUTE: lambda: _permutation(len(shape), chance),
        ops.EXPAND: lambda: tuple([chance.choice([1, 2, 3]) if dim == 1 else dim for dim in shape]),
        ops.PAD: lambda: _padding(len(shape), chance),
        ops.SHRINK: lambda: tuple([_limits(dim, chance) for dim in shape]),
        ops.FLIP: lambda: _some_axes(len(shape), chance),
        ops.REDUCE: lambda: (_monoid(src[0], chance), () if len(src) > 1 else _some_axes(len(shape), chance)),
        ops.SCAN: lambda: (_monoid(src[0], chance), _axis(shape, chance)),
        ops.GATHER: lambda: _axis(shape, chance),
        ops.COPY: lambda: chance.choice(["D", "E"]),
        ops.LOAD: lambda: 1,
    }
    if op in makers:
        return makers[op]()
    if op.attributes and op.attributes != ("dtype",):
        raise Impossible
    return None


def _reshaped(shape: Shape, chance: random.Random) -> Shape:
    if chance.random() < 0.2:
        return shape
    if any(isinstance(dim, UOp) for dim in shape) or 0 in shape:
        place = chance.randrange(len(shape) + 1)
        return (*shape[:place], 1, *shape[place:])
    total = math.prod([dim for dim in shape if isinstance(dim, int)])
    result: list[int] = []
    while total > 1 and len(result) < 4:
        factors = [k for k in range(2, min(total, 64) + 1) if total % k == 0] or [total]
        result.append(chance.choice(factors))
        total //= result[-1]
    if total > 1:
        result.append(total)
    for _ in range(chance.choice([0, 0, 1, 2])):
        result.insert(chance.randrange(len(result) + 1), 1)
    chance.shuffle(result)
    return tuple(result)


def _permutation(rank: int, chance: random.Random) -> tuple[int, ...]:
    axes = list(range(rank))
    if chance.random() > 0.15:
        chance.shuffle(axes)
    return tuple(axes)


def _padding(rank: int, chance: random.Random) -> tuple[tuple[int, int], ...]:
    most = chance.choice([0, 1, 2, 2])
    return tuple([(chance.randint(0, most), chance.randint(0, most)) for _ in range(rank)])


def _limits(dim: Any, chance: random.Random) -> tuple[Any, Any]:
    if isinstance(dim, UOp) or chance.random() < 0.3:
        return 0, dim
    start = chance.randint(0, dim)
    return start, chance.randint(start, dim)


def _some_axes(rank: int, chance: random.Random) -> tuple[int, ...]:
    share = chance.choice([0.0, 0.5, 0.5, 1.0])
    return tuple([axis for axis in range(rank) if chance.random() < share])


def _axis(shape: Shape, chance: random.Random) -> int:
    if not shape:
        raise Impossible
    return chance.randrange(len(shape))


def _monoid(x: UOp, chance: random.Random) -> Op:
    bits = {ops.AND, ops.OR, ops.XOR}
    return chance.choice(
        sorted((op for op in MONOIDS if not x.dtype.is_float or op not in bits), key=lambda op: op.number)
    )

"""Operands worth trying: corners of a dtype, numbers halfway between others, operands that depend on each other."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.interpret.elementwise import quiet
from tinycore.ir.dtypes import DType

Array = NDArray[Any]
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 3.0, -8.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 6e-8, 448.0, 65504.0,
    3e38, 5e-324, 1.7e308, 0.1,
)  # fmt: skip
DYADIC = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 4.0, -4.0, 1.5, 3.0, -3.0)
PRECISIONS = (3, 5, 9, 12, 25, 54)
"""Integers of so many bits are halfway between floats of some format."""
RELATED = 0.3
"""The share of operands that depend on the ones before them."""


def random_values(
    dtype: DType, size: int, chance: random.Random, dyadic: bool = False, before: Sequence[Array] = ()
) -> Array:
    """Elements of a dtype, its corner cases among them.

    `before` are the other operands of this dtype: some elements are made of theirs, since equal operands, operands
    that cancel and products halfway between two floats hardly ever come about by chance. With `dyadic` floats are
    small and round.

    >>> from tinycore.ir import dtypes
    >>> random_values(dtypes.int8, 4, random.Random(0)).dtype
    dtype('int8')
    """
    generator = np.random.default_rng(chance.getrandbits(32))
    if dtype.kind == "bool":
        return generator.integers(0, 2, size).astype(bool)
    if dtype.kind == "index":
        return generator.integers(-50, 100, size)
    others = [array for array in before if array.shape == (size,)]
    if dtype.is_float and dyadic:
        return np.asarray(generator.choice(DYADIC, size).astype(dtype.numpy))
    if dtype.is_float:
        found, make = _random_floats(dtype, size, generator), _related_floats
    else:
        found, make = _random_integers(dtype, size, chance, generator), _related_integers
    if not others:
        return found
    return np.where(generator.random(size) < RELATED, make(dtype, others, generator), found)


# --- integers -------------------------------------------------------------------------------------------------


def _random_integers(dtype: DType, size: int, chance: random.Random, generator: np.random.Generator) -> Array:
    low, high = int(dtype.min), int(dtype.max)
    corners = [low, low + 1, high, high - 1, 0, 1, 2, 3, 7, 8, 63, 64, high // 2]
    small = generator.integers(-20 if low else 0, 21, size).tolist()
    anywhere = [chance.randint(low, high) for _ in range(size)]
    near = [min(max(low, _halfway(dtype, chance)), high) for _ in range(size)]
    mixed = [chance.choice(chance.choice((corners, small, anywhere, near))) for _ in range(size)]
    return np.array(mixed, dtype=object).astype(dtype.numpy)


def _halfway(dtype: DType, chance: random.Random) -> int:
    """Few bits, or such a number's neighbour: where it is converted to a float, it is often halfway."""
    bits = min(chance.choice(PRECISIONS), int(dtype.bits))
    number = (chance.getrandbits(bits) | 1) << chance.randrange(int(dtype.bits))
    number &= (1 << int(dtype.bits)) - 1
    return chance.choice([1, -1]) * number + chance.choice([-1, 0, 1])


def _related_integers(dtype: DType, before: Sequence[Array], generator: np.random.Generator) -> Array:
    a = before[-1]
    with quiet():
        choices = [a, a + dtype.numpy.type(1), a - dtype.numpy.type(1), np.negative(a), ~a]
    return np.asarray(np.choose(generator.integers(0, len(choices), a.shape), choices))


# --- floats ---------------------------------------------------------------------------------------------------


def _exponents(dtype: DType) -> tuple[int, int]:
    """The exponents of the least and of the greatest positive number."""
    bias = (1 << (dtype.bits - 2 - dtype.mantissa)) - 1
    return 1 - bias - dtype.mantissa, bias + (dtype.name == "float8_e4m3")


def _few_bits(dtype: DType, size: int, generator: np.random.Generator) -> Any:
    """Significands of few bits (products of two are halfway between floats); all orders of magnitude."""
    precision, (least, most) = dtype.mantissa + 1, _exponents(dtype)
    half = precision // 2
    count = generator.choice([1, 2, 3, half, half + 1, precision - 1, precision], size)
    ones = (1 << count) - 1
    significand = (generator.integers(0, 1 << 62, size) & ones) | 1 | (1 << (count - 1))
    exponent = np.choose(
        generator.integers(0, 5, size),
        [
            generator.integers(-3, 4, size),
            generator.choice([most // 2, -most // 2], size) + generator.integers(-2, 3, size),
            most - generator.integers(0, 3, size),
            least + generator.integers(0, precision + 2, size),
            generator.integers(least, most + 1, size),
        ],
    )
    sign = generator.choice([1.0, -1.0], size).astype(np.longdouble)
    return np.ldexp(sign * significand, exponent - count + 1)


def _rounded(dtype: DType, wide: Any) -> Array:
    """Extended numbers as elements; what is too great becomes the greatest."""
    most = np.ldexp(np.longdouble(2) - np.ldexp(np.longdouble(1), -dtype.mantissa), _exponents(dtype)[1])
    narrow = np.clip(wide, -most, most)
    return np.asarray(narrow.astype(dtype.numpy if dtype.itemsize == 8 else np.float64).astype(dtype.numpy))


def _random_floats(dtype: DType, size: int, generator: np.random.Generator) -> Array:
    unsigned = f"uint{dtype.bits}"
    with quiet():
        plain = (generator.normal(size=size) * 10.0 ** generator.integers(-3, 4, size)).astype(dtype.numpy)
        corners = generator.choice(FLOATS, size).astype(dtype.numpy)
        patterns = generator.integers(0, 1 << dtype.bits, size, dtype=unsigned).view(dtype.numpy)
        few = _rounded(dtype, _few_bits(dtype, size, generator))
        angles = generator.choice(hard_angles(dtype), size) * generator.choice([1, -1], size)
    # Round numbers and their neighbours: where sums of them are rounded, they are often halfway.
    near = (
        generator.choice([1.0, 1.5, 1.25, 3.0, -1.0, -1.5], size) * 2.0 ** generator.integers(-6, 7, size)
    ).astype(dtype.numpy)
    near = (near.view(unsigned) + generator.integers(-1, 2, size).astype(unsigned)).view(dtype.numpy)
    kinds = [plain, corners, patterns, near, few, angles.astype(dtype.numpy)]
    kind = generator.choice(len(kinds), size, p=[0.2, 0.2, 0.2, 0.15, 0.15, 0.1])
    return np.asarray(np.choose(kind, [array.view(unsigned) for array in kinds]).view(dtype.numpy))


def _related_floats(dtype: DType, before: Sequence[Array], generator: np.random.Generator) -> Array:
    """The operand before, what cancels it, what cancels a product, and numbers that are just lost beside them."""
    size, precision = before[-1].shape, dtype.mantissa + 1
    with quiet():
        wide = [array.astype(np.float64).astype(np.longdouble) for array in before[-2:]]
        last, product = wide[-1], wide[0] * wide[-1]
        beside = np.where(np.isfinite(product), product, 1)
        exponent = np.frexp(beside)[1] - generator.integers(-3, 54 + precision, size)
        sign = generator.choice([1.0, -1.0], size)
        crumbs = np.ldexp(sign * generator.choice([1, 1, 3, 5, 7], size), exponent)
        choices = [last, -last, -product, crumbs, crumbs, product + crumbs]
        chosen = _rounded(dtype, np.choose(generator.integers(0, len(choices), size), choices))
    unsigned = f"uint{dtype.bits}"
    nudge = generator.choice([0, 0, 0, 1, -1], size).astype(unsigned)
    return np.asarray((chosen.view(unsigned) + nudge).view(dtype.numpy))


@functools.cache
def hard_angles(dtype: DType) -> Array:
    """Floats closer to multiples of pi / 2 than others of their size: where reducing an argument is hard.

    They are denominators of the continued fractions of 2**e * 2 / pi.

    >>> from tinycore.ir import dtypes
    >>> bool(np.abs(np.cos(hard_angles(dtypes.float64))).min() < 1e-18)
    True
    """
    if dtype.itemsize < 4:
        return np.array([math.pi / 2, math.pi])
    precision, (_, most) = dtype.mantissa + 1, _exponents(dtype)
    shift = most + 4 * precision
    one, found = 1 << shift, []
    turn = (2 << 2 * shift) // _pi(shift)
    for e in range(-precision, most - precision + 1):
        numerator, denominator = (turn << e if e >= 0 else turn >> -e) % one, one
        previous, q, denominators = 0, 1, []
        while numerator and q < 1 << precision:
            denominators.append(q)
            whole, rest = divmod(denominator, numerator)
            numerator, denominator, previous, q = rest, numerator, q, whole * q + previous
        found += [math.ldexp(q, e) for q in denominators[-3:]]
    return np.array(found)


def _pi(shift: int) -> int:
    """Pi in units of 2**-shift, by Machin's formula."""

    def arctangent(n: int) -> int:
        term = total = (1 << (shift + 32)) // n
        k = 1
        while term:
            term //= -n * n
            k += 2
            total += term // k
        return total

    return (16 * arctangent(5) - 4 * arctangent(239)) >> 32

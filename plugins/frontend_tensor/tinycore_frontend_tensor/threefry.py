"""Counter-based random bits, and the functions that make numbers of them: the same bits on every device.

Everything here is built from integer operations and from float operations that IEEE 754 rounds in one way
only. Where a product is summed it is an explicit FMA, so no compiler is left a choice.
"""

from __future__ import annotations

from tinycore.ir import UOp, dtypes, ops

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
Words = tuple[UOp, UOp]


def threefry(key: Words, counter: Words) -> Words:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011) on uint32 nodes of equal shapes."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + (group + 1)
    return x0, x1


def unit_float32(bits: UOp) -> UOp:
    """Uniform in [0, 1): the upper 24 bits, exactly."""
    return (bits >> 8).cast(dtypes.float32) * 2.0**-24


def unit_float64(low: UOp, high: UOp) -> UOp:
    """Uniform in [0, 1) with 53 bits."""
    wide = (high.cast(dtypes.uint64) << 32) | low.cast(dtypes.uint64)
    return (wide >> 11).cast(dtypes.float64) * 2.0**-53


def normal_float32(first: UOp, second: UOp) -> UOp:
    """A standard normal (Box-Muller): sqrt(-2 ln u) * cos(2 pi v), within 4 ulp of the formula."""
    radius = (_minus_two_log(first)).alu(ops.SQRT)
    return radius * _cosine_of_turns(second)


def _fma(a: UOp, b: UOp | float, c: UOp | float) -> UOp:
    return a.alu(
        ops.FMA, b if isinstance(b, UOp) else a.const_like(b), c if isinstance(c, UOp) else a.const_like(c)
    )


def _horner(x: UOp, *coefficients: float) -> UOp:
    result = x.const_like(coefficients[0])
    for coefficient in coefficients[1:]:
        result = _fma(result, x, coefficient)
    return result


# ln(1+f) = f - f*f/2 + f**3 * P(f) on [sqrt(1/2)-1, sqrt(2)-1]; coefficients of P by descending power
# (Cephes).
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_LN2_HIGH, _LN2_LOW = (
    0.693359375,
    -2.12194440e-4,
)  # the first has 12 zero bits below: products with e are exact


def _minus_two_log(bits: UOp) -> UOp:
    """-2 ln(u) for u = (bits | 1) / 2**32, never negative."""
    number = (bits | 1).cast(dtypes.float32)
    pattern = number.bitcast(dtypes.uint32)
    exponent = (pattern >> 23).cast(dtypes.int32) - (127 + 32)
    mantissa = ((pattern & 0x7FFFFF) | 0x3F800000).bitcast(dtypes.float32)  # [1, 2)
    high = mantissa > 1.41421356
    mantissa = high.where(mantissa * 0.5, mantissa)
    exponent = high.where(exponent + 1, exponent)
    e = exponent.cast(dtypes.float32)
    f = mantissa - 1.0  # exact
    square = f * f
    tail = _horner(f, *_LOG) * (f * square)
    tail = _fma(e, _LN2_LOW, tail)
    tail = _fma(square, -0.5, tail)
    result = _fma(e, _LN2_HIGH, f + tail)
    # Doubling is exact; the maximum clears what rounding leaves below 0 at u = 1.
    return (result * -2.0).alu(ops.MAX, result.const_like(0.0))


# sin(2 pi t) = t * S(t*t), cos(2 pi t) = 1 + t*t * C(t*t) for |t| <= 1/8.
_SIN = (41.5896, -76.701286, 81.60523, -41.3417)
_COS = (59.424225, -85.44882, 64.93937, -19.739208)
_TURN_HIGH, _TURN_LOW = 6.2831855, -1.7484556e-7  # 2 pi as two float32


def _cosine_of_turns(bits: UOp) -> UOp:
    """cos(2 pi v) for v = bits / 2**32: the eighth of the turn comes from integers, exactly."""
    # Nearest quarter turn q, remainder t in [-1/8, 1/8): signed 30-bit arithmetic.
    shifted = bits + 0x20000000
    quarter = shifted >> 30
    remainder = (shifted & 0x3FFFFFFF).cast(dtypes.int32) - 0x20000000
    t = remainder.cast(dtypes.float32) * 2.0**-32
    square = t * t
    odd = _fma(_horner(square, *_SIN), square, _TURN_LOW)
    sine = _fma(t, _TURN_HIGH, t * odd)
    cosine = _fma(square, _horner(square, *_COS), 1.0)
    is_sine = (quarter & 1).eq(1)
    value = is_sine.where(sine, cosine)
    # cos of quarters 1 and 2 is negative: cos(x + pi/2) = -sin(x), cos(x + pi) = -cos(x).
    negative = quarter.eq(1) | quarter.eq(2)
    return negative.where(-value, value)

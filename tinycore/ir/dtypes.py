"""Dtypes: what the elements of a value are, and their canonical bits.

A `DType` is a singleton: compare with ``is``. Lanes (vector widths) are a property of values, not of
dtypes. Two dtypes are not data: `index` is the type of shape and address arithmetic, overflow-free by
definition; `void` is the type of statements (stores, loops).

Constants are kept as canonical *bits* so that 0.0 and -0.0, or two NaNs, are never confused by Python's
equality:

>>> hex(float32.to_bits(-0.0)), float32.from_bits(0x3F800000), int8.to_bits(300)
('0x80000000', 1.0, 44)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tinycore.errors import DTypeError, did_you_mean

if TYPE_CHECKING:
    import numpy

Kind = Literal["bool", "uint", "int", "float", "index", "void"]
Scalar = bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type.

    Attributes
    ----------
    name:
        The name used everywhere: in text, in rules and by the frontends ("float32").
    kind:
        bool, uint, int, float, index or void.
    itemsize:
        Bytes in memory; 0 for `index` and `void`, which are never stored.
    mantissa:
        Explicit fraction bits of a float, 0 otherwise.
    """

    name: str
    kind: Kind
    itemsize: int
    mantissa: int = 0

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        return by_name, (self.name,)

    @property
    def bits(self) -> int:
        """Width in bits (1 for bool)."""
        return 1 if self.kind == "bool" else self.itemsize * 8

    @property
    def is_float(self) -> bool:
        """float16, bfloat16, float32, float64 and the 8-bit floats."""
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        """Signed, unsigned and `index` integers; not bool."""
        return self.kind in ("int", "uint", "index")

    @property
    def min(self) -> Scalar:
        """The least value: -inf for floats (-448 for e4m3, which has no infinity), -2**63 for `index`."""
        if self.kind == "float":
            return -self.max
        if self.kind == "bool":
            return False
        return 0 if self.kind == "uint" else -(1 << ((self.bits or 64) - 1))

    @property
    def max(self) -> Scalar:
        """The greatest value: inf for floats, 448 for e4m3, which has no infinity."""
        if self.kind == "float":
            return 448.0 if self.name == "float8_e4m3" else math.inf
        if self.kind == "bool":
            return True
        width = self.bits or 64
        return (1 << width) - 1 if self.kind == "uint" else (1 << (width - 1)) - 1

    @property
    def numpy(self) -> numpy.dtype[Any]:
        """The numpy dtype (ml_dtypes supplies bfloat16 and the 8-bit floats; `index` is int64)."""
        import numpy as np

        if self.name in _ML_DTYPES:
            import ml_dtypes

            extended: numpy.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[self.name]))
            return extended
        if self.kind == "void":
            raise DTypeError("void has no numpy dtype")
        return np.dtype("int64" if self.kind == "index" else self.name)

    def to_bits(self, value: Scalar) -> int:
        """Canonical bits of a Python number: integers wrap, floats round to nearest even, NaN is quiet.

        Integers and `index` answer the (signed) value itself, bools 0 or 1, floats their unsigned pattern.
        Raises DTypeError when a float that is not finite is given to an integer dtype.
        """
        if self.kind == "bool":
            return int(bool(value))
        if self.kind == "float":
            return _float_to_bits(self, float(value))
        if isinstance(value, float) and not math.isfinite(value):
            raise DTypeError(f"{value} is not a value of {self.name}")
        number = int(value)
        if self.kind == "index":
            return number
        number &= (1 << self.bits) - 1
        return number - (1 << self.bits) if self.kind == "int" and number >> (self.bits - 1) else number

    def from_bits(self, bits: int) -> Scalar:
        """The Python number that canonical bits stand for."""
        if self.kind == "bool":
            return bool(bits)
        if self.kind == "float":
            return _float_from_bits(self, bits)
        return bits


_ML_DTYPES = {"bfloat16": "bfloat16", "float8_e4m3": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}
_STRUCT = {"float16": ("<e", "<H"), "float32": ("<f", "<I"), "float64": ("<d", "<Q")}
_QUIET_NAN = {
    "float16": 0x7E00,
    "bfloat16": 0x7FC0,
    "float32": 0x7FC00000,
    "float64": 0x7FF8000000000000,
    "float8_e4m3": 0x7F,
    "float8_e5m2": 0x7E,
}


def _float_to_bits(dtype: DType, value: float) -> int:
    if math.isnan(value):
        return _QUIET_NAN[dtype.name]
    if dtype.name in _ML_DTYPES:
        import numpy as np

        unsigned = np.uint8 if dtype.itemsize == 1 else np.uint16
        with np.errstate(over="ignore"):
            return int(np.array(value, np.float64).astype(dtype.numpy).view(unsigned))
    pack, unpack = _STRUCT[dtype.name]
    try:
        packed = struct.pack(pack, value)
    except OverflowError:  # struct refuses what IEEE rounds to infinity
        packed = struct.pack(pack, math.copysign(math.inf, value))
    return int(struct.unpack(unpack, packed)[0])


def _float_from_bits(dtype: DType, bits: int) -> float:
    if dtype.name == "bfloat16":
        return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
    if dtype.name in _ML_DTYPES:
        import numpy as np

        return float(np.array(bits, np.uint8).view(dtype.numpy))
    pack, unpack = _STRUCT[dtype.name]
    return float(struct.unpack(pack, struct.pack(unpack, bits))[0])


bool_ = DType("bool", "bool", 1)
int8 = DType("int8", "int", 1)
int16 = DType("int16", "int", 2)
int32 = DType("int32", "int", 4)
int64 = DType("int64", "int", 8)
uint8 = DType("uint8", "uint", 1)
uint16 = DType("uint16", "uint", 2)
uint32 = DType("uint32", "uint", 4)
uint64 = DType("uint64", "uint", 8)
float8_e4m3 = DType("float8_e4m3", "float", 1, 3)
float8_e5m2 = DType("float8_e5m2", "float", 1, 2)
float16 = DType("float16", "float", 2, 10)
bfloat16 = DType("bfloat16", "float", 2, 7)
float32 = DType("float32", "float", 4, 23)
float64 = DType("float64", "float", 8, 52)
index = DType("index", "index", 0)
void = DType("void", "void", 0)

SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
FLOATS = (float8_e4m3, float8_e5m2, float16, bfloat16, float32, float64)
DATA = (bool_, *SIGNED, *UNSIGNED, *FLOATS)
"""Every dtype that can be stored in a buffer."""
ALL = (*DATA, index, void)
"""Every dtype."""

CLASSES: dict[str, tuple[DType, ...]] = {
    "Any": (*DATA, index),
    "Bool": (bool_,),
    "Int": (*SIGNED, *UNSIGNED, index),
    "SizedInt": (*SIGNED, *UNSIGNED),
    "Signed": SIGNED,
    "Unsigned": UNSIGNED,
    "Integral": (bool_, *SIGNED, *UNSIGNED, index),
    "Float": FLOATS,
    "Number": (*SIGNED, *UNSIGNED, index, *FLOATS),
    "Index": (index,),
}
"""Dtype classes by the names that rules use."""

_BY_NAME = {dtype.name: dtype for dtype in (*DATA, index, void)}


def by_name(name: str) -> DType:
    """The dtype of that name. Raises DTypeError with a suggestion.

    >>> by_name("float16").itemsize
    2
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise DTypeError(f"unknown dtype {name!r}", hint=did_you_mean(name, _BY_NAME)) from None


def of_numpy(dtype: Any) -> DType:
    """The tinycore dtype of a numpy dtype. Raises DTypeError for strings, objects, complex numbers."""
    import numpy as np

    name = np.dtype(dtype).name
    name = {"float8_e4m3fn": "float8_e4m3"}.get(name, name)
    if name not in _BY_NAME:
        raise DTypeError(
            f"numpy dtype {name} has no counterpart", hint="cast the array to a numeric dtype first"
        )
    return _BY_NAME[name]


def lossless(source: DType, target: DType) -> bool:
    """Whether every value of `source` is exactly a value of `target`.

    >>> lossless(int16, float32), lossless(int32, float32), lossless(uint8, int8)
    (True, False, False)
    """
    if source is target or source.kind == "bool":
        return True
    if source.kind == "float":
        if target.kind != "float" or target.mantissa < source.mantissa:
            return False
        # Exponent ranges: bfloat16 fits float32 and float64 only; float16 fits them too; e5m2 fits all wider.
        wide = {"float8_e4m3": 4, "float8_e5m2": 5, "float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}
        return wide[target.name] >= wide[source.name]
    if target.kind == "index":
        return source.name != "uint64"  # machine integers have 64 bits: its upper half becomes negative
    if target.kind == "float":
        magnitude = source.bits - (source.kind == "int") if source.kind != "index" else 64
        return magnitude <= target.mantissa + 1 and target.itemsize >= 2
    if source.kind == "index" or target.kind == "bool":
        return False
    if source.kind == target.kind:
        return target.bits >= source.bits
    return target.kind == "int" and target.bits > source.bits


def promote(*dtypes: DType) -> DType:
    """The smallest dtype that a mixed operation computes in (array API rules, with float winning over int).

    >>> promote(int8, uint8), promote(float16, bfloat16), promote(int64, float16)
    (int16, float32, float16)
    """
    result = dtypes[0]
    for other in dtypes[1:]:
        result = _promote_pair(result, other)
    return result


def _promote_pair(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a.kind == "index" or b.kind == "index":
        other = b if a.kind == "index" else a
        return other if other.kind == "float" else int64
    order = {"bool": 0, "uint": 1, "int": 2, "float": 3}
    if order[a.kind] > order[b.kind]:
        a, b = b, a
    if b.kind == "float":
        if a.kind != "float":
            return b
        if lossless(a, b):
            return b
        if lossless(b, a):
            return a
        return float16 if a.itemsize == b.itemsize == 1 else float32
    if a.kind == b.kind:
        return a if a.bits >= b.bits else b
    if a.kind == "bool" or b.bits > a.bits:
        return b
    return {8: int16, 16: int32, 32: int64, 64: int64}[a.bits]

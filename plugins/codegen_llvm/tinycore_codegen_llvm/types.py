"""How values are spelled in LLVM IR: types, constants, the suffixes of intrinsics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinycore.errors import CompileError
from tinycore.ir import DType, UOp, dtypes

Family = Literal["float", "int", "uint", "bool"]

_ELEMENTS = {
    "bool": "i1",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "index": "i64",
    "uint8": "i8",
    "uint16": "i16",
    "uint32": "i32",
    "uint64": "i64",
    "float16": "half",
    "float32": "float",
    "float64": "double",
    # Kept as bits in registers: LLVM's own bfloat calls a library or flushes denormals on some processors.
    "bfloat16": "i16",
    "float8_e4m3": "i8",
    "float8_e5m2": "i8",
}
_SUFFIXES = {"half": "f16", "float": "f32", "double": "f64"}
NARROW = frozenset({dtypes.bfloat16, dtypes.float8_e4m3, dtypes.float8_e5m2})
"""Floats that registers hold as integers."""


@dataclass(frozen=True, slots=True)
class Register:
    """The type of an SSA value: a dtype, and lanes or None for a scalar.

    >>> Register(dtypes.float32, 16).text, Register(dtypes.bool_).text, Register(dtypes.bool_, 4).memory
    ('<16 x float>', 'i1', '<4 x i8>')
    """

    dtype: DType
    lanes: int | None = None

    @staticmethod
    def of(node: UOp) -> Register:
        """The type of a node's value. Raises CompileError when it is not a scalar or one row of lanes."""
        shape = node.shape
        if not shape:
            return Register(node.dtype)
        if len(shape) != 1 or not isinstance(shape[0], int):
            raise CompileError(f"a program's value cannot have the shape {shape}", where=repr(node))
        return Register(node.dtype, shape[0])

    @property
    def element(self) -> str:
        """The type of one lane."""
        return _ELEMENTS[self.dtype.name]

    @property
    def text(self) -> str:
        """The type as it is written."""
        return self._lanes_of(self.element)

    @property
    def memory_element(self) -> str:
        """The type of one element in memory: a bool takes a byte."""
        return "i8" if self.dtype.kind == "bool" else self.element

    @property
    def memory(self) -> str:
        """The type of the whole value in memory."""
        return self._lanes_of(self.memory_element)

    @property
    def suffix(self) -> str:
        """What intrinsics append to their names, e.g. ``v16f32``."""
        return self.suffix_of(self.element)

    @property
    def condition(self) -> str:
        """The type of a comparison of two such values."""
        return self._lanes_of("i1")

    @property
    def family(self) -> Family:
        """Which instructions compute with it."""
        kind = self.dtype.kind
        if kind == "void":
            raise CompileError("void is not a value")
        return "int" if kind == "index" else kind

    def suffix_of(self, element: str) -> str:
        """The intrinsic suffix of as many lanes of another element type."""
        return ("" if self.lanes is None else f"v{self.lanes}") + _SUFFIXES.get(element, element)

    def retyped(self, dtype: DType) -> Register:
        """As many lanes of another dtype."""
        return Register(dtype, self.lanes)

    def constant(self, bits: int) -> str:
        """A constant of canonical bits, in every lane."""
        return self.spread(self.element, literal(self.dtype, bits))

    def number(self, value: float) -> str:
        """A constant of a Python number, in every lane."""
        return self.constant(self.dtype.to_bits(value))

    def spread(self, element: str, text: str) -> str:
        """A constant of an element type, in every lane."""
        return text if self.lanes is None else f"splat ({element} {text})"

    @property
    def zero(self) -> str:
        """All bits 0."""
        if self.lanes is not None:
            return "zeroinitializer"
        return literal(self.dtype, 0)

    def _lanes_of(self, element: str) -> str:
        return element if self.lanes is None else f"<{self.lanes} x {element}>"


def literal(dtype: DType, bits: int) -> str:
    """A scalar constant of canonical bits, exact for NaN payloads, infinities and -0.0.

    >>> literal(dtypes.float32, 0x3F800000), literal(dtypes.float16, 0x8000), literal(dtypes.bool_, 1)
    ('0x3FF0000000000000', '0xH8000', 'true')
    """
    if dtype.kind == "bool":
        return "true" if bits else "false"
    if dtype is dtypes.float16:
        return f"0xH{bits:04X}"
    if dtype is dtypes.float64:
        return f"0x{bits:016X}"
    if dtype is dtypes.float32:
        return f"0x{_double_of_float(bits):016X}"
    return str(bits)


def _double_of_float(bits: int) -> int:
    """The bits of the float64 of the same value: how LLVM spells a `float`, NaN payloads included."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        return (bits >> 31) << 63 | 0x7FF << 52 | fraction << 29
    value = dtypes.float32.from_bits(bits)
    return dtypes.float64.to_bits(value)

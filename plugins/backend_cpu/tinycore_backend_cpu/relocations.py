"""How each relocation that LLVM emits for position-independent kernels changes the bytes it points at."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tinycore.errors import DataError

Patch: TypeAlias = Callable[[bytearray, int, int, int], None]
"""(memory, offset in it, address of that offset, target with addend): writes the field."""


@dataclass(frozen=True, slots=True)
class RelocationKind:
    """One type: the bytes it touches, what stands for the symbol, and how the field is written."""

    name: str
    size: int
    through: Literal["symbol", "stub", "table"]
    """`stub`: an undefined symbol is reached through a jump near the code; `table`: through its address."""
    patch: Patch


@dataclass(frozen=True, slots=True)
class Relocation:
    """A field to patch at `place` of the linked image."""

    place: int
    kind: RelocationKind
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class Machine:
    """An instruction set: its relocations and the first 8 bytes of a jump to the address after them."""

    name: str
    relocations: Mapping[int, RelocationKind]
    stub: bytes


def _signed(value: int, bits: int, name: str) -> int:
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise DataError(f"relocation {name} out of range: {value:#x} does not fit in {bits} bits")
    return value


def _absolute(name: str) -> Patch:
    def patch(memory: bytearray, at: int, _address: int, target: int) -> None:
        struct.pack_into("<Q", memory, at, target & 0xFFFFFFFFFFFFFFFF)

    return patch


def _relative(name: str, bits: int) -> Patch:
    code = "<i" if bits == 32 else "<q"

    def patch(memory: bytearray, at: int, address: int, target: int) -> None:
        struct.pack_into(code, memory, at, _signed(target - address, bits, name))

    return patch


def _insert(memory: bytearray, at: int, value: int, bits: int, shift: int) -> None:
    mask = ((1 << bits) - 1) << shift
    (word,) = struct.unpack_from("<I", memory, at)
    struct.pack_into("<I", memory, at, (word & ~mask) | ((value << shift) & mask))


def _branch(name: str, bits: int, shift: int) -> Patch:
    def patch(memory: bytearray, at: int, address: int, target: int) -> None:
        if (target - address) % 4:
            raise DataError(f"relocation {name} to an address that is no instruction")
        _insert(memory, at, _signed(target - address, bits + 2, name) >> 2, bits, shift)

    return patch


def _adr(name: str, page: int) -> Patch:
    def patch(memory: bytearray, at: int, address: int, target: int) -> None:
        distance = _signed((target >> page) - (address >> page), 21, name)
        _insert(memory, at, distance & 3, 2, 29)
        _insert(memory, at, distance >> 2, 19, 5)

    return patch


def _low12(name: str, scale: int) -> Patch:
    def patch(memory: bytearray, at: int, _address: int, target: int) -> None:
        if target & ((1 << scale) - 1):
            raise DataError(f"relocation {name} to the misaligned address {target:#x}")
        _insert(memory, at, (target & 0xFFF) >> scale, 12, 10)

    return patch


def _kind(
    name: str, size: int, patch: Patch, through: Literal["symbol", "stub", "table"] = "symbol"
) -> RelocationKind:
    return RelocationKind(name, size, through, patch)


X86_64 = Machine(
    "x86-64",
    {
        1: _kind("R_X86_64_64", 8, _absolute("R_X86_64_64")),
        2: _kind("R_X86_64_PC32", 4, _relative("R_X86_64_PC32", 32), "stub"),
        4: _kind("R_X86_64_PLT32", 4, _relative("R_X86_64_PLT32", 32), "stub"),
        9: _kind("R_X86_64_GOTPCREL", 4, _relative("R_X86_64_GOTPCREL", 32), "table"),
        24: _kind("R_X86_64_PC64", 8, _relative("R_X86_64_PC64", 64)),
        41: _kind("R_X86_64_GOTPCRELX", 4, _relative("R_X86_64_GOTPCRELX", 32), "table"),
        42: _kind("R_X86_64_REX_GOTPCRELX", 4, _relative("R_X86_64_REX_GOTPCRELX", 32), "table"),
    },
    bytes.fromhex("ff25020000000f0b"),  # jmp [rip+2]; ud2
)

AARCH64 = Machine(
    "AArch64",
    {
        257: _kind("R_AARCH64_ABS64", 8, _absolute("R_AARCH64_ABS64")),
        260: _kind("R_AARCH64_PREL64", 8, _relative("R_AARCH64_PREL64", 64)),
        261: _kind("R_AARCH64_PREL32", 4, _relative("R_AARCH64_PREL32", 32)),
        273: _kind("R_AARCH64_LD_PREL_LO19", 4, _branch("R_AARCH64_LD_PREL_LO19", 19, 5)),
        274: _kind("R_AARCH64_ADR_PREL_LO21", 4, _adr("R_AARCH64_ADR_PREL_LO21", 0)),
        275: _kind("R_AARCH64_ADR_PREL_PG_HI21", 4, _adr("R_AARCH64_ADR_PREL_PG_HI21", 12)),
        277: _kind("R_AARCH64_ADD_ABS_LO12_NC", 4, _low12("R_AARCH64_ADD_ABS_LO12_NC", 0)),
        278: _kind("R_AARCH64_LDST8_ABS_LO12_NC", 4, _low12("R_AARCH64_LDST8_ABS_LO12_NC", 0)),
        279: _kind("R_AARCH64_TSTBR14", 4, _branch("R_AARCH64_TSTBR14", 14, 5)),
        280: _kind("R_AARCH64_CONDBR19", 4, _branch("R_AARCH64_CONDBR19", 19, 5)),
        282: _kind("R_AARCH64_JUMP26", 4, _branch("R_AARCH64_JUMP26", 26, 0), "stub"),
        283: _kind("R_AARCH64_CALL26", 4, _branch("R_AARCH64_CALL26", 26, 0), "stub"),
        284: _kind("R_AARCH64_LDST16_ABS_LO12_NC", 4, _low12("R_AARCH64_LDST16_ABS_LO12_NC", 1)),
        285: _kind("R_AARCH64_LDST32_ABS_LO12_NC", 4, _low12("R_AARCH64_LDST32_ABS_LO12_NC", 2)),
        286: _kind("R_AARCH64_LDST64_ABS_LO12_NC", 4, _low12("R_AARCH64_LDST64_ABS_LO12_NC", 3)),
        299: _kind("R_AARCH64_LDST128_ABS_LO12_NC", 4, _low12("R_AARCH64_LDST128_ABS_LO12_NC", 4)),
        311: _kind("R_AARCH64_ADR_GOT_PAGE", 4, _adr("R_AARCH64_ADR_GOT_PAGE", 12), "table"),
        312: _kind("R_AARCH64_LD64_GOT_LO12_NC", 4, _low12("R_AARCH64_LD64_GOT_LO12_NC", 3), "table"),
    },
    bytes.fromhex("5000005800021fd6"),  # ldr x16, .+8; br x16
)

MACHINES: Mapping[int, Machine] = {62: X86_64, 183: AARCH64}
"""By ELF machine number."""

"""A loader's view of an ELF relocatable object: parse, check every offset, lay out, relocate.

It knows what LLVM emits for position-independent kernels on x86-64 and AArch64, and refuses the rest. It maps
nothing itself: `ElfObject.parse` checks the file, `ElfObject.link` returns the bytes for a given address, and
`objects.py` places them. So the code for one architecture can be tested on another.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinycore.errors import DataError
from tinycore_backend_cpu.pages import EXECUTE, PAGE, READ, WRITE, round_up
from tinycore_backend_cpu.relocations import MACHINES, Machine, Relocation, RelocationKind

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")

_RELOCATABLE = 1
_SYMBOL_TABLE, _RELOCATIONS_WITH_ADDEND, _NO_BITS, _RELOCATIONS = 2, 4, 8, 9
_FLAG_WRITE, _FLAG_ALLOCATE, _FLAG_EXECUTE, _FLAG_THREAD_LOCAL = 1, 2, 4, 1 << 10
_UNDEFINED, _RESERVED_INDEX, _ABSOLUTE_INDEX = 0, 0xFF00, 0xFFF1
_UNWIND_SECTION = ".eh_frame"

_LARGEST = 1 << 28
_STUB_SIZE, _GOT_SIZE = 16, 8


@dataclass(frozen=True, slots=True)
class Section:
    """A section header, checked; `place` is its offset in the linked image, None when it is not loaded."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol: `section` is None when it has to come from outside."""

    name: str
    section: int | None
    value: int
    exported: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the linked image with one protection."""

    place: int
    size: int
    protection: int


@dataclass(frozen=True)
class ElfObject:
    """A checked object with its layout.

    `size` is the length of the linked image, `groups` its protections, `undefined` what has to be supplied.
    """

    image: bytes
    machine: Machine
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]
    groups: tuple[Group, ...]
    size: int
    stubs: Mapping[int, int] = field(repr=False)
    """Symbol index -> place of its 16-byte jump."""
    offset_table: Mapping[int, int] = field(repr=False)
    """Symbol index -> place of its 8-byte address."""

    @property
    def undefined(self) -> frozenset[str]:
        """The names that `link` needs addresses for."""
        used = {relocation.symbol for relocation in self.relocations}
        return frozenset(s.name for i, s in enumerate(self.symbols) if s.section is None and i in used)

    @classmethod
    def parse(cls, image: bytes) -> ElfObject:
        """Check everything that can be checked without an address. Raises DataError, naming the fault."""
        machine, sections = _parse_headers(image)
        symbols, table_index = _parse_symbols(image, sections)
        relocations = _parse_relocations(image, sections, symbols, table_index, machine)
        return _lay_out(image, machine, sections, symbols, relocations)

    def link(self, base: int, external: Mapping[str, int]) -> bytes:
        """The bytes to place at `base`, given the addresses of undefined symbols. Raises DataError."""
        missing = sorted(self.undefined - external.keys())
        if missing:
            raise DataError(f"the object needs {', '.join(missing)}, which the loader does not offer")
        memory = bytearray(self.size)
        for section in self.sections:
            if section.place is not None and section.kind != _NO_BITS:
                content = self.image[section.offset : section.offset + section.size]
                memory[section.place : section.place + section.size] = content
        for index, place in self.stubs.items():
            address = self._address(index, base, external)
            memory[place : place + _STUB_SIZE] = self.machine.stub + struct.pack("<Q", address)
        for index, place in self.offset_table.items():
            struct.pack_into("<Q", memory, place, self._address(index, base, external))
        for relocation in self.relocations:
            self._apply(memory, base, external, relocation)
        return bytes(memory)

    def exports(self, base: int) -> dict[str, int]:
        """The addresses of the global symbols that the object defines."""
        return {
            symbol.name: self._address(index, base, {})
            for index, symbol in enumerate(self.symbols)
            if symbol.exported
        }

    def _address(self, index: int, base: int, external: Mapping[str, int]) -> int:
        symbol = self.symbols[index]
        if symbol.section is None:
            return external[symbol.name]
        if symbol.section == _ABSOLUTE_INDEX:
            return symbol.value
        place = self.sections[symbol.section].place
        if place is None:
            raise DataError(f"symbol {symbol.name!r} is in a section that is not loaded")
        return base + place + symbol.value

    def _apply(
        self, memory: bytearray, base: int, external: Mapping[str, int], relocation: Relocation
    ) -> None:
        if relocation.kind.through == "table":
            target = base + self.offset_table[relocation.symbol]
        elif relocation.kind.through == "stub" and relocation.symbol in self.stubs:
            target = base + self.stubs[relocation.symbol]
        else:
            target = self._address(relocation.symbol, base, external)
        relocation.kind.patch(memory, relocation.place, base + relocation.place, target + relocation.addend)


def _parse_headers(image: bytes) -> tuple[Machine, list[Section]]:
    if len(image) < _HEADER.size or image[:4] != b"\x7fELF":
        raise DataError("not an ELF file")
    ident, kind, machine, _, _, _, offset, _, _, _, _, entry_size, count, names = _HEADER.unpack_from(image)
    if ident[4:7] != b"\x02\x01\x01" or kind != _RELOCATABLE:
        raise DataError("not a 64-bit little-endian relocatable object")
    if machine not in MACHINES:
        raise DataError(f"an object for machine {machine}, which this loader does not know")
    if entry_size != _SECTION.size or not 0 < count < _RESERVED_INDEX or names >= count:
        raise DataError("the section table is malformed")
    _within(image, offset, count * _SECTION.size, "the section table")
    headers = [_SECTION.unpack_from(image, offset + i * _SECTION.size) for i in range(count)]
    name_table = _string_table(image, headers[names][4], headers[names][5])
    sections = []
    for name, kind, flags, _, at, size, link, info, alignment, entry in headers:
        if kind not in (0, _NO_BITS):
            _within(image, at, size, "a section")
        alignment = alignment or 1
        if alignment & (alignment - 1) or alignment > PAGE or size > _LARGEST:
            raise DataError(f"a section of {size} bytes with alignment {alignment}")
        sections.append(
            Section(_string(name_table, name), kind, flags, at, size, link, info, alignment, entry)
        )
    return MACHINES[machine], sections


def _parse_symbols(image: bytes, sections: list[Section]) -> tuple[tuple[Symbol, ...], int]:
    tables = [index for index, section in enumerate(sections) if section.kind == _SYMBOL_TABLE]
    if len(tables) != 1:
        raise DataError(f"{len(tables)} symbol tables")
    table = sections[tables[0]]
    if table.entry_size != _SYMBOL.size or table.size % _SYMBOL.size or table.link >= len(sections):
        raise DataError("the symbol table is malformed")
    strings = sections[table.link]
    names = _string_table(image, strings.offset, strings.size)
    symbols = []
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, info, _, section, value, _ = _SYMBOL.unpack_from(image, at)
        text = _string(names, name)
        if section == _UNDEFINED:
            symbols.append(Symbol(text, None, 0, exported=False))
        elif section == _ABSOLUTE_INDEX:
            symbols.append(Symbol(text, _ABSOLUTE_INDEX, value, exported=False))
        elif section >= len(sections) or value > sections[section].size:
            raise DataError(f"symbol {text!r} points outside the object")
        else:
            loaded = bool(sections[section].flags & _FLAG_ALLOCATE)
            symbols.append(Symbol(text, section, value, exported=loaded and info >> 4 != 0 and bool(text)))
    return tuple(symbols), tables[0]


def _is_loaded(section: Section) -> bool:
    # Kernels do not unwind: without the frames there is nothing to register with the unwinder either.
    return bool(section.flags & _FLAG_ALLOCATE) and section.name != _UNWIND_SECTION and section.size > 0


def _parse_relocations(
    image: bytes, sections: list[Section], symbols: tuple[Symbol, ...], table_index: int, machine: Machine
) -> list[tuple[int, int, RelocationKind, int, int]]:
    """(section, offset in it, kind, symbol, addend) of each relocation of a loaded section."""
    found = []
    for section in sections:
        if section.kind not in (_RELOCATIONS, _RELOCATIONS_WITH_ADDEND):
            continue
        if section.info >= len(sections) or section.link != table_index:
            raise DataError("a relocation section belongs to no section or to no symbols")
        target = sections[section.info]
        if not _is_loaded(target):
            continue
        if (
            section.kind == _RELOCATIONS
            or section.entry_size != _RELOCATION.size
            or section.size % _RELOCATION.size
        ):
            raise DataError("a relocation section is malformed")
        for at in range(section.offset, section.offset + section.size, _RELOCATION.size):
            offset, info, addend = _RELOCATION.unpack_from(image, at)
            kind = machine.relocations.get(info & 0xFFFFFFFF)
            if kind is None:
                raise DataError(f"relocation type {info & 0xFFFFFFFF} is not supported on {machine.name}")
            if target.kind == _NO_BITS or offset + kind.size > target.size or info >> 32 >= len(symbols):
                raise DataError(f"a relocation of {target.name} points outside the object")
            found.append((section.info, offset, kind, info >> 32, addend))
    return found


def _lay_out(
    image: bytes,
    machine: Machine,
    sections: list[Section],
    symbols: tuple[Symbol, ...],
    raw: list[tuple[int, int, RelocationKind, int, int]],
) -> ElfObject:
    stubs = sorted({s for _, _, kind, s, _ in raw if kind.through == "stub" and symbols[s].section is None})
    table = sorted({symbol for _, _, kind, symbol, _ in raw if kind.through == "table"})
    place = 0
    placed = list(sections)
    groups, stub_places, table_places = [], {}, {}
    for protection in (READ | EXECUTE, READ, READ | WRITE):
        start = place = round_up(place, PAGE)
        for index, section in enumerate(sections):
            if _is_loaded(section) and _protection(section) == protection:
                place = round_up(place, section.alignment)
                placed[index] = _placed(section, place)
                place += section.size
        if protection == READ | EXECUTE:
            place = round_up(place, _STUB_SIZE)
            stub_places = {symbol: place + i * _STUB_SIZE for i, symbol in enumerate(stubs)}
            place += len(stubs) * _STUB_SIZE
        elif protection == READ:
            place = round_up(place, _GOT_SIZE)
            table_places = {symbol: place + i * _GOT_SIZE for i, symbol in enumerate(table)}
            place += len(table) * _GOT_SIZE
        if place > start:
            groups.append(Group(start, place - start, protection))
        if place > _LARGEST:
            raise DataError(f"an object of more than {_LARGEST} bytes")
    if not groups:
        raise DataError("an object without code")
    relocations = tuple(
        Relocation((placed[section].place or 0) + offset, kind, symbol, addend)
        for section, offset, kind, symbol, addend in raw
    )
    return ElfObject(
        image, machine, tuple(placed), symbols, relocations, tuple(groups), place, stub_places, table_places
    )


def _placed(section: Section, place: int) -> Section:
    return Section(
        section.name, section.kind, section.flags, section.offset, section.size, section.link, section.info,
        section.alignment, section.entry_size, place,
    )  # fmt: skip


def _protection(section: Section) -> int:
    if section.flags & _FLAG_THREAD_LOCAL:
        raise DataError(f"section {section.name!r} is thread-local")
    if section.flags & _FLAG_EXECUTE:
        if section.flags & _FLAG_WRITE:
            raise DataError(f"section {section.name!r} is both writable and executable")
        return READ | EXECUTE
    return READ | WRITE if section.flags & _FLAG_WRITE else READ


def _within(image: bytes, offset: int, size: int, what: str) -> None:
    if offset + size > len(image):
        raise DataError(f"{what} ends at byte {offset + size} of a file of {len(image)}")


def _string_table(image: bytes, offset: int, size: int) -> bytes:
    _within(image, offset, size, "a string table")
    table = image[offset : offset + size]
    if not table.endswith(b"\0"):
        raise DataError("a string table without an end")
    return table


def _string(table: bytes, offset: int) -> str:
    if offset >= len(table):
        raise DataError("a name outside its string table")
    return table[offset : table.index(b"\0", offset)].decode("ascii", "backslashreplace")

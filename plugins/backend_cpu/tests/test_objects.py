"""The object loader: the same results as LLVM's linker, and nothing malformed is ever mapped."""

from __future__ import annotations

import array
import ctypes
import gc
import random
import struct
import sys

import pytest
from tinycore_backend_cpu import objects
from tinycore_backend_cpu.compile import compile_ir
from tinycore_backend_cpu.elf import ElfObject
from tinycore_backend_cpu.objects import has_own_loader, load_object, process_symbol
from tinycore_backend_cpu.pages import EXECUTE, WRITE

from tinycore.errors import DataError

elf_only = pytest.mark.skipif(not has_own_loader(), reason="LLVM links here")

# Constants, tables of addresses, a jump table, mutable and zeroed globals, memory intrinsics, calls.
EVERYTHING = """
@table = internal constant [4 x i64] [i64 3, i64 1, i64 4, i64 1], align 16
@counter = internal global i64 100, align 8
@zeroed = internal global [512 x i64] zeroinitializer, align 64
@functions = internal constant [2 x ptr] [ptr @double, ptr @negate]
@exported = global i64 77
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llabs(i64)
define internal i64 @double(i64 %x) noinline {
  %y = mul i64 %x, 2
  ret i64 %y
}
define internal i64 @negate(i64 %x) noinline {
  %y = sub i64 0, %x
  ret i64 %y
}
define i64 @compute(i64 %x, ptr %scratch, i64 %bytes) {
entry:
  %low = and i64 %x, 3
  %entry_at = getelementptr [4 x i64], ptr @table, i64 0, i64 %low
  %t = load i64, ptr %entry_at
  %old = load i64, ptr @counter
  %new = add i64 %old, 1
  store i64 %new, ptr @counter
  %slot = getelementptr [512 x i64], ptr @zeroed, i64 0, i64 %low
  %z = load i64, ptr %slot
  %z1 = add i64 %z, %x
  store i64 %z1, ptr %slot
  %bit = and i64 %x, 1
  %function_at = getelementptr [2 x ptr], ptr @functions, i64 0, i64 %bit
  %function = load ptr, ptr %function_at
  %called = call i64 %function(i64 %x)
  %absolute = call i64 @llabs(i64 %called)
  %e = load i64, ptr @exported
  call void @llvm.memset.p0.i64(ptr %scratch, i8 7, i64 %bytes, i1 false)
  %half = lshr i64 %bytes, 1
  %upper = getelementptr i8, ptr %scratch, i64 %half
  call void @llvm.memcpy.p0.p0.i64(ptr %upper, ptr @zeroed, i64 %half, i1 false)
  switch i64 %low, label %d [ i64 0, label %a
                              i64 1, label %b
                              i64 2, label %c ]
a:
  br label %join
b:
  br label %join
c:
  br label %join
d:
  br label %join
join:
  %s = phi i64 [ 1000, %a ], [ 2003, %b ], [ 30007, %c ], [ 400009, %d ]
  %1 = add i64 %t, %new
  %2 = add i64 %1, %z1
  %3 = add i64 %2, %called
  %4 = add i64 %3, %absolute
  %5 = add i64 %4, %e
  %6 = add i64 %5, %s
  ret i64 %6
}
define void @vectors(ptr %words, i64 %chunk, i64 %thread) {
  %p = load ptr, ptr %words
  %v = load <8 x double>, ptr %p, align 8
  %w = fmul <8 x double> %v, <FACTORS>
  store <8 x double> %w, ptr %p, align 8
  ret void
}
""".replace("FACTORS", ", ".join(f"double {i + 1.5}" for i in range(8)))


@pytest.fixture(scope="module")
def image():
    return compile_ir(EVERYTHING, allowed_symbols=frozenset({"llabs"}))


def load(image, **options):
    return load_object(
        image, names=("compute", "vectors"), external={"llabs": process_symbol("llabs")}, **options
    )


def exercise(loaded):
    compute = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(
        loaded.address("compute")
    )
    scratch = (ctypes.c_uint8 * 4096)()
    results = [compute(x, ctypes.addressof(scratch), 256 + x) for x in range(-20, 40)]
    vector = array.array("d", range(8))
    words = array.array("q", [vector.buffer_info()[0]])
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(loaded.address("vectors"))(
        words.buffer_info()[0], 0, 0
    )
    return results, bytes(scratch), list(vector)


def test_both_loaders_give_the_same_results(image, monkeypatch):
    own = exercise(load(image))
    monkeypatch.setattr(objects, "has_own_loader", lambda: False)
    assert own == exercise(load(image))
    assert own[2] == [i * (i + 1.5) for i in range(8)]
    assert len(set(own[0])) > 50


@elf_only
def test_each_loading_has_its_own_variables(image):
    first, second = load(image), load(image)
    once = exercise(first)
    assert exercise(first) != once  # its counter went on
    assert exercise(second) == once
    assert first.address("exported") != second.address("exported")
    assert ctypes.c_int64.from_address(first.address("exported")).value == 77


@elf_only
def test_no_page_is_writable_and_executable(image):
    loaded = load(image)
    parsed = ElfObject.parse(image)
    assert not any(g.protection & WRITE and g.protection & EXECUTE for g in parsed.groups)
    with open("/proc/self/maps", encoding="ascii") as maps:
        lines = [line.split() for line in maps]
    ranges = [(*(int(end, 16) for end in line[0].split("-")), line[1]) for line in lines]

    def protection(address):
        return next(mode for start, end, mode in ranges if start <= address < end)

    assert protection(loaded.address("compute")) == "r-xp"
    assert protection(loaded.address("exported")) == "rw-p"
    base = loaded.address("compute") - parsed.exports(0)["compute"]
    own = [mode for start, end, mode in ranges if start < base + parsed.size and end > base]
    assert sorted(own) == ["r--p", "r-xp", "rw-p"]


@elf_only
def test_code_is_unmapped_with_its_object(image):
    loaded = load(image)
    code = loaded.address("compute")

    def mapped():
        with open("/proc/self/maps", encoding="ascii") as maps:
            spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
        return any(start <= code < end for start, end in spans)

    assert mapped()
    del loaded
    gc.collect()
    assert not mapped()


@elf_only
def test_what_the_object_needs_has_to_be_offered(image):
    assert ElfObject.parse(image).undefined >= {"llabs"}
    with pytest.raises(DataError, match="llabs"):
        load_object(image)


@elf_only
def test_functions_too_far_for_a_direct_call_are_reached(image):
    """Libraries may lie anywhere: a call goes through a jump beside the code."""
    parsed = ElfObject.parse(image)
    far = 0x1234_5678_9ABC
    linked = parsed.link(0x7F12_3450_0000, dict.fromkeys(parsed.undefined, far))
    assert len(parsed.stubs) == len(parsed.undefined)
    for place in parsed.stubs.values():
        assert struct.unpack_from("<Q", linked, place + 8)[0] == far


def test_a_missing_kernel_is_named(image):
    if has_own_loader():
        with pytest.raises(DataError, match="defines no 'absent'"):
            load_object(image, names=("absent",), external={"llabs": process_symbol("llabs")})


@pytest.fixture
def mapped_sizes(monkeypatch):
    """The sizes that the loader asked the system for."""
    sizes = []
    original = objects.map_pages

    def recording(size):
        sizes.append(size)
        return original(size)

    monkeypatch.setattr(objects, "map_pages", recording)
    return sizes


def changed(image, offset, code, value):
    data = bytearray(image)
    struct.pack_into(code, data, offset, value)
    return bytes(data)


def section(image, kind):
    """Offset of the first section header of a kind."""
    (table,) = struct.unpack_from("<Q", image, 40)
    (count,) = struct.unpack_from("<H", image, 60)
    for at in range(table, table + 64 * count, 64):
        if struct.unpack_from("<I", image, at + 4)[0] == kind:
            return at
    raise AssertionError(kind)


def contents(image, kind):
    return struct.unpack_from("<Q", image, section(image, kind) + 24)[0]


SYMBOLS, RELOCATIONS = 2, 4
DAMAGES = {
    "empty": lambda i: b"",
    "text": lambda i: b"define void @k() {}" * 20,
    "header only": lambda i: i[:64],
    "half": lambda i: i[: len(i) // 2],
    "last byte missing": lambda i: i[:-1],
    "32 bit": lambda i: changed(i, 4, "<B", 1),
    "big-endian": lambda i: changed(i, 5, "<B", 2),
    "executable": lambda i: changed(i, 16, "<H", 2),
    "another machine": lambda i: changed(i, 18, "<H", 40),
    "section table outside": lambda i: changed(i, 40, "<Q", 1 << 60),
    "section entry size": lambda i: changed(i, 58, "<H", 8),
    "section count": lambda i: changed(i, 60, "<H", 60000),
    "name table index": lambda i: changed(i, 62, "<H", 9999),
    "section outside": lambda i: changed(i, section(i, 1) + 24, "<Q", len(i)),
    "huge section": lambda i: changed(i, section(i, 1) + 32, "<Q", 1 << 62),
    "huge zeroed section": lambda i: changed(i, section(i, 8) + 32, "<Q", 1 << 40),
    "odd alignment": lambda i: changed(i, section(i, 1) + 48, "<Q", 3),
    "writable code": lambda i: changed(i, section(i, 1) + 8, "<Q", 7),
    "thread-local": lambda i: changed(i, section(i, 8) + 8, "<Q", 3 | 1 << 10),
    "section name outside": lambda i: changed(i, section(i, 1), "<I", 1 << 30),
    "no symbols": lambda i: changed(i, section(i, SYMBOLS) + 4, "<I", 1),
    "symbol entry size": lambda i: changed(i, section(i, SYMBOLS) + 56, "<Q", 7),
    "symbol strings": lambda i: changed(i, section(i, SYMBOLS) + 40, "<I", 5000),
    "symbol section": lambda i: changed(i, contents(i, SYMBOLS) + 24 + 6, "<H", 1234),
    "symbol value": lambda i: changed(i, contents(i, SYMBOLS) + 5 * 24 + 8, "<Q", 1 << 50),
    "symbol name": lambda i: changed(i, contents(i, SYMBOLS) + 24, "<I", 1 << 31),
    "relocation target": lambda i: changed(i, section(i, RELOCATIONS) + 44, "<I", 777),
    "relocation symbols": lambda i: changed(i, section(i, RELOCATIONS) + 40, "<I", 0),
    "relocation size": lambda i: changed(i, section(i, RELOCATIONS) + 32, "<Q", 25),
    "relocation offset": lambda i: changed(i, contents(i, RELOCATIONS), "<Q", 1 << 40),
    "relocation at the end": lambda i: changed(
        i, contents(i, RELOCATIONS), "<Q", struct.unpack_from("<Q", i, section(i, 1) + 32)[0] - 3
    ),
    "relocation type": lambda i: changed(i, contents(i, RELOCATIONS) + 8, "<I", 250),
    "relocation symbol": lambda i: changed(i, contents(i, RELOCATIONS) + 12, "<I", 1 << 20),
}


@elf_only
@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_malformed_object_is_refused_before_anything_is_mapped(image, kind, mapped_sizes):
    broken = DAMAGES[kind](image)
    assert broken != image
    with pytest.raises(DataError):
        load(broken)
    assert mapped_sizes == []


@elf_only
def test_a_distance_that_does_not_fit_is_refused_and_given_back(image, mapped_sizes, monkeypatch):
    unmapped = []
    original = objects.unmap_pages
    monkeypatch.setattr(objects, "unmap_pages", lambda a, s: (unmapped.append(s), original(a, s)))
    with pytest.raises(DataError, match="out of range"):
        load(changed(image, contents(image, RELOCATIONS) + 16, "<q", 1 << 40))
    assert unmapped == mapped_sizes
    assert len(unmapped) == 1


@elf_only
def test_random_damage_never_escapes_the_checks(image):
    """Any bytes at all: parse and link answer or raise DataError, and never write outside the image."""
    generator = random.Random(7)
    (table,) = struct.unpack_from("<Q", image, 40)
    interesting = [*range(64), *range(table, len(image))]
    interesting += range(contents(image, SYMBOLS), contents(image, SYMBOLS) + 400)
    interesting += range(contents(image, RELOCATIONS), contents(image, RELOCATIONS) + 400)
    refused = 0
    for _ in range(3000):
        data = bytearray(image)
        for _ in range(generator.randint(1, 3)):
            data[generator.choice(interesting)] = generator.choice((0, 1, 2, 4, 127, 128, 255))
        try:
            parsed = ElfObject.parse(bytes(data))
            linked = parsed.link(0x7F0000000000, dict.fromkeys(parsed.undefined, 0x7F0000100000))
            assert len(linked) == parsed.size
        except DataError:
            refused += 1
    assert refused > 300


# -- AArch64, without such a machine: the fields are decoded by the manual's formulas and have to point right


CROSS = """
@table = internal constant [4 x i64] [i64 3, i64 1, i64 4, i64 1], align 16
@floats = internal constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0], align 16
@bytes = internal global [64 x i8] zeroinitializer, align 1
@pointers = internal constant [2 x ptr] [ptr @other, ptr @outside]
@elsewhere = external global i64
declare void @outside(ptr)
define internal void @other(ptr %p) noinline {
  call void @outside(ptr %p)
  ret void
}
define i64 @main_one(i64 %i, ptr %p) {
  %at = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %x = load i64, ptr %at
  %v = load <4 x float>, ptr @floats, align 16
  store <4 x float> %v, ptr %p
  %b = load i8, ptr @bytes
  %bw = zext i8 %b to i64
  %f = load ptr, ptr getelementptr ([2 x ptr], ptr @pointers, i64 0, i64 1)
  call void %f(ptr %p)
  call void @other(ptr %p)
  %e = load i64, ptr @elsewhere
  %s = add i64 %x, %bw
  %t = add i64 %s, %e
  ret i64 %t
}
"""
BASE = 0x0000_7F12_3450_0000
OUTSIDE = {"outside": 0x0000_1234_5678_9AB0, "elsewhere": 0x0000_5555_6666_7770}


@pytest.fixture(scope="module")
def cross_image():
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(CROSS)
    module.triple = "aarch64-unknown-linux-gnu"
    machine = llvm.Target.from_triple(module.triple).create_target_machine(
        cpu="neoverse-n1", reloc="pic", codemodel="small"
    )
    return machine.emit_object(module)


def sign(value, bits):
    return value - (1 << bits) if value >> (bits - 1) else value


def decoded_target(linked, relocation, symbol_page):
    """Where an instruction points, from its encoding: a page, an address, or the low 12 bits."""
    (word,) = struct.unpack_from("<I", linked, relocation.place)
    address = BASE + relocation.place
    name = relocation.kind.name
    if name.endswith(("CALL26", "JUMP26")):
        return address + sign(word & 0x3FFFFFF, 26) * 4
    if "PG_HI21" in name or "GOT_PAGE" in name:
        pages = sign(((word >> 5 & 0x7FFFF) << 2) | (word >> 29 & 3), 21)
        return (address & ~0xFFF) + pages * 4096
    if "LO12" in name:
        scale = 0
        if word >> 27 & 7 == 0b111:  # loads and stores scale their offset by the size of the access
            scale = 4 if word >> 26 & 1 and word >> 22 & 2 else word >> 30
        return symbol_page | ((word >> 10 & 0xFFF) << scale)
    return None


def test_aarch64_relocations_point_where_they_should(cross_image):
    parsed = ElfObject.parse(cross_image)
    assert parsed.undefined == {"outside", "elsewhere"}
    linked = parsed.link(BASE, OUTSIDE)
    checked = set()
    for relocation in parsed.relocations:
        kind = relocation.kind
        symbol = parsed.symbols[relocation.symbol]
        if kind.through == "table":
            target = BASE + parsed.offset_table[relocation.symbol]
            assert struct.unpack_from("<Q", linked, target - BASE)[0] == OUTSIDE[symbol.name]
        elif kind.through == "stub" and symbol.section is None:
            target = BASE + parsed.stubs[relocation.symbol]
            stub = struct.unpack_from("<IIQ", linked, target - BASE)
            assert stub == (0x58000050, 0xD61F0200, OUTSIDE[symbol.name])
        elif symbol.section is None:
            target = OUTSIDE[symbol.name]
        else:
            target = BASE + parsed.sections[symbol.section].place + symbol.value
        target += relocation.addend
        if kind.name.endswith("ABS64"):
            assert struct.unpack_from("<Q", linked, relocation.place)[0] == target
        else:
            found = decoded_target(linked, relocation, target & ~0xFFF)
            wanted = target & ~0xFFF if "HI21" in kind.name or "GOT_PAGE" in kind.name else target
            assert found == wanted, kind.name
        checked.add(kind.name.removeprefix("R_AARCH64_"))
    assert checked >= {
        "ADR_PREL_PG_HI21",
        "ADD_ABS_LO12_NC",
        "CALL26",
        "ABS64",
        "ADR_GOT_PAGE",
        "LD64_GOT_LO12_NC",
    }
    assert any(name.startswith("LDST") for name in checked)


def test_aarch64_code_runs_in_an_emulator(cross_image):
    """The linked image, executed by another implementation of the instruction set."""
    unicorn = pytest.importorskip("unicorn", exc_type=ImportError)
    from unicorn import arm64_const as registers

    parsed = ElfObject.parse(cross_image)
    linked = parsed.link(BASE, OUTSIDE)
    stack, data, stop = 0x1000_0000, 0x2000_0000, 0x3000_0000
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    for address in (stack, data, stop, OUTSIDE["outside"] & ~0xFFF, OUTSIDE["elsewhere"] & ~0xFFF):
        machine.mem_map(address, 0x1000)
    machine.mem_map(BASE, (parsed.size + 0xFFF) & ~0xFFF)
    machine.mem_write(BASE, linked)
    machine.mem_write(OUTSIDE["outside"], struct.pack("<I", 0xD65F03C0))  # ret
    machine.mem_write(OUTSIDE["elsewhere"], struct.pack("<q", 5000))
    calls = []
    machine.hook_add(
        unicorn.UC_HOOK_CODE, lambda *_: calls.append(1), begin=OUTSIDE["outside"], end=OUTSIDE["outside"]
    )
    machine.reg_write(registers.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # vectors on
    for index, value in enumerate((3, 1, 4, 1)):
        calls.clear()
        machine.reg_write(registers.UC_ARM64_REG_SP, stack + 0x800)
        machine.reg_write(registers.UC_ARM64_REG_LR, stop)
        machine.reg_write(registers.UC_ARM64_REG_X0, index)
        machine.reg_write(registers.UC_ARM64_REG_X1, data)
        machine.emu_start(parsed.exports(BASE)["main_one"], stop, timeout=10_000_000)
        assert machine.reg_read(registers.UC_ARM64_REG_X0) == 5000 + value
        assert len(calls) == 2
        assert struct.unpack("<4f", machine.mem_read(data, 16)) == (1.0, 2.0, 3.0, 4.0)


@elf_only
def test_code_for_another_machine_is_not_mapped(cross_image, mapped_sizes):
    if sys.platform == "linux" and ElfObject.parse(cross_image).machine is objects._HOST:
        pytest.skip("this is such a machine")
    with pytest.raises(DataError, match="AArch64"):
        load_object(cross_image, external=OUTSIDE)
    assert mapped_sizes == []

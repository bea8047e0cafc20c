"""GCN for every architecture: instructions, descriptors, and assembly that assembles to the same code."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import pytest
from tinycore_backend_amd import compile_target
from tinycore_backend_amd.target import COMPUTE_UNITS
from tinycore_codegen_llvm.testing import SAMPLES, ProgramBuilder

from tinycore.errors import BackendUnavailable
from tinycore.ir import UOp, dtypes, ops

ARCHITECTURES = ["gfx1100", "gfx1201", "gfx942"]
DTYPES = sorted(compile_target().capabilities.dtypes, key=str)


def sections(elf):
    """The content of every section of a 64-bit little-endian ELF file, by name."""
    (offset,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + position * size) for position in range(count)]
    strings = elf[headers[names][4] :]
    found = {}
    for name, kind, _, _, start, length, *_ in headers:
        text = strings[name : strings.index(b"\0", name)].decode()
        found[text] = elf[start : start + length] if kind != 8 else b""
    return found


def assembler():
    """An llvm-mc as new as the LLVM that wrote the assembly: older ones do not know its directives."""
    for name in ("llvm-mc-22", "llvm-mc-23", "llvm-mc"):
        path = shutil.which(name)
        if path:
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            number = re.search(r"LLVM version (\d+)", version)
            if number and int(number[1]) >= 22:
                return path
    return None


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_assembly_assembles_to_the_object(architecture, name, tmp_path):
    path = assembler()
    if path is None:
        pytest.skip("no llvm-mc of LLVM 22 or newer: apt-get install llvm-22")
    target = compile_target(architecture)
    source = target.render(SAMPLES[name])
    (tmp_path / "k.s").write_text(target.assembly(source))
    features = [f"-mattr={target.machine.features}"] if target.machine.features else []
    command = [path, "-triple=amdgcn-amd-amdhsa", f"-mcpu={architecture}", *features, "-filetype=obj"]
    subprocess.run([*command, str(tmp_path / "k.s"), "-o", str(tmp_path / "k.o")], check=True)
    ours, theirs = sections(target.compile(source, name)), sections((tmp_path / "k.o").read_bytes())
    assert ours[".text"] == theirs[".text"] and len(ours[".text"]) > 64
    assert ours[".rodata"] == theirs[".rodata"] and len(ours[".rodata"]) == 64  # one kernel descriptor


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("architecture", COMPUTE_UNITS)
def test_every_architecture(architecture, name):
    target = compile_target(architecture)
    source = target.render(SAMPLES[name])
    assembly = target.assembly(source)
    assert f"amdgcn-amd-amdhsa--{architecture}" in assembly
    assert re.search(r"\.vgpr_spill_count: +0\n", assembly) and re.search(
        r"\.sgpr_spill_count: +0\n", assembly
    )
    assert "s_endpgm" in assembly and ".amdhsa_code_object_version 5" in assembly
    object_code = target.compile(source, name)
    machine, version = struct.unpack_from("<H", object_code, 18)[0], object_code[8]
    assert (machine, version) == (224, 3)  # EM_AMDGPU, ELFABIVERSION_AMDGPU_HSA_V5
    assert name.encode() + b".kd\0" in object_code


def test_shared_memory_and_barriers():
    target = compile_target("gfx1100")
    assembly = target.assembly(target.render(SAMPLES["row_sums"]))
    assert "s_barrier" in assembly and "ds_store_b32" in assembly
    assert ".amdhsa_group_segment_fixed_size 256" in assembly
    assert "gl0_inv" not in assembly  # what +cumode is for
    assert "global_load_b128" in assembly  # four neighbours in one instruction: the alignment was proved


def test_only_what_a_launcher_knows_is_asked_of_it():
    target = compile_target("gfx1100")
    assembly = target.assembly(target.render(SAMPLES["matmul"]))
    assert re.search(r"\.kernarg_segment_size: +24\n", assembly) and "hidden_" not in assembly
    for register in ("dispatch_ptr", "queue_ptr", "dispatch_id"):
        assert f".amdhsa_user_sgpr_{register} 0" in assembly
    assert "v_fma" in assembly or "v_dual_fmac" in assembly or "v_fmac" in assembly


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_op_and_cast(dtype):
    """In one kernel, so that no combination is left to fail on a user's machine."""
    builder = ProgramBuilder()
    x, item = builder.buffer(0, dtype, 64), builder.range(64, "local")
    value = builder.load(x, item)
    native = sorted(compile_target().capabilities.ops - {ops.CAST, ops.BITCAST, ops.WHERE}, key=str)
    native = [op for op in native if dtype in dtypes.CLASSES[op.operands[0].split(":")[-1]]]
    results = [
        UOp(op, dtypes.bool_ if op.dtype == "bool" else dtype, (value,) * len(op.operands)) for op in native
    ]
    results += [value.cast(target) for target in DTYPES]
    for slot, result in enumerate(results, 1):
        builder.store(builder.buffer(slot, result.dtype, 64), item, result)
    program = builder.program("k", group=(64,))
    for architecture in ARCHITECTURES:
        target = compile_target(architecture)
        assembly = target.assembly(target.render(program))
        assert "s_swappc" not in assembly and "@rel32" not in assembly  # no calls


def test_dimension_x_is_the_last():
    builder = ProgramBuilder()
    ids = [builder.range(size, kind) for kind in ("global", "local") for size in (2, 3, 5)]
    index = ids[0]
    for node, size in zip(ids[1:], (3, 5, 2, 3, 5), strict=True):
        index = index * size + node
    builder.store(builder.buffer(0, dtypes.int64, 900), index, index)
    text = compile_target().render(builder.program("k", grid=(2, 3, 5), group=(2, 3, 5)))
    order = re.findall(r"\.(workgroup|workitem)\.id\.(\w)\(", text)[:6]
    assert order == [(register, axis) for register in ("workgroup", "workitem") for axis in "zyx"]
    assert "!{i32 5, i32 3, i32 2}" in text and '"30,30"' in text


def test_unknown_architectures_are_refused_with_a_hint():
    with pytest.raises(BackendUnavailable, match="did you mean 'gfx110"):
        compile_target("gfx110")


def test_capabilities_are_those_of_the_manifest():
    import tomllib
    from importlib.resources import files

    manifest = tomllib.loads(files("tinycore_backend_amd").joinpath("tinycore.toml").read_text())
    claimed = manifest["backend"][0]["capabilities"]["dtypes"]
    assert {dtype.name for dtype in compile_target().capabilities.dtypes} == set(claimed)

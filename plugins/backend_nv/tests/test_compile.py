"""PTX for every architecture, accepted by NVIDIA's own assembler where it is installed."""

from __future__ import annotations

import re

import pytest
from tinycore_backend_nv import compile_target, nvjitlink
from tinycore_backend_nv.target import PTX_VERSIONS
from tinycore_codegen_llvm.testing import SAMPLES, ProgramBuilder

from tinycore.errors import BackendUnavailable, CompileError
from tinycore.ir import UOp, dtypes, ops

ARCHITECTURES = ["sm_80", "sm_90", "sm_90a", "sm_100", "sm_100a", "sm_120"]
needs_assembler = pytest.mark.skipif(not nvjitlink.available(), reason=f"no nvJitLink: {nvjitlink.HINT}")


@needs_assembler
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_assembler_accepts_it(architecture, name):
    target = compile_target(architecture)
    ptx = target.compile(target.render(SAMPLES[name]), name)
    cubin, log = nvjitlink.machine_code(ptx, architecture)
    assert cubin[:4] == b"\x7fELF"
    assert re.search(r"0 bytes spill stores, 0 bytes spill loads", log), log
    assert re.search(r"Used \d+ registers", log), log


@needs_assembler
@pytest.mark.parametrize("architecture", PTX_VERSIONS)
def test_the_ptx_version_is_enough(architecture):
    target = compile_target(architecture)
    nvjitlink.machine_code(target.compile(target.render(SAMPLES["row_sums"]), "k"), architecture)


@needs_assembler
def test_invalid_ptx_is_refused_with_the_line():
    target = compile_target("sm_90")
    ptx = target.compile(target.render(SAMPLES["matmul"]), "matmul")
    with pytest.raises(CompileError, match="not valid for sm_90") as caught:
        nvjitlink.machine_code(ptx.replace(b"fma.rn.f32", b"fmx.rn.f32"), "sm_90")
    assert "line" in str(caught.value)


DTYPES = sorted(compile_target().capabilities.dtypes, key=str)
OPS = sorted(compile_target().capabilities.ops - {ops.CAST, ops.BITCAST, ops.WHERE}, key=str)


def allowed(op, dtype):
    """Whether the op table has this op for this dtype."""
    name = op.operands[0].split(":")[-1]
    return dtype in dtypes.CLASSES[name]


@needs_assembler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_op(dtype):
    """In one kernel, so that no combination is left to fail on a user's machine."""
    builder = ProgramBuilder()
    x, item = builder.buffer(0, dtype, 64), builder.range(64, "local")
    value = builder.load(x, item)
    native = [op for op in OPS if allowed(op, dtype)]
    for slot, op in enumerate(native, 1):
        result = dtypes.bool_ if op.dtype == "bool" else dtype
        node = UOp(op, result, (value,) * len(op.operands))
        builder.store(builder.buffer(slot, result, 64), item, node)
    target = compile_target("sm_80")
    program = builder.program("k", group=(64,))
    nvjitlink.machine_code(target.compile(target.render(program), "k"), "sm_80")
    assert len(native) > 5


@needs_assembler
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_every_cast(source):
    builder = ProgramBuilder()
    item = builder.range(64, "local")
    value = builder.load(builder.buffer(0, source, 64), item)
    for slot, dtype in enumerate(DTYPES, 1):
        builder.store(builder.buffer(slot, dtype, 64), item, value.cast(dtype))
    target = compile_target("sm_90")
    nvjitlink.machine_code(target.compile(target.render(builder.program("k", group=(64,))), "k"), "sm_90")


def test_the_text_says_what_the_launch_must_know():
    target = compile_target("sm_90")
    ptx = target.assembly(target.render(SAMPLES["row_sums"]))
    assert ".visible .entry row_sums(" in ptx and ".target sm_90" in ptx and ".version 8.0" in ptx
    assert ".reqntid 64, 1, 1" in ptx
    assert "bar.sync" in ptx and ".shared" in ptx
    assert "ld.global.v4" in ptx  # four neighbours in one instruction: the alignment was proved


def test_fused_multiply_add_and_no_other_contraction():
    target = compile_target("sm_90")
    assert target.assembly(target.render(SAMPLES["matmul"])).count("fma.rn.f32") == 16
    assert "fma" not in target.assembly(target.render(SAMPLES["scaled_sum"]))


def test_dimension_x_is_the_last():
    builder = ProgramBuilder()
    ids = [builder.range(size, kind) for kind in ("global", "local") for size in (2, 3, 5)]
    out = builder.buffer(0, dtypes.int64, 900)
    index = ids[0]
    for node, size in zip(ids[1:], (3, 5, 2, 3, 5), strict=True):
        index = index * size + node
    builder.store(out, index, index)
    program = builder.program("k", grid=(2, 3, 5), group=(2, 3, 5))
    text = compile_target().render(program)
    order = re.findall(r"sreg\.(ctaid|tid)\.(\w)\(", text)[:6]
    assert order == [(register, axis) for register in ("ctaid", "tid") for axis in "zyx"]
    assert '"nvvm.reqntid"="5,3,2"' in text


def test_unknown_architectures_are_refused_with_a_hint():
    with pytest.raises(BackendUnavailable, match="did you mean 'sm_90'"):
        compile_target("sm90")


def test_capabilities_are_those_of_the_manifest():
    import tomllib
    from importlib.resources import files

    manifest = tomllib.loads(files("tinycore_backend_nv").joinpath("tinycore.toml").read_text())
    claimed = manifest["backend"][0]["capabilities"]["dtypes"]
    assert {dtype.name for dtype in compile_target().capabilities.dtypes} == set(claimed)

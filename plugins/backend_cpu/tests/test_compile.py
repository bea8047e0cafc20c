"""LLVM IR text to objects: good code, and errors that show the line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tinycore_backend_cpu import compile as compiling
from tinycore_backend_cpu.compile import compile_ir, disassembly, fingerprint
from tinycore_backend_cpu.elf import ElfObject

from tinycore.errors import CompileError

GOOD = "define void @k(ptr %words, i64 %chunk, i64 %thread) {\n  ret void\n}\n"


def test_a_parse_error_shows_the_line_with_a_caret():
    with pytest.raises(CompileError) as caught:
        compile_ir("define void @k() {\n  %a = add i32 1, 2\n  %c = add i32 %b, 1\n  ret void\n}\n")
    assert "line 3" in str(caught.value)
    assert "undefined value '%b'" in str(caught.value)
    *_, line, caret = caught.value.where.splitlines()
    assert "%c = add i32 %b, 1" in line
    assert line[caret.index("^") :].startswith("%b")


def test_a_verifier_error_names_the_instruction():
    with pytest.raises(CompileError, match="PHI node entries"):
        compile_ir("define void @f() {\n br label %x\nx:\n %b = phi i32 [1, %x]\n ret void\n}")


def test_external_functions_have_to_be_allowed():
    text = "declare void @abort()\ndefine void @k() {\n  call void @abort()\n  ret void\n}"
    with pytest.raises(CompileError, match="'abort'"):
        compile_ir(text)
    assert ElfObject.parse(compile_ir(text, allowed_symbols=frozenset({"abort"}))).undefined == {"abort"}


def test_external_globals_have_to_be_allowed():
    text = "@environ = external global ptr\ndefine ptr @k() {\n  %p = load ptr, ptr @environ\n  ret ptr %p\n}"
    with pytest.raises(CompileError, match="'environ'"):
        compile_ir(text)


def test_the_same_text_gives_the_same_object(kernels_source):
    assert compile_ir(kernels_source) == compile_ir(kernels_source)


def test_accumulators_stay_in_registers():
    """The shape that the renderer emits, with loop strength reduction off: a loop of vector instructions."""
    rows, text = 8, []
    phis = "\n".join(
        f"  %a{r} = phi <16 x float> [ zeroinitializer, %entry ], [ %n{r}, %loop ]" for r in range(rows)
    )
    for r in range(rows):
        text.append(f"  %p{r} = getelementptr float, ptr %a, i64 {r * 1024}")
        text.append(f"  %q{r} = getelementptr float, ptr %p{r}, i64 %k")
        text.append(f"  %s{r} = load float, ptr %q{r}, align 4")
        text.append(f"  %i{r} = insertelement <16 x float> poison, float %s{r}, i64 0")
        text.append(
            f"  %v{r} = shufflevector <16 x float> %i{r}, <16 x float> poison, <16 x i32> zeroinitializer"
        )
        text.append(
            f"  %n{r} = call <16 x float> @llvm.fma.v16f32(<16 x float> %v{r}, <16 x float> %b, "
            f"<16 x float> %a{r})"
        )
    stores = "\n".join(
        f"  %o{r} = getelementptr <16 x float>, ptr %c, i64 {r}\n  store <16 x float> %n{r}, ptr %o{r}"
        for r in range(rows)
    )
    body = "\n".join(text)
    assembly = disassembly(f"""
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define void @k(ptr %a, ptr %bs, ptr %c) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
  %bp = getelementptr <16 x float>, ptr %bs, i64 %k
  %b = load <16 x float>, ptr %bp, align 64
{body}
  %next = add i64 %k, 1
  %more = icmp ult i64 %next, 1024
  br i1 %more, label %loop, label %done
done:
{stores}
  ret void
}}""")
    assert "(%rsp)" not in assembly
    if "zmm" in assembly:
        assert assembly.count("vfmadd") == rows


def test_the_fingerprint_needs_no_llvm_and_knows_what_matters(monkeypatch):
    script = (
        "import sys; from tinycore_backend_cpu.compile import fingerprint; print(fingerprint());"
        "sys.exit('llvmlite' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == fingerprint()
    computed = compiling.fingerprint.__wrapped__
    assert computed() == fingerprint()
    monkeypatch.setattr(compiling, "PROCESS_OPTIONS", ())
    assert computed() != fingerprint()
    monkeypatch.undo()
    monkeypatch.setattr(compiling, "_processor", lambda: ("another",))
    assert computed() != fingerprint()
    monkeypatch.undo()
    monkeypatch.setattr("tinycore.plugin.installed.version_of", lambda name: "99.0")
    assert computed() != fingerprint()


def test_a_warm_start_does_not_import_llvmlite(tmp_path, kernels_object):
    """Opening the device and running a cached kernel: the second process finds the pool's code on disk."""
    (tmp_path / "kernel.o").write_bytes(kernels_object)
    script = f"""
import sys
from pathlib import Path
from tinycore.config import set_default
set_default(cache_directory=Path({str(tmp_path / "cache")!r}))
from tinycore.runtime.device import Signature
from tinycore_backend_cpu import open_device
device = open_device()
kernel = device.load(Path({str(tmp_path / "kernel.o")!r}).read_bytes(), Signature("nothing", 0, 0))
kernel.launch((), (), (100,))
device.close()
print("llvmlite" in sys.modules, "numpy" in sys.modules)
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert outputs[0][0] == "True"
    if sys.platform == "linux":
        assert outputs[1] == ["False", "False"]

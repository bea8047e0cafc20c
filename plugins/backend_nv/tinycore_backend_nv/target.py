"""NVIDIA architectures as targets, and the compiler to PTX: needs LLVM, no driver and no device."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from tinycore_codegen_llvm import NATIVE, fingerprint, render
from tinycore_codegen_llvm.machine import Machine

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable, CompileError, did_you_mean
from tinycore.ir import Capabilities, Target, dtypes
from tinycore_backend_nv import nvjitlink
from tinycore_backend_nv.flavour import PTX, TRIPLE

NAME = "NV"
DEFAULT = "sm_90"

PTX_VERSIONS = {
    "sm_80": 80, "sm_86": 80, "sm_87": 80, "sm_89": 80, "sm_90": 80, "sm_90a": 80,
    "sm_100": 86, "sm_100a": 86, "sm_103": 88, "sm_103a": 88, "sm_120": 87, "sm_120a": 87, "sm_121": 88,
}  # fmt: skip
"""Architectures, and the PTX version to write: 8.0 where it suffices; every driver of CUDA 12 takes that."""

MULTIPROCESSORS = {"sm_80": 108, "sm_90": 132, "sm_90a": 132, "sm_100": 148, "sm_100a": 148, "sm_120": 170}
"""Of a common card: what work is spread over when no device says how many it has."""

LANES_BYTES = 16
"""What one work-item loads at once (``ld.global.v4.f32``)."""
REGISTERS = 255 // 4
"""Vectors of 16 bytes in the 255 registers of a work-item."""


@dataclass(frozen=True, slots=True)
class NvTarget(Target):
    """A target that brings its compiler with it; the code runs on a device of that architecture.

    >>> compile_target("sm_80").capabilities.workgroups
    True
    """

    def render(self, program: Program) -> str:
        """LLVM IR of a program."""
        return render(program, PTX())

    def assembly(self, source: str) -> str:
        """PTX of a rendered program. Raises CompileError."""
        version = PTX_VERSIONS[self.architecture]
        text = Machine(TRIPLE, self.architecture, f"+ptx{version}").assembly(source)
        called = re.search(r"\bcall\.uni\b.*?\n\s*(\w+),", text)
        if called is not None:
            raise CompileError(
                f"the kernel would call {called[1]!r}, which no GPU has",
                hint="kernels are self-contained: lower it to arithmetic",
            )
        return text

    def compile(self, source: str, name: str) -> bytes:
        """PTX as the driver loads it. Raises CompileError."""
        return self.assembly(source).encode() + b"\0"

    def object_code(self, source: str, name: str) -> bytes:
        """A cubin. Raises CompileError, and BackendUnavailable when libnvJitLink is not installed."""
        code, _ = nvjitlink.machine_code(self.compile(source, name), self.architecture)
        return code


def compile_target(architecture: str | None = None) -> NvTarget:
    """Describe an architecture, with no device present. Raises BackendUnavailable for an unknown one.

    >>> compile_target().architecture, compile_target("sm_120").name
    ('sm_90', 'NV')
    """
    name = architecture or DEFAULT
    if name not in PTX_VERSIONS:
        hint = did_you_mean(name, PTX_VERSIONS) or f"one of {', '.join(PTX_VERSIONS)}"
        raise BackendUnavailable(f"unknown NVIDIA architecture {name!r}", hint=hint)
    return target(name, MULTIPROCESSORS.get(name, 128))


@functools.cache
def target(architecture: str, multiprocessors: int) -> NvTarget:
    """The target of an architecture with that many multiprocessors."""
    stored = frozenset(dtypes.DATA) - {dtypes.float8_e4m3, dtypes.float8_e5m2}
    capabilities = Capabilities(
        ops=NATIVE,
        dtypes=stored,
        arithmetic=stored - {dtypes.bfloat16},
        vector_bytes=LANES_BYTES,
        vector_registers=REGISTERS,
        threads=multiprocessors,
        workgroups=True,
        local_size=1024,
        shared_bytes=48 << 10,
        index_bits=(32, 64),
        cache_bytes=(128 << 10, 32 << 20),
    )
    return NvTarget(NAME, architecture, capabilities, f"{fingerprint()}-ptx{PTX_VERSIONS[architecture]}")

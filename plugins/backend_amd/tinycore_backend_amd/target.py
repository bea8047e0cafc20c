"""AMD architectures as targets, and the compiler to GCN: needs LLVM, no driver and no device."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tinycore_codegen_llvm import NATIVE, fingerprint, render
from tinycore_codegen_llvm.machine import Machine

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable, did_you_mean
from tinycore.ir import Capabilities, Target, dtypes
from tinycore_backend_amd.flavour import CODE_OBJECT_VERSION, GCN, TRIPLE

NAME = "AMD"
DEFAULT = "gfx1100"

COMPUTE_UNITS = {
    "gfx90a": 104, "gfx942": 304, "gfx950": 256,
    "gfx1030": 80, "gfx1100": 96, "gfx1101": 60, "gfx1102": 32, "gfx1200": 32, "gfx1201": 64,
}  # fmt: skip
"""Architectures, and the compute units of their largest card."""

LANES_BYTES = 16
"""What one work-item loads at once (``global_load_b128``)."""
REGISTERS = 256 // 4
"""Vectors of 16 bytes in the 256 registers of a work-item."""


@dataclass(frozen=True, slots=True)
class AmdTarget(Target):
    """A target that brings its compiler with it; the code runs on a device of that architecture.

    >>> compile_target("gfx942").capabilities.shared_bytes
    65536
    """

    @property
    def machine(self) -> Machine:
        """LLVM's view. Both halves of a work-group processor share one cache in the other mode, which would
        put cache invalidations at every barrier."""
        rdna = self.architecture.startswith("gfx1")
        return Machine(TRIPLE, self.architecture, "+cumode" if rdna else "")

    def render(self, program: Program) -> str:
        """LLVM IR of a program."""
        return render(program, GCN())

    def assembly(self, source: str) -> str:
        """GCN assembly of a rendered program, with its kernel descriptor. Raises CompileError."""
        return self.machine.assembly(source)

    def compile(self, source: str, name: str) -> bytes:
        """A relocatable ELF object. Raises CompileError."""
        return self.machine.object_code(source)

    def object_code(self, source: str, name: str) -> bytes:
        """The same."""
        return self.compile(source, name)


def compile_target(architecture: str | None = None) -> AmdTarget:
    """Describe an architecture, with no device present. Raises BackendUnavailable for an unknown one.

    >>> compile_target().architecture, compile_target("gfx1201").name
    ('gfx1100', 'AMD')
    """
    name = architecture or DEFAULT
    if name not in COMPUTE_UNITS:
        hint = did_you_mean(name, COMPUTE_UNITS) or f"one of {', '.join(COMPUTE_UNITS)}"
        raise BackendUnavailable(f"unknown AMD architecture {name!r}", hint=hint)
    return target(name)


@functools.cache
def target(architecture: str) -> AmdTarget:
    """The target of an architecture."""
    stored = frozenset(dtypes.DATA) - {dtypes.float8_e4m3, dtypes.float8_e5m2}
    capabilities = Capabilities(
        ops=NATIVE,
        dtypes=stored,
        arithmetic=stored - {dtypes.bfloat16},
        vector_bytes=LANES_BYTES,
        vector_registers=REGISTERS,
        threads=COMPUTE_UNITS[architecture],
        workgroups=True,
        local_size=1024,
        shared_bytes=64 << 10,
        index_bits=(32, 64),
        cache_bytes=(32 << 10, 6 << 20),
    )
    return AmdTarget(NAME, architecture, capabilities, f"{fingerprint()}-cov{CODE_OBJECT_VERSION}")

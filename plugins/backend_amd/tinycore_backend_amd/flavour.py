"""The flavour of AMDGPU: kernel attributes, LDS, ``s_barrier``, the code object version."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinycore_codegen_llvm import Arguments, gpu
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.flavour import Evaluate

from tinycore.codegen.program import Program

TRIPLE = "amdgcn-amd-amdhsa"
CODE_OBJECT_VERSION = 500
"""Older ROCm releases load it too, and every linker knows it."""

UNUSED = (
    "completion-action", "default-queue", "dispatch-id", "dispatch-ptr", "heap-ptr", "hostcall-ptr",
    "implicitarg-ptr", "lds-kernel-id", "multigrid-sync-arg", "queue-ptr",
)  # fmt: skip
"""Hidden arguments that a launcher would have to fill in; kernels read none of them."""


@dataclass(frozen=True, slots=True)
class GCN:
    """Implements `tinycore_codegen_llvm.Flavour`; for RDNA and CDNA."""

    global_space: int = 1
    shared_space: int = 3
    private_space: int = 5
    buffer_alignment: int = gpu.ALIGNMENT
    native_half: bool = True
    native_bfloat16: bool = True
    native_saturation: bool = True

    def head(self, program: Program) -> Sequence[str]:
        """The triple."""
        return (f'target triple = "{TRIPLE}"',)

    def signature(self, program: Program) -> str:
        """A kernel for work-groups of exactly one size."""
        size = math.prod(program.group)
        x, y, z = gpu.extent(program.group)
        unused = " ".join(f'"amdgpu-no-{name}"' for name in UNUSED)
        return (
            f"define amdgpu_kernel void @{program.name}({gpu.parameters(program)}) nounwind "
            f'"amdgpu-flat-work-group-size"="{size},{size}" "uniform-work-group-size"="true" {unused} '
            f"!reqd_work_group_size !1"
        ).replace("!1", f"!{{i32 {x}, i32 {y}, i32 {z}}}")

    def tail(self, program: Program) -> Sequence[str]:
        """The version of the code object."""
        return (
            "!llvm.module.flags = !{!0}",
            f'!0 = !{{i32 1, !"amdhsa_code_object_version", i32 {CODE_OBJECT_VERSION}}}',
        )

    def arguments(self, body: Body, program: Program) -> Arguments:
        """The parameters themselves."""
        return gpu.arguments(program)

    def identifiers(
        self, body: Body, kind: Literal["global", "local"], program: Program, evaluate: Evaluate
    ) -> tuple[str, Sequence[str]]:
        """Work-group and work-item ids."""
        register = "workgroup" if kind == "global" else "workitem"
        sizes: Sequence[object] = program.grid if kind == "global" else program.group

        def read(letter: str) -> str:
            return body.call(register, f"llvm.amdgcn.{register}.id.{letter}", "i32", [])

        return "i32", gpu.dimensions(sizes, read)

    def barrier(self, body: Body) -> None:
        """``s_barrier``, with LDS and global memory of the work-group in order around it."""
        body.do('fence syncscope("workgroup") release')
        body.call_void("llvm.amdgcn.s.barrier", [])
        body.do('fence syncscope("workgroup") acquire')

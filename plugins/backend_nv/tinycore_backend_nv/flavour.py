"""The flavour of NVPTX: address spaces, special registers, ``bar.sync``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinycore_codegen_llvm import Arguments, gpu
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.flavour import Evaluate

from tinycore.codegen.program import Program

TRIPLE = "nvptx64-nvidia-cuda"


@dataclass(frozen=True, slots=True)
class PTX:
    """Implements `tinycore_codegen_llvm.Flavour`; for every architecture from sm_80 on."""

    global_space: int = 1
    shared_space: int = 3
    private_space: int = 0
    buffer_alignment: int = gpu.ALIGNMENT
    native_half: bool = True
    native_bfloat16: bool = True
    native_saturation: bool = True

    def head(self, program: Program) -> Sequence[str]:
        """The triple."""
        return (f'target triple = "{TRIPLE}"',)

    def signature(self, program: Program) -> str:
        """An entry point; the driver refuses to launch it with another work-group size than this."""
        x, y, z = gpu.extent(program.group)
        return (
            f"define ptx_kernel void @{program.name}({gpu.parameters(program)}) "
            f'nounwind "nvvm.reqntid"="{x},{y},{z}"'
        )

    def tail(self, program: Program) -> Sequence[str]:
        """Nothing."""
        return ()

    def arguments(self, body: Body, program: Program) -> Arguments:
        """The parameters themselves."""
        return gpu.arguments(program)

    def identifiers(
        self, body: Body, kind: Literal["global", "local"], program: Program, evaluate: Evaluate
    ) -> tuple[str, Sequence[str]]:
        """``%ctaid`` and ``%tid``."""
        register = "ctaid" if kind == "global" else "tid"
        sizes: Sequence[object] = program.grid if kind == "global" else program.group

        def read(letter: str) -> str:
            return body.call(register, f"llvm.nvvm.read.ptx.sreg.{register}.{letter}", "i32", [])

        return "i32", gpu.dimensions(sizes, read)

    def barrier(self, body: Body) -> None:
        """``bar.sync 0``."""
        body.call_void("llvm.nvvm.barrier.cta.sync.aligned.all", [("i32", "0")])

"""The flavour of processors: ``void NAME(ptr arguments, i64 chunk, i64 thread)``, once a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinycore.codegen.program import Program
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.flavour import Arguments, Evaluate


@dataclass(frozen=True, slots=True)
class CPU:
    """Flat memory, no work-groups. The triple is left out: the module is compiled for whoever compiles it.

    `buffer_alignment` stays 1 because buffers may be memory of somebody else (an array that was passed in);
    unaligned vector loads cost nothing as long as they do not cross a cache line.
    """

    global_space: int = 0
    shared_space: int = 0
    private_space: int = 0
    buffer_alignment: int = 1
    native_half: bool = False
    native_bfloat16: bool = False
    native_saturation: bool = False

    def head(self, program: Program) -> Sequence[str]:
        """Nothing; see the class."""
        return ()

    def signature(self, program: Program) -> str:
        """The ABI of the architecture document."""
        return f"define void @{program.name}(ptr %arguments, i64 %chunk, i64 %thread) nounwind"

    def tail(self, program: Program) -> Sequence[str]:
        """Nothing."""
        return ()

    def arguments(self, body: Body, program: Program) -> Arguments:
        """Words of the argument array: pointers in slot order, then variables."""
        pointers = {
            param.arg[0]: self._word(body, position, "ptr")
            for position, param in enumerate(program.parameters)
        }
        first = len(program.parameters)
        variables = tuple(
            self._word(body, first + position, "i64") for position in range(len(program.variables))
        )
        return Arguments(pointers, variables)

    def _word(self, body: Body, position: int, kind: str) -> str:
        address = "%arguments"
        if position:
            address = body.emit("word", f"getelementptr i64, ptr %arguments, i64 {position}")
        return body.emit("buffer" if kind == "ptr" else "variable", f"load {kind}, ptr {address}, align 8")

    def identifiers(
        self, body: Body, kind: Literal["global", "local"], program: Program, evaluate: Evaluate
    ) -> tuple[str, Sequence[str]]:
        """The chunk, unravelled row-major."""
        if kind == "local":
            return "i64", ["0"] * len(program.group)
        identifiers: list[str] = []
        rest = "%chunk"
        for bound in reversed(program.grid[1:]):
            size = evaluate(bound)
            identifiers.append(body.emit("id", f"urem i64 {rest}, {size}"))
            rest = body.emit("rest", f"udiv i64 {rest}, {size}")
        return "i64", [rest, *reversed(identifiers)]

    def barrier(self, body: Body) -> None:
        """Nothing to wait for: a work-group is one thread."""

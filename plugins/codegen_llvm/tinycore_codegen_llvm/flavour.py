"""Flavours: what differs between the targets that LLVM compiles for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tinycore.codegen.program import Program
from tinycore.ir import Dim
from tinycore_codegen_llvm.body import Body

Evaluate = Callable[[Dim], str]
"""Writes the instructions for a dimension and answers its i64 value."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The values of a kernel's arguments.

    Attributes
    ----------
    pointers: buffer pointers by slot.
    variables: i64 values in the order of `Program.variables`.
    """

    pointers: dict[int, str]
    variables: tuple[str, ...]


class Flavour(Protocol):
    """One kind of target.

    Attributes
    ----------
    global_space, shared_space, private_space: LLVM address spaces of buffers, work-group and own memory.
    buffer_alignment: what buffers are aligned to in bytes; vector loads are aligned where it can be proved.
    native_half: whether float16 arithmetic is left to LLVM; otherwise it is done in float32 and rounded.
    native_bfloat16: whether rounding to bfloat16 is left to LLVM; otherwise it is done on the bits.
    native_saturation: whether LLVM's saturating casts of vectors are good code.
    """

    @property
    def global_space(self) -> int: ...  # noqa: D102
    @property
    def shared_space(self) -> int: ...  # noqa: D102
    @property
    def private_space(self) -> int: ...  # noqa: D102
    @property
    def buffer_alignment(self) -> int: ...  # noqa: D102
    @property
    def native_half(self) -> bool: ...  # noqa: D102
    @property
    def native_bfloat16(self) -> bool: ...  # noqa: D102
    @property
    def native_saturation(self) -> bool: ...  # noqa: D102

    def head(self, program: Program) -> Sequence[str]:
        """Lines above the function: the triple, for instance."""

    def signature(self, program: Program) -> str:
        """The function's ``define`` line without the brace."""

    def tail(self, program: Program) -> Sequence[str]:
        """Lines below the function: attributes and metadata."""

    def arguments(self, body: Body, program: Program) -> Arguments:
        """Load the arguments, at the start of the function."""

    def identifiers(
        self, body: Body, kind: Literal["global", "local"], program: Program, evaluate: Evaluate
    ) -> tuple[str, Sequence[str]]:
        """The LLVM type, and the value of every range of that kind, in the order of `grid` or `group`."""

    def barrier(self, body: Body) -> None:
        """Make all work-items of a work-group wait, with their memory seen by each other."""

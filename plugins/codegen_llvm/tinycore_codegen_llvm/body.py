"""The text of one function while it grows: instructions, blocks, and the declarations they need."""

from __future__ import annotations

from collections.abc import Sequence

from tinycore_codegen_llvm.types import Register


class Body:
    """Instructions in order.

    Attributes
    ----------
    lines: the instructions and labels so far.
    block: the label of the block that is being written.
    declarations: the intrinsics in use, each with its declaration.
    globals: definitions that the module needs besides the function.

    >>> body = Body()
    >>> body.emit("add", "add i32 1, 2"), body.lines
    ('%add1', ['entry:', '  %add1 = add i32 1, 2'])
    """

    def __init__(self) -> None:
        self.lines: list[str] = ["entry:"]
        self.block = "entry"
        self.declarations: dict[str, str] = {}
        self.globals: list[str] = []
        self._count = 0

    def name(self, hint: str) -> str:
        """A new name, without its sigil."""
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, hint: str, instruction: str) -> str:
        """Append an instruction with a result and answer the result's name."""
        result = "%" + self.name(hint)
        self.lines.append(f"  {result} = {instruction}")
        return result

    def do(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def start(self, label: str) -> None:
        """Begin a block; the one before must have ended in a branch."""
        self.lines.append(f"{label}:")
        self.block = label

    def call(
        self, hint: str, function: str, result: str, arguments: Sequence[tuple[str, str]], flags: str = ""
    ) -> str:
        """Call an intrinsic with (type, value) arguments and answer the result's name."""
        return self.emit(hint, self._call(function, result, arguments, flags))

    def call_void(self, function: str, arguments: Sequence[tuple[str, str]]) -> None:
        """Call an intrinsic without a result."""
        self.do(self._call(function, "void", arguments, ""))

    def intrinsic(self, stem: str, register: Register, *operands: str, flags: str = "") -> str:
        """Call ``llvm.<stem>`` whose operands and result all have one type."""
        arguments = [(register.text, operand) for operand in operands]
        return self.call(
            stem.rsplit(".", 1)[-1], f"llvm.{stem}.{register.suffix}", register.text, arguments, flags
        )

    def _call(self, function: str, result: str, arguments: Sequence[tuple[str, str]], flags: str) -> str:
        self.declarations[function] = (
            f"declare {result} @{function}({', '.join(kind for kind, _ in arguments)})"
        )
        operands = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return f"call {flags + ' ' if flags else ''}{result} @{function}({operands})"

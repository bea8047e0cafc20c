"""What the flavours of GPUs share: the order of arguments and of dimensions.

One pointer parameter a slot, then one i64 a variable. Dimension x of a launch is the last entry of the grid,
or of the work-group, y the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinycore.codegen.program import Program
from tinycore.errors import CompileError
from tinycore_codegen_llvm.flavour import Arguments

ALIGNMENT = 64
"""What the memory protocol promises of buffers and of views into them."""


def parameters(program: Program) -> str:
    """The parameter list of a kernel."""
    pointers = [f"ptr addrspace(1) align {ALIGNMENT} %buffer_{param.arg[0]}" for param in program.parameters]
    return ", ".join(pointers + [f"i64 %variable_{number}" for number in range(len(program.variables))])


def arguments(program: Program) -> Arguments:
    """The names that `parameters` gave."""
    pointers = {param.arg[0]: f"%buffer_{param.arg[0]}" for param in program.parameters}
    return Arguments(pointers, tuple(f"%variable_{number}" for number in range(len(program.variables))))


def dimensions(sizes: Sequence[object], read: Callable[[str], str]) -> list[str]:
    """One id a range, read by its letter. Raises CompileError for more than three.

    >>> dimensions((4, 2, 8), lambda letter: letter)
    ['z', 'y', 'x']
    """
    if len(sizes) > 3:
        raise CompileError(f"a launch has at most 3 dimensions, and this program has {len(sizes)}")
    return [read("xyz"[len(sizes) - 1 - position]) for position in range(len(sizes))]


def extent(group: Sequence[int]) -> tuple[int, int, int]:
    """A work-group's size as x, y, z.

    >>> extent((4, 32))
    (32, 4, 1)
    """
    padded = [*reversed(group), 1, 1, 1]
    return padded[0], padded[1], padded[2]

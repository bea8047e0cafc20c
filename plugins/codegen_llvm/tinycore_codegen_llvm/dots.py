"""DOT as one instruction: the intrinsics of processors that sum up products in groups."""

from __future__ import annotations

from tinycore.errors import CompileError
from tinycore.ir import DType, UOp, dtypes
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.types import Register

_Kind = tuple[DType, DType, DType, int]
_X86: dict[_Kind, tuple[str, str]] = {
    (dtypes.float32, dtypes.bfloat16, dtypes.bfloat16, 16): (
        "llvm.x86.avx512bf16.dpbf16ps.512",
        "<32 x bfloat>",
    ),
    (dtypes.int32, dtypes.uint8, dtypes.int8, 16): ("llvm.x86.avx512.vpdpbusd.512", "<64 x i8>"),
}
"""Intrinsic and type of the operands, by the dtypes of accumulator, left and right, and the lanes."""


def dot(body: Body, node: UOp, start: str, left: str, right: str) -> str:
    """The value of a DOT. Raises CompileError when no instruction does that."""
    register, a, b = (Register.of(operand) for operand in node.src)
    found = _X86.get((register.dtype, a.dtype, b.dtype, register.lanes or 0))
    if found is None:
        raise CompileError(
            f"LLVM code has no DOT of {a.dtype} and {b.dtype} in {register.text}",
            where=repr(node),
            hint="the target's capabilities should not claim it in `dots`",
        )
    function, text = found
    if a.text != text:
        left, right = (body.emit("bits", f"bitcast {a.text} {value} to {text}") for value in (left, right))
    return body.call("dot", function, register.text, [(register.text, start), (text, left), (text, right)])

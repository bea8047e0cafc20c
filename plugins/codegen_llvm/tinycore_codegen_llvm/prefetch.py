"""Asking for memory before it is needed, where a kernel's actions say so (`tinycore.codegen.tiling.Prefetch`)."""

from __future__ import annotations

from collections.abc import Iterable

from tinycore.codegen.tiling import Prefetch
from tinycore.ir import UOp, ops
from tinycore_codegen_llvm.memory import Memory
from tinycore_codegen_llvm.types import Register

NEAR = 1 << 12
"""Bytes; what is fetched from further away would leave the first cache before it is read."""


def prefetch(memory: Memory, load: UOp, action: Prefetch, loops: Iterable[UOp]) -> None:
    """Ask for the line that a load of neighbours will read some steps later; `loops` are open, inner ones first."""
    buffer, index, _ = load.src
    if buffer.op is not ops.PARAM or load.arg < 2 or index.shape:
        return
    strides = [stride for stride in (stride_of(index, loop) for loop in loops) if stride]
    if len(strides) <= action.loop:
        return
    register = Register.of(load)
    kind, pointer = memory.address(register, buffer, index)
    distance = strides[action.loop] * action.steps * register.dtype.itemsize
    body = memory.body
    place = body.emit("ahead", f"getelementptr i8, {kind} {pointer}, i64 {distance}")
    read, data, cache = "0", "1", "3" if distance <= NEAR else "2"
    body.call_void("llvm.prefetch.p0", [(kind, place), ("i32", read), ("i32", cache), ("i32", data)])


def stride_of(index: UOp, loop: UOp) -> int:
    """By how many elements an index moves with a loop; 0 where it does not, or not by the same number each time.

    >>> from tinycore.ir import dtypes
    >>> row = UOp(ops.RANGE, dtypes.int64, (UOp.const(dtypes.int64, 8),), (0, "loop"))
    >>> stride_of(row * 16 + 4, row), stride_of(row * row, row)
    (16, 0)
    """
    if index is loop:
        return 1
    if index.op is ops.ADD:
        return sum(stride_of(operand, loop) for operand in index.src)
    if index.op is ops.MUL and index.src[1].op is ops.CONST:
        return stride_of(index.src[0], loop) * int(index.src[1].arg[0])
    return 0

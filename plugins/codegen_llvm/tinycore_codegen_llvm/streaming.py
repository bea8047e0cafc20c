"""Stores past the caches, where a kernel's actions ask for them: large results are not read again soon.

Such a store needs an aligned address. Indices are proved to be whole vectors; whether the buffer is aligned
(it may be memory of somebody else) is asked once a run of stores, when the program runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinycore.codegen.program import Program
from tinycore.ir import UOp, ops
from tinycore_codegen_llvm.memory import Memory, always, multiple_of
from tinycore_codegen_llvm.types import Register

SIZES = (16, 32, 64)
"""Bytes of a vector that can be stored at once."""
LINE = 64
"""Alignment that is asked of a buffer: a store must not cross a cache line."""


def streamed_runs(program: Program) -> Mapping[int, Sequence[UOp]]:
    """Runs of neighbouring STOREs to one buffer that go past the caches, by the position of the first."""
    runs: dict[int, list[UOp]] = {}
    last: list[UOp] | None = None
    for position, node in enumerate(program.linear.src if program.streaming else ()):
        if node.op is not ops.STORE or not _is_streamable(node):
            last = None
        elif last is not None and last[-1].src[0] is node.src[0]:
            last.append(node)
        else:
            last = runs[position] = [node]
    return runs


def _is_streamable(node: UOp) -> bool:
    buffer, index, value, gate = node.src
    if buffer.op is not ops.PARAM or index.shape or not value.shape or not always(gate):
        return False
    size = int(value.shape[0]) * value.dtype.itemsize  # type: ignore[arg-type]
    return size in SIZES and multiple_of(index) * value.dtype.itemsize % size == 0


def stream(memory: Memory, run: Sequence[UOp]) -> None:
    """The instructions of a run: one question, then all stores in one of two ways."""
    body, value = memory.body, memory.value
    base = memory.pointers[run[0].src[0]]
    word = body.emit("word", f"ptrtoint ptr {base} to i64")
    rest = body.emit("rest", f"and i64 {word}, {LINE - 1}")
    aligned = body.emit("aligned", f"icmp eq i64 {rest}, 0")
    places = []
    for node in run:
        register = Register.of(node.src[2])
        kind, pointer = memory.address(register, node.src[0], node.src[1])
        stored = memory.to_memory(register, value(node.src[2]))
        places.append((f"{register.memory} {stored}, {kind} {pointer}", register))
    past, through, after = body.name("past"), body.name("through"), body.name("stored")
    body.do(f"br i1 {aligned}, label %{past}, label %{through}")
    body.start(past)
    for text, register in places:
        size = register.dtype.itemsize * (register.lanes or 1)
        body.do(f"store {text}, align {size}, !nontemporal !{{i32 1}}")
    body.do(f"br label %{after}")
    body.start(through)
    for text, register in places:
        body.do(f"store {text}, align {register.dtype.itemsize}")
    body.do(f"br label %{after}")
    body.start(after)

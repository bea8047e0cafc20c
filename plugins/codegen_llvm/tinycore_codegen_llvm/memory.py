"""Loads and stores: addresses with constant displacements, gathers, masks and guards.

Where a guard is false memory is not touched. A guarded scalar load reads element 0 instead (buffers are never
empty) so that no branch is needed; guarded stores and guarded loads of neighbours branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinycore.errors import CompileError
from tinycore.ir import UOp, dims, dtypes, ops
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.flavour import Flavour
from tinycore_codegen_llvm.types import Register

Value = Callable[[UOp], str]
"""The SSA value of an operand."""


def displacement(index: UOp) -> tuple[UOp | None, int]:
    """A scalar index as something computed and a constant: ``x + 3`` is (x, 3), ``7`` is (None, 7)."""
    if index.op is ops.CONST:
        return None, int(index.arg[0])
    offset = 0
    while index.op is ops.ADD and index.shape == ():
        left, right = index.src
        if right.op is ops.CONST:
            index, offset = left, offset + int(right.arg[0])
        elif left.op is ops.CONST:
            index, offset = right, offset + int(left.arg[0])
        else:
            break
    return index, offset


def multiple_of(index: UOp, depth: int = 8) -> int:
    """A number that surely divides an index; 0 when the index is 0.

    >>> row = UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, 8),), (0, "loop"))
    >>> multiple_of(row * 16 + 4)
    4
    """
    if index.op is ops.CONST:
        return abs(int(index.arg[0]))
    if index.op is ops.VARIABLE:
        return int(index.arg[3])
    if depth and index.op in (ops.ADD, ops.SUB):
        return math.gcd(*[multiple_of(operand, depth - 1) for operand in index.src])
    if depth and index.op is ops.MUL:
        return multiple_of(index.src[0], depth - 1) * multiple_of(index.src[1], depth - 1)
    if depth and index.op is ops.SHL and index.src[1].op is ops.CONST and 0 <= index.src[1].vmin < 64:
        return multiple_of(index.src[0], depth - 1) << index.src[1].vmin
    if depth and index.op is ops.CAST and index.src[0].dtype.is_int:
        return multiple_of(index.src[0], depth - 1)
    return 1


class Memory:
    """Writes the memory accesses of one function.

    Attributes
    ----------
    pointers: the base pointer of every PARAM and SCRATCH.
    body: where the instructions go.
    value: the SSA value of an operand.
    """

    def __init__(self, body: Body, flavour: Flavour, value: Value) -> None:
        self.body, self.flavour, self.value = body, flavour, value
        self.pointers: dict[UOp, str] = {}
        # Addresses that are known in each open block: what was computed inside a loop is not valid after it.
        self._known: list[dict[tuple[str, str], str]] = [{}]

    def enter(self) -> None:
        """A loop or a conditional block opens."""
        self._known.append({})

    def leave(self) -> None:
        """It closes."""
        self._known.pop()

    def load(self, node: UOp) -> str:
        """The value of a LOAD."""
        buffer, index, gate = node.src
        register = Register.of(node)
        if _never(gate):
            return register.zero
        if index.shape:
            return self._gather(register, buffer, index, gate)
        if gate.shape and not always(gate):
            return self._masked_load(register, buffer, index, gate)
        if always(gate):
            return self._plain_load(register, buffer, index)
        if register.lanes is None:
            return self._selected_load(register, buffer, index, gate)
        return self._branched_load(register, buffer, index, gate)

    def store(self, node: UOp) -> None:
        """The instructions of a STORE."""
        buffer, index, value, gate = node.src
        if _never(gate):
            return
        register = Register.of(value)
        if index.shape:
            self._scatter(register, buffer, index, value, gate)
        elif gate.shape and not always(gate):
            self._masked_store(register, buffer, index, value, gate)
        elif always(gate):
            self._plain_store(register, buffer, index, value)
        else:
            condition = self.value(gate)
            inside, after = self.body.name("store"), self.body.name("stored")
            self.body.do(f"br i1 {condition}, label %{inside}, label %{after}")
            self.enter()
            self.body.start(inside)
            self._plain_store(register, buffer, index, value)
            self.leave()
            self.body.do(f"br label %{after}")
            self.body.start(after)

    # --- addresses ----------------------------------------------------------------------------------------

    def _base(self, buffer: UOp) -> tuple[str, str]:
        """The pointer type and the base pointer of a buffer operand."""
        buffer = buffer.under(ops.AFTER)
        pointer = self.pointers.get(buffer)
        if pointer is None:
            raise CompileError(
                f"{buffer.op.name} is not a buffer argument of this program", where=repr(buffer)
            )
        return self.pointer_type(self._space(buffer)), pointer

    def _space(self, buffer: UOp) -> int:
        if buffer.op is ops.PARAM:
            return self.flavour.global_space
        return self.flavour.shared_space if buffer.arg[0] == "local" else self.flavour.private_space

    @staticmethod
    def pointer_type(space: int) -> str:
        """The pointer type of an address space."""
        return f"ptr addrspace({space})" if space else "ptr"

    def address(self, register: Register, buffer: UOp, index: UOp) -> tuple[str, str]:
        """Type and value of the pointer to an element; computed parts are shared, constants folded in."""
        kind, pointer = self._base(buffer)
        variable, offset = displacement(index)
        if variable is not None:
            pointer = self._step(kind, register.memory_element, pointer, *self._extended(variable))
        if offset:
            pointer = self._step(kind, register.memory_element, pointer, "i64", str(offset))
        return kind, pointer

    def _guarded(self, register: Register, buffer: UOp, index: UOp, gate: UOp) -> tuple[str, str]:
        """The pointer of a masked access; the buffer's own where no lane is wanted.

        Such an access touches no memory, but processors are slow to find out that an address which they may not
        touch was not wanted.
        """
        kind, pointer = self.address(register, buffer, index)
        _, base = self._base(buffer)
        condition = _for_all_lanes(gate)
        if condition is not None and pointer != base:
            chosen = f"select i1 {self.value(condition)}, {kind} {pointer}, {kind} {base}"
            pointer = self.body.emit("at", chosen)
        return kind, pointer

    def _extended(self, index: UOp) -> tuple[str, str]:
        """An index for getelementptr, which sign-extends narrow operands: unsigned ones go to i64 before."""
        register, value = Register.of(index), self.value(index)
        if register.family == "uint" and register.dtype.bits < 64:
            wide = register.retyped(dtypes.int64)
            value = self.body.emit("index", f"zext {register.text} {value} to {wide.text}")
            register = wide
        return register.text, value

    def _step(self, kind: str, element: str, pointer: str, index_type: str, index: str) -> str:
        key = (pointer, f"{element} {index}")
        for level in self._known:
            if key in level:
                return level[key]
        result = self.body.emit("at", f"getelementptr {element}, {kind} {pointer}, {index_type} {index}")
        self._known[-1][key] = result
        return result

    def _addresses(self, register: Register, buffer: UOp, index: UOp) -> tuple[str, str]:
        kind, pointer = self._base(buffer)
        index_type, value = self._extended(index)
        vector = f"<{register.lanes} x {kind}>"
        return vector, self.body.emit(
            "at", f"getelementptr {register.memory_element}, {kind} {pointer}, {index_type} {value}"
        )

    def _alignment(self, register: Register, buffer: UOp, index: UOp) -> int:
        """The element size, or as much of the vector's size as can be proved."""
        size = register.dtype.itemsize
        if register.lanes is None or index.shape:
            return size
        base = 64 if self._is_scratch(buffer) else self.flavour.buffer_alignment
        largest = 1 << (size * register.lanes).bit_length() - 1
        proved = math.gcd(multiple_of(index) * size, largest, base)
        return max(size, proved)

    @staticmethod
    def _is_scratch(buffer: UOp) -> bool:
        return buffer.under(ops.AFTER).op is ops.SCRATCH

    # --- loads --------------------------------------------------------------------------------------------

    def _plain_load(self, register: Register, buffer: UOp, index: UOp) -> str:
        kind, pointer = self.address(register, buffer, index)
        align = self._alignment(register, buffer, index)
        loaded = self.body.emit("load", f"load {register.memory}, {kind} {pointer}, align {align}")
        return self._from_memory(register, loaded)

    def _selected_load(self, register: Register, buffer: UOp, index: UOp, gate: UOp) -> str:
        kind, pointer = self.address(register, buffer, index)
        _, base = self._base(buffer)
        condition = self.value(gate)
        if pointer != base:
            pointer = self.body.emit("at", f"select i1 {condition}, {kind} {pointer}, {kind} {base}")
        loaded = self.body.emit(
            "load", f"load {register.memory}, {kind} {pointer}, align {register.dtype.itemsize}"
        )
        value = self._from_memory(register, loaded)
        return self.body.emit(
            "load", f"select i1 {condition}, {register.text} {value}, {register.text} {register.zero}"
        )

    def _branched_load(self, register: Register, buffer: UOp, index: UOp, gate: UOp) -> str:
        condition, before = self.value(gate), self.body.block
        inside, after = self.body.name("read"), self.body.name("have")
        self.body.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self.enter()
        self.body.start(inside)
        value = self._plain_load(register, buffer, index)
        self.leave()
        self.body.do(f"br label %{after}")
        self.body.start(after)
        return self.body.emit(
            "load", f"phi {register.text} [ {register.zero}, %{before} ], [ {value}, %{inside} ]"
        )

    def _masked_load(self, register: Register, buffer: UOp, index: UOp, gate: UOp) -> str:
        kind, pointer = self._guarded(register, buffer, index, gate)
        return self._read_lanes(
            "masked.load", register, kind, pointer, self._alignment(register, buffer, index), gate
        )

    def _gather(self, register: Register, buffer: UOp, index: UOp, gate: UOp) -> str:
        kind, pointers = self._addresses(register, buffer, index)
        return self._read_lanes("masked.gather", register, kind, pointers, register.dtype.itemsize, gate)

    def _read_lanes(
        self, stem: str, register: Register, kind: str, pointer: str, align: int, gate: UOp
    ) -> str:
        function = f"llvm.{stem}.{register.suffix_of(register.memory_element)}.{_pointer_suffix(kind)}"
        loaded = self.body.call(
            "load",
            function,
            register.memory,
            [
                (kind, pointer),
                ("i32", str(align)),
                (register.condition, self._mask(register, gate)),
                (register.memory, "zeroinitializer"),
            ],
        )
        return self._from_memory(register, loaded)

    def _from_memory(self, register: Register, loaded: str) -> str:
        if register.dtype.kind != "bool":
            return loaded
        return self.body.emit(
            "load",
            f"icmp ne {register.memory} {loaded}, {'zeroinitializer' if register.lanes is not None else '0'}",
        )

    # --- stores -------------------------------------------------------------------------------------------

    def _plain_store(self, register: Register, buffer: UOp, index: UOp, value: UOp) -> None:
        kind, pointer = self.address(register, buffer, index)
        stored = self.to_memory(register, self.value(value))
        align = self._alignment(register, buffer, index)
        self.body.do(f"store {register.memory} {stored}, {kind} {pointer}, align {align}")

    def _masked_store(self, register: Register, buffer: UOp, index: UOp, value: UOp, gate: UOp) -> None:
        kind, pointer = self._guarded(register, buffer, index, gate)
        align = self._alignment(register, buffer, index)
        self._write_lanes("masked.store", register, kind, pointer, align, value, gate)

    def _scatter(self, register: Register, buffer: UOp, index: UOp, value: UOp, gate: UOp) -> None:
        kind, pointers = self._addresses(register, buffer, index)
        self._write_lanes("masked.scatter", register, kind, pointers, register.dtype.itemsize, value, gate)

    def _write_lanes(
        self, stem: str, register: Register, kind: str, pointer: str, align: int, value: UOp, gate: UOp
    ) -> None:
        function = f"llvm.{stem}.{register.suffix_of(register.memory_element)}.{_pointer_suffix(kind)}"
        stored = self.to_memory(register, self.value(value))
        self.body.call_void(
            function,
            [
                (register.memory, stored),
                (kind, pointer),
                ("i32", str(align)),
                (register.condition, self._mask(register, gate)),
            ],
        )

    def to_memory(self, register: Register, value: str) -> str:
        """A value as memory holds it."""
        if register.dtype.kind != "bool":
            return value
        return self.body.emit("byte", f"zext {register.text} {value} to {register.memory}")

    def _mask(self, register: Register, gate: UOp) -> str:
        if always(gate):
            return "splat (i1 true)"
        if gate.shape:
            return self.value(gate)
        return splat(self.body, Register(dtypes.bool_, register.lanes), self.value(gate))


def splat(body: Body, register: Register, scalar: str) -> str:
    """A scalar in every lane of `register`."""
    first = body.emit("first", f"insertelement {register.text} poison, {register.element} {scalar}, i64 0")
    return body.emit(
        "splat",
        f"shufflevector {register.text} {first}, {register.text} poison, "
        f"<{register.lanes} x i32> zeroinitializer",
    )


def elements(scratch: UOp) -> int:
    """How many elements a SCRATCH holds."""
    return dims.upper(dims.product(scratch.shape))


def _pointer_suffix(kind: str) -> str:
    """``ptr addrspace(1)`` is ``p1`` and ``<16 x ptr>`` is ``v16p0`` in the name of an intrinsic."""
    space = kind.partition("addrspace(")[2].rstrip(">)") or "0"
    lanes = "v" + kind[1:].split(" ", 1)[0] if kind.startswith("<") else ""
    return f"{lanes}p{space}"


def _for_all_lanes(gate: UOp) -> UOp | None:
    """A scalar without which a guard holds in no lane."""
    if gate.op is ops.SPLAT:
        return gate.src[0]
    if gate.op is ops.AND:
        found = [_for_all_lanes(operand) for operand in gate.src]
        return next((condition for condition in found if condition is not None), None)
    return None


def always(gate: UOp) -> bool:
    """Whether a guard surely holds."""
    return gate.bounds == (1, 1)


def _never(gate: UOp) -> bool:
    return gate.bounds == (0, 0)

"""From a Program to the text of an LLVM module: one function, structured control flow, accumulators in phis.

The text is in its final shape: nothing is computed twice, what is not used is not written, and no LLVM pass
has to run. Loops are tested at the bottom, with a guard in front unless the bound is known to be positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tinycore.codegen.program import Program, leaves
from tinycore.errors import CompileError
from tinycore.ir import Dim, Op, UOp, dtypes, ops
from tinycore_codegen_llvm.arithmetic import elementwise, lane_reduce
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.casts import cast
from tinycore_codegen_llvm.dots import dot
from tinycore_codegen_llvm.flavour import Flavour
from tinycore_codegen_llvm.memory import Memory, displacement, elements, splat
from tinycore_codegen_llvm.prefetch import prefetch
from tinycore_codegen_llvm.streaming import stream, streamed_runs
from tinycore_codegen_llvm.types import Register

_LOOPS = frozenset({"loop", "reduce", "ordered"})
_LEAVES = frozenset({ops.CONST, ops.VARIABLE, ops.IOTA, ops.PARAM, ops.SCRATCH})


def render(program: Program, flavour: Flavour) -> str:
    """The module for a program.

    Raises CompileError when the program is not what a LINEAR may be, or needs an op that is not native.

    >>> from tinycore_codegen_llvm import CPU
    >>> x, y = (UOp(ops.PARAM, dtypes.float32, (), (slot, (1,))) for slot in range(2))
    >>> zero, yes = UOp.const(dtypes.int64, 0), UOp.const(dtypes.bool_, True)
    >>> load = UOp(ops.LOAD, dtypes.float32, (x, zero, yes), 1)
    >>> total = load + load
    >>> store = UOp(ops.STORE, dtypes.void, (y, zero, total, yes))
    >>> linear = UOp(ops.LINEAR, dtypes.void, (load, total, store), None)
    >>> print(render(Program("twice", linear, (x, y), (), frozenset({1})), CPU()))
    define void @twice(ptr %arguments, i64 %chunk, i64 %thread) nounwind {
    entry:
      %buffer1 = load ptr, ptr %arguments, align 8
      %word2 = getelementptr i64, ptr %arguments, i64 1
      %buffer3 = load ptr, ptr %word2, align 8
      %load4 = load float, ptr %buffer1, align 4
      %add5 = fadd float %load4, %load4
      store float %add5, ptr %buffer3, align 4
      ret void
    }
    <BLANKLINE>
    """
    return _Renderer(program, flavour).module()


@dataclass(slots=True)
class _Block:
    """An open loop or conditional block.

    `alive` are the accumulators at its opening, `before` what those held that it changes, `phis` their names
    inside the loop.
    """

    node: UOp
    opened_in: str
    after: str
    alive: frozenset[UOp]
    before: dict[UOp, str]
    head: str = ""
    counter: str = ""
    bound: str = ""
    guarded: bool = False
    line: int = 0
    phis: dict[UOp, str] = field(default_factory=dict)


class _Renderer:
    def __init__(self, program: Program, flavour: Flavour) -> None:
        self.program, self.flavour = program, flavour
        self.statements = program.linear.src
        self.body = Body()
        self.memory = Memory(self.body, flavour, self.value)
        self.values: dict[UOp, str] = {}
        self.accumulators: dict[UOp, str] = {}
        self.blocks: list[_Block] = []
        self.variables: dict[str, str] = {}
        self.identifiers: dict[str, tuple[str, Sequence[str]]] = {}
        self.seen_ranges: dict[str, int] = {"global": 0, "local": 0}
        self.needed = _needed(self.statements)
        self.streamed = streamed_runs(program)
        self.stored_until = 0
        self.changed = _changed_in_blocks(self.statements)

    # --- the whole ----------------------------------------------------------------------------------------

    def module(self) -> str:
        """Everything, in order."""
        arguments = self.flavour.arguments(self.body, self.program)
        for param in self.program.parameters:
            self.memory.pointers[param] = arguments.pointers[param.arg[0]]
        names = [variable.arg[0] for variable in self.program.variables]
        self.variables = dict(zip(names, arguments.variables, strict=True))
        unlisted = leaves(self.program.linear)
        for node in unlisted:
            if node.op is ops.VARIABLE:
                self.values[node] = self._variable(node)
        self._reserve_scratch([node for node in unlisted if node.op is ops.SCRATCH])
        for position, node in enumerate(self.statements):
            self._statement(position, node)
        if self.blocks:
            raise CompileError(
                "a loop or a conditional block is never closed", where=repr(self.blocks[-1].node)
            )
        if self.streamed:  # other threads see what was stored past the caches once this chunk is done
            self.body.do("fence seq_cst")
        self.body.do("ret void")
        parts = [*self.flavour.head(self.program), *self.body.globals]
        parts += [self.flavour.signature(self.program) + " {", *self.body.lines, "}"]
        parts += [*self.body.declarations.values(), *self.flavour.tail(self.program)]
        return "\n".join(parts) + "\n"

    def _reserve_scratch(self, scratch: Sequence[UOp]) -> None:
        for number, node in enumerate(scratch):
            scope, storage = node.arg[0], f"[{elements(node)} x {Register(node.dtype).memory_element}]"
            space = self.flavour.shared_space if scope == "local" else self.flavour.private_space
            if scope == "local" and space:
                name = f"@{self.program.name}_shared{number}"
                self.body.globals.append(
                    f"{name} = internal addrspace({space}) global {storage} undef, align 64"
                )
                self.memory.pointers[node] = name
            else:
                suffix = f", addrspace({space})" if space else ""
                self.memory.pointers[node] = self.body.emit("scratch", f"alloca {storage}, align 64{suffix}")

    def _statement(self, position: int, node: UOp) -> None:
        handler = _HANDLERS.get(node.op)
        if handler is not None:
            handler(self, position, node)
        elif node.op in _LEAVES or node not in self.needed:
            return
        elif node.op.elementwise:
            operands = [self.value(operand) for operand in node.src]
            self.values[node] = elementwise(self.body, self.flavour, node, operands)
        else:
            raise CompileError(f"{node.op.name} has no meaning in a program", where=repr(node))

    # --- values -------------------------------------------------------------------------------------------

    def value(self, node: UOp) -> str:
        """The SSA value or constant of an operand. Raises CompileError when it was not listed before."""
        known = self.values.get(node)
        if known is not None:
            return known
        if node.op is ops.CONST:
            return Register.of(node).constant(node.arg[0])
        if node.op is ops.ACCUMULATOR and node in self.accumulators:
            return self.accumulators[node]
        if node.op is ops.AFTER:
            return self.value(node.src[0])
        if node.op is ops.IOTA:
            element = Register(node.dtype)
            lanes = ", ".join(f"{element.element} {element.number(lane)}" for lane in range(node.arg))
            return f"<{lanes}>"
        raise CompileError(
            f"{node.op.name} is used before it was computed",
            where=repr(node),
            hint="every operand of a LINEAR is listed before its user, inside the same blocks",
        )

    def _variable(self, node: UOp) -> str:
        given = self.variables.get(node.arg[0])
        if given is None:
            raise CompileError(
                f"variable {node.arg[0]!r} is not an argument of this program", where=repr(node)
            )
        return cast(self.body, self.flavour, Register(dtypes.int64), node.dtype, given)

    def dimension(self, dim: Dim) -> str:
        """The i64 value of a dimension over variables."""
        if isinstance(dim, int):
            return str(dim)
        if dim.op is ops.CONST:
            return str(int(dim.arg[0]))
        if dim.op is ops.VARIABLE:
            return self._variable(dim)
        word = _DIMENSION.get(dim.op)
        if word is None:
            raise CompileError(f"{dim.op.name} cannot stand in the size of a grid", where=repr(dim))
        operands = [self.dimension(operand) for operand in dim.src]
        return self.body.emit("size", f"{word} i64 {', '.join(operands)}")

    def _load(self, position: int, node: UOp) -> None:
        if node in self.needed:
            if self.program.prefetch is not None:
                loops = (block.node for block in reversed(self.blocks) if block.node.op is ops.RANGE)
                prefetch(self.memory, node, self.program.prefetch, loops)
            self.values[node] = self.memory.load(node)

    def _store(self, position: int, node: UOp) -> None:
        run = self.streamed.get(position)
        if run is not None:
            stream(self.memory, run)
            self.stored_until = position + len(run)
        elif position >= self.stored_until:
            self.memory.store(node)

    def _splat(self, position: int, node: UOp) -> None:
        if node not in self.needed:
            return
        register, source = Register.of(node), node.src[0]
        if source.op is ops.CONST:
            self.values[node] = register.constant(source.arg[0])
        else:
            self.values[node] = splat(self.body, register, self.value(source))

    def _shuffle(self, position: int, node: UOp) -> None:
        if node in self.needed:
            register = Register.of(node.src[0])
            a, b = (self.value(operand) for operand in node.src)
            places = ", ".join(f"i32 {place}" for place in node.arg)
            self.values[node] = self.body.emit(
                "shuffle",
                f"shufflevector {register.text} {a}, {register.text} {b}, <{len(node.arg)} x i32> <{places}>",
            )

    def _dot(self, position: int, node: UOp) -> None:
        if node in self.needed:
            self.values[node] = dot(self.body, node, *[self.value(operand) for operand in node.src])

    def _lane_reduce(self, position: int, node: UOp) -> None:
        if node in self.needed:
            self.values[node] = lane_reduce(self.body, self.flavour, node, self.value(node.src[0]))

    def _after(self, position: int, node: UOp) -> None:
        if node in self.needed and node.src[0].op not in (ops.PARAM, ops.SCRATCH, ops.AFTER):
            self.values[node] = self.value(node.src[0])

    # --- accumulators -------------------------------------------------------------------------------------

    def _accumulator(self, position: int, node: UOp) -> None:
        self.accumulators[node] = self.value(node.src[0])

    def _update(self, position: int, node: UOp) -> None:
        accumulator = node.src[0]
        if accumulator not in self.accumulators:
            raise CompileError("an accumulator is updated before it has a value", where=repr(accumulator))
        self.accumulators[accumulator] = self.value(node.src[1])

    # --- loops --------------------------------------------------------------------------------------------

    def _range(self, position: int, node: UOp) -> None:
        kind = node.arg[1]
        if kind in ("global", "local"):
            self._identifier(node, kind)
        elif kind in _LOOPS:
            self._open_loop(position, node)
        else:
            raise CompileError(
                f"a {kind} range cannot stand in a program",
                where=repr(node),
                hint="ranges bound to lanes or unrolling are expanded before rendering",
            )

    def _identifier(self, node: UOp, kind: Literal["global", "local"]) -> None:
        if kind not in self.identifiers:
            self.identifiers[kind] = self.flavour.identifiers(self.body, kind, self.program, self.dimension)
        word, values = self.identifiers[kind]
        position = self.seen_ranges[kind]
        self.seen_ranges[kind] += 1
        if position >= len(values):
            raise CompileError(
                f"the program has more {kind} ranges than its {kind} size has entries", where=repr(node)
            )
        source = dtypes.int64 if word == "i64" else dtypes.uint32  # ids are never negative
        self.values[node] = cast(self.body, self.flavour, Register(source), node.dtype, values[position])

    def _open_loop(self, position: int, node: UOp) -> None:
        body, bound = self.body, node.src[0]
        register = Register.of(node)
        block = self._open(position, node, "done")
        block.head, block.bound, block.guarded = body.name("loop"), self.value(bound), bound.vmin <= 0
        if block.guarded:
            some = body.emit("some", f"icmp sgt {register.text} {block.bound}, 0")
            body.do(f"br i1 {some}, label %{block.head}, label %{block.after}")
        else:
            body.do(f"br label %{block.head}")
        body.start(block.head)
        block.line = len(body.lines)
        block.counter = "%" + body.name("i")
        body.lines.append("")  # the phis, written when the values at the end of the loop are known
        self.values[node] = block.counter
        for accumulator in block.before:
            block.phis[accumulator] = self.accumulators[accumulator] = "%" + body.name("acc")

    def _end(self, position: int, node: UOp) -> None:
        block = self._close(node.src[0])
        body, register = self.body, Register.of(block.node)
        following = body.emit("next", f"add nuw nsw {register.text} {block.counter}, 1")
        more = body.emit("more", f"icmp slt {register.text} {following}, {block.bound}")
        latch = body.block
        body.do(f"br i1 {more}, label %{block.head}, label %{block.after}")
        phis = [_phi(block.counter, register, ("0", block.opened_in), (following, latch))]
        for node, name in block.phis.items():
            before, again = (block.before[node], block.opened_in), (self.accumulators[node], latch)
            phis.append(_phi(name, Register.of(node), before, again))
        body.lines[block.line : block.line + 1] = phis
        body.start(block.after)
        if block.guarded:
            self._merge(block, latch)

    # --- conditional blocks -------------------------------------------------------------------------------

    def _if(self, position: int, node: UOp) -> None:
        block, inside = self._open(position, node, "after"), self.body.name("then")
        self.body.do(f"br i1 {self.value(node.src[0])}, label %{inside}, label %{block.after}")
        self.body.start(inside)

    def _endif(self, position: int, node: UOp) -> None:
        block = self._close(node.src[0])
        last = self.body.block
        self.body.do(f"br label %{block.after}")
        self.body.start(block.after)
        self._merge(block, last)

    def _open(self, position: int, node: UOp, after: str) -> _Block:
        before = {key: self.accumulators[key] for key in self.changed[position] if key in self.accumulators}
        block = _Block(node, self.body.block, self.body.name(after), frozenset(self.accumulators), before)
        self.blocks.append(block)
        self.memory.enter()
        return block

    def _close(self, opener: UOp) -> _Block:
        if not self.blocks or self.blocks[-1].node is not opener:
            raise CompileError("blocks are closed in another order than they were opened", where=repr(opener))
        self.memory.leave()
        block = self.blocks.pop()
        for accumulator in self.accumulators.keys() - block.alive:
            del self.accumulators[accumulator]
        return block

    def _merge(self, block: _Block, last: str) -> None:
        """What the accumulators hold after a block that may have been skipped."""
        for node, before in block.before.items():
            name = "%" + self.body.name("acc")
            inside = (self.accumulators[node], last)
            self.body.lines.append(_phi(name, Register.of(node), (before, block.opened_in), inside))
            self.accumulators[node] = name

    def _barrier(self, position: int, node: UOp) -> None:
        self.flavour.barrier(self.body)


_HANDLERS = {
    ops.LOAD: _Renderer._load,
    ops.STORE: _Renderer._store,
    ops.SPLAT: _Renderer._splat,
    ops.SHUFFLE: _Renderer._shuffle,
    ops.DOT: _Renderer._dot,
    ops.LANE_REDUCE: _Renderer._lane_reduce,
    ops.AFTER: _Renderer._after,
    ops.ACCUMULATOR: _Renderer._accumulator,
    ops.UPDATE: _Renderer._update,
    ops.RANGE: _Renderer._range,
    ops.END: _Renderer._end,
    ops.IF: _Renderer._if,
    ops.ENDIF: _Renderer._endif,
    ops.BARRIER: _Renderer._barrier,
}

# Dimensions are never negative, so unsigned division is floor division.
_DIMENSION: dict[Op, str] = {ops.ADD: "add", ops.SUB: "sub", ops.MUL: "mul", ops.FLOORDIV: "udiv"}


def _phi(name: str, register: Register, first: tuple[str, str], again: tuple[str, str]) -> str:
    """A phi of two (value, block) pairs."""
    pairs = ", ".join(f"[ {value}, %{block} ]" for value, block in (first, again))
    return f"  {name} = phi {register.text} {pairs}"


def _needed(statements: Sequence[UOp]) -> set[UOp]:
    """The nodes whose value something uses. A constant part of an address is folded into it, not computed."""
    needed: set[UOp] = set()
    for node in reversed(statements):
        if node.op.statement or node.op in (ops.RANGE, ops.ACCUMULATOR) or node in needed:
            needed.update(_read_by(node))
    return needed


def _read_by(node: UOp) -> Iterator[UOp]:
    """The operands whose value the instructions of a node read."""
    if node.op not in (ops.LOAD, ops.STORE):
        yield from node.src
        return
    buffer, index, *value, gate = node.src
    variable = index if index.shape else displacement(index)[0]
    yield from (operand for operand in (buffer, variable, *value) if operand is not None)
    if gate.vmin != gate.vmax:
        yield gate


def _changed_in_blocks(statements: Sequence[UOp]) -> dict[int, dict[UOp, None]]:
    """For every position that opens a block: the accumulators whose content changes in it, in order."""
    result: dict[int, dict[UOp, None]] = {}
    open_blocks: list[int] = []
    for position, node in enumerate(statements):
        if node.op is ops.IF or (node.op is ops.RANGE and node.arg[1] in _LOOPS):
            result[position] = {}
            open_blocks.append(position)
        elif node.op in (ops.END, ops.ENDIF) and open_blocks:
            open_blocks.pop()
        elif node.op in (ops.UPDATE, ops.ACCUMULATOR):
            for opener in open_blocks:
                result[opener][node if node.op is ops.ACCUMULATOR else node.src[0]] = None
    return result

"""Program to C-like text: walks the list, names values, indents; what is written comes from render rules.

A dialect is data (`Dialect`): which groups of `render` rules to ask, in which order, how types, vectors and
kernel heads are spelled. The walk itself knows no language: every expression and every statement is the text
of a rule, first of the dialect's own, then of the common ones in ``passes/cstyle.rules``.

A value that is used once is written into the expression that uses it, as long as that changes nothing: not
across the border of a loop, not past an update of an accumulator that it reads, and loads not past a store.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tinycore.codegen.program import Program
from tinycore.errors import CompileError
from tinycore.ir import DType, Target, UOp, dtypes, ops

GRID_KINDS = frozenset({"global", "local"})
LONGEST_INLINE = 72
"""Expressions longer than this get a name, so that the text stays readable."""
_MARK = re.compile("\0(\\d+)\0")
_STATEMENTS = frozenset({ops.STORE, ops.UPDATE, ops.BARRIER, ops.END, ops.IF, ops.ENDIF})


class Renders(Protocol):
    """A group of `render` rules."""

    def match(self, node: UOp, names: Callable[[UOp], str], context: object = None) -> str | None:
        """The text of a node, None when no rule of the group writes it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one C-like language is spelled.

    Attributes
    ----------
    name: for error messages.
    rules: groups of render rules, most specific first; the common one stands last.
    types: the scalar type of each dtype that a register can hold, by dtype name.
    memory_types: what differs from `types` in memory.
    bits: dtypes that registers hold as the bits of another dtype, because there is no arithmetic on them.
    suffixes: what a literal ends in, by dtype name.
    declaration: template with {type}, {name}, {text}.
    vector_type: the type of (scalar type, lanes).
    vector: an expression of (vector type, texts of the lanes, dtype); one text stands for all lanes.
    lane: an expression of (the vector node, its text, lane number).
    assemble: the whole source of (program, parameter declarations, shared and private memory, body).
    helpers: functions that rules may call, by name; those that are used come before the kernel.
    """

    name: str
    rules: tuple[Renders, ...]
    types: Mapping[str, str]
    memory_types: Mapping[str, str]
    bits: Mapping[str, DType]
    suffixes: Mapping[str, str]
    declaration: str
    vector_type: Callable[[str, int], str]
    vector: Callable[[str, Sequence[str], DType], str]
    lane: Callable[[UOp, str, int], str]
    assemble: Callable[[Program, Sequence[str], Sequence[str], Sequence[str]], str]
    helpers: Mapping[str, str] = field(default_factory=dict)

    def type_of(self, node: UOp) -> str:
        """The type of a node's value. Raises CompileError for a dtype that the dialect lacks."""
        scalar = self._scalar(node)
        return self.vector_type(scalar, lanes_of(node)) if node.shape else scalar

    def element_of(self, node: UOp) -> str:
        """The type of one element of a buffer. Raises CompileError like `type_of`."""
        return self.memory_types.get(node.dtype.name) or self._scalar(node)

    def _scalar(self, node: UOp) -> str:
        scalar = self.types.get(self.register(node.dtype).name)
        if scalar is None:
            raise CompileError(f"{self.name} has no type for {node.dtype}", where=repr(node))
        return scalar

    def register(self, dtype: DType) -> DType:
        """The dtype that registers hold a value in."""
        return self.bits.get(dtype.name, dtype)


@dataclass(frozen=True, slots=True)
class RenderContext:
    """What render rules and their natives see as `ctx`."""

    program: Program
    target: Target
    dialect: Dialect


def render_c(program: Program, target: Target, dialect: Dialect) -> str:
    """The source of a program.

    Raises CompileError when neither the dialect's rules nor the common ones can write a node.
    """
    return _Writer(RenderContext(program, target, dialect)).run()


def lanes_of(node: UOp) -> int:
    """How many lanes a program value has; 1 for a scalar."""
    if not node.shape:
        return 1
    count = node.shape[0]
    if len(node.shape) > 1 or not isinstance(count, int):
        raise CompileError(f"a program value has the shape {node.shape}", where=repr(node))
    return count


@dataclass(slots=True)
class _Pending:
    """A value that waits to be written into the one expression that uses it."""

    node: UOp
    text: str
    registers: frozenset[UOp]  # accumulators that the text reads
    memory: bool  # whether the text reads memory


class _Writer:
    """The state of one walk."""

    def __init__(self, context: RenderContext) -> None:
        self.context = context
        self.dialect = context.dialect
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[UOp, str] = {}
        self.pending: dict[UOp, _Pending] = {}
        self.numbers: Counter[str] = Counter()
        steps = context.program.linear.src
        self.uses = Counter(operand for node in steps for operand in node.src)
        self.last_update = {node.src[0]: k for k, node in enumerate(steps) if node.op is ops.UPDATE}
        self.position = 0
        self.marks: dict[UOp, int] = {}
        self.marked: list[UOp] = []
        self.reads: set[UOp] = set()
        self.reads_memory = False

    # --- the walk -----------------------------------------------------------------------------------------

    def run(self) -> str:
        """Parameters, memory and body, assembled and with the helpers that they use."""
        program = self.context.program
        for slot, parameter in enumerate(program.parameters):
            self.names[parameter] = f"data{slot}"
        for position, variable in enumerate(program.variables):
            self._name_variable(variable, position)
        nodes = program.linear.toposort()
        variables = {variable.arg: variable for variable in program.variables}
        for node in nodes:
            if node.op is ops.VARIABLE and node not in self.names:
                self._rename_variable(node)
                variables[node.arg] = node
        parameters = [self._write(node) for node in (*program.parameters, *variables.values())]
        memory = [self._memory(node) for node in nodes if node.op is ops.SCRATCH]
        for self.position, node in enumerate(program.linear.src):
            self._step(node)
        self._flush()
        source = self.dialect.assemble(program, parameters, memory, self.lines)
        used = [text for name, text in self.dialect.helpers.items() if re.search(rf"\b{name}\b", source)]
        return "\n".join([*used, source])

    def _name_variable(self, variable: UOp, position: int) -> None:
        name = str(variable.arg[0])
        # Kept apart from keywords and from names that the walk makes; odd characters leave a unique number.
        plain = name if re.fullmatch(r"[A-Za-z0-9_]+", name) else f"{position}"
        self.names[variable] = f"var_{plain}"

    def _rename_variable(self, node: UOp) -> None:
        """Program nodes spell a variable in the machine's dtype, the argument list in the graph's."""
        for variable in self.context.program.variables:
            if variable.arg == node.arg:
                self.names[node] = self.names[variable]
                return
        raise CompileError(f"variable {node.arg[0]!r} is not an argument of the program", where=repr(node))

    def _memory(self, node: UOp) -> str:
        self.names[node] = self._fresh("scratch")
        return self._write(node)

    def _step(self, node: UOp) -> None:
        if node.op is ops.SCRATCH:
            return
        if node.op is ops.RANGE:
            self._range(node)
        elif node.op in _STATEMENTS:
            self._statement(node)
        elif node.op is ops.ACCUMULATOR:
            self.names[node] = self._fresh("acc")
            self._emit(self._write(node))
        elif node.op is ops.AFTER:
            self._after(node)
        else:
            self._value(node)

    def _range(self, node: UOp) -> None:
        kind = str(node.arg[1])
        if kind in GRID_KINDS:
            self.names[node] = f"{kind[0]}id{node.arg[0]}"
            self._declare(node, self._write(node))
            return
        self.names[node] = self._fresh("i")
        header = self._write(node)
        self._flush()
        self._emit(header)
        self.depth += 1

    def _statement(self, node: UOp) -> None:
        if node.op is ops.STORE:
            node = self._with_scalar_gate(node, 3)
            if node.src[1].shape or node.src[3].shape:
                self._scatter(node)
                return
        text = self._write(node)
        if node.op is ops.UPDATE:
            self._flush(lambda waiting: node.src[0] in waiting.registers)
        elif node.op in (ops.STORE, ops.BARRIER):
            self._flush(lambda waiting: waiting.memory)
        if node.op in (ops.END, ops.ENDIF):
            self.depth -= 1
        self._emit(text)
        if node.op is ops.IF:
            self.depth += 1

    def _after(self, node: UOp) -> None:
        """Order is the order of the list: AFTER is its first operand, unless that changes later on."""
        inner = node.src[0]
        if self.last_update.get(inner, 0) > self.position:
            self._declare(node, self._name(inner))
        else:
            self.names[node] = self._name(inner)

    # --- values -------------------------------------------------------------------------------------------

    def _value(self, node: UOp) -> None:
        """Write a value as an expression, and keep it for its only user or give it a name."""
        self.names.pop(node, None)  # the same load, listed again, may read something else
        if node.op is ops.SPLAT:
            self._name(node.src[0])  # a splat gate is read as the scalar that it is
        if node.op is ops.LANE_REDUCE:
            text = self._lane_reduce(node)
        elif node.op is ops.LOAD:
            text = self._load(node)
        else:
            text = self._write(node)
        if node.op is ops.LOAD:
            self.reads_memory = True
        if self.uses[node] <= 1 and len(text) <= LONGEST_INLINE:
            self.pending[node] = _Pending(node, text, frozenset(self.reads), self.reads_memory)
        else:
            self._declare(node, text)

    def _write(self, node: UOp) -> str:
        """The text of a node by the first rule that knows it, with waiting operands written in."""
        self.reads, self.reads_memory = set(), False
        marked = self._ask(node)
        found = Counter(int(number) for number in _MARK.findall(marked))
        for number, count in found.items():
            if count > 1 and self.marked[number] in self.pending:
                self._settle(self.marked[number])
        return _MARK.sub(lambda match: self._placed(match, marked), marked)

    def _placed(self, match: re.Match[str], marked: str) -> str:
        """A waiting value where a template wants it, without parentheses where it stands alone."""
        text = self._take(self.marked[int(match[1])])
        opened = marked.endswith(("(", "[", " = "), 0, match.start())
        closed = marked.startswith((")", "]", ";", ","), match.end())
        return strip(text) if opened and closed else text

    def _ask(self, node: UOp) -> str:
        own, common = self.dialect.rules[:-1], self.dialect.rules[-1]
        for group in own if self._on_bits(node) else (*own, common):
            text = group.match(node, self._mention, self.context)
            if text is not None:
                return text
        operands = ", ".join(f"{operand.dtype}{list(operand.shape) or ''}" for operand in node.src)
        raise CompileError(
            f"{self.dialect.name} has no render rule for {node.op.name}({operands}) of {node.dtype}",
            where=repr(node),
            hint="leave it out of the target's capabilities, or add a rule to the dialect",
        )

    def _on_bits(self, node: UOp) -> bool:
        """Whether an op computes with a value that is held as bits, which the common rules would not notice."""
        if not node.op.elementwise or node.op in _ON_BITS:
            return False
        return any(operand.dtype.name in self.dialect.bits for operand in (node, *node.src))

    def _mention(self, operand: UOp) -> str:
        """What a template writes for an operand: a mark for a value that may still move, else its name."""
        if operand in self.names:
            register = operand.src[0] if operand.op is ops.CUSTOM else operand
            if register.op is ops.ACCUMULATOR:
                self.reads.add(register)
            return self.names[operand]
        if operand not in self.pending:
            # Rules may build elementwise nodes and mention them; everything else has to be listed.
            if not operand.op.elementwise and operand.op not in _LEAVES:
                raise CompileError("a program uses a value before it is listed", where=repr(operand))
            return self._ask(operand)
        number = self.marks.setdefault(operand, len(self.marked))
        if number == len(self.marked):
            self.marked.append(operand)
        return f"\0{number}\0"

    def _take(self, node: UOp) -> str:
        """The text of a waiting value, which thereby has found its user."""
        if node in self.names:
            return self.names[node]
        waiting = self.pending.pop(node)
        self.reads |= waiting.registers
        self.reads_memory |= waiting.memory
        return waiting.text

    def _name(self, node: UOp) -> str:
        """A text for a value that may be repeated at no cost."""
        return self._settle(node) if node in self.pending else self._mention(node)

    def _settle(self, node: UOp) -> str:
        """Give a waiting value its name now."""
        waiting = self.pending.pop(node)
        return self._declare(node, waiting.text)

    def _flush(self, concerned: Callable[[_Pending], bool] = lambda waiting: True) -> None:
        for node in [node for node, waiting in self.pending.items() if concerned(waiting)]:
            if self.uses[node] > 0:
                self._settle(node)

    def _declare(self, node: UOp, text: str) -> str:
        name = self.names.get(node) if node.op is ops.RANGE else None
        name = name or self._fresh("val" if node.op is ops.LOAD else "alu")
        self.names[node] = name
        kind = self.dialect.type_of(node)
        self._emit(self.dialect.declaration.format(type=kind, name=name, text=strip(text)))
        return name

    def _fresh(self, stem: str) -> str:
        number = self.numbers[stem]
        self.numbers[stem] += 1
        return f"{stem}{number}"

    def _emit(self, line: str) -> None:
        self.lines += ["  " * self.depth + part for part in line.splitlines()]

    # --- lanes one by one ---------------------------------------------------------------------------------

    def _lane(self, vector: UOp, lane: int) -> UOp:
        """A leaf that stands for one lane of a value."""
        if not vector.shape:
            return vector
        if vector.is_const:
            return UOp.from_bits(vector.dtype, vector.arg[0])
        if vector.op is ops.IOTA:
            return UOp.const(vector.dtype, lane)
        if vector.op is ops.SPLAT and vector.src[0] in self.names:
            return vector.src[0]
        leaf = UOp(ops.CUSTOM, vector.dtype, (vector,), (f"lane.{lane}", ()))
        self.names[leaf] = self.dialect.lane(vector, self._name(vector), lane)
        return leaf

    def _part(self, node: UOp) -> str:
        """The text of a scalar that the walk made itself."""
        self.uses[node] = 1
        self._value(node)
        reads, memory = self.reads, self.reads_memory
        self.reads, self.reads_memory = set(), False
        text = self._take(node)
        self.reads |= reads
        self.reads_memory |= memory
        return text

    def _lane_reduce(self, node: UOp) -> str:
        """The lanes combined pairwise, in a fixed order: neighbouring halves first."""
        operand = node.src[0]
        parts = [self._lane(operand, lane) for lane in range(lanes_of(operand))]
        while len(parts) > 1:
            half = (len(parts) + 1) // 2
            pairs = [UOp(node.arg, node.dtype, pair) for pair in zip(parts, parts[half:], strict=False)]
            for pair in pairs:
                self.uses[pair] = 1
                self._value(pair)
            parts = [*pairs, *parts[len(pairs) : half]]
        return self._take(parts[0])

    def _addresses(self, index: UOp, lanes: int) -> list[UOp]:
        """The index of each lane of a load or a store that cannot be one vector access."""
        if index.shape:
            return [self._lane(index, lane) for lane in range(lanes)]
        addresses = []
        for lane in range(lanes):
            address = index
            if lane:
                address = UOp(ops.ADD, index.dtype, (index, UOp.const(index.dtype, lane)))
                self._name(index)
                self.names[address] = self._write(address)
            addresses.append(address)
        return addresses

    def _with_scalar_gate(self, node: UOp, position: int) -> UOp:
        """A load or store with a gate that is the same in all lanes as one with a scalar gate."""
        gate = node.src[position]
        if not gate.shape or node.src[1].shape:
            return node
        if gate.is_const:
            scalar = UOp.from_bits(gate.dtype, gate.arg[0])
        elif gate.op is ops.SPLAT and gate.src[0] in self.names:
            scalar = gate.src[0]
            self.uses[gate] -= 1
        else:
            return node
        return node.replace(src=(*node.src[:position], scalar, *node.src[position + 1 :]))

    def _load(self, node: UOp) -> str:
        plain = self._with_scalar_gate(node, 2)
        return self._gather(plain) if plain.src[1].shape or plain.src[2].shape else self._write(plain)

    def _gather(self, node: UOp) -> str:
        """A load whose lanes have their own addresses or gates."""
        buffer, index, gate = node.src
        parts = [
            self._part(UOp(ops.LOAD, node.dtype, (buffer, address, self._lane(gate, lane)), 1))
            for lane, address in enumerate(self._addresses(index, lanes_of(node)))
        ]
        self.reads_memory = True
        return self.dialect.vector(self.dialect.type_of(node), [strip(part) for part in parts], node.dtype)

    def _scatter(self, node: UOp) -> None:
        """A store whose lanes have their own addresses or gates, in the order of the lanes."""
        buffer, index, value, gate = node.src
        lanes = max(lanes_of(operand) for operand in (index, value, gate))
        addresses = self._addresses(index, lanes)
        for lane in range(lanes):
            parts = (buffer, addresses[lane], self._lane(value, lane), self._lane(gate, lane))
            self._statement(UOp(ops.STORE, dtypes.void, parts))


_LEAVES = frozenset({ops.CONST, ops.IOTA})
_ON_BITS = frozenset({ops.BITCAST, ops.WHERE})  # what can be done to a value held as bits


def strip(text: str) -> str:
    """The text without parentheses around the whole of it.

    >>> strip("(a + b)"), strip("(a) + (b)")
    ('a + b', '(a) + (b)')
    """
    if not (text.startswith("(") and text.endswith(")")):
        return text
    level = 0
    for position, character in enumerate(text):
        level += (character == "(") - (character == ")")
        if level == 0 and position < len(text) - 1:
            return text
    return text[1:-1]

"""Render rules: the text that they write is run as C, and compared with what the interpreter answers.

The text of a rule counts only where no rule before it in its group writes the node. What earlier passes promise
holds for the operands: shifts stay inside the width, nothing is divided by zero, and no quotient overflows.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.errors import TinycoreError
from tinycore.ir import UOp, dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import TABLE, Op, ops
from tinycore.rules import syntax as s
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.ctext import Undefined, expression, statements
from tinycore_tools_rules.evaluate import differences
from tinycore_tools_rules.judge import values_of
from tinycore_tools_rules.sample import LANES, RandomLeaves, Tested
from tinycore_tools_rules.sources import Table, Unit, units_of
from tinycore_tools_rules.typed import Impossible, is_scalar, typed_cases
from tinycore_tools_rules.values import random_values

Array = NDArray[Any]
WANTED, ATTEMPTS = 1000, 4000
_WIDE = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2", "index")
"""Dtypes that C has no name for."""
_NUMBERS = tuple(dtype for dtype in dtypes.DATA if dtype.name not in _WIDE)
TRUE = UOp.const(dtypes.bool_, True)


def _type_of(node: UOp) -> str:
    if node.dtype.name in _WIDE:
        raise Impossible
    return node.dtype.name


DIALECT = SimpleNamespace(
    types={dtype.name: dtype.name for dtype in _NUMBERS},
    type_of=_type_of,
    element_of=_type_of,
    register=lambda dtype: dtype,
    suffixes={"float32": "f", "uint32": "u", "int64": "l", "uint64": "ul"},
    vector=lambda kind, texts, dtype: "\n".join(texts),
)
"""The dialect of C in which types have the names of dtypes."""


@dataclass(slots=True)
class Program:
    """An instance, and how its text is judged.

    node: what is written. arrays: the values of its leaves, one a lane. before, after: text around a statement.
    expected: what holds afterwards, of the values of a lane and its number; None where the node has a value.
    memory: lists by name.
    """

    node: UOp
    arrays: dict[UOp, Array]
    before: str = ""
    after: str = ""
    expected: Callable[[dict[str, Any], int], bool] | None = None
    memory: dict[UOp, list[Any]] = field(default_factory=dict)
    lanes: int = LANES


def verify_render(unit: Unit, wanted: int = WANTED) -> Tested:
    """Random instances of a render rule, until enough of them were written and agreed."""
    found = Tested()
    chance = random.Random(unit.identity)
    tables = [*_earlier(unit), unit.table()]
    makers = list(_makers(unit))
    for attempt in range(ATTEMPTS if makers else 0):
        if found.instances >= wanted or found.problem:
            break
        if attempt == ATTEMPTS // 4 and not found.instances:
            break
        try:
            program = makers[attempt % len(makers)](chance)
        except Impossible:
            continue
        _try(unit, tables, program, found)
    return found


def _earlier(unit: Unit) -> list[Table]:
    """The rules before this one in its group: they are asked first."""
    tables = []
    for name, table in _tables(unit.source, unit.group.name):
        if name == unit.name:
            break
        tables.append(table)
    return tables


@functools.cache
def _tables(source: Any, group: str) -> list[tuple[str, Table]]:
    return [(unit.name, unit.table()) for unit in units_of(source) if unit.group.name == group]


# --- judging --------------------------------------------------------------------------------------------------


class _Names:
    """Names of operands, given when they are asked for."""

    def __init__(self) -> None:
        self.known: dict[UOp, str] = {}

    def __call__(self, node: UOp) -> str:
        return self.known.setdefault(node, f"v{len(self.known)}")


def _try(unit: Unit, tables: list[Table], program: Program, found: Tested) -> None:
    names = _Names()
    context = SimpleNamespace(target=contexts(unit)[0].target, dialect=DIALECT, filters={})
    try:
        if any(_written(table, program.node, (names, context)) is not None for table in tables[:-1]):
            return
        names.known.clear()
        text = _written(tables[-1], program.node, (names, context))
        if text is None:
            return
        problem = _judged(program, text, names, found)
    except Impossible:
        return
    except Undefined as error:
        problem = str(error)
    except (TinycoreError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        problem, text = f"the rule raises {type(error).__name__}: {error}", ""
    if problem:
        found.problem = problem
        note = f"# {unit.name} at {unit.where}\n# {program.node!r} is written as {text!r}\n# {problem}"
        found.refutation = f"{note}\n{found.refutation}".rstrip()


def _written(table: Table, node: UOp, context: Any) -> str | None:
    for function in table.get(node.op, ()):
        text = function(node, context)
        if text is not None:
            return str(text)
    return None


def _judged(program: Program, text: str, names: _Names, found: Tested) -> str:
    """What is wrong with a text; counts the lanes that were compared."""
    node = program.node
    if node.op is ops.IOTA:
        return _iota(node, text, found)
    with_memory = {names(memory): cells for memory, cells in program.memory.items()}
    kinds = {name: operand.dtype for operand, name in names.known.items() if operand.dtype is not dtypes.void}
    if "\n" in text:
        return "a line ends in the middle"
    lines = f"{program.before} {text} {program.after}" if program.expected else ""
    run = statements(lines, {"count": dtypes.int32, "total": dtypes.int64, **kinds}) if lines else None
    dtype, value = (node.dtype, None) if run else expression(text, kinds)
    if node.dtype.is_float and not run and dtype is not node.dtype:
        return f"the text is a {dtype.name}, not a {node.dtype.name}"
    listed = not (node.op.elementwise or node.op is ops.CONST)
    whole = dict(program.arrays) if listed else values_of(node, program.arrays)
    for operand in names.known:
        if operand.op is ops.CONST:
            whole |= values_of(operand, {})
    sane = _sane(node, whole, program.lanes)
    for lane in range(program.lanes):
        if not sane[lane]:
            continue
        scope = {
            name: _element(whole, operand, lane) for operand, name in names.known.items() if operand in whole
        }
        scope |= {name: list(cells) for name, cells in with_memory.items()}
        found.instances += 1
        pasted = _pasted(lines or text, kinds, scope, bool(run))
        try:
            if run and program.expected:
                scope |= {"count": 0, "total": 0}
                run(scope)
                good = program.expected({**scope, "names": names}, lane)
                answer, wanted = "something else", "what it should do"
            elif value:
                answer, wanted = value(scope), _element(whole, node, lane)
                good = _same(node, wanted, answer)
        except Undefined as error:
            good, answer, wanted = False, str(error), "defined"
        if not good:
            found.refutation = pasted
            return f"the text answers {answer}, not {wanted}"
    found.graphs += 1
    found.dtypes.add(node.dtype.name)
    return ""


def _element(values: dict[UOp, Array], node: UOp, lane: int) -> Any:
    array = np.asarray(values[node])
    element = array.reshape(-1)[lane] if array.size > 1 else array.reshape(-1)[0]
    return element if node.dtype.is_float else int(element)


def _pasted(text: str, kinds: dict[str, DType], scope: dict[str, Any], whole: bool) -> str:
    """Python that runs a text for these values of its names."""

    def literal(value: Any, dtype: DType) -> str:
        if isinstance(value, list):
            return f"[{', '.join(literal(part, dtype) for part in value)}]"
        return f'dtypes.{dtype.name}.numpy.type("{float(value)!r}")' if dtype.is_float else repr(value)

    types = ", ".join(f'"{name}": dtypes.by_name("{dtype.name}")' for name, dtype in kinds.items())
    values = ", ".join(f'"{name}": {literal(value, kinds[name])}' for name, value in scope.items())
    run = "run = statements(" if whole else "_, run = expression("
    more = '"count": dtypes.int32, "total": dtypes.int64, ' if whole else ""
    start = '"count": 0, "total": 0, ' if whole else ""
    lines = [
        "from tinycore.ir import dtypes",
        "from tinycore_tools_rules.ctext import expression, statements",
        f"{run}{text!r}, {{{more}{types}}})",
        f"values = {{{start}{values}}}",
        "print(run(values), values)",
    ]
    return "\n".join(lines)


def _same(node: UOp, expected: Any, answer: Any) -> bool:
    if not node.dtype.is_float:
        return bool(expected == answer)
    one, two = np.asarray(expected), np.asarray(answer)
    return one.dtype == two.dtype and not differences(one, two, node.op in (ops.MAX, ops.MIN)).any()


def _iota(node: UOp, text: str, found: Tested) -> str:
    """Lanes are lines in this dialect."""
    for number, line in enumerate(text.split("\n")):
        _, value = expression(line, {})
        if value({}) != number:
            return f"lane {number} is {line}"
        found.instances += 1
    found.dtypes.add(node.dtype.name)
    return (
        ""
        if text.count("\n") == node.arg - 1
        else f"there are {text.count(chr(10)) + 1} lanes, not {node.arg}"
    )


def _sane(node: UOp, values: dict[UOp, Array], lanes: int) -> NDArray[np.bool_]:
    """The lanes that keep what earlier passes promise."""
    sane = np.ones(lanes, bool)
    if node.op in (ops.SHL, ops.SHR):
        amount = values[node.src[1]].astype(object)
        sane &= np.asarray((amount >= 0) & (amount < node.dtype.bits), bool)
    if node.op in (ops.TRUNCDIV, ops.TRUNCMOD):
        a, b = values[node.src[0]], values[node.src[1]]
        least = np.asarray(node.dtype.min).astype(a.dtype)
        sane &= (b != 0) & ~(
            (node.dtype.kind == "int") & (a == least) & (b.astype(object) == -1).astype(bool)
        )
    return sane


# --- instances ------------------------------------------------------------------------------------------------


def _makers(unit: Unit) -> Iterator[Callable[[random.Random], Program]]:
    """What makes instances of the pattern of a rule."""
    pattern = unit.rule.pattern
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    if not isinstance(pattern, s.Apply):
        return
    for op in [TABLE[name] for case in unit.cases for name in [case.root]]:
        if op in _SPECIAL:
            yield functools.partial(_SPECIAL[op], op)
    if is_scalar(unit.rule.pattern) and TABLE[unit.cases[0].root].elementwise:
        for typed in typed_cases(unit):
            if not any(dtype.name in _WIDE for dtype in typed.dtypes.values()):
                yield functools.partial(_elementwise, typed)


def _elementwise(typed: Any, chance: random.Random) -> Program:
    leaves = RandomLeaves(chance, LANES, False, plain=chance.random() < 0.4)
    node = typed.build(leaves)
    if any(dtype.name in _WIDE for dtype in (part.dtype for part in node.src)):
        raise Impossible
    return Program(node, leaves.arrays)


def _leaf(program: dict[UOp, Array], dtype: DType, values: Array) -> UOp:
    node = UOp(ops.BUFFER, dtype, (), (len(program), (), "D"))
    program[node] = values
    return node


def _random(chance: random.Random, arrays: dict[UOp, Array], dtype: DType) -> UOp:
    return _leaf(arrays, dtype, random_values(dtype, LANES, chance))


def _const(op: Op, chance: random.Random) -> Program:
    dtype = chance.choice(_NUMBERS)
    value = random_values(dtype, 1, chance)[0]
    return Program(UOp.const(dtype, value.item()), {}, lanes=1)


def _iotas(op: Op, chance: random.Random) -> Program:
    return Program(UOp(op, dtypes.int32, (), chance.choice([2, 4, 8])), {})


def _memory(chance: random.Random, arrays: dict[UOp, Array]) -> tuple[UOp, UOp, UOp, list[Any], Array, Array]:
    """A buffer of 4 elements (bools are bytes there), an index that is inside where the gate holds, the gate."""
    dtype = chance.choice(_NUMBERS)
    memory = UOp(ops.PARAM, dtype, (), (99, (4,)))
    values = random_values(dtype, 4, chance)
    cells = values.tolist() if not dtype.is_float else list(values)
    if dtype.kind == "bool":
        cells = [chance.choice([1, 2, 255]) if cell else 0 for cell in cells]
    closed = chance.random() < 0.5
    gates = np.array([True if closed else chance.random() < 0.6 for _ in range(LANES)])
    places = np.array([chance.randrange(4) if gate else chance.choice([-1, 4, 1000]) for gate in gates])
    index = _leaf(arrays, dtypes.int32, places.astype(np.int32))
    gate = TRUE if closed else _leaf(arrays, dtypes.bool_, gates)
    return memory, index, gate, cells, places, gates


def _load(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    memory, index, gate, cells, places, gates = _memory(chance, arrays)
    node = UOp(op, memory.dtype, (memory, index, gate), 1)
    read = [cells[place] if gate else 0 for place, gate in zip(places, gates, strict=True)]
    arrays[node] = np.array([bool(cell) for cell in read]) if memory.dtype.kind == "bool" else np.array(
        read, object if not memory.dtype.is_float else memory.dtype.numpy
    ).astype(memory.dtype.numpy)  # fmt: skip
    return Program(node, arrays, memory={memory: cells})


def _store(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    memory, index, gate, cells, places, gates = _memory(chance, arrays)
    value = _random(chance, arrays, memory.dtype)

    def stored(scope: dict[str, Any], lane: int) -> bool:
        wanted = list(cells)
        if gates[lane]:
            wanted[places[lane]] = _element(arrays, value, lane)
        found = scope[scope["names"](memory)]
        return np.array_equal(np.array(found, float), np.array(wanted, float), equal_nan=True)

    node = UOp(op, dtypes.void, (memory, index, value, gate))
    return Program(node, arrays, expected=stored, memory={memory: cells})


def _accumulator(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    value = _random(chance, arrays, chance.choice(_NUMBERS))
    register = UOp(ops.ACCUMULATOR, value.dtype, (value,), 0)

    def holds(scope: dict[str, Any], lane: int) -> bool:
        found, wanted = scope[scope["names"](register)], _element(arrays, value, lane)
        return bool(found == wanted) or bool(found != found and wanted != wanted)

    if op is ops.ACCUMULATOR:
        return Program(register, arrays, expected=holds)
    arrays[register] = random_values(value.dtype, LANES, chance)
    return Program(UOp(op, dtypes.void, (register, value)), arrays, expected=holds)


def _range(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    dtype = chance.choice([dtypes.int32, dtypes.int64])
    bounds = np.array([chance.randrange(9) for _ in range(LANES)])
    bound = _leaf(arrays, dtype, bounds.astype(dtype.numpy))
    node = UOp(op, dtype, (bound,), (0, "loop"))

    def counted(scope: dict[str, Any], lane: int) -> bool:
        many = int(bounds[lane])
        return bool(scope["count"] == many and scope["total"] == many * (many - 1) // 2)

    return Program(node, arrays, "", "count = count + 1; total = total + v0; }", counted)


def _closing(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    times = chance.randrange(5)
    loop = UOp(ops.RANGE, dtypes.int32, (UOp.const(dtypes.int32, times),), (0, "loop"))
    opened = UOp(ops.IF, dtypes.void, (TRUE,)) if op is ops.ENDIF else loop
    head = f"if (1 < {times}) {{" if op is ops.ENDIF else f"for (int32 i = 0; i < {times}; i++) {{"
    wanted = int(times > 1) if op is ops.ENDIF else times

    def closed(scope: dict[str, Any], lane: int) -> bool:
        return bool(scope["count"] == wanted + 10)

    node = UOp(op, dtypes.void, (opened,))
    return Program(node, arrays, f"{head} count = count + 1;", "count = count + 10;", closed)


def _if(op: Op, chance: random.Random) -> Program:
    arrays: dict[UOp, Array] = {}
    condition = _random(chance, arrays, dtypes.bool_)

    def taken(scope: dict[str, Any], lane: int) -> bool:
        return bool(scope["count"] == 2 * _element(arrays, condition, lane))

    return Program(UOp(op, dtypes.void, (condition,)), arrays, "", "count = 1; count = count + 1; }", taken)


_SPECIAL: dict[Op, Callable[[Op, random.Random], Program]] = {
    ops.CONST: _const,
    ops.IOTA: _iotas,
    ops.LOAD: _load,
    ops.STORE: _store,
    ops.ACCUMULATOR: _accumulator,
    ops.UPDATE: _accumulator,
    ops.RANGE: _range,
    ops.END: _closing,
    ops.ENDIF: _closing,
    ops.IF: _if,
}

"""Proofs of scalar rules by z3: the compiled rule is run on symbolic constants and bounds.

A proof is about one `Typed` pattern. Constants are symbols first; where z3 does not answer in time, they are
enumerated over edge values, and the operands stay symbolic.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import z3

from tinycore.ir import UOp
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import ops
from tinycore.rules import support
from tinycore.rules import syntax as s
from tinycore.rules.expand import nodes_in
from tinycore.rules.fold import fold
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.effort import solver_for
from tinycore_tools_rules.sources import Table, Unit
from tinycore_tools_rules.symbols import BitSymbol, IntSymbol, Path, Symbol, Truth, Unsupported, explore
from tinycore_tools_rules.terms import Encoding, Terms, signless, sort_width, wrap
from tinycore_tools_rules.typed import Impossible, Typed, leaves_of

SYMBOLIC_MS, ENUMERATED_MS = 1200, 400
MATCHED_CHOICES, MAXIMUM_CHOICES = 28, 600
ROUNDING_FLAGS = frozenset({"reassoc", "contract", "arcp"})
"""Fast-math flags of rules that may round differently: they are proved for real numbers."""
ROUND_CONSTANTS = (1.0, 2.0, -1.0, -2.0, 4.0)
"""Constants whose sums and products every float holds exactly."""
EDGES: tuple[int, ...] = (0, 1, -1, 2, 3, -2, 4, 7, 8, -3, 5, 6, 12, 16, 31, 64, -8, 100, 127, -128, 255)
FLOAT_EDGES: tuple[float, ...] = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, -4.0, 0.1, 448.0, float("inf"), float("-inf"), float("nan")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance for which z3 says that the sides differ: values by leaf name, constants, bounds."""

    values: Mapping[str, int]
    constants: Mapping[str, int]
    bounds: Mapping[str, tuple[int, int]]
    problem: str = ""


@dataclass(slots=True)
class Proof:
    """What z3 found about one typed pattern.

    `answer` is proved, unknown, different or "no match"; `matched` counts the paths that rewrote; `enumerated`
    how many choices of constants were needed (0: all constants are proved at once).
    """

    answer: str
    matched: int = 0
    enumerated: int = 0
    why: str = ""
    candidate: Candidate | None = None


class SymbolicLeaves:
    """Leaves with symbolic bits and bounds; constants symbolic unless they are given."""

    def __init__(
        self, path: Path, given: Mapping[str, Scalar], bounded: frozenset[str] | None, encoding: Encoding
    ) -> None:
        self.path, self.given, self.bounded, self.encoding = path, given, bounded, encoding
        self.terms: dict[UOp, Any] = {}
        self.values: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.bounds: dict[str, tuple[Any, Any]] = {}
        self.dtypes: dict[str, DType] = {}

    def _fresh(self, name: str, dtype: DType) -> Any:
        if dtype.kind == "bool":
            return z3.Bool(name)
        if dtype.is_float and self.encoding == "reals":
            return z3.Real(name)
        width = sort_width(dtype, self.encoding)
        if width is not None:
            return z3.BitVec(name, width)
        term = z3.Int(name)
        if dtype.bits:
            self.path.assume(term >= int(dtype.min), term <= int(dtype.max))
        return term

    def number(self, name: str, dtype: DType) -> Symbol:
        """A symbolic number that a dtype holds."""
        if dtype.kind == "bool":
            return BitSymbol.of_term(self.path, z3.BitVec(name, 1), False)
        term = self._fresh(name, dtype)
        if z3.is_int(term):
            return IntSymbol(self.path, term)
        return BitSymbol.of_term(self.path, term, dtype.kind != "uint")

    def variable(self, name: str, dtype: DType) -> UOp:
        """A leaf; its bounds are symbols if the rule asks for them."""
        node = UOp(ops.BUFFER, dtype, (), (next(_serial), (), "symbolic"))
        self.dtypes[name] = dtype
        self.values[name] = self.terms[node] = self._fresh(f"{name}", dtype)
        if not dtype.is_float and (self.bounded is None or name in self.bounded):
            self.bound(name, node, self.terms[node])
        return node

    def bound(self, name: str, node: UOp, term: Any) -> None:
        """Give a node symbolic bounds: all that the rule may assume is that the value lies between them."""
        low, high = self.number(f"{name}.vmin", node.dtype), self.number(f"{name}.vmax", node.dtype)
        if node.dtype.kind == "bool":
            one = z3.BitVecVal(1, 1)
            first, last = _term(low, 1), _term(high, 1)
            self.path.assume(z3.Implies(first == one, term), z3.Implies(term, last == one))
        else:
            width = sort_width(node.dtype, self.encoding)
            first, last = _term(low, width), _term(high, width)
            below = z3.ULE if node.dtype.kind == "uint" and width is not None else _less_equal
            self.path.assume(below(first, term), below(term, last))
        self.bounds[name] = (first, last)
        node._bounds = (low, high)  # type: ignore[assignment]

    def constant(self, name: str, dtype: DType) -> UOp:
        """A CONST of a given or of any value."""
        self.dtypes[name] = dtype
        if name in self.given:
            return UOp.const(dtype, self.given[name])
        if dtype.is_float or dtype.kind == "bool":
            raise Unsupported("a symbolic constant that is no integer")
        symbol = self.number(name, dtype)
        self.constants[name] = _term(symbol, sort_width(dtype, self.encoding))
        return symbolic_const(dtype, symbol)


_serial = itertools.count(1 << 40)


def _less_equal(a: Any, b: Any) -> Any:
    return a <= b


def _term(symbol: Symbol, width: int | None) -> Any:
    if isinstance(symbol, IntSymbol):
        return symbol.term
    assert isinstance(symbol, BitSymbol) and width is not None
    return symbol.make(width)


# --- what compiled rules call, for symbols too ----------------------------------------------------------------


def symbolic_const(dtype: DType, value: Any, shape: Any = ()) -> UOp:
    """`const` of the rule language; integers may be symbols."""
    if isinstance(value, Truth):
        value = bool(value)
    if not isinstance(value, Symbol):
        return support.const(dtype, value, shape)
    if dtype.kind == "bool":
        return support.const(dtype, bool(value), shape)
    if dtype.is_float:
        raise Unsupported("a symbolic float")
    if isinstance(value, BitSymbol):
        bits = dtype.bits or 64
        value = BitSymbol.of_term(value.path, value.make(bits), dtype.kind != "uint")
    elif isinstance(value, IntSymbol):
        value = IntSymbol(value.path, wrap(dtype, value.term))
    node = UOp(ops.CONST, dtype, (), (value, shape))
    node._bounds = (value, value)
    return node


def symbolic_coerce(node: UOp, dtype: DType, shape: Any) -> UOp:
    """`coerce` of the rule language."""
    if not isinstance(node.arg[0], Symbol):
        return support.coerce(node, dtype, shape)
    return node if node.dtype is dtype else symbolic_const(dtype, node.arg[0], shape)


def symbolic_fold(op: Any, dtype: DType, src: tuple[UOp, ...]) -> UOp:
    """`fold` of the rule language; what holds symbols stays a node."""
    if any(isinstance(operand.arg[0], Symbol) for operand in src):
        return UOp(op, dtype, src)
    return fold(op, dtype, src)


current: list[Path] = []
"""The path that is being run."""


def any_truth(*_: Any) -> Any:
    """What stands for a native that looks at nodes and answers a bool: either answer, both are followed."""
    return Truth(current[-1], z3.FreshConst(z3.BoolSort(), "native"))


def opaque_natives(unit: Unit) -> list[s.Native]:
    """The natives of a rule that see nodes: what they answer for a leaf says nothing about other nodes."""
    return [
        native
        for native in unit.source.file.natives
        if native.name in unit.natives
        and any(kind.name in ("node", "nodes", "any", "list") for kind in native.parameters)
        and not _numbers_only(unit, native)
    ]


def _numbers_only(unit: Unit, native: s.Native) -> bool:
    """Whether all operands of an ``any`` native are captured constants."""
    constants = {node.name for node in nodes_in(unit.rule.pattern) if isinstance(node, s.Constant)}
    calls = [node for node in nodes_in(unit.rule) if isinstance(node, s.Call) and node.name == native.name]
    return all(kind.name not in ("node", "nodes", "list") for kind in native.parameters) and all(
        isinstance(part, s.Name) and part.name in constants for call in calls for part in call.operands
    )


def symbolic_table(unit: Unit) -> Table:
    """The compiled rule, able to compute with symbols. Raises Unsupported for natives that make nodes."""
    changes: dict[str, Any] = {"const": symbolic_const, "coerce": symbolic_coerce, "fold": symbolic_fold}
    for native in opaque_natives(unit):
        if native.result.name != "bool":
            raise Unsupported(f"native {native.name}")
        changes[f"f_{native.name}"] = any_truth
    return unit.table(**changes)


# --- proofs ---------------------------------------------------------------------------------------------------


def bounded_names(unit: Unit) -> frozenset[str] | None:
    """The captures whose bounds the rule asks for; None when a native may ask for any."""
    if unit.natives:
        return None
    return frozenset(
        node.value.name
        for node in nodes_in(unit.rule)
        if isinstance(node, s.Attribute)
        and node.name in ("vmin", "vmax", "bounds")
        and isinstance(node.value, s.Name)
    )


def edge_values(dtype: DType) -> list[Scalar]:
    """Constants worth trying in a dtype."""
    if dtype.kind == "bool":
        return [False, True]
    if dtype.is_float:
        patterns = dict.fromkeys(
            dtype.to_bits(value) for value in FLOAT_EDGES
        )  # 0.0 and -0.0 are equal, their bits are not
        return [dtype.from_bits(bits) for bits in patterns]
    inside = [v for v in EDGES if dtype.kind == "index" or dtype.min <= v <= dtype.max]
    extremes = [] if dtype.kind == "index" else [int(dtype.max), int(dtype.min)]
    return list(dict.fromkeys([*inside[:8], *extremes, *inside[8:]]))


def combinations(constants: Mapping[str, DType], exact: bool = False) -> list[dict[str, Scalar]]:
    """Choices of constants from the edges, in a fixed random order; with `exact` floats that are never rounded."""
    lists = [
        list(ROUND_CONSTANTS) if exact and dtype.is_float else edge_values(dtype)
        for dtype in constants.values()
    ]
    every = list(itertools.islice(itertools.product(*lists), 20_000))
    random.Random(repr(sorted(constants))).shuffle(every)
    return [dict(zip(constants, chosen, strict=True)) for chosen in every[:MAXIMUM_CHOICES]]


@dataclass(slots=True)
class Habit:
    """What worked for other dtypes of the same rule is tried first."""

    encoding: Encoding | None = None
    symbolic: int = 0
    """How often symbolic constants failed where enumerated ones did not."""


def prove(unit: Unit, table: Table, typed: Typed, patience: float = 1.0, habit: Habit | None = None) -> Proof:
    """Prove one typed pattern: symbolic constants, unless they failed twice before; then enumerated ones."""
    habit = habit or Habit()
    variables, constants = leaves_of(typed)
    if not variables and constants:
        return Proof("unknown", why="only constants: folding is tested")
    fixed = any(dtype.is_float or dtype.kind == "bool" for dtype in constants.values())
    if not constants or (habit.symbolic < 2 and not fixed):
        result = _attempt(unit, table, typed, {}, int(SYMBOLIC_MS * patience), habit)
        if result.answer != "unknown" or not constants:
            return result
    matched, tried = 0, 0
    for chosen in combinations(constants, bool(unit.notes.flags & ROUNDING_FLAGS)):
        found = _attempt(unit, table, typed, chosen, int(ENUMERATED_MS * patience), habit)
        if found.answer in ("different", "unknown"):
            return found
        matched += found.matched
        tried += found.answer == "proved"
        if tried >= MATCHED_CHOICES:
            break
    habit.symbolic += matched > 0 and not fixed
    return Proof("proved" if matched else "no match", matched, tried)


def _attempt(
    unit: Unit, table: Table, typed: Typed, given: Mapping[str, Scalar], timeout: int, habit: Habit
) -> Proof:
    """The encodings in turn, until one answers."""
    kinds = {dtype.kind for dtype in typed.dtypes.values()}
    encodings: list[Encoding] = ["words"]
    if "float" in kinds and unit.notes.flags & ROUNDING_FLAGS:
        encodings = ["reals"]
    if "index" in kinds:
        encodings.append("machine")
    if kinds & {"int", "uint"} and "float" not in kinds:
        encodings.append("integers")
    reasons = []
    if habit.encoding in encodings:
        encodings.sort(key=lambda encoding: encoding != habit.encoding)
    for encoding in encodings:
        try:
            found = _all_contexts(unit, table, typed, given, timeout, encoding)
        except Unsupported as reason:
            reasons.append(str(reason))
            continue
        except Impossible:
            return Proof("no match")
        if found.answer == "different" and encoding in (
            "machine",
            "reals",
        ):  # words wrap where integers do not
            reasons.append(f"differs with {encoding} for numbers")
        elif found.answer == "unknown":
            reasons.append(found.why)
        else:
            if found.answer == "proved":
                habit.encoding = encoding
            return found
    return Proof("unknown", why="; ".join(dict.fromkeys(reasons)))


def _all_contexts(
    unit: Unit, table: Table, typed: Typed, given: Mapping[str, Scalar], timeout: int, encoding: Encoding
) -> Proof:
    total = Proof("no match")
    for context in contexts(unit):
        found = _run(unit, table, typed, given, timeout, context, encoding)
        if found.answer in ("different", "unknown"):
            return found
        total.matched += found.matched
    total.answer = "proved" if total.matched else "no match"
    return total


def _run(
    unit: Unit,
    table: Table,
    typed: Typed,
    given: Mapping[str, Scalar],
    timeout: int,
    context: Any,
    encoding: Encoding,
) -> Proof:
    asked = bounded_names(unit)
    root = next((name for name, (_, local) in typed.matcher.captures.items() if local == "n"), None)

    def run(path: Path) -> tuple[SymbolicLeaves, Terms, UOp, Any]:
        leaves = SymbolicLeaves(path, given, asked, encoding)
        before = typed.build(leaves)
        terms = Terms(leaves.terms.__getitem__, encoding)
        if root is not None and not before.dtype.is_float and (asked is None or root in asked):
            leaves.bound(root, before, terms.of(before))
        current.append(path)
        try:
            return leaves, terms, before, _apply(table, before, context)
        finally:
            current.pop()

    result = Proof("no match")
    for path, (leaves, terms, before, after) in explore(run):
        if after is None:
            continue
        result.matched += 1
        found = _check(path, leaves, terms, before, after, timeout, unit)
        if found is not None:
            return found
    if result.matched:
        result.answer = "proved"
    return result


def _apply(table: Table, before: UOp, context: Any) -> Any:
    for function in table.get(before.op, ()):
        try:
            after = function(before, context)
        except Unsupported:
            raise
        except (TypeError, AttributeError) as error:
            raise Unsupported(f"{type(error).__name__}: {error}") from error
        except (ArithmeticError, ValueError, LookupError) as error:
            return error
        if after is not None:
            return after
    return None


def _check(
    path: Path, leaves: SymbolicLeaves, terms: Terms, before: UOp, after: Any, timeout: int, unit: Unit
) -> Proof | None:
    """None when both sides are equal on this path."""
    solver = solver_for(timeout)
    solver.add(*path.conditions)
    problem = ""
    if isinstance(after, Exception):
        problem = f"the rule raises {type(after).__name__}: {after}"
    elif after.dtype is not before.dtype or after.shape != before.shape:
        problem = f"the result is {after.dtype.name}{list(after.shape)}, not {before.dtype.name}{list(before.shape)}"
    else:
        try:
            left, right = terms.of(before), terms.of(after)
        except z3.Z3Exception as error:  # operands of different dtypes: shown by an instance
            return Proof("unknown", why=f"no term: {error}")
        different = left != right
        loose = "nsz" in unit.notes.flags or signless(before, after)
        if z3.is_fp(left) and loose:
            different = z3.And(different, z3.Not(z3.And(z3.fpIsZero(left), z3.fpIsZero(right))))
        solver.add(different, *terms.side, *assumptions(unit, terms))
    answer = _quick(solver, leaves)
    if answer == z3.unsat:
        return None
    if answer == z3.unknown or (terms.abstract and not problem):
        return Proof(
            "unknown", why="z3 does not answer in time" if answer == z3.unknown else "uninterpreted ops"
        )
    return Proof("different", 1, candidate=_candidate(solver.model(), leaves, problem))


def assumptions(unit: Unit, terms: Terms) -> Iterator[Any]:
    """What ``@fast`` permits to assume about every float in both graphs."""
    for term in terms.memo.values():
        if z3.is_fp(term):
            if "nnan" in unit.notes.flags:
                yield z3.Not(z3.fpIsNaN(term))
            if "ninf" in unit.notes.flags:
                yield z3.Not(z3.fpIsInf(term))


def _quick(solver: z3.Solver, leaves: SymbolicLeaves) -> Any:
    """Small numbers first, so that counterexamples can be read (and fit machine integers)."""
    integers = [term for term in (*leaves.values.values(), *leaves.constants.values()) if z3.is_int(term)]
    if integers:
        solver.push()
        solver.add(*[z3.And(term > -100, term < 100) for term in integers])
        if solver.check() == z3.sat:
            return z3.sat
        solver.pop()
    return solver.check()


def _candidate(model: Any, leaves: SymbolicLeaves, problem: str) -> Candidate:
    def number(term: Any, dtype: DType) -> int:
        value = model.eval(term, model_completion=True)
        if z3.is_bool(value):
            return int(z3.is_true(value))
        if z3.is_int(value):
            return int(value.as_long())
        signed = dtype.kind in ("int", "index")
        return int(value.as_signed_long() if signed else value.as_long())

    return Candidate(
        {name: number(term, leaves.dtypes[name]) for name, term in leaves.values.items()},
        {name: number(term, leaves.dtypes[name]) for name, term in leaves.constants.items()}
        | {
            name: leaves.dtypes[name].to_bits(value)
            for name, value in leaves.given.items()
            if name in leaves.dtypes
        },
        {
            name: (number(low, leaves.dtypes[name]), number(high, leaves.dtypes[name]))
            for name, (low, high) in leaves.bounds.items()
            if name in leaves.dtypes
        },
        problem,
    )

"""Patterns with a dtype at every position: the ways in which a scalar pattern can be instantiated.

The engine's own matcher says which positions share a dtype and which dtypes are possible there, so what is
proved is about exactly the nodes that the compiled rule accepts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tinycore.ir import UOp, dtypes
from tinycore.ir.dtypes import DType, Scalar
from tinycore.ir.ops import TABLE, Op, ops
from tinycore.rules import syntax as s
from tinycore.rules.expand import OP_CLASSES, Case
from tinycore.rules.matcher import Matcher, Pool
from tinycore.rules.support import Exact
from tinycore_tools_rules.sources import Unit

_ORDER = {"bool": 0, "uint": 1, "int": 1, "index": 2, "float": 3, "void": 4}


class Impossible(Exception):
    """A pattern has no instance for the chosen dtypes."""


class Leaves(Protocol):
    """What stands for the variables and constants of a pattern."""

    def variable(self, name: str, dtype: DType) -> UOp:
        """A node for a variable; the same name asks only once."""
        ...

    def constant(self, name: str, dtype: DType) -> UOp:
        """A CONST for ``$name``."""
        ...


@dataclass(frozen=True, eq=False)
class Typed:
    """One order of a pattern with single ops, and a dtype for every position."""

    case: Case
    matcher: Matcher
    dtypes: dict[str, DType]
    negative_zero: bool = False
    """Whether literal zeros of floats are -0.0 (patterns that ignore the sign of zero match both)."""

    def dtype(self, local: str) -> DType:
        """The dtype of a position."""
        return self.dtypes[self.matcher.facts.find(local)]

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(dtype.name for dtype in self.dtypes.values()))

    def build(self, leaves: Leaves) -> UOp:
        """An instance of the pattern. Raises Impossible."""
        return _Builder(self, leaves).node("n", self.case.pattern)


class _Builder:
    def __init__(self, typed: Typed, leaves: Leaves) -> None:
        self.typed, self.leaves = typed, leaves
        self.known: dict[str, UOp] = {}

    def node(self, local: str, pattern: s.Pattern) -> UOp:
        if isinstance(pattern, s.Capture):
            return self.node(local, pattern.pattern)
        dtype = self.typed.dtype(local)
        if isinstance(pattern, s.Literal):
            return self.literal(pattern, dtype)
        if isinstance(pattern, (s.Variable, s.Constant)):
            name = pattern.name or f"_{local}"
            if name not in self.known:
                make = self.leaves.constant if isinstance(pattern, s.Constant) else self.leaves.variable
                self.known[name] = make(name, dtype)
            return self.known[name]
        assert isinstance(pattern, s.Apply)
        op = TABLE[pattern.ops[0]]
        if op is ops.CONST:
            return self.leaves.constant(f"_{local}", dtype)
        src = tuple([self.node(f"{local}_{k}", operand) for k, operand in enumerate(pattern.operands)])
        if op is ops.BITCAST and not _same_size(src[0].dtype, dtype):
            raise Impossible
        return UOp(op, dtype, src)

    def literal(self, pattern: s.Literal, dtype: DType) -> UOp:
        value: Scalar = pattern.value
        if Exact(value)[dtype] is None:
            raise Impossible
        if value == 0 and self.typed.negative_zero and dtype.is_float:
            value = -0.0
        return UOp.const(dtype, value)


def _same_size(a: DType, b: DType) -> bool:
    return a.bits == b.bits and "index" not in (a.kind, b.kind) and (a.kind == "bool") == (b.kind == "bool")


def is_scalar(pattern: s.Pattern) -> bool:
    """Whether a pattern has elementwise ops and constants only, with nothing variadic."""
    if isinstance(pattern, s.Capture):
        return is_scalar(pattern.pattern)
    if isinstance(pattern, s.Apply):
        names = [op for name in pattern.ops for op in OP_CLASSES.get(name, (name,))]
        if not all(TABLE[name].elementwise or (name == "CONST" and not pattern.operands) for name in names):
            return False
        if pattern.attributes is not None and names[0] == "CONST":
            return False
        return all(is_scalar(operand) for operand in pattern.operands)
    return isinstance(pattern, (s.Variable, s.Constant, s.Literal))


def typed_cases(unit: Unit) -> Iterator[Typed]:
    """Every order, op and dtype assignment of a scalar rule, small dtypes first."""
    signless = "nsz" in unit.notes.flags
    for single in single_cases(unit):
        matcher = Matcher(unit.source.file, single, Pool(), signless)
        terms = list(dict.fromkeys(matcher.facts.find(local) for local, _ in positions("n", single.pattern)))
        choices = [_possible(matcher, term) for term in terms]
        zeros = (False, True) if signless and _has_zero(single.pattern) else (False,)
        for chosen in itertools.product(*choices):
            for negative in zeros:
                yield Typed(single, matcher, dict(zip(terms, chosen, strict=True)), negative)


def positions(local: str, pattern: s.Pattern) -> Iterator[tuple[str, s.Pattern]]:
    """Every position of a pattern without rests, by the matcher's names."""
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    yield local, pattern
    if isinstance(pattern, s.Apply):
        for k, operand in enumerate(pattern.operands):
            yield from positions(f"{local}_{k}", operand)


def _possible(matcher: Matcher, term: str) -> list[DType]:
    found = matcher.facts.possible(term) - {dtypes.void}
    return sorted(found, key=lambda dtype: (_ORDER[dtype.kind], dtype.bits, dtype.name))


def _has_zero(pattern: s.Pattern) -> bool:
    return any(isinstance(part, s.Literal) and part.value == 0 for _, part in positions("n", pattern))


def single_cases(unit: Unit) -> Iterator[Case]:
    """The cases of a rule, those with sets of ops once for each choice of ops."""
    for case in unit.cases:
        for pattern in single_ops(case.pattern):
            if isinstance(pattern, s.Apply):
                yield dataclasses.replace(case, root=pattern.ops[0], pattern=pattern)


def single_ops(pattern: s.Pattern) -> Iterator[s.Pattern]:
    """The patterns that a pattern with sets of ops stands for, one op at a time."""
    if isinstance(pattern, s.Capture):
        for part in single_ops(pattern.pattern):
            yield dataclasses.replace(pattern, pattern=part)
    elif isinstance(pattern, s.Apply):
        names = dict.fromkeys(op for name in pattern.ops for op in OP_CLASSES.get(name, (name,)))
        for name in names:
            for operands in _choices(pattern.operands):
                yield dataclasses.replace(pattern, ops=(name,), operands=operands)
    else:
        yield pattern


def _choices(operands: tuple[s.Pattern, ...]) -> Iterator[tuple[s.Pattern, ...]]:
    """The product of the forms of each operand, made as it is asked for: there may be very many."""
    if not operands:
        yield ()
        return
    for rest in _choices(operands[:-1]):
        for last in single_ops(operands[-1]):
            yield (*rest, last)


def op_of(pattern: s.Pattern) -> Op | None:
    """The op at the root of a pattern with single ops."""
    while isinstance(pattern, s.Capture):
        pattern = pattern.pattern
    return TABLE[pattern.ops[0]] if isinstance(pattern, s.Apply) else None


def leaves_of(typed: Typed) -> tuple[dict[str, DType], dict[str, DType]]:
    """The dtypes of the variables and of the constants of a pattern, by name."""
    variables: dict[str, DType] = {}
    constants: dict[str, DType] = {}
    for local, pattern in positions("n", typed.case.pattern):
        if isinstance(pattern, s.Variable):
            variables[pattern.name or f"_{local}"] = typed.dtype(local)
        elif isinstance(pattern, s.Constant):
            constants[pattern.name] = typed.dtype(local)
        elif isinstance(pattern, s.Apply) and pattern.ops[0] == "CONST":
            constants[f"_{local}"] = typed.dtype(local)
    return variables, constants

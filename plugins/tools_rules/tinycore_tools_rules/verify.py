"""Verification: every rule ends as proved, exhaustive, tested or refuted, or is left out for a stated reason.

proved: z3 showed both sides equal for every operand of every dtype that the rule accepts.
exhaustive: every value of the small formats was tried (all 8-bit ones, 16-bit ones of a single operand); what is
    wider was proved or tested.
tested(n): n instances that matched agreed.
refuted: an instance disagrees, confirmed by the interpreter; `counterexample` is Python that shows it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinycore.ir import UOp
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops
from tinycore.rules import syntax as s
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.effort import milliseconds
from tinycore_tools_rules.judge import approximation
from tinycore_tools_rules.prove import ROUNDING_FLAGS, Candidate, Habit, prove, symbolic_table
from tinycore_tools_rules.sample import Tested, exhaust, exhaust_in_pieces, sample, try_instance
from tinycore_tools_rules.sources import Table, Unit
from tinycore_tools_rules.symbols import Unsupported
from tinycore_tools_rules.typed import Impossible, Typed, is_scalar, leaves_of, typed_cases

STATUSES = ("proved", "exhaustive", "tested", "refuted", "unverified", "excepted")
INSTANCES = 1000
SMALL_BITS, LARGE_BITS = 17, 24
"""Bits of all leaves together up to which every value is tried; up to the second where one dtype is all there is."""
PROOF_SECONDS = 8.0
"""How long z3 may think about one rule; what is left is tested."""
UNSURE_LIMIT = 4
"""After so many unanswered questions z3 is not asked about wider dtypes."""


@dataclass(slots=True)
class Result:
    """How the verification of one rule ended; `seconds` are those of the processor, not of the clock."""

    identity: str
    path: str
    line: int
    status: str = "unverified"
    reason: str = ""
    proved: int = 0
    exhausted: int = 0
    tested: int = 0
    instances: int = 0
    constants: int = 0
    ulp: int | None = None
    native: bool = False
    integral: bool = False
    counterexample: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether this is a finding: a wrong rule, or one that nothing could be said about."""
        return self.status in ("refuted", "unverified")

    def describe(self) -> str:
        """The status in words: ``tested(1024), 39 ulp``."""
        text = f"tested({self.instances})" if self.status == "tested" else self.status
        if self.constants and self.status == "proved":
            text += f" ({self.constants} choices of constants)"
        if self.ulp is not None and self.status == "tested":
            text += f", {self.ulp} ulp"
        return text + (f": {self.reason}" if self.reason else "")


def verify_unit(unit: Unit, patience: float = 1.0) -> Result:
    """Verify one rule."""
    start = time.process_time()
    result = Result(unit.identity, unit.source.path, unit.rule.span.line, native=bool(unit.natives))
    reason = _exception(unit)
    if reason:
        result.status, result.reason = "excepted", reason
    elif unit.rule.kind == "render":
        from tinycore_tools_rules.rendered import verify_render

        _take(result, verify_render(unit))
    elif unit.rule.kind == "vjp":
        from tinycore_tools_rules.gradients import verify_gradient

        _take(result, verify_gradient(unit))
    elif is_scalar(unit.rule.pattern):
        _verify_scalar(unit, result, patience)
    else:
        from tinycore_tools_rules.tensors import verify_tensor

        _take(result, verify_tensor(unit))
    result.seconds = time.process_time() - start
    return result


def _exception(unit: Unit) -> str:
    if unit.rule.kind == "render" and unit.annotation("language") is None:
        return "text in a language that has no meaning here; `tinycore rules test` runs its inline tests"
    for name in ("noverify", "unsafe"):
        note = unit.annotation(name)
        if note is not None:
            text = next(
                (part.value for part in note.arguments if isinstance(part, s.Text)), "no reason is given"
            )
            return f"@{name}: {text}"
    return ""


def _take(result: Result, tested: Tested) -> None:
    result.instances += tested.instances
    result.tested += max(1, len(tested.dtypes)) if tested.instances else 0
    if tested.problem:
        result.status, result.reason, result.counterexample = "refuted", tested.problem, tested.refutation
    elif tested.instances < INSTANCES:
        found = f"only {tested.instances} instances were" if tested.instances else "no instance was"
        result.status, result.reason = "unverified", f"{found} found that match"
    else:
        result.status = "tested"


# --- scalar rules ---------------------------------------------------------------------------------------------


def _verify_scalar(unit: Unit, result: Result, patience: float) -> None:
    table = unit.table()
    try:
        symbolic: Table | None = symbolic_table(unit)
    except Unsupported as reason:
        symbolic = None
        result.notes.append(str(reason))
    limit = approximation(unit)
    if limit is not None:
        symbolic, result.ulp = None, 0
    left: list[Typed] = []
    exhaustive_floats: set[str] = set()
    integral = True
    unsure, habit = 0, Habit()
    deadline = milliseconds() + 1000 * PROOF_SECONDS * patience
    few = len(list(itertools.islice(typed_cases(unit), 5))) < 5  # then z3 may take its time over floats
    for typed in typed_cases(unit):
        floats = any(dtype.is_float for dtype in typed.dtypes.values())
        integral = integral and not floats
        variables, constants = leaves_of(typed)
        if floats and _small(typed, variables, constants) and _fires(table, unit, typed):
            if _exhaust(unit, table, typed, constants, result):
                return
            exhaustive_floats |= {dtype.name for dtype in typed.dtypes.values()}
            continue
        real = bool(unit.notes.flags & ROUNDING_FLAGS)
        hopeless = floats and (
            unsure >= UNSURE_LIMIT or (not real and any(dtype.is_float for dtype in constants.values()))
        )
        if symbolic is None or unsure > 12 or hopeless or milliseconds() > deadline:
            left.append(typed)
            continue
        proof = prove(unit, symbolic, typed, patience * (1.0 if not floats else 1.5 if few else 0.3), habit)
        if proof.answer == "proved":
            result.proved += 1
            result.constants = max(result.constants, proof.enumerated)
        elif proof.answer == "different" and proof.candidate is not None:
            if confirm(unit, table, typed, proof.candidate, result):
                return
            left.append(typed)
        elif proof.answer == "unknown":
            unsure += 1
            left.append(typed)
    result.integral = integral
    _rest(unit, table, left, exhaustive_floats, result)


def _rest(unit: Unit, table: Table, left: list[Typed], small: set[str], result: Result) -> None:
    """What z3 left open: every value where that is possible, else random instances."""
    wide = []
    for typed in left:
        variables, constants = leaves_of(typed)
        bits = sum(dtype.bits or 64 for dtype in variables.values())
        if _small(typed, variables, constants) and "index" not in str(typed):
            if _exhaust(unit, table, typed, constants, result):
                return
        elif (
            len(left) == 1
            and not constants
            and SMALL_BITS < bits <= LARGE_BITS
            and _fires(table, unit, typed)
        ):
            if _exhaust(unit, table, typed, None, result):
                return
        else:
            wide.append(typed)
    tested = sample(unit, table, wide, *_effort(unit, wide, result.ulp is not None)) if wide else Tested()
    result.instances += tested.instances
    result.tested = len(tested.dtypes)
    if result.ulp is not None:
        result.ulp = max(result.ulp, tested.ulp)
    if tested.problem:
        result.status, result.reason, result.counterexample = "refuted", tested.problem, tested.refutation
    elif tested.dtypes:
        formats = {"float8_e4m3", "float8_e5m2"}
        result.status = "exhaustive" if formats <= small and result.ulp is None else "tested"
        if tested.instances < INSTANCES and result.status == "tested":
            result.status, result.reason = (
                "unverified",
                f"only {tested.instances} instances were found that match",
            )
    elif result.exhausted:
        result.status = "exhaustive"
    elif result.proved:
        result.status = "proved"
    else:
        result.reason = "no instance was found that matches"


def _effort(unit: Unit, cases: list[Typed], approximate: bool) -> tuple[int, int]:
    """How many instances are wanted, and how many valuations a graph gets: floats are cheap and full of corners."""
    floats = any(dtype.is_float for typed in cases for dtype in typed.dtypes.values())
    if approximate or (floats and len(cases) <= 32 and not unit.natives):
        return 40 * INSTANCES, 1024
    return (64 * INSTANCES, 512) if unit.natives else (INSTANCES, 64)


def _small(typed: Typed, variables: Mapping[str, DType], constants: Mapping[str, DType]) -> bool:
    every = [*variables.values(), *constants.values()]
    if any(dtype.kind == "index" for dtype in typed.dtypes.values()):
        return False
    constant_bits = sum(dtype.bits for dtype in constants.values())
    return (
        sum(dtype.bits for dtype in every) <= SMALL_BITS + (8 if constant_bits == 8 else 0)
        and constant_bits <= 8
    )


def _fires(table: Table, unit: Unit, typed: Typed) -> bool:
    """A quick look whether any instance of these dtypes may match: most guards on dtypes fail at once."""
    found = sample(unit, table, [typed], 1, attempts=12, lanes=4)
    return bool(found.graphs or found.problem)


def _exhaust(
    unit: Unit, table: Table, typed: Typed, constants: Mapping[str, DType] | None, result: Result
) -> bool:
    """Try every value (in pieces where there are no constants to go through); whether the rule was refuted."""
    found = Tested()
    if constants is None:
        exhaust_in_pieces(unit, table, typed, found)
    else:
        exhaust(unit, table, typed, constants, found)
    result.exhausted += 1 if found.graphs else 0
    result.instances += found.instances
    if result.ulp is not None:
        result.ulp = max(result.ulp, found.ulp)
    if found.problem:
        result.status, result.reason, result.counterexample = "refuted", found.problem, found.refutation
        return True
    return False


# --- confirmation of what z3 says -------------------------------------------------------------------------------


class ConcreteLeaves:
    """The leaves of a counterexample: values, constants, and bounds that are enforced by MAX and MIN."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.arrays: dict[UOp, Any] = {}

    def variable(self, name: str, dtype: DType) -> UOp:
        """A buffer that holds the value, between the bounds if the rule asked for them."""
        node = UOp(ops.BUFFER, dtype, (), (len(self.arrays), (), "D"))
        bits = self.candidate.values[name]
        if dtype.kind == "index" and not -(1 << 62) < bits < 1 << 62:
            raise Impossible
        if dtype.is_float:
            self.arrays[node] = np.array([bits], f"uint{dtype.bits}").view(dtype.numpy)
        else:
            self.arrays[node] = np.array([bits], object).astype(dtype.numpy)
        low, high = self.candidate.bounds.get(name, (None, None))
        if low is None or dtype.kind == "bool":
            return node
        return UOp(
            ops.MIN,
            dtype,
            (UOp(ops.MAX, dtype, (node, UOp.const(dtype, low))), UOp.const(dtype, high)),  # type: ignore[arg-type]
        )

    def constant(self, name: str, dtype: DType) -> UOp:
        """The constant."""
        return UOp.from_bits(dtype, self.candidate.constants[name])


def confirm(unit: Unit, table: Table, typed: Typed, candidate: Candidate, result: Result) -> bool:
    """Whether the interpreter agrees that the rule is wrong there; then the result is a refutation."""
    leaves = ConcreteLeaves(candidate)
    try:
        before = typed.build(leaves)
    except Impossible:
        return False
    for context in contexts(unit):
        found = Tested()
        try_instance(unit, table, before, leaves.arrays, context, found)
        if found.problem:
            result.status, result.reason = "refuted", found.problem
            result.counterexample = found.refutation
            return True
    return False


def summary(results: list[Result]) -> dict[str, int]:
    """How many rules ended how."""
    counts = Counter(result.status for result in results)
    return {status: counts[status] for status in STATUSES}

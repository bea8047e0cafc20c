"""What no order covers is run: whole passes on random graphs that its rules match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinycore.errors import RuleError, RuleLoopError
from tinycore.rules import Pass
from tinycore_tools_rules.contexts import contexts
from tinycore_tools_rules.derive import instances
from tinycore_tools_rules.sample import rewritten
from tinycore_tools_rules.sources import Unit
from tinycore_tools_rules.typed import is_scalar, typed_cases

_TYPED = 400


@dataclass(frozen=True, slots=True)
class Driven:
    """A rule, on how many graphs that it matches its pass came to an end, and the loop that was met, if one was."""

    unit: Unit
    graphs: int
    loop: str = ""


def drive(run: Pass, units: Sequence[Unit], count: int) -> Iterator[Driven]:
    """Run a pass on `count` graphs for every rule; rules about tensors have none."""
    for unit in units:
        yield _driven(run, unit, count)


def _driven(run: Pass, unit: Unit, count: int) -> Driven:
    if not is_scalar(unit.rule.pattern):
        return Driven(unit, 0)
    cases = [typed for typed, _ in zip(typed_cases(unit), range(_TYPED), strict=False)]
    table, places, graphs = unit.table(), contexts(unit), 0
    for before, _, attempt in instances(unit, cases, 0) if cases else ():
        place = places[attempt % len(places)]
        try:
            if rewritten(table, before, place) is None:
                continue
            run(before, place)
        except RuleLoopError as error:
            return Driven(unit, graphs, error.where or error.what)
        except (RuleError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            continue  # what a rule raises is told by `tinycore rules test`
        graphs += 1
        if graphs >= count:
            break
    return Driven(unit, graphs)

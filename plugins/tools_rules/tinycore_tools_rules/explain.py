"""What rules do to one expression, rewrite by rewrite.

>>> from tinycore import rules
>>> found = explain("x * 3 + x * 4 where x: index in 0..9", [rules.load("tinycore.passes.kernel").passes["simplify"]])
>>> found.after, [step.rule.name for step in found.steps]
('x * 7', ['canonical[ADD]'])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tinycore.cli import UsageError
from tinycore.errors import TinycoreError
from tinycore.ir import UOp
from tinycore.rules import Pass, RuleInfo, trace
from tinycore.rules import syntax as s
from tinycore.rules.parse import parse
from tinycore_tools_rules import inline
from tinycore_tools_rules.infix import infix


@dataclass(frozen=True, slots=True)
class Step:
    """One rewrite.

    Attributes
    ----------
    rule, pass_name: what did it.
    before, after: the part that was replaced, and by what.
    whole: the expression afterwards.
    """

    rule: RuleInfo
    pass_name: str
    before: str
    after: str
    whole: str


@dataclass(frozen=True, slots=True)
class Explained:
    """An expression, what became of it, and how."""

    before: str
    after: str
    steps: tuple[Step, ...]


def explain(expression: str, passes: Sequence[Pass]) -> Explained:
    """Take an expression in the language of the rules, with ``where`` for its leaves, through some passes.

    Raises UsageError for an expression that means nothing, RuleError for what is wrong with the rules.
    """
    root, names, context = build(expression)
    before, current = infix(root, names), root
    steps: list[Step] = []
    for item in passes:
        with trace() as found:
            result = item(root, context)
        done: dict[UOp, UOp] = {}
        for event in found.events:
            done[event.before] = event.after
            current = _replaced(current, done)
            whole = infix(current, names)
            step = Step(
                event.rule, event.pass_name, infix(event.before, names), infix(event.after, names), whole
            )
            steps.append(step)
        root = current = result
    return Explained(before, infix(root, names), tuple(steps))


def _replaced(root: UOp, done: dict[UOp, UOp]) -> UOp:
    """The graph with all that was rewritten so far, wherever it turns up."""
    for _ in range(len(done) + 1):
        before = root
        root = root.substitute(done)
        if root is before:
            break
    return root


def build(expression: str) -> tuple[UOp, dict[UOp, str], Any]:
    """The graph of an expression, the names of its leaves, and the context that its ``has OP`` ask for."""
    body, _, where = expression.partition(" where ")
    text = (
        f"group g(fixpoint) {{ r: x => x test\n{body}\n=> same"
        + (f" where\n{where}" if where else "")
        + "\n}"
    )
    file = parse(text, "expression")
    rule = file.groups[0].items[0]
    assert isinstance(rule, s.Rule)
    test = rule.tests[0]
    try:
        leaves = inline.leaves_of(file, test)
        root = inline.evaluate(file, test.before, leaves)
    except TinycoreError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise UsageError(
            f"the expression fails with {type(error).__name__}: {error}", where=expression
        ) from error
    names = {leaf: name for name, leaf in leaves.items()}
    return root, names, SimpleNamespace(target=inline.target_of(test))

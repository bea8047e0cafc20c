"""Inline tests: the ``test`` cases beside rules, really run.

A test applies its rule alone, once, at the root: the result must be the very node that the right side builds,
or with ``same`` the rule must not match. Names are leaves; ``where`` says what they are, else they are
scalars of dtype int32. In a ``for`` block a test that names the loop's variable runs for every value, any
other one has to hold for one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tinycore.errors import TinycoreError, did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE, ops
from tinycore.ir.target import Capabilities, Target
from tinycore.ir.uop import UOp
from tinycore.rules import syntax as s
from tinycore.rules.expand import names_in, rules_of
from tinycore.rules.express import Expressions
from tinycore.rules.generate import HEADER, generate
from tinycore.rules.loading import read
from tinycore.rules.matcher import Code, Pool
from tinycore.rules.module import RuleModule
from tinycore.rules.parse import check_error, parse
from tinycore.rules.tracing import show


@dataclass(frozen=True, slots=True)
class TestResult:
    """How one inline test went; `problem` is empty when it passed."""

    __test__ = False
    rule: str
    path: str
    line: int
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the rule did what the test says."""
        return not self.problem

    def __str__(self) -> str:
        return f"{self.rule} ({self.path}:{self.line}): {self.problem or 'passed'}"


def run_inline_tests(module: RuleModule) -> list[TestResult]:
    """Run every inline test of a loaded file, in order. Raises RuleCheckError for a meaningless test."""
    file = parse(read(Path(module.path)), module.path)
    found: dict[tuple[int, int, s.Test], TestResult] = {}
    for group in file.groups:
        for rule in rules_of(file, group):
            if rule.tests:
                alone = dataclasses.replace(
                    file, groups=(dataclasses.replace(group, items=(rule,)),), passes=(), imports=()
                )
                namespace: dict[str, Any] = {
                    f"f_{name}": function for name, function in module.code.natives.items()
                }
                exec(compile(generate(alone), f"<rule {rule.name}>", "exec"), namespace)
                table = namespace["GROUPS"][group.name]["table"]
                for test in rule.tests:
                    key = (test.span.line, test.span.column, test)
                    if key not in found or not found[key].passed:
                        problem = problem_of(file, rule, test, table)
                        found[key] = TestResult(rule.name, module.path, test.span.line, problem)
    return list(found.values())


def problem_of(file: s.File, rule: s.Rule, test: s.Test, table: list[Any]) -> str:
    """What is wrong when a rule, compiled alone to `table`, is put to a test; empty when nothing is."""
    leaves = leaves_of(file, test)
    try:
        before = evaluate(file, test.before, leaves)
        if rule.kind == "vjp":
            leaves.setdefault("g", UOp(ops.PARAM, before.dtype, (), (len(leaves), before.shape)))
        result = _apply(rule, before, leaves, table, target_of(test))
        if test.after is None:
            return "" if result is None else f"it matches {show(before)}: {_shown(result)}"
        if result is None:
            return f"it does not match {show(before)}"
        return _differences(file, rule, test.after, before, result, leaves)
    except TinycoreError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


def _differences(
    file: s.File, rule: s.Rule, after: s.Expression, before: UOp, result: Any, leaves: dict[str, UOp]
) -> str:
    if rule.kind == "render":
        wanted: Any = after.value if isinstance(after, s.Text) else None
        return "" if result == wanted else f"it renders {result!r}, not {wanted!r}"
    if rule.kind == "vjp":
        slots = after.items if isinstance(after, s.Sequence) else (after,)
        wanted = tuple(evaluate(file, slot, leaves) for slot in slots)
        return "" if result == wanted else f"it gives {_shown(result)}, not {_shown(wanted)}"
    wanted = evaluate(file, after, leaves, before)
    return "" if result is wanted else f"it gives {show(result, 6)}, not {show(wanted, 6)}"


def _apply(rule: s.Rule, before: UOp, leaves: dict[str, UOp], table: list[Any], target: Target) -> Any:
    context: Any = SimpleNamespace(target=target, filters=_Filters())
    names = {node: name for name, node in leaves.items()}
    if rule.kind == "render":
        context = (lambda node: names.get(node) or show(node)), context
    elif rule.kind == "vjp":
        context = leaves["g"], context
    for root, _, function in table:
        if before.op is TABLE[root]:
            result = function(before, context)
            if result is not None:
                return result
    return None


class _Filters:
    """Every filter spells its value."""

    def __getitem__(self, name: str) -> Any:
        return lambda value: show(value) if isinstance(value, UOp) else str(value)


def evaluate(file: s.File, expression: s.Expression, leaves: dict[str, UOp], like: UOp | None = None) -> UOp:
    """The node that an expression of a test builds; bare numbers get the dtype and shape of `like`.

    Raises RuleCheckError for what has no meaning, and what building the nodes raises.
    """
    pool = Pool()
    compiler = Expressions(file, pool, {}, None)
    compiler.names = {
        name: Code(f"t_{name}", "node", f"t_{name}.dtype", f"t_{name}.shape") for name in leaves
    }
    code = compiler.node(expression, *(("like.dtype", "like.shape") if like is not None else (None, None)))
    lines = [HEADER, *(f"{name} = {text}" for name, text in pool.lines.items())]
    namespace: dict[str, Any] = {"like": like, **{f"t_{name}": node for name, node in leaves.items()}}
    exec("\n".join(lines), namespace)
    namespace["like"] = like
    return eval(code.text, namespace)  # type: ignore[no-any-return]


def leaves_of(file: s.File, test: s.Test) -> dict[str, UOp]:
    """The nodes that the names of a test stand for. Raises RuleCheckError for a declaration that makes none."""
    declared = {item.name: item for item in test.declarations if item.dtype is not None}
    names = dict.fromkeys(names_in((test.before, *(() if test.after is None else (test.after,)))))
    known = {dtype.name for dtype in (*dtypes.CLASSES["Any"], dtypes.void)}
    return {
        name: _leaf(file, declared.get(name) or s.Declaration(name, "int32"), slot)
        for slot, name in enumerate((*names, *(name for name in declared if name not in names)))
        if name not in TABLE and name not in known and name != "g"
    }


def _leaf(file: s.File, item: s.Declaration, slot: int) -> UOp:
    known = {dtype.name for dtype in dtypes.CLASSES["Any"]}
    if item.dtype not in known:
        hint = did_you_mean(item.dtype or "", known)
        raise check_error(file, item.span, f"there is no dtype {item.dtype}", hint)
    dtype = dtypes.by_name(item.dtype)
    shape = tuple(int(part.value) if isinstance(part, s.Number) else 0 for part in item.shape)
    if item.bounds is not None:
        if shape or not dtype.is_int:
            raise check_error(file, item.span, "only scalar integers have a range")
        low, high = item.bounds
        value = (
            UOp.variable(item.name, max(low, 0), high - min(low, 0)) + min(low, 0)
            if low < 0
            else UOp.variable(item.name, low, high)
        )
        return value.cast(dtype)
    if dtype.kind == "index":
        return UOp(ops.PARAM, dtypes.int64, (), (slot, shape)).cast(dtype)
    return UOp(ops.PARAM, dtype, (), (slot, shape))


def target_of(test: s.Test) -> Target:
    """The target that has the ops of the test's ``has OP``, and nothing else."""
    has = frozenset(
        TABLE[item.name] for item in test.declarations if item.dtype is None and item.name in TABLE
    )
    return Target("test", capabilities=Capabilities(ops=has))


def _shown(value: Any) -> str:
    if isinstance(value, UOp):
        return show(value, 6)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "(" + ", ".join("none" if part is None else show(part, 6) for part in value) + ")"
    return repr(value)

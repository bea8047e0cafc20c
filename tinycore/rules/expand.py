"""Expansion: loops, views, op sets and commutative orders become plain cases, in order of priority.

A case is one rule, with one root op and one order of operands. Orders that could match nothing new are not
made: equal operands, two plain variables that nothing else mentions, and copies that differ only in the
names of their variables.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE, Op
from tinycore.rules import syntax as s
from tinycore.rules.parse import check_error

MAXIMUM_ORDERS = 256
"""More orders of one rule than this are refused: write ``!`` to fix some."""
MAXIMUM_LOOPS, MAXIMUM_RULES, MAXIMUM_VIEWS, MAXIMUM_NODES = 8, 5_000, 500, 5_000
"""``for`` blocks in each other, rules that loops may make, views used in a rule, and nodes that a view may become."""

_TESTS: dict[str, Callable[[Op], bool]] = {
    "Elementwise": lambda op: op.elementwise,
    "Unary": lambda op: op.elementwise and len(op.operands) == 1,
    "Binary": lambda op: op.elementwise and len(op.operands) == 2,
    "Ternary": lambda op: op.elementwise and len(op.operands) == 3,
    "Movement": lambda op: op.movement,
    "Comparison": lambda op: op.elementwise and op.dtype == "bool",
    "Commutative": lambda op: op.commutative,
    "Monoid": lambda op: op.identity is not None,
}
OP_CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(op.name for op in TABLE.values() if test(op)) for name, test in _TESTS.items()
}
"""Named sets of ops that stand wherever an op set may stand; derived from the op table."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """One rule with one root op and one order of operands."""

    rule: s.Rule
    root: str
    pattern: s.Apply
    capture: tuple[str, ...]


_PARTS = {
    kind: tuple([field.name for field in dataclasses.fields(kind) if field.name != "span"])
    for kind in vars(s).values()
    if isinstance(kind, type) and issubclass(kind, s.Node)
}
"""Class of nodes -> the names of the fields in which other nodes may stand."""


def rewrite(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a syntax tree: `change` is asked about every node, parts first; None keeps it."""
    if isinstance(tree, tuple):
        parts = [rewrite(part, change) for part in tree]
        return tree if all(map(operator.is_, parts, tree)) else tuple(parts)
    if not isinstance(tree, s.Node):
        return tree
    copy: Any = tree
    fields: dict[str, Any] = {}
    for name in _PARTS[type(tree)]:
        part = getattr(tree, name)
        if isinstance(part, (tuple, s.Node)):
            new = rewrite(part, change)
            if new is not part:
                fields[name] = new
    if fields:
        copy = dataclasses.replace(tree, **fields)
    changed = change(copy)
    return copy if changed is None else changed


def names_in(tree: Any) -> Iterator[str]:
    """Every capture, variable and name below, with repetitions."""
    for node in nodes_in(tree):
        if isinstance(node, (s.Variable, s.Constant, s.Rest, s.Capture, s.Name)) and node.name is not None:
            yield node.name


def nodes_in(tree: Any) -> Iterator[s.Node]:
    """Every syntax node below, this one included."""
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, tuple):
            stack += part[::-1]
        elif isinstance(part, s.Node):
            yield part
            stack += [getattr(part, name) for name in _PARTS[type(part)][::-1]]


# --- loops ------------------------------------------------------------------------------------------------


def rules_of(file: s.File, group: s.Group) -> list[s.Rule]:
    """The rules of a group with ``for`` blocks and views written out."""
    views = {view.name: view for view in file.views}
    most = MAXIMUM_RULES + len(group.items)
    unrolled = (rule for item in group.items for rule in _unrolled(file, item))
    found = list(itertools.islice(unrolled, most + 1))
    if len(found) > most:
        raise check_error(
            file, group.span, f"the loops of group {group.name} make more than {MAXIMUM_RULES} rules"
        )
    return [_without_views(file, views, rule) for rule in found]


def _unrolled(file: s.File, item: s.Rule | s.ForBlock, depth: int = 1) -> Iterator[s.Rule]:
    if isinstance(item, s.Rule):
        yield item
        return
    if depth > MAXIMUM_LOOPS:
        raise check_error(file, item.span, f"more than {MAXIMUM_LOOPS} for blocks in each other")
    for value in op_names(file, item.values, item.span, dtypes_too=True):
        for part in item.items:
            for rule in _unrolled(file, part, depth + 1):
                changed = rewrite(rule, _substituter(item.variable, value))
                yield dataclasses.replace(changed, name=f"{rule.name}[{value}]")


def _substituter(variable: str, value: str) -> Callable[[Any], Any]:
    def change(node: Any) -> Any:
        if isinstance(node, s.Apply) and variable in node.ops:
            return dataclasses.replace(node, ops=tuple(value if op == variable else op for op in node.ops))
        if isinstance(node, s.Build) and node.op == variable:
            return dataclasses.replace(node, op=value)
        if isinstance(node, s.Name) and node.name == variable:
            return dataclasses.replace(node, name=value)
        if isinstance(node, (s.Variable, s.Constant)) and node.type == variable:
            return dataclasses.replace(node, type=value)
        if isinstance(node, s.AttributePattern) and node.name == variable:
            return s.AttributePattern(None, s.Name(value, span=node.span), span=node.span)
        if isinstance(node, s.Declaration) and variable in (node.dtype, node.name):  # a: T, has OP
            return dataclasses.replace(
                node,
                name=value if node.dtype is None else node.name,
                dtype=value if node.dtype == variable else node.dtype,
            )
        return None

    return change


def op_names(
    file: s.File, names: tuple[str, ...], span: s.Span, *, dtypes_too: bool = False
) -> tuple[str, ...]:
    """Ops by the names of ops and op classes. Raises RuleCheckError for any other name."""
    found: list[str] = []
    for name in names:
        if name in OP_CLASSES:
            found.extend(OP_CLASSES[name])
        elif name in TABLE or (dtypes_too and name in _DTYPES):
            found.append(name)
        else:
            from tinycore.errors import did_you_mean

            raise check_error(file, span, f"there is no op {name}", did_you_mean(name, [*TABLE, *OP_CLASSES]))
    return tuple(dict.fromkeys(found))


_DTYPES = {dtype.name for dtype in dtypes.CLASSES["Any"]}

# --- views ------------------------------------------------------------------------------------------------


def _without_views(file: s.File, views: dict[str, s.View], rule: s.Rule) -> s.Rule:
    if not views and not any(isinstance(node, s.ViewUse) for node in nodes_in(rule)):
        return rule
    depth = 0

    def change(node: Any) -> Any:
        nonlocal depth
        if not (isinstance(node, s.ViewUse) or (isinstance(node, s.Call) and node.name in views)):
            return None
        view = views.get(node.name)
        if view is None:
            from tinycore.errors import did_you_mean

            raise check_error(
                file, node.span, f"there is no view {node.name}", did_you_mean(node.name, views)
            )
        if len(node.operands) != len(view.parameters):
            raise check_error(
                file,
                node.span,
                f"view {view.name} takes {len(view.parameters)} operands, not {len(node.operands)}",
            )
        depth += 1
        if depth > MAXIMUM_VIEWS:
            raise check_error(file, view.span, f"view {view.name} is used too often in one rule")
        given = dict(zip(view.parameters, node.operands, strict=True))
        body: Any = view.body if isinstance(node, s.ViewUse) else to_expression(file, view.body)

        def fill(part: Any) -> Any:
            return given.get(str(part.name)) if isinstance(part, (s.Variable, s.Name)) else None

        filled = rewrite(body, fill)
        if sum(1 for _ in itertools.islice(nodes_in(filled), MAXIMUM_NODES + 1)) > MAXIMUM_NODES:
            raise check_error(
                file, node.span, f"view {view.name} makes more than {MAXIMUM_NODES} nodes of this"
            )
        return rewrite(dataclasses.replace(filled, span=node.span), change)

    return rewrite(rule, change)  # type: ignore[no-any-return]


def to_expression(file: s.File, pattern: s.Pattern) -> s.Expression:
    """The expression that builds what a pattern matches (for views on the right of ``=>``)."""
    if isinstance(pattern, s.Variable) and pattern.name is not None:
        return s.Name(pattern.name, span=pattern.span)
    if isinstance(pattern, s.Literal):
        return s.Number(pattern.value, span=pattern.span)
    if isinstance(pattern, s.Rest) and pattern.name is not None:
        return s.Splat(s.Name(pattern.name, span=pattern.span), span=pattern.span)
    operands = tuple(to_expression(file, part) for part in getattr(pattern, "operands", ()))
    if isinstance(pattern, s.ViewUse):
        return s.Call(pattern.name, operands, span=pattern.span)
    if isinstance(pattern, s.Apply) and len(pattern.ops) == 1:
        attributes = None
        if pattern.attributes is not None:
            attributes = tuple(part.equal or s.Name(part.name or "_") for part in pattern.attributes)
        return s.Build(pattern.ops[0], attributes, operands, span=pattern.span)
    raise check_error(file, pattern.span, "this part of the view only matches: it cannot be built")


# --- orders -----------------------------------------------------------------------------------------------


def cases_of(file: s.File, rule: s.Rule) -> list[Case]:
    """All cases of a rule. Raises RuleCheckError when its root is no application of an op."""
    pattern, captures = rule.pattern, []
    while isinstance(pattern, s.Capture):
        captures.append(pattern.name)
        pattern = pattern.pattern
    if not isinstance(pattern, s.Apply):
        raise check_error(
            file,
            rule.pattern.span,
            f"rule {rule.name} would match every node",
            "name the op at the root, or a class of ops such as Elementwise(*xs)",
        )
    mentioned = set(names_in(rule.clauses)) | (
        set(names_in(rule.block + rule.result)) if rule.kind == "vjp" else set()
    )
    counts: dict[str, int] = {}
    for name in names_in(pattern):
        counts[name] = counts.get(name, 0) + 1
    free = {name for name, count in counts.items() if count == 1 and name not in mentioned}
    cases, seen = [], set()
    for root in op_names(file, pattern.ops, pattern.span):
        # The root of a vjp or render rule is one operand after the other: its order is meaning.
        fixed = pattern.ordered or rule.kind != "rewrite"
        whole = dataclasses.replace(pattern, ops=(root,), ordered=fixed)
        orders = _orders(file, whole, free)
        for order in orders:
            assert isinstance(order, s.Apply)
            key = _alpha(order, rule) if len(orders) > 1 else order
            if key not in seen:
                seen.add(key)
                cases.append(Case(rule, root, order, tuple(captures)))
            if len(cases) > MAXIMUM_ORDERS * 64:
                raise check_error(
                    file,
                    rule.span,
                    f"rule {rule.name} has too many orders of operands",
                    "fix some of them: OP!(a, b)",
                )
    return cases


def _orders(file: s.File, pattern: s.Pattern, free: set[str]) -> list[s.Pattern]:
    if isinstance(pattern, s.Capture):
        return [dataclasses.replace(pattern, pattern=part) for part in _orders(file, pattern.pattern, free)]
    if not isinstance(pattern, s.Apply):
        return [pattern]
    ops = op_names(file, pattern.ops, pattern.span)
    pattern = dataclasses.replace(pattern, ops=ops)
    parts = [_orders(file, operand, free) for operand in pattern.operands]
    swaps = not pattern.ordered and len(parts) == 2 and all(TABLE[op].commutative for op in ops)
    found: list[s.Pattern] = []
    for operands in itertools.product(*parts):
        found.append(dataclasses.replace(pattern, operands=operands))
        if swaps and not _interchangeable(operands[0], operands[1], free):
            found.append(dataclasses.replace(pattern, operands=operands[::-1]))
        if len(found) > MAXIMUM_ORDERS:
            raise check_error(
                file,
                pattern.span,
                f"more than {MAXIMUM_ORDERS} orders of operands",
                "fix some of them: OP!(a, b)",
            )
    return found


def _interchangeable(a: s.Pattern, b: s.Pattern, free: set[str]) -> bool:
    if isinstance(a, s.Rest) or isinstance(b, s.Rest) or a == b:
        return True
    return (
        isinstance(a, s.Variable)
        and isinstance(b, s.Variable)
        and a.type == b.type
        and all(v.name is None or v.name in free for v in (a, b))
    )


def _alpha(pattern: s.Apply, rule: s.Rule) -> Any:
    """What is equal for two cases that match the same: names by order of appearance."""
    order: dict[str, str] = {}
    types: set[tuple[str, str]] = set()

    def change(node: Any) -> Any:
        if isinstance(node, (s.Variable, s.Constant, s.Rest, s.Capture, s.Name)) and node.name in order:
            name = order[node.name]
            if isinstance(node, (s.Variable, s.Constant)):
                types.update({(name, node.type)} if node.type is not None else ())
                return dataclasses.replace(node, name=name, type=None)
            return dataclasses.replace(node, name=name)
        return None

    for name in names_in(pattern):
        order.setdefault(name, f"_{len(order)}")
    return rewrite(pattern, change), rewrite(rule.clauses, change), frozenset(types)

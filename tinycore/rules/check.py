"""Checks of a whole file that need no types: names, annotations, strategies.

Types, arities and attributes are checked where the code for them is made (`matcher`, `express`, `building`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinycore.errors import did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE
from tinycore.rules import syntax as s
from tinycore.rules.expand import names_in, nodes_in
from tinycore.rules.extra import STAGES
from tinycore.rules.parse import check_error

FAST_FLAGS = ("nnan", "ninf", "nsz", "reassoc", "contract", "arcp")
"""What ``@fast`` may permit: no NaN, no infinity, sign of zero, reassociation, contraction, reciprocals."""
ANNOTATIONS = (
    "exact", "fast", "approx", "unsafe", "grows", "prio", "noverify", "memo", "requires", "stage", "language"
)  # fmt: skip
STRATEGIES = ("bottom_up", "top_down", "fixpoint")
KINDS = (*STRATEGIES, "vjp", "render")
LANGUAGES = ("c",)
"""What provers can run of the text that render rules write."""
_NATIVE_KINDS = (
    "node",
    "int",
    "float",
    "bool",
    "number",
    "value",
    "dtype",
    "op",
    "shape",
    "list",
    "str",
    "string",
    "any",
    "dim",
    "target",
    "nodes",
    "ints",
)
_DTYPE_NAMES = {dtype.name for dtype in (*dtypes.CLASSES["Any"], dtypes.void)}


@dataclass(frozen=True, slots=True)
class Notes:
    """What the annotations of a rule and of its group say.

    `requires` are the permissions that a pass must give: fast-math flags, "approx", "unsafe".
    """

    rule: s.Rule
    requires: frozenset[str]
    flags: frozenset[str]
    priority: int
    grows: bool
    target: bool


def notes_of(file: s.File, group: s.Group, rule: s.Rule) -> Notes:
    """The annotations of a rule, with its group's. Raises RuleCheckError for unknown ones."""
    flags: set[str] = set()
    requires: set[str] = set()
    priority, grows, target = 0, False, False
    for annotation in (*group.annotations, *rule.annotations):
        if annotation.name not in ANNOTATIONS:
            raise check_error(
                file,
                annotation.span,
                f"there is no annotation @{annotation.name}",
                did_you_mean(annotation.name, ANNOTATIONS),
            )
        if annotation.name == "fast":
            flags |= set(_words(file, annotation, FAST_FLAGS)) or set(FAST_FLAGS)
        elif annotation.name in ("approx", "unsafe"):
            requires.add(annotation.name)
        elif annotation.name == "prio":
            value = annotation.arguments[0] if len(annotation.arguments) == 1 else None
            if not isinstance(value, s.Number) or not isinstance(value.value, int):
                raise check_error(file, annotation.span, "@prio takes one integer")
            priority = value.value
        elif annotation.name == "requires":
            _words(file, annotation, ("target",))
            target = True
        elif annotation.name == "grows" and any(not isinstance(a, s.Text) for a in annotation.arguments):
            raise check_error(file, annotation.span, '@grows takes nothing, or a reason: @grows("why")')
        elif annotation.name in ("stage", "language"):
            _words(file, annotation, STAGES if annotation.name == "stage" else LANGUAGES)
        grows = grows or annotation.name == "grows"
    return Notes(rule, frozenset(requires | flags), frozenset(flags), priority, grows, target)


def _words(file: s.File, annotation: s.Annotation, allowed: Iterable[str]) -> list[str]:
    words = []
    for argument in annotation.arguments:
        word = argument.name if isinstance(argument, s.Name) else "?"
        if word not in allowed:
            raise check_error(
                file,
                argument.span,
                f"@{annotation.name} does not know this",
                did_you_mean(word, allowed) or f"it takes {', '.join(allowed)}",
            )
        words.append(word)
    return words


def check_file(file: s.File) -> None:
    """Raise RuleCheckError for a name that is defined twice or not at all."""
    seen: dict[str, str] = {name: "import" for item in file.imports for name in item.names}
    for kind, items in (
        ("native", file.natives),
        ("view", file.views),
        ("group", file.groups),
        ("pass", file.passes),
    ):
        for item in items:
            if item.name in seen and not (kind == "pass" and seen[item.name] == "group"):
                raise check_error(
                    file, item.span, f"{item.name} is defined twice", f"it is already a {seen[item.name]}"
                )
            if item.name.startswith("_"):
                raise check_error(file, item.span, f"the name {item.name} starts with an underscore")
            seen[item.name] = kind
    for native in file.natives:
        for declared in (*native.parameters, native.result):
            if declared.name not in _NATIVE_KINDS:
                raise check_error(
                    file,
                    native.span,
                    f"there is no kind {declared.name}",
                    did_you_mean(declared.name, _NATIVE_KINDS),
                )
    uses = {
        view.name: {n.name for n in nodes_in(view.body) if isinstance(n, s.ViewUse)} for view in file.views
    }
    for view in file.views:
        below, pending = set[str](), set(uses[view.name])
        while pending:
            below |= pending
            pending = {name for used in pending for name in uses.get(used, ())} - below
        if view.name in below:
            raise check_error(file, view.span, f"view {view.name} contains itself")
        unknown = set(names_in(view.body)) - set(view.parameters) - set(TABLE) - _DTYPE_NAMES
        if unknown:
            what = f"view {view.name} uses {', '.join(sorted(unknown))}, which it does not get"
            raise check_error(file, view.span, what, "make it a parameter, or write _")
    for group in file.groups:
        _check_group(file, group)
    for item in file.passes:
        _check_strategy(file, item, item.strategy, seen)
        for annotation in item.annotations:
            if annotation.name != "accept":
                raise check_error(file, annotation.span, "a pass takes @accept(...) only")
            _words(file, annotation, (*FAST_FLAGS, "fast", "approx", "unsafe"))


def _check_group(file: s.File, group: s.Group) -> None:
    for kind in group.kinds:
        if kind not in KINDS:
            raise check_error(
                file, group.span, f"a group is {', '.join(KINDS)}, not {kind}", did_you_mean(kind, KINDS)
            )
    names: set[str] = set()
    wanted = {"vjp": "vjp", "render": "render"}.get(next(iter(group.kinds), ""), "rewrite")
    pending: list[s.Rule | s.ForBlock] = list(group.items)
    while pending:
        item = pending.pop()
        if isinstance(item, s.ForBlock):
            pending.extend(item.items)
            continue
        if item.kind != wanted:
            raise check_error(
                file,
                item.span,
                f"a {item.kind} rule in a group of {wanted} rules",
                f"put it in a group of its own: group name({item.kind}) {{ ... }}",
            )
        if item.name in names:
            raise check_error(file, item.span, f"there are two rules {item.name} in group {group.name}")
        names.add(item.name)


def _check_strategy(
    file: s.File, item: s.PassDeclaration, strategy: s.Strategy, seen: dict[str, str]
) -> None:
    if strategy.kind == "name":
        if strategy.name not in seen or seen[strategy.name] not in ("group", "pass", "import"):
            known = [name for name, kind in seen.items() if kind in ("group", "pass", "import")]
            raise check_error(
                file,
                strategy.span,
                f"there is no group or pass {strategy.name}",
                did_you_mean(strategy.name, known),
            )
    elif strategy.kind not in (*STRATEGIES, "seq", "union"):
        raise check_error(
            file,
            strategy.span,
            f"there is no strategy {strategy.kind}",
            did_you_mean(strategy.kind, STRATEGIES),
        )
    for part in strategy.parts:
        _check_strategy(file, item, part, seen)

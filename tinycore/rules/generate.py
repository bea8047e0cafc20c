"""Python source from a checked file: one function a root op, guards inline, tables at the end.

A function takes the node and the context and answers the replacement, or None. Before each ``return`` stands
a marker ``#@number``: the traced variant of a module is the same text with the markers turned into code, so
production pays nothing for tracing.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tinycore.ir import dtypes
from tinycore.rules import syntax as s
from tinycore.rules.check import Notes, check_file, notes_of
from tinycore.rules.expand import Case, cases_of, rules_of
from tinycore.rules.express import Expressions, kind_type
from tinycore.rules.matcher import Code, Matcher, Pool
from tinycore.rules.parse import check_error
from tinycore.rules.shadow import Shadows

Step = tuple[str, str]

HEADER = '''"""Compiled rules; made by tinycore.rules, do not edit."""

from math import gcd

from tinycore.ir import dims, dtypes
from tinycore.ir.ops import ops
from tinycore.ir.uop import UOp, adopt
from tinycore.rules.fold import fold
from tinycore.rules.support import *

fired = [0]
new = UOp.__new__
'''
_PRELUDE = {"rewrite": "", "vjp": "    g, ctx = ctx\n", "render": "    names, ctx = ctx\n"}
"""What a function makes of its second parameter: only rewrites get the bare context."""
_INTEGRAL = frozenset(dtypes.CLASSES["Integral"])


@dataclass(frozen=True, slots=True)
class Compiled:
    """One case as steps: tests and definitions, the last one the result."""

    root: str
    notes: Notes
    steps: tuple[Step, ...]


class Generator:
    """Collects the functions and tables of one file."""

    def __init__(self, file: s.File) -> None:
        self.file, self.pool = file, Pool()
        self.natives = {native.name: native for native in file.natives}
        self.functions: dict[str, str] = {}  # body -> name
        self.rules: list[tuple[Any, ...]] = []

    def source(self) -> str:
        """The whole module."""
        check_file(self.file)
        groups = {group.name: self._group(group) for group in self.file.groups}
        lines = [HEADER]
        lines += [f"{name} = {definition}" for name, definition in self.pool.lines.items()]
        lines += [f"\n\ndef {name}{body}" for body, name in self.functions.items()]
        lines.append("\n\nRULES = (\n" + "".join(f"    {rule!r},\n" for rule in self.rules) + ")")
        lines.append(
            "GROUPS = {\n"
            + "".join(f"    {name!r}: {_literal(group)},\n" for name, group in groups.items())
            + "}"
        )
        natives = {name: "ctx" in native.flags for name, native in self.natives.items()}
        lines.append(f"NATIVES = {natives!r}")
        imports = [(item.module, name) for item in self.file.imports for name in item.names]
        lines.append(f"IMPORTS = {imports!r}")
        passes = [
            (item.name, _strategy(item.strategy), [_word(a) for n in item.annotations for a in n.arguments])
            for item in self.file.passes
        ]
        lines.append(f"PASSES = {passes!r}\n")
        return "\n".join(lines)

    def _group(self, group: s.Group) -> dict[str, Any]:
        compiled: list[Compiled] = []
        notes = [notes_of(self.file, group, rule) for rule in rules_of(self.file, group)]
        natives: set[str] = set()
        shadows = Shadows(self.file)
        for note in sorted(notes, key=lambda note: -note.priority):
            number = len(self.rules)
            rule = note.rule
            self.rules.append(
                (group.name, rule.name, rule.span.line, sorted(note.requires), note.grows, rule.why or "")
            )
            cases = cases_of(self.file, rule)
            shadows.add(rule, cases, not note.requires)
            for case in cases:
                builder = CaseBuilder(self, note, case)
                compiled.append(Compiled(case.root, note, (*builder.build(), ("mark", str(number)))))
                natives |= builder.natives
        kind = notes[0].rule.kind if notes else "rewrite"
        table = []
        for root in dict.fromkeys(item.root for item in compiled):
            mine = [item for item in compiled if item.root == root]
            for requires, part in _segments(mine):
                table.append(
                    (
                        root,
                        sorted(requires),
                        self._function(kind, group.name, root, [item.steps for item in part]),
                    )
                )
        stage = next((_word(a.arguments[0]) for a in group.annotations if a.name == "stage"), None)
        # A context is more than its target, so what asks for it is not kept from call to call.
        impure = sorted(name for name in natives if self.natives[name].flags & {"pure", "ctx"} != {"pure"})
        if impure and any(annotation.name == "memo" for annotation in group.annotations):
            hint = "declare them pure, and not ctx, if they depend on nothing but their operands"
            what = f"@memo, but {', '.join(impure)} may answer differently each time"
            raise check_error(self.file, group.span, what, hint)
        return {
            "kind": kind,
            "strategy": _default_strategy(group),
            "stage": stage,
            "table": table,
            "pure": not impure,
        }

    def _function(self, kind: str, group: str, root: str, cases: list[tuple[Step, ...]]) -> str:
        lines: list[str] = []
        _emit(cases, 1, lines)
        body = "\n".join(lines)
        for local in sorted(set(re.findall(r"\b(n_\w+)\.op\b", body))):
            definition = re.search(rf"^    (?! )(.*\b{local}\b.*) = n\.src$", body, re.MULTILINE)
            if definition and len(re.findall(rf"\b{local}\.op\b", body)) > 1:
                head, tail = body[: definition.end()], body[definition.end() :]
                body = f"{head}\n    p{local[1:]} = {local}.op" + re.sub(
                    rf"\b{local}\.op\b", f"p{local[1:]}", tail
                )
        # Calls of `UOp.__new__` and reads of the slot are cheaper than a call of the class and the property.
        body = re.sub(r"\bUOp\(", "new(UOp, ", body)
        body = re.sub(r"\b(n(?:_\w+)?)\.bounds\[", r"(\1._bounds or \1.bounds)[", body)
        if re.search(r"\bn(?:_\w+)?\.is_const\b", body):
            body = re.sub(r"\b(n(?:_\w+)?)\.is_const\b", rf"(\1.op is {self.pool.op('CONST')})", body)
        body = f"(n, ctx):\n{_PRELUDE[kind]}{body}\n    return None"
        return self.functions.setdefault(body, f"r_{group}_{root}_{len(self.functions)}")


def _segments(items: list[Compiled]) -> Iterable[tuple[frozenset[str], list[Compiled]]]:
    """Runs of cases that need the same permissions: a pass takes the runs that it accepts."""
    start = 0
    for k in range(1, len(items) + 1):
        if k == len(items) or items[k].notes.requires != items[start].notes.requires:
            yield items[start].notes.requires, items[start:k]
            start = k


def _emit(cases: Sequence[tuple[Step, ...]], depth: int, lines: list[str]) -> None:
    """Write the cases in order; those that begin with the same steps share them."""
    indent = "    " * depth
    while cases:
        first = cases[0][0]
        mine, cases = _alike(cases)
        tails = [case[1:] for case in mine]
        kind, text = first
        if kind == "if":
            tests = [text]
            while all(tail[0] == tails[0][0] and tail[0][0] == "if" for tail in tails):
                tests.append(tails[0][0][1])
                tails = [tail[1:] for tail in tails]
            lines.append(f"{indent}if {' and '.join(tests)}:")
            _emit(tails, depth + 1, lines)
        elif kind == "for":
            lines.append(f"{indent}for {text}:")
            _emit(tails, depth + 1, lines)
        elif kind == "do":
            lines.append(indent + text)
            _emit(tails, depth, lines)
        else:
            lines += [
                f"{indent}r = {text}",
                f"{indent}if r is not n:",
                f"{indent}    #@{tails[0][0][1]}",
                f"{indent}    return r",
            ]


def _alike(
    cases: Sequence[tuple[Step, ...]],
) -> tuple[list[tuple[Step, ...]], list[tuple[Step, ...]]]:
    """The cases that begin like the first one, and the rest.

    A case may overtake others only where no node matches both, so that the order of the rules still decides.
    """
    first = cases[0][0]
    mine, rest = [cases[0]], list[tuple[Step, ...]]()
    for case in cases[1 : 1 + _LOOK_AHEAD]:
        same = first[0] != "ret" and case[0] == first
        if same and (not rest or (first[0] != "for" and all(_disjoint(case, other) for other in rest))):
            mine.append(case)
        else:
            rest.append(case)
    return mine, [*rest, *cases[1 + _LOOK_AHEAD :]]


def _disjoint(one: tuple[Step, ...], other: tuple[Step, ...]) -> bool:
    """Whether one position cannot pass the tests of both cases."""
    known = _facts_of(one)
    return any(known.get(place, fact) != fact for place, fact in _facts_of(other).items())


@functools.lru_cache(maxsize=4096)
def _facts_of(case: tuple[Step, ...]) -> dict[str, str]:
    """What a case asks to be equal: the op of a position, the bits of a constant."""
    found = (_FACT.fullmatch(text) for kind, text in case if kind == "if")
    return {match[1]: match[2] or match[3] for match in found if match}


_FACT = re.compile(r"(n(?:_\d+)*\.op|n(?:_\d+)*\.arg\[0\])(?: is (O_[A-Z0-9_]+)| == (-?\d+))")
_LOOK_AHEAD = 64
"""How far a case may move up: what keeps a group of thousands of rules from costing their square."""


_HANDED_ON = re.compile(r"\bn\b(?!\.(?:src|dtype|arg|op|shape|bounds|value|is_const)\b)")
"""A use of the root for more than its fields: then it must be a node of the table, and not a draft of one."""


class CaseBuilder:
    """The steps of one case: the matcher's, then the clauses, then the result."""

    def __init__(self, generator: Generator, notes: Notes, case: Case) -> None:
        self.file, self.notes, self.case, self.rule = generator.file, notes, case, case.rule
        self.matcher = Matcher(generator.file, case, generator.pool, "nsz" in notes.flags)
        self.ex = Expressions(generator.file, generator.pool, generator.natives, self.matcher)
        self.steps: list[Step] = []
        self.natives: set[str] = set()

    def build(self) -> list[Step]:
        """All steps. Raises RuleCheckError."""
        self._names()
        for text, value, span in self.matcher._attribute_tests:
            code = self.ex.value(value)
            if code.type in ("op", "dtype"):
                self.steps.append(("if", f"{text} is {code.text}"))
            elif code.type == "node":
                raise check_error(self.file, span, "an attribute is compared with a value, not with a node")
            else:
                self.steps.append(
                    (
                        "if",
                        f"{text} == {code.text if code.frozen else f'frozen({code.text})'}"
                        if code.type not in ("num", "bool", "str")
                        else f"{text} == {code.text}",
                    )
                )
        for clause in self.rule.clauses:
            if isinstance(clause, s.Guard):
                self.steps.append(("if", self.ex.truth(clause.condition)))
            else:
                self._let(clause)
        for binding in self.rule.block:
            self._let(binding)
        self.steps.append(("ret", self._result()))
        self._unused()
        self.natives = {call.name for call in _calls(self.rule) if call.name in self.ex.natives}
        values = [
            ("do", f"v_{name} = {local}.value")
            for name, (kind, local) in self.matcher.captures.items()
            if kind == "const" and any(re.search(rf"\bv_{name}\b", text) for _, text in self.steps)
        ]
        steps = [*self.matcher.steps, *values, *self.steps]
        if self.rule.kind == "rewrite":
            first = next((k for k, (_, text) in enumerate(steps) if _HANDED_ON.search(text)), len(steps))
            if first < len(steps):
                steps.insert(first, ("do", "n = n if n.mask else adopt(n)"))
        return steps

    def _names(self) -> None:
        m = self.matcher
        for name, (kind, local) in m.captures.items():
            if kind == "node":
                self.ex.names[name] = Code(local, "node", m.dtype_of(local), m.shape_of(local))
            elif kind == "const":
                integral = m.facts.possible(local) <= _INTEGRAL
                text = f"{local}.arg[0]" if integral else f"v_{name}"
                dtype, shape = m.dtype_of(local), m.shape_of(local)
                self.ex.names[name] = Code(text, "const", dtype, shape, node=local, whole=integral)
            elif kind == "rest":
                self.ex.names[name] = Code(f"v_{name}", ("list", "node"), frozen=True)
            else:
                self.ex.names[name] = m.attributes[name]
        for name, local in m.type_variables.items():
            self.ex.names[name] = Code(m.dtype_of(local), "dtype")
        if self.notes.target:
            self.ex.names["target"] = Code("ctx.target", "target")
        for name, local in zip(self.rule.names, ("g", "n"), strict=False):
            self.ex.names[name] = Code(local, "node", m.dtype_of("n"), m.shape_of("n"))

    def _let(self, clause: s.Let) -> None:
        name, ex = clause.name, self.ex
        if name in ex.names or name.startswith("_"):
            raise check_error(
                self.file,
                clause.span,
                f"{name} cannot be defined here",
                "choose another name" if name in ex.names else "names do not start with an underscore",
            )
        code = ex.node(clause.value) if ex.is_node(clause.value) else ex.value(clause.value)
        local = f"v_{name}"
        self.steps.append(("do", f"{local} = {code.text}"))
        native = ex.natives.get(clause.value.name) if isinstance(clause.value, s.Call) else None
        if native is not None and native.result.optional:
            self.steps.append(("if", f"{local} is not None"))
        elif native is not None and kind_type(native.result) == "node":
            code = Code(code.text, "node")
        type_ = "num" if code.type == "const" else code.type
        dtype = code.dtype or (f"{local}.dtype" if type_ == "node" else None)
        shape = code.shape or (f"{local}.shape" if type_ == "node" else None)
        ex.names[name] = Code(local, type_, dtype, shape, frozen=code.frozen, width=code.width)

    def _result(self) -> str:
        m, rule = self.matcher, self.rule
        if rule.kind == "render":
            from tinycore.rules.template import render_text

            return render_text(self.ex, rule)
        if rule.kind == "rewrite":
            assert rule.result[0] is not None
            code = self.ex.node(rule.result[0], m.dtype_of("n"), m.shape_of("n"))
            self._same_dtype(code)
            return code.text
        slots = []
        fixed = not any(isinstance(operand, s.Rest) for operand in self.case.pattern.operands)
        splats = any(isinstance(slot, s.Splat) for slot in rule.result)
        if fixed and not splats and len(rule.result) != len(self.case.pattern.operands):
            raise check_error(
                self.file,
                rule.span,
                f"{self.case.root} has {len(self.case.pattern.operands)} operands "
                f"here, but the rule gives {len(rule.result)} gradients",
            )
        for k, slot in enumerate(rule.result):
            if slot is None:
                slots.append("None")
            elif isinstance(slot, s.Splat):
                slots.append("*" + self.ex.value(slot.value).text)
            else:
                local = f"n_{k}"
                slots.append(
                    self.ex.node(slot, m.dtype_of(local), m.shape_of(local)).text
                    if fixed
                    else self.ex.node(slot).text
                )
        return f"({', '.join(slots)}{',' if len(slots) == 1 else ''})"

    def _same_dtype(self, code: Code) -> None:
        facts, root = self.matcher.facts, self.matcher.facts.possible("n")
        if code.dtype is None:
            return
        if code.dtype.startswith("D_"):
            found = frozenset({dtypes.by_name(code.dtype[2:])})
        else:
            found = (
                facts.possible(code.dtype.removesuffix(".dtype"))
                if re.fullmatch(r"n\w*\.dtype", code.dtype)
                else root
            )
        if not found & root:
            raise check_error(
                self.file,
                self.rule.span,
                f"the result of {self.rule.name} is {_shown(found)}, but what it replaces is {_shown(root)}",
            )

    def _unused(self) -> None:
        mentioned = self.ex.used
        times = Counter(_names(self.case.pattern))
        for name, (kind, _) in self.matcher.captures.items():
            if kind != "node" and name not in mentioned and times[name] < 2:
                raise check_error(
                    self.file,
                    self.rule.pattern.span,
                    f"{name} is captured but not used",
                    "write _ for what does not matter",
                )
        for let in (*self.rule.block, *(clause for clause in self.rule.clauses if isinstance(clause, s.Let))):
            if let.name not in mentioned:
                raise check_error(self.file, let.span, f"{let.name} is defined but not used")


def _names(tree: Any) -> Iterable[str]:
    from tinycore.rules.expand import names_in

    return names_in(tree)


def _calls(tree: Any) -> Iterable[s.Call]:
    from tinycore.rules.expand import nodes_in

    return (node for node in nodes_in(tree) if isinstance(node, s.Call))


def _shown(members: frozenset[Any]) -> str:
    names = sorted(dtype.name for dtype in members)
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)


def _default_strategy(group: s.Group) -> str:
    return "fixpoint" if "fixpoint" in group.kinds else next(iter(group.kinds), "fixpoint")


def _strategy(strategy: s.Strategy) -> Any:
    if strategy.kind == "name":
        return ("name", strategy.name)
    return (strategy.kind, *(_strategy(part) for part in strategy.parts))


def _word(expression: s.Expression) -> str:
    return expression.name if isinstance(expression, s.Name) else str(getattr(expression, "value", ""))


def _literal(group: dict[str, Any]) -> str:
    table = (
        "["
        + ", ".join(f"({root!r}, {requires!r}, {function})" for root, requires, function in group["table"])
        + "]"
    )
    rest = ", ".join(f"{key!r}: {value!r}" for key, value in group.items() if key != "table")
    return "{" + rest + f", 'table': {table}" + "}"


def generate(file: s.File) -> str:
    """The Python source of a parsed file. Raises RuleCheckError."""
    return Generator(file).source()

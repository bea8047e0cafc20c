"""Mistakes in rule files: all of them, each at its place.

The engine's checker stops at the first mistake; here every rule is checked by itself. What only whole passes
show is added: rules that an earlier one leaves nothing to match, on every composed pass, and overlaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinycore.errors import RuleError
from tinycore.rules import syntax as s
from tinycore.rules.cache import compile_text
from tinycore.rules.check import check_file
from tinycore.rules.expand import names_in, nodes_in, rules_of
from tinycore.rules.loading import read
from tinycore.rules.module import Group, Pass, RuleModule, Stage
from tinycore.rules.parse import check_error, parse, snippet
from tinycore.rules.shadow import Index
from tinycore_tools_rules.sources import Source, Unit, compile_alone, open_source, units_of
from tinycore_tools_rules.subsume import Row, overlaps, shadows


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or remarkable; `where` is ``path:line:column`` with the line and a caret."""

    severity: str
    code: str
    message: str
    where: str
    hint: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.severity}: {self.message}", *(f"  {line}" for line in self.where.splitlines())]
        return "\n".join([*lines, *([f"  hint: {self.hint}"] if self.hint else [])])


def finding_of(error: RuleError) -> Finding:
    """An error of the engine as a finding."""
    code = {"RuleSyntaxError": "syntax", "RuleCheckError": "types"}.get(type(error).__name__, "load")
    return Finding("error", code, error.what, error.where or "", error.hint)


def check_text(text: str, path: str) -> list[Finding]:
    """Mistakes that a text shows by itself: syntax, names, types, unused captures, dropped attributes."""
    try:
        file = parse(text, path)
    except RuleError as error:
        return [finding_of(error)]
    found: list[Finding] = []
    try:
        compile_text(text, path)
    except RuleError:
        pass  # something is wrong: look for all of it, rule by rule
    else:
        return [
            item for group in file.groups for rule in rules_of(file, group) for item in _dropped(file, rule)
        ]
    try:
        check_file(file)
    except RuleError as error:
        found.append(finding_of(error))
    for group in file.groups:
        try:
            rules = rules_of(file, group)
        except RuleError as error:
            found.append(finding_of(error))
            continue
        for rule in rules:
            found += _check_rule(file, group, rule, quiet=bool(found))
    return list({(item.message, item.where): item for item in found}.values())


def _check_rule(file: s.File, group: s.Group, rule: s.Rule, quiet: bool) -> Iterator[Finding]:
    try:
        compile_alone(file, group, rule)
    except RuleError as error:
        finding = finding_of(error)
        if not quiet or rule.span.line <= int((error.where or "::0").split(":")[1] or 0):
            yield finding
        return
    yield from _dropped(file, rule)


def _dropped(file: s.File, rule: s.Rule) -> Iterator[Finding]:
    """An op that is matched without its attributes and built anew with others; gradients always build others."""
    if rule.kind == "vjp":
        return
    built = [
        node for node in nodes_in((rule.block, rule.result)) if isinstance(node, s.Build) and node.attributes
    ]
    if not built:
        return
    matched: dict[str, bool] = {}
    for node in nodes_in(rule.pattern):
        if isinstance(node, s.Apply):
            for op in node.ops:
                kept = node.attributes is not None and any(
                    part.name is not None or part.equal is not None for part in node.attributes
                )
                matched[op] = matched.get(op, False) or kept
    used = set(names_in((rule.clauses, rule.block, rule.result)))
    captured = {node.name for node in nodes_in(rule.pattern) if isinstance(node, s.Capture)}
    if captured & used:  # the attributes may be asked of the node
        return
    for node in built:
        if matched.get(node.op) is False:
            error = check_error(
                file,
                node.span,
                f"{rule.name} builds {node.op} with attributes of its own and drops those that it matched",
                f"bind them on the left: {node.op}[a](...), or write like(n, ...)",
            )
            yield Finding("warning", "dropped", error.what, error.where or "", error.hint)


# --- whole passes ---------------------------------------------------------------------------------------------


def stages_of(module: RuleModule) -> Iterator[tuple[str, Stage]]:
    """Every stage of every pass of a module; groups that no pass uses stand alone."""
    used: set[Group] = set()

    def walk(item: Pass) -> Iterator[Stage]:
        for part in item.stages:
            if isinstance(part, Pass):
                yield from walk(part)
            else:
                used.update(part.groups)
                yield part

    for name, item in module.passes.items():
        for stage in walk(item):
            yield name, stage
    for name, group in module.groups.items():
        if group not in used:
            yield name, group.alone.stages[0]  # type: ignore[misc]


def rows_of(stage: Stage, known: Source | None = None) -> list[Row]:
    """The cases of a stage in the order in which they are tried at each root op; `known` need not be opened."""
    rows: list[Row] = []
    for group in stage.groups:
        source = (
            known if known is not None and known.module.name == group.module else open_source(group.module)
        )
        units = [unit for unit in units_of(source) if unit.group.name == group.name]
        for unit in sorted(units, key=lambda unit: -unit.notes.priority):
            if stage.accept.issuperset(unit.notes.requires):
                rows += [Row(unit, case) for case in unit.cases]
    return rows


def check_passes(source: Source, with_overlaps: bool = False) -> list[Finding]:
    """Rules that never fire because of earlier ones, on the composed passes of a file."""
    found: dict[tuple[str, str], Finding] = {}
    stages = [(name, rows_of(stage, source)) for name, stage in stages_of(source.module)]
    plain = [group for group in source.file.groups if group.name not in source.module.groups]
    for group in plain:  # vjp and render rules
        units = [unit for unit in units_of(source) if unit.group is group]
        ordered = sorted(units, key=lambda unit: -unit.notes.priority)
        stages.append((group.name, [Row(unit, case) for unit in ordered for case in unit.cases]))
    for name, rows in stages:
        for finding in _shadowed(name, rows):
            found.setdefault((finding.code, finding.where), finding)
        if with_overlaps:
            for finding in _overlapping(name, rows):
                found.setdefault((finding.message, finding.where), finding)
    return list(found.values())


def _shadowed(name: str, rows: list[Row]) -> Iterator[Finding]:
    seen: Index[Row] = Index()
    by: dict[str, list[Row | None]] = {}
    units: dict[str, Unit] = {}
    for row in rows:
        candidates = (other for other in seen.wider(row.case.pattern) if other.unit is not row.unit)
        units[row.unit.identity] = row.unit
        by.setdefault(row.unit.identity, []).append(next((o for o in candidates if shadows(o, row)), None))
        seen.add(row.case.pattern, row)
    for identity, shadowing in by.items():
        if all(row is not None for row in shadowing):
            first = shadowing[0]
            assert first is not None
            yield _shadow_finding(name, units[identity], first.unit)


def _shadow_finding(name: str, unit: Unit, earlier: Unit) -> Finding:
    same = unit.source.name.split(".")[0] == earlier.source.name.split(".")[0]
    return Finding(
        "error" if same else "warning",
        "shadowed",
        f"{unit.name} never fires in {name}: {earlier.name} matches all that it matches, and comes first",
        snippet(unit.source.path, unit.source.file.text, _head(unit.rule)) + f"\nearlier: {earlier.where}",
        "remove one of them, make the earlier one stricter, or give this one a higher @prio",
    )


def _head(rule: s.Rule) -> s.Span:
    """The place of the name of a rule."""
    length = len(rule.name.split("[")[0])
    start = rule.span
    return dataclasses.replace(start, end_line=start.line, end_column=start.column + length)


def _overlapping(name: str, rows: list[Row]) -> Iterator[Finding]:
    by_root: dict[str, list[Row]] = {}
    told: set[tuple[str, str]] = set()
    for row in rows:
        for other in by_root.get(row.case.root, ()):
            pair = (other.unit.identity, row.unit.identity)
            if other.unit is row.unit or pair in told or not overlaps(other, row):
                continue
            told.add(pair)
            yield Finding(
                "info",
                "overlap",
                f"{other.unit.name} and {row.unit.name} may match the same node in {name}; the first one wins",
                snippet(row.unit.source.path, row.unit.source.file.text, _head(row.unit.rule))
                + f"\nfirst: {other.unit.where}",
            )
        by_root.setdefault(row.case.root, []).append(row)


def check(word: str, with_overlaps: bool = False) -> list[Finding]:
    """Everything that is wrong with one file: a path or a dotted name."""
    path = _path_of(word)
    if path is not None:
        try:
            text = read(path)
        except RuleError as error:
            return [finding_of(error)]
        found = check_text(text, str(path))
        if any(item.severity == "error" for item in found):
            return found
    else:
        found = []
    try:
        return found + check_passes(open_source(word), with_overlaps)
    except RuleError as error:
        return [*found, finding_of(error)]


def _path_of(word: str) -> Path | None:
    from tinycore.rules.loading import find

    path = Path(word)
    if path.suffix == ".rules" or path.is_file():
        return path
    try:
        return find(word)
    except RuleError:
        return None

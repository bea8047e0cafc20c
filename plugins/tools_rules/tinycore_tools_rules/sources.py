"""Which rule files a command looks at, and their rules one by one.

>>> source = open_source("tinycore.passes.kernel")
>>> [unit.name for unit in units_of(source)]
['where_load']
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinycore
from tinycore import rules
from tinycore.errors import RuleError
from tinycore.ir.ops import TABLE, Op
from tinycore.rules import syntax as s
from tinycore.rules.check import Notes, notes_of
from tinycore.rules.expand import Case, cases_of, rules_of
from tinycore.rules.generate import generate
from tinycore.rules.loading import read
from tinycore.rules.parse import parse

Function = Callable[..., Any]
Table = dict[Op, tuple[Function, ...]]


@dataclass(frozen=True, eq=False)
class Source:
    """A parsed and loaded rule file.

    Attributes
    ----------
    name: dotted name, or the path of a file outside any package.
    path: where the text is.
    file: the syntax tree.
    module: the loaded rules, with natives and composed passes.
    """

    name: str
    path: str
    file: s.File
    module: rules.RuleModule

    @functools.cached_property
    def units(self) -> tuple[Unit, ...]:
        """The rules in order."""
        return tuple(
            Unit(self, group, rule, notes_of(self.file, group, rule))
            for group in self.file.groups
            for rule in rules_of(self.file, group)
        )


@dataclass(frozen=True, eq=False)
class Unit:
    """One rule, with ``for`` blocks and views written out."""

    source: Source
    group: s.Group
    rule: s.Rule
    notes: Notes

    @property
    def name(self) -> str:
        """The name of the rule, with the values of its loop variables: ``same[AND]``."""
        return self.rule.name

    @property
    def where(self) -> str:
        """``path:line:column``."""
        return f"{self.source.path}:{self.rule.span.line}:{self.rule.span.column}"

    @property
    def identity(self) -> str:
        """A name that no other rule has."""
        return f"{self.source.name}:{self.group.name}.{self.name}"

    @functools.cached_property
    def cases(self) -> list[Case]:
        """The rule with one root op and one order of operands each."""
        return cases_of(self.source.file, self.rule)

    @functools.cached_property
    def code(self) -> str:
        """The Python that the rule alone is compiled to. Raises RuleCheckError."""
        return compile_alone(self.source.file, self.group, self.rule)

    def table(self, **changes: Any) -> Table:
        """The compiled functions of this rule alone by root op; `changes` replace names in their namespace."""
        namespace: dict[str, Any] = {
            f"f_{name}": native for name, native in self.source.module.code.natives.items()
        }
        exec(compile(self.code, f"<rule {self.name}>", "exec"), namespace)
        namespace.update(changes)
        found: Table = {}
        for root, _, function in namespace["GROUPS"][self.group.name]["table"]:
            found[TABLE[root]] = (*found.get(TABLE[root], ()), function)
        return found

    def annotation(self, name: str) -> s.Annotation | None:
        """An annotation of the rule, or of its group."""
        for note in (*self.rule.annotations, *self.group.annotations):
            if note.name == name:
                return note
        return None

    @functools.cached_property
    def natives(self) -> tuple[str, ...]:
        """The natives that the rule calls."""
        from tinycore.rules.expand import nodes_in

        called = {node.name for node in nodes_in(self.rule) if isinstance(node, s.Call)}
        return tuple(native.name for native in self.source.file.natives if native.name in called)


def compile_alone(file: s.File, group: s.Group, rule: s.Rule) -> str:
    """The Python of one rule of a file. Raises RuleCheckError."""
    alone = dataclasses.replace(
        file, groups=(dataclasses.replace(group, items=(rule,)),), passes=(), imports=()
    )
    return generate(alone)


def units_of(source: Source) -> list[Unit]:
    """The rules of a file in order."""
    return list(source.units)


def core_names() -> list[str]:
    """The dotted names of all rule files of the core."""
    root = Path(tinycore.__file__).parent
    return sorted(
        ".".join(("tinycore", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.rules")
    )


@functools.lru_cache(maxsize=256)
def open_source(word: str) -> Source:
    """The file that a word names: a path, or the dotted name of an installed file.

    A file inside a package is loaded by its dotted name, so that it may declare natives. Raises RuleError.
    """
    path = Path(word)
    dotted: str | None = word
    if path.suffix == ".rules" or path.is_file():
        if not path.is_file():
            raise RuleError(f"there is no file {word}", hint="name a file or an installed module")
        dotted = _dotted(path.resolve())
    module = rules.load(dotted) if dotted is not None else rules.load_file(path)
    return Source(dotted or word, module.path, parse(read(Path(module.path)), module.path), module)


def source_of_text(text: str, path: str) -> Source:
    """A file as it stands in an editor; its natives are not imported. Raises RuleError."""
    return Source(path, path, parse(text, path), rules.load_text(text, path))


def open_sources(words: Iterable[str]) -> list[Source]:
    """The named files; all files of the core when none is named."""
    return [open_source(word) for word in (list(words) or core_names())]


def _dotted(path: Path) -> str | None:
    """The dotted name under which Python finds this very file; None for a file that is only a path."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    if len(parts) == 1 or not all(part.isidentifier() for part in parts):
        return None
    dotted = ".".join(reversed(parts))
    try:
        from tinycore.rules.loading import find

        return dotted if find(dotted).resolve() == path else None
    except RuleError:
        return None

"""What joins the compiler from outside (passes, rule files, a person's rules), and what watches it.

A `Door` is one pass at one of the stages, whoever brought it; equal keys mean equal behaviour, so schedules
and kernels are remembered by the keys of the doors that took part. A `PassRun` is what an observer is told.

>>> door = python_door("twice", lambda graph, context: graph)
>>> door.id, door.module is None
('twice', True)
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinycore.ir.ops import Level
from tinycore.ir.uop import UOp
from tinycore.rules.extra import active_extra, by_stage
from tinycore.rules.loading import load, load_file
from tinycore.rules.module import Pass, RuleModule, Stage


@dataclass(frozen=True, slots=True)
class Door:
    """One pass that takes part at a stage.

    Attributes
    ----------
    id: its name in reports and errors.
    run: ``run(graph, context) -> graph``.
    key: what it is remembered by within a process.
    digest: what it is remembered by on disk.
    module: the rule file that it comes from, None for a pass written in Python.
    """

    id: str
    run: Callable[..., Any] = field(compare=False)
    key: Hashable
    digest: str = field(compare=False)
    module: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PassRun:
    """One pass over one graph, as observers see it.

    Attributes
    ----------
    name: the name of the pass.
    takes, gives: the levels of `before` and `after`.
    before, after: the graph.
    seconds: how long it took.
    again: runs the same pass on the same graph once more, and answers the result (for tracing).
    """

    name: str
    takes: Level
    gives: Level
    before: UOp
    after: UOp
    seconds: float
    again: Callable[[], UOp]


Observer = Callable[[PassRun], None]
"""Told about every pass after it ran: explain, validation, DEBUG=5."""


def python_door(name: str, run: Callable[..., Any]) -> Door:
    """The door of a pass written in Python."""
    function = inspect.unwrap(run)
    code = getattr(function, "__code__", None)
    state = hashlib.blake2b(digest_size=16)
    state.update(f"{name}:{getattr(function, '__qualname__', function)}".encode())
    if code is not None:
        state.update(code.co_code + repr([c for c in code.co_consts if not inspect.iscode(c)]).encode())
    return Door(name, run, (name, run), state.hexdigest())


def rule_door(item: Pass) -> Door:
    """The door of a pass of rules; its key is the content of all groups in it."""
    digest = content_digest(item)
    return Door(item.name, item, digest, digest, item.groups[0].module if item.groups else item.name)


@functools.lru_cache(maxsize=256)
def content_digest(item: Pass) -> str:
    """A hex digest of everything that decides what a pass of rules does, imported groups included."""
    state = hashlib.blake2b(digest_size=16)
    _add(state, item)
    return state.hexdigest()


def _add(state: Any, item: Pass | Stage) -> None:
    if isinstance(item, Pass):
        state.update(f"pass {item.name} {item.repeat}\n".encode())
        for stage in item.stages:
            _add(state, stage)
        return
    state.update(f"stage {item.strategy} {sorted(item.accept)}\n".encode())
    for group in item.groups:
        state.update(f"group {group.name}\n{group.code.source}\n".encode())


@functools.lru_cache(maxsize=256)
def _known_door(item: Pass) -> Door:
    return rule_door(item)


def extra_doors(stage: str) -> tuple[Door, ...]:
    """The doors of `extra_rules` that are in force here, for one stage."""
    active = active_extra(stage)
    return tuple([_known_door(item) for item in active]) if active else ()


def file_doors(path: Path, stage: str) -> list[tuple[str, Door]]:
    """(stage, door) for everything that a rule file offers; `stage` is for groups that name none.

    A file inside a package is loaded by its dotted name, so that it may declare natives. Raises RuleError.
    """
    return [(name, rule_door(item)) for name, item in by_stage(_load(path), stage)]


def _load(path: Path) -> RuleModule:
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    if len(parts) > 1 and all(part.isidentifier() for part in parts):
        return load(".".join(reversed(parts)))
    return load_file(path)


def keys_of(doors: Iterable[Door]) -> tuple[Hashable, ...]:
    """The keys of some doors, in order."""
    return tuple([door.key for door in doors])

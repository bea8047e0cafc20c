"""A person's own rules for a block of code: ``with extra_rules("my.rules"):``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from tinycore.errors import RuleError, did_you_mean
from tinycore.rules.loading import load_file
from tinycore.rules.module import Pass, RuleModule

STAGES = ("tensor", "kernel", "tile", "late", "program")
DEFAULT_STAGE = "tensor"
_active: ContextVar[tuple[tuple[str, Pass], ...]] = ContextVar("tinycore_extra_rules", default=())


def by_stage(module: RuleModule, stage: str) -> list[tuple[str, Pass]]:
    """(stage, pass) for all that a file offers to the compiler; `stage` is for groups that name none."""
    used = {group for item in module.passes.values() for group in item.groups}
    found: list[tuple[str, Pass]] = []
    for item in module.passes.values():
        named = [group.stage for group in item.groups if group.stage is not None]
        found.append((named[0] if named else stage, item))
    for group in module.groups.values():
        if group not in used:
            found.append((group.stage or stage, group.alone))
    return found


@contextlib.contextmanager
def extra_rules(path: Path | str, stage: str | None = None) -> Iterator[RuleModule]:
    """Let the rules of a file take part in the compiler, in this thread or task.

    A group joins the stage that its `@stage(...)` names, else `stage`, else "tensor". Where the file declares
    passes, those run instead of the groups that they use. Raises RuleError for what is wrong with the file.
    """
    if stage is not None and stage not in STAGES:
        raise RuleError(
            f"there is no stage {stage!r}", hint=did_you_mean(stage, STAGES) or f"one of {', '.join(STAGES)}"
        )
    module = load_file(path)
    found = by_stage(module, stage or DEFAULT_STAGE)
    token = _active.set((*_active.get(), *found))
    try:
        yield module
    finally:
        _active.reset(token)


def any_extra() -> bool:
    """Whether any extra rules are in force here."""
    return bool(_active.get())


def active_extra(stage: str) -> tuple[Pass, ...]:
    """The passes of extra rules that are in force here, for one stage."""
    return tuple(item for name, item in _active.get() if name == stage)

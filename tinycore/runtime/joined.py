"""What takes part in the compiler right now: passes and rule files of plugins, and a person's own rules."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from tinycore.rules.doors import Door, extra_doors, file_doors, keys_of, python_door
from tinycore.rules.extra import any_extra
from tinycore.runtime.environment import STAGES, Environment, environment

LOWERING = ("kernel", "tile", "late", "program")
"""The stages that decide what a kernel becomes; `tensor` and `schedule` decide which kernels there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The doors of one environment.

    Attributes
    ----------
    doors: by stage, in the order they run: passes, then rule files.
    key: what kernels are remembered by, as far as plugins are concerned.
    """

    doors: Mapping[str, tuple[Door, ...]]
    key: tuple[Hashable, ...]


_cache: dict[int, tuple[Environment, Joined]] = {}
_KEPT = 8
_lock = threading.Lock()


def joined() -> Joined:
    """What plugins add to the compiler. Raises RuleError for a rule file that is wrong."""
    now = environment()
    found = _cache.get(id(now))
    if found is None or found[0] is not now:
        with _lock:
            found = (now, _build(now))
            while len(_cache) >= _KEPT:
                del _cache[next(iter(_cache))]
            _cache[id(now)] = found
    return found[1]


def _build(now: Environment) -> Joined:
    doors: dict[str, list[Door]] = {stage: [] for stage in STAGES}
    for stage in STAGES:
        doors[stage].extend(python_door(spec.id, spec.run) for spec in now.passes_at(stage))
    for stage in STAGES:
        for source in now.rules_at(stage):
            for name, door in file_doors(source.path, stage):
                doors[name].append(door)
    frozen = {stage: tuple(found) for stage, found in doors.items()}
    return Joined(frozen, tuple([keys_of(frozen[stage]) for stage in LOWERING]))


def schedule_doors() -> dict[str, tuple[Door, ...]]:
    """What takes part in scheduling, by stage; extra rules last."""
    doors = joined().doors
    return {"tensor": (*doors["tensor"], *extra_doors("tensor")), "schedule": doors["schedule"]}


def joining_key() -> Hashable:
    """What a plan is remembered by: everything that takes part at any stage."""
    plugins = joined()
    if not any_extra():
        return plugins
    return (plugins, *[keys_of(extra_doors(stage)) for stage in STAGES])


def lowering_key() -> tuple[Hashable, ...]:
    """What a kernel is remembered by besides itself and its target."""
    plugins = joined().key
    if not any_extra():
        return plugins
    extra = [keys_of(extra_doors(stage)) for stage in LOWERING]
    return (
        (*plugins, *extra) if any(extra) else plugins
    )  # rules of the stage `tensor` change no kernel's code


def lowering_digests() -> list[str]:
    """The same for the disk: names of stages, and digests of what takes part there."""
    return _digests(LOWERING)


def scheduling_digests() -> list[str]:
    """What decides on disk which kernels there are."""
    return _digests(tuple([stage for stage in STAGES if stage not in LOWERING]))


def _digests(stages: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for stage in stages:
        found.append(stage)
        found.extend(door.digest for door in (*joined().doors[stage], *extra_doors(stage)))
    return found

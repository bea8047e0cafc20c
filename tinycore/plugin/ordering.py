"""The order in which passes run: by stage, then by what they declare, then by id.

The same set of plugins always gives the same order, whatever order they were installed or discovered in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinycore.errors import PluginError
from tinycore.runtime.environment import STAGES, PassSpec, Stage


@dataclass(frozen=True, slots=True)
class OwnedPass:
    """A pass and the title of the plugin that brought it."""

    spec: PassSpec
    owner: str


def resolve_requirements(passes: Iterable[OwnedPass]) -> tuple[list[OwnedPass], dict[str, str]]:
    """Leave out passes whose `requires` are not there, and those that required them in turn.

    Returns the passes that stay, and for each of the others the reason.

    >>> alone = OwnedPass(PassSpec("a", "late", run=print, requires=("b",)), "plugin 'a'")
    >>> resolve_requirements([alone])[1]
    {'a': "it requires pass 'b', which is not installed"}
    """
    kept, left_out = list(passes), dict[str, str]()
    while True:
        ids = {each.spec.id for each in kept}
        lacking = {each.spec.id: [r for r in each.spec.requires if r not in ids] for each in kept}
        bad = {name: needs[0] for name, needs in lacking.items() if needs}
        if not bad:
            return kept, left_out
        for name, need in bad.items():
            why = f"was left out: {left_out[need]}" if need in left_out else "is not installed"
            left_out[name] = f"it requires pass {need!r}, which {why}"
        kept = [each for each in kept if each.spec.id not in bad]


def _predecessors(passes: Sequence[OwnedPass]) -> dict[str, set[str]]:
    """Per id, the ids of the same stage that come first; a required pass does too."""
    ids = {each.spec.id for each in passes}
    earlier: dict[str, set[str]] = {name: set() for name in ids}
    for each in passes:
        earlier[each.spec.id].update(ids & {*each.spec.after, *each.spec.requires})
        for later in ids & set(each.spec.before):
            earlier[later].add(each.spec.id)
    return earlier


def _find_cycle(earlier: Mapping[str, set[str]], waiting: set[str]) -> list[str]:
    """One cycle among the passes that wait for each other, in the order they would run."""
    path = [min(waiting)]
    while (step := min(earlier[path[-1]] & waiting)) not in path:
        path.append(step)
    cycle = path[path.index(step) :][::-1]
    first = cycle.index(min(cycle))
    return [*cycle[first:], *cycle[: first + 1]]


def _sort_stage(passes: Sequence[OwnedPass], seed: int | None) -> tuple[PassSpec, ...]:
    by_id = {each.spec.id: each for each in passes}
    import random  # here, for the sake of programs with no pass to sort

    earlier, order = _predecessors(passes), list[PassSpec]()
    waiting, chance = set(by_id), random.Random(seed)
    while waiting:
        ready = sorted(name for name in waiting if not earlier[name] & waiting)
        if not ready:
            names = _find_cycle(earlier, waiting)
            owners = dict.fromkeys(by_id[name].owner for name in names)
            raise PluginError(
                f"passes want to run before each other: {' -> '.join(names)}",
                where="\n".join(owners),
                hint="disable one of these plugins: tinycore plugins disable ID",
            )
        name = ready[0] if seed is None else chance.choice(ready)
        order.append(by_id[name].spec)
        waiting.remove(name)
    return tuple(order)


def order_passes(
    passes: Iterable[OwnedPass], *, shuffle: int | None = None
) -> dict[Stage, tuple[PassSpec, ...]]:
    """The passes of each stage in the order they run.

    `shuffle` is a seed: passes between which no order is declared then run in a random one, which CI uses to
    show that results do not hang on an order nobody wrote down.

    Raises PluginError, naming the plugins, when the declared order has a cycle.

    >>> first = OwnedPass(PassSpec("z", "late", run=print, before=("a",)), "plugin 'z'")
    >>> second = OwnedPass(PassSpec("a", "late", run=print), "plugin 'a'")
    >>> [spec.id for spec in order_passes([second, first])["late"]]
    ['z', 'a']
    """
    everything = list(passes)
    stages = {stage: [each for each in everything if each.spec.stage == stage] for stage in STAGES}
    return {stage: _sort_stage(members, shuffle) for stage, members in stages.items() if members}

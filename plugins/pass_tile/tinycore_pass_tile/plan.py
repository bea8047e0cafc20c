"""The actions for one nest while they are being written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinycore.codegen.tiling import Action, Bind, Split


@dataclass(slots=True)
class Plan:
    """Actions so far.

    >>> plan = Plan(iter(range(10, 20)))
    >>> plan.split(0, 8, 20)
    (10, 11, 12)
    >>> plan.bind("vector", 11, -1)
    >>> [str(action) for action in plan.actions]
    ['split r0 by 8 -> r10, r11 (peel)', 'bind r11 to vector']

    Attributes
    ----------
    ids: numbers for new ranges.
    actions: in the order in which they are applied.
    order: loops that were decided on, outermost first.
    """

    ids: Iterator[int]
    actions: list[Action] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def split(self, target: int, size: int, total: int) -> tuple[int, int, int]:
        """(outer, inner, rest) of a range; the rest is -1 where there is none."""
        outer, inner = next(self.ids), next(self.ids)
        rest = next(self.ids) if total % size else -1
        self.actions.append(Split(target, size, outer, inner, "peel" if total % size else "mask", rest))
        return outer, inner, rest

    def bind(self, kind: str, *targets: int) -> None:
        """Bind those ranges that exist."""
        self.actions += [Bind(target, kind) for target in targets if target >= 0]

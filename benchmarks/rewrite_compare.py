"""The rules of `rewrite.rules` beside the same rules in tinygrad, on the same graphs.

Every round makes one graph anew for each contestant (seed by seed), collects garbage, and takes the time of one
rewrite to the normal form with everything as in real use: interning, clean-up of dead nodes, garbage collector,
tracing hooks. The results must mean the same for random values of the ranges, and ours must be no larger.
"""

from __future__ import annotations

import gc
import importlib.util
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TARGET = 6.0
"""tinygrad, its rules written as usual, is to take this many times longer."""


@dataclass
class Contestant:
    """One way to rewrite: `carry` makes its own graph, `rewrite` is what is timed; milliseconds by round."""

    name: str
    carry: Callable[[Any], Any]
    rewrite: Callable[[Any], Any]
    size: Callable[[Any], int]
    evaluate: Callable[[Any, dict[int, int]], list[int]]
    milliseconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        best, median = min(self.milliseconds), statistics.median(self.milliseconds)
        return f"{self.name:<24} min {best:7.2f} ms   median {median:7.2f} ms"


def available() -> bool:
    """Whether tinygrad can be imported."""
    return importlib.util.find_spec("tinygrad") is not None


def contestants(ours: Callable[[Any], Any], copy: Callable[[Any], Any], evaluate: Any) -> list[Contestant]:
    """We first, then tinygrad in both spellings. Raises ImportError without it."""
    from benchmarks import rewrite_tinygrad as peer

    found = [Contestant("tinycore", copy, ours, lambda root: len(root.toposort()), evaluate)]
    for name, matcher in (("tinygrad, as usual", peer.USUAL), ("tinygrad, tuned rules", peer.TUNED)):
        run = lambda root, matcher=matcher: peer.rewritten(root, matcher)  # noqa: E731
        found.append(Contestant(name, peer.carried_over, run, peer.size, peer.evaluate))
    return found


def compare(recipe: Callable[[int], Any], bounds: list[int], found: list[Contestant], rounds: int) -> None:
    """Measure round by round, all contestants in turn; fills in their milliseconds.

    `recipe(seed)` answers the description of a graph; every contestant carries it over to nodes of its own.
    The first round warms up and is not counted. Raises AssertionError for a result that is wrong or larger.
    """
    for seed in range(rounds + 1):
        description, sizes, meanings = recipe(seed), [], []
        for contestant in found:
            root = contestant.carry(description)
            gc.collect()
            start = time.process_time()
            result = contestant.rewrite(root)
            seconds = time.process_time() - start
            if seed:
                contestant.milliseconds.append(seconds * 1e3)
            sizes.append(contestant.size(result))
            values = random.Random(seed)
            places = [{k: values.randrange(bound) for k, bound in enumerate(bounds)} for _ in range(3)]
            meanings.append([contestant.evaluate(result, place) for place in places])
            del root, result
        assert all(meaning == meanings[0] for meaning in meanings), f"different meanings for seed {seed}"
        assert sizes[0] <= min(sizes), f"our normal form has {sizes[0]} nodes, the others' {sizes[1:]}"


def ratios(found: list[Contestant]) -> list[tuple[float, float]]:
    """How many times longer than ours each other takes: of the best rounds, and the median of the paired ones."""
    ours = found[0].milliseconds
    return [
        (
            min(other.milliseconds) / min(ours),
            statistics.median([b / a for a, b in zip(ours, other.milliseconds, strict=True)]),
        )
        for other in found[1:]
    ]

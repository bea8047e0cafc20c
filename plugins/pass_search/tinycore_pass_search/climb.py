"""The search: a beam of the fastest lists of actions climbs to faster neighbours until time is up."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tinycore.codegen.tiling import Action
from tinycore.errors import CompileError, DeviceError
from tinycore.ir import Capabilities, UOp
from tinycore_pass_search.child import Measured, Measurer
from tinycore_pass_search.moves import Move, neighbours

WIDTH = 2
"""Lists of actions that are climbed from at the same time."""
BETTER = 0.98
"""A candidate counts as faster below this ratio: less is noise."""
WORTH = 0.97
"""What the final comparison in turns must show, or the untuned kernel stays."""
DUEL_SECONDS = 0.2
LEAST_PATIENCE, MOST_PATIENCE = 3.0, 20.0
"""Limits of how long a candidate may take to be compiled and launched."""
START_PATIENCE = 60.0
"""How long opening the device and running the untuned kernel may take."""
SLOWEST = 50.0
"""A candidate gets so many times the launches' time of the best before it is given up."""


@dataclass
class Clock:
    """A time box.

    >>> Clock(0.0).over
    True
    """

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until it is over; never negative."""
        return max(0.0, self.started + self.seconds - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether time is up."""
        return self.left <= 0.0


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes
    ----------
    base, actions: what it started from, and the fastest (`base` itself where nothing is faster).
    before, after: seconds of both, measured in turns.
    tried: candidates by what became of them: "ok", "slow", "same", "wrong", "failed", "crashed", "timeout".
    seconds: how long the search took.
    finished: whether every neighbour was tried before time was up.
    """

    base: tuple[Action, ...]
    actions: tuple[Action, ...]
    before: float
    after: float
    tried: Counter[str]
    seconds: float
    finished: bool

    @property
    def speedup(self) -> float:
        """How many times faster; 1 where nothing was found."""
        return self.before / self.after if self.after > 0 else 1.0


@dataclass
class _Climb:
    """The state of one search."""

    kernel: UOp
    capabilities: Capabilities
    measurer: Measurer
    clock: Clock
    random: random.Random
    progress: Callable[[float, float, int], None]
    first: float = 0.0
    beam: list[tuple[float, tuple[Action, ...]]] = field(default_factory=list)
    seen: set[tuple[Action, ...]] = field(default_factory=set)
    tried: Counter[str] = field(default_factory=Counter)
    credit: Counter[str] = field(default_factory=Counter)

    @property
    def best(self) -> float:
        return self.beam[0][0]

    def candidates(self) -> list[Move]:
        """Untried neighbours of the beam: kinds of change that have helped first, in random order."""
        found: dict[tuple[Action, ...], Move] = {}
        for _, actions in self.beam:
            for move in neighbours(self.kernel, actions, self.capabilities):
                if move.actions not in self.seen:
                    found.setdefault(move.actions, move)
        moves = list(found.values())
        self.random.shuffle(moves)
        return sorted(moves, key=lambda move: self.random.random() - 0.2 * self.credit[move.kind])

    def patience(self) -> float:
        """Seconds for one candidate: compiling, comparing, timing; never much longer than the time box."""
        return min(self.whole_patience(), self.clock.left + 0.5)

    def whole_patience(self) -> float:
        """The same without a time box."""
        return min(MOST_PATIENCE, max(LEAST_PATIENCE, SLOWEST * self.best))

    def measure(self, move: Move) -> bool:
        """Try one candidate; whether it is faster than all before."""
        self.seen.add(move.actions)
        measured = self.measurer.measure(move.actions, self.best, self.patience())
        self.tried[measured.status] += 1
        if measured.status != "ok":
            return False
        faster = measured.seconds < BETTER * self.best
        self.beam = sorted([*self.beam, (measured.seconds, move.actions)], key=lambda entry: entry[0])
        self.beam = self.beam[:WIDTH]
        self.credit[move.kind] += 1 if faster else 0
        return faster

    def run(self) -> bool:
        """Climb until no neighbour is faster (True) or time is up (False)."""
        while True:
            moves = self.candidates()
            for move in moves:
                if self.clock.over:
                    return False
                faster = self.measure(move)
                self.progress(self.first, self.best, sum(self.tried.values()))
                if faster:
                    break
            else:
                if not self.candidates():
                    return True


def climb(
    kernel: UOp,
    base: Sequence[Action],
    capabilities: Capabilities,
    measurer: Measurer,
    seconds: float,
    seed: int = 0,
    progress: Callable[[float, float, int], None] = lambda first, best, tried: None,
    *,
    least: float = 0.0,
    share: float = math.inf,
) -> Outcome:
    """Look for a faster list of actions than `base`.

    Parameters
    ----------
    kernel: canonical, before tiling.
    base: the actions to start from; () for a kernel as it is.
    measurer: compiles and times candidates.
    seconds: the time box of trying candidates. It is passed by the last of them at most.
    seed: of the order in which candidates are tried.
    progress: called after each candidate with the seconds of `base`, of the best, and how many were tried.
    least: kernels that take fewer seconds than this are not searched: there is nothing to gain.
    share: seconds of searching for each second that the untuned kernel takes, but a second at least.

    Raises CompileError when the untuned kernel cannot be measured. No candidate makes it raise.
    """
    start: Measured = measurer.start(base, START_PATIENCE)
    if start.seconds < least:
        return Outcome(tuple(base), tuple(base), start.seconds, start.seconds, Counter(), 0.0, True)
    clock = Clock(
        min(seconds, max(1.0, share * start.seconds))
    )  # not before: how long a process takes to start says nothing about the kernel
    if start.status != "ok":
        raise CompileError("the untuned kernel cannot be measured", hint=start.why)
    state = _Climb(kernel, capabilities, measurer, clock, random.Random(seed), progress)
    state.first = start.seconds
    state.beam = [(start.seconds, tuple(base))]
    state.seen = {tuple(base)}
    progress(state.first, state.best, 0)
    try:
        finished = state.run()
    except DeviceError:  # the device is gone for good; what was found before is kept
        finished = False
    before, after, actions = _confirmed(state, tuple(base))
    spent = clock.seconds - clock.left if clock.left > 0 else time.monotonic() - clock.started
    return Outcome(tuple(base), actions, before, after, state.tried, spent, finished)


def _confirmed(state: _Climb, base: tuple[Action, ...]) -> tuple[float, float, tuple[Action, ...]]:
    """The best against the base in turns: a lucky measurement must not replace a good tiling."""
    for _, actions in state.beam:
        if actions == base:
            break
        try:
            pair = state.measurer.duel(base, actions, DUEL_SECONDS, 2 * state.whole_patience())
        except DeviceError:
            break
        if pair is not None and pair[1] < WORTH * pair[0]:
            return pair[0], pair[1], actions
    return state.first, state.first, base

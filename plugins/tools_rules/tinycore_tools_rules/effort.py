"""Solvers with a limit in z3's own steps, so that answers hardly depend on the machine and what else runs there."""

from __future__ import annotations

from typing import Any

STEPS_PER_MS = 8000
"""How many steps z3 usually takes in a millisecond."""
SAFETY = 10
"""By the clock a solver may take this many times as long: not all of its work is counted in steps."""


def solver_for(milliseconds: int) -> Any:
    """A solver that gives up after about so many milliseconds' work."""
    import z3

    solver = z3.Solver()
    solver.set("rlimit", milliseconds * STEPS_PER_MS)
    solver.set("timeout", milliseconds * SAFETY)
    return solver


def milliseconds() -> int:
    """What z3 has done so far in this process, in the time that it would usually take."""
    import z3

    solver = z3.Solver()
    solver.check()
    found = solver.statistics()
    counts = [int(found[k][1]) for k in range(len(found)) if found[k][0] == "rlimit count"]
    return sum(counts) // STEPS_PER_MS

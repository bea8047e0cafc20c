"""Compiler bugs, planted one at a time: ``python tests/fuzz/planted.py NAME SEED`` says what finds one.

A process of its own, because a wrong fact about a node (bounds, a memo) would outlive the bug. The answer is
a line of JSON: how many graphs it took, what went wrong, and the graph.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings

from tinycore.errors import TinycoreError
from tinycore.ir import UOp, dims, dtypes, ops
from tinycore.testing.compare import check
from tinycore.testing.devices import runner, stored_dtypes
from tinycore.testing.strategies import cases, contractions

EXAMPLES = 500
KEPT = 5
"""Graphs to report: one that is wrong without the bug too proves nothing."""


class Enough(KeyboardInterrupt):
    """Ends the search; hypothesis lets nothing else through."""


@dataclass(frozen=True)
class Bug:
    """How to break the compiler, and the imagined target on which it shows."""

    what: str
    plant: object
    target: str = "scalar"
    strategy: object = cases


def rule(dotted: str, before: str, after: str):
    """Replace a piece of a rule file."""

    def plant():
        from tinycore.rules import loading

        path = loading.find(dotted)
        text = path.read_text()
        assert text.count(before) >= 1, f"{before!r} is no longer in {path}"
        changed = Path(tempfile.mkdtemp()) / path.name
        changed.write_text(text.replace(before, after))
        find = loading.find
        patch.object(loading, "find", lambda name: changed if name == dotted else find(name)).start()

    return plant


def function(module: str, name: str, make):
    """Replace a function (or a method, ``Class.method``) by what `make` turns it into."""

    def plant():
        owner = __import__(module, fromlist=["_"])
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        patch.object(owner, last, make(getattr(owner, last))).start()

    return plant


def swapped(real):
    def elementwise(self, node, *rest):
        if node.op is ops.SUB and node.dtype is not dtypes.index:
            node = UOp(ops.SUB, node.dtype, node.src[::-1])
        return real(self, node, *rest)

    return elementwise


def short_loops(real):
    return lambda self, size, kind: real(self, size - 1 if size == 4 else size, kind)


def zero_for_max(real):
    return lambda op, dtype: 0 if op is ops.MAX else real(op, dtype)


def wrong_strides(real):
    def ravel(indices, shape):
        wrong = (*shape[:-1], dims.add(shape[-1], 1)) if len(shape) > 1 else shape
        return real(indices, wrong)

    return ravel


def no_modulo(real):
    def unravel(position, shape):
        return [part.src[0] if part.op is ops.FLOORMOD else part for part in real(position, shape)]

    return unravel


def without_barrier(real):
    def statements(self, bodies):
        return real(self, [body.src[0] if body.op is ops.BARRIER else body for body in bodies])

    return statements


def one_slot(real):
    def plan(steps, kept):
        return tuple([(node, 0) for node, _ in real(steps, kept)])

    return plan


def first_part(real):
    return lambda op, parts, place: parts[0]


def unordered(real):
    return lambda self, shape, ordered=frozenset(): real(self, shape)


def unwrapped(real):
    def elementwise(self, node, *rest):
        if node.op is ops.CAST and node.dtype.kind == "uint" and node.src[0].dtype.kind == "int":
            signed = dtypes.by_name(
                node.dtype.name[1:]
            )  # as if the bits of the signed type were all there are
            node = UOp(
                ops.CAST, node.dtype, (UOp(ops.MAX, signed, (node.src[0].cast(signed), signed_zero(signed))),)
            )
        return real(self, node, *rest)

    return elementwise


def signed_zero(dtype):
    return UOp.const(dtype, 0)


MOVEMENT = "tinycore.passes.movement"
LINEARIZE = "tinycore.codegen.linearize"

BUGS = {
    "stride": Bug("a row is one element too long", function(MOVEMENT, "ravel", wrong_strides)),
    "gate": Bug(
        "a padded load is not guarded",
        rule(MOVEMENT, "INDEX(x, g & h, *[k - dimension", "INDEX(x, g, *[k - dimension"),
    ),
    "swap": Bug(
        "the operands of SUB are exchanged", function(LINEARIZE, "_Linearizer._elementwise", swapped)
    ),
    "barrier": Bug(
        "barriers are lost",
        function(LINEARIZE, "_Linearizer._statements", without_barrier),
        "groups",
        contractions,
    ),
    "bound": Bug(
        "a loop is one iteration too short",
        function("tinycore.codegen.indexing", "Ranges.fresh", short_loops),
    ),
    "shrink": Bug(
        "SHRINK starts one element late", rule(MOVEMENT, "k + dimension(b[0])", "k + dimension(b[0]) + 1")
    ),
    "flip": Bug("FLIP starts one element late", rule(MOVEMENT, "dimension(n) - 1 - k", "dimension(n) - k")),
    "permute": Bug(
        "PERMUTE uses its own axes for their inverse", rule(MOVEMENT, "for k in argsort(p)", "for k in p")
    ),
    "identity": Bug("MAX begins at 0", function(LINEARIZE, "identity", zero_for_max)),
    "reshape": Bug("RESHAPE forgets a modulo", function(MOVEMENT, "_unravel", no_modulo)),
    "cast": Bug(
        "casts to unsigned integers saturate", function(LINEARIZE, "_Linearizer._elementwise", unwrapped)
    ),
    "lossless": Bug(
        "every cast is taken for lossless",
        function("tinycore.ir.dtypes", "lossless", lambda real: lambda a, b: True),
    ),
    "memory": Bug("all temporaries share one buffer", function("tinycore.schedule", "plan", one_slot)),
    "hazard": Bug(
        "ASSIGN reads what it has just overwritten",
        function("tinycore.schedule", "_split_hazards", lambda real: lambda tasks, builder: tasks),
    ),
    "implies": Bug(
        "every guard is taken to imply every other",
        function("tinycore.passes.kernel", "implies", lambda real: lambda gate, condition: True),
    ),
    "gather": Bug(
        "GATHER does not test for negative indices",
        rule(MOVEMENT, "h = (0 <= k) & (k <", "h = (k == k) & (k <"),
    ),
    "unroll": Bug(
        "only the first of several partial sums counts",
        function(LINEARIZE, "combined", first_part),
        "vector",
    ),
    "order": Bug(
        "ordered loops lose their order",
        function("tinycore.codegen.indexing", "Ranges.loops", unordered),
        "groups",
    ),
}


def find(name: str, number: int) -> list[dict[str, object]]:
    """Plant a bug and look for graphs that show it."""
    bug = BUGS[name]
    bug.plant()
    target = "program:" + bug.target
    run = runner(target)
    tried, found = 0, []

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bug.strategy(stored_dtypes(target)))
    def holds(case):
        nonlocal tried
        tried += 1
        try:
            check(case, run, target)
        except (AssertionError, TinycoreError, ArithmeticError, ValueError, LookupError) as problem:
            what = f"{type(problem).__name__}: {problem}".splitlines()[0]
            found.append({"tried": tried, "what": what, "case": repr(case)})
            if len(found) == KEPT:
                raise Enough from None

    with contextlib.suppress(Enough):
        holds()
    return found


if __name__ == "__main__":
    print(json.dumps(find(sys.argv[1], int(sys.argv[2]))))

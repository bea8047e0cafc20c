"""The contexts in which rules are tried: targets that have all, and targets that have as little as possible."""

from __future__ import annotations

from dataclasses import dataclass

from tinycore.ir import Capabilities, Target, dtypes
from tinycore.ir.ops import ELEMENTWISE, ops
from tinycore.ir.target import BASIC_OPS
from tinycore_tools_rules.sources import Unit

_NARROW = {"float16", "bfloat16", "float8_e4m3", "float8_e5m2"}


@dataclass(frozen=True)
class Context:
    """What a pass hands to rules that ask for the target."""

    target: Target


_FULL = Context(Target("all", capabilities=Capabilities(ops=frozenset(ELEMENTWISE))))
_LEAST = Context(
    Target(
        "least",
        capabilities=Capabilities(
            ops=frozenset(BASIC_OPS - {ops.MAX, ops.MIN}),
            arithmetic=frozenset(dtype for dtype in dtypes.DATA if dtype.name not in _NARROW),
        ),
    )
)


def contexts(unit: Unit) -> tuple[Context, ...]:
    """The contexts to try for a rule."""
    return (_LEAST, _FULL) if unit.notes.target else (_FULL,)

"""Provenance: where nodes came from, beside the graph and never in it.

Frontends `record` the user's file and line of the nodes that they make. While any origin is alive, rewriting
unites: a result inherits the origins of what it replaces. With none recorded it costs nothing.

>>> from tinycore.ir import UOp, dtypes
>>> node = UOp.const(dtypes.int32, 1234)
>>> record(node, "model.py:7")
>>> sorted(of(node))
['model.py:7']
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from tinycore.ir.uop import UOp

MAXIMUM = 8
"""Origins kept a node: a constant may come from everywhere."""

_origins: weakref.WeakKeyDictionary[UOp, frozenset[str]] = weakref.WeakKeyDictionary()


def record(node: UOp, origin: str) -> None:
    """Say that a node came from here (``file:line``)."""
    _add(node, frozenset({origin}))


def of(node: UOp) -> frozenset[str]:
    """Where a node came from; empty when nobody knows."""
    return _origins.get(node, frozenset())


def unite(before: UOp, after: UOp) -> None:
    """The second node inherits the origins of the first."""
    known = _origins.get(before)
    if known:
        _add(after, known)


def _add(node: UOp, more: frozenset[str]) -> None:
    known = _origins.get(node, frozenset())
    if len(known) < MAXIMUM and not more <= known:
        _origins[node] = frozenset(sorted(known | more)[:MAXIMUM])


def uniter() -> Callable[[UOp, UOp], None] | None:
    """`unite` while any origin is recorded, else None."""
    return unite if _origins else None


_sources: list[Callable[[UOp], str | None]] = []


def add_source(lookup: Callable[[UOp], str | None]) -> None:
    """Register a table that knows where nodes came from, to be asked when somebody wants to know."""
    if lookup not in _sources:
        _sources.append(lookup)


def ask(nodes: Iterable[UOp]) -> None:
    """Record the origins of these nodes that the registered tables know."""
    for node in nodes:
        for lookup in _sources:
            origin = lookup(node)
            if origin:
                record(node, origin)

"""Tiling actions as JSON: what is stored is data, and is checked when it is read back.

>>> from tinycore.codegen.tiling import Split
>>> to_json([Split(0, 16, outer=7, inner=8, tail="peel")])
[['Split', {'range': 0, 'size': 16, 'outer': 7, 'inner': 8, 'tail': 'peel', 'rest': -1}]]
>>> from_json(to_json([Split(0, 16, outer=7, inner=8)]))
(Split(range=0, size=16, outer=7, inner=8, tail='mask', rest=-1),)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tinycore.codegen import tiling
from tinycore.codegen.tiling import Action
from tinycore.errors import DataError

CLASSES: dict[str, type] = {kind.__name__: kind for kind in get_args(Action)}
"""Every kind of action that there is, by name."""


def to_json(actions: Sequence[Action]) -> list[list[Any]]:
    """Actions as plain data: a name and the fields of each."""
    return [[type(action).__name__, dataclasses.asdict(action)] for action in actions]


def from_json(data: object) -> tuple[Action, ...]:
    """What `to_json` wrote. Raises DataError for anything else: no name or type is believed."""
    if not isinstance(data, list):
        raise DataError("stored actions are not a list")
    return tuple([_action(item) for item in data])


def _action(item: object) -> Action:
    if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)):
        raise DataError(f"{item!r} is not a stored action")
    name, found = item
    kind = CLASSES.get(name)
    if kind is None or not isinstance(found, dict):
        raise DataError(f"there is no action {name!r}")
    hints = _fields(kind)
    if set(found) != set(hints):
        raise DataError(f"a stored {name} has other fields than a {name}")
    values = {field: _value(hints[field], value, f"{name}.{field}") for field, value in found.items()}
    action: Action = kind(**values)
    return action


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _value(wanted: Any, value: object, where: str) -> object:
    """The value if it is of the type that a field has."""
    if get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
    elif get_origin(wanted) is tuple:
        if isinstance(value, list | tuple):
            inner = get_args(wanted)[0]
            return tuple([_value(inner, part, where) for part in value])
    elif isinstance(wanted, type) and type(value) is wanted:
        return value
    raise DataError(f"{where} cannot be {value!r}")


@functools.cache
def version() -> str:
    """Changes when the actions' names or fields do, or what an action does: older results then do not count."""
    described = {name: {f: str(hint) for f, hint in _fields(kind).items()} for name, kind in CLASSES.items()}
    state = hashlib.blake2b(repr(sorted(described.items())).encode(), digest_size=8)
    state.update(str(getattr(tiling, "ACTIONS_VERSION", 1)).encode())
    return state.hexdigest()

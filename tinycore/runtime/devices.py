"""Opened devices by name, the default device, and the device of last resort."""

from __future__ import annotations

import threading
import warnings

from tinycore.config import config
from tinycore.errors import BackendUnavailable, TinycoreError, did_you_mean
from tinycore.ir.target import Capabilities
from tinycore.runtime.device import Device
from tinycore.runtime.environment import environment
from tinycore.runtime.reference import REFERENCE, ReferenceDevice

_open: dict[str, Device] = {}
_failed: dict[str, TinycoreError] = {}
_lock = threading.RLock()


def device_names() -> tuple[str, ...]:
    """Names of all devices that could be asked for; the most preferred first, the interpreter last."""
    return (*environment().backends, REFERENCE)


def get_device(name: str) -> Device:
    """The device of that name, opened at its first use.

    Raises BackendUnavailable when there is no such device or it cannot be opened, with what to do about it.
    """
    device = _open.get(name)
    if device is None:
        name = canonical_name(name)
        with _lock:
            device = _open.get(name) or _open_device(name)
            _open[name] = device
    return device


def capabilities_of(device: str) -> Capabilities:
    """What a device can do, by its name. Raises BackendUnavailable."""
    return get_device(device).target.capabilities


def canonical_name(name: str) -> str:
    """Upper case, without a trailing ``:0``.

    >>> canonical_name("x:0"), canonical_name("y:1")
    ('X', 'Y:1')
    """
    return name.upper().removesuffix(":0")


def _open_device(name: str) -> Device:
    if name == REFERENCE:
        return ReferenceDevice()
    kind, _, instance = name.partition(":")
    known = environment()
    spec = known.backends.get(kind)
    if spec is None:
        if kind in known.missing:
            raise BackendUnavailable(f"device {name} cannot be used: {known.missing[kind]}")
        hint = did_you_mean(kind, device_names()) or f"pip install tinycore-backend-{kind.lower()}"
        raise BackendUnavailable(
            f"unknown device {name!r}", where=f"known: {', '.join(device_names())}", hint=hint
        )
    if instance:
        raise BackendUnavailable(f"device {kind} has no instance {instance!r}", hint=f"use {kind}")
    try:
        return spec.open()
    except TinycoreError:
        raise
    except Exception as error:  # a backend is foreign code: whatever goes wrong there, others still work
        what = f"device {name} cannot be opened: {type(error).__name__}: {error}"
        raise BackendUnavailable(what, hint="tinycore doctor says more") from error


def default_device() -> str:
    """The device that tensors are made on: `DEV=`, else what a plugin selects, else the highest priority.

    A backend that cannot be opened is skipped with one warning. With no backend left the interpreter serves,
    and says so once.
    """
    wanted = config().device
    if wanted:
        return canonical_name(wanted)
    known = environment()
    usable = [name for name, spec in known.backends.items() if not spec.compile_only]
    if known.select_device is not None:
        opened = tuple([name for name in usable if _try_open(name)])
        chosen = known.select_device(opened)
        if chosen:
            return chosen
    for name in usable:
        if _try_open(name):
            return name
    _warn_once(
        "no backend is usable: running on the interpreter, which is slow (pip install tinycore-backend-cpu)"
        if not known.backends
        else "no installed backend could be opened: running on the interpreter, which is slow "
        "(see: tinycore doctor)"
    )
    return REFERENCE


def _try_open(name: str) -> bool:
    if name in _failed:
        return False
    try:
        get_device(name)
    except TinycoreError as error:
        _failed[name] = error
        _warn_once(f"device {name} is installed but cannot be used: {error.what}")
        return False
    return True


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=3)

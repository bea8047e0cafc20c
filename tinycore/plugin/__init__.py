"""Plugins: manifests, discovery, hooks, the registry, the doctor.

What a plugin author imports is here; pluggy stays behind it:

>>> from tinycore.plugin import BackendSpec, hookimpl
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinycore.plugin.versions import API_VERSION, UOP_SPEC
from tinycore.runtime.environment import BackendSpec, FrontendSpec, PassSpec, RuleSource

if TYPE_CHECKING:
    from tinycore.plugin.hookspecs import Finding, hookimpl

__all__ = [
    "API_VERSION",
    "UOP_SPEC",
    "BackendSpec",
    "Finding",
    "FrontendSpec",
    "PassSpec",
    "RuleSource",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in ("Finding", "hookimpl"):  # pluggy is imported only by plugins that have hooks
        from tinycore.plugin import hookspecs

        return getattr(hookspecs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

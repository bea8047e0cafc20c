"""tinycore: a compiler framework for tensor programs.

Importing it costs a few milliseconds: everything below is looked up when it is first used. What plugins
export (`Tensor`, `nn`, `dtypes`, `Device`, `jit`, ...) is found through their manifests:

    from tinycore import Tensor
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinycore.runtime.environment import set_loader

if TYPE_CHECKING:
    from tinycore.runtime.environment import Environment

__version__ = "0.1.0"

_CORE = {
    "override": "tinycore.config",
    "extra_rules": "tinycore.rules",
}
"""Functions of the core itself, and the module of each."""


def _load_environment() -> Environment:
    from tinycore.plugin.registry import registry

    return registry().environment


set_loader(_load_environment)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'tinycore' has no attribute {name!r}")
    if name in _CORE:
        found = getattr(importlib.import_module(_CORE[name]), name)
    else:
        from tinycore.plugin.exports import load_export

        found = load_export(name)
    globals()[name] = found  # the next use is a plain look-up
    return found


def __dir__() -> list[str]:
    from tinycore.plugin.exports import exported_names

    return sorted({"__version__", *_CORE, *exported_names()})

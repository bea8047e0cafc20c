"""Improves the tilings that `pass_tile` chose, by measuring candidates on the device.

Nothing is measured unless it is asked for: `TINYCORE_SEARCH=60 python program.py`, `with tuned(60): ...`, or
`tinycore search`. What was found is kept on disk, and applied by every later process without measuring.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinycore.config import config, user_cache_directory

if TYPE_CHECKING:
    from tinycore.codegen.pipeline import Context
    from tinycore.ir import UOp
    from tinycore_pass_search.session import SearchWarning, Tuning, tuned
    from tinycore_pass_search.store import Record

__all__ = ["Record", "SearchWarning", "Tuning", "run", "tuned"]

_MODULES = {"Record": "store", "SearchWarning": "session", "Tuning": "session", "tuned": "session"}


def run(kernel: UOp, context: Context) -> UOp:
    """The pass: the kernel with the best actions that are known for it. See `tinycore_pass_search.session`.

    Every process imports this module; the rest only where there is something to search or to apply.
    """
    settings = config()
    if not settings.search and f"{__name__}.session" not in sys.modules:
        if not settings.cache:
            return kernel
        if not _filled(settings.cache_directory or user_cache_directory() / "tinycore"):
            return kernel
    from tinycore_pass_search import session

    return session.run(kernel, context)


@functools.cache
def _filled(directory: Path) -> bool:
    """Whether something is stored. Looked at once a process."""
    folder = directory / "search"
    return folder.is_dir() and next(folder.iterdir(), None) is not None


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{module}"), name)

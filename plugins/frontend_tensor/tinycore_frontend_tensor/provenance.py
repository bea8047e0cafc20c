"""Which line of the user's program made a node: a weak side table, kept beside the graph.

Recording costs about a microsecond an operation; `recording(False)` turns it off.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path

from tinycore.ir import UOp
from tinycore.rules import origins

_PACKAGE = str(Path(__file__).parent)
_origins: weakref.WeakKeyDictionary[UOp, tuple[str, int]] = weakref.WeakKeyDictionary()
_enabled = True


def recording(enabled: bool) -> None:
    """Turn the table on or off for the rest of the process."""
    global _enabled
    _enabled = enabled


def record(node: UOp) -> None:
    """Remember the first line outside this package on the stack, unless the node already has one."""
    if not _enabled or node in _origins:
        return
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return
        frame = frame.f_back
    _origins[node] = (frame.f_code.co_filename, frame.f_lineno)


def origin(node: UOp) -> str | None:
    """``file:line`` where the node was made, None when it is not known."""
    found = _origins.get(node)
    return f"{found[0]}:{found[1]}" if found else None


origins.add_source(origin)  # asked when somebody wants a report

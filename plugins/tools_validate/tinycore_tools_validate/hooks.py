"""What checks the compiler while TINYCORE_VALIDATE=1."""

from __future__ import annotations

from tinycore.plugin import hookimpl
from tinycore_tools_validate import Checks


@hookimpl
def tinycore_validation() -> Checks:
    """The checks of this plugin."""
    return Checks()

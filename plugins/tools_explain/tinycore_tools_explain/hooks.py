"""The command `tinycore explain`."""

from __future__ import annotations

from typing import Any

from tinycore.plugin import hookimpl


@hookimpl
def tinycore_add_commands(subparsers: Any) -> None:
    """Add `explain` to the commands."""
    from tinycore_tools_explain.command import add_command

    add_command(subparsers)

"""The command `tinycore search`."""

from __future__ import annotations

from typing import Any

from tinycore.plugin import hookimpl


@hookimpl
def tinycore_add_commands(subparsers: Any) -> None:
    """Add `search` to the commands."""
    from tinycore_pass_search.command import add_command

    add_command(subparsers)

"""The command `tinycore rules`."""

from __future__ import annotations

from typing import Any

from tinycore.plugin import hookimpl


@hookimpl
def tinycore_add_commands(subparsers: Any) -> None:
    """Add `rules` to the commands; its own commands are imported when they are typed."""
    from tinycore_tools_rules.command import add_command

    add_command(subparsers)

"""`tinycore rules lsp`: the language server, over standard input and output."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinycore.cli import UsageError

FILES = False
"""Files come over the protocol."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--stdio", action="store_true", help="what editors add; there is no other way to talk to it"
    )
    parser.add_argument(
        "--counts",
        type=Path,
        metavar="FILE",
        help="show how often rules fired: what `tinycore rules coverage --json` printed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until the editor says goodbye."""
    try:
        from tinycore_tools_rules.server import make_server, read_counts
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the language server needs {error.name}", hint="pip install 'tinycore-tools-rules[lsp]'"
        ) from error
    make_server(read_counts(arguments.counts)).start_io()
    return 0

"""`tinycore rules compile`: compiled rules beside the rule file, in `_compiled`, for its wheel."""

from __future__ import annotations

import argparse

from tinycore.cli import UsageError
from tinycore.cli.output import print_json
from tinycore.rules import cache
from tinycore_tools_rules.fmt_command import path_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options."""


def run(arguments: argparse.Namespace) -> int:
    """Compile the files."""
    if not arguments.files:
        raise UsageError("no file is named", hint="tinycore rules compile my_package/my.rules")
    made = [(word, cache.ship(path_of(word))) for word in arguments.files]
    if arguments.json:
        print_json([{"file": word, "compiled": str(path)} for word, path in made])
    else:
        for word, path in made:
            print(f"{word}: {path}")
    return 0

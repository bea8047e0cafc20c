"""`tinycore rules check`: mistakes, rules that can never fire, overlaps."""

from __future__ import annotations

import argparse
import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from tinycore.cli.output import print_json
from tinycore_tools_rules.check import check
from tinycore_tools_rules.sources import core_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--overlaps", action="store_true", help="also list rules that may match the same node"
    )
    parser.add_argument("--strict", action="store_true", help="warnings are errors")


def run(arguments: argparse.Namespace) -> int:
    """Check all files, then say what was found."""
    names = list(arguments.files) or core_names()
    with _without_collections():
        found = [finding for name in names for finding in check(name, arguments.overlaps)]
    counts = Counter(item.severity for item in found)
    if arguments.json:
        print_json({"findings": [asdict(item) for item in found], "counts": dict(counts), "files": names})
    else:
        for item in found:
            print(item)
        parts = [f"{counts[severity]} {severity}s" for severity in ("error", "warning") if counts[severity]]
        if arguments.overlaps:
            parts.append(f"{counts['info']} overlaps")
        print(f"{len(names)} files: {', '.join(parts) or 'nothing to complain about'}")
    return 1 if counts["error"] or (arguments.strict and counts["warning"]) else 0


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage collection: trees have no cycles, and to walk those of thousands of rules takes its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

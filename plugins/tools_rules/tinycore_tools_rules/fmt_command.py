"""`tinycore rules fmt`: rule files in the one layout."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tinycore.cli import UsageError
from tinycore.cli.output import print_json
from tinycore.errors import RuleError
from tinycore.rules.loading import find
from tinycore_tools_rules.format import WIDTH, format_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--check", action="store_true", help="change nothing; status 1 if a file would change"
    )
    parser.add_argument("--diff", action="store_true", help="change nothing; show what would change")
    parser.add_argument(
        "--width", type=int, default=WIDTH, metavar="N", help=f"longest line (default {WIDTH})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Format the files, or say what would change; ``-`` is standard input to standard output."""
    if not arguments.files:
        raise UsageError(
            "no file is named", hint="tinycore rules fmt my.rules; `-` stands for standard input"
        )
    if arguments.width < 40:
        raise UsageError(f"lines of {arguments.width} characters are too short", hint="--width 40 or more")
    changed: list[str] = []
    for word in arguments.files:
        before = sys.stdin.read() if word == "-" else read(path_of(word))
        after = format_text(before, word, arguments.width)
        if after != before:
            changed.append(word)
        if arguments.diff and not arguments.json:
            print(difference(before, after, word), end="")
        if arguments.check or arguments.diff:
            continue
        if word == "-":
            print(after, end="")
        elif after != before:
            path_of(word).write_text(after, encoding="utf-8")
    looking = arguments.check or arguments.diff
    if arguments.json and "-" not in arguments.files:
        print_json({"files": list(arguments.files), "changed": changed, "written": not looking})
    elif "-" not in arguments.files and not arguments.diff:
        for word in changed:
            print(f"{'would reformat' if looking else 'reformatted'} {word}")
        print(f"{len(changed)} of {len(arguments.files)} files {'would change' if looking else 'changed'}")
    return 1 if looking and changed else 0


def path_of(word: str) -> Path:
    """The file that a path or a dotted name stands for. Raises RuleError."""
    path = Path(word)
    return path if path.suffix == ".rules" or path.is_file() else find(word)


def read(path: Path) -> str:
    """The text of a file. Raises RuleError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"cannot read {path}: {error}") from error


def difference(before: str, after: str, name: str) -> str:
    """A unified diff."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, f"{name} (formatted)"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )

"""`tinycore rules doc`: reference pages of rule files."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from tinycore.cli.output import print_json
from tinycore_tools_rules.document import document, markdown, page
from tinycore_tools_rules.sources import open_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--html", action="store_true", help="an HTML page instead of Markdown")
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="write here and not to standard output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the pages."""
    sources = open_sources(arguments.files)
    pages = [document(source) for source in sources]
    if arguments.json:
        print_json(
            [{"file": s.name, "blocks": [asdict(b) for b in p]} for s, p in zip(sources, pages, strict=True)]
        )
        return 0
    title = sources[0].name if len(sources) == 1 else "Rules"
    text = page(pages, title) if arguments.html else markdown(pages)
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.write_text(text, encoding="utf-8")
    return 0

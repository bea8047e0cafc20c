"""Sphinx builds the whole repository's Markdown and the API reference: `python3 dev.py docs`.

The source folder is the root of the repository, so that a link from one document to another is the same relative
path here and on a Git host.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

project = "tinycore"
author = "the tinycore authors"
release = version = version_of("tinycore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["docs/**.md", "specs/*.md", "plugins/*/README.md", "README.md"]
nitpicky = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
default_role = "literal"  # docstrings write code in single backticks, as Markdown does

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"tinycore {release}"
html_copy_source = False

lexers["ebnf"] = TextLexer()  # the grammar of rules is written in a form that Pygments does not know


def fences(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Markdown's fenced code in a docstring becomes a directive of reStructuredText."""
    inside, result = False, list[str]()
    for line in lines:
        if line.startswith("```"):
            inside = not inside
            result += [f".. code-block:: {line[3:]}", ""] if inside else [""]
        else:
            result.append("   " + line if inside else line)
    lines[:] = result


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", fences)

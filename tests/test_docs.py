"""Every Python example in README, docs and specs runs, in order, one namespace a document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "specs" / "backends.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document):
    namespace: dict[str, object] = {"__name__": "example"}
    text = document.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match.group(1), str(document), "exec"), namespace)


def test_every_document_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    entries = {
        line.strip()
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.M | re.S)
        for line in block.splitlines()
    }
    folder = ROOT / "docs"
    wanted = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")} - {
        "index"
    }
    assert wanted | {f"../specs/{path.stem}" for path in (ROOT / "specs").glob("*.md")} <= entries


def test_documents_have_examples():
    with_examples = [path.name for path in DOCUMENTS if BLOCK.search(path.read_text(encoding="utf-8"))]
    assert {"README.md", "quickstart.md", "tour.md", "backends.md"} <= set(with_examples)


def test_links_and_files_exist():
    everything = [*DOCUMENTS, *(ROOT / "specs").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for document in everything:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", text):
            assert (document.parent / name).is_file(), f"{document.name}: {name}"
    for document in DOCUMENTS:
        for name in re.findall(
            r"`((?:docs|specs|examples|passes|tinycore)/[\w/]+\.(?:md|py|rules))`",
            document.read_text(encoding="utf-8"),
        ):
            assert (ROOT / name).exists() or (ROOT / "tinycore" / name).exists(), f"{document.name}: {name}"

"""The language server, asked by a client over standard input and output."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tinycore_tools_rules.language import Document

from tinycore import rules
from tinycore.errors import RuleError
from tinycore.ir import UOp
from tinycore.rules.loading import find

pytest.importorskip("pygls")

from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

GOOD = """\
from tinycore.passes.kernel import loads
view twice(v) = v + v

# 😀 wide characters before a place
group mine(fixpoint) {
  one:x * 1 => x   why "😀"  test a * 1 => a
  far: RANGE[_, "😀😀😀😀😀😀"](bound:Index) let top = bound.vmax => RANGE[0, "loop"](top)
  two: n@twice(NEG(y:Float)) if y.vmin >= 0 let k = y.vmin => n * 2 + k
}
pass clean = fixpoint(mine + loads)
"""


class Session:
    """A client with an open file."""

    def __init__(self, client: LanguageClient, uri: str) -> None:
        self.client, self.uri, self.version = client, uri, 1
        self.published: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.text = ""

    async def open(self, text: str) -> list[lsp.Diagnostic]:
        self.text = text
        item = lsp.TextDocumentItem(self.uri, "tinycore-rules", self.version, text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        return await self.diagnostics()

    async def change(self, text: str) -> list[lsp.Diagnostic]:
        self.text, self.version = text, self.version + 1
        self.client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(self.version, self.uri),
                [lsp.TextDocumentContentChangeWholeDocument(text)],
            )
        )
        return await self.diagnostics()

    async def diagnostics(self) -> list[lsp.Diagnostic]:
        found = await asyncio.wait_for(self.published.get(), 30)
        assert (found.uri, found.version) == (self.uri, self.version)
        return list(found.diagnostics)

    def at(self, line: str, word: str) -> dict[str, Any]:
        """The parameters for a word on the line that holds a text; columns are UTF-16 units."""
        number, whole = next((k, each) for k, each in enumerate(self.text.split("\n")) if line in each)
        column = len(whole[: whole.index(word, whole.index(line))].encode("utf-16-le")) // 2
        return {
            "text_document": lsp.TextDocumentIdentifier(self.uri),
            "position": lsp.Position(number, column),
        }

    async def hover(self, line: str, word: str) -> str:
        found = await self.client.text_document_hover_async(lsp.HoverParams(**self.at(line, word)))
        assert found is not None and isinstance(found.contents, lsp.MarkupContent)
        return found.contents.value

    async def definition(self, line: str, word: str) -> lsp.Location:
        found = await self.client.text_document_definition_async(lsp.DefinitionParams(**self.at(line, word)))
        assert isinstance(found, lsp.Location)
        return found

    async def completions(self, line: str, word: str) -> set[str]:
        parameters = lsp.CompletionParams(**self.at(line, word))
        found = await self.client.text_document_completion_async(parameters)
        assert isinstance(found, lsp.CompletionList)
        assert len({item.label for item in found.items}) == len(found.items)
        return {item.label for item in found.items}

    async def format(self) -> list[lsp.TextEdit] | None:
        options = lsp.FormattingOptions(2, True)
        parameters = lsp.DocumentFormattingParams(lsp.TextDocumentIdentifier(self.uri), options)
        found = await self.client.text_document_formatting_async(parameters)
        return None if found is None else list(found)


def talk(path: Path, conversation: Callable[[Session], Awaitable[None]], *options: str) -> None:
    """Start the server as an editor does, and hold a conversation."""

    async def whole() -> None:
        client = LanguageClient("test", "1")
        session = Session(client, path.as_uri())

        @client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def publish(parameters: lsp.PublishDiagnosticsParams) -> None:
            session.published.put_nowait(parameters)

        await client.start_io(sys.executable, "-m", "tinycore.cli", "rules", "lsp", "--stdio", *options)
        try:
            answer = await client.initialize_async(lsp.InitializeParams(lsp.ClientCapabilities()))
            assert answer.capabilities.hover_provider and answer.capabilities.document_formatting_provider
            client.initialized(lsp.InitializedParams())
            await conversation(session)
        finally:
            await client.shutdown_async(None)
            client.exit(None)
            await client.stop()

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_a_session(tmp_path: Path) -> None:
    path = tmp_path / "mine.rules"
    counts = tmp_path / "counts.json"
    counts.write_text(
        json.dumps({"files": [{"path": str(path), "rules": [{"line": 6, "counts": {"one": 17}}]}]})
    )

    async def conversation(session: Session) -> None:
        assert await session.open(GOOD) == []

        text = await session.hover("one:", "one")
        assert "def r_mine_MUL" in text and "fired 17 times" in text and "😀" in text
        assert "a node of Float" in await session.hover("two:", "y:")
        assert "NEG(" in await session.hover("two:", "NEG")
        assert "float16" in await session.hover("two:", "Float")
        assert "twice(v)" in await session.hover("two:", "twice")

        view = await session.definition("two:", "twice")
        assert (view.uri, view.range.start) == (session.uri, lsp.Position(1, 5))
        bound = await session.definition("=> n", "n *")
        assert bound.range == lsp.Range(lsp.Position(7, 7), lsp.Position(7, 8))
        assert (await session.definition("+ k", "k")).range.start == lsp.Position(7, 48)
        far = session.text.split("\n")[6]
        unit = len(far[: far.index("top")].encode("utf-16-le")) // 2
        assert unit == far.index("top") + 6
        assert (await session.definition("(top)", "top)")).range.start == lsp.Position(6, unit)
        assert "Index" in await session.hover("far:", "bound:")
        group = await session.definition("pass clean", "loads")
        kernel = find("tinycore.passes.kernel")
        line = next(
            k for k, each in enumerate(kernel.read_text().splitlines()) if each.startswith("group loads")
        )
        assert group.uri == kernel.as_uri() and group.range.start == lsp.Position(line, 6)

        (edit,) = await session.format() or []
        assert '  one: x * 1 => x\n    why "😀"\n    test a * 1 => a\n' in edit.new_text
        assert await session.change(edit.new_text) == []
        assert await session.format() == []

        words = await session.completions("=> n", "n *")
        assert {"n", "y", "k", "twice", "MAX", "float32", "len", "loads"} <= words and "one" not in words
        assert await session.completions("y.vmin >=", "vmin") >= {"vmin", "dtype"}
        assert await session.completions("y:Float", "Float") >= {"Float", "int8"}
        assert {"mine", "loads", "fixpoint"} <= await session.completions("pass clean", "mine")

        wrong = GOOD.replace("* 1 =>", "* PERMUT(x) =>").replace("n * 2 + k", "n * z")
        found = await session.change(wrong)
        assert len(found) == 2 and "did you mean 'PERMUTE'?" in found[0].message
        assert found[0].range == lsp.Range(lsp.Position(5, 10), lsp.Position(5, 19))
        three = await session.change(wrong.replace("passes.kernel", "passes.kernal"))
        assert [item.range.start.line for item in three] == [0, 5, 7]
        (broken,) = await session.change(GOOD.replace("=> x ", "=> "))
        assert broken.severity is lsp.DiagnosticSeverity.Error and broken.range.start.line == 5
        assert await session.format() is None
        assert await session.completions("two:", "NEG") >= {"NEG", "twice"}
        (missing,) = await session.change(GOOD.replace("passes.kernel", "passes.kernal"))
        assert "tinycore.passes.kernal" in missing.message

    talk(path, conversation, "--counts", str(counts))


def test_diagnostics_are_what_check_finds(tmp_path: Path) -> None:
    """Rules that never fire on the composed pass, dropped attributes, wrong imports; unsaved, and where they are."""
    path = tmp_path / "mine.rules"
    text = """\
from tinycore.passes.algebra import algebra
group first(fixpoint) { wide: MAX(x, y) => x }
group mine(fixpoint) {
  hidden: x:int32 * 1 => x
  never: MAX(-x, y) => x - y
  drops: REDUCE(x) => REDUCE[ADD, ()](x)
}
pass p = fixpoint(algebra + first + mine)
"""

    async def conversation(session: Session) -> None:
        hidden, never, drops = await session.open(text)
        assert hidden.severity is lsp.DiagnosticSeverity.Warning and "mul_1 matches all" in hidden.message
        assert hidden.range == lsp.Range(lsp.Position(3, 2), lsp.Position(3, 8))
        assert never.severity is lsp.DiagnosticSeverity.Error and "wide matches all" in never.message
        assert (
            drops.severity is lsp.DiagnosticSeverity.Warning
            and "drops those that it matched" in drops.message
        )
        assert not path.exists()
        wrong, _ = await session.change(
            text.replace("import algebra", "import algbra").replace("(algebra", "(algbra")
        )
        assert wrong.range.start.line == 0 and "did you mean 'algebra'?" in wrong.message
        (elsewhere,) = await session.change(
            "from tinycore.passes.kernel import loads\n"
            'group mine(fixpoint) { all: WHERE(c, x, y) => x @unsafe("no") }\n'
            "pass p = fixpoint(mine + loads) @accept(unsafe)"
        )
        assert elsewhere.range.start.line == 0 and "kernel.rules:" in elsewhere.message

    talk(path, conversation)


def test_nothing_is_checked_while_one_types(tmp_path: Path) -> None:
    async def conversation(session: Session) -> None:
        await session.open(GOOD)
        for version in range(2, 12):
            session.client.text_document_did_change(
                lsp.DidChangeTextDocumentParams(
                    lsp.VersionedTextDocumentIdentifier(version, session.uri),
                    [lsp.TextDocumentContentChangeWholeDocument(GOOD.replace("=> x ", f"=> z{version} "))],
                )
            )
        session.version = 11
        (found,) = await session.diagnostics()  # which compares the version
        assert "z11" in found.message and session.published.empty()

    talk(tmp_path / "mine.rules", conversation)


def test_answers_come_while_a_large_file_is_checked(tmp_path: Path) -> None:
    """Typing goes on during a check: its findings are outdated, and those of the last text are told."""
    path = find("tinycore.passes.decompose")
    text = path.read_text()

    async def conversation(session: Session) -> None:
        item = lsp.TextDocumentItem(session.uri, "tinycore-rules", 1, text)
        session.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        await asyncio.sleep(0.5)
        session.version, session.text = 2, text.replace("fma:", "fma: NOSUCH(x) => x  fma2:")
        session.client.text_document_did_change(
            lsp.DidChangeTextDocumentParams(
                lsp.VersionedTextDocumentIdentifier(2, session.uri),
                [lsp.TextDocumentContentChangeWholeDocument(session.text)],
            )
        )
        assert "FMA" in await session.hover("fma:", "FMA(")
        (found,) = await session.diagnostics()
        assert "NOSUCH" in found.message and session.published.empty()

    talk(tmp_path / "mine.rules", conversation)


def test_natives_of_what_is_being_written_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "evil_rules"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "mine.py").write_text("raise SystemExit('imported')")
    path = package / "mine.rules"
    text = "native f(n: node) -> node? pure\ngroup g(fixpoint) { a: n@NEG(_) let r = f(n) => r  b: -(x - x) => x }"
    path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Document(text, str(path)).problems() == []
    more = "group h(fixpoint) { c: MAX(x, y) => x }\ngroup k(fixpoint) { d: MAX(-x, y) => x - y }\n"
    (never,) = Document(f"{text}\n{more}pass p = fixpoint(g + h + k)", str(path)).problems()
    assert "d never fires in p" in never.message
    with pytest.raises(RuleError, match="not imported"):
        rules.load_text(text, path).groups["g"](-UOp.variable("n", 0, 9))


def test_natives_lead_to_python() -> None:
    path = find("tinycore.passes.index")
    text = path.read_text()
    document = Document(text, str(path))
    line = next(k for k, each in enumerate(text.splitlines(), 1) if each.startswith("native fits"))
    found = document.definition(line, 9)
    assert found is not None and found.path == str(path.with_suffix(".py"))
    assert Path(found.path).read_text().splitlines()[found.line - 1].startswith("def fits(")
    assert document.problems() == []


@pytest.mark.parametrize(
    "text", ["", "group", "group g(fixpoint) { r: x => ", '"', "@", "\x00", "r: " + "(" * 5000, "$."]
)
def test_what_is_being_typed_is_no_trouble(text: str) -> None:
    document = Document(text, "typed.rules")
    assert len(document.problems()) == (1 if text else 0)
    for column in (1, len(text) + 1):
        document.hover(1, column)
        document.definition(1, column)
        assert document.completions(1, column)


def test_counts_have_to_be_counts(tmp_path: Path) -> None:
    from tinycore_tools_rules.server import read_counts

    path = tmp_path / "counts.json"
    path.write_text("[1]")
    with pytest.raises(RuleError, match="coverage --json"):
        read_counts(path)

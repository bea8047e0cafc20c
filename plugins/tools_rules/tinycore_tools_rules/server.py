"""The language server of rule files: `language` spoken over the Language Server Protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lsprotocol import types as lsp
from pygls import uris
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument
from pygls.workspace.position_codec import ServerTextPosition, ServerTextRange

from tinycore.errors import RuleError
from tinycore_tools_rules.format import format_text
from tinycore_tools_rules.language import Document, Place

_SORTS: Mapping[str, lsp.CompletionItemKind] = {
    "op": lsp.CompletionItemKind.Operator,
    "function": lsp.CompletionItemKind.Function,
    "native": lsp.CompletionItemKind.Function,
    "view": lsp.CompletionItemKind.Snippet,
    "dtype": lsp.CompletionItemKind.TypeParameter,
    "class": lsp.CompletionItemKind.Class,
    "keyword": lsp.CompletionItemKind.Keyword,
    "driver": lsp.CompletionItemKind.Keyword,
    "annotation": lsp.CompletionItemKind.Property,
    "attribute": lsp.CompletionItemKind.Field,
    "capture": lsp.CompletionItemKind.Variable,
    "group": lsp.CompletionItemKind.Module,
    "pass": lsp.CompletionItemKind.Module,
    "import": lsp.CompletionItemKind.Module,
}

_SEVERITIES: Mapping[str, lsp.DiagnosticSeverity] = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "info": lsp.DiagnosticSeverity.Information,
}
PAUSE = 0.2
"""Seconds without typing after which a file is checked."""


def read_counts(path: Path | None) -> dict[tuple[str, int], int]:
    """How often rules fired, by file and line, from what `tinycore rules coverage --json` printed.

    Raises RuleError when the file is something else.
    """
    if path is None:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            (str(Path(file["path"]).resolve()), rule["line"]): sum(rule["counts"].values())
            for file in data["files"]
            for rule in file["rules"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "make it with: tinycore rules coverage --json --run ... > counts.json"
        raise RuleError(f"cannot use {path}: {type(error).__name__}: {error}", hint=hint) from error


class RuleServer(LanguageServer):
    """A server with the documents of one client.

    `counts` says how often rules fired, by file and line; hovering shows it.
    """

    def __init__(self, counts: Mapping[tuple[str, int], int]) -> None:
        super().__init__("tinycore-rules", "0.1.0")
        self.counts = counts
        # A check takes long for a large file: others wait, and most of them are out of date by then.
        self.one_check = asyncio.Lock()

    def opened(self, uri: str) -> tuple[TextDocument, Document]:
        """The text of an open file, as the client sees it and as rules."""
        text = self.workspace.get_text_document(uri)
        return text, Document(text.source, uris.to_fs_path(uri) or uri, self.counts)

    def is_current(self, uri: str, version: int | None) -> bool:
        """Whether nothing was typed since a version."""
        return self.workspace.get_text_document(uri).version == version

    async def publish(self, uri: str) -> None:
        """Check a file and say what was found, unless it has changed meanwhile."""
        text, document = self.opened(uri)
        version = text.version
        async with self.one_check:
            if not self.is_current(uri, version):
                return
            problems = await asyncio.to_thread(document.problems)
        if not self.is_current(uri, version):
            return
        found = [
            lsp.Diagnostic(
                range=_range(text.lines, problem.place, text),
                message=problem.message,
                severity=_SEVERITIES[problem.severity],
                source="tinycore rules",
            )
            for problem in problems
        ]
        parameters = lsp.PublishDiagnosticsParams(uri=uri, diagnostics=found, version=version)
        self.text_document_publish_diagnostics(parameters)


def make_server(counts: Mapping[tuple[str, int], int] | None = None) -> RuleServer:
    """A server; `start_io` runs it."""
    server = RuleServer(counts or {})
    server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)(did_open)
    server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)(did_change)
    server.feature(lsp.TEXT_DOCUMENT_HOVER)(hover)
    server.feature(lsp.TEXT_DOCUMENT_DEFINITION)(definition)
    options = lsp.CompletionOptions(trigger_characters=["@", ".", ":"])
    server.feature(lsp.TEXT_DOCUMENT_COMPLETION, options)(completion)
    server.feature(lsp.TEXT_DOCUMENT_FORMATTING)(formatting)
    return server


# --- features: pygls hands the server to functions whose first parameter is called `ls` -------------------


async def did_open(ls: RuleServer, params: lsp.DidOpenTextDocumentParams) -> None:
    """A file is checked when it is opened."""
    await ls.publish(params.text_document.uri)


async def did_change(ls: RuleServer, params: lsp.DidChangeTextDocumentParams) -> None:
    """And again when nothing was typed for a while."""
    uri = params.text_document.uri
    version = ls.workspace.get_text_document(uri).version
    await asyncio.sleep(PAUSE)
    if ls.is_current(uri, version):
        await ls.publish(uri)


def hover(ls: RuleServer, params: lsp.HoverParams) -> lsp.Hover | None:
    """What stands under the cursor."""
    text, document = ls.opened(params.text_document.uri)
    found = document.hover(*_place_of(text, params.position))
    if found is None:
        return None
    return lsp.Hover(contents=lsp.MarkupContent(kind=lsp.MarkupKind.Markdown, value=found))


def definition(ls: RuleServer, params: lsp.DefinitionParams) -> lsp.Location | None:
    """Where the name under the cursor was made."""
    text, document = ls.opened(params.text_document.uri)
    found = document.definition(*_place_of(text, params.position))
    if found is None:
        return None
    uri = uris.from_fs_path(found.path) or found.path
    if found.path == document.path:
        return lsp.Location(uri=params.text_document.uri, range=_range(text.lines, found, text))
    return lsp.Location(uri=uri, range=_range((), found, None))


def completion(ls: RuleServer, params: lsp.CompletionParams) -> lsp.CompletionList:
    """What may be written at the cursor, each word once."""
    text, document = ls.opened(params.text_document.uri)
    proposals = {
        item.word: item for item in reversed(document.completions(*_place_of(text, params.position)))
    }
    items = [
        lsp.CompletionItem(label=item.word, kind=_SORTS.get(item.sort), detail=item.detail or item.sort)
        for item in reversed(proposals.values())
    ]
    return lsp.CompletionList(is_incomplete=False, items=items)


def formatting(ls: RuleServer, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
    """The whole file in its one layout."""
    text, document = ls.opened(params.text_document.uri)
    try:
        result = format_text(document.text, document.path)
    except RuleError:  # what cannot be parsed is reported as a diagnostic, and left alone
        return None
    if result == document.text:
        return []
    whole = lsp.Range(lsp.Position(0, 0), lsp.Position(len(text.lines), 0))
    return [lsp.TextEdit(range=whole, new_text=result)]


def _place_of(text: TextDocument, position: lsp.Position) -> tuple[int, int]:
    """Line and column, from 1, of a position in the units of the client."""
    inner = text.position_from_client_units(position)
    return inner.line + 1, inner.character + 1


def _range(lines: Sequence[str], place: Place, text: TextDocument | None) -> lsp.Range:
    """A place in the units of the client; of another file than the open one as it is."""
    line, start, end = place.line - 1, place.column - 1, max(place.column, place.end) - 1
    if text is None or place.line > len(lines):
        return lsp.Range(lsp.Position(line, start), lsp.Position(line, end))
    inner = ServerTextRange(ServerTextPosition(line, start), ServerTextPosition(line, end))
    return text.range_to_client_units(inner)

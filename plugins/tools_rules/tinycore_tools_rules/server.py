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


def make_server(counts: Mapping[tuple[str, int], int] | None = None) -> LanguageServer:
    """A server; `start_io` runs it."""
    server = LanguageServer("tinycore-rules", "0.1.0")

    def opened(uri: str) -> tuple[TextDocument, Document]:
        text = server.workspace.get_text_document(uri)
        return text, Document(text.source, uris.to_fs_path(uri) or uri, counts or {})

    def place_of(text: TextDocument, position: lsp.Position) -> tuple[int, int]:
        inner = text.position_from_client_units(position)
        return inner.line + 1, inner.character + 1

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    async def did_open(params: lsp.DidOpenTextDocumentParams) -> None:
        await publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def did_change(params: lsp.DidChangeTextDocumentParams) -> None:
        uri = params.text_document.uri
        version = server.workspace.get_text_document(uri).version
        await asyncio.sleep(PAUSE)
        if server.workspace.get_text_document(uri).version == version:  # nothing was typed meanwhile
            await publish(uri)

    one_check = (
        asyncio.Lock()
    )  # a check takes long for a large file: others wait, and most of them are then outdated

    async def publish(uri: str) -> None:
        text, document = opened(uri)
        version = text.version
        async with one_check:
            if server.workspace.get_text_document(uri).version != version:
                return
            problems = await asyncio.to_thread(document.problems)
        if server.workspace.get_text_document(uri).version != version:
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
        parameters = lsp.PublishDiagnosticsParams(uri=uri, diagnostics=found, version=text.version)
        server.text_document_publish_diagnostics(parameters)

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        text, document = opened(params.text_document.uri)
        found = document.hover(*place_of(text, params.position))
        if found is None:
            return None
        return lsp.Hover(contents=lsp.MarkupContent(kind=lsp.MarkupKind.Markdown, value=found))

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        text, document = opened(params.text_document.uri)
        found = document.definition(*place_of(text, params.position))
        if found is None:
            return None
        uri = uris.from_fs_path(found.path) or found.path
        if found.path == document.path:
            return lsp.Location(uri=params.text_document.uri, range=_range(text.lines, found, text))
        return lsp.Location(uri=uri, range=_range((), found, None))

    @server.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["@", ".", ":"]))
    def completion(params: lsp.CompletionParams) -> lsp.CompletionList:
        text, document = opened(params.text_document.uri)
        proposals = {
            item.word: item for item in reversed(document.completions(*place_of(text, params.position)))
        }
        items = [
            lsp.CompletionItem(label=item.word, kind=_SORTS.get(item.sort), detail=item.detail or item.sort)
            for item in reversed(proposals.values())
        ]
        return lsp.CompletionList(is_incomplete=False, items=items)

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        text, document = opened(params.text_document.uri)
        try:
            result = format_text(document.text, document.path)
        except RuleError:  # what cannot be parsed is reported as a diagnostic, and left alone
            return None
        if result == document.text:
            return []
        whole = lsp.Range(lsp.Position(0, 0), lsp.Position(len(text.lines), 0))
        return [lsp.TextEdit(range=whole, new_text=result)]

    return server


def _range(lines: Sequence[str], place: Place, text: TextDocument | None) -> lsp.Range:
    """A place in the units of the client; of another file than the open one as it is."""
    line, start, end = place.line - 1, place.column - 1, max(place.column, place.end) - 1
    if text is None or place.line > len(lines):
        return lsp.Range(lsp.Position(line, start), lsp.Position(line, end))
    inner = ServerTextRange(ServerTextPosition(line, start), ServerTextPosition(line, end))
    return text.range_to_client_units(inner)

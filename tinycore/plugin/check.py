"""`tinycore plugins check`: everything about a plugin that can be wrong and be seen without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tinycore.errors import RuleError, did_you_mean
from tinycore.plugin.discover import Plugin
from tinycore.plugin.manifest import FILE_NAME, Manifest, provides


def check(plugin: Plugin, others: Iterable[Plugin] = ()) -> Iterator[str]:
    """What is wrong with a plugin, each as a sentence; nothing when all is well.

    Looks at the manifest, the versions, the rule files, whether every entry names something that exists, and
    at names that another usable plugin claims too. Imports nothing.
    """
    if plugin.state == "failed":
        yield plugin.reason or "it cannot be used"
    if plugin.manifest is None:
        if plugin.root and not (plugin.root / FILE_NAME).exists():
            yield f"it has no {FILE_NAME}: it must be imported to know what it adds"
        return
    yield from _entries(plugin, plugin.manifest)
    yield from _rules(plugin, plugin.manifest)
    mine = provides(plugin.manifest)
    for other in others:
        theirs = provides(other.manifest) if other.manifest and other.usable and other.id != plugin.id else {}
        for kind in ("backends", "passes", "frontends", "exports"):
            for name in sorted({*mine.get(kind, ())} & {*theirs.get(kind, ())}):
                yield f"{name!r} in {kind} is claimed by {other.title} too"


def _entries(plugin: Plugin, manifest: Manifest) -> Iterator[str]:
    declared = [
        *((f"export {name!r}", entry) for name, entry in manifest.exports.items()),
        *((f"backend {each.name!r}", each.entry) for each in manifest.backends),
        *((f"backend {each.name!r}", each.compile_target) for each in manifest.backends),
        *((f"pass {each.id!r}", each.entry) for each in manifest.passes),
        *((f"frontend {each.name!r}", each.entry) for each in manifest.frontends),
        *([("hooks", manifest.hooks.module)] if manifest.hooks else []),
    ]
    for where, entry in declared:
        if entry and (problem := _missing(plugin, entry)):
            yield f"{where}: {problem}"


def _rules(plugin: Plugin, manifest: Manifest) -> Iterator[str]:
    """What is wrong inside the rule files; they are parsed and type-checked, and nothing of them runs."""
    from tinycore.rules.cache import compile_text

    for entry in manifest.rules:
        path = Path(plugin.root or "", entry.file)
        try:
            compile_text(path.read_text(encoding="utf-8"), str(path))
        except (RuleError, OSError, UnicodeDecodeError) as error:
            yield f"rules {entry.file!r}: {error}"


def _missing(plugin: Plugin, entry: str) -> str | None:
    """Why an entry cannot be right, as far as the source text tells."""
    module, _, name = entry.partition(":")
    package, *rest = module.split(".")
    if package != plugin.package or plugin.root is None:
        return None  # in somebody else's package: their files say nothing about what is installed with us
    base = Path(plugin.root, *rest)
    source = next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
    if source is None:
        # A compiled extension has no source to look into.
        return None if list(base.parent.glob(f"{base.name}.*")) else f"there is no module {module!r}"
    try:
        names = _top_level(ast.parse(source.read_bytes(), filename=str(source)))
    except (SyntaxError, ValueError) as error:
        return f"{source} does not parse: {error}"
    if not name or name in names or "*" in names or "__getattr__" in names:
        return None
    hint = did_you_mean(name, names)
    return f"module {module!r} has no {name!r}" + (f"; {hint}" if hint else "")


def _top_level(tree: ast.Module) -> set[str]:
    """Names that a module binds outside functions and classes."""
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.split(".")[0])
        waiting.extend(ast.iter_child_nodes(node))
    return names

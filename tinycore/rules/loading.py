"""Finding, compiling and linking `.rules` files."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinycore.errors import RuleCheckError, RuleError, TinycoreError, did_you_mean
from tinycore.ir.ops import TABLE, Op
from tinycore.ir.uop import UOp
from tinycore.rules import cache
from tinycore.rules.module import DEFAULT_ACCEPT, FAST, Code, Group, Pass, Renders, RuleModule, Stage, blame

_loaded: dict[str, RuleModule] = {}
_loading: list[str] = []
_lock = threading.RLock()


def load(dotted: str) -> RuleModule:
    """The rules of an installed package, compiled at most once a process.

    ``load("tinycore.passes.algebra")`` reads ``algebra.rules`` in the folder of ``tinycore.passes``; natives
    come from the Python module of the same dotted name, which is imported only if the file declares any.

    Raises RuleError when there is no such file, RuleSyntaxError and RuleCheckError for what is wrong in it.
    """
    found = _loaded.get(dotted)
    if found is not None:
        return found
    with _lock:
        if dotted in _loaded:
            return _loaded[dotted]
        if dotted in _loading:
            raise RuleError(f"rule files import each other: {' -> '.join([*_loading, dotted])}")
        _loading.append(dotted)
        try:
            _loaded[dotted] = _link(dotted, find(dotted), package=dotted)
        finally:
            _loading.pop()
        return _loaded[dotted]


def load_file(path: Path | str) -> RuleModule:
    """A person's own file, compiled when it has changed. It may import groups, but declare no natives."""
    return _link(str(path), Path(path), package=None)


def load_text(text: str, path: Path | str) -> RuleModule:
    """A file as it stands in an editor; nothing is kept. Natives may be declared: they are not imported, and raise."""
    shown = str(path)
    compiled = cache.CompiledText(cache.compile_text(text, shown))
    return _linked(shown, shown, compiled, dict.fromkeys(cache.natives_of(compiled.source), _absent))


def _absent(*_: Any) -> Any:
    raise RuleError("the natives of a text are not imported", hint="load its file")


def precompile(dotted: str) -> Path:
    """Compile a package's file into the `_compiled` folder beside it, for its wheel; the path."""
    return cache.ship(find(dotted))


def find(dotted: str) -> Path:
    """The file of a dotted name, without importing anything. Raises RuleError."""
    top, *rest = dotted.split(".")
    spec = (
        importlib.util.find_spec(top) if rest and all(part.isidentifier() for part in (top, *rest)) else None
    )
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(location, *rest[:-1], rest[-1] + ".rules")
        if path.is_file():
            return path
    siblings = []
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0], *rest[:-1])
        siblings = [path.stem for path in folder.glob("*.rules")] if folder.is_dir() else []
    raise RuleError(
        f"there are no rules called {dotted}", hint=did_you_mean(dotted.rpartition(".")[2], siblings)
    )


def read(path: Path) -> str:
    """The text of a file: UTF-8 with any line ends, with or without a byte order mark. Raises RuleError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        what = f"cannot read {path}: it is not UTF-8 ({error.reason})"
        raise RuleError(what, where=f"{path}:{line}:{column}") from error
    except OSError as error:
        raise RuleError(f"cannot read {path}: {error}", where=f"{path}:1:1") from error


def _link(name: str, path: Path, package: str | None) -> RuleModule:
    text = read(path)
    shown = str(path)
    compiled = cache.fetch(text, shown, path if package is not None else None)
    return _linked(name, shown, compiled, _natives(compiled.source, shown, package))


def _linked(
    name: str, shown: str, compiled: cache.CompiledText, natives: dict[str, Callable[..., Any]]
) -> RuleModule:
    code = Code(compiled, shown, natives)
    namespace = code.plain
    groups: dict[str, Group] = {}
    renders: dict[str, Renders] = {}
    gradients: dict[Op, Callable[..., Any]] = {}
    for group_name, data in namespace["GROUPS"].items():
        if data["kind"] == "rewrite":
            rules = tuple(rule for rule in code.rules if rule.group == group_name)
            groups[group_name] = Group(
                group_name, name, rules, data["strategy"], data["stage"], data["pure"], code
            )
            continue
        by_op: dict[Op, tuple[Callable[..., Any], ...]] = {}
        for root, _, function in data["table"]:
            by_op[TABLE[root]] = (*by_op.get(TABLE[root], ()), function)
        if data["kind"] == "render":
            renders[group_name] = Renders(group_name, by_op)
        else:
            for op, functions in by_op.items():
                known = gradients.get(op)
                gradients[op] = _gradient(code, functions, known)
    linker = _Linker(shown, groups, _imports(namespace, shown))
    passes: dict[str, Pass] = {}
    for pass_name, strategy, accept in namespace["PASSES"]:
        passes[pass_name] = linker.build(pass_name, strategy, _accepted(accept), passes)
    return RuleModule(name, shown, groups, passes, gradients, renders, code)


def _natives(source: str, path: str, package: str | None) -> dict[str, Callable[..., Any]]:
    declared = cache.natives_of(source)
    if not declared:
        return {}
    if package is None:
        raise RuleCheckError(
            f"native functions need an installed package: {', '.join(declared)}",
            where=path,
            hint="a file given by its path is data; nothing beside it is executed",
        )
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise RuleCheckError(f"natives are declared, but there is no module {package}", where=path) from error
    found = {}
    for name in declared:
        if not callable(getattr(module, name, None)):
            raise RuleCheckError(
                f"{package} has no function {name}", where=path, hint=did_you_mean(name, dir(module))
            )
        found[name] = getattr(module, name)
    return found


def _imports(namespace: dict[str, Any], path: str) -> dict[str, Group | Pass]:
    found: dict[str, Group | Pass] = {}
    for dotted, name in namespace["IMPORTS"]:
        module = load(dotted)
        item = module.passes.get(name) or module.groups.get(name)
        if item is None:
            raise RuleCheckError(
                f"{dotted} has no group or pass {name}",
                where=path,
                hint=did_you_mean(name, [*module.groups, *module.passes]),
            )
        found[name] = item
    return found


def _gradient(
    code: Code, functions: tuple[Callable[..., Any], ...], otherwise: Callable[..., Any] | None
) -> Callable[..., Any]:
    def gradient(node: UOp, cotangent: UOp, context: Any = None) -> Any:
        try:
            for function in functions:
                found = function(node, (cotangent, context))
                if found is not None:
                    return found
        except TinycoreError:
            raise
        except Exception as error:
            raise blame([code], error) from error
        return None if otherwise is None else otherwise(node, cotangent, context)

    return gradient


def _accepted(words: list[str]) -> frozenset[str]:
    return DEFAULT_ACCEPT | frozenset(words) | (FAST if "fast" in words else frozenset())


class _Linker:
    """Strategies to passes: names become groups."""

    def __init__(self, path: str, groups: dict[str, Group], imports: dict[str, Group | Pass]) -> None:
        self.path, self.groups, self.imports = path, groups, imports

    def build(self, name: str, strategy: Any, accept: frozenset[str], passes: dict[str, Pass]) -> Pass:
        """The pass of a strategy as `PASSES` of a compiled file spells it."""
        kind, *parts = strategy
        if kind == "seq":
            return Pass(name, tuple(self.build(name, part, accept, passes) for part in parts))
        if kind == "name":
            known = self._named(parts[0], passes)
            if isinstance(known, Pass):
                return known
            return Pass(name, (Stage(known.strategy, (known,), accept),))
        if kind == "union":
            groups = self._union(strategy, passes)
            kinds = {group.strategy for group in groups}
            if len(kinds) > 1:
                raise RuleCheckError(
                    f"pass {name} joins groups of different strategies",
                    where=self.path,
                    hint="say which: fixpoint(a + b), bottom_up(a + b) or top_down(a + b)",
                )
            return Pass(name, (Stage(kinds.pop(), groups, accept),))
        inner = parts[0]
        named = self._named(inner[1], passes) if inner[0] == "name" else None
        if kind == "fixpoint" and (isinstance(named, Pass) or inner[0] not in ("name", "union")):
            return Pass(name, (self.build(name, inner, accept, passes),), repeat=True)
        return Pass(name, (Stage(kind, self._union(inner, passes), accept),))

    def _named(self, name: str, passes: dict[str, Pass]) -> Group | Pass:
        found = passes.get(name) or self.groups.get(name) or self.imports.get(name)
        if found is None:
            raise RuleCheckError(f"there is no group or earlier pass {name}", where=self.path)
        return found

    def _union(self, strategy: Any, passes: dict[str, Pass]) -> tuple[Group, ...]:
        kind, *parts = strategy
        if kind == "union":
            return tuple(group for part in parts for group in self._union(part, passes))
        found = self._named(parts[0], passes) if kind == "name" else None
        if isinstance(found, Pass):
            return found.groups
        if found is None:
            raise RuleCheckError("only groups can be joined with +", where=self.path)
        return (found,)

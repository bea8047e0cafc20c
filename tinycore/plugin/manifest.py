"""`tinycore.toml`: what a plugin adds, readable without importing it.

The file lies beside the `__init__.py` of the plugin's package. `specs/plugins.md` is the reference; `_SCHEMA`
below is the same thing as data, and the only place to edit when a key is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final

from tinycore.errors import PluginError, did_you_mean
from tinycore.runtime.environment import STAGES, Stage

FILE_NAME: Final = "tinycore.toml"

HOOK_NAMES: Final = (
    "tinycore_backends",
    "tinycore_passes",
    "tinycore_rules",
    "tinycore_frontends",
    "tinycore_add_commands",
    "tinycore_select_device",
    "tinycore_validation",
    "tinycore_doctor",
    "tinycore_on_event",
)
"""The hooks of `tinycore.plugin.hookspecs`, spelled out here so that reading a manifest needs no pluggy."""


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """One `[[backend]]`: a kind of device."""

    name: str
    priority: int = 0
    entry: str | None = None
    """The entry that opens the device; None for a plugin that only compiles."""
    compile_target: str | None = None
    """The entry that describes an architecture without a device."""
    capabilities: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Claims; the conformance kit proves them."""


@dataclass(frozen=True, slots=True)
class RulesEntry:
    """One `[[rules]]`: a rule file that joins a stage."""

    file: str
    stage: Stage
    group: str


@dataclass(frozen=True, slots=True)
class PassEntry:
    """One `[[pass]]`: a compiler pass at a stage."""

    id: str
    stage: Stage
    entry: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    optional: bool = True


@dataclass(frozen=True, slots=True)
class FrontendEntry:
    """One `[[frontend]]`: a loader of models by file suffix."""

    name: str
    entry: str
    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HooksEntry:
    """`[hooks]`: a module with hook implementations, imported when one of `names` is called."""

    module: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole `tinycore.toml`.

    >>> parse_manifest('api = "1.0"', "example").api
    (1, 0)
    """

    api: tuple[int, int]
    uop_spec: int | None = None
    exports: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    backends: tuple[BackendEntry, ...] = ()
    rules: tuple[RulesEntry, ...] = ()
    passes: tuple[PassEntry, ...] = ()
    frontends: tuple[FrontendEntry, ...] = ()
    hooks: HooksEntry | None = None


Check = Callable[[Any], str | None]
"""Returns what was wanted when a value does not fit, and None when it does."""


def _matching(pattern: str, wanted: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: None if isinstance(value, str) and compiled.fullmatch(value) else wanted


def _list_of(check: Check) -> Check:
    def whole(value: Any) -> str | None:
        if not isinstance(value, list):
            return "a list"
        return next((f"a list in which each item is {bad}" for item in value if (bad := check(item))), None)

    return whole


def _integer(value: Any) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) else "an integer"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _table(value: Any) -> str | None:
    return None if isinstance(value, dict) else "a table"


def _one_of(names: tuple[str, ...]) -> Check:
    def check(value: Any) -> str | None:
        if value in names:
            return None
        hint = did_you_mean(value, names) if isinstance(value, str) else None
        return f"one of {', '.join(names)}" + (f" ({hint})" if hint else "")

    return check


def _rule_file(value: Any) -> str | None:
    path = PurePosixPath(value) if isinstance(value, str) else None
    inside = path is not None and not path.is_absolute() and ".." not in path.parts and "\\" not in value
    return None if inside and value.endswith(".rules") else "the path of a .rules file inside the package"


_NAMES = _list_of(_matching(r"\w+", "a name"))
_MODULE = _matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a dotted module name")
_ENTRY = _matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", '"package.module:name"')
_EXPORT = _matching(
    r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?", '"package.module:name" or "package.module"'
)
_ID = _matching(r"[a-z][a-z0-9_.-]*", "an id of lower case letters, digits, '-', '_' and '.'")
_IDS = _list_of(_ID)
_STAGE = _one_of(STAGES)
_RULE_STAGE = _one_of(tuple(stage for stage in STAGES if stage != "schedule"))

_SCHEMA: Final[Mapping[str, Mapping[str, tuple[Check, bool]]]] = {
    "": {
        "api": (_matching(r"\d+\.\d+", 'a version such as "1.0"'), True),
        "uop_spec": (_integer, False),
        "exports": (_table, False),
        "backend": (_list_of(_table), False),
        "rules": (_list_of(_table), False),
        "pass": (_list_of(_table), False),
        "frontend": (_list_of(_table), False),
        "hooks": (_table, False),
    },
    "backend": {
        "name": (_matching(r"[A-Z][A-Z0-9_]*", "a name of upper case letters, digits and '_'"), True),
        "priority": (_integer, False),
        "entry": (_ENTRY, False),
        "compile_target": (_ENTRY, False),
        "capabilities": (_table, False),
    },
    # The fields of tinycore.ir.target.Capabilities, in TOML's types; a test holds the two together.
    "capabilities": {
        "ops": (_NAMES, False),
        "dtypes": (_NAMES, False),
        "arithmetic": (_NAMES, False),
        "vector_bytes": (_integer, False),
        "vector_registers": (_integer, False),
        "threads": (_integer, False),
        "workgroups": (_boolean, False),
        "local_size": (_integer, False),
        "shared_bytes": (_integer, False),
        "index_bits": (_list_of(_integer), False),
        "gather": (_boolean, False),
        "max_buffers": (_integer, False),
        "cache_bytes": (_list_of(_integer), False),
        "dots": (_list_of(_table), False),
    },
    "rules": {"file": (_rule_file, True), "stage": (_RULE_STAGE, True), "group": (_ID, False)},
    "pass": {
        "id": (_ID, True),
        "stage": (_STAGE, True),
        "entry": (_ENTRY, True),
        "before": (_IDS, False),
        "after": (_IDS, False),
        "requires": (_IDS, False),
        "optional": (_boolean, False),
    },
    "frontend": {
        "name": (_ID, True),
        "entry": (_ENTRY, True),
        "suffixes": (_list_of(_matching(r"\.\w+", 'a suffix such as ".onnx"')), False),
    },
    "hooks": {"module": (_MODULE, True), "names": (_list_of(_one_of(HOOK_NAMES)), True)},
}
"""Per table: per key, its check and whether it is required."""


def _checked(table: Mapping[str, Any], schema: str, where: str) -> dict[str, Any]:
    """The table, every key of it known and of the right kind; lists became tuples."""
    known = _SCHEMA[schema]
    title = f"[{schema}]" if schema else "the manifest"
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, known) or f"known keys: {', '.join(known)}"
            raise PluginError(f"unknown key {key!r} in {title}", where=where, hint=hint)
        if wanted := known[key][0](value):
            raise PluginError(f"{key} = {value!r} in {title} is not {wanted}", where=where)
    for key, (_, required) in known.items():
        if required and key not in table:
            raise PluginError(f"{title} has no {key!r}", where=where, hint=f"add `{key} = ...`")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _unique(kind: str, names: list[str], where: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PluginError(f"{kind} {name!r} is declared twice", where=where, hint="remove one of them")


def parse_manifest(text: str, where: str) -> Manifest:
    """Parse and check the text of a manifest; `where` names its place in errors.

    Raises PluginError for TOML that does not parse, unknown or missing keys and values of the wrong kind.

    >>> parse_manifest('api = "1.0"\\npriorty = 3', "example")
    Traceback (most recent call last):
        ...
    tinycore.errors.PluginError: unknown key 'priorty' in the manifest
      example
      hint: known keys: api, uop_spec, exports, backend, rules, pass, frontend, hooks
    """
    import tomllib

    try:
        top = _checked(tomllib.loads(text), "", where)
    except tomllib.TOMLDecodeError as error:
        raise PluginError(f"not valid TOML: {error}", where=where) from None
    for name, value in top.get("exports", {}).items():
        if not name.isidentifier() or name.startswith("_"):
            raise PluginError(f"exported name {name!r} is not a public Python name", where=where)
        if wanted := _EXPORT(value):
            raise PluginError(f"{name} = {value!r} in [exports] is not {wanted}", where=where)
    sections = {
        name: [_checked(table, name, where) for table in top.get(name, ())]
        for name in ("backend", "rules", "pass", "frontend")
    }
    for backend in sections["backend"]:
        if "entry" not in backend and "compile_target" not in backend:
            hint = 'add `entry = "package.module:function"`'
            raise PluginError(
                f"backend {backend['name']} can neither run nor compile", where=where, hint=hint
            )
        backend["capabilities"] = MappingProxyType(
            _checked(backend.get("capabilities", {}), "capabilities", where)
        )
    for rules in sections["rules"]:
        rules.setdefault("group", PurePosixPath(rules["file"]).stem.lower())
    for name, key in (("backend", "name"), ("pass", "id"), ("frontend", "name"), ("rules", "file")):
        _unique(name, [table[key] for table in sections[name]], where)
    major, minor = top["api"].split(".")
    return Manifest(
        api=(int(major), int(minor)),
        uop_spec=top.get("uop_spec"),
        exports=MappingProxyType(top.get("exports", {})),
        backends=tuple(BackendEntry(**table) for table in sections["backend"]),
        rules=tuple(RulesEntry(**table) for table in sections["rules"]),
        passes=tuple(PassEntry(**table) for table in sections["pass"]),
        frontends=tuple(FrontendEntry(**table) for table in sections["frontend"]),
        hooks=HooksEntry(**_checked(top["hooks"], "hooks", where)) if "hooks" in top else None,
    )


def read_manifest(path: Path) -> Manifest:
    """Read, parse and check a manifest file.

    Raises PluginError; also when the file cannot be read or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"the manifest cannot be read: {error}", where=str(path)) from None
    return parse_manifest(text, str(path))


def provides(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """What a plugin adds, by kind, as names: for listings.

    >>> provides(parse_manifest('api = "1.0"\\n[exports]\\nTensor = "pkg:Tensor"', "example"))
    {'exports': ('Tensor',)}
    """
    kinds = {
        "backends": tuple(entry.name for entry in manifest.backends),
        "passes": tuple(entry.id for entry in manifest.passes),
        "rules": tuple(entry.file for entry in manifest.rules),
        "frontends": tuple(entry.name for entry in manifest.frontends),
        "exports": tuple(manifest.exports),
        "hooks": manifest.hooks.names if manifest.hooks else (),
    }
    return {kind: names for kind, names in kinds.items() if names}

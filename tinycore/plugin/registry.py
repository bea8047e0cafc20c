"""Assembles what all plugins add into one immutable registry, once.

`installed()` reads manifests and imports nothing. `registry()` goes further: it imports the passes, asks the
hooks, settles clashes and the order, and freezes the result; its `environment` is what the rooms below see.

What happens when something is wrong:

- A plugin fails that nobody asked for: recorded, one `PluginWarning`, everything else works.
- A device that was asked for by name cannot be opened: `BackendUnavailable`, naming the plugin.
- Two plugins claim one name: an error when that name is used, naming both distributions.
- Passes want to run before each other: `PluginError`, naming the plugins.
- A pass that results depend on fails: `PluginError`, because going on would give wrong results.
- `TINYCORE_STRICT_PLUGINS=1`: whatever fails raises `PluginError`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinycore.config import config
from tinycore.errors import BackendUnavailable, PluginError
from tinycore.plugin.discover import Plugin, discover
from tinycore.plugin.hooks import Hooks, resolve
from tinycore.plugin.manifest import BackendEntry, PassEntry
from tinycore.plugin.ordering import OwnedPass, order_passes, resolve_requirements
from tinycore.runtime import environment as runtime
from tinycore.runtime.environment import BackendSpec, Environment, FrontendSpec, PassSpec, RuleSource, Stage

_lock = threading.RLock()
_installed: tuple[Plugin, ...] | None = None
_registry: Registry | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """What all plugins add, checked and in order."""

    plugins: tuple[Plugin, ...]
    """Every installed plugin, used or not."""
    environment: Environment
    hooks: Hooks
    clashes: tuple[str, ...] = ()
    """Names that two plugins claim, each as a sentence."""

    @property
    def failures(self) -> Mapping[str, tuple[str, ...]]:
        """By plugin id, what went wrong with it so far."""
        found = {plugin.id: (plugin.reason or "",) for plugin in self.plugins if plugin.state == "failed"}
        return found | {name: tuple(reasons) for name, reasons in self.hooks.failures.items()}


def installed() -> tuple[Plugin, ...]:
    """All installed plugins, from their manifests alone. Imports none of them; looked up once a process."""
    global _installed
    with _lock:
        if _installed is None:
            _installed = discover()
        return _installed


def registry() -> Registry:
    """The registry of this process, assembled at the first call.

    Raises PluginError when passes contradict each other, when a pass that results depend on fails, and for
    any failure when `TINYCORE_STRICT_PLUGINS=1`.
    """
    global _registry
    with _lock:
        if _registry is None:
            _registry = assemble(installed())
        return _registry


def reset() -> None:
    """Forget everything found so far, so that the next use sees what was installed or disabled since."""
    global _installed, _registry
    with _lock:
        _installed = _registry = None
        runtime.reset()


def assemble(plugins: Iterable[Plugin]) -> Registry:
    """Build the registry of a set of plugins; see `registry` for the errors."""
    plugins = tuple(plugins)
    hooks, clashes = Hooks(plugins), list[str]()
    for plugin in plugins:
        if plugin.state == "failed":
            hooks.record(plugin, "loading", PluginError(plugin.reason or "it cannot be used"))
    backends = _backends(hooks, clashes)
    used = Environment(
        backends=MappingProxyType(backends),
        passes=MappingProxyType(_passes(hooks, clashes)),
        rules=MappingProxyType(_rules(hooks)),
        frontends=MappingProxyType(_frontends(hooks, clashes)),
        versions=tuple(
            (p.distribution, p.version) for p in plugins if p.usable and p.id not in hooks.failures
        ),
        sources=tuple(p.root for p in plugins if p.root and p.usable and _compiles(p)),
        missing=MappingProxyType(_missing(plugins, backends)),
        validation=hooks.validation if hooks.implementers("tinycore_validation") else None,
        select_device=hooks.select_device if hooks.implementers("tinycore_select_device") else None,
        observers=(hooks.emit,) if hooks.implementers("tinycore_on_event") else (),
    )
    return Registry(plugins, used, hooks, tuple(clashes))


_CHANGING = frozenset({"tinycore_backends", "tinycore_passes", "tinycore_rules"})
"""The hooks that bring what changes kernels."""


def _compiles(plugin: Plugin) -> bool:
    """Whether its code or rules can change what a kernel becomes: not those of plain frontends and tools."""
    manifest = plugin.manifest
    if manifest is None:
        return True
    hooks = frozenset(manifest.hooks.names) if manifest.hooks else frozenset()
    if manifest.passes or manifest.rules or manifest.backends or hooks & _CHANGING:
        return True
    return not (manifest.exports or manifest.frontends or hooks)  # what adds nothing is a library of others


def _claims(kind: str, found: Iterable[tuple[Plugin, str]], clashes: list[str]) -> dict[str, str]:
    """The names that two plugins claim, each with the sentence that says so."""
    owners: dict[str, list[Plugin]] = {}
    for plugin, name in found:
        owners.setdefault(name, []).append(plugin)
    told = {
        name: f"{kind} {name!r} is claimed by {' and by '.join(plugin.title for plugin in several)}"
        for name, several in owners.items()
        if len(several) > 1
    }
    clashes.extend(told.values())
    return told


def _refuse(what: str, *_: Any, **__: Any) -> Any:
    """Stands in for a name that two plugins claim: whoever uses it is told."""
    raise PluginError(what, hint="tinycore plugins disable one of them")


def _guarded(plugin: Plugin, name: str, action: Callable[..., Any], *arguments: Any) -> Any:
    """Run a backend's function; whatever it raises says which plugin it came from."""
    try:
        return action(*arguments)
    except BackendUnavailable:
        raise
    except (Exception, SystemExit) as error:
        cause = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        what = f"device {name!r} of {plugin.title} cannot be used: {cause}"
        hint = f"`tinycore doctor` says more; `tinycore plugins disable {plugin.id}` switches it off"
        raise BackendUnavailable(what, hint=hint) from error


def _compile_only(name: str, title: str) -> Any:
    hint = f"tinycore compile --target {name}"
    raise BackendUnavailable(f"{name!r} compiles kernels and cannot run them yet", where=title, hint=hint)


def _lazily(entry: str, *arguments: Any, **options: Any) -> Any:
    return resolve(entry)(*arguments, **options)


def backend_spec(plugin: Plugin, entry: BackendEntry) -> BackendSpec:
    """The backend that a manifest declares; its code is imported when it is opened or asked for a target."""
    if entry.entry:
        action = partial(_guarded, plugin, entry.name, _lazily, entry.entry)
    else:
        action = partial(_compile_only, entry.name, plugin.title)
    target = entry.compile_target and partial(_guarded, plugin, entry.name, _lazily, entry.compile_target)
    return BackendSpec(entry.name, entry.priority, action, target or None, compile_only=entry.entry is None)


def _backends(hooks: Hooks, clashes: list[str]) -> dict[str, BackendSpec]:
    found = [
        (plugin, backend_spec(plugin, entry))
        for plugin in hooks.plugins.values()
        for entry in (plugin.manifest.backends if plugin.manifest else ())
    ]
    for plugin, spec in hooks.items("tinycore_backends", BackendSpec):
        found.append((plugin, replace(spec, open=partial(_guarded, plugin, spec.name, spec.open))))
    told = _claims("device", ((plugin, spec.name) for plugin, spec in found), clashes)
    specs = {spec.name: spec for _, spec in sorted(found, key=lambda each: (-each[1].priority, each[1].name))}
    for name, sentence in told.items():
        refuse = partial(_refuse, sentence)
        specs[name] = replace(specs[name], open=refuse, compile_target=refuse, compile_only=False)
    return specs


def _named(plugin: Plugin, spec: PassSpec) -> PassSpec:
    """The same pass, with its plugin's name added to whatever it raises."""

    @wraps(spec.run)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return spec.run(*arguments, **options)
        except Exception as error:
            error.add_note(f"in pass {spec.id!r} of {plugin.title}; tinycore plugins disable {plugin.id}")
            raise

    return replace(spec, run=run)


def _load_pass(plugin: Plugin, entry: PassEntry, hooks: Hooks) -> PassSpec | None:
    def load() -> PassSpec:
        run = resolve(entry.entry)
        return PassSpec(
            entry.id, entry.stage, run, entry.before, entry.after, entry.requires, optional=entry.optional
        )

    if entry.optional:
        return hooks.attempt(plugin, f"pass {entry.id!r}", load)
    try:
        return load()
    except (Exception, SystemExit) as error:
        what = (
            f"pass {entry.id!r} cannot be loaded, and results depend on it: {type(error).__name__}: {error}"
        )
        hint = f"reinstall {plugin.distribution}, or: tinycore plugins disable {plugin.id}"
        raise PluginError(what, where=plugin.title, hint=hint) from error


def _passes(hooks: Hooks, clashes: list[str]) -> dict[Stage, tuple[PassSpec, ...]]:
    found = [
        (plugin, spec)
        for plugin in hooks.plugins.values()
        for entry in (plugin.manifest.passes if plugin.manifest else ())
        if (spec := _load_pass(plugin, entry, hooks))
    ]
    found.extend(hooks.items("tinycore_passes", PassSpec))
    told = _claims("pass", ((plugin, spec.id) for plugin, spec in found), clashes)
    for sentence in told.values():
        _refuse(sentence)
    owners = {spec.id: plugin for plugin, spec in found}
    kept, left_out = resolve_requirements(
        OwnedPass(_named(plugin, spec), plugin.title) for plugin, spec in found
    )
    for name, reason in left_out.items():
        hooks.record(owners[name], f"pass {name!r}", PluginError(reason))
    return order_passes(kept, shuffle=config().shuffle_passes)


def _rules(hooks: Hooks) -> dict[Stage, tuple[RuleSource, ...]]:
    found = [
        RuleSource(Path(plugin.root or "", entry.file), entry.stage, f"{plugin.id}.{entry.group}")
        for plugin in hooks.plugins.values()
        for entry in (plugin.manifest.rules if plugin.manifest else ())
    ]
    found.extend(source for _, source in hooks.items("tinycore_rules", RuleSource))
    return {
        stage: tuple(rule for rule in found if rule.stage == stage)
        for stage in dict.fromkeys(rule.stage for rule in found)
    }


def _frontends(hooks: Hooks, clashes: list[str]) -> dict[str, FrontendSpec]:
    found = [
        (plugin, FrontendSpec(entry.name, partial(_lazily, entry.entry), entry.suffixes))
        for plugin in hooks.plugins.values()
        for entry in (plugin.manifest.frontends if plugin.manifest else ())
    ]
    found.extend(hooks.items("tinycore_frontends", FrontendSpec))
    told = _claims("frontend", ((plugin, spec.name) for plugin, spec in found), clashes)
    specs = {spec.name: spec for _, spec in found}
    for name, sentence in told.items():
        specs[name] = replace(specs[name], load=partial(_refuse, sentence))
    return specs


def _missing(plugins: Iterable[Plugin], usable: Mapping[str, BackendSpec]) -> dict[str, str]:
    """Devices of plugins that are not used, and why; a plugin without a readable manifest goes by its id."""
    missing: dict[str, str] = {}
    for plugin in plugins:
        if not plugin.usable:
            names = [entry.name for entry in plugin.manifest.backends] if plugin.manifest else [plugin.id]
            why = f"{plugin.title} is not used: {plugin.reason}"
            missing.update({name: f"{why} ({plugin.hint})" for name in names if name not in usable})
    return missing

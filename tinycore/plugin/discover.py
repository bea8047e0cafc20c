"""Finds installed plugins and reads their manifests, importing none of them.

One entry-point group, `tinycore.plugins`: the name is the plugin's id, the value its top-level package. The
manifest beside that package's `__init__.py` says the rest. Scanning every installed distribution costs about
a millisecond; importing plugins is what is slow, and what breaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from tinycore.config import config
from tinycore.errors import PluginError, TinycoreError
from tinycore.plugin import settings, versions
from tinycore.plugin.installed import EntryPoint, Installed, installed
from tinycore.plugin.manifest import FILE_NAME, Manifest, provides, read_manifest

GROUP: Final = "tinycore.plugins"
UNKNOWN: Final = "unknown"

State: TypeAlias = Literal["ok", "disabled", "failed"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plugin, as far as it is known without importing it."""

    id: str
    distribution: str
    version: str
    package: str
    root: Path | None = None
    """The folder of the package; None when it cannot be found."""
    manifest: Manifest | None = None
    """None for a plugin without one: it is imported instead, and only its hooks count."""
    state: State = "ok"
    reason: str | None = None
    """Why it is not used."""
    hint: str | None = None
    """What to type about that."""

    @property
    def title(self) -> str:
        """How errors name it.

        >>> Plugin("sim", "tinycore-backend-sim", "0.3", "tinycore_backend_sim").title
        "plugin 'sim' (tinycore-backend-sim 0.3)"
        """
        return f"plugin {self.id!r} ({self.distribution} {self.version})"

    @property
    def usable(self) -> bool:
        """Neither disabled nor known to be broken."""
        return self.state == "ok"

    def failed(self, reason: str, hint: str | None = None) -> Plugin:
        """The same plugin, recorded as unusable."""
        return replace(
            self, state="failed", reason=reason, hint=hint or f"tinycore plugins disable {self.id}"
        )

    def describe(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        api = versions.format_version(self.manifest.api) if self.manifest else None
        return {
            "id": self.id,
            "distribution": self.distribution,
            "version": self.version,
            "package": self.package,
            "location": str(self.root) if self.root else None,
            "state": self.state,
            "reason": self.reason,
            "hint": self.hint,
            "api": api,
            "uop_spec": self.manifest.uop_spec if self.manifest else None,
            "manifest": self.manifest is not None,
            "provides": {k: list(v) for k, v in provides(self.manifest).items()} if self.manifest else {},
        }


def _entry_points() -> list[tuple[EntryPoint, Installed]]:
    """Every entry point of the group, once a distribution: editable installs can be listed twice."""
    found: dict[tuple[str, str, str], tuple[EntryPoint, Installed]] = {}
    for distribution in installed():
        for entry in distribution.entry_points(GROUP):
            name = settings.normalize(distribution.name or UNKNOWN)
            found.setdefault((name, entry.name, entry.value), (entry, distribution))
    return list(found.values())


def _examine(entry: EntryPoint, distribution: Installed) -> Plugin:
    """Locate the package and read the manifest; every mishap becomes a recorded failure."""
    name = distribution.name or UNKNOWN
    version = UNKNOWN if name == UNKNOWN else distribution.version or UNKNOWN
    plugin = Plugin(settings.normalize(entry.name), name, version, entry.value)
    if not entry.value.isidentifier():
        # find_spec("a.b") would import `a`: only top-level packages can be located without running them.
        return plugin.failed(f"its entry point is {entry.value!r}, which is not a top-level package")
    try:
        spec = find_spec(entry.value)
    except (ImportError, ValueError, AttributeError) as error:
        return plugin.failed(f"its package {entry.value!r} cannot be located: {error}")
    if spec is None:
        reason = f"its package {entry.value!r} is gone, though its metadata is still installed"
        return plugin.failed(reason, f"pip install --force-reinstall {name}, or pip uninstall {name}")
    if not spec.submodule_search_locations:
        return replace(plugin, root=Path(spec.origin).parent if spec.origin else None)
    root = Path(next(iter(spec.submodule_search_locations)))
    plugin = replace(plugin, root=root)
    if not (root / FILE_NAME).is_file():
        return plugin
    try:
        manifest = read_manifest(root / FILE_NAME)
    except PluginError as error:
        place = f" ({error.where})" if error.where else ""
        return plugin.failed(error.what + place, error.hint)
    plugin = replace(plugin, manifest=manifest)
    if unfit := versions.mismatch(manifest.api, manifest.uop_spec):
        return plugin.failed(unfit, versions.remedy(manifest.api, manifest.uop_spec, name))
    if missing := [rules.file for rules in manifest.rules if not (root / rules.file).is_file()]:
        return plugin.failed(
            f"its rule file {missing[0]!r} is missing", f"pip install --force-reinstall {name}"
        )
    return plugin


def _apply_choice(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Mark what the user switched off, and ids that two distributions claim."""
    off, allowed = settings.disabled(), config().plugins
    allow_list = None if allowed is None else {settings.normalize(name) for name in allowed}
    chosen: list[Plugin] = []
    for plugin in plugins:
        names = {plugin.id, settings.normalize(plugin.distribution)}
        first = next((other for other in chosen if other.id == plugin.id), None)
        if off & names:
            hint = f"tinycore plugins enable {plugin.id}"
            plugin = replace(plugin, state="disabled", reason="disabled by the user", hint=hint)
        elif allow_list is not None and not allow_list & names:
            plugin = replace(plugin, state="disabled", reason="not in TINYCORE_PLUGINS", hint=None)
        elif first is not None:
            reason = f"{first.distribution} has the same plugin id {plugin.id!r}"
            plugin = plugin.failed(reason, f"pip uninstall {plugin.distribution}, or {first.distribution}")
        chosen.append(plugin)
    return chosen


def discover() -> tuple[Plugin, ...]:
    """All installed plugins by id, with their state. Imports none of them.

    Raises ConfigError when the user's settings file is damaged; a damaged plugin is recorded, not raised.
    """
    found: list[Plugin] = []
    for entry, distribution in _entry_points():
        try:
            found.append(_examine(entry, distribution))
        except (TinycoreError, OSError, ValueError) as error:
            broken = Plugin(entry.name, distribution.name or UNKNOWN, UNKNOWN, entry.value)
            found.append(broken.failed(str(error)))
    return tuple(_apply_choice(sorted(found, key=lambda plugin: (plugin.id, plugin.distribution))))

"""`from tinycore import NAME`: finds the plugin that exports a name and imports only that one."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from tinycore.errors import PluginError, did_you_mean
from tinycore.plugin.registry import installed

USUAL: Final = {
    **dict.fromkeys(("Tensor", "nn", "dtypes", "Device", "jit", "Variable"), "tinycore-frontend-tensor"),
    "explain": "tinycore-tools-explain",
}
"""Names that people expect, and the distribution that brings them."""


class ExportUnavailable(PluginError, ImportError):
    """`from tinycore import NAME` cannot be satisfied; says what to install or repair."""


def exported_names() -> list[str]:
    """Every name that an installed plugin exports."""
    found = {
        name
        for plugin in installed()
        if plugin.usable and plugin.manifest
        for name in plugin.manifest.exports
    }
    return sorted(found)


def load_export(name: str) -> Any:
    """Import what a plugin exports as `name`.

    Raises ExportUnavailable when the plugin is missing, disabled or broken, or when two plugins export the
    name, and AttributeError when nobody has ever heard of it.
    """
    from tinycore.plugin.hooks import resolve

    owners = [plugin for plugin in installed() if plugin.manifest and name in plugin.manifest.exports]
    usable = [plugin for plugin in owners if plugin.usable]
    if len(usable) > 1:
        raise ExportUnavailable(
            f"{name!r} is exported by {' and by '.join(plugin.title for plugin in usable)}",
            hint=f"tinycore plugins disable {usable[-1].id}",
        )
    if not usable:
        _explain_absence(name, owners)
    (plugin,) = usable
    try:
        return resolve(plugin.manifest.exports[name])  # type: ignore[union-attr]
    except (Exception, SystemExit) as error:
        what = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        raise ExportUnavailable(
            f"{name!r} cannot be imported: {what}", where=plugin.title, hint="tinycore doctor"
        ) from error


def _explain_absence(name: str, owners: list[Any]) -> NoReturn:
    for plugin in owners:
        raise ExportUnavailable(
            f"{name!r} is not available: {plugin.reason}", where=plugin.title, hint=plugin.hint
        )
    if name in USUAL:
        broken = [plugin for plugin in installed() if plugin.distribution == USUAL[name]]
        if broken:
            why = broken[0].reason or "it does not export that name"
            raise ExportUnavailable(
                f"{name!r} is not available: {why}", where=broken[0].title, hint=broken[0].hint
            )
        raise ExportUnavailable(
            f"{name!r} is not part of the core: a plugin brings it", hint=f"pip install {USUAL[name]}"
        )
    hint = did_you_mean(name, {*exported_names(), *USUAL, "override", "extra_rules"})
    raise AttributeError(f"module 'tinycore' has no attribute {name!r}" + (f"; {hint}" if hint else ""))

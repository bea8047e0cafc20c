"""`tinycore doctor`: looks at everything that has to be right on a machine, and says what to do.

Nothing here fails: whatever is wrong becomes a `Finding`. Plugins are tried out in processes of their own.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata

from tinycore.config import ENVIRONMENT, config, user_cache_directory
from tinycore.errors import TinycoreError
from tinycore.plugin.discover import Plugin
from tinycore.plugin.hookspecs import Finding
from tinycore.plugin.probe import Probe, probe_all
from tinycore.plugin.registry import installed, registry

DEPENDENCIES = ("numpy", "ml_dtypes", "pluggy", "lark")


def examine(*, timeout: float = 60.0) -> Iterator[Finding]:
    """All findings: the machine, then plugins and devices; `timeout` is for each plugin, in seconds."""
    yield from _python()
    yield from _dependencies()
    yield from _cache()
    try:
        plugins = installed()
    except TinycoreError as error:
        yield Finding("error", error.what, error.where or "", error.hint or "")
        return
    yield from _plugins(plugins, probe_all(plugins, timeout=timeout))
    yield from _whole()


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"Python {version} on {sys.platform}", sys.executable)


def _dependencies() -> Iterator[Finding]:
    for name in ("tinycore", *DEPENDENCIES):
        try:
            yield Finding("ok", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("error", f"{name} is not installed", hint=f"pip install {name}")


def _cache() -> Iterator[Finding]:
    path = config().cache_directory or user_cache_directory() / "tinycore"
    if not config().cache:
        yield Finding("warning", "the kernel cache is off", hint=f"unset {ENVIRONMENT['cache']}")
        return
    existing = next((each for each in (path, *path.parents) if each.exists()), path)
    hint = f"set {ENVIRONMENT['cache_directory']} to a folder of your own"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield Finding(
            "warning", "the kernel cache cannot be written: kernels are compiled again", str(path), hint
        )
    elif path.exists() and os.name != "nt" and _not_private(path.stat()):
        yield Finding("error", "the kernel cache belongs to, or can be written by, others", str(path), hint)
    else:
        yield Finding("ok", "kernel cache", str(path))


def _not_private(status: os.stat_result) -> bool:
    return status.st_uid != os.getuid() or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _plugins(plugins: Iterable[Plugin], probes: Iterable[Probe]) -> Iterator[Finding]:
    tried = {each.plugin: each for each in probes}
    for plugin in plugins:
        found = tried.get(plugin.id) if plugin.usable else None
        if plugin.state == "failed":
            yield Finding(
                "error", f"{plugin.title}: {plugin.reason}", str(plugin.root or ""), plugin.hint or ""
            )
        elif plugin.state == "disabled":
            yield Finding("ok", f"{plugin.title}: {plugin.reason}", hint=plugin.hint or "")
        elif found and found.error:
            hint = f"tinycore plugins disable {plugin.id}"
            yield Finding("error", f"{plugin.title}: {found.error}", str(plugin.root or ""), hint)
        elif found:
            yield Finding("ok", f"{plugin.title}: loads in {found.import_ms:.0f} ms", str(plugin.root or ""))
        for name, error in (found.devices if found else {}).items():
            if error:
                yield Finding("warning", error, name)
            else:
                yield Finding("ok", f"device {name} opens", (found.targets if found else {}).get(name, ""))


def _whole() -> Iterator[Finding]:
    """What only shows when all plugins come together, and what they find themselves."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every failure is already a finding
            whole = registry()
            yield from (Finding("warning", clash, hint="disable one of them") for clash in whole.clashes)
            yield from (finding for _, finding in whole.hooks.items("tinycore_doctor", Finding))
    except TinycoreError as error:
        yield Finding("error", error.what, error.where or "", error.hint or "")

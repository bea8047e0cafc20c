"""Calls hooks, one plugin at a time, so that one that fails takes nobody along.

Each plugin gets a pluggy manager of its own: whatever goes wrong while its module is imported, registered or
called stays with that plugin. A module is imported when the first of the hooks its manifest names is called;
a plugin without a manifest is imported for every hook.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import pluggy

from tinycore.config import config
from tinycore.errors import PluginError, did_you_mean
from tinycore.plugin.discover import Plugin
from tinycore.plugin.hookspecs import PROJECT, HookSpecs
from tinycore.plugin.manifest import HOOK_NAMES
from tinycore.runtime.environment import Validation

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plugin failed and is not used; everything else works."""


def resolve(entry: str) -> Any:
    """The object an entry such as `"package.module:name"` names, or the module when there is no colon.

    >>> resolve("math:pi") > 3
    True
    """
    module, _, name = entry.partition(":")
    found = import_module(module)
    if not name:
        return found
    try:
        return getattr(found, name)
    except AttributeError:
        raise PluginError(
            f"module {module!r} has no {name!r}", hint=did_you_mean(name, vars(found))
        ) from None


class Hooks:
    """The plugins in use, what they implement, and what went wrong with them."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = {plugin.id: plugin for plugin in plugins if plugin.usable}
        self.failures: dict[str, list[str]] = {}
        """By plugin id, why the plugin (or which part of it) is not used."""
        self._managers: dict[str, pluggy.PluginManager | None] = {}

    def record(self, plugin: Plugin, doing: str, error: BaseException) -> None:
        """Remember a failure under the plugin's name and warn about it once.

        With `TINYCORE_STRICT_PLUGINS=1`, raises PluginError instead.
        """
        what = error.what if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        reason, hint = f"{doing} failed: {what}", f"tinycore plugins disable {plugin.id}"
        if config().strict_plugins:
            raise PluginError(reason, where=plugin.title, hint=hint) from error
        known = self.failures.setdefault(plugin.id, [])
        if reason not in known:
            known.append(reason)
            message = f"{plugin.title}: {reason}. Everything else works; to silence this: {hint}"
            warnings.warn(message, PluginWarning, stacklevel=3)

    def attempt(self, plugin: Plugin, doing: str, action: Callable[[], T]) -> T | None:
        """Run a piece of a plugin; a failure is recorded and gives None."""
        try:
            return action()
        except (Exception, SystemExit) as error:  # noqa: BLE001  plugins raise anything, sys.exit() included
            self.record(plugin, doing, error)
            return None

    def implementers(self, hook: str) -> list[Plugin]:
        """The plugins that may implement a hook, by id, without importing any of them."""
        return [
            plugin
            for plugin in self.plugins.values()
            if plugin.manifest is None or (plugin.manifest.hooks and hook in plugin.manifest.hooks.names)
        ]

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """Each plugin's answers to a hook; plugins that fail or answer None are left out."""
        for plugin in self.implementers(hook):
            if manager := self._manager(plugin):
                answer = partial(_answers, getattr(manager.hook, hook), arguments)
                for each in self.attempt(plugin, hook, answer) or ():
                    yield plugin, each

    def items(self, hook: str, kind: type[T]) -> Iterator[tuple[Plugin, T]]:
        """The things of one kind that plugins answer to a hook which returns an iterable of them."""
        for plugin, answer in self.call(hook):
            for item in answer:
                if isinstance(item, kind):
                    yield plugin, item
                else:
                    self.record(plugin, hook, PluginError(f"{item!r} is not a {kind.__name__}"))

    def select_device(self, available: tuple[str, ...]) -> str | None:
        """The first plugin's choice that is one of the available devices; None when none of them chooses."""
        for plugin, name in self.call("tinycore_select_device", available=available):
            if name in available:
                return str(name)
            self.record(plugin, "tinycore_select_device", PluginError(f"device {name!r} is not available"))
        return None

    def validation(self) -> Validation | None:
        """The first plugin's answer."""
        return next((found for _, found in self.call("tinycore_validation")), None)

    def emit(self, event: Mapping[str, Any]) -> None:
        """Tell the observers; a plugin that failed before is not called again."""
        for plugin in self.implementers("tinycore_on_event"):
            if plugin.id not in self.failures and (manager := self._manager(plugin)):
                self.attempt(
                    plugin, "tinycore_on_event", partial(manager.hook.tinycore_on_event, event=event)
                )

    def _manager(self, plugin: Plugin) -> pluggy.PluginManager | None:
        if plugin.id not in self._managers:
            # Set before the import, so that a plugin which asks again while being imported finds nothing.
            self._managers[plugin.id] = None
            hooks = plugin.manifest.hooks if plugin.manifest else None
            module = hooks.module if hooks else plugin.package
            manager = self.attempt(plugin, f"import {module}", partial(_register, module))
            self._managers[plugin.id] = manager
        return self._managers[plugin.id]


def _register(module: str) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    manager.register(import_module(module))
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        public = [
            name for name in vars(error.plugin) if name.startswith("tinycore_") and name not in HOOK_NAMES
        ]
        hints = [hint for name in public if (hint := did_you_mean(name, HOOK_NAMES))]
        raise PluginError("; ".join([str(error), *hints])) from None
    return manager


def _answers(caller: Callable[..., Any], arguments: Mapping[str, Any]) -> list[Any]:
    """A hook's results as a list; generators run to their end here, where their failures are caught."""
    results = caller(**arguments)
    results = results if isinstance(results, list) else [results]
    return [list(each) if inspect.isgenerator(each) else each for each in results if each is not None]

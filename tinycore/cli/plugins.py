"""`tinycore plugins`: list, info, check, enable, disable. No plugin is imported, except by `check --load`."""

from __future__ import annotations

import argparse
from typing import Any

from tinycore.cli import UsageError
from tinycore.cli.output import print_json, print_table
from tinycore.errors import did_you_mean
from tinycore.plugin import settings
from tinycore.plugin.discover import Plugin
from tinycore.plugin.registry import installed, reset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in {
        "list": "every installed plugin, its state and what it adds",
        "info": "everything one plugin's manifest says",
        "check": "look for mistakes without importing the plugins",
        "enable": "use a plugin again",
        "disable": "do not use a plugin any more; works even when importing it fails",
    }.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("--json", action="store_true", help="print JSON")
        if name == "check":
            action.add_argument(
                "ids", nargs="*", metavar="ID", help="plugins to check; all when none is named"
            )
            action.add_argument(
                "--load", action="store_true", help="also try each out in a process of its own"
            )
        elif name != "list":
            action.add_argument("id", metavar="ID", help="plugin id or distribution name")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand."""
    actions = {"list": _list, "info": _info, "check": _check, "enable": _switch, "disable": _switch}
    return actions[arguments.action](arguments)


def _find(name: str) -> Plugin:
    wanted = settings.normalize(name)
    for plugin in installed():
        if wanted in (plugin.id, settings.normalize(plugin.distribution)):
            return plugin
    hint = did_you_mean(wanted, [plugin.id for plugin in installed()]) or "tinycore plugins list"
    raise UsageError(f"no plugin {name!r} is installed", hint=hint)


def _provides(plugin: Plugin) -> str:
    kinds = plugin.describe()["provides"]
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items()) or "-"


def _list(arguments: argparse.Namespace) -> int:
    plugins = installed()
    if arguments.json:
        print_json([plugin.describe() for plugin in plugins])
        return 0
    if not plugins:
        print("no plugin is installed; try: pip install tinycore-frontend-tensor")
        return 0
    print_table(
        ["id", "version", "state", "adds"],
        [[plugin.id, plugin.version, plugin.state, _provides(plugin)] for plugin in plugins],
    )
    for plugin in plugins:
        if plugin.state == "failed":
            print(f"\n{plugin.title}: {plugin.reason}\n  hint: {plugin.hint}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    facts = _find(arguments.id).describe()
    if arguments.json:
        print_json(facts)
        return 0
    kinds = facts.pop("provides")
    for name, value in {**facts, **{kind: ", ".join(names) for kind, names in kinds.items()}}.items():
        print(f"{name:13} {'-' if value is None else value}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from tinycore.plugin.check import check

    chosen = [_find(name) for name in arguments.ids] or list(installed())
    problems = {plugin.id: list(check(plugin, installed())) for plugin in chosen}
    if arguments.load:
        from tinycore.plugin.probe import probe_all

        for result in probe_all(chosen):
            problems[result.plugin] += [result.error] if result.error else []
    if arguments.json:
        print_json(problems)
    for name, found in {} if arguments.json else problems.items():
        print(f"{name}: {'ok' if not found else ''}".rstrip())
        for problem in found:
            print(f"  {problem}")
    return 1 if any(problems.values()) else 0


def _switch(arguments: argparse.Namespace) -> int:
    plugin, enable = _find(arguments.id), arguments.action == "enable"
    changed = settings.set_enabled(plugin.id, enable)
    # Either name may have been written down by hand.
    if enable and plugin.id != settings.normalize(plugin.distribution):
        changed |= settings.set_enabled(plugin.distribution, True)
    reset()
    after = _find(plugin.id)
    answer: dict[str, Any] = {"id": plugin.id, "changed": changed, "state": after.state}
    if arguments.json:
        print_json(answer)
    else:
        word = "enabled" if enable else "disabled"
        print(f"{plugin.title} is {'now' if changed else 'already'} {word} ({settings.settings_path()})")
    if enable and after.state == "disabled":
        print(f"but it is still off: {after.reason}")
        return 1
    return 0

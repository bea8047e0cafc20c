"""`tinycore devices`: which devices there are, which of them open, and which is the default."""

from __future__ import annotations

import argparse
from typing import Any

from tinycore.cli.doctor import add_arguments as add_arguments
from tinycore.cli.output import print_json, print_table


def rows(timeout: float) -> list[dict[str, Any]]:
    """Every backend, the preferred one first, each opened in a process of its own."""
    from tinycore.plugin.probe import probe_all
    from tinycore.plugin.registry import installed, registry

    environment = registry().environment
    plugins = [plugin for plugin in installed() if plugin.manifest is None or plugin.manifest.backends]
    probes = probe_all(plugins, timeout=timeout)
    found = {name: error for probe in probes for name, error in probe.devices.items()}
    targets = {name: target for probe in probes for name, target in probe.targets.items()}
    crashes = {probe.plugin: probe.error for probe in probes if probe.error}
    owners = {each.name: p.id for p in plugins for each in (p.manifest.backends if p.manifest else ())}
    table: list[dict[str, Any]] = []
    for name, spec in environment.backends.items():
        error = found.get(name) or crashes.get(owners.get(name, "")) if name not in targets else None
        state = "compiles only" if spec.compile_only else "ok"
        table.append(
            {
                "name": name,
                "priority": spec.priority,
                "state": "unavailable" if error else state,
                "architecture": targets.get(name),
                "reason": error,
            }
        )
    table += [
        {"name": name, "priority": None, "state": "unavailable", "architecture": None, "reason": reason}
        for name, reason in environment.missing.items()
    ]
    return table


def run(arguments: argparse.Namespace) -> int:
    """Print the devices; 0 even when none opens, because the interpreter always works."""
    from tinycore.config import config

    table = rows(arguments.timeout)
    works = [row["name"] for row in table if row["state"] == "ok"]
    default = config().device or next(iter(works), None)
    if arguments.json:
        print_json({"default": default, "devices": table})
        return 0
    if table:
        columns = ["name", "priority", "state", "architecture", "reason"]
        cells = [["-" if row[key] is None else str(row[key]) for key in columns] for row in table]
        print_table(columns, cells)
    if default is None:
        print("no device opens: everything runs, slowly, in the interpreter")
    else:
        print(f"\ndefault: {default}" + (" (asked for by DEV)" if config().device else ""))
    return 0

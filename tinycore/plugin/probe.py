"""Tries a plugin out in a process of its own: a crash, a hang or an exit there harms nobody.

`probe` starts the process; run as `python -m tinycore.plugin.probe ID`, this module is that process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinycore.plugin.discover import Plugin

_MARK = "tinycore-probe:"
"""Precedes the answer, because a plugin may print while it is imported."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What trying a plugin out showed."""

    plugin: str
    error: str | None
    """Why the plugin cannot be loaded; None when it can."""
    import_ms: float = 0.0
    devices: Mapping[str, str | None] = field(default_factory=dict)
    """By the name of each backend: None when its device opens, else why not; absent if it only compiles."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """By the name of each backend that works: the architecture it compiles for."""


def probe(plugin: Plugin, *, timeout: float = 60.0) -> Probe:
    """Import a plugin's package, passes and hooks and open its devices, in another process."""
    command = [sys.executable, "-m", "tinycore.plugin.probe", plugin.id]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Probe(plugin.id, f"it did not answer within {timeout:g} s")
    answers = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if answers:
        return Probe(plugin.id, **json.loads(answers[-1].removeprefix(_MARK)))
    if done.returncode < 0:
        return Probe(plugin.id, f"it crashed with {signal.Signals(-done.returncode).name}")
    last = done.stderr.strip().splitlines()[-1:] or ["nothing was printed"]
    return Probe(plugin.id, f"its process ended with status {done.returncode}: {last[0]}")


def probe_all(plugins: Iterable[Plugin], *, timeout: float = 60.0) -> list[Probe]:
    """Probe the usable ones among plugins, a few at a time, in the order given."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(lambda each: probe(each, timeout=timeout), [p for p in plugins if p.usable]))


def _describe(error: BaseException) -> str:
    """The error in one line, with the place in the plugin that raised it."""
    what = getattr(error, "what", None) or f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    files = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    outside = [frame for frame in files if Path(frame.filename).parent != Path(__file__).parent]
    return f"{what} (at {outside[-1].filename}:{outside[-1].lineno})" if outside else what


def _try_devices(plugin: Plugin) -> dict[str, Any]:
    from tinycore.plugin.registry import assemble

    devices: dict[str, str | None] = {}
    targets: dict[str, str] = {}
    registry = assemble([plugin])
    for name, spec in registry.environment.backends.items():
        try:
            if not spec.compile_only:
                device = spec.open()
                targets[name], devices[name] = device.target.architecture, None
                device.close()
            elif spec.compile_target:
                targets[name] = spec.compile_target(None).architecture
        except (Exception, SystemExit) as error:  # noqa: BLE001  the point is to report whatever it is
            devices[name] = _describe(error)
    failures = "; ".join(reason for reasons in registry.failures.values() for reason in reasons)
    return {"error": failures or None, "devices": devices, "targets": targets}


def _main(plugin_id: str) -> None:
    import warnings

    from tinycore.plugin.hooks import resolve
    from tinycore.plugin.registry import installed

    warnings.simplefilter("ignore")
    plugin = next(plugin for plugin in installed() if plugin.id == plugin_id and plugin.usable)
    start = time.perf_counter()
    try:
        resolve(plugin.package)
        for entry in plugin.manifest.exports.values() if plugin.manifest else ():
            resolve(entry)
        milliseconds = round((time.perf_counter() - start) * 1e3, 1)
        answer = {"import_ms": milliseconds, **_try_devices(plugin)}
    except (Exception, SystemExit) as error:  # noqa: BLE001  the point is to report whatever it is
        answer = {"error": _describe(error)}
    print(f"\n{_MARK}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])

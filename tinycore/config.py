"""All settings, in one typed place.

Settings come from the environment once, and can be overridden for a block of code:

>>> from tinycore.config import config, override
>>> with override(debug=2):
...     config().debug
2

No other module reads `os.environ`; a test holds this.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tinycore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a process. Field metadata is in `ENVIRONMENT`."""

    debug: int = 0
    """0 silent .. 2 one line a kernel, 3 plus tiling actions, 4 plus code, 5 plus every pass."""
    device: str | None = None
    """Name of the default device; None lets priorities decide."""
    validate: bool = False
    """Check every pass against the interpreter."""
    cache: bool = True
    """Keep compiled kernels on disk."""
    cache_directory: Path | None = None
    """Where; None means the user's cache directory."""
    cache_bytes: int = 1 << 30
    """Size limit of the disk cache; the least recently used entries go first."""
    config_directory: Path | None = None
    """Where `tinycore plugins disable` remembers; None means the user's configuration directory."""
    threads: int | None = None
    """CPU threads; None means all cores of the process."""
    plugins: tuple[str, ...] | None = None
    """Allow-list of plugin ids; None allows all."""
    disabled_plugins: tuple[str, ...] = ()
    """Plugin ids that are ignored."""
    strict_plugins: bool = False
    """Raise when any plugin fails, instead of recording it."""
    shuffle_passes: int | None = None
    """Seed for a random order of passes that declare no order (CI)."""
    seed: int | None = None
    """Seed of the random numbers when the program sets none."""
    search: int = 0
    """Seconds that a search may measure tilings in this process; 0 measures nothing, and uses what is known."""


ENVIRONMENT: Mapping[str, str] = {
    "debug": "DEBUG",
    "device": "DEV",
    "validate": "TINYCORE_VALIDATE",
    "cache": "TINYCORE_CACHE",
    "cache_directory": "TINYCORE_CACHE_DIR",
    "cache_bytes": "TINYCORE_CACHE_BYTES",
    "config_directory": "TINYCORE_CONFIG_DIR",
    "threads": "TINYCORE_THREADS",
    "plugins": "TINYCORE_PLUGINS",
    "disabled_plugins": "TINYCORE_DISABLE",
    "strict_plugins": "TINYCORE_STRICT_PLUGINS",
    "shuffle_passes": "TINYCORE_SHUFFLE_PASSES",
    "seed": "TINYCORE_SEED",
    "search": "TINYCORE_SEARCH",
}
"""The environment variable of each setting."""


def _parse(name: str, text: str) -> object:
    kind = {f.name: str(f.type) for f in fields(Config)}[name]
    try:
        if kind.startswith("int"):
            return int(text)
        if kind == "bool":
            return {"0": False, "1": True, "": False}[text]
        if kind.startswith("tuple"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return Path(text) if kind.startswith("Path") else text
    except (ValueError, KeyError):
        wanted = "0 or 1" if kind == "bool" else "an integer"
        raise ConfigError(
            f"{ENVIRONMENT[name]}={text!r} is not {wanted}",
            hint=f"unset {ENVIRONMENT[name]} or give it {wanted}",
        ) from None


def from_environment(environment: Mapping[str, str] | None = None) -> Config:
    """The settings that environment variables ask for. Raises ConfigError for a bad value."""
    source = os.environ if environment is None else environment
    found = {
        name: _parse(name, source[variable]) for name, variable in ENVIRONMENT.items() if source.get(variable)
    }
    return Config(**found)  # type: ignore[arg-type]


_current: ContextVar[Config | None] = ContextVar("tinycore_config", default=None)
_process: Config | None = None


def config() -> Config:
    """The settings in force here."""
    global _process
    current = _current.get()
    if current is not None:
        return current
    if _process is None:
        _process = from_environment()
    return _process


def set_default(**changes: object) -> None:
    """Change settings for the rest of the process (what `Device.DEFAULT = ...` does)."""
    global _process
    _process = replace(_process or from_environment(), **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def override(**changes: object) -> Iterator[Config]:
    """Change settings for a block of code, in this thread or task only."""
    token = _current.set(replace(config(), **changes))  # type: ignore[arg-type]
    try:
        yield config()
    finally:
        _current.reset(token)


def user_cache_directory() -> Path:
    """Where this user's caches live by the platform's convention (not created here).

    `XDG_CACHE_HOME` when it is an absolute path, else `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on
    Windows and `~/.cache` everywhere else.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    local = os.environ.get("LOCALAPPDATA")
    if os.name == "nt" and local:
        return Path(local)
    return Path.home() / ".cache"


def user_config_directory() -> Path:
    """Where this user's settings live by the platform's convention (not created here).

    `XDG_CONFIG_HOME` when it is an absolute path, else `~/Library/Application Support` on macOS, `%APPDATA%` on
    Windows and `~/.config` everywhere else.
    """
    given = os.environ.get("XDG_CONFIG_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    roaming = os.environ.get("APPDATA")
    if os.name == "nt" and roaming:
        return Path(roaming)
    return Path.home() / ".config"

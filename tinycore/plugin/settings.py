"""Which plugins the user switched off: one small TOML file in the user's configuration directory.

Nothing here imports or even looks for a plugin, so a plugin that breaks everything can still be disabled.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tinycore.config import config, user_config_directory
from tinycore.errors import ConfigError


def settings_path() -> Path:
    """The file that remembers: `plugins.toml` in `TINYCORE_CONFIG_DIR`, or in the user's own directory."""
    return (config().config_directory or user_config_directory() / "tinycore") / "plugins.toml"


def normalize(name: str) -> str:
    """The id of a plugin, from an id or from the name of its distribution, the way PyPI compares names.

    >>> normalize("tinycore_Backend.CPU")
    'backend-cpu'
    """
    return re.sub(r"[-_.]+", "-", name).lower().removeprefix("tinycore-")


def disabled() -> frozenset[str]:
    """Ids of the plugins that are switched off, by the file or by `TINYCORE_DISABLE`.

    Raises ConfigError when the file is damaged.
    """
    return _remembered() | {normalize(name) for name in config().disabled_plugins}


def _remembered() -> frozenset[str]:
    import tomllib

    path = settings_path()
    try:
        names = tomllib.loads(path.read_text(encoding="utf-8")).get("disabled", [])
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", hint=f"repair it or remove it: rm {path}"
        ) from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"`disabled` in {path} is not a list of plugin ids", hint=f"rm {path}")
    return frozenset(normalize(name) for name in names)


def set_enabled(name: str, enabled: bool) -> bool:
    """Switch a plugin on or off for this user, for good. Returns whether that changed anything.

    The file is replaced in one step: a reader sees the old or the new text, never half of it.
    Raises ConfigError when the file is damaged or cannot be written.
    """
    before = _remembered()
    after = before - {normalize(name)} if enabled else before | {normalize(name)}
    if after == before:
        return False
    import tempfile  # a third of what the start of a process has for imports

    path = settings_path()
    text = "# Written by `tinycore plugins enable` and `disable`.\n"
    text += f"disabled = {json.dumps(sorted(after))}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        hint = "set TINYCORE_CONFIG_DIR to a folder you can write to"
        raise ConfigError(f"{path} cannot be written: {error}", hint=hint) from None
    return True

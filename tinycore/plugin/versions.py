"""Which plugins fit this tinycore: two version numbers, compared at run time.

Plugins depend on the distribution `tinycore` with a lower bound only; whether they fit is decided here. The
plugin interface and the meaning of UOps move separately, so each has its own number.
"""

from __future__ import annotations

from typing import Final

API_VERSION: Final = (1, 0)
"""The plugin interface: a plugin fits when the major numbers agree and its minor number is not newer."""

UOP_SPEC: Final = 1
"""The edition of `specs/uops.md` that this core implements."""


def format_version(version: tuple[int, int]) -> str:
    """The way a manifest spells a version.

    >>> format_version((1, 0))
    '1.0'
    """
    return f"{version[0]}.{version[1]}"


def mismatch(api: tuple[int, int], uop_spec: int | None) -> str | None:
    """Why a plugin built for `api` and `uop_spec` does not fit this core; None when it fits.

    `uop_spec` is None for a plugin that never looks at UOps.

    >>> mismatch((1, 0), 1) is None
    True
    >>> mismatch((2, 0), None)
    'it was built for plugin API 2.0, and this tinycore has 1.0'
    """
    if api[0] != API_VERSION[0] or api[1] > API_VERSION[1]:
        built, here = format_version(api), format_version(API_VERSION)
        return f"it was built for plugin API {built}, and this tinycore has {here}"
    if uop_spec is not None and uop_spec != UOP_SPEC:
        return f"it was built for UOp specification {uop_spec}, and this tinycore has {UOP_SPEC}"
    return None


def remedy(api: tuple[int, int], uop_spec: int | None, distribution: str) -> str:
    """What to type when a plugin does not fit: upgrade whichever of the two is older.

    >>> remedy((1, 9), None, "tinycore-backend-foo")
    'pip install --upgrade tinycore'
    """
    newer = api > API_VERSION or (uop_spec is not None and uop_spec > UOP_SPEC)
    return f"pip install --upgrade {'tinycore' if newer else distribution}"

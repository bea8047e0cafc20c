"""`Device`: which devices there are, and which one is the default."""

from __future__ import annotations


class _Devices:
    @property
    def DEFAULT(self) -> str:  # noqa: N802
        return "SIM"

    def canonical(self, n: str) -> str:
        return n


Device = _Devices()

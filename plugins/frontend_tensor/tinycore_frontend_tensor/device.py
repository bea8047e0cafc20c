"""`Device`: which devices there are, and which one tensors are made on.

>>> from tinycore import Device
>>> Device.DEFAULT in Device.names
True
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tinycore.config import config, set_default
from tinycore.runtime import devices

if TYPE_CHECKING:
    from tinycore.runtime.device import Device as OpenDevice


class Devices:
    """The devices of this process: ``Device.DEFAULT``, ``Device["NAME"]``, ``Device.names``."""

    @property
    def DEFAULT(self) -> str:
        """The name of the device that tensors are made on; may be set."""
        return _default(config().device)

    @DEFAULT.setter
    def DEFAULT(self, name: str) -> None:
        set_default(device=self.canonical(name))

    @property
    def names(self) -> tuple[str, ...]:
        """Every device that could be asked for, the most preferred first."""
        return devices.device_names()

    def canonical(self, name: str) -> str:
        """The one spelling of a device's name. Raises BackendUnavailable for an unknown one."""
        return _canonical(name)

    def __getitem__(self, name: str) -> OpenDevice:
        """The opened device of that name. Raises BackendUnavailable."""
        return devices.get_device(name)

    def __repr__(self) -> str:
        return f"Device(DEFAULT={self.DEFAULT!r}, names={self.names!r})"


@functools.lru_cache(maxsize=64)
def _default(wanted: str | None) -> str:
    return devices.default_device()


@functools.lru_cache(maxsize=256)
def _canonical(name: str) -> str:
    found = devices.canonical_name(name)
    devices.get_device(found)
    return found


Device = Devices()

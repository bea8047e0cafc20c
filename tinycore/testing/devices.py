"""Running cases on devices, through everything that a user's graph goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from tinycore.ir.dtypes import DATA, DType
from tinycore.ir.uop import UOp, substitute
from tinycore.runtime.devices import get_device
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host
from tinycore.testing.compare import Runner
from tinycore.testing.lowered import TARGETS, lowered

Array = NDArray[Any]

PURE = "meaning"
"""Names the interpreter of tensor graphs itself: no scheduler, no device."""
PROGRAM = "program:"
"""Before the name of an imagined target: compiled for it, and the programs interpreted."""


def runner(name: str) -> Runner:
    """What computes graphs on the device of that name, `PURE`, or ``program:`` and a name in `TARGETS`.

    Raises BackendUnavailable when the device cannot be opened.
    """
    if name == PURE:
        from tinycore.interpret import interpret

        return interpret
    if name.startswith(PROGRAM):
        return lowered(TARGETS[name.removeprefix(PROGRAM)])
    device = get_device(name).name

    def run(roots: Sequence[UOp], arrays: Mapping[UOp, Array]) -> list[Array]:
        stored = {node: from_host(array, device, node.dtype) for node, array in arrays.items()}
        results = realize(substitute(roots, stored), device=device)
        return [to_host(result) for result in results]

    return run


def stored_dtypes(name: str) -> tuple[DType, ...]:
    """The dtypes that buffers of a device may have, in the order of the dtype table."""
    if name == PURE:
        return DATA
    if name.startswith(PROGRAM):
        claimed = TARGETS[name.removeprefix(PROGRAM)].capabilities.dtypes
    else:
        claimed = get_device(name).target.capabilities.dtypes
    return tuple([dtype for dtype in DATA if dtype in claimed])

"""TINYCORE_VALIDATE=1 at run time: the first launch of every kernel is compared with the interpreter.

Passes are checked one by one while a kernel is compiled (`tinycore_tools_validate.passes`); this checks what comes
after them: the renderer, the backend's compiler, the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinycore.errors import ValidationError
from tinycore.interpret import interpret_kernel
from tinycore.ir import UOp, ops
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.storage import Bindings, evaluate
from tinycore_tools_validate.samples import (
    APPROXIMATED,
    LARGEST,
    WORK,
    Precision,
    difference,
    nudge,
    signed_zeros,
    within_noise,
)

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_checked: set[tuple[UOp, str]] = set()
DOUBTFUL = 0.01
"""Where floats decide integers (comparisons, indices of maxima), this part of them may come out otherwise."""


def checked_launch(
    kernel: UOp, device: str, buffers: Sequence[Buffer], bindings: Bindings, launch: Callable[[], None]
) -> None:
    """Launch; the first time, compare everything in memory afterwards with what the interpreter makes of it.

    Raises ValidationError. Kernels that are too large to interpret are launched only.
    """
    key = (kernel, device)
    if key in _checked or not _small_enough(kernel, bindings):
        launch()
        return
    _checked.add(key)
    parameters = {int(node.arg[0]): node for node in kernel.toposort() if node.op is ops.PARAM}
    before = {slot: _read(buffers[slot], node, bindings) for slot, node in parameters.items()}
    launch()
    expected = _interpreted(kernel, before, bindings)
    wanted = _precision(kernel)
    for slot, node in parameters.items():
        found = _read(buffers[slot], node, bindings)
        what = difference(expected[slot], found, wanted)
        if what and wanted.noisy:
            nudged = _interpreted(kernel, {k: nudge(array) for k, array in before.items()}, bindings)
            if _undecided(expected[slot], found) or within_noise(
                expected[slot], found, expected[slot], nudged[slot]
            ):
                continue
        if what:
            raise ValidationError(
                f"{device} computed something else than the interpreter: buffer {slot}, {what}",
                where=repr(kernel),
                hint="every pass of this kernel was right: it is the renderer, the backend or its compiler",
            )


def _interpreted(kernel: UOp, before: dict[int, Array], bindings: Bindings) -> dict[int, Array]:
    arrays = {slot: array.copy() for slot, array in before.items()}
    interpret_kernel(kernel, arrays, bindings)
    return arrays


def _precision(kernel: UOp) -> Precision:
    nodes = kernel.toposort()
    if any(node.op is ops.REDUCE and node.dtype.is_float for node in nodes):
        return Precision.REORDERED
    # Devices may contract a * b + c, and need not divide exactly.
    inexact = (*APPROXIMATED, ops.DIV, ops.SQRT, ops.MUL)
    doubtful = any(node.op in inexact and node.dtype.is_float for node in nodes)
    return Precision.APPROXIMATE if doubtful else signed_zeros(nodes)


def _undecided(expected: Array, found: Array) -> bool:
    """Whether integers that floats decided differ in few places only."""
    return expected.dtype.kind in "iub" and bool(
        (expected != found).sum() <= max(1, DOUBTFUL * expected.size)
    )


def _small_enough(kernel: UOp, bindings: Bindings) -> bool:
    total = 0
    for node in kernel.toposort():
        size = 1
        for dim in node.shape if node.op not in (ops.EXPAND, ops.CONST, ops.SINK) else ():
            size *= evaluate(dim, bindings)
        if size > WORK:
            return False
        total += size if node.op is ops.PARAM else 0
    return total <= LARGEST


def _read(buffer: Buffer, parameter: UOp, bindings: Bindings) -> Array:
    import numpy as np

    size = 1
    for dim in parameter.arg[1]:
        size *= evaluate(dim, bindings)
    array = np.empty(size, parameter.dtype.numpy)
    buffer.copy_out(array.view(np.uint8).data)
    return array

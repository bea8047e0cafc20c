"""Outlines: what graphs have in common that differ only in which buffers they use.

>>> from tinycore.ir import UOp, dtypes, ops
>>> a, b = (UOp(ops.BUFFER, dtypes.float32, (), (number, (4,), "X")) for number in (1, 2))
>>> outline([a + b])[0] == outline([b + a])[0], outline([a + b])[0] == outline([a + a])[0]
(True, False)
>>> outline([b + a])[1] == [b, a]
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from tinycore.ir import UOp, ops

Outline: TypeAlias = tuple[Any, ...]
"""Two graphs have equal outlines when numbering their buffers makes them the same nodes."""


def outline(roots: Sequence[UOp]) -> tuple[Outline, list[UOp]]:
    """(outline, inputs): the graph written down from the roots to the leaves, and its BUFFERs as they appear.

    Every node is written once, where it is met first, and is a number from then on. What depends on no buffer
    stands for itself. No node is made: this is what running a known graph again costs.
    """
    written: list[Any] = [len(roots)]
    inputs: list[UOp] = []
    numbers: dict[UOp, int] = {}
    buffer, with_buffers = ops.BUFFER, ops.BUFFER.bit
    stack = [*roots]
    stack.reverse()
    pop = stack.pop
    while stack:
        node = pop()
        if node in numbers:
            written.append(numbers[node])
            continue
        numbers[node] = len(numbers)
        src = node.src
        if src and node.mask & with_buffers:
            written += (node.op, node.dtype, node.arg, len(src))
            stack += src[::-1]
        elif node.op is buffer:
            inputs.append(node)
            written += (buffer, node.dtype, node.arg[1], node.arg[2])
        else:
            written.append(node)
    return tuple(written), inputs

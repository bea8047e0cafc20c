"""Text form (first cut)."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinycore.ir.uop import UOp


def summary(node: UOp) -> str:
    """One line about a node."""
    src = ", ".join(operand.op.name for operand in node.src)
    return f"{node.op.name}[{node.arg!r}]({src}) : {node.dtype}"

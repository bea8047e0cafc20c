"""How the first call grows with the size of a graph: chains, fan-outs, diamonds of elementwise ops.

Constants differ, so that no two ops are the same node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import normal

SIZES = (10, 100, 1000, 10000)
KITS = ("tinycore", "numpy", "torch", "jax", "tinygrad")


def chain(count: int) -> Callable[..., Any]:
    """x -> x * a + b -> ..., `count` ops."""

    def compute(kit: Any, x: Any) -> Any:
        for number in range(count // 2):
            x = x * (0.5 + number / count / 2) + number / count
        return x

    return compute


def fanout(count: int) -> Callable[..., Any]:
    """Many ops that read one value, summed as a balanced tree."""

    def compute(kit: Any, x: Any) -> Any:
        parts = [x * (1 + number / count) for number in range(max(1, count // 2))]
        while len(parts) > 1:
            pairs = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)]
            parts = pairs + parts[2 * len(pairs) :]
        return parts[0]

    return compute


def diamond(count: int) -> Callable[..., Any]:
    """Every value is read twice by the next: exponentially many paths."""

    def compute(kit: Any, x: Any) -> Any:
        for number in range(count // 4):
            part = 0.25 + number / count  # both sides together leave a positive element as it is
            x = x * (1 - part) + kit.relu(x * part)
        return x

    return compute


ROWS = tuple(
    Row(
        f"compile.{kind}.{size}",
        f"{kind} of {size} ops",
        "compile",
        normal((256,)),
        make(size),
        kits=KITS,
        size=size,
        tolerance=1e-3,
        steady=False,
    )
    for kind, make in (("chain", chain), ("fanout", fanout), ("diamond", diamond))
    for size in SIZES
)

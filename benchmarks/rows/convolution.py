"""Convolutions: the design's, a depthwise one, a strided one."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import nbytes, normal

KITS = ("tinycore", "numpy", "torch", "torch.compile", "jax", "onnxruntime", "tinygrad")


def conv_row(
    name: str,
    suite: str,
    image: tuple[int, int, int, int],
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
) -> Row:
    """A convolution with padding that keeps the size (before the stride)."""
    batch, inputs, height, width = image
    weight = (outputs, inputs // groups, kernel, kernel)
    padding = kernel // 2
    out = (
        batch,
        outputs,
        (height + 2 * padding - kernel) // stride + 1,
        (width + 2 * padding - kernel) // stride + 1,
    )

    def compute(kit: Any, x: Any, w: Any) -> Any:
        return kit.conv2d(x, w, stride, padding, groups)

    kind = f"{kernel}x{kernel}" + (f" /{stride}" if stride > 1 else "") + (" depthwise" if groups > 1 else "")
    return Row(
        name=name,
        what=f"conv {'x'.join(map(str, image))}, {outputs} {kind}",
        suite=suite,
        arguments=normal(image, weight),
        compute=compute,
        kits=KITS,
        tolerance=1e-5,
        operations=2.0 * nbytes(out, itemsize=1) * (inputs // groups) * kernel * kernel,
        traffic=nbytes(image, weight, out),
    )


ROWS = (
    conv_row("conv.8x64x56x56", "design", (8, 64, 56, 56), 64, 3),
    conv_row("conv.depthwise", "more", (8, 128, 56, 56), 128, 3, groups=128),
    conv_row("conv.strided", "more", (8, 64, 56, 56), 128, 3, stride=2),
)

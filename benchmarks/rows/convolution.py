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
    dilation: int = 1,
) -> Row:
    """A convolution with padding that keeps the size (before the stride)."""
    batch, inputs, height, width = image
    weight = (outputs, inputs // groups, kernel, kernel)
    padding = dilation * (kernel // 2)
    reach = dilation * (kernel - 1)
    out = (
        batch,
        outputs,
        (height + 2 * padding - reach - 1) // stride + 1,
        (width + 2 * padding - reach - 1) // stride + 1,
    )

    def compute(kit: Any, x: Any, w: Any) -> Any:
        return kit.conv2d(x, w, stride, padding, groups, dilation)

    kind = f"{kernel}x{kernel}" + (f" /{stride}" if stride > 1 else "") + _details(inputs, groups, dilation)
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


def _details(inputs: int, groups: int, dilation: int) -> str:
    kind = " depthwise" if groups == inputs else f" in {groups} groups" if groups > 1 else ""
    return kind + (f" {dilation} apart" if dilation > 1 else "")


def transposed_row(name: str, image: tuple[int, int, int, int], outputs: int, kernel: int) -> Row:
    """A transposed convolution that doubles the size."""
    batch, inputs, height, width = image
    padding = (kernel - 2) // 2

    def compute(kit: Any, x: Any, w: Any) -> Any:
        return kit.conv_transpose2d(x, w, 2, padding)

    return Row(
        name=name,
        what=f"transposed conv {'x'.join(map(str, image))}, {outputs} {kernel}x{kernel} /2",
        suite="more",
        arguments=normal(image, (inputs, outputs, kernel, kernel)),
        compute=compute,
        kits=("tinycore", "numpy", "torch", "tinygrad"),
        tolerance=1e-5,
        operations=2.0 * nbytes(image, itemsize=1) * outputs * kernel * kernel,
        traffic=nbytes(image, (inputs, outputs, kernel, kernel), (batch, outputs, 2 * height, 2 * width)),
    )


ROWS = (
    conv_row("conv.8x64x56x56", "design", (8, 64, 56, 56), 64, 3),
    conv_row("conv.depthwise", "more", (8, 128, 56, 56), 128, 3, groups=128),
    conv_row("conv.strided", "more", (8, 64, 56, 56), 128, 3, stride=2),
    conv_row("conv.depthwise.strided", "more", (8, 96, 56, 56), 96, 3, stride=2, groups=96),
    conv_row("conv.groups", "more", (4, 64, 28, 28), 64, 3, groups=2),
    conv_row("conv.groups.strided", "more", (1, 256, 28, 28), 512, 3, stride=2, groups=32),
    conv_row("conv.apart", "more", (1, 512, 28, 28), 512, 3, dilation=4),
    conv_row("conv.far_apart", "more", (1, 1024, 32, 32), 256, 3, dilation=12),
    conv_row("conv.stem", "more", (1, 3, 224, 224), 64, 7, stride=2),
    conv_row("conv.around", "more", (1, 256, 56, 56), 512, 1, stride=2),
    conv_row("conv.pixels", "more", (1, 2048, 7, 7), 512, 1),
    conv_row("conv.large", "more", (1, 64, 224, 224), 64, 3),
    transposed_row("conv.transposed.2", (4, 64, 28, 28), 64, 2),
    transposed_row("conv.transposed.4", (4, 64, 28, 28), 64, 4),
)

"""Shapes beside those of the design: one more or one less, other batches, odd channels.

Each names the row that it is near. A generic compiler keeps its efficiency there; one that was fitted to the
shapes of a table does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.model import Row
from benchmarks.rows import elementwise, networks, reductions
from benchmarks.rows.convolution import conv_row
from benchmarks.rows.data import nbytes, normal
from benchmarks.rows.matmul import matmul_row

SUITE = "neighbours"
BASE = {row.name: row for rows in (elementwise.ROWS, reductions.ROWS, networks.ROWS) for row in rows}


def _near(base: str, row: Row) -> Row:
    return replace(row, near=base)


def _like(base: str, name: str, what: str, shapes: Sequence[tuple[int, ...]], **work: Any) -> Row:
    """A row of the design on other shapes."""
    return replace(
        BASE[base], name=name, what=what, suite=SUITE, arguments=normal(*shapes), near=base, **work
    )


def _products() -> list[Row]:
    rows = [
        _near(f"matmul.{base}", matmul_row(f"near.matmul.{m}x{k}x{n}", SUITE, m, k, n))
        for base, m, k, n in (
            (512, 511, 511, 511),
            (512, 513, 513, 513),
            (1024, 1023, 1023, 1023),
            (1024, 1025, 1025, 1025),
            (1024, 1000, 1000, 1000),
            (1024, 1024, 1024, 1000),
            (2048, 2047, 2047, 2047),
        )
    ]
    rows += [
        _near("gemv.4096", matmul_row(f"near.gemv.{n}", SUITE, 1, k, n))
        for k, n in ((4095, 4095), (4097, 4097), (4096, 4000))
    ]
    rows += [
        _near("gemv.4096", matmul_row(f"near.gemv.{m}x{k}x{n}", SUITE, m, k, n))
        for m, k, n in (
            (1, 4099, 4099),
            (1, 5000, 3000),
            (1, 100, 160_001),
            (3, 4096, 4096),
            (4096, 4096, 1),
            (4097, 4097, 1),
        )
    ]
    return rows


def _convolutions() -> list[Row]:
    shapes = (
        ((1, 64, 56, 56), 64, 3),
        ((7, 64, 56, 56), 64, 3),
        ((8, 63, 56, 56), 65, 3),
        ((8, 64, 55, 57), 64, 3),
        ((8, 48, 56, 56), 80, 3),
        ((8, 64, 56, 56), 64, 5),
    )
    return [
        _near(
            "conv.8x64x56x56",
            conv_row(
                f"near.conv.{'x'.join(map(str, image))}.{outputs}.{kernel}", SUITE, image, outputs, kernel
            ),
        )
        for image, outputs, kernel in shapes
    ]


def _memory() -> list[Row]:
    rows: list[Row] = []
    for n in ((1 << 24) - 1, (1 << 24) + 1):
        shape = (n,)
        rows += [
            _like("sum.16m", f"near.sum.{n}", f"sum, {n}", [shape], traffic=nbytes(shape)),
            _like("exp.16m", f"near.exp.{n}", f"exp, {n}", [shape], traffic=2 * nbytes(shape)),
            _like(
                "relu_chain.16m",
                f"near.relu_chain.{n}",
                f"relu(a*2+b)*a-b*0.5, {n}",
                [shape, shape],
                traffic=3 * nbytes(shape),
            ),
        ]
    for shape in ((15_999_989,), ((1 << 24) + 43,), (4097, 4097), (3, 5_592_407)):
        name = "x".join(map(str, shape))
        rows.append(
            _like("sum.16m", f"near.sum.{name}", f"sum of everything, {name}", [shape], traffic=nbytes(shape))
        )
    for m, n in ((4095, 4095), (4097, 4097), (4096, 4001)):
        shape, name = (m, n), f"{m}x{n}"
        rows += [
            _like(
                "softmax.4096", f"near.softmax.{name}", f"softmax {name}", [shape], traffic=2 * nbytes(shape)
            ),
            _like(
                "sum.axis0", f"near.sum0.{name}", f"sum over axis 0, {name}", [shape], traffic=nbytes(shape)
            ),
            _like(
                "transpose_add.4096",
                f"near.transpose.{name}",
                f"a.T + b, {name}",
                [shape, (n, m)],
                traffic=3 * nbytes(shape),
            ),
        ]
    for m, n in ((4001, 3999), (5003, 3331), (10007, 1501)):
        shape, name = (m, n), f"{m}x{n}"
        rows.append(
            _like(
                "transpose_add.4096",
                f"near.transpose.{name}",
                f"a.T + b, {name}",
                [shape, (n, m)],
                traffic=3 * nbytes(shape),
            )
        )
    for m, n in ((16411, 1021), (521, 32003)):
        shape, name = (m, n), f"{m}x{n}"
        rows.append(
            _like(
                "softmax.4096", f"near.softmax.{name}", f"softmax {name}", [shape], traffic=2 * nbytes(shape)
            )
        )
    for m, n in ((4095, 1023), (4097, 1025), (4096, 1000), (4001, 1009)):
        shape, name = (m, n), f"{m}x{n}"
        rows.append(
            _like(
                "layernorm.4096x1024",
                f"near.layernorm.{name}",
                f"layernorm {name}",
                [shape, (n,), (n,)],
                traffic=2 * nbytes(shape),
            )
        )
    return rows


def _networks() -> list[Row]:
    rows = []
    for batch in (1, 64, 255, 257):
        rows.append(
            _like(
                "mlp.256",
                f"near.mlp.{batch}",
                f"mlp {batch}x784-512-512-10",
                [(batch, 784)],
                operations=2.0 * batch * networks.MLP_WEIGHTS,
                traffic=nbytes((batch, 784 + 512 + 512 + 10), (networks.MLP_WEIGHTS,)),
            )
        )
    for batch in (2, 8):
        rows.append(
            _like(
                "resnet50.1",
                f"near.resnet50.{batch}",
                f"ResNet-50, batch {batch}",
                [(batch, 3, 224, 224)],
                operations=8.2e9 * batch,
            )
        )
    return rows


def _training() -> list[Row]:
    shapes = [(batch, 28, 32) for batch in (1, 32, 100, 127, 129, 256)]
    shapes += [(128, 27, 32), (128, 29, 32), (128, 28, 31), (128, 28, 33)]
    return [
        replace(
            BASE["train.cnn128"],
            name=f"near.train.{batch}x{size}.{width}",
            what=f"small CNN training step, {batch} images of {size}x{size}, {width} channels",
            suite=SUITE,
            arguments=partial(networks.labelled_images, batch=batch, size=size),
            model=partial(networks.SmallCnn, size=size, width=width),
            near="train.cnn128",
            operations=networks.training_operations(batch, size, width),
        )
        for batch, size, width in shapes
    ]


ROWS = (*_products(), *_memory(), *_convolutions(), *_networks(), *_training())

"""The kernels of the benchmark suite, smaller, on a device with work-groups: the same actions stay right there.

Every computation is a row of `benchmarks`, built by the suite's own builders, compared with numpy in float64 and
with the CPU. Contractions must really go through tiles in local memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kits.tinycore_kit import TinycoreKit
from benchmarks.model import Row
from benchmarks.rows import attention, indexing, networks, reductions
from benchmarks.rows.convolution import conv_row
from benchmarks.rows.data import integers, normal, one
from benchmarks.rows.elementwise import ROWS as ELEMENTWISE
from benchmarks.rows.matmul import matmul_row
from benchmarks.runner import RATE, error_of, layers_of, random_weights, reference_of
from tinycore.config import config, override
from tinycore.errors import BackendUnavailable
from tinycore.ir import ops
from tinycore.runtime.compiler import compile_hooks, forget_loaded
from tinycore.runtime.devices import get_device

pytestmark = [pytest.mark.device, pytest.mark.xdist_group("opencl")]


def row(name, compute, *shapes, tolerance=1e-5, **options):
    arguments = options.pop("arguments", None) or normal(*shapes)
    return Row(name, "", "more", arguments, compute, tolerance=tolerance, **options)


class Block2d:
    """Two bottlenecks of ResNet, the first with a stride."""

    def __init__(self, kit):
        self.blocks = [networks.Bottleneck(kit, 32, 16, 2), networks.Bottleneck(kit, 64, 16, 1)]


# layers_of walks objects of `benchmarks.rows` only
Block2d.__module__ = networks.__name__


def resnet_block(kit, model, x):
    for block in model.blocks:
        y = kit.relu(block.bn1(block.conv1(x)))
        y = kit.relu(block.bn2(block.conv2(y)))
        y = block.bn3(block.conv3(y)) * 0.25
        for layer in block.around:
            x = layer(x)
        x = kit.relu(y + x)
    return x


def by_name(rows):
    return {each.name: each for each in rows}


NAMED = by_name((*ELEMENTWISE, *attention.ROWS, *reductions.ROWS, *indexing.ROWS, *networks.ROWS))


def smaller(name, *shapes, **changes):
    """A row of the suite on smaller arguments."""
    arguments = changes.pop("arguments", None) or normal(*shapes)
    return replace(NAMED[name], arguments=arguments, **changes)


ROWS = (
    *[matmul_row(f"matmul.{m}x{k}x{n}", "more", m, k, n) for m, k, n in ((64, 64, 64), (127, 65, 33))],
    matmul_row("matmul.batched", "more", 33, 48, 40, batch=(3,)),
    *[matmul_row(f"matmul.{t}", "more", 33, 70, 48, t) for t in ("float16", "bfloat16", "float64", "int8")],
    matmul_row("gemv", "more", 1, 300, 200),
    conv_row("conv.3x3", "more", (2, 20, 18, 20), 24, 3),
    conv_row("conv.1x1", "more", (2, 32, 16, 16), 24, 1),
    conv_row("conv.strided", "more", (2, 20, 34, 36), 24, 3, stride=2),
    conv_row("conv.depthwise", "more", (2, 24, 18, 20), 24, 3, groups=24),
    smaller("attention.8x8x256x64", *[(2, 3, 40, 32)] * 3),
    smaller("attention.causal", *[(2, 3, 40, 32)] * 3),
    smaller("softmax.4096", (37, 300)),
    smaller("layernorm.4096x1024", (37, 300), (300,), (300,)),
    smaller("sum.16m", (10007,)),
    smaller("sum.axis0", (300, 70)),
    smaller("argmax.4096", (20, 301)),
    smaller("cumsum.4096x1024", (13, 70)),
    smaller("relu_chain.16m", (5001,), (5001,)),
    smaller("exp.16m", (5001,)),
    smaller("transpose_add.4096", (70, 70), (70, 70)),
    smaller("embedding.8x1024x768", arguments=lambda g: (one(g, (300, 24)), integers(g, 300, (2, 30)))),
    smaller("gather.1m", arguments=lambda g: (one(g, (5000,)), integers(g, 5000, (700,)))),
    smaller("mlp.256", (40, 784)),
    row("resnet.block", resnet_block, (2, 32, 20, 20), model=Block2d, tolerance=1e-4),
    smaller("transformer.block", (2, 20, 64), model=lambda kit: networks.Block(kit, 64, 4, 128)),
    smaller(
        "train.cnn128",
        arguments=lambda g: (one(g, (16, 1, 28, 28)), integers(g, 10, (16,))),
        calls=2,
    ),
)


@dataclass
class Seen:
    """What was compiled: names of kernels, and those of them that stage tiles."""

    kernels: list[str]
    staged: list[str]


@pytest.fixture
def compiled() -> Iterator[Seen]:
    """Every kernel that is compiled; nothing comes from a cache."""
    seen = Seen([], [])

    def look(kernel, program, source):
        if config().device != "CL":
            return
        seen.kernels.append(program.name)
        local = [n for n in program.linear.toposort() if n.op is ops.SCRATCH and n.arg[0] == "local"]
        if len(local) >= 2 and any("stage" in str(action) for action in program.linear.arg or ()):
            seen.staged.append(program.name)

    compile_hooks.append(look)
    forget_loaded()
    with override(cache=False):
        yield seen
    compile_hooks.remove(look)
    forget_loaded()


def function(each, kit, weights):
    """The row's computation. Its model is made on the CPU: drawing weights is not what is tested here."""
    if weights is None:
        return lambda *arguments: each.compute(kit, *arguments)
    with override(device="CPU"):
        model = each.model(kit)
    layers = list(layers_of(model))
    for path, layer in layers:
        for name in ("weight", "bias", "running_mean", "running_var"):
            if f"{path}.{name}" in weights:
                kit.assign(layer, name, weights[f"{path}.{name}"])
    if each.training:
        return kit.trainer(
            [layer for _, layer in layers], lambda *given: each.compute(kit, model, *given), RATE
        )
    return lambda *arguments: each.compute(kit, model, *arguments)


def results(each, device, arguments, weights):
    """What the row's first calls answer on a device."""
    with override(device=device):
        kit = TinycoreKit()
        given = [kit.put(array) for array in arguments]
        body = function(each, kit, weights)
        call = kit.reused(body, None, given) if each.training else kit.fresh(body, given)
        found = [kit.get(call()) for _ in range(each.calls)]
        return found[0] if each.calls == 1 else np.stack(found)


CONTRACTIONS = {
    each.name
    for each in ROWS
    if each.name.startswith(("matmul", "conv", "attention", "mlp", "resnet", "train"))
} - {"conv.depthwise"}


@pytest.mark.parametrize("each", ROWS, ids=lambda each: each.name)
def test_row(each, compiled):
    try:
        get_device("CL")
    except BackendUnavailable as reason:
        pytest.skip(f"no OpenCL here: {reason.what}")
    arguments = each.arguments(np.random.default_rng(3))
    weights = random_weights(each) if each.model is not None else None
    reference = reference_of(each, arguments, weights)
    found = results(each, "CL", arguments, weights)
    kernels, staged = list(compiled.kernels), list(compiled.staged)
    assert error_of(found, reference) <= each.tolerance
    assert kernels, "nothing was compiled for the device"
    if each.name in CONTRACTIONS:
        assert staged, f"no tile is staged in {kernels}"
    other = results(each, "CPU", arguments, weights)
    assert error_of(found, other) <= 2 * each.tolerance

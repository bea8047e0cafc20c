"""`tinycore compile --target NV:...`: from an expression to code that is accepted, and that is right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tinycore_backend_nv import compile_target, nvjitlink

from tinycore.cli import main
from tinycore.cli.compile import KERNELS, programs


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("architecture", ["sm_90", "sm_120"])
def test_built_in_kernels(architecture, kernel, capsys, tmp_path):
    words = ["compile", "--target", f"NV:{architecture}", "--kernel", kernel]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f".target {architecture}" in text and ".visible .entry" in text
    if not nvjitlink.available():
        pytest.skip(nvjitlink.HINT)
    assert main([*words, "--emit", "object", "--output", str(tmp_path)]) == 0
    objects = list(tmp_path.iterdir())
    assert objects and all(path.read_bytes()[:4] == b"\x7fELF" for path in objects)


def test_a_matmul_is_tiled_through_shared_memory(capsys):
    assert main(["compile", "--target", "NV:sm_90", "--kernel", "matmul", "--json"]) == 0
    (kernel,) = json.loads(capsys.readouterr().out)["kernels"]
    assert kernel["group"] == [8, 8] and kernel["grid"] == [16, 16]
    assert kernel["code"].count("fma.rn.f32") == 16 and "ld.shared" in kernel["code"]
    assert "bar.sync" in kernel["code"]


def test_unknown_architectures(capsys):
    assert main(["compile", "--target", "NV:sm_9", "--kernel", "matmul"]) == 1
    assert "did you mean 'sm_90'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Input(40, 36) @ Input(36, 24)", lambda a, b: a @ b),
        ("Input(10, 100).softmax()", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        ("(Input(3, 50) * 2).relu().sum(1)", lambda x: np.maximum(x * 2, 0).sum(1)),
        ("Input(3, 4000).sum()", lambda x: x.sum()),
    ],
)
def test_lowered_kernels_are_right(text, expected, device, load):
    """What a card would compute, by the interpreter, which finds races and stray addresses too."""
    random, values = np.random.default_rng(0), []
    lowered = programs(text, compile_target("sm_90"))
    memories: dict[tuple[int, int], int] = {}
    assert len(lowered) == 1
    (program,) = lowered
    for param in program.parameters:
        size = int(np.prod(param.arg[1]))
        array = random.normal(size=size).astype(np.float32) if param.arg[0] else np.zeros(size, np.float32)
        memory = device.allocator.allocate(array.nbytes)
        device.allocator.copy_in(memory, memoryview(array).cast("B"))
        memories[param.arg[0], 0] = memory
        values.append(array.reshape(param.arg[1]))
    load(program).launch(list(memories.values()), [], list(program.grid))
    answer = np.empty_like(values[0])
    device.allocator.copy_out(memoryview(answer.reshape(-1)).cast("B"), memories[0, 0])
    wanted = expected(*[value.astype(np.float64) for value in values[1:]])
    np.testing.assert_allclose(answer.reshape(np.shape(wanted)), wanted, rtol=1e-4, atol=1e-4)

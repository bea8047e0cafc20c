"""`tinycore compile --target AMD:...`: from an expression to code objects."""

from __future__ import annotations

import json

import pytest

from tinycore.cli import main
from tinycore.cli.compile import KERNELS


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("architecture", ["gfx1100", "gfx942"])
def test_built_in_kernels(architecture, kernel, capsys, tmp_path):
    words = ["compile", "--target", f"AMD:{architecture}", "--kernel", kernel]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"amdgcn-amd-amdhsa--{architecture}" in text and "s_endpgm" in text
    assert main([*words, "--emit", "object", "--output", str(tmp_path)]) == 0
    objects = list(tmp_path.iterdir())
    assert objects and all(path.read_bytes()[:4] == b"\x7fELF" for path in objects)


def test_a_matmul_is_tiled_through_shared_memory(capsys):
    assert main(["compile", "--target", "AMD:gfx1100", "--kernel", "matmul", "--json"]) == 0
    (kernel,) = json.loads(capsys.readouterr().out)["kernels"]
    assert kernel["group"] == [8, 8]
    assert "ds_load" in kernel["code"] and "fmac_f32" in kernel["code"] and "s_barrier" in kernel["code"]
    assert "vgpr_spill_count: 0" in " ".join(kernel["code"].split())


def test_it_compiles_and_does_not_open(capsys):
    from tinycore.errors import BackendUnavailable
    from tinycore.runtime.devices import get_device

    with pytest.raises(BackendUnavailable, match="compiles kernels and cannot run them yet"):
        get_device("AMD")

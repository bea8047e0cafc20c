from __future__ import annotations

import json

import numpy as np
import pytest
from tinycore_tools_explain import to_data
from tinycore_tools_explain.text import View, report

import tinycore
from tinycore import Tensor
from tinycore.cli import main
from tinycore.config import override
from tinycore.errors import TinycoreError
from tinycore.ir import ops
from tinycore.runtime.compiler import forget_loaded
from tinycore.runtime.devices import default_device
from tinycore.runtime.reference import REFERENCE

compiles = pytest.mark.skipif(default_device() == REFERENCE, reason="no device compiles here")
NETWORK = "(Input(8, 6) @ Input(6, 10)).relu().softmax(1)"


def explained(capsys, *words):
    status = main(["explain", *words])
    found = capsys.readouterr()
    assert status == 0, found.err
    return found.out


@compiles
def test_the_whole_way_of_an_expression(capsys):
    text = explained(capsys, "(Tensor([1.0, 2.0]) + 0.5).exp().sum()", "--code")
    for part in (
        "== tensor graph: ",
        "REDUCE[ADD, (0,)]",
        "== passes over the tensor graph",
        "prepare",
        "== schedule: 1 kernel",
        "a kernel because its result was asked for",
        "computes ADD, EXP",
        "reduces axes (0) of (2) by ADD",
        "indexing",
        "ix_param x",
        "(movement.rules:",
        "exp_f32 x1",
        "linearize       program",
        "tiling:",
        "STORE(buffer0",
        "code:",
        "time: ",
        "GFLOP/s",
    ):
        assert part in text, part


@compiles
def test_json_says_the_same(capsys):
    data = json.loads(explained(capsys, NETWORK, "--json", "--no-run"))
    assert data["stages"][0]["name"] == "prepare"
    assert len(data["kernels"]) >= 2
    for number, kernel in enumerate(data["kernels"]):
        assert kernel["number"] == number and kernel["why"] and kernel["code"] and kernel["seconds"] is None
        stages = {stage["name"]: stage for stage in kernel["stages"]}
        assert stages["indexing"]["rules"][0]["count"] >= 1
        assert stages["linearize"]["level"] == "program"
    assert data["kernels"][-1]["why"] == "its result was asked for"
    assert "ADD" in data["kernels"][0]["does"][-2]


@compiles
def test_one_kernel_and_one_stage(capsys):
    text = explained(capsys, NETWORK, "--no-run", "--kernel", "1", "--stage", "decompose")
    assert "== kernel 1:" in text and "== kernel 0:" not in text
    assert "SHL" in text and "SINK[" in text.partition("decompose")[2]
    everything = explained(capsys, NETWORK, "--no-run", "--kernel", "0", "--stage", "all")
    assert everything.count("SINK[") >= 5


@compiles
def test_every_rewrite(capsys):
    text = explained(capsys, "Tensor([1.0, 2.0]).exp()", "--no-run", "--trace")
    assert "ix_param: INDEX(PARAM[(1, (2,))], True, RANGE[(0, 'loop')](2)) -> LOAD[1]" in text


@pytest.mark.parametrize(
    "words, what, hint",
    [
        (["Tensor([1.0]) + 1", "--stage", "prepar"], "there is no stage 'prepar'", "did you mean 'prepare'?"),
        (["Tensor([1.0]) + 1", "--kernel", "3"], "there is no kernel 3", "the kernels are 0 to 0"),
        (["Tensor([1.0]) + 1", "--device", "CPUU"], "unknown device 'CPUU'", "did you mean"),
        (["Tensr([1.0])"], "Tensr", "did you mean"),
        (["1 + 1"], "int cannot be explained", "tinycore.explain"),
        (["Tensor([1.0]) +"], "SyntaxError", "for example"),
    ],
)
def test_mistakes_are_told(words, what, hint, capsys):
    assert main(["explain", *words, "--no-run"]) in (1, 2)
    error = capsys.readouterr().err
    assert what in error and hint in error


def test_stored_values_need_no_kernel(capsys):
    text = explained(capsys, "Tensor([1.0, 2.0])")
    assert "== schedule: 0 kernels" in text


def test_the_interpreter_has_no_code(capsys):
    text = explained(capsys, "Tensor([1.0, 2.0]).exp()", "--device", REFERENCE.lower())
    assert "interpreted: the tensor-level statements" in text and "time: " in text


# --- as a function ----------------------------------------------------------------------------------------


def test_a_tensor_of_the_program_is_explained_and_not_changed():
    x = Tensor(np.arange(6, dtype="float32").reshape(2, 3))
    y = (x * 2).sum()
    before = y.uop
    found = tinycore.explain(y)
    assert y.uop is before
    assert str(found) == repr(found) == report(found, View())
    (kernel,) = found.kernels
    assert kernel.why == "its result was asked for"
    assert kernel.time is not None and kernel.time.seconds > 0
    assert y.item() == 30
    assert json.dumps(to_data(found))


def test_where_in_the_program_a_kernel_comes_from():
    x = Tensor(np.ones((4, 3), "float32"))
    y = x.exp()
    z = y + 1
    (kernel,) = tinycore.explain(z, run=False).kernels
    line = test_where_in_the_program_a_kernel_comes_from.__code__.co_firstlineno
    assert sorted(origin.rpartition("/")[2] for origin in kernel.origins) == [
        f"test_explain.py:{line + 2}",
        f"test_explain.py:{line + 3}",
    ]
    assert f"test_explain.py:{line + 2}" in str(tinycore.explain(z, run=False))


def test_why_values_are_stored():
    x, w = Tensor(np.ones((30, 40), "float32")), Tensor(np.ones((40, 50), "float32"))
    hidden = x @ w
    total = hidden.sum()
    kernels = tinycore.explain([hidden / total, hidden.relu() + total], run=False).kernels
    assert "3 kernels read it, and it would be summed up again in each" in kernels[0].why
    assert [kernel.why for kernel in kernels[-2:]] == ["its result was asked for"] * 2


def test_in_place_changes_are_explained_and_not_run():
    x = Tensor(np.zeros(4, "float32"))
    view = x + 0
    x.assign(x + 1)
    assert x.uop.op is ops.ASSIGN
    found = tinycore.explain(x)
    assert "not timed: it changes a buffer in place" in str(found)
    assert found.kernels[0].why == "it changes a buffer in place"
    assert x.numpy().tolist() == [1, 1, 1, 1] and view.numpy().tolist() == [0, 0, 0, 0]


def test_what_is_no_tensor():
    with pytest.raises(TinycoreError, match="a str cannot be explained"):
        tinycore.explain("x")


# --- DEBUG ------------------------------------------------------------------------------------------------


@compiles
def test_debug_levels_add_to_each_other(capsys):
    texts = []
    for debug in range(6):
        with override(debug=debug, cache=False):
            forget_loaded()
            (Tensor(np.ones((64, 64), "float32")).exp() + 1).numpy()
        texts.append(capsys.readouterr().out)
    assert texts[0] == ""
    assert "schedule: 1 kernels" in texts[1] and "GFLOP/s" not in texts[1]
    assert "GFLOP/s" in texts[2] and " ms compiled" in texts[2] and "bind" not in texts[2]
    assert "bind" in texts[3] and "ret void" not in texts[3]
    assert len(texts[4]) > len(texts[3]) + 200 and "--- indexing" not in texts[4]
    assert "--- indexing (kernel" in texts[5] and "--- prepare (tensor" in texts[5]

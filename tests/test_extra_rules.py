"""Rules from outside, a person's and a plugin's: they take part at their stage, and only there and then."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

import tinycore
from tinycore import Tensor, extra_rules
from tinycore.cli import main
from tinycore.config import override
from tinycore.errors import CompileError, RuleError
from tinycore.ir import Target, UOp, dtypes, ops
from tinycore.rules import active_extra
from tinycore.runtime import compiler
from tinycore.runtime.devices import default_device
from tinycore.runtime.environment import PassSpec, RuleSource, environment, override_environment
from tinycore.runtime.joined import joined, lowering_digests, lowering_key, schedule_doors
from tinycore.runtime.reference import REFERENCE

compiles = pytest.mark.skipif(default_device() == REFERENCE, reason="no device compiles here")

# x - y becomes something that is easily told from it, so that a test sees in the numbers what took part.
SPOILED = "group mine(bottom_up) {stage} {{ {name}: x:Float - y => x + y * {by} }}"


def rules(folder: Path, stage: str = "", by: float = 2.0, name: str = "spoil") -> Path:
    path = folder / "mine.rules"
    path.write_text(SPOILED.format(stage=stage and f"@stage({stage})", by=by, name=name))
    return path


def difference():
    """5 - 3, on the default device; never the same graph twice, so nothing is remembered but code."""
    return float((Tensor([5.0]) - Tensor([3.0])).numpy()[0])


STAGES = ("tensor", "kernel", "tile", "late", "program")


@pytest.mark.parametrize("stage", [s if s == "tensor" else pytest.param(s, marks=compiles) for s in STAGES])
def test_rules_take_part_at_their_stage_inside_the_block_only(stage, tmp_path):
    assert difference() == 2
    with extra_rules(rules(tmp_path, stage)):
        assert difference() == 11
        assert len(active_extra(stage)) == 1
        assert sum(len(active_extra(other)) for other in STAGES) == 1
    assert difference() == 2
    assert active_extra(stage) == ()


def test_the_default_stage_is_tensor_and_an_argument_says_otherwise(tmp_path):
    path = rules(tmp_path)
    with extra_rules(path):
        assert len(active_extra("tensor")) == 1
    with extra_rules(path, "late"):
        assert len(active_extra("late")) == 1
    with pytest.raises(RuleError, match="did you mean 'kernel'"), extra_rules(path, "kernal"):
        pass


def test_blocks_nest_and_the_outer_one_goes_first(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    for folder in (outer, inner):
        folder.mkdir()
    with extra_rules(rules(outer, by=3.0)):
        assert difference() == 14
        with extra_rules(rules(inner, by=4.0)):
            assert difference() == 14
        with extra_rules(rules(inner, by=4.0)), extra_rules(rules(inner, by=4.0)):
            assert difference() == 14


@pytest.mark.parametrize("stage", ["tensor", pytest.param("late", marks=compiles)])
def test_an_edited_file_is_never_met_with_old_schedules_or_old_code(stage, tmp_path):
    with override(cache=True, cache_directory=tmp_path / "cache"):
        for by, expected in ((2.0, 11), (4.0, 17), (2.0, 11)):
            with extra_rules(rules(tmp_path, stage, by)):
                assert difference() == expected
        compiler.forget_loaded()  # from now on code comes from the disk
        for by, expected in ((4.0, 17), (2.0, 11)):
            with extra_rules(rules(tmp_path, stage, by)):
                assert difference() == expected
        assert difference() == 2


def test_other_threads_are_not_touched(tmp_path):
    found = []
    with extra_rules(rules(tmp_path)):
        thread = threading.Thread(target=lambda: found.append(active_extra("tensor")))
        thread.start()
        thread.join()
    assert found == [()]


def test_a_pass_of_a_file_runs_instead_of_its_groups(tmp_path):
    path = tmp_path / "mine.rules"
    path.write_text(
        "group a(bottom_up) { one: x:Float - y => x + y }\ngroup b(bottom_up) { two: x:Float + y => x * y }\n"
        "pass both = bottom_up(a) ; bottom_up(b)\n"
    )
    with extra_rules(path):
        assert [door.id for door in schedule_doors()["tensor"]] == ["both"]
        assert difference() == 15


# --- what kernels are remembered by -----------------------------------------------------------------------


def keys(path):
    kernel = UOp(ops.SINK, dtypes.void, (), None)
    with extra_rules(path):
        return lowering_key(), tuple(lowering_digests()), compiler.cache_key(kernel, Target("X"))


def test_keys_follow_content_and_stage(tmp_path):
    first = keys(rules(tmp_path, "late"))
    assert keys(rules(tmp_path, "late")) == first  # another object, the same content
    for stage, by in (("late", 5.0), ("kernel", 2.0)):
        assert all(old != new for old, new in zip(first, keys(rules(tmp_path, stage, by)), strict=True))
    inside = keys(rules(tmp_path, "tensor"))
    assert inside == (
        lowering_key(),
        tuple(lowering_digests()),
        inside[2],
    )  # decides which kernels, not their code


# --- plugins ----------------------------------------------------------------------------------------------


def with_environment(**changes):
    known = environment()
    fields = {"backends": known.backends, "passes": known.passes, "rules": known.rules, **changes}
    return override_environment(type(known)(**fields))


@pytest.mark.parametrize("stage", ["tensor", pytest.param("kernel", marks=compiles)])
def test_rule_files_of_plugins_take_part(stage, tmp_path):
    source = RuleSource(rules(tmp_path), stage, "someone.mine")
    with with_environment(rules={stage: (source,)}):
        assert [door.id for door in joined().doors[stage]][-1] == "mine"
        assert difference() == 11
    assert difference() == 2


def test_a_stage_in_the_file_of_a_plugin_counts_more_than_its_manifest(tmp_path):
    source = RuleSource(rules(tmp_path, "late"), "kernel", "someone.mine")
    with with_environment(rules={"kernel": (source,)}):
        assert "mine" in [door.id for door in joined().doors["late"]]
        assert "mine" not in [door.id for door in joined().doors["kernel"]]


def test_rule_files_inside_a_package_may_declare_natives(tmp_path, monkeypatch):
    package = tmp_path / "natives_for_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text("def bigger(c):\n    return c + 7.0\n")
    (package / "mine.rules").write_text(
        "native bigger(c: any) -> any pure\ngroup mine(bottom_up) { r: x:Float - $c => x + bigger(c) }\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with with_environment(rules={"tensor": (RuleSource(package / "mine.rules", "tensor", "p.mine"),)}):
        assert (Tensor([5.0]) - 3.0).numpy()[0] == 15


def test_passes_of_plugins_at_the_tensor_stage(tmp_path):
    seen = []

    def swap(sink, context):
        seen.append(context.device)
        return sink.substitute({n: n.replace(src=n.src[::-1]) for n in sink.toposort() if n.op is ops.SUB})

    with with_environment(passes={"tensor": (PassSpec("swap", "tensor", swap),)}):
        assert difference() == -2
    assert seen == [default_device()]
    wrong = PassSpec("loses", "tensor", lambda sink, context: sink.replace(src=()))
    with (
        with_environment(passes={"tensor": (wrong,)}),
        pytest.raises(CompileError, match="'loses' must answer a SINK of roots"),
    ):
        difference()


# --- the command line -------------------------------------------------------------------------------------


def test_rules_on_the_command_line(tmp_path, capsys):
    path = rules(tmp_path)
    command = ["explain", "Tensor([5.0]) - Tensor([3.0])", "--no-run", "--rules", str(path)]
    assert main(command) == 0
    report = capsys.readouterr().out
    assert re.search(r"^ *mine +tensor", report, re.M) and "spoil x1 (mine.rules:1)" in report
    assert active_extra("tensor") == ()
    path.write_text("group mine(bottom_up) { spoil: MINUS(x) => x }")
    assert main(command) == 1
    assert "there is no op MINUS" in capsys.readouterr().err


def test_rules_take_part_in_compile(tmp_path, capsys):
    name = next((name for name, spec in environment().backends.items() if spec.compile_target), None)
    if name is None:
        pytest.skip("no backend here compiles without a device")
    command = ["compile", "Input(4) - Input(4)", "--target", name, "--emit", "ir"]
    assert main(command) == 0
    plain = capsys.readouterr().out
    assert main([*command, "--rules", str(rules(tmp_path, "late"))]) == 0
    assert capsys.readouterr().out != plain


def test_explain_shows_what_they_changed(tmp_path):
    with extra_rules(rules(tmp_path)):
        found = tinycore.explain(Tensor([5.0]) - Tensor([3.0]), run=False)
    (stage,) = [stage for stage in found.stages if stage.name == "mine"]
    assert [(event.rule.name, event.before.op, event.after.op) for event in stage.events] == [
        ("spoil", ops.SUB, ops.ADD)
    ]
    assert np.isfinite(stage.seconds)

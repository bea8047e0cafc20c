"""explain, trace, coverage and profile: what they say agrees with what the rules did."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tinycore_tools_rules.coverage import measure, page, percent
from tinycore_tools_rules.explain import explain
from tinycore_tools_rules.infix import infix
from tinycore_tools_rules.instrument import counting, functions_of, profiling
from tinycore_tools_rules.sources import open_source
from tinycore_tools_rules.workload import in_force

from tinycore import rules
from tinycore.cli import main
from tinycore.ir import UOp, dtypes, ops

MINE = """\
group mine(fixpoint) {
  one: x * 1 => x
    why "nothing happens"
  for OP in (MAX|MIN) {
    same: OP(x, x) => x
  }
  never: x - x => 0
}
group grad(vjp) { vjp MUL(a, b) -> g => (g * b, g * a) }
group text(render) {
  render ADD(a, b) => "({a} + {b})"
  render MUL(a, b) => "({a} * {b})"
}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.rules"
    path.write_text(MINE)
    return path


def leaf(slot: int) -> UOp:
    return UOp(ops.PARAM, dtypes.int32, (), (slot, ()))


def apply_all(module: rules.RuleModule) -> None:
    """One rewrite of three kinds, one gradient, one rendering."""
    x, y = leaf(0), leaf(1)
    bigger = UOp(ops.MAX, dtypes.int32, (x * 1, x))
    assert module.groups["mine"](bigger) is x
    assert module.gradients[ops.MUL](x * y, y) == (y * y, y * x)
    assert module.renders["text"](x + y, lambda node: "a" if node is x else "b") == "(a + b)"


def test_coverage_counts_rules_of_every_kind(mine: Path) -> None:
    source = open_source(str(mine))
    code = source.module.code
    before = {name: function.__code__ for name, function in functions_of(code).items()}
    with counting([code]) as counters:
        apply_all(source.module)
        with rules.trace() as traced:
            apply_all(source.module)
    (covered,) = measure([(source, code)], counters)
    states = {line.name.partition("_")[0] + str(line.line): line.state for line in covered.lines}
    assert states == {
        "one2": "fired", "same5": "partly", "never7": "missed", "vjp9": "fired", "render11": "fired",
        "render12": "missed",
    }  # fmt: skip
    assert [event.rule.name for event in traced.events] == ["one", "same[MAX]"]
    assert all(line.count in (0, 2) for line in covered.lines)
    assert percent([covered]) == pytest.approx(100 * 4 / 6)
    text = page([covered])
    assert '<span class="row missed"><i>0</i>  never: x - x =&gt; 0</span>' in text
    assert 'class="row partly" title="never: same[MIN]"' in text
    assert {name: function.__code__ for name, function in functions_of(code).items()} == before
    assert "fired" not in code.plain
    apply_all(source.module)
    assert all(line.count in (0, 2) for line in measure([(source, code)], counters)[0].lines)


def test_profile_agrees_with_the_trace() -> None:
    source = open_source("tinycore.passes.algebra")
    kernel = rules.load("tinycore.passes.kernel").passes["simplify"]
    x, y = leaf(0), leaf(1)
    root = (x * 3 + x * 4) * 1 + UOp(ops.MAX, dtypes.int32, (y, y)) * 0 + (y + 0) * (x - x + 2)
    with rules.trace() as traced:
        expected = kernel(root)
    with profiling([(source, source.module.code)]) as profile:
        assert kernel(root) is expected
    fired = Counter({cost.rule.name: cost.fired for cost in profile.costs.values() if cost.fired})
    wanted = Counter(event.rule.name for event in traced.events if event.rule.path == source.path)
    assert fired == wanted and sum(fired.values()) >= 4
    assert all(cost.attempts >= cost.fired for cost in profile.costs.values())
    assert any(cost.attempts and not cost.fired for cost in profile.costs.values())
    assert all(cost.seconds > 0 for cost in profile.costs.values() if cost.attempts)
    assert kernel(root) is expected


def test_files_outside_packages_join_the_compiler(mine: Path) -> None:
    with in_force([str(mine)]) as files:
        assert [item.groups[0].name for item in rules.active_extra("tensor")] == ["mine"]
        assert files[0][1] is rules.active_extra("tensor")[0].groups[0].code
    assert rules.active_extra("tensor") == ()


def test_explain_shows_each_step(mine: Path) -> None:
    module = open_source(str(mine)).module
    found = explain("MAX(x * 1, x) + y where x: int8, y: int8", [module.groups["mine"].alone])
    assert (found.before, found.after) == ("MAX(x * 1, x) + y", "x + y")
    assert [(step.rule.name, step.before, step.after, step.whole) for step in found.steps] == [
        ("one", "x * 1", "x", "MAX(x, x) + y"),
        ("same[MAX]", "MAX(x, x)", "x", "x + y"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "(x + y) * x - (y - x)",
        "-(x * y) + -x",
        "x < y & x",
        "(x < y) == (y <= x)",
        "x // 4 % 3 - -2",
        "CAST[int8](x)",
    ],
)
def test_infix_reads_back_as_the_same_graph(text: str) -> None:
    from tinycore_tools_rules.explain import build

    root, names, _ = build(f"{text} where x: int32, y: int32")
    again, others, _ = build(f"{infix(root, names)} where x: int32, y: int32")
    assert again is root and others == names


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["rules", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_commands(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "explain", "x * 1 where x: int32", "--with", str(mine), "--pass", "mine")
    assert found["after"] == "x" and found["steps"][0]["line"] == 2
    assert found["steps"][0]["why"] == "nothing happens"
    for wrong, hint in (("MAXX(x, y)", "'MAX'"), ("x where x: flot32", "'float32'")):
        assert main(["rules", "explain", wrong, "--with", str(mine)]) == 1
        assert f"did you mean {hint}?" in capsys.readouterr().err
    assert main(["rules", "explain", "x * 1", "--with", str(mine)]) == 0
    assert "why: nothing happens" in capsys.readouterr().out
    assert main(["rules", "explain", "x * 1", "--with", str(mine), "--pass", "mime"]) == 2
    assert "mine" in capsys.readouterr().err

    expression = "Input(4, 4).exp().sum() * 1"
    rewrites = run_json(capsys, "trace", expression)
    assert {row["rule"] for row in rewrites["rewrites"]} >= {"ix_unary[EXP]", "ix_reduce"}
    one = run_json(capsys, "trace", expression, "--rule", "ix_reduce", "--limit", "1")
    assert len(one["rewrites"]) == 1 and one["total"] >= 1

    report = tmp_path / "page.html"
    covered = run_json(
        capsys, "coverage", "tinycore.passes.movement", "--run", expression, "--html", str(report)
    )
    counts = {name: n for rule in covered["files"][0]["rules"] for name, n in rule["counts"].items()}
    assert counts["ix_unary[EXP]"] > 0 and counts["ix_unary[TANH]"] == 0
    assert "ix_reduce" in report.read_text()
    words = ["rules", "coverage", "tinycore.passes.movement", "--run", expression, "--missing"]
    assert main([*words, "--fail-under", "99"]) == 1
    assert "ix_gather did not fire" in capsys.readouterr().out
    assert main([*words, "--fail-under", "1"]) == 0
    assert main(["rules", "coverage"]) == 2

    capsys.readouterr()
    profile = run_json(capsys, "profile", "tinycore.passes.movement", "--run", expression)
    assert {row["rule"]: row["fired"] for row in profile["rules"]}["ix_unary[EXP]"] == counts["ix_unary[EXP]"]


def test_scripts_and_modules_are_workloads(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tinycore import rules\nfrom tinycore.ir import UOp\n"
        "assert __name__ == '__main__'\n"
        "rules.load('tinycore.passes.kernel').passes['simplify'](UOp.variable('n', 0, 7) // 8)\n"
    )
    found = run_json(capsys, "coverage", "tinycore.passes.index", "--run", str(script))
    fired = [rule["rule"] for rule in found["files"][0]["rules"] if rule["state"] == "fired"]
    assert fired == ["div_fits"]
    assert main(["rules", "coverage", "--run", "no_such.py"]) == 2
    assert main(["rules", "coverage", "--run", "-m no_such_module"]) == 2

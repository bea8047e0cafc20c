"""check: mistakes at their place, and rules that can never fire; the commands around it."""

import json

import pytest
from tinycore_tools_rules.check import check, check_text
from tinycore_tools_rules.command import COMMANDS
from tinycore_tools_rules.sources import core_names

from tinycore.cli import main


def findings(tmp_path, text, **options):
    path = tmp_path / "mine.rules"
    path.write_text(text)
    return check(str(path), **options)


def test_all_mistakes_are_found_not_only_the_first():
    text = """group g(fixpoint) {
  one: ADDD(x, y) => x
  fine: x:Int + 0 => x
  two: x + $c => x
  for OP in (MAX|MIN) {
    three: OP(x, x) => y
  }
}
pass p = fixpont(g)
"""
    found = check_text(text, "f.rules")
    assert [item.message for item in found if "never" not in item.message] == [
        "there is no strategy fixpont",
        "there is no op ADDD",
        "c is captured but not used",
        "y is not bound",
    ]
    place = found[1].where.splitlines()
    assert place == ["f.rules:2:8", "  one: ADDD(x, y) => x", "       ^^^^^^^^^^"]
    assert found[1].hint == "did you mean 'ADD'?"


def test_a_file_that_does_not_parse_is_one_finding():
    (found,) = check_text("group g(fixpoint) { one: => }", "f.rules")
    assert (found.severity, found.code) == ("error", "syntax") and "f.rules:1:26" in found.where


SHADOWED = {
    "the same": "a: x * 1 => x\n b: y * 1 => y",
    "a literal": "a: x:Int * $c => x * c * 1\n b: x:Int * 3 => x",
    "a dtype": "a: x:Int + 0 => x\n b: x:int8 + 0 => x",
    "a deeper pattern": "a: -x => x\n b: -(x + y) => x - y",
    "a stronger guard": "a: x:Int // $c if c > 0 => x\n b: x:Int // $c if c > 4 and x.vmin >= 0 => x + c",
    "an order of operands": "a: x + 0 => x\n b: 0 + x => x",
    "a repeated variable": "a: MAX(x, y) => x\n b: MAX(x, x) => x",
    "a repeated variable in both": "a: x:SizedInt + x => x * 2\n b: x:int32 + x => x << 1",
}


def two_groups(rules):
    """Rules of two groups, joined in one pass: within one group the engine itself refuses some of them."""
    first, second = rules.split("\n", 1)
    return f"group f(fixpoint) {{\n {first} }}\ngroup s(fixpoint) {{\n {second} }}\npass g = fixpoint(f + s)"


@pytest.mark.parametrize("name", SHADOWED)
def test_rules_that_never_fire(name, tmp_path):
    (only,) = [item for item in findings(tmp_path, two_groups(SHADOWED[name])) if item.code == "shadowed"]
    assert only.severity == "error" and only.message.startswith("b never fires in g: a matches all")
    assert ":4:3\n" in only.where and "earlier:" in only.where and "@prio" in (only.hint or "")


def test_the_engine_refuses_what_it_sees_within_a_group(tmp_path):
    (found,) = findings(tmp_path, f"group g(fixpoint) {{\n {SHADOWED['the same']}\n}}")
    assert found.severity == "error" and "b" in found.message


REACHABLE = {
    "a guard about something else": "a: n@(x:Int + $c) if n.vmin > 3 => x + c + 0\n b: x:Int + $d if d > 2 => x",
    "another dtype": "a: x:Int + 0 => x\n b: x:Float + 0 => x @fast(nsz)",
    "a weaker guard": "a: x:Int // $c if c > 4 => x\n b: x:Int // $c if c > 0 => x",
    "equal operands first": "a: MAX(x, x) => x\n b: MAX(x, y) => MAX!(y, x)",
    "one order only": "a: ADD!(0, x) => x\n b: x + 0 => x",
    "more attributes": "a: REDUCE[ADD, _](x) => x\n b: REDUCE[MUL, _](x) => x",
    "priority": "a: x * $c => x * c * 1\n b: x * 3 => x @prio(2)",
    "a result that is the node itself": "a: ADD(x, y) => ADD(x, y)\n b: x:Int + 0 => x",
    "what a pass does not accept": "a: x + 0 => x @unsafe(\"an example\")\n b: x:Int + 0 => x",
}  # fmt: skip


@pytest.mark.parametrize("name", REACHABLE)
def test_rules_that_may_fire(name, tmp_path):
    text = REACHABLE[name]
    found = findings(
        tmp_path, f"group g(fixpoint) {{\n {text}\n}}" if name == "priority" else two_groups(text)
    )
    assert not [item for item in found if item.code == "shadowed"], found


def test_shadows_are_looked_for_in_the_composed_pass(tmp_path):
    text = """from tinycore.passes.algebra import algebra
group mine(fixpoint) { again: x:Int * 1 => x }
pass before = fixpoint(mine + algebra)
pass after = fixpoint(algebra + mine)
"""
    (found,) = findings(tmp_path, text)
    assert found.severity == "warning" and "again never fires in after: mul_1" in found.message


def test_dropped_attributes_and_overlaps(tmp_path):
    text = """group g(fixpoint) {
  move: RESHAPE(CONTIGUOUS(x)) => CONTIGUOUS(RESHAPE[x.shape](x))
  kept: FLIP[a](CONTIGUOUS(x)) => CONTIGUOUS(FLIP[a](x))
  one: x * 1 => x
  two: 2 * x:Int => x + x
  three: x:Int * y if y.vmin > 0 => y * x * 1
}"""
    found = findings(tmp_path, text, with_overlaps=True)
    assert [item.code for item in found] == ["dropped", "overlap", "overlap", "overlap"], found
    overlapping = {item.message.split(" may")[0] for item in found[1:]}
    assert overlapping == {"one and two", "one and three", "two and three"}


def test_nothing_is_wrong_with_the_core():
    for name in core_names():
        assert not [item for item in check(name) if item.severity == "error"], name


# --- the command ----------------------------------------------------------------------------------------------


def run(*words):
    try:
        return main(["rules", *map(str, words)])
    except SystemExit as leaving:
        return leaving.code


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.rules"
    path.write_text("group g(fixpoint) { one: x:Int * 1 => x  test a * 1 => a }")
    return path


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.rules"
    path.write_text(
        "group g(fixpoint) { one: x:Int * 2 => x @grows  two: x:Int * 3 => x * x * x  test a * 3 => a }"
    )
    return path


@pytest.mark.parametrize("command", ["check", "verify", "test"])
def test_exit_status_and_json(command, good, bad, capsys):
    if command == "check":
        bad.write_text("group g(fixpoint) { one: x:Int * $c => x }")
    assert run(command, good) == 0
    assert run(command, bad) == 1
    capsys.readouterr()
    assert run(command, bad, "--json") == 1
    assert json.loads(capsys.readouterr().out)


def test_wrong_usage(capsys, good):
    assert run() == 2
    assert run("chek") == 2
    assert "did you mean 'check'?" in capsys.readouterr().err
    assert run("verify", good, "--only", "oen") == 2
    assert "did you mean 'one'?" in capsys.readouterr().err
    assert run("check", "--nonsense") == 2
    assert run("verify", "no/such.rules") == 1


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"termination"}))
def test_help_has_examples(command, capsys):
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown and f"tinycore rules {command}" in shown


def test_what_verify_prints(good, bad, capsys):
    assert run("verify", good) == 0
    shown = capsys.readouterr().out
    assert "1 rules: 1 proved" in shown and "1 of 1 proved (100 %)" in shown
    assert run("verify", bad, "--fresh") == 1
    shown = capsys.readouterr().out
    assert (
        f"{bad}:1: g.one: refuted: the sides differ" in shown and "print(*interpret([before, after]" in shown
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A third party's package of rules with natives, importable in this and in other processes."""
    folder = tmp_path / f"somebodys_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "halves.py").write_text(
        "def half(c):\n    return c // 2 if c % 2 == 0 else None\n\ndef wrong_half(c):\n    return c // 2\n"
    )
    (folder / "halves.rules").write_text(
        """native half(c: int) -> int? pure
native wrong_half(c: int) -> int pure

group right(fixpoint) {
  one: x:Index * $a + x * $b => x * (a + b)               test i * 2 + i * 3 => i * 5 where i: index
  two: (x:Index * $c) // 2 let h = half(c) => x * h       test i * 6 // 2 => i * 3 where i: index
  three: x:Int + 0 => x
  four: x:SizedInt - x => 0
}
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return folder


def test_a_third_partys_package(package, capsys):
    for word in (f"{package.name}.halves", str(package / "halves.rules")):
        assert run("check", word) == 0
        capsys.readouterr()
        assert run("verify", word, "--jobs", "2", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["counts"]["proved"] == 4 and found["rules"][1]["native"]
        assert run("test", word, "--jobs", "2", "--json") == 0
        tested = json.loads(capsys.readouterr().out)
        assert tested["counts"]["inline"] == 2 and tested["counts"]["positive"] == 4
        assert tested["counts"]["commuted"] == 2 and tested["counts"]["random orders"] > 200


def test_a_third_partys_mistakes(package, capsys):
    path = package / "halves.rules"
    path.write_text(path.read_text().replace("let h = half(c)", "let h = wrong_half(c)"))
    assert run("verify", path) == 1
    assert "halves.rules:6: right.two: refuted" in capsys.readouterr().out
    assert run("test", path, "--json") == 1
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert any("right.two (positive): the sides differ" in failure for failure in failures), failures

"""Termination: orders that are found, rules without one, and what is said about them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tinycore_tools_rules.orders import Orientation, loops_of, orient
from tinycore_tools_rules.sources import core_names, open_source

from tinycore.cli import main

Find = Callable[[str], dict[str, Orientation]]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """What is found for every loop of a file, by the name of the pass or group."""

    def oriented(text: str) -> dict[str, Orientation]:
        path = tmp_path / "mine.rules"
        path.write_text(text)
        source = open_source(str(path))
        open_source.cache_clear()
        return {name: orient(name, rows, source.name) for name, rows in loops_of(source.module)}

    return oriented


def group(rules: str, strategy: str = "fixpoint") -> str:
    return f"group g({strategy}) {{\n{rules}\n}}"


def names(found: Orientation) -> list[str]:
    return [item.unit.name for item in found.open]


def test_an_order_is_found(find: Find) -> None:
    found = find(
        group("""
  a: x:Int * $a + x * $b => x * (a + b)
  b: (x:SizedInt + $a) * $b => x * b + (a * b)
  d: ADD!(c@CONST(), x) if not x.is_const => ADD(x, c)
  e: -(x:Int - y) => y - x
  f: (x:Int % $a) // $b if a > 0 and b > 0 and a % b == 0 => (x // b) % (a // b)
  g: x:Int <= y if x.vmin > 3 => { z = y - x; 0 < z if x.vmax > 7 else true }
  h: SINK(*a, SINK(*b), *c) => SINK(*a, *b, *c)""")
    )["g"]
    assert (names(found), found.kind) == ([], "Knuth-Bendix") and len(found.oriented) == 7
    assert found.precedence.index("MUL") < found.precedence.index("ADD")
    assert found.weights["CONST"] == 1 and found.precedence[-1] == "CONST"


@pytest.mark.parametrize(
    "rules",
    [
        "a: x:SizedInt - $c => x + (-c)\n b: x:SizedInt + $c => x - (-c)",
        "a: NEG(x:Float) => x * -1\n b: x:Float * -1 => NEG(x)",
        "a: NEG(x:Float) => 0 - x @fast(nsz)\n b: 0 - x:Float => x * -1 @fast(nsz)\n c: x:Float * -1 => NEG(x)",
    ],
)
def test_one_rule_of_a_loop_is_named_with_those_it_goes_against(find: Find, rules: str) -> None:
    found = find(group(rules) + "\npass p = fixpoint(g) @accept(nsz)")["p"]
    (item,) = found.open
    others = {unit.name for unit in found.oriented}
    assert {unit.name for unit in item.against} == others
    assert {*others, item.unit.name} == set(re.findall(r"(\w): ", rules))
    assert all(name in item.reason for name in others)


def test_a_conflict_leaves_out_what_has_nothing_to_do_with_it(find: Find) -> None:
    found = find(
        group(
            "z: x:Int * 1 => x\n a: x - $c => x + (-c)\n y: MAX(x, x) => x\n b: x + $c => x - (-c)\n w: -(-x) => x"
        )
    )["g"]
    (item,) = found.open
    assert (item.unit.name, [unit.name for unit in item.against]) == ("b", ["a"])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("MAX(x, y) => MAX(y, MIN(x, x))", "x stands more often"),
        ("x:Int + y => (x - 1) + (y + 1)", "not smaller in any order"),
        ("MAX(x, y) => MAX(y, x)", "not smaller in any order"),
        ("x:Int + y => x + y + 0", "not smaller in any order"),
    ],
)
def test_reasons(find: Find, rule: str, reason: str) -> None:
    (item,) = find(group(f"r: {rule}\n other: x:Int * 1 => x"))["g"].open
    assert item.unit.name == "r" and reason in item.reason and not item.against


def test_rules_that_replace_an_op_repeat_variables(find: Find) -> None:
    found = find(group("a: MAX(x:Int, y) => WHERE(x < y, y, x)\n b: WHERE(c, x, x) => x"))["g"]
    assert (names(found), found.kind) == ([], "lexicographic path")
    assert found.precedence.index("MAX") < found.precedence.index("WHERE")


def test_lists_of_new_nodes_have_no_weight_but_a_place(find: Find) -> None:
    pushed = "INDEX(NEG(x), *i) => NEG(INDEX(x, *[k + 0 for k in i]))"
    found = find(group(f"a: {pushed}", "top_down"))["g"]
    assert (names(found), found.kind) == ([], "lexicographic path")
    back = "x + y => y + (x * (x + y))\n c: SINK(*a) => SINK(*[NEG(k) for k in a])"
    reasons = {item.unit.name: item.reason for item in find(group(f"a: {pushed}\n b: {back}"))["g"].open}
    assert set(reasons) == {"b", "c"}


def test_a_guard_may_say_that_an_operand_is_no_constant(find: Find) -> None:
    rule = "a: ADD!(c@CONST(), x) {} => ADD(x, c)"
    assert not find(group(rule.format("if not x.is_const")))["g"].open
    assert names(find(group(rule.format("")))["g"]) == ["a"]


def test_every_branch_and_every_op_has_to_be_smaller(find: Find) -> None:
    assert not find(group("a: x:Int - y => (x if x.vmin > 2 else -y) + 0 if x.vmax > 3 else y"))["g"].open
    assert names(find(group("a: x:Int - y => x if x.vmin > 2 else (y - x)"))["g"]) == ["a"]
    # MUL may be replaced by SUB, but then SUB must not be replaced by MUL
    assert names(find(group("a: -((MUL|SUB)(x:Int, y)) => -(x * y)"))["g"]) == ["a"]
    assert not find(group("a: -((MUL|SUB)(x:Int, y)) => x - y"))["g"].open


def test_growing_rules_say_so(find: Find) -> None:
    found = find(group("a: x:Int + y => (y + x) + 0 @grows\n b: x:Int * 1 => x"))["g"]
    assert [unit.name for unit in found.grows] == ["a"] and not found.open


def test_what_says_that_it_grows_but_does_not(find: Find) -> None:
    found = find(
        group("a: x:Int + 0 => x @grows\n b: x:Int * 1 => x\n c: MAX(x, y) => MAX(y, MIN(x, x)) @grows")
    )["g"]
    assert [unit.name for unit in found.needless] == ["a"]
    loop = find(group("a: -x:Float => x * -1 @grows\n b: x:Float * -1 => -x"))["g"]
    assert not loop.needless  # it is smaller in some order, but not in one for both
    whole = find("group g(fixpoint) @grows { a: x:Int + 0 => x }")["g"]
    assert [unit.name for unit in whole.grows] == ["a"] and not whole.needless


def test_what_runs_once_needs_no_order_unless_it_is_repeated(find: Find) -> None:
    one, two = (
        "group one(bottom_up) { there: -x:Int => x * -1 }",
        "group two(bottom_up) { back: x:Int * -1 => -x }",
    )
    assert find(f"{one}\n{two}\npass p = one ; two") == {}
    found = find(f"{one}\n{two}\npass p = fixpoint(one ; two)\npass q = p ; one")
    assert {name: names(item) for name, item in found.items()} == {"p": ["back"], "q": ["back"]}


def test_in_a_composed_pass_the_rules_of_others_come_first(find: Find) -> None:
    imported = "from tinycore.passes.algebra import algebra\n"
    mine = group("a: x:SizedInt + $c => x - (-c)")
    found = find(f"{imported}{mine}\npass p = fixpoint(g + algebra)")["p"]
    (item,) = found.open
    assert (item.unit.name, [unit.name for unit in item.against]) == ("a", ["sub_const"])


def test_large_results_are_refused_in_no_time(find: Find) -> None:
    doubled = " ".join(f"let v{k + 1} = v{k} + v{k}" for k in range(200))
    (item,) = find(group(f"a: NEG(v0:Int) {doubled} => v200"))["g"].open
    assert "nodes" in item.reason


def run(*words: object) -> int:
    return main(["rules", "termination", *map(str, words)])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.rules"
    path.write_text(
        "group g(fixpoint) {\n  a: x:SizedInt - $c => x + (-c)\n"
        "  for OP in (MAX|MIN) { b: OP(x, y) => OP(y, x) }\n  c: x:SizedInt + $c => x - (-c)\n}"
    )
    assert run(path) == 1
    text = capsys.readouterr().out
    assert "1 rule gets smaller, 3 are open" in text
    assert "mine.rules:3:25: b[MAX] (and 1 more form of it): its result is not smaller" in text
    assert "mine.rules:4:3: c: no order" in text and f"    {path}:2:3: a\n" in text and "@grows" in text
    assert run(path, "--json") == 1
    (stage,) = json.loads(capsys.readouterr().out)
    assert stage["open"][-1]["against"] == [{"rule": f"{path}:g.a", "where": f"{path}:2:3"}]
    assert run("tinycore.passes.index", "--order", "--trusted") == 0
    text = capsys.readouterr().out
    assert "precedence: " in text and "weights: " in text and ": native " in text
    path.write_text(
        'group g(fixpoint) { a: x:Int + y => y + (x + 0) @grows("because")  b: x * 1 => x @grows }'
    )
    open_source.cache_clear()
    assert run(path, "--grows") == 0
    text = capsys.readouterr().out
    assert "a: because" in text and "b: @grows is not needed" in text
    assert run(path, "--json") == 0
    (stage,) = json.loads(capsys.readouterr().out)
    assert [each["reason"] for each in stage["grows"]] == ["because", ""] and len(stage["needless"]) == 1
    path.write_text("group g(fixpoint) { a: x:Int + y => y + x @grows(3) }")
    open_source.cache_clear()
    assert run(path) == 1 and "a reason" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--help")
    assert "tinycore rules termination my.rules" in capsys.readouterr().out
    assert run("tinycore.passes.indx") == 1
    assert "did you mean" in capsys.readouterr().err


def test_the_core_comes_to_an_end() -> None:
    """Every rule of the core gets smaller, is made by a native, or says that it grows."""
    count = 0
    for name in core_names():
        source = open_source(name)
        for stage, rows in loops_of(source.module):
            found = orient(stage, rows, name)
            assert [(item.unit.where, item.reason) for item in found.open] == []
            count += len(found.oriented)
    assert count > 400


def test_a_reader_that_has_seen_enough_is_no_trouble() -> None:
    command = f"{sys.executable} -m tinycore.cli rules termination tinycore.passes.index --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""

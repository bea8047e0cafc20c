"""Derived tests, random orders and seeded faults: they find what is wrong, and only that."""

import dataclasses

import pytest
from tinycore_tools_rules.derive import derive
from tinycore_tools_rules.fuzz import fuzz
from tinycore_tools_rules.mutate import OPERATORS, draw, judge, mutants
from tinycore_tools_rules.sources import core_names, open_source, units_of

from tinycore.ir.ops import ops


def kinds(unit):
    return {result.kind: result.problem for result in derive(unit)}


def test_derived_tests_of_a_right_rule(units):
    (unit,) = units("r: x:Int * $a + x * $b if a > 0 => x * (a + b)")
    assert kinds(unit) == {"positive": "", "commuted": "", "guard-false": ""}
    (unit,) = units("r: x:Float - y => x + (-y)")
    assert kinds(unit) == {"positive": ""}
    (unit,) = units("r: FLIP[a](FLIP[=a](x)) => x")
    assert kinds(unit) == {"positive": ""}
    (unit,) = units("vjp SIN(x) -> g => (g * COS(x))", "group g(vjp)")
    assert kinds(unit) == {"positive": ""}


def test_derived_tests_of_wrong_rules(units):
    (unit,) = units("r: x:Int - y => y - x")
    assert kinds(unit)["positive"] == "the sides differ"
    (unit,) = units("r: x:Int + $c if c > 3 and c < 2 => x")
    assert kinds(unit)["positive"] == "no instance was found that matches"


def test_a_missing_order_is_found(units, monkeypatch):
    (unit,) = units("r: x:Int + (-y) => x - y")
    functions = unit.table()[ops.ADD]

    def forgetful(node, context):
        return functions[0](node, context) if node.src[1].op is ops.NEG else None

    monkeypatch.setattr(type(unit), "table", lambda self, **changes: {ops.ADD: (forgetful,)})
    assert kinds(unit)["commuted"] == "the rule misses an order of operands"


def test_guards_that_are_not_asked_are_found(units, monkeypatch):
    (unit,) = units("r: x:Int + $c if c > 3 => x - (0 - c)")
    (careless,) = units("r: x:Int + $c => x - (0 - c)")
    table, real = careless.table(), type(unit).table

    def compiled(self, **changes):
        return table if "unary" not in repr(self.rule.clauses).lower() else real(self, **changes)

    monkeypatch.setattr(type(unit), "table", compiled)
    assert kinds(unit)["guard-false"] == "the rule matches where its guard fails"


def test_random_orders_keep_the_meaning():
    found = fuzz(units_of(open_source("tinycore.passes.algebra")), 150)
    assert (found.problem, found.graphs) == ("", found.graphs) and found.changed > 80


def test_random_orders_find_what_one_rule_does_to_another(units):
    text = "a: x:Int * 2 => x << 1\n b: x:Int << 1 => x * 2 + (x - x)\n c: MAX(x:Int, y) if x.vmin > 3 => x"
    found = fuzz(units(text), 300)
    assert found.problem == "rules in another order change the meaning"
    assert "print(*interpret([before, after]" in found.refutation


MUTATED = """group g(fixpoint) {
  r: (x:Index * $a + y) // $b if b > 0 and a % b == 0 => x * (a // b) + y // b
  s: x:Int - (-y) => x + y
}"""


def test_every_operator_makes_its_fault(units):
    made = {mutant.operator for unit in units(MUTATED) for mutant in mutants(unit)}
    assert made == set(OPERATORS) - {"lost sign"}
    (unit,) = units("r: x:SizedInt - $c => x + (-c)")
    assert [m.what for m in mutants(unit) if m.operator == "lost sign"] == ["sign lost at 2:28"]


def test_faults_are_caught_and_equivalents_told_apart(units):
    unit = units(MUTATED)[0]
    outcomes = [judge(unit, mutant) for mutant in mutants(unit)]
    survived = [item for item in outcomes if item.outcome == "survived"]
    assert sum(item.outcome == "caught" for item in outcomes) >= 12 and len(survived) <= 1, survived
    (unit,) = units("r: x:Int + $c if not x.is_const => x - (0 - c)")
    (same,) = [mutant for mutant in mutants(unit) if mutant.operator == "dropped guard"]
    assert judge(unit, same).outcome == "equivalent"
    wrong = dataclasses.replace(same, rule=dataclasses.replace(unit.rule, result=(None,)))
    with pytest.raises(AssertionError):
        judge(unit, wrong)
    (unit,) = units("r: SQRT(x:Float) => SQRT(x)*1")
    outcomes = [judge(unit, mutant).outcome for mutant in mutants(unit) if mutant.operator == "wrong dtype"]
    assert outcomes == ["equivalent"]  # the op table knows better than the rule what SQRT takes
    (unit,) = units("r: x:int8 + y => CAST[int8](CAST[int16](x) + CAST[int16](y))")
    outcomes = [judge(unit, mutant).outcome for mutant in mutants(unit) if "CAST[int8]" in mutant.what]
    assert outcomes == ["type error"], outcomes
    (unit,) = units("r: x:Int + $c => x - (0 - c)")
    (wrong,) = [mutant for mutant in mutants(unit) if mutant.what.startswith("x becomes c")]
    assert judge(unit, wrong).outcome in ("type error", "caught")


def test_a_fault_where_nothing_ever_goes_is_equivalent(units):
    (unit,) = units("r: -x:float32 => const(x.dtype, -1 if x.dtype == float32 else 5, x.shape) * x")
    outcomes = {mutant.what: judge(unit, mutant) for mutant in mutants(unit)}
    dead = [outcome for what, outcome in outcomes.items() if what.startswith("5 becomes")]
    assert [(outcome.outcome, outcome.by) for outcome in dead] == [("equivalent", "the same graphs")] * 2
    assert all(o.outcome == "caught" for what, o in outcomes.items() if what.startswith("sign lost"))


def test_faults_in_text_are_caught(units):
    text = """render SUB(a:Float, b) => "({a} - {b})"
render LE(a, b) => "({a} <= {b})"
render n@RANGE(m) => "for (int64 {n} = 0; {n} < {m}; {n}++) {{"
"""
    made = [
        (unit, mutant) for unit in units(text, "group g(render) @language(c)") for mutant in mutants(unit)
    ]
    wanted = {
        "swapped operands",
        "off by one",
        "lost sign",
        "flipped comparison",
        "wrong capture",
        "wrong dtype",
    }
    assert {mutant.operator for _, mutant in made} == wanted
    outcomes = [judge(unit, mutant) for unit, mutant in made]
    assert not [item for item in outcomes if item.outcome == "survived"]
    assert sum(item.outcome == "caught" for item in outcomes) >= 12


def test_drawn_faults_are_different_and_the_same_every_time(units):
    several = units(MUTATED)
    drawn = draw(several, 12, 3)
    assert [(unit.name, number) for unit, number in draw(several, 12, 3)] == [(u.name, k) for u, k in drawn]
    assert len({(unit.name, number) for unit, number in drawn}) == 12
    assert len(draw(several, 200, 3)) == sum(len(mutants(unit)) for unit in several)  # there are no more
    assert {unit.name for unit, _ in drawn} == {"r", "s"}


@pytest.mark.slow
def test_most_faults_in_the_core_are_caught():
    """A small sample; the whole figure is made by benchmarks/seeded_faults.py."""
    every = [unit for name in core_names() for unit in units_of(open_source(name))]
    outcomes = [judge(unit, mutants(unit)[number], 1.0) for unit, number in draw(every, 30, 5)]
    caught = sum(item.outcome == "caught" for item in outcomes)
    survived = [item for item in outcomes if item.outcome == "survived"]
    assert caught >= 15 and len(survived) <= 0.1 * (caught + len(survived)), survived

"""The inline tests of every rule file of the core and of the plugins here."""

from pathlib import Path

import pytest
from tinycore_tools_rules.inline import run_inline_tests

from tinycore import rules
from tinycore.errors import RuleCheckError

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path.relative_to(base).with_suffix("").as_posix().replace("/", ".")
    for base in (ROOT, *(ROOT / "plugins").glob("*"))
    for path in base.glob("tinycore*/**/*.rules")
)


@pytest.mark.parametrize("dotted", FILES)
def test_inline_tests_of(dotted):
    package = pytest.importorskip(dotted.split(".")[0], reason="the plugin is not installed")
    assert package is not None
    module = rules.load(dotted)
    assert module.rules
    problems = [str(result) for result in run_inline_tests(module) if not result.passed]
    assert not problems, "\n".join(problems)


def test_the_core_has_rule_files_and_they_have_tests():
    core = [name for name in FILES if name.startswith("tinycore.")]
    assert len(core) >= 5
    assert sum(len(run_inline_tests(rules.load(name))) for name in core) >= 10


def test_inline_tests_can_fail(load):
    module = load("""
      group g(fixpoint) @requires(target) {
        good: x * 1 => x                        test a * 1 => a      test a * 2 => same
        wrong: x:Int + 0 => x                   test a + 0 => a * 1
        never: x:Int - 0 => x                   test a - 0 => a where a: float32
        always: x:Int - x => 0                  test a - a => same
        boom: x:Int // $c if 1 // c == 1 => x   test a // 0 => a
        fma: x * y + z:Float if target.has(FMA) => FMA(x, y, z)
          test a * b + c => FMA(a, b, c) where a: float32, b: float32, c: float32, has FMA
          test a * b + c => same where a: float32, b: float32, c: float32
        for OP in (ADD|MUL) {
          each: OP(NEG(x), y) => OP(x, y)       test OP(-a, b) => OP(a, b)   test -a + b => a + b
        }
      }
      group t(render) {
        render ADD(a, b) => "{a}+{b}"           test x + y => "x+y"  test x + y => "x-y"
      }
      group v(vjp) {
        vjp MUL(a, b) -> g => (g * b, g * a)    test a * b => (g * b, g * a)   test a * b => (g * a, g * b)
      }
    """)
    results = run_inline_tests(module)
    failed = [
        (result.rule.split("_")[0], result.problem.split(" ")[1]) for result in results if not result.passed
    ]
    assert failed == [
        ("wrong", "gives"), ("never", "does"), ("always", "matches"), ("boom", "integer"),
        ("render", "renders"), ("vjp", "gives"),
    ]  # fmt: skip
    assert len(results) == 15


def test_ranges_of_leaves(load):
    module = load("""
      group g(fixpoint) {
        range: x:Int % $c if 0 <= x.vmin and x.vmax < c => x
          test i % 8 => i where i: int64 in 0..7
          test i % 7 => same where i: index in 0..7
          test i % 8 => same where i: index in -1..7
        below: x:Int < 0 if x.vmin >= -3 and x.vmax < 0 => true
          test i < 0 => true where i: int8 in -3..-1
      }
    """)
    assert [result.problem for result in run_inline_tests(module)] == [""] * 4
    wrong = load("group g(fixpoint) { r: NEG(x) => x test -a => a where a: float32 in 0..1 }")
    with pytest.raises(RuleCheckError, match="only scalar integers have a range"):
        run_inline_tests(wrong)

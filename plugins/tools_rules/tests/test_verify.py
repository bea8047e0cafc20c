"""Right rules are proved or tested; wrong ones are refuted, and the counterexample shows it when it is run."""

import itertools
import json
import subprocess
import sys

import pytest
from tinycore_tools_rules import verify_command
from tinycore_tools_rules.evaluate import differences
from tinycore_tools_rules.sources import open_source, units_of
from tinycore_tools_rules.store import PARTS, Store, _package_digest, key_of
from tinycore_tools_rules.verify import Result, summary, verify_unit
from tinycore_tools_rules.verify_command import integral, verify

from tinycore.cli import main
from tinycore.errors import InterpretError
from tinycore.ir import UOp

PROVED = [
    "r: x:Int + 0 => x",
    "r: (x:SizedInt + $a) * $b => x * b + (a * b)",
    "r: x:Int % $c if 0 <= x.vmin and x.vmax < c => x",
    "r: x:Index // $c if c > 0 and x.vmin // c == x.vmax // c => x.vmin // c",
    "r: x:Int // 4 => x >> 2",
    "r: CAST[int8](CAST[U](x:S)) if S.is_int and U.is_int and 0 < U.bits => CAST[int8](x)",
    "r: n@(LT|LE)(_:Int, _) if n.vmin == n.vmax => n.vmin",
    "r: (x:Index % $a) % $b if a > 0 and b > 0 and a % b == 0 => x % b",
    "r: (x:Float + $a) + $b => x + (a + b)   @fast(reassoc)",
    "r: WHERE(c, x:bool, y) => (c & x) | ((c ^ true) & y)",
    "r: x:Int < 0 if x.vmin >= 0 => false",
]


@pytest.mark.parametrize("text", PROVED)
def test_right_rules_about_integers_are_proved(text, verified):
    result = verified(text)
    assert (result.status, result.counterexample) == ("proved", ""), result


OTHERS = {
    "r: x:Float * 1 => x": "exhaustive",
    "r: x:Float + 0 => x  @fast(nsz)": "exhaustive",
    "r: x:Float * 0 => 0  @fast(nnan, ninf, nsz)": "exhaustive",
    "r: -(-x:float32) => x": "proved",
    "r: PERMUTE[p](PERMUTE[q](x)) => PERMUTE[[q[i] for i in p]](x)": "tested",
    "r: FLIP[a](FLIP[=a](x)) => x": "tested",
    "r: REDUCE[ADD, axes](x) if len(axes) == 0 => x": "tested",
    "r: INDEX(PERMUTE[p](x), g, *i) => INDEX(x, g, *[i[k] for k in argsort(p)])": "tested",
    "r: x:Int + 1 => x + 2 - 1 @noverify(\"just so\")": "excepted",
    "r: x:Int + 1 => x @unsafe(\"an example\")": "excepted",
    "r: x:float32 / 3 => x * 0.3333333432674408 @approx(ulp, 2)": "tested",
}  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_other_rules_end_as_they_should(text, verified):
    result = verified(text)
    assert result.status == OTHERS[text], result
    assert result.status != "tested" or result.instances >= 1000


WRONG = {
    "overflow of sized integers": "r: (x:Int * 2) // 2 => x",
    "a modulus that does not fit": "r: (x:SizedInt * $a + y) % $b if b > 0 and a % b == 0 => y % b",
    "a guard forgotten": "r: (x:Index // $a) // $b if a > 0 => x // (a * b)",
    "a bound off by one": "r: x:Int % $c if 0 <= x.vmin and x.vmax <= c => x",
    "a comparison flipped": "r: (x:Int < y) ^ true => y < x",
    "-0.0": "r: x:Float + 0 => x",
    "NaN": "r: x == x => true",
    "NaN times zero": "r: x:Float * 0 => 0  @fast(ninf, nsz)",
    "operands swapped": "r: x:Float - (-y) => y - x",
    "a lost sign": "r: x:Int - $c => x + c",
    "signed only": "r: x:Int >> 8 => 0",
    "a division by zero": "r: x:Int // x => 1",
    "a shift too far": "r: x:int8 << $k if k >= 0 and k < 64 => x * (1 << (k % 7))",
    "narrowing": "r: CAST[int8](CAST[T](x:int8)) => x",
    "a permutation the wrong way": "r: PERMUTE[p](PERMUTE[q](x)) => PERMUTE[[p[i] for i in q]](x)",
    "the wrong reduction": "r: REDUCE[_, axes](x) => REDUCE[ADD, axes](x)",
    "a padding that is forgotten": "r: PAD[p](PAD[_](x)) => PAD[p](x)",
    "an index pushed wrong": "r: INDEX(PERMUTE[p](x), g, *i) => INDEX(x, g, *[i[k] for k in p])",
    "two roundings of an integer": "r: CAST[bfloat16](x:int64) => CAST[bfloat16](CAST[float32](x))",
    "two roundings of a sum": "r: FMA(x:float32, y, z)"
    " => CAST[float32](CAST[float64](x) * CAST[float64](y) + CAST[float64](z))",
    "cancellation": "r: (x:float32 + y) - z => x + (y - z) @approx(ulp, 4)",
    "equal operands": "r: x:uint32 - y => WHERE(x == y, 1, x - y)",
    "a float whose bits are taken for smaller ones": "r: x:float32 * 2 => BITCAST[float32](BITCAST[int16](x))",
    "a flip that is forgotten": "r: INDEX(FLIP[_](x), g, *i) => INDEX(x, g, *i)",
    "an approximation": "r: EXP(x:float32) => x + 1.0 @approx(ulp, 4)",
    "a rule that raises": "r: x:Int * $c if 12 // c > 2 => x * c + 0",
    "the wrong dtype": "r: CAST[T](x) => x",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_refuted(name, verified):
    result = verified(WRONG[name])
    assert result.status == "refuted", result
    shown = []
    scope = {"print": lambda *values: shown.append(values)}
    if "has no meaning: InterpretError" in result.reason:
        with pytest.raises(InterpretError):
            exec(result.counterexample, scope)
        return
    exec(result.counterexample, scope)
    assert isinstance(scope["before"], UOp)
    if "the sides differ" in result.reason:
        values = [array for line in shown for array in line]  # a kernel prints a line for each side
        one, two = values
        assert one.shape != two.shape or differences(one, two).any()
    else:  # the rule raises, or what it makes has another dtype or shape
        ((dtype, shape, *rest),) = shown
        assert (dtype, shape) == (scope["before"].dtype, scope["before"].shape)
        assert "raises" in result.reason or "no meaning" in result.reason or tuple(rest) != (dtype, shape)


GRADIENTS = {
    "vjp MUL(a, b) -> g => (g * b, g * a)": "tested",
    "vjp MUL(a, b) -> g => (g * a, g * b)": "refuted",
    "vjp SQRT(x) -> g, y => (g / y)": "refuted",
    "vjp TANH(x) -> g, y => (g * (1 - y * y))": "tested",
    "vjp EXPAND(x) -> g => (g)": "refuted",
    "vjp SIN(x) -> g => (none)": "refuted",
    "vjp REDUCE[ADD, _](x) -> g => (EXPAND[x.shape](g))": "tested",
    "vjp DETACH(x) -> g => (none)": "tested",
}


@pytest.mark.parametrize("text", GRADIENTS)
def test_gradients_are_compared_with_differences(text, verified):
    assert verified(text, "group g(vjp)").status == GRADIENTS[text]


def test_a_rule_that_never_fires_is_a_finding(verified):
    result = verified("r: x:Int + $c if c > 3 and c < 2 => x")
    assert result.status == "unverified" and result.bad


def test_results_are_kept_by_content(tmp_path, units):
    (unit,) = units("r: x:Int + 0 => x")
    store = Store(tmp_path)
    result = verify_unit(unit)
    store.put("k", result)
    assert store.get("k") == result
    (same,) = units("r: x:Int + 0 => x")
    (other,) = units("r: x:Int + 0 => x + 0")
    assert len({key_of(item, 1.0) for item in (unit, same, other)}) == 3  # another file, another rule
    assert key_of(unit, 1.0) != key_of(unit, 2.0)
    assert Store(None).get("k") is None


def test_the_key_covers_the_verifier():
    """Every module of this package that verifying imports is part of the key."""
    code = """
import sys
from tinycore_tools_rules import gradients, rendered, tensors, verify
print(*sorted(name.partition(".")[2] for name in sys.modules if name.startswith("tinycore_tools_rules.")))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == sorted(PARTS.split())


def test_the_key_covers_what_natives_may_call(tmp_path, monkeypatch):
    package = tmp_path / "natives_here"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("def answer(c):\n    return c\n")
    (package / "mine.py").write_text("from natives_here.inner import answer as twice\n")
    (package / "mine.rules").write_text(
        "native twice(c: int) -> int pure\n"
        "group g(fixpoint) { a: x:Int + $c => x + twice(c)  b: x:Int - 0 => x }\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with_native, without = units_of(open_source("natives_here.mine"))
    before = key_of(with_native, 1.0), key_of(without, 1.0)
    (package / "inner.py").write_text("def answer(c):\n    return 2 * c\n")
    _package_digest.cache_clear()
    after = key_of(with_native, 1.0), key_of(without, 1.0)
    assert before[0] != after[0] and before[1] == after[1]


def test_a_second_run_verifies_nothing(units, monkeypatch):
    several = units("\n".join(f"r{k}: x:SizedInt * $a + x * {k} => x * (a + {k})" for k in (3, 5, 7)))
    first = verify(several, jobs=1)
    monkeypatch.setattr(verify_command, "verify_unit", lambda unit, **options: pytest.fail("verified again"))
    second = verify(several, jobs=1)
    assert [result.status for result in second] == [result.status for result in first] == ["proved"] * 3
    assert summary(second)["proved"] == 3 and integral(second) == {"rules": 3, "proved": 3}


def test_work_is_shared_among_processes(units):
    several = units("\n".join(f"r{k}: x:Int + {k} - {k} => x" for k in range(1, 6)))
    results = verify(several, jobs=2, fresh=True)
    assert [result.status for result in results] == ["proved"] * 5
    assert [result.identity for result in results] == [unit.identity for unit in several]


def test_files_of_the_core(capsys):
    """The command on whole files, as it runs for all of them in continuous integration."""
    words = ["rules", "verify", "tinycore.passes.index", "tinycore.passes.cstyle", "--min-proved", "80"]
    words += [part for name in ("lt", "neg", "sh", "canonical", "render_3") for part in ("--only", name)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"refuted": 0, "unverified": 0}.items() <= found["counts"].items()
    assert all(rule["instances"] >= 1000 for rule in found["rules"] if rule["status"] == "tested")
    assert found["integral"]["rules"] >= 8 and found["integral"]["proved"] >= 0.8 * found["integral"]["rules"]
    files = found["files"]
    assert sum(counts["rules"] for counts in files.values()) == len(found["rules"])
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-4].split()[:2] == ["all", str(len(found["rules"]))]


def test_a_floor_for_proofs(units, capsys):
    (unit,) = units("r: x:Int + 0 => x")
    words = ["rules", "verify", unit.source.path, "--min-proved"]
    assert main([*words, "100"]) == 0
    assert main([*words, "101"]) == 1
    assert "fewer than 101 % are proved" in capsys.readouterr().err


def test_results_describe_themselves():
    result = Result("f:g.r", "f", 1, "tested", instances=1024, ulp=2)
    assert result.describe() == "tested(1024), 2 ulp"
    assert list(itertools.chain(summary([result]).values())).count(1) == 1

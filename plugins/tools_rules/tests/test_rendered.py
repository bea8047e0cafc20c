"""The text of render rules is run as C: right rules are tested, wrong ones refuted by values that show it."""

import numpy as np
import pytest
from tinycore_tools_rules.ctext import Undefined, expression, statements
from tinycore_tools_rules.rendered import verify_render
from tinycore_tools_rules.sources import open_source, units_of

from tinycore.ir import dtypes

NAMES = {
    "a": dtypes.int8, "i": dtypes.int32, "u": dtypes.uint32, "l": dtypes.int64, "f": dtypes.float32,
    "d": dtypes.float64, "b": dtypes.bool_, "p": dtypes.int16,
}  # fmt: skip
VALUES = {
    "a": -128,
    "i": -7,
    "u": 4_000_000_000,
    "l": 1 << 40,
    "f": np.float32(1.5),
    "d": 2.5,
    "b": 1,
    "p": [5, 6],
}


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("a - 1", "int32", -129),  # narrow operands are computed in int
        ("-a", "int32", 128),
        ("(int8)(a - 1)", "int8", 127),
        ("i / 2", "int32", -3),
        ("i % 2", "int32", -1),
        ("i >> 1", "int32", -4),
        ("i + u", "uint32", 3_999_999_993),
        ("i < u", "int32", 0),  # -7 becomes unsigned
        ("u + u", "uint32", 3_705_032_704),
        ("u + l", "int64", (1 << 40) + 4_000_000_000),
        ("f + i", "float32", -5.5),
        ("f * d", "float64", 3.75),
        ("i < 0 ? 1.0f : i", "float32", 1.0),
        ("b & (a != 0)", "int32", 1),
        ("true || 1 / 0", "int32", 1),
        ("b ? 1 : p[9]", "int32", 1),  # what is not asked for is not computed
        ("p[1] + 1", "int32", 7),
        ("1 + 2 * 3 - 4 << 1", "int32", 6),
        ("5 & 6 == 6", "int32", 1),  # as in C
        ("(uint64)i", "uint64", (1 << 64) - 7),
        ("(bool)f", "bool", 1),
        ("(int32)d", "int32", 2),
        ("0x1.8p+3f", "float32", 12.0),
        ("(-2147483647 - 1)", "int32", -(1 << 31)),
        ("fma(f, f, f)", "float32", 3.75),
        ("rint(d)", "float64", 2.0),
        ("!b", "int32", 0),
        ("~i", "int32", 6),
    ],
)
def test_expressions_mean_what_c_says(text, dtype, value):
    kind, run = expression(text, NAMES)
    assert (kind.name, run(dict(VALUES))) == (dtype, value)


@pytest.mark.parametrize(
    "text",
    ["i * 2147483647", "-(-2147483647 - 1)", "i / 0", "i << 1", "1 << 32", "1 << -1", "l >> 64", "p[2]", "p[-1]",
     "(int32)(f * 3.0e9f)", "(-2147483647 - 1) / -1", "i +", "i i", "(i", "nobody", "f % f", "~f", "sqrt(i)",
     "4294967296", "f & 1", "fma(f, f)", "i @ i"],
)  # fmt: skip
def test_what_c_does_not_define_is_an_error(text):
    with pytest.raises(Undefined):
        expression(text, NAMES)[1](dict(VALUES))


def test_statements():
    values = {"n": 0, "p": [0, 0, 0]}
    text = "for (int32 i = 0; i < 3; i++) { if (i != 1) p[i] = i + 1; n = n + i; }"
    statements(text, {"n": dtypes.int32, "p": dtypes.uint8})(values)
    assert (values["n"], values["p"]) == (3, [1, 0, 3])
    for wrong in ("x = 1;", "n = 1", "if (n) {", "for (int32 i = 0; i < 3) n = 1;"):
        with pytest.raises(Undefined):
            statements(wrong, {"n": dtypes.int32})


RIGHT = [
    'render SUB(a:Float, b) => "({a} - {b})"',
    'render LT(a, b) => "({a} < {b})"',
    'render XOR(a, b) => "({a} ^ {b})"',
    'render LOAD(p:Int, i, true) => "{p}[{i}]"',
    'render STORE(p:Int, i, x, g) => "if ({g}) {p}[{i}] = {x};"',
    'render UPDATE(a, x) => "{a} = {x};"',
    'render n@RANGE(m) => "for (int64 {n} = 0; {n} < {m}; {n}++) {{"',
    'render NEG(x:Float) => "(-{x})"\nrender NEG(x:int32) if -9 < x.vmin => "(-{x})"',
    'render MAX(a:Float, b) => "({a} > {b} || {a} != {a} ? {a} : {b})"\nrender MAX(a, b) => "({a} > {b} ? {a} : {b})"',
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_rules_are_tested(text, units):
    for unit in units(text, "group g(render) @language(c)"):
        found = verify_render(unit, 200)
        assert not found.problem, found
        assert found.instances >= 200


WRONG = {
    "signed overflow": 'render SUB(a:Int, b) => "({a} - {b})"',
    "operands swapped": 'render SUB(a:Float, b) => "({b} - {a})"',
    "a narrow product": 'render MUL(a:uint8, b) => "({a} * {b})"',
    "NaN": 'render MAX(a:Float, b) => "({a} > {b} ? {a} : {b})"',
    "a comparison": 'render LE(a, b) => "({a} < {b})"',
    "a gate forgotten": 'render STORE(p, i, x, g) => "{p}[{i}] = {x};"',
    "a gate asked too late": 'render LOAD(p:Float, i, g) => "({p}[{i}] * {g})"',
    "bools are bytes": 'render LOAD(p:Bool, i, true) => "{p}[{i}]"',
    "one too many": 'render n@RANGE(m) => "for (int64 {n} = 0; {n} <= {m}; {n}++) {{"',
    "a cast that overflows": 'render CAST[=int32](x:float32) => "(int32){x}"',
    "the wrong function": 'render EXP(x:Float) => "exp2({x})"',
    "no C": 'render NEG(x:Float) => "({x} -)"',
    "a bracket that stays open": 'render END(_) => ""',
    "the wrong precision": 'render ADD(a:float64, b) => "({a} + (float32){b})"',
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_refuted(name, verified):
    result = verified(WRONG[name], "group g(render) @language(c)")
    assert result.status == "refuted", result
    code = result.counterexample
    assert code.startswith("# ")
    if "print(" in code:
        shown = []
        try:
            exec(code, {"print": lambda *values: shown.append(values)})
        except Undefined as error:
            assert str(error) in result.reason
        else:
            assert shown


def test_text_in_other_languages_is_left_alone(verified):
    result = verified('render ADD(a, b) => "add {a}, {b}"', "group g(render)")
    assert result.status == "excepted" and "language" in result.reason


def test_every_render_rule_of_the_core():
    for unit in units_of(open_source("tinycore.passes.cstyle")):
        found = verify_render(unit, 100)
        assert not found.problem and found.instances >= 100, (unit.name, found)

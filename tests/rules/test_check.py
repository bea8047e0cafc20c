"""Mistakes in rule files: each is refused, at its place, with a hint where there is one."""

import pytest

from tinycore import rules
from tinycore.errors import RuleCheckError, RuleError, RuleSyntaxError

CASES = {
    # text of the rule (or of whole items) -> (what, marked text, hint)
    "r: ADDD(x, y) => x": ("there is no op ADDD", "ADDD(x, y)", "did you mean 'ADD'?"),
    "r: NEG(x) => ADDD(x, x)": ("there is no op ADDD", "ADDD(x, x)", "did you mean 'ADD'?"),
    "r: NEG(x) => y": ("y is not bound", "y", None),
    "r: NEG(long) => lonng": ("lonng is not bound", "lonng", "did you mean 'long'?"),
    "r: ADD(x) => x": ("ADD takes 2 operands, not 1", "ADD(x)", None),
    "r: NEG(x) => ADD(x)": ("ADD takes 2 operands, not 1", "ADD(x)", None),
    "r: LOAD(x) => x": ("LOAD takes 3 operands, not 1", "LOAD(x)", None),
    "r: INDEX(x) => x": ("INDEX takes at least 2 operands, not 1", "INDEX(x)", None),
    "r: REDUCE[a](x) => x": (
        "REDUCE has [op, axes], not 1",
        "REDUCE[a](x)",
        "write _ for those that do not matter",
    ),
    "r: NEG(x) => RESHAPE(x)": ("RESHAPE needs [shape]", "RESHAPE(x)", None),
    "r: x:Itn + 0 => x": ("there is no dtype or dtype class Itn", "x:Itn", "did you mean 'Int'?"),
    "r: x:flot32 + 0 => x": (
        "there is no dtype or dtype class flot32",
        "x:flot32",
        "did you mean 'float32'?",
    ),
    "r: SIN(x:Int) => x": ("this can never be Int", "x:Int", None),
    "r: SQRT(x) => x < 0": ("the result of r is bool", "r:", None),
    "r: x => x": ("rule r would match every node", "x", "name the op at the root"),
    "r: NEG(x) if x.vmix > 0 => x": ("a node has no attribute vmix", "x.vmix", "did you mean 'vmin'?"),
    "r: NEG(x) if x.dtype.isint => x": (
        "a dtype has no attribute isint",
        "x.dtype.isint",
        "did you mean 'is_int'?",
    ),
    "r: NEG(x) if x._shape => x": ("the name _shape starts with an underscore", "x._shape", None),
    "r: NEG(_x) => _x": ("the name _x starts with an underscore", "_x", None),
    "r: NEG(int8) => int8": ("a capture cannot be called int8", "int8", None),
    "r: NEG(x) if lossles(x, x) => x": (
        "there is no function lossles",
        "lossles(x, x)",
        "did you mean 'lossless'?",
    ),
    "r: NEG(x) if len(x, x) > 1 => x": ("len takes 1 operands, not 2", "len(x, x)", None),
    "r: NEG(x) if open(x) => x": ("there is no function open", "open(x)", None),
    "r: NEG(x) if x => x": ("a node is neither true nor false here", "x", "compare its bounds"),
    "r: NEG(x) if x < 3 => x": ("the order of two nodes is not known", "x < 3", "compare bounds"),
    "r: NEG(x) let x = 1 => x": ("x cannot be defined here", "let x = 1", "choose another name"),
    "r: NEG(x) let y = 1 => x": ("y is defined but not used", "let y = 1", None),
    "r: NEG(x) + $c => x": ("c is captured but not used", "NEG(x) + $c", "write _"),
    "r: SINK(*xs) => SINK()": ("xs is captured but not used", "SINK(*xs)", "write _"),
    "r: n@NEG(x) => x": None,  # captured nodes may be unused: they say what the operand is
    "r: SINK(*a, *b) => SINK(*a, *b)": (
        "at most two *rests, and something between them",
        "SINK(*a, *b)",
        None,
    ),
    "r: NEG(x) => 1 + 1": None,
    "r: NEG(x) => WHERE(x == 1, 1, 2)": None,
    "r: NEG(x) => CAST[bool](3)": ("the dtype of this number is not known here", "3", "write const("),
    "r: NEG(x) => RESHAPE[(1,)](3)": (
        "the shape of a number below RESHAPE is not known",
        "3",
        "write const(",
    ),
    "r: NEG(x) => target.name": ("target is not bound", "target", "@requires(target)"),
    "r: NEG(x) => view_(x)": ("there is no function view_", "view_(x)", None),
    "r: view_(x) => x": ("there is no view view_", "view_(x)", None),
    "r: NEG(x) => x @exat": ("there is no annotation @exat", "@exat", "did you mean 'exact'?"),
    "r: NEG(x) => x @fast(nzs)": ("@fast does not know this", "nzs", "did you mean 'nsz'?"),
    "r: NEG(x) => x  r: NEG(x) => x": ("there are two rules r", "r: NEG(x) => x", None),
    "for OP in (ADD|SUBB) { r: OP(x, y) => x }": ("there is no op SUBB", "for", "did you mean 'SUB'?"),
    "r: $c * x => x * (c << 5000)": None,  # refused when it runs: the width is not known before
    f"r: x * $c => x * ({'(c * c) * ' * 40}c)": ("the result could have", "(c * c)", None),
    f"r: NEG(x) => x * {10**700}": ("a number of 2326 bits", "1000", None),
    "vjp NEG(x) -> g => (g)": (
        "a vjp rule in a group of rewrite rules",
        "vjp",
        "put it in a group of its own",
    ),
}


@pytest.mark.parametrize("text", CASES)
def test_mistakes_are_found(text, load):
    expected = CASES[text]
    if expected is None:
        load(f"group g(fixpoint) {{\n  {text}\n}}")
        return
    what, marked, hint = expected
    with pytest.raises(RuleCheckError) as caught:
        load(f"group g(fixpoint) {{\n  {text}\n}}")
    error = caught.value
    assert what in error.what
    place, line, marks = (error.where or "").splitlines()
    assert ".rules:2:" in place
    at = marks.index("^")
    assert line[at:].startswith(marked), (line, marks)
    assert int(place.rpartition(":")[2]) == at + 1
    if hint is not None:
        assert hint in (error.hint or "")


FILES = {
    "group g(fixpont) { }": "a group is",
    "group g(fixpoint) { }\ngroup g(fixpoint) { }": "g is defined twice",
    "pass p = fixpoint(g)": "there is no group or pass g",
    "group g(fixpoint) { } pass p = fixpont(g)": "there is no strategy fixpont",
    "group g(fixpoint) { } pass p = g @memo": "a pass takes @accept",
    "group g(fixpoint) { } group h(top_down) { } pass p = g + h": "joins groups of different strategies",
    "view v(x) = NEG(w(x)) view w(x) = NEG(v(x)) group g(fixpoint) { r: v(x) => x }": "contains itself",
    "view v(x) = x + y group g(fixpoint) { }": "view v uses y, which it does not get",
    "view v(x) = x + x group g(fixpoint) { r: NEG(x) => "
    + "v(" * 40
    + "x"
    + ")" * 40
    + " }": "more than 5000 nodes",
    "group g(fixpoint) { for OP in Elementwise { for OR_ in Elementwise { for OQ in Elementwise { "
    "r: OP(*_, OR_(*_)) => 0 } } } }": "more than 5000 rules",
    "view v(x) = NEG(x) group g(fixpoint) { r: v(x, y) => x }": "view v takes 1 operands, not 2",
    "native f(x: nod) -> node pure group g(fixpoint) { r: NEG(x) => f(x) }": "there is no kind nod",
    "group g(vjp) { vjp ADD(a, b) -> g => (g) }": "ADD has 2 operands here, but the rule gives 1",
    'group g(render) { render ADD(a, b) => "{a" }': "a single { in a template",
    'group g(render) { render ADD(a, b) => "{a.b}" }': "is no field",
    "native f(x: node) -> node ctx group g(fixpoint) @memo { r: NEG(x) => f(x) }": "@memo, but f may answer",
    "native f(x: node) -> node pure ctx group g(fixpoint) @memo { r: NEG(x) => f(x) }": "@memo, but f may",
    "from tinycore.passes.nothing import x": "there are no rules called tinycore.passes.nothing",
}


@pytest.mark.parametrize("text", FILES)
def test_mistakes_of_whole_files(text, load):
    with pytest.raises(RuleError) as caught:
        load(text)
    assert FILES[text] in caught.value.what


SYNTAX = {
    "group g(fixpoint) { r: x + => y }": (":1:28", "'=>'"),
    "group g(fixpoint) {\n  r: x ~ y => x }": (":2:8", "'~'"),
    "group g(fixpoint) { r: NEG(x) => x": ("", "the file ends"),
    "group g(fixpoint) { r: NEG(x) = x }": (":1:31", "'='"),
    'group g(fixpoint) { r: NEG(x) => x why "unfinished }': (":1:40", "'\"'"),
    "": None,
    "# nothing\n": None,
}


@pytest.mark.parametrize("text", SYNTAX)
def test_syntax_errors_point_with_a_caret(text, load):
    if SYNTAX[text] is None:
        assert load(text).rules == ()
        return
    with pytest.raises(RuleSyntaxError) as caught:
        load(text)
    place, what = SYNTAX[text]
    assert what in caught.value.what and place in (caught.value.where or "")
    assert "^" in (caught.value.where or "")


def test_deep_nesting_is_refused_not_fatal(load):
    for depth in (150, 5_000):
        with pytest.raises(RuleError, match="nested too deeply"):
            load("group g(fixpoint) { r: NEG(x) => " + "SQRT(" * depth + "x" + ")" * depth + " }")
        with pytest.raises(RuleError, match="nested too deeply"):
            load("group g(fixpoint) { r: " + "NEG(" * depth + "x" + ")" * depth + " => x }")


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "binary.rules"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RuleError, match="cannot read"):
        rules.load_file(path)
    with pytest.raises(RuleError, match="cannot read"):
        rules.load_file(tmp_path / "missing.rules")


def test_a_strangers_file_executes_nothing_of_theirs(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    (tmp_path / "evil.rules").write_text(
        "native f(x: node) -> node pure\ngroup g(fixpoint) { r: NEG(x) => f(x) }"
    )
    (tmp_path / "import_evil.rules").write_text("from evil import g")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("evil.rules", "import_evil.rules"):
        with pytest.raises(RuleError):
            rules.load_file(tmp_path / name)


def test_a_file_name_and_a_text_are_no_code(tmp_path):
    path = tmp_path / 'x"""; raise SystemExit("executed") #.rules'
    evil = '"""; raise SystemExit("executed") #'
    path.write_text('group g(fixpoint) { r: NEG(x) => x why "' + evil.replace('"', '\\"') + '" }')
    assert rules.load_file(path).rules[0].why == evil


def test_arithmetic_stays_bounded_when_it_runs(load):
    from tinycore.ir import UOp

    group = load(
        "group g(fixpoint) { r: $c * x => x * (c << 5000)  s: x + $c if len(range(c * c)) > 5 => x }"
    ).groups["g"]
    n = UOp.variable("n", 1, 9)
    with pytest.raises(RuleError, match="shift by 5000"):
        group(n * 3)
    with pytest.raises(RuleError, match="range of"):
        group(n + 10**9)


def test_grammar_is_unambiguous():
    lark = pytest.importorskip("lark")
    pytest.importorskip("interegular")
    from pathlib import Path

    grammar = Path(rules.__file__).with_name("grammar.lark").read_text()
    lark.Lark(grammar, parser="lalr", strict=True)


SHADOWED = [
    "a: x + y => y  b: x + 0 => x",
    "a: x:Int + 0 => x  b: 0 + x:Index => x",
    "a: NEG(_) => 0  b: NEG(NEG(x)) => x",
    "a: RESHAPE(x) => x  b: RESHAPE[s](RESHAPE(x)) => RESHAPE[s](x)",
    "a: RESHAPE[_](x) => -x  b: RESHAPE[t](-x) => RESHAPE[t](x)",
    "a: FLIP(_) => 0  b: FLIP[s](-x) => FLIP[s](x)",
    "a: (ADD|MUL)(x, $c) => x + c  b: $c * 2 => c * 2",
    "a: MAX(x, x) => x  b: MAX(NEG(y), NEG(y)) => y",
    "b: x * 1 => x  a: x * $c => x + c @prio(1)",
]
DISTINCT = [
    "a: MAX(x, y) => MAX(y, x)  b: MAX(x, x) => x",
    "a: x + y => x if x.vmin > 0 else x + y  b: x + 0 => x",
    "a: x + y if x.vmin > 0 => y  b: x + 0 => x",
    "a: x:Index + 0 => x  b: x:Int + 0 => x",
    "a: x + 0.0 => x  b: x + 0 => x",
    "a: x + 0 => x @fast(nsz)  b: x:Int + 0 => x",
    "a: NEG(NEG(x)) => x  b: NEG(x) => x * 2",
    "a: MAX(x, x) => x  b: MAX(x, y) => y",
    "a: MAX(x, x) => x  b: MAX(_, _) => 0",
    "a: RESHAPE[=()](x) => x  b: RESHAPE[s](x) => RESHAPE[s](-x)",
    "a: x * $c => x * c  b: x * (y * z) => (x * y) * z",
    "a: ADD!(x, $c) => x + c  b: ADD!($c, x) => x + c",
    "a: CAST[T](x:T) => x  b: CAST[T](x:Int) => CAST[T](-x)",
]


@pytest.mark.parametrize("text", SHADOWED)
def test_rules_that_can_never_match_are_refused(text, load):
    with pytest.raises(RuleCheckError, match=r"b can never match: a \(line 1\) comes first"):
        load(f"group g(fixpoint) {{ {text} }}")


@pytest.mark.parametrize("text", DISTINCT)
def test_rules_that_can_match_are_not_refused(text, load):
    load(f"group g(fixpoint) {{ {text} }}")

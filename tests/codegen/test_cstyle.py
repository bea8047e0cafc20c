"""The C-like renderer with a small dialect of its own: what is inlined, named, ordered, and how it reads."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

import tinycore
from tinycore import rules
from tinycore.codegen.cstyle import Dialect, render_c, strip
from tinycore.codegen.program import Program
from tinycore.errors import CompileError
from tinycore.ir import Target, UOp, dtypes, ops

YES = UOp.const(dtypes.bool_, True)
CONTROL = frozenset({ops.RANGE, ops.END, ops.ACCUMULATOR, ops.AFTER})
LEAVES = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
TARGET = Target("TEST")


class Own:
    """What every dialect must bring: arguments, grid ids, splats."""

    def match(self, node, names, context=None):
        if node.op is ops.PARAM:
            return f"float* {names(node)}"
        if node.op is ops.VARIABLE:
            return f"long {names(node)}"
        if node.op is ops.RANGE and node.arg[1] == "global":
            return f"grid({node.arg[0]})"
        if node.op is ops.SPLAT:
            return f"splat({names(node.src[0])})"
        if node.op is ops.LOAD and node.shape:
            return f"vload({names(node.src[0])}, {names(node.src[1])})"
        if node.op is ops.BARRIER:
            return "barrier();"
        return None


def assemble(program, parameters, memory, body):
    return "\n".join([f"void {program.name}({', '.join(parameters)}) {{", *memory, *body, "}", ""])


@pytest.fixture(scope="module")
def dialect():
    common = rules.load("tinycore.passes.cstyle").renders["cstyle"]
    names = {
        "bool": "bool",
        "int8": "char",
        "int32": "int",
        "int64": "long",
        "uint8": "uchar",
        "uint16": "ushort",
        "uint32": "uint",
        "uint64": "ulong",
        "float32": "float",
    }
    return Dialect(
        name="test C",
        rules=(Own(), common),
        types=names,
        memory_types={},
        bits={"bfloat16": dtypes.uint16},
        suffixes={"float32": "f", "uint32": "u", "int64": "l"},
        declaration="{type} {name} = {text};",
        vector_type=lambda scalar, lanes: f"{scalar}x{lanes}",
        vector=lambda kind, texts, dtype: f"{kind}({', '.join(texts)})",
        lane=lambda node, text, lane: f"{text}[{lane}]",
        assemble=assemble,
        helpers={"unused": "float unused;", "erf": "float erf(float x);"},
    )


class Lines:
    """Statements in order, operands first."""

    def __init__(self):
        self.nodes, self.buffers, self.count = [], {}, 0

    def buffer(self, slot, dtype=dtypes.float32, size=64):
        self.buffers[slot] = UOp(ops.PARAM, dtype, (), (slot, (size,)))
        return self.buffers[slot]

    def add(self, node):
        for part in node.toposort():
            if part.op not in LEAVES and part not in self.nodes and (part.op not in CONTROL or part is node):
                self.nodes.append(part)
        return node

    def again(self, node):
        self.nodes.append(node)
        return node

    def range(self, bound, kind="loop", dtype=dtypes.int32):
        self.count += 1
        bound = UOp.const(dtype, bound) if isinstance(bound, int) else bound
        return self.again(UOp(ops.RANGE, dtype, (bound,), (0 if kind == "global" else self.count, kind)))

    def end(self, node):
        return self.again(UOp(ops.END, dtypes.void, (node,)))

    def load(self, buffer, index, lanes=1, gate=YES):
        index = UOp.const(dtypes.int32, index) if isinstance(index, int) else index
        return self.add(UOp(ops.LOAD, buffer.dtype, (buffer, index, gate), lanes))

    def store(self, buffer, index, value, gate=YES):
        index = UOp.const(dtypes.int32, index) if isinstance(index, int) else index
        return self.add(UOp(ops.STORE, dtypes.void, (buffer, index, value, gate)))

    def text(self, dialect, variables=(), grid=()):
        linear = UOp(ops.LINEAR, dtypes.void, tuple(self.nodes), None)
        parameters = tuple(self.buffers[slot] for slot in sorted(self.buffers))
        return render_c(Program("k", linear, parameters, variables, frozenset(), grid), TARGET, dialect)


@pytest.fixture
def lines():
    return Lines()


def golden(text):
    return textwrap.dedent(text)


def test_elementwise(lines, dialect):
    x, y, out = (lines.buffer(slot) for slot in range(3))
    i = lines.range(64, "global")
    lines.store(out, i, lines.load(x, i) * 2.0 + lines.load(y, i, gate=lines.add(i < 60)))
    assert lines.text(dialect, grid=(64,)) == golden("""\
        void k(float* data0, float* data1, float* data2) {
          int gid0 = grid(0);
          data2[gid0] = (data0[gid0] * 2.0f) + ((gid0 < 60) ? data1[gid0] : 0.0f);
        }
        """)


def test_reduction(lines, dialect):
    x, out = lines.buffer(0), lines.buffer(1)
    n = UOp.variable("n", 1, 8)
    i = lines.range(UOp(ops.VARIABLE, dtypes.int32, (), n.arg))
    total = lines.add(UOp(ops.ACCUMULATOR, dtypes.float32, (UOp.const(dtypes.float32, 0.0),), 0))
    base = lines.add(i * 8)
    j = lines.range(8, "reduce")
    lines.again(UOp(ops.UPDATE, dtypes.void, (total, lines.add(total + lines.load(x, base + j)))))
    final = lines.again(UOp(ops.AFTER, dtypes.float32, (total, lines.end(j))))
    lines.store(out, i, UOp(ops.SQRT, dtypes.float32, (final,)))
    lines.end(i)
    assert lines.text(dialect, variables=(n,)) == golden("""\
        void k(float* data0, float* data1, long var_n) {
          for (int i0 = 0; i0 < var_n; i0++) {
            float acc0 = 0.0f;
            int alu0 = i0 * 8;
            for (int i1 = 0; i1 < 8; i1++) {
              acc0 = acc0 + data0[alu0 + i1];
            }
            data1[i0] = sqrt(acc0);
          }
        }
        """)


def test_an_operand_that_a_template_repeats_gets_a_name(lines, dialect):
    x, out = lines.buffer(0), lines.buffer(1)
    lines.store(out, 0, UOp(ops.MAX, dtypes.float32, (lines.load(x, 0), lines.load(x, 1))))
    text = lines.text(dialect)
    assert "float val0 = data0[0];" in text and "float val1 = data0[1];" in text
    assert "data1[0] = val0 > val1 || val0 != val0 ? val0 : val1;" in text


def test_values_with_two_users_get_a_name(lines, dialect):
    x, out = lines.buffer(0), lines.buffer(1)
    value = lines.add(lines.load(x, 0) + 1.0)
    lines.store(out, 0, value)
    lines.store(out, 1, value)
    assert "float alu0 = data0[0] + 1.0f;" in lines.text(dialect)


def test_values_that_nobody_uses_are_left_out(lines, dialect):
    x = lines.buffer(0)
    lines.load(x, 5)
    lines.store(x, 0, UOp.const(dtypes.float32, 1.0))
    assert "data0[5]" not in lines.text(dialect)


def test_loads_do_not_pass_stores_or_barriers(lines, dialect):
    x = lines.buffer(0)
    first, second = lines.load(x, 0), lines.load(x, 1)
    lines.store(x, 0, second)
    third = lines.load(x, 2)
    lines.again(UOp(ops.BARRIER, dtypes.void, ()))
    lines.store(x, 1, first)
    lines.store(x, 2, third)
    body = lines.text(dialect).splitlines()[1:-1]
    assert [line.strip() for line in body] == [
        "float val0 = data0[0];",
        "data0[0] = data0[1];",
        "float val1 = data0[2];",
        "barrier();",
        "data0[1] = val0;",
        "data0[2] = val1;",
    ]


def test_reads_of_a_register_do_not_pass_its_update(lines, dialect):
    out = lines.buffer(0)
    one = UOp.const(dtypes.float32, 1.0)
    a, b = (lines.add(UOp(ops.ACCUMULATOR, dtypes.float32, (one,), k)) for k in (0, 1))
    total, other = lines.add(a + b), lines.add(b + 2.0)
    lines.again(UOp(ops.UPDATE, dtypes.void, (a, other)))
    lines.again(UOp(ops.UPDATE, dtypes.void, (b, total)))
    lines.store(out, 0, lines.again(UOp(ops.AFTER, dtypes.float32, (b,))))
    assert [line.strip() for line in lines.text(dialect).splitlines()[3:-1]] == [
        "float alu0 = acc0 + acc1;",
        "acc0 = acc1 + 2.0f;",
        "acc1 = alu0;",
        "data0[0] = acc1;",
    ]


def test_nothing_moves_into_a_loop(lines, dialect):
    x, out = lines.buffer(0), lines.buffer(1)
    value = lines.add(lines.load(x, 0) * 3.0)
    i = lines.range(4)
    lines.store(out, i, value)
    lines.end(i)
    text = lines.text(dialect)
    assert text.index("float alu0 = data0[0] * 3.0f;") < text.index("for (")


def test_long_expressions_are_split(lines, dialect):
    x = lines.buffer(0)
    value = lines.load(x, 0)
    for _ in range(500):
        value = lines.add(value + 1.0)
    lines.store(x, 0, value)
    assert max(map(len, lines.text(dialect).splitlines())) < 120


def test_lanes_of_gathers_and_scatters_are_written_one_by_one(lines, dialect):
    x, where, out = lines.buffer(0), lines.buffer(1, dtypes.int32), lines.buffer(2)
    index = lines.load(where, 0, 2)
    lines.store(out, index, lines.load(x, index))
    text = lines.text(dialect)
    assert "intx2 val0 = vload(data1, 0);" in text
    assert "floatx2 val1 = floatx2(data0[val0[0]], data0[val0[1]]);" in text
    assert "data2[val0[0]] = val1[0];\n  data2[val0[1]] = val1[1];" in text


def test_lane_reductions_are_trees(lines, dialect):
    x, out = lines.buffer(0), lines.buffer(1)
    lines.store(out, 0, UOp(ops.LANE_REDUCE, dtypes.float32, (lines.load(x, 0, 4),), ops.ADD))
    text = lines.text(dialect)
    assert "data1[0] = (val0[0] + val0[2]) + (val0[1] + val0[3]);" in text


@pytest.mark.parametrize(
    "op, sign",
    [(ops.LE, "<="), (ops.LT, "<"), (ops.EQ, "=="), (ops.NE, "!="), (ops.ADD, "+"), (ops.DIV, "/")],
    ids=str,
)
def test_operands_keep_their_parentheses(lines, dialect, op, sign):
    x, out = lines.buffer(0), lines.buffer(1)
    zero = UOp.const(dtypes.float32, 0.0)
    parts = [lines.add((lines.load(x, k) < 1.0).where(lines.load(x, k + 2), zero)) for k in (0, 1)]
    lines.store(out, 0, lines.add(parts[0].alu(op, parts[1])).cast(dtypes.float32))
    first, second = (f"((data0[{k}] < 1.0f) ? data0[{k + 2}] : 0.0f)" for k in (0, 1))
    assert f"{first} {sign} {second}" in lines.text(dialect)


def test_helpers_that_are_used_come_first(lines, dialect):
    x = lines.buffer(0)
    lines.store(x, 0, UOp(ops.ERF, dtypes.float32, (lines.load(x, 0),)))
    text = lines.text(dialect)
    assert text.startswith("float erf(float x);\nvoid k(") and "unused" not in text


@pytest.mark.parametrize(
    "value, text",
    [
        (1.5, "1.5f"),
        (-2.0, "(-2.0f)"),
        (0.1, "0x1.99999ap-4f"),
        (1e30, "0x1.93e594p+99f"),
        (-0.0, "(-0.0f)"),
        (2.0**-149, "0x1p-149f"),
    ],
)
def test_float_constants_are_exact(lines, dialect, value, text):
    out = lines.buffer(0)
    constant = UOp.const(dtypes.float32, value)
    lines.store(out, 0, constant)
    assert f"data0[0] = {text};" in lines.text(dialect)
    assert (
        UOp.const(
            dtypes.float32, float.fromhex(text.strip("()f")) if "0x" in text else float(text.strip("()f"))
        )
        is constant
    )


@pytest.mark.parametrize(
    "dtype, value, text",
    [
        (dtypes.int32, -(2**31), "(-2147483647 - 1)"),
        (dtypes.int64, -(2**63), "(-9223372036854775807l - 1)"),
        (dtypes.int64, 5, "5l"),
        (dtypes.uint32, 2**32 - 1, "4294967295u"),
        (dtypes.bool_, True, "true"),
        (dtypes.int8, -3, "(-3)"),
        (dtypes.bfloat16, 1.0, "16256"),
    ],
)
def test_other_constants(lines, dialect, dtype, value, text):
    lines.store(lines.buffer(0, dtype), 0, UOp.const(dtype, value))
    assert f"data0[0] = {text};" in lines.text(dialect)


def test_signed_arithmetic_that_may_overflow_is_unsigned(lines, dialect):
    x = lines.buffer(0, dtypes.int32)
    a = lines.load(x, 0)
    for slot, value in enumerate((a + a, a - 1, a * a, -a, a << 3), 1):
        lines.store(x, slot, value)
    i = lines.range(10)
    lines.store(x, i * 4 + 1, i)
    lines.end(i)
    text = lines.text(dialect)
    for expected in (
        "(int)((uint)val0 + (uint)val0)",
        "(int)((uint)val0 - (uint)1)",
        "(int)(0 - (uint)val0)",
        "(int)((uint)val0 * (uint)val0)",
        "(int)((uint)val0 << 3)",
        "data0[(i0 * 4) + 1]",
    ):
        assert expected in text


def test_narrow_integers_are_cast_back(lines, dialect):
    x = lines.buffer(0, dtypes.uint8)
    a = lines.load(x, 0)
    lines.store(x, 1, (a + a).alu(ops.TRUNCDIV, a))
    assert "(uchar)((uchar)((uint)val0 + (uint)val0) / val0)" in lines.text(dialect)


def test_a_node_without_a_rule_says_so(lines, dialect):
    x = lines.buffer(0)
    lines.store(x, 0, lines.load(x, 0).cast(dtypes.int32).bitcast(dtypes.float32))
    with pytest.raises(CompileError, match=r"test C has no render rule for CAST\(float32\) of int32"):
        lines.text(dialect)


def test_a_dtype_without_a_type_says_so(lines, dialect):
    x = lines.buffer(0, dtypes.float64)
    value = lines.load(x, 0)
    lines.store(x, 0, value + value)
    with pytest.raises(CompileError, match="test C has no type for float64"):
        lines.text(dialect)


def test_strip():
    assert strip("((a) + (b))") == "(a) + (b)" and strip("(a) + (b)") == "(a) + (b)" and strip("a") == "a"


def test_the_core_knows_no_language_by_name():
    """No dialect's words in the common renderer."""
    root = Path(tinycore.__file__).parent
    for path in ("codegen/cstyle.py", "passes/cstyle.py", "passes/cstyle.rules"):
        text = (root / path).read_text().lower()
        assert not re.search(r"opencl|__global|__kernel|metal|cuda|wgsl|\bhip\b|barrier\(", text), path


def _leaf(name, dtype):
    return UOp(ops.PARAM, dtype, (), ({"a": 1, "b": 2, "c": 3}[name], ()))


_A, _B, _C = (_leaf(name, dtypes.float32) for name in "abc")
_I, _J = _leaf("a", dtypes.int32), _leaf("b", dtypes.int32)
_P, _Q = _leaf("a", dtypes.bool_), _leaf("b", dtypes.bool_)
_S, _U = _leaf("a", dtypes.int8), _leaf("a", dtypes.uint32)
_SMALL = UOp(ops.RANGE, dtypes.int32, (UOp.const(dtypes.int32, 8),), (0, "loop"))
_YES = UOp.const(dtypes.bool_, True)
_SPELLED = [
    *[(_A.alu(op, _B), f"(a {sign} b)") for op, sign in ((ops.ADD, "+"), (ops.SUB, "-"), (ops.MUL, "*"))],
    (_A / _B, "(a / b)"),
    (-_A, "(-a)"),
    (_A.alu(ops.FMA, _B, _C), "fma(a, b, c)"),
    (_A.alu(ops.MAX, _B), "(a > b || a != a ? a : b)"),
    (_A.alu(ops.MIN, _B), "(a < b || a != a ? a : b)"),
    *[(_P.alu(op, _Q), "(a | b)") for op in (ops.ADD, ops.MAX, ops.OR)],
    *[(_P.alu(op, _Q), "(a & b)") for op in (ops.MUL, ops.MIN, ops.AND)],
    (-_SMALL, "(-r)"),
    (_SMALL + 3, "(r + 3)"),
    (_SMALL - 3, "(r - 3)"),
    (_SMALL * 3, "(r * 3)"),
    (-_I, "(int)(0 - (uint)a)"),
    (_I + _J, "(int)((uint)a + (uint)b)"),
    (_I - _J, "(int)((uint)a - (uint)b)"),
    (_I * _J, "(int)((uint)a * (uint)b)"),
    (_I.alu(ops.SHL, _J), "(int)((uint)a << b)"),
    (_I.alu(ops.SHR, _J), "(a >> b)"),
    (_S.alu(ops.TRUNCDIV, _leaf("b", dtypes.int8)), "(char)(a / b)"),
    (_I.alu(ops.TRUNCDIV, _J), "(a / b)"),
    (_I.alu(ops.TRUNCMOD, _J), "(a % b)"),
    (_I.alu(ops.MAX, _J), "(a > b ? a : b)"),
    (_I.alu(ops.MIN, _J), "(a < b ? a : b)"),
    (_I.alu(ops.AND, _J), "(a & b)"),
    (_I.alu(ops.OR, _J), "(a | b)"),
    (_I.alu(ops.XOR, _J), "(a ^ b)"),
    *[
        (_A.alu(op, _B), f"(a {sign} b)")
        for op, sign in ((ops.LT, "<"), (ops.LE, "<="), (ops.EQ, "=="), (ops.NE, "!="))
    ],
    (_P.alu(ops.WHERE, _B, _C), "(a ? b : c)"),
    *[
        (_A.alu(getattr(ops, name.upper())), f"{name}(a)")
        for name in ("sqrt", "exp", "exp2", "log", "log2", "sin", "cos", "tanh", "erf", "floor", "trunc")
    ],
    (_A.alu(ops.ROUND), "rint(a)"),
    (_A.alu(ops.POW, _B), "pow(a, b)"),
    (_A.cast(dtypes.bool_), "(a != 0)"),
    (_I.cast(dtypes.float32), "(float)a"),
    (_I.cast(dtypes.int8), "(char)a"),
    (UOp(ops.LOAD, dtypes.bool_, (_P, _J, _YES), 1), "(a[b] != 0)"),
    (UOp(ops.LOAD, dtypes.bool_, (_P, _J, _leaf("c", dtypes.bool_)), 1), "(c && a[b] != 0)"),
    (UOp(ops.LOAD, dtypes.float32, (_A, _J, _YES), 1), "a[b]"),
    (UOp(ops.LOAD, dtypes.float32, (_A, _J, _leaf("c", dtypes.bool_)), 1), "(c ? a[b] : 0.0f)"),
    (UOp(ops.STORE, dtypes.void, (_A, _J, _C, _YES)), "a[b] = c;"),
    (UOp(ops.STORE, dtypes.void, (_A, _J, _B, _leaf("c", dtypes.bool_))), "if (c) a[b] = b;"),
    (UOp(ops.IF, dtypes.void, (_P,)), "if (a) {"),
    (UOp(ops.ENDIF, dtypes.void, (UOp(ops.IF, dtypes.void, (_P,)),)), "}"),
    (UOp(ops.END, dtypes.void, (_SMALL,)), "}"),
    (_SMALL, "for (int r = 0; r < 8; r++) {"),
    (UOp(ops.IOTA, dtypes.int32, (), 3), "intx3(0, 1, 2)"),
]


@pytest.mark.parametrize(("node", "text"), _SPELLED, ids=[text for _, text in _SPELLED])
def test_how_every_operation_is_spelled(node, text, dialect):
    """Each rule of the common dialect, put to one node; the text of operands is given."""

    def names(operand):
        if operand.op is ops.CONST:
            return group.match(operand, names, SimpleNamespace(dialect=dialect))
        return "r" if operand is _SMALL else " abc"[operand.arg[0]]

    group = rules.load("tinycore.passes.cstyle").renders["cstyle"]
    assert group.match(node, names, SimpleNamespace(dialect=dialect)) == text

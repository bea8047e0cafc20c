"""The compiled matchers against the naive interpreter of rules, on generated expressions."""

import random
import tempfile
from pathlib import Path

import naive
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore import rules
from tinycore.ir import UOp, dtypes, ops

TEXT = """
view not_(b) = b ^ true

group all(fixpoint) {
  mul_1: x * 1 => x
  add_0: x:Int + 0 => x
  mul_0f: x:Float * 0.0 => 0
  same_max: MAX(x, x) => x
  factor: x:Int * $a + x * $b => x * (a + b)
  ordered: SUB!(x, x:Int) => 0
  sub_to_add: x:Int - $c if c != 0 and c > -100 => x + -c
  nested: (x + y) * $c if x.dtype.is_int and not (c == 2 or c < 0) => x * c + y * c
  mod_range: x:Int % $c if 0 <= x.vmin and x.vmax < c => x
  twice: $c + $c => c * 2
  for OP in (ADD|MUL|AND|OR|XOR) { fold: OP($a:Int, $b) => OP(a, b) }
  for OP in (LT|EQ) { decided: n@OP(x:Int, _) if n.vmin == n.vmax => n.vmin }
  swap: c@(LT|LE)(x:Float, $k) let low = k if low < 0 => WHERE(c, true, c)
  where_not: WHERE(not_(c), a, b) => WHERE(c, b, a)
  where_const: WHERE(c, $a, $b) if a == b => a
  where_int: WHERE(true, x, _) => x
  cast_same: CAST[T](x:T) => x
  cast_cast: CAST[T](CAST[U](x:S)) if lossless(S, U) => CAST[T](x)
  cast_to_bool: CAST[=bool](x:int32) => x != 0
  distribute: x * y + x * z => x * (y + z)
  neg: -(-x) => x
  neg_block: -(x:Int + y) => { a = -x; b = -y; a + b }
  greater: x:Int > $c if c > 2 => x + 0 > c
  flat: SINK(*a, SINK(*b), *c) => SINK(*a, *b, *c)
  last: SINK(*a, NEG(x), y) if len(a) == 1 => SINK(x, *a, y)
  three: (x ^ y) | (y ^ x) => x ^ y
}
"""


INT, FLOAT, BOOL = dtypes.int32, dtypes.float32, dtypes.bool_
CONSTANTS = {
    INT: (0, 1, 2, 3, -1, -200, 64),
    FLOAT: (0.0, -0.0, 1.0, -3.0, float("nan")),
    BOOL: (False, True),
}
BINARY = {
    INT: (ops.ADD, ops.MUL, ops.ADD, ops.MUL, ops.SUB, ops.MAX, ops.AND, ops.OR, ops.XOR, ops.FLOORMOD),
    FLOAT: (ops.ADD, ops.MUL, ops.MAX, ops.SUB),
    BOOL: (ops.XOR, ops.AND, ops.OR),
}
COMPARE = (ops.LT, ops.LE, ops.EQ)


def build_graph(program):
    """A sink over nodes built step by step: operands are earlier nodes, so they repeat."""
    pool = {dtype: [UOp(ops.PARAM, dtype, (), (slot, ())) for slot in range(2)] for dtype in CONSTANTS}
    pool[INT].append(UOp.variable("n", 0, 5).cast(INT))
    pool[INT] += [UOp.const(INT, 3), UOp.const(INT, 64)]
    pool[BOOL].append(UOp.const(BOOL, True))
    sinks = []
    for kind, which, a, b, c in program:
        dtype = (INT, INT, FLOAT, BOOL)[which % 4]
        mine = pool[dtype]
        left, right = mine[a % len(mine)], mine[b % len(mine)]
        constant = UOp.const(dtype, CONSTANTS[dtype][c % len(CONSTANTS[dtype])])
        op = BINARY[dtype][b % len(BINARY[dtype])]
        if kind < 4:
            node = left.alu(op, (right, constant, right, left)[kind])
        elif kind == 4:
            node = constant.alu(op, (left, UOp.const(dtype, CONSTANTS[dtype][a % 2]))[a % 2])
        elif kind == 5:
            node = pool[BOOL][c % len(pool[BOOL])].where((left, constant)[a % 2], (right, constant)[b % 2])
        elif kind == 6:
            node = left.alu(ops.NEG) if dtype is not BOOL else left ^ True
        elif kind == 7:
            source = pool[(INT, FLOAT, BOOL)[c % 3]]
            node = UOp(ops.CAST, dtype, (source[a % len(source)],))
        elif kind == 8:
            node = left.alu(COMPARE[c % 3], (right, constant)[b % 2])
        elif kind == 9:
            parts = (
                (left, left.alu(ops.NEG), right)
                if dtype is not BOOL and c % 2
                else (left, *sinks[: c % 3], right)
            )
            sinks.append(UOp(ops.SINK, dtypes.void, parts[: 1 + a % 4]))
            continue
        else:
            node = left.alu(op, right).alu(BINARY[dtype][c % 3], left.alu(op, (right, constant)[c % 2]))
        pool[node.dtype].append(node)
    return UOp(ops.SINK, dtypes.void, (*sinks, *(node for part in pool.values() for node in part)))


BYTE = st.integers(0, 255)
GRAPHS = st.lists(st.tuples(st.integers(0, 10), BYTE, BYTE, BYTE, BYTE), max_size=60).map(build_graph)
NAIVE = naive.load(TEXT)
COMPILED: list = []


def _compiled():
    if not COMPILED:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "oracle.rules")
            path.write_text(TEXT)
            COMPILED.append(rules.load_file(path).groups["all"].alone.stages[0])
    return COMPILED[0]


def check_graph(graph):
    """Compare at every node; the names of the rules that fired."""
    stage = _compiled()
    fired, names = [], set()
    watched = stage.watched(lambda before, after, rule: fired.append(rule.name))
    for node in graph.toposort():
        name, wanted = naive.results(NAIVE, node)
        match = stage.table[node.op.number]
        result = match(node, None) if match is not None else None
        assert (result is None) == (not wanted), (node, name, wanted, result)
        if result is not None:
            assert result in wanted, (node, name, wanted, result)
            fired.clear()
            assert watched[node.op.number](node, None) is result, "the traced variant differs"
            assert fired == [name]
            names.add(name)
    return names


@settings(max_examples=200, deadline=None)
@given(GRAPHS)
def test_every_node_is_rewritten_as_the_naive_interpreter_says(graph):
    check_graph(graph)


def test_seeded_graphs_reach_every_rule():
    generator = random.Random(7)
    fired = set()
    for _ in range(150):
        steps = [(generator.randrange(11), *(generator.randrange(256) for _ in range(4))) for _ in range(60)]
        fired |= check_graph(build_graph(steps))
    missing = {rule.name for rule in NAIVE} - fired
    assert not missing

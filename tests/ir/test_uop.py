"""The node: interning, exactness, threads, life and death, depth."""

from __future__ import annotations

import ast
import gc
import math
import pickle
import threading
from pathlib import Path

import pytest

import tinycore
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.text import parse, print_graph
from tinycore.ir.uop import substitute, table_size, toposort

F32 = dtypes.float32
DEPTH = 100_000


def buffer(number=0, shape=(4,)):
    return UOp(ops.BUFFER, F32, (), (number, shape, "D"))


def test_equal_nodes_are_the_same_object():
    x = buffer()
    assert x + 1.0 is x + 1.0
    assert x + 1.0 is not x + 2.0
    assert UOp(ops.NEG, F32, (x,)) is UOp(ops.NEG, F32, (x,), None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (UOp.const(F32, 0.0), UOp.const(F32, -0.0)),
        (UOp.const(dtypes.bool_, True), UOp.const(dtypes.int32, 1)),
        (UOp.const(dtypes.int32, 1), UOp.const(dtypes.int64, 1)),
        (UOp.const(F32, 1.0), UOp.const(dtypes.float64, 1.0)),
        (UOp.const(F32, 1.0), UOp.const(F32, 1.0, (1,))),
        (UOp.from_bits(F32, 0x7FC00000), UOp.from_bits(F32, 0x7FC00001)),
    ],
    ids=["zeros", "bool", "width", "float width", "shape", "nan payload"],
)
def test_what_python_finds_equal_is_not_merged(one, other):
    assert one is not other


def test_constants_keep_their_value():
    assert math.copysign(1.0, UOp.const(F32, -0.0).value) == -1.0
    assert math.isnan(UOp.const(F32, math.nan).value)
    assert UOp.const(F32, math.nan) is UOp.const(F32, float("nan"))
    assert UOp.const(dtypes.bool_, True).value is True
    assert type(UOp.const(dtypes.int32, True).arg[0]) is int


def test_truth_and_comparison_are_not_python_equality():
    x = buffer()
    with pytest.raises(TypeError, match="truth of a symbolic value"):
        bool(x)
    assert (x == x) is True
    assert x.eq(x).op is ops.EQ


def test_entries_die_with_their_nodes():
    gc.collect()
    before = table_size()
    kept = [UOp.const(dtypes.int64, 10**9 + k) for k in range(1000)]
    chain = buffer(12345)
    for node in kept:
        chain = chain + float(node.value)
    assert table_size() >= before + 2000
    del kept, chain, node
    gc.collect()
    assert table_size() <= before


def test_a_dead_entry_is_replaced():
    for _ in range(1000):  # each node dies before its twin is made
        assert UOp.const(dtypes.int64, 987_654_321).value == 987_654_321


def test_four_threads_make_one_node_each_time():
    """Every thread builds the same graphs at the same time; all must hold the same objects."""
    rounds, workers = 300, 4
    barrier = threading.Barrier(workers)
    made = [[] for _ in range(workers)]
    problems = []

    def work(own):
        try:
            for number in range(rounds):
                barrier.wait()
                node = UOp.const(dtypes.int64, 5_000_000 + number)
                for step in range(8):
                    node = node * 3 + step
                own.append(node)
        except Exception as problem:  # noqa: BLE001 - reported by the main thread
            problems.append(problem)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    for nodes in zip(*made, strict=True):
        assert all(node is nodes[0] for node in nodes)


def test_four_threads_build_and_drop():
    """Nodes die in some threads while others ask for them: no look-up may answer a dead or a second node."""
    stop = threading.Event()
    problems = []

    def work():
        while not stop.is_set():
            x = UOp.const(dtypes.int64, 77_000_001)
            y = UOp.const(dtypes.int64, 77_000_001)
            if x is not y or x.value != 77_000_001:
                problems.append((x, y))
                return
            del x, y

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems


@pytest.fixture(scope="module")
def chain():
    node = buffer(99)
    for _ in range(DEPTH):
        node = -node
    return node


def test_depth_is_no_limit_for_facts(chain):
    assert chain.shape == (4,)
    assert chain.bounds == (-(1 << 63), (1 << 63) - 1)
    assert chain.ranges == frozenset()
    assert len(toposort((chain,))) == DEPTH + 1
    assert "NEG" in repr(chain)


def test_depth_is_no_limit_for_text_and_pickle(chain):
    text = print_graph(chain)
    assert text.count("\n") == DEPTH
    assert parse(text) is chain
    assert pickle.loads(pickle.dumps(chain)) is chain


def test_depth_is_no_limit_for_substitution(chain):
    (other,) = substitute((chain,), {buffer(99): buffer(98)})
    assert other is not chain
    assert len(other.toposort()) == DEPTH + 1


def test_depth_is_no_limit_for_freeing():
    gc.collect()
    before = table_size()
    node = buffer(97)
    for _ in range(DEPTH):
        node = -node
    assert table_size() > before + DEPTH
    del node
    gc.collect()
    assert table_size() <= before


def test_pickle_of_a_graph_with_symbolic_dimensions():
    n = UOp.variable("n", 1, 64)
    x = UOp(ops.BUFFER, F32, (), (1, (n, 4), "D"))
    assert pickle.loads(pickle.dumps(x + 1.0)) is x + 1.0


def test_toposort_lists_operands_first_and_once():
    x = buffer()
    root = (x + 1.0) * (x + 1.0) + x
    order = root.toposort()
    assert len(order) == len(set(order))
    place = {node: at for at, node in enumerate(order)}
    assert all(place[operand] < place[node] for node in order for operand in node.src)
    assert order[-1] is root


def test_mask_has_the_bits_of_everything_below():
    root = (buffer() + 1.0).eq(buffer(1))
    assert root.mask == ops.BUFFER.bit | ops.CONST.bit | ops.ADD.bit | ops.EQ.bit


def test_nobody_reassigns_the_fields_of_a_node():
    """UOp is immutable by convention: a check in the constructor would cost a third of its speed."""
    fields = {"op", "dtype", "src", "arg", "mask", "_shape", "_bounds", "_ranges"}
    allowed = {("uop.py", name) for name in fields}
    allowed |= {("shapes.py", "_shape"), ("bounds.py", "_bounds"), ("bounds.py", "_ranges")}
    allowed |= {("prove.py", "_bounds")}  # the prover of rules gives symbolic bounds to nodes of its own
    root = Path(tinycore.__file__).parent
    found = []
    for file in [*root.rglob("*.py"), *root.parent.joinpath("plugins").rglob("*.py")]:
        if ".venv" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) else []:
                own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
                if own and target.attr in fields and target.value.id not in ("self", "_facts"):
                    found.append((file.name, target.attr, node.lineno))
    assert [each for each in found if each[:2] not in allowed] == []


def test_a_shape_that_a_node_says_itself_is_not_looked_for_below():
    chain = UOp(ops.BUFFER, dtypes.float32, (), (1, (4, 6), "X")).alu(ops.NEG).alu(ops.EXP2)
    reshaped = UOp(ops.RESHAPE, chain.dtype, (chain,), (24,))
    assert reshaped.shape == (24,)
    assert chain._shape is None
    assert chain.alu(ops.SQRT).shape == (4, 6)
    assert chain._shape == (4, 6)

"""Constant folding answers what the interpreter answers, bit for bit."""

import itertools

import numpy as np
import pytest

from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.dtypes import CLASSES
from tinycore.rules.fold import _RULES, fold

EDGES = {
    "bool": (False, True),
    "float": (0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.75, 1e-7, 448.0, 3e4, 1e30, -1e300,
              float("inf"), float("-inf"), float("nan"), 1.1754943508222875e-38, 7.0, 1.0009765625),
    "int": (0, 1, 2, 3, 7, -1, -2, -5, 31, 63, 64, 100, -100, 127, -128, 2**31 - 1, -(2**31),
            2**63 - 1, -(2**63)),
}  # fmt: skip
FOLDED = [*_RULES, ops.WHERE, ops.CAST, ops.BITCAST]


def constants(dtype):
    kind = "int" if dtype.is_int else dtype.kind
    nodes = dict.fromkeys(UOp.const(dtype, value) for value in EDGES[kind])
    if dtype.kind == "index":
        nodes = [node for node in nodes if -(2**31) <= node.value < 2**31]
    return list(nodes)


def same(folded, node, values):
    (wanted,) = interpret([node], {})
    got = folded.dtype.from_bits(folded.arg[0])
    array = np.array(got, wanted.dtype)
    wanted = np.asarray(wanted).reshape(())
    if wanted.dtype.kind not in "iub" and np.isnan(wanted.astype(float)):
        return np.isnan(array.astype(float))
    if node.op in (ops.MAX, ops.MIN) and float(wanted) == 0:
        return float(array) == 0  # the sign is unspecified
    return array.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("op", FOLDED, ids=lambda op: op.name)
def test_folding_is_the_interpretation(op):
    checked = 0
    for dtype in (
        CLASSES[op.operands[-1 if op is ops.WHERE else 0].split(":")[-1]]
        if op is not ops.WHERE
        else CLASSES["Any"]
    ):
        nodes = constants(dtype)
        results = [dtype] if op.dtype == "T" else [dtypes.bool_]
        if op is ops.CAST:
            results = [target for target in CLASSES["Any"] if target.kind != "index"]
        if op is ops.BITCAST:
            results = [
                target
                for target in CLASSES["Any"]
                if target.itemsize == dtype.itemsize and target.kind != "bool"
            ]
            if dtype.kind in ("bool", "index"):
                continue
        count = 2 if len(op.operands) > 1 else 1
        with np.errstate(all="ignore"):
            for result, values in itertools.product(results, itertools.product(nodes, repeat=count)):
                if op is ops.WHERE:
                    values = (UOp.const(dtypes.bool_, values[0].value > values[1].value), *values)
                node = UOp(op, result, tuple(values))
                folded = fold(op, result, tuple(values))
                if folded.op is not ops.CONST:
                    assert folded is node
                    continue
                if dtype.kind == "index" and not -(2**63) <= folded.arg[0] < 2**63:
                    continue  # exact; the interpreter has 64 bits
                assert same(folded, node, values), (op, result, [v.value for v in values], folded.value)
                checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    "source, value",
    [
        (dtypes.uint64, 2**64 - 1),
        (dtypes.uint64, 2**63),
        (dtypes.float64, float("inf")),
        (dtypes.float32, -1e30),
    ],
)
def test_indices_fold_to_what_64_bits_hold(source, value):
    node = UOp(ops.CAST, dtypes.index, (UOp.const(source, value),))
    (wanted,) = interpret([node], {})
    assert fold(ops.CAST, dtypes.index, node.src).value == int(wanted)


def test_the_upper_half_of_uint64_is_no_index():
    assert not dtypes.lossless(dtypes.uint64, dtypes.index)
    assert dtypes.lossless(dtypes.uint32, dtypes.index) and dtypes.lossless(dtypes.int64, dtypes.index)

"""Rules hold by themselves: none counts on an earlier one of its group to take its wrong cases away.

`tinycore rules verify` looks at every rule alone; these are the cases that it has found.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from passes_helpers import Context, target

import tinycore
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import load
from tinycore.rules.expand import rules_of
from tinycore.rules.generate import generate
from tinycore.rules.parse import parse

PATH = Path(tinycore.__file__).parent / "passes" / "decompose.rules"


def alone(name):
    """The function of one rule of decompose.rules."""
    file = parse(PATH.read_text(), str(PATH))
    natives = load("tinycore.passes.decompose").code.natives
    for group in file.groups:
        for rule in rules_of(file, group):
            if rule.name == name:
                single = replace(file, groups=(replace(group, items=(rule,)),), passes=(), imports=())
                namespace = {f"f_{key}": value for key, value in natives.items()}
                exec(generate(single), namespace)
                return namespace["GROUPS"][group.name]["table"][0][2]
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name, op", [("truncdiv_safe", ops.TRUNCDIV), ("truncmod_safe", ops.TRUNCMOD), ("shr_safe", ops.SHR)]
)
def test_rules_for_signed_numbers_leave_others_alone(name, op):
    for dtype in (dtypes.uint8, dtypes.int8):
        x, y = (UOp(ops.BUFFER, dtype, (), (k, (), "D")) for k in (0, 1))
        after = alone(name)(UOp(op, dtype, (x, y)), Context(target()))
        assert (after is None) == (dtype is dtypes.uint8)


def test_the_fallback_of_fma_is_for_narrow_floats():
    for dtype in (dtypes.float32, dtypes.float64):
        x = UOp(ops.BUFFER, dtype, (), (0, (), "D"))
        assert alone("fma_none")(UOp(ops.FMA, dtype, (x, x, x)), Context(target(arithmetic=[]))) is None


@pytest.mark.parametrize("dtype, name", [(dtypes.float32, "fma_f32"), (dtypes.float64, "fma_f64")])
def test_fma_where_the_product_overflows(dtype, name):
    limits = np.finfo(dtype.numpy)
    values = [float(limits.max), -float(limits.max), float("inf"), 1.5, -1.0, float(limits.max) / 3, 2.0]
    grid = np.array(list(itertools.product(values, repeat=3)), dtype.numpy).T.copy()
    leaves = [UOp(ops.BUFFER, dtype, (), (k, (grid.shape[1],), "D")) for k in range(3)]
    before = UOp(ops.FMA, dtype, tuple(leaves))
    after = alone(name)(before, Context(target()))
    expected, answer = interpret([before, after], dict(zip(leaves, grid, strict=True)))
    assert np.array_equal(np.isfinite(expected), np.isfinite(answer))
    finite = np.isfinite(expected)
    assert (np.abs(expected - answer)[finite] <= np.spacing(np.abs(expected[finite]))).all()
    assert np.array_equal(expected[~finite], answer[~finite], equal_nan=True)

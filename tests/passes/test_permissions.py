"""Rules that only some passes permit, and decompositions that only poor targets need."""

from __future__ import annotations

import numpy as np
import pytest
from passes_helpers import Context, target

from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import Pass, load, trace
from tinycore.rules.module import DEFAULT_ACCEPT, FAST, Stage

ALGEBRA = load("tinycore.passes.algebra").groups
DECOMPOSE = load("tinycore.passes.decompose").passes["decompose"]
X = UOp(ops.BUFFER, dtypes.float32, (), (0, (4,), "D"))

FAST_RULES = {
    "add_0f": ({"nsz"}, X + 0.0, X),
    "mul_0f": ({"nnan", "ninf", "nsz"}, X * 0.0, X.const_like(0.0)),
    "reassoc_add": ({"reassoc"}, (X + 2.0) + 3.0, X + 5.0),
    "reassoc_mul": ({"reassoc"}, (X * 2.0) * 3.0, X * 6.0),
}


def simplify(*flags: str) -> Pass:
    """The algebra of the core, with some fast-math flags accepted."""
    groups = (ALGEBRA["constants"], ALGEBRA["algebra"])
    return Pass("simplify", (Stage("fixpoint", groups, DEFAULT_ACCEPT | set(flags)),))


@pytest.mark.parametrize("name", FAST_RULES)
def test_fast_rules_run_where_all_their_flags_are_accepted(name: str) -> None:
    flags, before, after = FAST_RULES[name]
    assert simplify(*flags)(before) is after
    assert simplify()(before) is before
    for flag in flags:
        assert simplify(*(FAST - {flag}))(before) is before


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16])
def test_narrow_floats_on_targets_that_only_have_float32(dtype) -> None:
    poor = Context(target(arithmetic=[dtypes.float32, dtypes.int32, dtypes.uint32, dtypes.bool_]))
    a, b, c = (UOp(ops.BUFFER, dtype, (), (k, (64,), "D")) for k in range(3))
    whole = UOp(ops.REDUCE, dtype, (a.alu(ops.FMA, b, c),), (ops.ADD, (0,)))
    with trace() as found:
        after = DECOMPOSE(whole, poor)
    assert {"fma_none", f"wider_reduce[{dtype.name}]"} <= {event.rule.name for event in found.events}
    arithmetic = [node for node in after.toposort() if node.dtype is dtype and node.op is not ops.BUFFER]
    assert {node.op for node in arithmetic} <= {ops.CAST, ops.BITCAST, ops.WHERE, ops.CONST}
    random = np.random.default_rng(3)
    arrays = {leaf: random.standard_normal(64).astype(np.float32).astype(dtype.numpy) for leaf in (a, b, c)}
    x, y, z = (array.astype(np.float64) for array in arrays.values())
    (value,) = interpret([after], arrays)
    error = abs(float(value[0]) - float((x * y + z).sum()))
    assert error <= 64 * 4 * 2.0 ** -(dtype.mantissa + 1)  # each of 64 terms below 8 is rounded once

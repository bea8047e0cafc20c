"""Random tensor graphs: the interpreter, the compiler and every device against the oracle.

Split into parts so that the workers of pytest-xdist share the work. A failure prints the smallest graph that
hypothesis found and a command that repeats it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tinycore.config import override
from tinycore.errors import BackendUnavailable
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.verify import verify
from tinycore.runtime.compiler import forget_loaded
from tinycore.testing.compare import check
from tinycore.testing.devices import PURE, runner, stored_dtypes
from tinycore.testing.strategies import cases, contractions, operations

PART = 125
GRAPHS = {
    PURE: 2000,
    "INTERPRETER": 500,
    "program:scalar": 250,
    "program:vector": 250,
    "program:groups": 250,
    "program:basic": 125,
    "CPU": 2000,
    "CL": 200,
}
"""How many graphs each device computes; `program:` devices interpret what is compiled for a target."""
CONTRACTIONS = {"program:vector": 60, "program:groups": 60, "CPU": 200, "CL": 20}
"""How many matrix products and long reductions, which the graphs above are too small for."""
QUIET = list(HealthCheck)


def parts(table, part):
    for device, count in table.items():
        for number in range(max(1, count // part)):
            yield pytest.param(device, number, min(part, count), id=f"{device}-{number}")


def opened(device):
    try:
        return runner(device)
    except BackendUnavailable as reason:
        pytest.skip(f"{device}: {reason.what}")


@pytest.mark.parametrize(("device", "number", "count"), list(parts(GRAPHS, PART)))
def test_random_graphs(device, number, count):
    run = opened(device)

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, print_blob=True, suppress_health_check=QUIET)
    @given(cases(stored_dtypes(device)))
    def holds(case):
        if device == PURE:
            verify(UOp(ops.SINK, dtypes.void, case.roots), "tensor")
        check(case, run, device)

    holds()


@pytest.mark.parametrize(("device", "number", "count"), list(parts(CONTRACTIONS, 50)))
def test_contractions(device, number, count):
    run = opened(device)

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, print_blob=True, suppress_health_check=QUIET)
    @given(contractions(stored_dtypes(device)))
    def holds(case):
        check(case, run, device)

    holds()


@pytest.mark.parametrize("number", range(2))
def test_validation_finds_nothing(number):
    """TINYCORE_VALIDATE=1: the interpreter runs every kernel before and after every pass."""
    run = opened("CPU")
    forget_loaded()

    @seed(1000 + number)
    @settings(max_examples=PART, deadline=None, database=None, print_blob=True, suppress_health_check=QUIET)
    @given(cases(stored_dtypes("CPU")))
    def holds(case):
        with override(validate=True):
            check(case, run, "CPU")

    holds()


def test_half_of_the_graphs_are_large():
    sizes = []

    @seed(0)
    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=QUIET)
    @given(cases())
    def count(case):
        sizes.append(operations(case))

    count()
    assert sum(size >= 8 for size in sizes) >= len(sizes) / 2


def test_every_op_and_dtype_occurs():
    seen_ops, seen_dtypes, seen_sizes = set(), set(), set()

    @seed(1)
    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=QUIET)
    @given(cases())
    def count(case):
        for node in UOp(ops.SINK, dtypes.void, case.roots).toposort():
            seen_ops.add(node.op)
            seen_dtypes.add(node.dtype)
            seen_sizes.update(node.shape)

    count()
    tensor = {op for op in ops if "tensor" in op.levels}
    # PARAM, CALL and CUSTOM need a body or a plugin, VARIABLE a binding, COPY a second device.
    absent = {ops.PARAM, ops.CALL, ops.CUSTOM, ops.VARIABLE, ops.COPY}
    assert tensor - seen_ops == absent
    assert set(dtypes.DATA) <= seen_dtypes
    assert {0, 1} <= seen_sizes

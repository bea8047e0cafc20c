"""Searches on a real device: they find what is faster, survive what is broken, and never answer wrong."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tinycore_pass_search import climb as climbing
from tinycore_pass_search.child import Child, ChildMeasurer, Measured
from tinycore_pass_search.climb import Clock, climb

from tinycore.codegen.pipeline import BEFORE_TILE, Context
from tinycore.codegen.tiling import Bind, Split
from tinycore.errors import BackendUnavailable, CompileError
from tinycore.ir import Capabilities, UOp, dtypes, ops
from tinycore.runtime.devices import get_device
from tinycore.schedule import KernelStep, make_schedule, number_buffers

FAULTY = Path(__file__).parent / "faulty_worker.py"


def before_tiling(value, target):
    """The one kernel of a graph, as the pass sees it."""
    numbered, _ = number_buffers([value])
    (step,) = [s for s in make_schedule(numbered, "X").steps if isinstance(s, KernelStep)]
    kernel = step.kernel
    for each in BEFORE_TILE:
        kernel = each.run(kernel, Context(target))
    return kernel


def stored(*shape, identity=1):
    return UOp(ops.BUFFER, dtypes.float32, (), (identity, shape, "X"))


def polynomial(count=1 << 18):
    x = stored(count)
    return x * x * 0.5 + x * 3.0 + 1.0


def rows_sum(rows=512, columns=512):
    return UOp(ops.REDUCE, dtypes.float32, (stored(rows, columns) * 2.0 + 1.0,), (ops.ADD, (1,)))


@pytest.fixture
def device():
    return get_device("CPU")


@pytest.fixture
def child():
    made = Child()
    yield made
    made.close()


def search(kernel, device, child, base=(), seconds=6.0, **options):
    measurer = ChildMeasurer(child, kernel, device.target)
    return climb(kernel, base, device.target.capabilities, measurer, seconds, **options)


@pytest.mark.parametrize("make", [polynomial, rows_sum])
def test_a_bad_tiling_gets_much_faster(make, device, child):
    kernel = before_tiling(make(), device.target)
    found = search(kernel, device, child, seconds=8.0)
    assert found.actions != () and found.after < 0.6 * found.before, found
    assert child.starts == 1


def test_a_deliberately_bad_list_of_actions_is_left_behind(device, child):
    kernel = before_tiling(polynomial(), device.target)
    bad = (Split(0, 3, outer=5, inner=6, tail="mask"), Bind(6, "unroll"))
    found = search(kernel, device, child, bad, seconds=8.0)
    assert found.base == bad and found.actions != bad and found.after < 0.7 * found.before, found


def test_one_process_measures_several_kernels(device, child):
    for make in (polynomial, rows_sum):
        assert search(before_tiling(make(), device.target), device, child, seconds=0.5).before > 0
    assert child.starts == 1


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        (("none", "raise", "none", "crash"), "crashed"),
        (("none", "none", "hang"), "timeout"),
        (("none", "raise"), "failed"),
    ],
)
def test_broken_candidates_do_not_end_a_search(faults, status, device, monkeypatch):
    monkeypatch.setattr(climbing, "LEAST_PATIENCE", 1.0)
    child = Child((sys.executable, str(FAULTY), *faults))
    try:
        found = search(before_tiling(polynomial(), device.target), device, child, seconds=4.0)
    finally:
        child.close()
    assert found.tried[status] >= 1 and found.after <= found.before
    assert (child.starts > 1) == (status != "failed")


def test_wrong_results_are_never_chosen(device):
    child = Child((sys.executable, str(FAULTY), "wrong"))
    try:
        found = search(before_tiling(polynomial(), device.target), device, child, seconds=4.0)
    finally:
        child.close()
    assert found.actions == found.base == () and found.tried["wrong"] > 0 and not found.tried["ok"]


def test_a_kernel_that_cannot_be_measured_is_an_error_with_its_reason(device):
    child = Child((sys.executable, "-c", "import sys; sys.exit(3)"))
    with pytest.raises(CompileError, match="untuned kernel") as raised:
        search(before_tiling(polynomial(), device.target), device, child, seconds=1.0)
    assert "status 3" in raised.value.hint


def test_on_a_work_group_device(child):
    try:
        device = get_device("CL")
    except BackendUnavailable as reason:
        pytest.skip(f"CL: {reason.what}")
    kernel = before_tiling(polynomial(1 << 14), device.target)
    found = search(kernel, device, child, seconds=4.0)
    assert found.tried["ok"] + found.tried["slow"] > 0 and not found.tried["crashed"]


# --- the climb itself, with invented times --------------------------------------------------------------------


class Invented:
    """A measurer whose times are a function of the actions."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.order = []

    def start(self, base, patience):
        return Measured("ok", self.seconds(tuple(base)))

    def measure(self, actions, cutoff, patience):
        self.order.append(actions)
        time.sleep(0.0005)
        return Measured("ok", self.seconds(actions))

    def duel(self, one, other, seconds, patience):
        return self.seconds(tuple(one)), self.seconds(tuple(other))


LANES = Capabilities(vector_bytes=64, threads=2)
BASE = (Split(0, 64, outer=1, inner=2), Bind(2, "vector"))


def small():
    return before_tiling(polynomial(1 << 12), get_device("CPU").target)


def by_size(actions):
    """Fastest with 8 lanes."""
    sizes = [action.size for action in actions if isinstance(action, Split)]
    return 1.0 + abs(sizes[0] - 8) if len(sizes) == 1 else 100.0


def test_it_climbs_to_the_top():
    found = climb(small(), BASE, LANES, Invented(by_size), 20.0)
    assert found.actions[0].size == 8 and found.after == 1.0 and found.speedup == 57.0


def test_a_seed_decides_the_order():
    first, again, other = Invented(by_size), Invented(by_size), Invented(by_size)
    for measurer, seed in ((first, 1), (again, 1), (other, 2)):
        climb(small(), BASE, LANES, measurer, 20.0, seed)
    shared = min(len(first.order), len(again.order), 30)
    assert first.order[:shared] == again.order[:shared] and first.order[:shared] != other.order[:shared]


def test_a_lucky_measurement_does_not_win_the_duel():
    measurer = Invented(by_size)
    measurer.duel = lambda *given: (1.0, 0.99)
    found = climb(small(), BASE, LANES, measurer, 20.0)
    assert found.actions == BASE and found.before == found.after and found.speedup == 1.0


def test_the_time_box_holds_and_progress_is_told():
    told = []

    def slow(actions):
        time.sleep(0.05)
        return 1.0

    start = time.monotonic()
    found = climb(small(), BASE, LANES, Invented(slow), 0.3, progress=lambda *given: told.append(given))
    assert time.monotonic() - start < 3 and not found.finished
    assert told[0] == (1.0, 1.0, 0) and told[-1][2] == sum(found.tried.values()) > 0
    assert isinstance(found.tried, Counter)


def test_a_kernel_that_takes_nothing_is_not_searched():
    measurer = Invented(by_size)
    found = climb(small(), BASE, LANES, measurer, 20.0, least=100.0)
    assert found.actions == BASE and found.finished and not found.tried and not measurer.order


def test_a_kernel_gets_time_by_what_it_takes():
    def slow(actions):
        time.sleep(0.05)
        return 0.1 if actions == BASE else 0.2

    start = time.monotonic()
    assert not climb(small(), BASE, LANES, Invented(slow), 60.0, share=1.0).finished
    assert time.monotonic() - start < 20


def test_a_clock_runs_out():
    clock = Clock(0.01)
    time.sleep(0.02)
    assert clock.over and clock.left == 0.0


def test_errors_are_found_by_the_comparison():
    from tinycore_pass_search.bench import error_of

    one = np.array([1.0, np.nan, np.inf], np.float32)
    assert error_of(one, one) == 0.0
    assert error_of(np.array([1.0, 2.0, np.inf], np.float32), one) == np.inf
    assert error_of(np.array([1.5, np.nan, np.inf], np.float32), one) == 0.5
    assert error_of(np.array([1, 2]), np.array([1, 3])) == np.inf

"""Tensors are values: in-place writes change one tensor and no other, whatever is still lazy."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinycore_frontend_tensor import Tensor, Variable, dtypes, nn

from tinycore.errors import BindingError, ShapeError, TinycoreError


def test_lazy_readers_keep_the_old_value():
    x = Tensor(np.arange(6, dtype=np.float32))
    doubled, copy, view = x * 2, x.detach(), x.reshape(2, 3)
    x.assign(x + 100)
    x[0] = -1
    assert x.tolist() == [-1, 101, 102, 103, 104, 105]
    assert doubled.tolist() == [0, 2, 4, 6, 8, 10]
    assert copy.tolist() == [0, 1, 2, 3, 4, 5]
    assert view.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_storage_stays():
    x = Tensor([1.0, 2.0, 3.0])
    node = x.uop
    x.assign(x.flip(0) * 10)
    x[1:] = x[:2] + 1
    x.realize()
    assert x.uop is node
    assert x.tolist() == [30.0, 31.0, 21.0]


def test_versions_apart():
    x = Tensor([1.0, 2.0])
    y = x.detach()
    x.assign(x + 1)
    y.assign(y * 10)
    z = x + y
    assert (x.tolist(), y.tolist(), z.tolist()) == ([2.0, 3.0], [10.0, 20.0], [12.0, 23.0])


def test_an_old_version_survives_its_successor():
    x = Tensor([1.0])
    x.assign(x + 1)
    middle = x.detach()
    x.assign(x * 10)
    assert (x.item(), middle.item()) == (20.0, 2.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_random_programs_of_assignments(program):
    """The same steps on numpy copies, where nothing can alias, must give the same values."""
    ours = [Tensor(np.arange(4, dtype=np.int64) + 10 * k) for k in range(3)]
    theirs = [np.arange(4) + 10 * k for k in range(3)]
    for step, a, b in program:
        if step == 0:
            ours[a].assign(ours[b] + 1)
            theirs[a] = theirs[b] + 1
        elif step == 1:
            ours[a][1:3] = ours[b][:2] * 2
            theirs[a] = theirs[a].copy()
            theirs[a][1:3] = theirs[b][:2] * 2
        elif step == 2:
            ours[a], theirs[a] = ours[b].detach(), theirs[b]
        elif step == 3:
            ours[a], theirs[a] = ours[a] + ours[b], theirs[a] + theirs[b]
        elif step == 4:
            ours[a].realize()
        else:
            ours[a][::2] = ours[b][1::2]
            theirs[a] = theirs[a].copy()
            theirs[a][::2] = theirs[b][1::2]
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.tolist() == expected.tolist()


def test_pending_writes_run_with_the_next_realize():
    x = Tensor([1.0]).realize()
    x.assign(x + 1)
    (Tensor([3.0]) * 2).realize()
    assert x.is_realized
    assert x.item() == 2.0


def test_assigning_needs_a_fitting_value():
    with pytest.raises(ShapeError, match=r"\(3,\) does not fit \(2,\)"):
        Tensor([1.0, 2.0]).assign(Tensor([1.0, 2.0, 3.0]))
    x = Tensor([1, 2])
    x.assign(2.9)
    assert x.tolist() == [2, 2]


# --- symbolic sizes
# -------------------------------------------------------------------------------------------


def test_symbolic_sizes():
    n = Variable("n", 1, 16)
    for length in (3, 7):
        data = np.arange(length * 2, dtype=np.float32).reshape(length, 2)
        x = Tensor(data, shape=(n.bind(length), 2))
        assert int(x.shape[0]) == length
        np.testing.assert_array_equal((x + 1).numpy(), data + 1)
        np.testing.assert_allclose(x.mean(0).numpy(), data.mean(0), rtol=1e-6)
        np.testing.assert_allclose((x @ x.T).softmax().numpy().sum(1), np.ones(length), rtol=1e-6)
        np.testing.assert_array_equal(x.reshape(-1).numpy(), data.reshape(-1))
        assert Tensor.cat([x, x + 1]).numpy().shape == (2 * length, 2)
        np.testing.assert_array_equal(x[-1].numpy(), data[-1])


def test_a_cache_grows_by_symbolic_slices():
    n = Variable("position", 0, 7)
    cache = Tensor.zeros(8, 2).realize()
    for step in range(4):
        at = n.bind(step)
        cache[at : at + 1] = Tensor([[step, step + 0.5]])
        cache.realize()
    assert cache[:5].tolist() == [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5], [0, 0]]


def test_bindings():
    n = Variable("n", 1, 16, multiple_of=2)
    with pytest.raises(BindingError, match="divisible by 2"):
        n.bind(3)
    with pytest.raises(BindingError, match="bound to 4 in one operand and to 6"):
        Tensor.ones(n.bind(4)) + Tensor.ones(n.bind(6))
    assert "n=4" in repr(Tensor.ones(n.bind(4)))
    size = n.bind(4)
    assert (int(size + 1), int(2 * size), int(size - 1), int(10 - size), int(size // 2)) == (5, 8, 3, 6, 2)


# --- random numbers
# -------------------------------------------------------------------------------------------


def test_seeds():
    Tensor.manual_seed(5)
    first, second = Tensor.rand(1000).numpy(), Tensor.rand(1000).numpy()
    Tensor.manual_seed(5)
    assert (Tensor.rand(1000).numpy() == first).all()
    assert (Tensor.rand(1000).numpy() == second).all()
    assert (first != second).any()
    assert first.min() >= 0
    assert first.max() < 1


def test_lazy_draws_keep_their_numbers():
    Tensor.manual_seed(5)
    early, late = Tensor.rand(4), Tensor.rand(4)
    late_values = late.numpy()
    double = (early * 2).numpy()
    assert (early.numpy() * 2 == double).all()
    Tensor.manual_seed(5)
    assert (Tensor.rand(4).numpy() * 2 == double).all()
    assert (Tensor.rand(4).numpy() == late_values).all()


def test_lazy_and_eager_draws_are_the_same_numbers():
    def drawn(eagerly):
        Tensor.manual_seed(9)
        tensors = []
        for shape in [(4,), (2, 3), (4,), (), (5,), (1, 2, 2), (4,)]:
            tensors.append(Tensor.rand(*shape))
            if eagerly:
                tensors[-1].realize()
        return [tensor.numpy() for tensor in tensors]

    for lazy, eager in zip(drawn(False), drawn(True), strict=True):
        assert (lazy == eager).all()


def test_draws_of_one_shape_are_one_kernel():
    from tinycore.runtime.capture import capture

    Tensor.manual_seed(9)
    Tensor.rand(1).realize()
    with capture() as recording:
        Tensor.realize(*[Tensor.randn(3, 5) for _ in range(6)])
    kernels = {call.kernel for call in recording.calls}
    assert len(recording.calls) == 7  # and the counter's own
    assert len(kernels) == 2


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(key, counter, expected):
    from tinycore_frontend_tensor import threefry

    from tinycore.ir import UOp

    words = [UOp.const(dtypes.uint32, word, (1,)) for word in (*key, *counter)]
    found = threefry.threefry((words[0], words[1]), (words[2], words[3]))
    assert tuple(Tensor.of_node(word).item() for word in found) == expected


def test_normals_are_within_4_ulp_of_the_formula():
    from tinycore_frontend_tensor import threefry

    Tensor.manual_seed(11)
    first, second, _, _ = Tensor._drawn((200_000,), None)
    words = (Tensor.of_node(first), Tensor.of_node(second))
    Tensor.realize(*words)  # at once: the counter moves on when anything is computed
    found = Tensor.of_node(threefry.normal_float32(*[word.uop for word in words])).numpy()
    u = (words[0].numpy() | 1).astype(np.float32).astype(np.float64) / 2**32
    v = words[1].numpy().astype(np.longdouble) / 2**32
    exact = np.sqrt(-2 * np.log(u)) * np.cos(v * (2 * np.arccos(np.longdouble(-1))))
    ulps = np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert ulps.max() < 4
    assert abs(found.mean()) < 0.01
    assert abs(found.std() - 1) < 0.01


def test_other_distributions():
    Tensor.manual_seed(1)
    assert set(Tensor.randint(500, low=-2, high=3).tolist()) == {-2, -1, 0, 1, 2}
    assert sorted(Tensor.randperm(50).tolist()) == list(range(50))
    uniform = Tensor.uniform(5000, low=-3, high=5).numpy()
    assert -3 <= uniform.min() < -2.9 < 4.9 < uniform.max() < 5
    assert abs(Tensor.full((4000,), 0.25).bernoulli().mean().item() - 0.25) < 0.05
    assert abs(Tensor.ones(4000).dropout(0.25, training=True).mean().item() - 1) < 0.05
    assert Tensor.rand(3, dtype=dtypes.float16).numpy().dtype == np.float16
    assert Tensor.rand(3000, dtype="bfloat16").float().max().item() < 1
    big = Tensor.rand(3000, dtype="float64").numpy()
    assert len(set(big)) == 3000


# --- printing
# -------------------------------------------------------------------------------------------------


def test_printing_never_computes():
    x = Tensor([1.5, 2.5]) + 1
    assert "lazy" in repr(x)
    assert not x.is_realized
    x.realize()
    assert "2.5, 3.5" in repr(x)
    assert "<table>" in x._repr_html_()
    assert "n=3" in repr(Tensor.ones(Variable("n", 1, 4).bind(3)))


def test_provenance_names_the_users_line():
    x = Tensor([1.0]) + 2
    assert x.origin is not None
    assert "test_values.py" in x.origin
    from tinycore.rules import origins

    origins.ask([x.uop])
    assert any("test_values.py" in place for place in origins.of(x.uop))


def test_bad_truth_and_items():
    with pytest.raises(ShapeError, match="ambiguous"):
        bool(Tensor([1, 2]))
    with pytest.raises(ShapeError, match="item"):
        Tensor([1, 2]).item()
    with pytest.raises(TinycoreError, match="bool tensors"):
        -Tensor([True])


def test_batch_norm_statistics_do_not_pile_up():
    norm = nn.BatchNorm2d(2)
    x = Tensor(np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2))
    with Tensor.training():
        for _ in range(3):
            norm(x).realize()
    assert norm.num_batches_tracked.item() == 3
    assert norm.running_mean.is_realized


def test_whoever_uses_a_result_reads_it_from_then_on():
    x = Tensor([1.0, 2.0])
    y = x + 1
    z = y * 2
    same = x + 1
    y.realize()
    assert y.is_realized
    assert same.is_realized
    assert y.uop in z.uop.toposort(), "what is stored is not computed again"
    assert z.tolist() == [4, 6]


def test_whoever_uses_a_detached_result_reads_it_from_then_on():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with Tensor.no_grad():
        y = x + 1
        z = y * 2
    y.realize()
    assert y.is_realized
    assert y.uop.src[0] in z.uop.toposort()
    assert z.tolist() == [4, 6]


def test_running_something_runs_every_pending_write():
    x, y = Tensor([1.0, 2.0]), Tensor([5.0])
    storage = x.realize().uop
    x.assign(x + 1)
    assert not x.is_realized
    (y * 2).realize()
    assert x.uop is storage
    assert x.tolist() == [2, 3]


def test_a_pending_write_of_a_tensor_that_is_gone_is_not_missed():
    x = Tensor([1.0, 2.0]).realize()
    x.assign(x + 1)
    kept = x * 10
    del x
    (Tensor([5.0]) * 2).realize()
    assert kept.tolist() == [20, 30]


@pytest.mark.device
def test_steps_over_new_data_on_a_device():
    """From the third step on everything runs as a known plan."""
    weight = Tensor(np.full((20, 7), 0.5, np.float32)).realize()
    running = Tensor(np.zeros(7, np.float32)).realize()
    expected, w = np.zeros(7, np.float32), np.full((20, 7), 0.5, np.float32)
    for step in range(6):
        data = np.arange(60, dtype=np.float32).reshape(3, 20) * (step + 1)
        hidden = (Tensor(data) @ weight).relu()
        running.assign(running + hidden.sum(0))
        late = hidden * 2
        if step == 3:
            weight.assign(weight + 1)
            w = w + 1
            expected += (data @ (w - 1)).sum(0)
        else:
            expected += (data @ w).sum(0)
        np.testing.assert_allclose(running.numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(late.numpy(), (data @ (w - (step == 3))) * 2, rtol=1e-5)


@pytest.mark.device
def test_repeated_calls_leave_nothing_behind():
    from tinycore_frontend_tensor import core

    from tinycore.ir.uop import table_size
    from tinycore.runtime import storage

    layers = [nn.Linear(8, 8) for _ in range(3)]
    x = Tensor(np.ones((4, 8), np.float32)).realize()

    def call():
        y = x
        with Tensor.no_grad():
            for layer in layers:
                y = layer(y).relu()
        return (y + 1).softmax(-1).realize()

    for _ in range(3):
        call()
    gc.collect()
    before = table_size(), len(core._live), len(core._writers), len(storage._storage)
    for _ in range(30):
        call()
    gc.collect()
    assert (table_size(), len(core._live), len(core._writers), len(storage._storage)) == before


@pytest.mark.device
def test_every_way_of_changing_what_a_known_program_reads():
    """Dtype, shape, device and content: each call has the values of its own arguments."""

    def program(x, y):
        return ((x + y) * 2).sum(0).realize()

    for _ in range(3):
        for dtype in (np.float32, np.float64, np.int32):
            for shape in ((3, 4), (4, 3)):
                for device in (None, "INTERPRETER"):
                    x, y = np.arange(12).reshape(shape).astype(dtype), np.full(shape, 3, dtype)
                    found = program(Tensor(x, device=device), Tensor(y, device=device))
                    np.testing.assert_array_equal(found.numpy(), ((x + y) * 2).sum(0))
    x = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4)).realize()
    for turn in range(4):
        x[0] = float(turn)
        expected = np.arange(12, dtype=np.float32).reshape(3, 4)
        expected[0] = turn
        np.testing.assert_array_equal(program(x, x).numpy(), (expected * 4).sum(0))


@pytest.mark.device
def test_a_known_program_looks_at_no_other_tensor(monkeypatch):
    from tinycore_frontend_tensor import execution

    x = Tensor([1.0, 2.0]).realize()
    others = [x * number for number in range(100)]
    monkeypatch.setattr(execution, "live_tensors", None)
    for _ in range(3):
        assert ((x + 0.5) * 2).sum().realize().is_realized
    assert not any(other.is_realized for other in others)

"""Captured functions: the same values as eager ones, whatever is kept, passed or bound."""

import numpy as np
import pytest
from tinycore_frontend_tensor import Tensor, Variable, jit, nn

from tinycore.errors import ShapeError, TinycoreError


def test_results_follow_the_arguments():
    calls = []

    @jit
    def f(x, y):
        calls.append(1)
        return x * 2 + y.sum()

    for k in range(5):
        a, b = Tensor([float(k), 1.0]), Tensor([k * 10.0])
        assert f(a, b).tolist() == [2 * k + 10.0 * k, 2 + 10.0 * k]
    assert len(calls) == 2


def test_kept_results_keep_their_values():
    f = jit(lambda x: (x + 1, [x * 2]))
    kept = [f(Tensor([float(k)])) for k in range(5)]
    assert [(a.item(), b[0].item()) for a, b in kept] == [(k + 1.0, k * 2.0) for k in range(5)]


def test_lazy_readers_of_results_keep_their_values():
    f = jit(lambda x: x + 1)
    kept = [f(Tensor([float(k)])) * 10 for k in range(5)]
    assert [t.item() for t in kept] == [10.0 * (k + 1) for k in range(5)]


def test_state_is_updated_in_place():
    total = Tensor([0.0]).realize()

    @jit
    def add(x):
        total.assign(total + x)
        return total * 1

    seen = [add(Tensor([float(k)])).item() for k in range(6)]
    assert seen == [0, 1, 3, 6, 10, 15]
    assert total.item() == 15
    snapshot = total.detach()
    add(Tensor([5.0]))
    assert (total.item(), snapshot.item()) == (20, 15)


def test_random_numbers_advance_and_seeds_hold():
    @jit
    def draw():
        return Tensor.rand(4)

    def run():
        Tensor.manual_seed(9)
        return [draw().tolist() for _ in range(5)]

    first = run()
    assert len({tuple(row) for row in first}) == 5
    Tensor.manual_seed(9)
    assert [Tensor.rand(4).tolist() for _ in range(5)] == first
    assert run() == first


def test_training_equals_eager_training():
    def train(wrap):
        Tensor.manual_seed(2)
        model = nn.Sequential(nn.Linear(5, 7), Tensor.tanh, nn.Linear(7, 3))
        optimizer = nn.optim.AdamW(nn.state.get_parameters(model), lr=0.05)
        data = np.random.default_rng(0)

        def step(x, y):
            optimizer.zero_grad()
            loss = model(x).dropout(0.2, training=True).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses = []
        for _ in range(7):
            x = data.standard_normal((8, 5)).astype(np.float32)
            losses.append(run(Tensor(x), Tensor(data.integers(0, 3, 8))))
        return [loss.item() for loss in losses], model.layers[0].weight.numpy()

    eager, weight = train(lambda f: f)
    captured, same_weight = train(jit)
    np.testing.assert_allclose(captured, eager, rtol=1e-6)
    np.testing.assert_allclose(same_weight, weight, rtol=1e-5, atol=1e-6)
    assert len(set(eager)) == 7


def test_arguments_may_be_structures_and_objects():
    class Holder:
        def __init__(self, value):
            self.value = value

    f = jit(lambda pair, named, holder: pair[0] + pair[1] * named["k"] + holder.value)
    for k in range(4):
        result = f((Tensor([1.0]), Tensor([2.0])), {"k": Tensor([float(k)])}, Holder(Tensor([100.0 * k])))
        assert result.item() == 1 + 2 * k + 100 * k


def test_the_same_tensor_twice_and_apart():
    f = jit(lambda x, y: x - y)
    a = Tensor([3.0])
    assert [f(a, a).item() for _ in range(3)] == [0, 0, 0]
    assert [f(a, Tensor([1.0])).item() for _ in range(3)] == [2, 2, 2]
    assert f(a, a).item() == 0


def test_an_argument_can_be_returned_or_assigned():
    f = jit(lambda x: (x, x + 1))
    for k in range(4):
        x = Tensor([float(k)])
        same, more = f(x)
        assert (same.item(), more.item()) == (k, k + 1)

    @jit
    def bump(x):
        x.assign(x + 1)

    x = Tensor([0.0])
    for _ in range(5):
        bump(x)
    assert x.item() == 5


def test_other_values_capture_again():
    f = jit(lambda x, k: x * k)
    for k in (2, 3, 2, 3, 2, 3):
        assert f(Tensor([1.0]), k).item() == k
    assert len(f.recordings) == 2


def test_symbolic_sizes_share_one_program():
    n = Variable("n", 1, 32)
    f = jit(lambda x: (x.mean(0), x * 2))
    for length in (3, 5, 32, 1, 7):
        data = np.random.default_rng(length).standard_normal((length, 2)).astype(np.float32)
        mean, double = f(Tensor(data, shape=(n.bind(length), 2)))
        np.testing.assert_allclose(mean.numpy(), data.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(double.numpy(), data * 2)
    assert len(f.recordings) == 1


def test_methods_can_be_captured():
    class Model:
        def __init__(self):
            self.weight = Tensor([2.0])

        @jit
        def __call__(self, x):
            return x * self.weight

    model = Model()
    assert [model(Tensor([float(k)])).item() for k in range(4)] == [0, 2, 4, 6]


def test_calls_inside_calls():
    inner = jit(lambda x: x + 1)
    outer = jit(lambda x: inner(x) * 2)
    assert [outer(Tensor([float(k)])).item() for k in range(4)] == [2, 4, 6, 8]


def test_misuse_is_explained():
    f = jit(lambda x: x * 2)
    for _ in range(3):
        f(Tensor([1.0, 2.0]))
    with pytest.raises(ShapeError, match=r"argument 0 of shape \(2,\).*called with shape \(3,\)"):
        f(Tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ShapeError, match="int64"):
        f(Tensor([1, 2]))
    with pytest.raises(TinycoreError, match="on the host"):
        jit(lambda x: x.item())(Tensor([1.0]))
    with pytest.raises(TinycoreError, match="different sets of arguments"):
        for k in range(100):
            f(Tensor([1.0]), k) if False else jit_many(k)


MANY = jit(lambda x, k: x + k)


def jit_many(k):
    return MANY(Tensor([1.0]), k)


def test_a_failed_capture_leaves_nothing_behind():
    fail = [False]

    @jit
    def f(x):
        if fail[0]:
            raise RuntimeError("boom")
        return x + 1

    f(Tensor([1.0]))
    fail[0] = True
    with pytest.raises(RuntimeError):
        f(Tensor([1.0]))
    fail[0] = False
    assert [f(Tensor([float(k)])).item() for k in range(4)] == [1, 2, 3, 4]

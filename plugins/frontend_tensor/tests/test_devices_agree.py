"""The same program on every device that opens here: equal bits where promised, else close values."""

import numpy as np
import pytest
from tinycore_frontend_tensor import Device, Tensor, Variable, jit, nn

from tinycore.config import override
from tinycore.errors import TinycoreError


def usable():
    found = []
    for name in Device.names:
        try:
            Device[name]
        except TinycoreError:
            continue
        found.append(name)
    return found


DEVICES = usable()
pytestmark = pytest.mark.device


@pytest.mark.parametrize("device", DEVICES)
def test_random_bits_are_the_interpreters(device):
    results = []
    for name in ("INTERPRETER", device):
        with override(device=name):
            Tensor.manual_seed(42)
            draws = [
                Tensor.rand(1001),
                Tensor.randn(3, 333),
                Tensor.uniform(500, low=-3, high=7),
                Tensor.normal(500, mean=2, std=3),
                Tensor.randint(500, low=-5, high=1000),
                Tensor.rand(77, dtype="float16"),
                Tensor.randperm(100),
            ]
            draws[0].realize(*draws[1:4])  # some together, some alone
            results.append([draw.numpy() for draw in draws])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_agrees(device):
    def train():
        Tensor.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            Tensor.relu,
            Tensor.max_pool2d,
            lambda x: x.flatten(1),
            nn.Linear(64, 5),
        )
        optimizer = nn.optim.AdamW(nn.state.get_parameters(model), lr=0.01)
        x, y = Tensor.randn(6, 1, 8, 8).realize(), Tensor.randint(6, low=0, high=5).realize()

        @jit
        def step():
            with Tensor.training():
                optimizer.zero_grad()
                loss = model(x).dropout(0.1).cross_entropy(y)
                loss.backward()
                optimizer.step()
            return loss

        return [step().item() for _ in range(4)] + [model(x).sum().item()]

    with override(device="INTERPRETER"):
        expected = train()
    with override(device=device):
        np.testing.assert_allclose(train(), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_indexing_and_symbolic_sizes_agree(device):
    n = Variable("n", 1, 40)
    data = np.arange(33 * 4, dtype=np.float32).reshape(33, 4)
    with override(device=device):
        x = Tensor(data, shape=(n.bind(33), 4))
        np.testing.assert_allclose((x @ x.T).softmax().sum(1).numpy(), np.ones(33), rtol=1e-5)
        y = Tensor(data)
        y[::3, 1:3] = -1
        expected = data.copy()
        expected[::3, 1:3] = -1
        np.testing.assert_array_equal(y.numpy(), expected)
        np.testing.assert_array_equal(y[Tensor([5, -1, 0])][:, ::-1].numpy(), expected[[5, -1, 0]][:, ::-1])
        np.testing.assert_array_equal(Tensor(data).argsort(0, descending=True).numpy(), np.argsort(-data, 0))
        np.testing.assert_array_equal(Tensor(data).cumsum(0).numpy(), np.cumsum(data, 0))


@pytest.mark.skipif(len(DEVICES) < 2, reason="only one device opens here")
def test_one_graph_spans_devices():
    first, second = DEVICES[0], DEVICES[-1]
    a = Tensor([1.0, 2.0, 3.0], device=first)
    b = (a * 2).to(second)
    c = (b + Tensor([10.0, 20.0, 30.0], device=second)).to(first) - a
    assert c.device == first
    assert c.tolist() == [11.0, 22.0, 33.0]
    with pytest.raises(TinycoreError, match=r"x\.to\("):
        a + b
    x = Tensor([1.0, 2.0], device=first, requires_grad=True)
    (x.to(second) ** 2).sum().backward()
    assert x.grad.device == first
    assert x.grad.tolist() == [2.0, 4.0]

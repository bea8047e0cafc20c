"""From a lazy tensor to numbers on every device: small programs, a training step, capture and replay."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
from graphs import DEVICES, compilations, need, without_tiling

from tinycore import Tensor, Variable, jit, nn
from tinycore.config import override
from tinycore.runtime.realize import collect

WAYS = ("as it is", "without tiling")
RUNS = [(device, way) for device in DEVICES for way in WAYS if device != "INTERPRETER" or way == WAYS[0]]


@contextlib.contextmanager
def using(name, way):
    """A default device, with the tile pass or without."""
    need(name)
    with override(device=name), without_tiling() if way == WAYS[1] else contextlib.nullcontext():
        yield name


@pytest.fixture(params=RUNS, ids=" ".join)
def device(request):
    with using(*request.param) as name:
        yield name


@pytest.fixture(params=[run for run in RUNS if run != ("CL", WAYS[1])], ids=" ".join)
def trainer(request):
    """A device for programs of many kernels: OpenCL drivers take their time for each of them."""
    with using(*request.param) as name:
        yield name


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(found, wanted, tolerance=2e-4):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * max(1.0, np.abs(wanted).max()))


# --- programs -----------------------------------------------------------------------------------------------


def test_relu_of_a_matmul_summed(device):
    a, b = random(40, 33), random(33, 50, seed=1)
    result = (Tensor(a) @ Tensor(b)).relu().sum()
    assert result.device == device
    close(result.item(), np.maximum(a @ b, 0).sum())


@pytest.mark.parametrize("shape", [(131_101,), (3, 65_537), (70_001, 3)], ids=str)
def test_everything_of_a_size_that_does_not_divide(shape, device):
    a = random(*shape)
    last = (slice(None),) * (len(shape) - 1) + (-1,)
    a[last] = 9.0  # what is left over must count
    given, wanted = Tensor(a), a.astype(np.float64)
    close((given * 2.0 - 1.0).sum().item(), (wanted * 2.0 - 1.0).sum())
    close((given - given.mean()).pow(2).mean().item(), wanted.var())
    assert (given + 0.5).max().item() == 9.5
    assert (given * -1.0).min().item() == -9.0
    close(given.sum(0).numpy(), wanted.sum(0))


def test_attention(device):
    n = Variable("n", 1, 24)
    w, v = random(16, 16), random(16, 16, seed=1)
    weights = Tensor(w), Tensor(v)

    def attend(x):
        q, k = x @ weights[0], x @ weights[1]
        return ((q @ k.transpose(-1, -2)) * 0.25).softmax(-1) @ x

    with compilations() as names:
        for length in (5, 1, 24):
            x = random(length, 16, seed=length)
            scores = (x @ w) @ (x @ v).T * 0.25
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            close(
                attend(Tensor(x, shape=(n.bind(length), 16))).numpy(),
                scores / scores.sum(-1, keepdims=True) @ x,
            )
            first = len(names)
            if length != 5:
                assert len(names) == first, "one program serves all lengths"


def test_normalised_rows(device):
    x = random(9, 31)
    found = (
        (Tensor(x) - Tensor(x).mean(-1, keepdim=True)) / (Tensor(x).var(-1, keepdim=True) + 1e-5).sqrt()
    ).numpy()
    close(found, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True, ddof=1) + 1e-5))


def test_convolution_and_pooling(device):
    image, weight = random(2, 3, 8, 8), random(4, 3, 3, 3, seed=1)
    found = Tensor(image).conv2d(Tensor(weight), padding=1).relu().max_pool2d(2)
    wanted = np.zeros((2, 4, 8, 8), np.float32)
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i in range(3):
        for j in range(3):
            wanted += np.einsum("bchw,oc->bohw", padded[:, :, i : i + 8, j : j + 8], weight[:, :, i, j])
    close(found.numpy(), np.maximum(wanted, 0).reshape(2, 4, 4, 2, 4, 2).max((3, 5)))


def test_indexing(device):
    x = random(9, 5)
    t = Tensor(x)
    np.testing.assert_array_equal(t[2:7:2, ::-1].numpy(), x[2:7:2, ::-1])
    np.testing.assert_array_equal(t[Tensor(np.array([3, 0, 3]))].numpy(), x[[3, 0, 3]])
    close(t.cumsum(0).numpy(), x.cumsum(0))
    t[1:3] = 7.0
    x[1:3] = 7.0
    np.testing.assert_array_equal(t.numpy(), x)


def test_every_kernel_is_timed(device):
    with collect() as rows:
        ((Tensor(random(64, 64)) @ Tensor(random(64, 64))).relu() + 1.0).realize()
    assert len(rows) >= 1
    assert all(row.device == device and row.seconds > 0 for row in rows)


# --- training -----------------------------------------------------------------------------------------------


class Net:
    def __init__(self):
        self.first, self.second = nn.Linear(12, 16, bias=False), nn.Linear(16, 5)

    def __call__(self, x):
        return self.second(self.first(x).relu().dropout(0.2))


def losses(steps=4, captured=False):
    """The losses of a few steps, and the last parameters."""
    Tensor.manual_seed(3)
    net = Net()
    optimizer = nn.optim.SGD(nn.state.get_parameters(net), lr=0.2, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = net(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    step = jit(step) if captured else step
    random_state = np.random.default_rng(0)
    found = []
    with Tensor.train() if hasattr(Tensor, "train") else contextlib.nullcontext():
        for _ in range(steps):
            x = Tensor(random_state.standard_normal((10, 12)).astype(np.float32))
            y = Tensor(random_state.integers(0, 5, 10).astype(np.int32))
            found.append(step(x, y).item())
    return np.array(found), net.first.weight.numpy()


@functools.cache
def reference():
    with override(device="INTERPRETER"):
        return losses()


def test_training_gives_the_same_losses(trainer):
    found, weight = losses()
    close(found, reference()[0], 1e-3)
    close(weight, reference()[1], 1e-2)
    assert found[0] != found[-1]


def test_captured_training_gives_the_same_losses(trainer):
    found, weight = losses(captured=True)
    close(found, reference()[0], 1e-3)
    close(weight, reference()[1], 1e-2)


def test_random_numbers_are_the_same_bits_everywhere(device):
    def draw():
        Tensor.manual_seed(11)
        first, second = Tensor.rand(7, 9), Tensor.rand(33)
        return [t.numpy().view(np.uint32) for t in (first, second)] + [
            Tensor.randint(50, low=0, high=1000).numpy()
        ]

    with override(device="INTERPRETER"):
        wanted = draw()
    for one, other in zip(draw(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_replays_compile_nothing(device):
    @jit
    def step(x):
        return (x * 2.0).softmax(-1) + x.sum()

    for k in range(3):
        step(Tensor(random(6, 7, seed=k))).numpy()
    with compilations() as names:
        for k in range(3):
            x = random(6, 7, seed=10 + k)
            e = np.exp(2 * x - 2 * x.max(-1, keepdims=True))
            close(step(Tensor(x)).numpy(), e / e.sum(-1, keepdims=True) + x.sum())
    assert names == []


# --- several devices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("one", "other"), [("CPU", "CL"), ("INTERPRETER", "CPU"), ("CL", "INTERPRETER")])
def test_one_graph_over_two_devices(one, other, way):
    need(one, other)
    a, b = random(32, 16), random(16, 24, seed=1)
    with without_tiling() if way == WAYS[1] else contextlib.nullcontext():
        x, y = Tensor(a, device=one), Tensor(b, device=other)
        back = ((x.relu().to(other) @ y).exp() + 1.0).to(one) * 2.0
        result = back.sum(0) + x.sum()
        assert result.device == one
        wanted = ((np.exp(np.maximum(a, 0) @ b) + 1) * 2).sum(0) + a.sum()
        close(result.numpy(), wanted)


def test_gradients_cross_devices():
    need("CPU", "CL")
    a = random(8, 4)
    x = Tensor(a, device="CPU", requires_grad=True)
    (x.to("CL") * x.to("CL")).to("CPU").sum().backward()
    assert x.grad.device == "CPU"
    close(x.grad.numpy(), 2 * a)


def test_captured_over_two_devices():
    need("CPU", "CL")

    @jit
    def step(x):
        return ((x * 2.0).to("CL") + 1.0).sum(0).to("CPU") * 3.0

    for k in range(4):
        a = random(8, 4, seed=k)
        close(step(Tensor(a, device="CPU")).numpy(), (a * 2 + 1).sum(0) * 3)

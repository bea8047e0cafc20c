"""Gradients of every differentiable op against central differences, and the rules of taking part."""

import numpy as np
import pytest
from tinycore_frontend_tensor import Tensor, nn

from tinycore.errors import DTypeError, ShapeError, TinycoreError

RANDOM = np.random.default_rng(7)
A = RANDOM.uniform(0.3, 1.7, (2, 3)).astype(np.float64)
B = RANDOM.uniform(-1.5, 1.5, (2, 3)).astype(np.float64)
IMAGE = RANDOM.uniform(-1, 1, (2, 4, 5, 6)).astype(np.float64)
WEIGHT = RANDOM.uniform(-1, 1, (6, 2, 3, 2)).astype(np.float64)
INDEX = np.array([[0, 2, 1], [1, 0, 0]])

CASES = {
    "add": (lambda a, b: a + b * 2, A, B),
    "sub": (lambda a, b: 1 - a - b, A, B),
    "mul": (lambda a, b: a * b, A, B),
    "div": (lambda a, b: b / a, A, B),
    "pow": (lambda a, b: a**b, A, B),
    "rpow": (lambda b: 2.0**b, B),
    "square": (lambda a: a**2 + a**3 + a**-2, A),
    "mod": (lambda a: a % 0.7, A),
    "maximum": (lambda a, b: a.maximum(b), A, B),
    "minimum": (lambda a, b: a.minimum(b), A, B),
    "where": (lambda a, b: (b > 0).where(a, b), A, B),
    "clamp": (lambda b: b.clamp(-0.7, 0.9), B),
    "neg": (lambda a: -a, A),
    "abs": (lambda b: b.abs(), B),
    "sqrt": (lambda a: a.sqrt(), A),
    "rsqrt": (lambda a: a.rsqrt(), A),
    "exp": (lambda b: b.exp(), B),
    "exp2": (lambda b: b.exp2(), B),
    "log": (lambda a: a.log(), A),
    "log2": (lambda a: a.log2(), A),
    "log10": (lambda a: a.log10(), A),
    "log1p": (lambda a: a.log1p(), A),
    "expm1": (lambda b: b.expm1(), B),
    "sin": (lambda b: b.sin(), B),
    "cos": (lambda b: b.cos(), B),
    "tan": (lambda b: b.tan(), B / 2),
    "sinh": (lambda b: b.sinh(), B),
    "cosh": (lambda b: b.cosh(), B),
    "tanh": (lambda b: b.tanh(), B),
    "erf": (lambda b: b.erf(), B),
    "sigmoid": (lambda b: b.sigmoid(), B),
    "reciprocal": (lambda a: a.reciprocal(), A),
    "lerp": (lambda a, b: a.lerp(b, 0.3), A, B),
    "fma": (lambda a, b: a.fma(b, a), A, B),
    "cast": (lambda b: b.float().double(), B),
    "broadcast": (lambda a, b: a * b[0] + b[:, :1], A, B),
    "expand": (lambda a: a[:, :1].expand(2, 5), A),
    "reshape": (lambda a: a.reshape(3, 2)[1:], A),
    "permute": (lambda a: a.permute(1, 0)[::2], A),
    "pad": (lambda a: a.pad([(1, 0), (2, 1)]) ** 2, A),
    "flip": (lambda a: a.flip(1)[:, 0], A),
    "cat": (lambda a, b: Tensor.cat([a, b, a], 1)[:, 2:5] ** 2, A, B),
    "stack": (lambda a, b: Tensor.stack([a, b], 1)[0], A, B),
    "repeat": (lambda a: a.repeat(2, 2) ** 2, A),
    "roll": (lambda a: a.roll(1, 1)[:, 0], A),
    "tril": (lambda a: a.tril(), A),
    "unfold": (lambda a: a.unfold(1, 2, 1) ** 2, A),
    "slice": (lambda a: a[:, ::2] * 3, A),
    "negative slice": (lambda a: a[::-1, 2:0:-1], A),
    "take": (lambda a: a[:, Tensor([2, 2, 0])] ** 2, A),
    "advanced": (lambda a: a[Tensor([1, 0]), Tensor([2, 2])], A),
    "gather": (lambda a: a.gather(1, Tensor(INDEX)) ** 2, A),
    "scatter_add": (lambda a, b: a.scatter_add(1, Tensor(INDEX), b) ** 2, A, B),
    "scatter": (lambda a, b: a.scatter(1, Tensor([[0, 2, 1], [1, 0, 2]]), b) ** 2, A, B),
    "sort": (lambda a: a.sort(1)[0][:, 0] ** 2, A),
    "topk": (lambda a: a.topk(2, 1)[0] ** 2, A),
    "sum": (lambda a: a.sum(0) ** 2, A),
    "mean": (lambda a: a.mean(1, True) * a, A),
    "prod": (lambda b: b.prod(1), B),
    "max": (lambda a: a.max(1) ** 2, A),
    "min": (lambda a: a.min(0) ** 2, A),
    "var": (lambda a: a.var(1), A),
    "std": (lambda a: a.std(0), A),
    "norm": (lambda a: a.norm(), A),
    "logsumexp": (lambda b: b.logsumexp(1), B),
    "softmax": (lambda b: b.softmax(1) ** 2, B),
    "log_softmax": (lambda b: b.log_softmax(0) ** 2, B),
    "cumsum": (lambda b: b.cumsum(1) ** 2, B),
    "cumprod": (lambda b: b.cumprod(1), B),
    "cummax": (lambda b: b.cummax(1)[0] ** 2, B),
    "matmul": (lambda a, b: a @ b.T, A, B),
    "batched": (lambda a, b: (a.unsqueeze(0) @ b.T) ** 2, A, B),
    "einsum": (lambda a, b: Tensor.einsum("ij,kj->ik", a, b) ** 2, A, B),
    "diagonal": (lambda a: a.diagonal() ** 2, A),
    "conv2d": (
        lambda x, w: x.conv2d(w, stride=(2, 1), padding=1, dilation=(1, 2), groups=2) ** 2,
        IMAGE,
        WEIGHT,
    ),
    "conv_transpose2d": (
        lambda x, w: x.conv_transpose2d(w, stride=2, padding=1, groups=2) ** 2,
        IMAGE[:, :, :2, :3],
        WEIGHT[:4],
    ),
    "max_pool2d": (lambda x: x.max_pool2d(2, padding=1) ** 2, IMAGE),
    "avg_pool2d": (lambda x: x.avg_pool2d(3, 2) ** 2, IMAGE),
    "interpolate": (lambda x: x.interpolate(scale_factor=2) ** 2, IMAGE[:, :1]),
    "relu": (lambda b: b.relu(), B),
    "leaky_relu": (lambda b: b.leaky_relu(), B),
    "elu": (lambda b: b.elu(), B),
    "gelu": (lambda b: b.gelu(), B),
    "gelu tanh": (lambda b: b.gelu("tanh"), B),
    "silu": (lambda b: b.silu(), B),
    "softplus": (lambda b: b.softplus(), B),
    "mish": (lambda b: b.mish(), B),
    "hardswish": (lambda b: b.hardswish(), B),
    "logsigmoid": (lambda b: b.logsigmoid(), B),
    "glu": (lambda x: x.glu(1), IMAGE),
    "layer_norm": (lambda a, b: a.layer_norm(3, b[0], b[1]), A, B),
    "rms_norm": (lambda a, b: a.rms_norm(3, b[0]), A, B),
    "group_norm": (lambda x: x.group_norm(2) ** 3, IMAGE),
    "normalize": (lambda b: b.normalize(), B),
    "cross_entropy": (lambda b: b.cross_entropy(Tensor([2, 0])), B),
    "cross_entropy smooth": (lambda b: b.cross_entropy(Tensor([2, -100]), label_smoothing=0.2), B),
    "mse": (lambda a, b: a.mse_loss(b), A, B),
    "huber": (lambda a, b: a.huber_loss(b), A, B),
    "bce": (lambda a: (a / 2).binary_cross_entropy(Tensor(B).sigmoid()), A),
    "bce logits": (lambda b: b.binary_cross_entropy_with_logits(Tensor(A) / 2), B),
    "attention": (lambda x: x.scaled_dot_product_attention(x * 2, x + 1, is_causal=True) ** 2, IMAGE),
    "embedding": (lambda a: Tensor(INDEX[:, :2] % 2).embedding(a) ** 2, A),
    "contiguous": (lambda a: (a * 2).contiguous() ** 2, A),
    "setitem": (lambda a, b: _assigned(a, b), A, B),
    "masked_fill": (lambda b: b.masked_fill(b > 0, 3.0) ** 2, B),
}


def _assigned(a, b):
    whole = a * 2
    whole[:, 1:] = b[:, :2]
    whole[0, 0] = 5
    return whole**2


def scalar(result):
    weights = Tensor(np.cos(np.arange(int(result.numel()), dtype=np.float64) + 1)).reshape(result.shape)
    return (result.double() * weights).sum()


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    function, *arrays = CASES[name]
    tensors = [Tensor(array, requires_grad=True) for array in arrays]
    scalar(function(*tensors)).backward()
    step = 1e-3 if name == "cast" else 1e-6
    for position, array in enumerate(arrays):
        places = RANDOM.choice(array.size, min(array.size, 6), replace=False)
        variants = np.repeat(array.reshape(1, -1), 2 * len(places), 0)
        for k, place in enumerate(places):
            variants[2 * k, place] += step
            variants[2 * k + 1, place] -= step
        with Tensor.no_grad():
            values = [
                scalar(
                    function(
                        *[
                            Tensor(v.reshape(array.shape)) if k == position else Tensor(other)
                            for k, other in enumerate(arrays)
                        ]
                    )
                )
                for v in variants
            ]
            values[0].realize(*values[1:])
        numbers = np.array([value.item() for value in values]).reshape(-1, 2)
        expected = (numbers[:, 0] - numbers[:, 1]) / (2 * step)
        found = tensors[position].grad.numpy().reshape(-1)[places]
        tolerance = 2e-3 if name == "cast" else 2e-5
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_kinks_are_those_of_pytorch():
    x = Tensor([0.0], requires_grad=True)
    for function in (Tensor.relu, Tensor.abs, Tensor.sign, Tensor.floor):
        assert function(x).sum().gradient(x)[0].item() == 0
    tie = Tensor([2.0, 2.0], requires_grad=True)
    assert tie.max().gradient(tie)[0].tolist() == [0.5, 0.5]


def test_extreme_values_do_not_poison_gradients():
    x = Tensor([-200.0, 0.0, 200.0], requires_grad=True)
    for function in (
        Tensor.sigmoid,
        Tensor.softplus,
        Tensor.silu,
        Tensor.logsigmoid,
        Tensor.elu,
        Tensor.expm1,
    ):
        gradient = function(x[:2]).sum().gradient(x)[0].numpy()
        assert np.isfinite(gradient).all(), function
    assert Tensor([-200.0, 200.0]).softmax().tolist() == [0, 1]


def test_gradients_accumulate_and_clear():
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * 3).sum().backward()
    (x * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]


def test_equal_leaves_are_not_confused():
    x, y = Tensor.ones(2, requires_grad=True), Tensor.ones(2, requires_grad=True)
    (x * y * y).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    assert y.grad.tolist() == [2.0, 2.0]


def test_backward_after_the_loss_was_read():
    x = Tensor([1.0, 2.0], requires_grad=True)
    hidden = (x * x).realize()
    loss = (hidden * hidden.exp()).sum()
    assert loss.item() > 0
    loss.backward()
    value = x.numpy()
    np.testing.assert_allclose(x.grad.numpy(), 2 * value * np.exp(value**2) * (1 + value**2), rtol=1e-5)


def test_backward_after_dropout_was_read():
    Tensor.manual_seed(3)
    x = Tensor.ones(50, requires_grad=True)
    dropped = x.dropout(0.5, training=True)
    loss = dropped.sum()
    kept = loss.item() / 2
    loss.backward()
    assert x.grad.numpy().sum() == kept * 2
    np.testing.assert_array_equal(x.grad.numpy(), dropped.numpy())


def test_backward_after_the_random_counter_moved_on():
    x = Tensor.ones(50, requires_grad=True)
    loss = x.dropout(0.5, training=True).sum()
    value = loss.item()
    assert Tensor.rand(3).numpy().shape == (3,)
    loss.backward()
    assert x.grad.numpy().sum() == value


def test_changed_parameters_are_noticed():
    model = nn.Linear(40, 3)
    optimizer = nn.optim.SGD(nn.state.get_parameters(model), lr=0.1)
    loss = model(Tensor.ones(2, 40)).exp().sum()
    loss.backward()
    before = loss.item()
    optimizer.step()
    assert loss.item() == before
    with pytest.raises(TinycoreError, match="changed in place"):
        loss.backward()


def test_detach_and_no_grad_stop_gradients():
    x = Tensor([2.0], requires_grad=True)
    (x * x.detach()).sum().backward()
    assert x.grad.tolist() == [2.0]
    x.grad = None
    with Tensor.no_grad():
        factor = x * 10
    assert not factor.requires_grad
    (x * factor).sum().backward()
    assert x.grad.tolist() == [20.0]


def test_second_derivatives():
    x = Tensor([0.5, 2.0], requires_grad=True)
    (first,) = (x**3).sum().gradient(x, create_graph=True)
    (second,) = first.sum().gradient(x)
    np.testing.assert_allclose(second.numpy(), [3.0, 12.0], rtol=1e-6)


def test_gradients_of_intermediate_and_unrelated_tensors():
    x = Tensor([3.0], requires_grad=True)
    y = x * x
    z = Tensor([1.0], requires_grad=True)
    found = (y * 2).sum().gradient(y, x, z)
    assert [g.tolist() for g in found] == [[2.0], [12.0], [0.0]]


def test_errors_say_what_to_do():
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ShapeError, match="reduce it to one element"):
        (x * 2).backward()
    with pytest.raises(TinycoreError, match="does not require gradients"):
        Tensor([1.0]).sum().backward()
    with pytest.raises(DTypeError, match="only floats"):
        Tensor([1], requires_grad=True)
    with pytest.raises(TinycoreError, match="no_grad"):
        x[0] = 1.0


def test_deep_graphs_do_not_recurse():
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(2000):
        y = y * 1.0001
    y.sum().backward()
    assert abs(x.grad.item() - 1.0001**2000) < 1e-3

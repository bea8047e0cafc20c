"""Layers, optimizers, losses and model files; PyTorch is the second opinion where it is installed."""

import json
import struct

import numpy as np
import pytest
from tinycore_frontend_tensor import Device, Tensor, dtypes, nn

from tinycore.errors import BackendUnavailable, ConfigError, DataError, ShapeError, TinycoreError

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed (pip install torch)")
RANDOM = np.random.default_rng(3)


def close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


def arrays(*shapes):
    return [RANDOM.standard_normal(shape).astype(np.float32) for shape in shapes]


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"dilation": 2},
    {"groups": 2},
    {"stride": 3, "padding": 2},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "groups": 4},
    {"padding": "same"},
]


@needs_torch
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv2d_as_pytorch(options):
    groups = options.get("groups", 1)
    x, w, b = arrays((2, 4, 9, 8), (8, 4 // groups, 3, 2), (8,))
    mine = [Tensor(v, requires_grad=True) for v in (x, w, b)]
    theirs = [torch.tensor(v, requires_grad=True) for v in (x, w, b)]
    result, expected = mine[0].conv2d(*mine[1:], **options), F.conv2d(*theirs, **options)
    close(result, expected)
    (result * result).sum().backward()
    (expected * expected).sum().backward()
    for ours, other in zip(mine, theirs, strict=True):
        close(ours.grad, other.grad, 1e-3)


@needs_torch
def test_other_windows_as_pytorch():
    x, w, s = arrays((2, 4, 9, 8), (4, 3, 3, 2), (3, 4, 11))
    t = torch.tensor
    options = {"stride": (2, 3), "padding": 1, "output_padding": (1, 0), "dilation": (1, 2)}
    close(Tensor(x).conv_transpose2d(Tensor(w), **options), F.conv_transpose2d(t(x), t(w), **options))
    (w1,) = arrays((5, 4, 3))
    close(Tensor(s).conv1d(Tensor(w1), padding=1), F.conv1d(t(s), t(w1), padding=1))
    for kernel, stride, padding in ((2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (1, 1))):
        close(Tensor(x).max_pool2d(kernel, stride, padding), F.max_pool2d(t(x), kernel, stride, padding))
        close(Tensor(x).avg_pool2d(kernel, stride, padding), F.avg_pool2d(t(x), kernel, stride, padding))
        close(
            Tensor(x).avg_pool2d(kernel, stride, padding, False),
            F.avg_pool2d(t(x), kernel, stride, padding, count_include_pad=False),
        )
    close(Tensor(x).adaptive_avg_pool2d((3, 2)), F.adaptive_avg_pool2d(t(x), (3, 2)))
    close(Tensor(x).interpolate((5, 13)), F.interpolate(t(x), (5, 13)))


ACTIVATIONS = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {},
    "elu": {"alpha": 0.7},
    "sigmoid": {},
    "logsigmoid": {},
    "silu": {},
    "gelu": {},
    "softplus": {"beta": 2.0},
    "softsign": {},
    "mish": {},
    "hardtanh": {},
    "hardsigmoid": {},
    "hardswish": {},
    "glu": {},
    "tanh": {},
}


@needs_torch
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_as_pytorch(name):
    x = np.concatenate([np.linspace(-30, 30, 41), [0.0, 3.0, -3.0]]).astype(np.float32)
    mine, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    result = getattr(mine, name)(**ACTIVATIONS[name])
    expected = getattr(F, name)(theirs, **ACTIVATIONS[name])
    close(result, expected, 2e-6)
    result.sum().backward()
    expected.sum().backward()
    close(mine.grad, theirs.grad, 1e-5)


@needs_torch
def test_gelu_tanh_as_pytorch():
    (x,) = arrays((50,))
    close(Tensor(x).gelu("tanh"), F.gelu(torch.tensor(x), approximate="tanh"), 1e-6)


LOSSES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"ignore_index": 2}),
    ("cross_entropy", {"reduction": "sum"}),
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"reduction": "none", "label_smoothing": 0.2}),
    ("cross_entropy", {"weight": True}),
    ("cross_entropy", {"weight": True, "label_smoothing": 0.3}),
    ("nll_loss", {}),
    ("nll_loss", {"weight": True, "reduction": "none"}),
]


@needs_torch
@pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
def test_classification_losses_as_pytorch(name, options, shape):
    (x,) = arrays(shape)
    y = RANDOM.integers(0, 4, (shape[0], *shape[2:]))
    weight = np.array([0.5, 1.0, 2.0, 0.1], np.float32)
    mine, theirs = dict(options), dict(options)
    if "weight" in options:
        mine["weight"], theirs["weight"] = Tensor(weight), torch.tensor(weight)
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    result, expected = getattr(a, name)(Tensor(y), **mine), getattr(F, name)(b, torch.tensor(y), **theirs)
    close(result, expected)
    result.sum().backward()
    expected.sum().backward()
    close(a.grad, b.grad)


@needs_torch
def test_other_losses_as_pytorch():
    x, y = arrays((5, 3), (5, 3))
    p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y))
    t = torch.tensor
    close(Tensor(x).mse_loss(Tensor(y)), F.mse_loss(t(x), t(y)))
    close(Tensor(x).l1_loss(Tensor(y)), F.l1_loss(t(x), t(y)))
    close(Tensor(x).huber_loss(Tensor(y), 0.5), F.huber_loss(t(x), t(y), delta=0.5))
    close(Tensor(p).binary_cross_entropy(Tensor(q)), F.binary_cross_entropy(t(p), t(q)))
    close(
        Tensor(x * 40).binary_cross_entropy_with_logits(Tensor(q)),
        F.binary_cross_entropy_with_logits(t(x * 40), t(q)),
    )
    close(Tensor(x).log_softmax().kl_div(Tensor(q)), F.kl_div(F.log_softmax(t(x), -1), t(q)))
    close(Tensor(x).cross_entropy(Tensor(q)), F.cross_entropy(t(x), t(q)))


@needs_torch
def test_attention_as_pytorch():
    q, k, v = arrays((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
    mask = RANDOM.random((5, 7)) > 0.3
    mask[:, 0] = True
    t = torch.tensor
    for options in (
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": mask},
        {"attn_mask": k[0, 0, :5, :7]},
    ):
        mine = {n: Tensor(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
        theirs = {n: t(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
        if "attn_mask" in options and options["attn_mask"].shape != (5, 7):
            mine["attn_mask"], theirs["attn_mask"] = Tensor(q[0, 0, :, :7]), t(q[0, 0, :, :7])
        close(
            Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v), **mine),
            F.scaled_dot_product_attention(t(q), t(k), t(v), **theirs),
        )


def layer_pairs():
    return {
        "Linear": (nn.Linear(5, 3), torch.nn.Linear(5, 3), (4, 5)),
        "Conv2d": (
            nn.Conv2d(4, 6, 3, padding=1, groups=2),
            torch.nn.Conv2d(4, 6, 3, padding=1, groups=2),
            (2, 4, 5, 5),
        ),
        "Conv1d": (nn.Conv1d(4, 6, 3), torch.nn.Conv1d(4, 6, 3), (2, 4, 9)),
        "ConvTranspose2d": (
            nn.ConvTranspose2d(4, 6, 3, 2),
            torch.nn.ConvTranspose2d(4, 6, 3, 2),
            (2, 4, 5, 5),
        ),
        "LayerNorm": (nn.LayerNorm((4, 5)), torch.nn.LayerNorm((4, 5)), (2, 4, 5)),
        "RMSNorm": (nn.RMSNorm(5), torch.nn.RMSNorm(5, eps=1e-6), (2, 4, 5)),
        "GroupNorm": (nn.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4), (2, 4, 5, 3)),
        "BatchNorm2d": (nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4), (2, 4, 5, 3)),
    }


@needs_torch
@pytest.mark.parametrize(
    "name",
    ["Linear", "Conv2d", "Conv1d", "ConvTranspose2d", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm2d"],
)
def test_layers_as_pytorch(name):
    mine, theirs, shape = layer_pairs()[name]
    state = {key: Tensor(value.numpy()) for key, value in theirs.state_dict().items()}
    nn.state.load_state_dict(mine, state)
    for _ in range(2):
        (x,) = arrays(shape)
        with Tensor.training():
            close(mine(Tensor(x)), theirs(torch.tensor(x)), 1e-4)
    theirs.eval()
    close(mine(Tensor(x)), theirs(torch.tensor(x)), 1e-4)
    for key, value in nn.state.get_state_dict(mine).items():
        close(value, theirs.state_dict()[key].numpy(), 1e-5)


@needs_torch
def test_multihead_attention_as_pytorch():
    mine, theirs = nn.MultiheadAttention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    nn.state.load_state_dict(mine, {k: Tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    q, k = arrays((2, 3, 8), (2, 5, 8))
    close(mine(Tensor(q), Tensor(k)), theirs(torch.tensor(q), torch.tensor(k), torch.tensor(k))[0], 1e-5)


OPTIMIZERS = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ],
    "Adam": [{"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.1, "betas": (0.8, 0.9)}],
    "AdamW": [{"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.3}],
}


@needs_torch
@pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n, many in OPTIMIZERS.items() for o in many], ids=str
)
def test_optimizers_as_pytorch(name, options):
    (start,) = arrays((3, 4))
    mine, theirs = Tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    ours = getattr(nn.optim, name)([mine], **options)
    other = getattr(torch.optim, name)([theirs], **options)
    for step in range(5):
        if step == 3:
            ours.set_lr(0.01)
            other.param_groups[0]["lr"] = 0.01
        ours.zero_grad()
        other.zero_grad()
        ((mine - 1) ** 2 * (mine + 2)).sum().backward()
        ((theirs - 1) ** 2 * (theirs + 2)).sum().backward()
        ours.step()
        other.step()
        close(mine, theirs, 1e-5)
    assert mine.is_realized


def test_optimizer_misuse():
    weight = Tensor([1.0], requires_grad=True)
    with pytest.raises(TinycoreError, match="no parameter"):
        nn.optim.SGD([Tensor([1.0])])
    with pytest.raises(ConfigError, match="learning rate"):
        nn.optim.SGD([weight], lr=float("nan"))
    with pytest.raises(TinycoreError, match="without gradients"):
        nn.optim.SGD([weight]).step()


# --- shapes that do not fit
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tensor.ones(2, 3) + Tensor.ones(4), r"add: shapes \(2, 3\) and \(4,\)"),
        (lambda: Tensor.ones(2, 3) @ Tensor.ones(2, 3), r"matmul: shapes \(2, 3\) and \(2, 3\).*mT"),
        (lambda: Tensor.ones(2, 3).reshape(4, 2), r"reshape of \(2, 3\) to \(4, 2\).*6 elements"),
        (lambda: Tensor.ones(2, 3).sum(2), r"sum: axis 2 .*\(2, 3\)"),
        (lambda: Tensor.ones(2, 3).permute(0, 0), "permute"),
        (lambda: Tensor.ones(2, 3).expand(2, 4), "only sizes of 1"),
        (lambda: Tensor.cat([Tensor.ones(2, 3), Tensor.ones(3, 2)]), "cat: shapes"),
        (lambda: Tensor.ones(1, 3, 8, 8).conv2d(Tensor.ones(4, 2, 3, 3)), "conv2d: 3 input channels"),
        (lambda: Tensor.ones(1, 2, 2, 2).conv2d(Tensor.ones(4, 2, 3, 3)), "window of 3 .* does not fit 2"),
        (lambda: Tensor.ones(4, 3).cross_entropy(Tensor([0, 1])), "nll_loss: classes of shape"),
        (lambda: Tensor.einsum("ij,jk->ik", Tensor.ones(2, 3), Tensor.ones(4, 5)), "einsum.*j is 3 and 4"),
        (lambda: Tensor.ones(2, 3).layer_norm(4), "layer_norm"),
        (lambda: nn.BatchNorm2d(3)(Tensor.ones(1, 2, 4, 4)), "3 channels"),
        (lambda: Tensor.ones(2)[0, 0], "2 indices"),
    ],
)
def test_wrong_shapes_are_explained(make, words):
    with pytest.raises(ShapeError, match=f"(?s){words}") as caught:
        make()
    assert "/tinycore/" not in str(caught.value)


def test_devices():
    assert Device.DEFAULT == "INTERPRETER"
    assert Tensor([1.0]).device == "INTERPRETER"
    assert Device["interpreter:0"].name == "INTERPRETER"
    with pytest.raises(BackendUnavailable, match="INTERPRETER"):
        Tensor([1.0], device="INTERPRETR")
    with pytest.raises(BackendUnavailable, match="pip install tinycore-backend-zzz"):
        Tensor([1.0]).to("ZZZ")


# --- model files
# ----------------------------------------------------------------------------------------------


def small_model():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))


def test_state_round_trip(tmp_path):
    Tensor.manual_seed(0)
    model, other = small_model(), small_model()
    file = tmp_path / "model.safetensors"
    nn.state.safe_save(nn.state.get_state_dict(model), file, {"note": "hello"})
    state = nn.state.safe_load(file)
    assert state.metadata == {"note": "hello"}
    nn.state.load_state_dict(other, state)
    for name, tensor in nn.state.get_state_dict(model).items():
        np.testing.assert_array_equal(tensor.numpy(), nn.state.get_state_dict(other)[name].numpy())
    assert [p.requires_grad for p in nn.state.get_parameters(other)] == [True] * 4


@pytest.mark.parametrize("dtype", list(dtypes.DATA), ids=str)
def test_every_dtype_survives_a_file(tmp_path, dtype):
    tensor = Tensor([0, 1, 1, 0, 1]).cast(dtype)
    file = tmp_path / "x.safetensors"
    nn.state.safe_save({"x": tensor, "scalar": tensor[1], "empty": tensor[:0]}, file)
    state = nn.state.safe_load(file)
    assert (state["x"].dtype, state["scalar"].shape, state["empty"].shape) == (dtype, (), (0,))
    assert state["x"].float().tolist() == [0, 1, 1, 0, 1]


def test_states_that_do_not_fit():
    model = small_model()
    before = model.layers[0].weight.numpy()
    state = {name: tensor * 0 for name, tensor in nn.state.get_state_dict(model).items()}
    wrong = dict(state, **{"layers.0.wieght": state["layers.0.weight"]})
    del wrong["layers.0.weight"]
    with pytest.raises(DataError, match=r"(?s)missing: layers.0.weight.*unexpected.*wieght.*did you mean"):
        nn.state.load_state_dict(model, wrong)
    with pytest.raises(ShapeError, match=r"layers.0.weight has shape \(2, 3\) in the model, \(3, 3\)"):
        nn.state.load_state_dict(model, dict(state, **{"layers.0.weight": Tensor.ones(3, 3)}))
    np.testing.assert_array_equal(model.layers[0].weight.numpy(), before)
    nn.state.load_state_dict(model, wrong, strict=False)
    assert model.layers[0].bias.numpy().sum() == 0


def hostile_files():
    def file(header, body=b"", length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + body

    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "empty": b"",
        "short": b"\x01\x02",
        "no json": file(b"{nonsense"),
        "huge header": file({"x": entry}, bytes(8), length=1 << 62),
        "cut": file({"x": entry}, bytes(4)),
        "offsets outside": file({"x": dict(entry, data_offsets=[0, 1 << 40])}, bytes(8)),
        "negative offsets": file({"x": dict(entry, data_offsets=[-8, 0])}, bytes(8)),
        "wrong size": file({"x": dict(entry, shape=[3])}, bytes(8)),
        "overflowing shape": file({"x": dict(entry, shape=[1 << 62, 1 << 62])}, bytes(8)),
        "overlap": file({"x": entry, "y": entry}, bytes(8)),
        "odd dtype": file({"x": dict(entry, dtype="F31")}, bytes(8)),
        "a list": file([1, 2, 3]),
        "deep": file(b"[" * 100_000),
        "pickle": b"\x80\x04\x95" + bytes(64),
    }


@pytest.mark.parametrize("name", hostile_files())
def test_hostile_files(tmp_path, name):
    file = tmp_path / "model.safetensors"
    file.write_bytes(hostile_files()[name])
    with pytest.raises(DataError, match=r"model\.safetensors"):
        dict(nn.state.safe_load(file))


def test_missing_file_and_failed_save(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        nn.state.safe_load(tmp_path / "nothing.safetensors")
    file = tmp_path / "model.safetensors"
    nn.state.safe_save({"x": Tensor([1.0])}, file)
    before = file.read_bytes()
    with pytest.raises(TypeError):
        nn.state.safe_save({"x": Tensor([1.0])}, file, {"bad": object()})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

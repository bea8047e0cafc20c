"""Every op against numpy: broadcasting, dtypes, indexing, movement, reductions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tinycore_frontend_tensor import Tensor, dtypes

from tinycore.errors import DTypeError, ShapeError

FAST = settings(max_examples=40, deadline=None)
FLOATS = st.floats(-100, 100, width=32)


def same(tensor, expected, tolerance=0.0):
    result = tensor.numpy()
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@st.composite
def broadcastable(draw, dtype="float32", elements=FLOATS):
    shapes = draw(
        hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)
    ).input_shapes
    return [draw(hnp.arrays(dtype, shape, elements=elements)) for shape in shapes]


@FAST
@given(broadcastable())
def test_arithmetic_broadcasts(arrays):
    a, b = arrays
    same(Tensor(a) + Tensor(b), a + b)
    same(Tensor(a) - Tensor(b), a - b)
    same(Tensor(a) * Tensor(b), a * b)
    same(Tensor(a).maximum(Tensor(b)), np.maximum(a, b))
    same(Tensor(a) < Tensor(b), a < b)
    same((Tensor(a) >= Tensor(b)).where(Tensor(a), Tensor(b)), np.where(a >= b, a, b))


@FAST
@given(broadcastable("int32", st.integers(-1000, 1000)))
def test_integer_arithmetic(arrays):
    a, b = arrays
    with np.errstate(all="ignore"):
        same(Tensor(a) // Tensor(b), np.where(b == 0, 0, a // np.where(b == 0, 1, b)).astype("int32"))
        same(Tensor(a) % Tensor(b), np.where(b == 0, 0, a % np.where(b == 0, 1, b)).astype("int32"))
    same(Tensor(a) ^ Tensor(b), a ^ b)
    same(Tensor(a) / 2, (a / 2).astype("float32"))


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (dtypes.int8, dtypes.uint8, dtypes.int16),
        (dtypes.bool_, dtypes.int32, dtypes.int32),
        (dtypes.int64, dtypes.float16, dtypes.float16),
        (dtypes.float16, dtypes.bfloat16, dtypes.float32),
        (dtypes.float32, dtypes.float64, dtypes.float64),
    ],
)
def test_promotion(left, right, result):
    assert (Tensor.ones(2, dtype=left) + Tensor.ones(2, dtype=right)).dtype is result


def test_numbers_are_weak():
    assert (Tensor.ones(2, dtype=dtypes.float16) * 2.5).dtype is dtypes.float16
    assert (Tensor.ones(2, dtype=dtypes.int8) * 2).dtype is dtypes.int8
    assert (Tensor.ones(2, dtype=dtypes.int8) * 2.5).dtype is dtypes.float32
    assert (Tensor.ones(2, dtype=dtypes.bool_) + 1).dtype is dtypes.int64
    assert (Tensor([1, 2], dtype="uint8") > -1).tolist() == [True, True]
    assert (1 / Tensor([4])).tolist() == [0.25]
    assert (2 ** Tensor([3, 4])).tolist() == [8, 16]


UNARY = {
    "exp": (np.exp, -5, 5),
    "exp2": (np.exp2, -5, 5),
    "log": (np.log, 0.1, 50),
    "log2": (np.log2, 0.1, 50),
    "log10": (np.log10, 0.1, 50),
    "log1p": (np.log1p, -0.9, 50),
    "expm1": (np.expm1, -5, 5),
    "sin": (np.sin, -9, 9),
    "cos": (np.cos, -9, 9),
    "tan": (np.tan, -1.4, 1.4),
    "tanh": (np.tanh, -4, 4),
    "sinh": (np.sinh, -4, 4),
    "cosh": (np.cosh, -4, 4),
    "sqrt": (np.sqrt, 0, 50),
    "floor": (np.floor, -9, 9),
    "ceil": (np.ceil, -9, 9),
    "trunc": (np.trunc, -9, 9),
    "round": (np.round, -9, 9),
    "abs": (np.abs, -9, 9),
    "sign": (np.sign, -9, 9),
    "square": (np.square, -9, 9),
    "reciprocal": (np.reciprocal, 0.1, 9),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 9),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -20, 20),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    function, low, high = UNARY[name]
    x = np.linspace(low, high, 53, dtype=np.float32)
    expected = function(x.astype(np.float64)).astype(np.float32)
    same(getattr(Tensor(x), name)(), expected, 5e-7)


def test_near_zero_and_special_values():
    tiny = np.array([1e-9, -1e-9, 0.0], np.float32)
    same(Tensor(tiny).log1p(), np.log1p(tiny), 1e-15)
    same(Tensor(tiny).expm1(), np.expm1(tiny), 1e-15)
    special = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    assert np.isnan(Tensor(special).relu().numpy()[0])
    assert np.isnan(Tensor(special).clamp(-1, 1).numpy()[0])
    assert not np.signbit(Tensor(special).abs().numpy()[3])
    same(Tensor(special).isnan(), np.isnan(special))
    same(Tensor(special).isinf(), np.isinf(special))
    same(Tensor(special).isfinite(), np.isfinite(special))
    same(Tensor(np.array([-200.0, 200.0], np.float32)).sigmoid(), np.array([0.0, 1.0], np.float32), 1e-30)


def test_powers():
    x = np.array([-2, -1, 0, 1, 3], np.int32)
    same(Tensor(x) ** 3, x**3)
    same(
        Tensor(x) ** Tensor(np.array([0, 1, 2, 3, 40], np.int32)),
        (x.astype(object) ** np.array([0, 1, 2, 3, 40], object) % 2**32).astype(np.uint32).astype(np.int32),
    )
    y = np.array([0.5, 2.0, 3.0], np.float32)
    same(Tensor(y) ** 2, y * y)
    same(Tensor(y) ** -2, 1 / (y * y), 1e-6)
    same(Tensor(y) ** 0.5, np.sqrt(y))
    same(Tensor(y) ** 1.7, y**1.7, 1e-6)
    with pytest.raises(DTypeError, match="negative"):
        Tensor(x) ** -1


@st.composite
def basic_index(draw):
    array = draw(hnp.arrays("float32", hnp.array_shapes(max_dims=3, max_side=5, min_side=1), elements=FLOATS))
    key = draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    return array, key


@settings(max_examples=100, deadline=None)
@given(basic_index())
def test_basic_indexing(case):
    array, key = case
    same(Tensor(array)[key], array[key])


@settings(max_examples=60, deadline=None)
@given(basic_index(), st.booleans())
def test_setting_by_basic_index(case, stored):
    array, key = case
    tensor = Tensor(array) if stored else Tensor(array) + 0
    before = tensor * 2
    expected = array.copy()
    expected[key] = 7.0
    tensor[key] = 7.0
    same(tensor, expected)
    same(before, array * 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_integer_array_indexing(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    key = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    )
    same(Tensor(array)[tuple(Tensor(k) for k in key)], array[key])


X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
ADVANCED = [
    np.s_[:, [0, 2]],
    np.s_[[0, 2], :, [1, -1]],
    np.s_[[0, 2], [1, -1]],
    np.s_[1, [0, 2]],
    np.s_[:, [[0], [2]], [1, -1]],
    X > 20,
    X[:, :, 0] > 20,
    np.s_[X[:, 0, 0] > 0, 1],
    np.s_[..., [1, 1]],
]


@pytest.mark.parametrize("key", ADVANCED, ids=str)
def test_advanced_indexing(key):
    same(Tensor(X)[key], X[key])


@pytest.mark.parametrize(
    "key", [np.s_[:, [0, 2]], np.s_[[0, 2], :, [1, -1]], np.s_[1, [0, 2]], np.s_[..., [3]]]
)
def test_setting_by_advanced_index(key):
    expected = X.copy()
    value = np.arange(X[key].size, dtype=np.float32).reshape(X[key].shape)
    expected[key] = value
    tensor = Tensor(X)
    tensor[key] = Tensor(value)
    same(tensor, expected)


def test_setting_by_mask_and_outside():
    tensor = Tensor(X)
    tensor[Tensor(X) > 20] = -1
    same(tensor, np.where(X > 20, np.float32(-1), X))
    with pytest.raises(IndexError, match="outside axis 0"):
        Tensor(X)[3]
    with pytest.raises(ShapeError, match="does not fit"):
        tensor[0] = Tensor.ones(3)
    assert Tensor(X)[Tensor([0, 99])].numpy()[1].sum() == 0  # outside reads zero


def test_gather_and_scatter():
    index = np.array([[0, 2, 1, 1, 0]] * 4)
    same(Tensor(X)[0].gather(0, Tensor(index)), np.take_along_axis(X[0], index, 0))
    base = np.zeros((4, 5), np.float32)
    expected = base.copy()
    np.add.at(expected, (index[:3], np.broadcast_to(np.arange(5), (3, 5))), X[0, :3])
    same(Tensor(base).scatter_add(0, Tensor(index[:3]), Tensor(X[0, :3])), expected)
    same(Tensor([1.0, 2, 3]).scatter(0, Tensor([2, 2]), Tensor([8.0, 9.0])), np.array([1, 2, 9], np.float32))


MOVEMENT = {
    "permute": (lambda t: t.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "T": (lambda t: t.T, lambda x: x.T),
    "reshape": (lambda t: t.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "flatten": (lambda t: t.flatten(1), lambda x: x.reshape(3, 20)),
    "flip": (lambda t: t.flip(0, 2), lambda x: np.flip(x, (0, 2))),
    "pad": (
        lambda t: t.pad([(1, 0), (0, 2), (3, 1)], 5),
        lambda x: np.pad(x, [(1, 0), (0, 2), (3, 1)], constant_values=5),
    ),
    "pad flat": (lambda t: t.pad((1, 2)), lambda x: np.pad(x, [(0, 0), (0, 0), (1, 2)])),
    "pad cut": (lambda t: t.pad((-1, 2)), lambda x: np.pad(x[:, :, 1:], [(0, 0), (0, 0), (0, 2)])),
    "cat": (lambda t: Tensor.cat([t, t * -1], 1), lambda x: np.concatenate([x, -x], 1)),
    "stack": (lambda t: Tensor.stack([t, t], -1), lambda x: np.stack([x, x], -1)),
    "repeat": (lambda t: t.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3))),
    "repeat_interleave": (lambda t: t.repeat_interleave(3, 1), lambda x: np.repeat(x, 3, 1)),
    "roll": (lambda t: t.roll(-2, 1), lambda x: np.roll(x, -2, 1)),
    "roll all": (lambda t: t.roll(7), lambda x: np.roll(x, 7)),
    "tril": (lambda t: t.tril(1), lambda x: np.tril(x, 1)),
    "triu": (lambda t: t.triu(-1), lambda x: np.triu(x, -1)),
    "unfold": (
        lambda t: t.unfold(1, 2, 2),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 1)[:, ::2],
    ),
    "chunk": (lambda t: t.chunk(2, 2)[1], lambda x: x[:, :, 3:]),
    "split": (lambda t: t.split([1, 4], 2)[1], lambda x: x[:, :, 1:]),
    "expand": (lambda t: t[:, :, :1].expand(3, 4, 6), lambda x: np.broadcast_to(x[:, :, :1], (3, 4, 6))),
    "squeeze": (lambda t: t.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze(), lambda x: x),
    "diagonal": (lambda t: t.diagonal(), lambda x: np.diagonal(x, axis1=-2, axis2=-1)),
}


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(name):
    ours, theirs = MOVEMENT[name]
    same(ours(Tensor(X)), theirs(X))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_windows(length, size, stride, dilation):
    span = dilation * (size - 1) + 1
    if span > length:
        return
    x = np.arange(2 * length, dtype=np.float32).reshape(2, length)
    expected = np.lib.stride_tricks.sliding_window_view(x, span, 1)[:, ::stride, ::dilation]
    from tinycore_frontend_tensor.strided import windows

    same(Tensor.of_node(windows(Tensor(x).uop, [(size, stride, dilation)])), expected)


REDUCE = {
    "sum": (lambda t, d, k: t.sum(d, k), np.sum),
    "mean": (lambda t, d, k: t.mean(d, k), np.mean),
    "max": (lambda t, d, k: t.max(d, k), np.max),
    "min": (lambda t, d, k: t.min(d, k), np.min),
    "std": (lambda t, d, k: t.std(d, k, 0), np.std),
    "var": (lambda t, d, k: t.var(d, k, 0), np.var),
    "any": (lambda t, d, k: t.any(d, k), np.any),
    "all": (lambda t, d, k: t.all(d, k), np.all),
}


@pytest.mark.parametrize("name", REDUCE)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions(name, axis, keepdim):
    ours, theirs = REDUCE[name]
    same(ours(Tensor(X), axis, keepdim), theirs(X, axis=axis, keepdims=keepdim), 1e-5)


def test_other_reductions():
    x = X - 30
    same(Tensor(x / 9).prod(2), (x / 9).prod(2), 1e-5)
    same(Tensor(x).argmax(1), x.argmax(1))
    same(Tensor(x).argmin(), x.argmin())
    same(Tensor(x).cumsum(1), x.cumsum(1), 1e-6)
    same(Tensor(x / 30).cumprod(1), (x / 30).cumprod(1), 1e-6)
    same(Tensor(x[:, ::-1]).cummax(1)[0], np.maximum.accumulate(x[:, ::-1], 1))
    same(Tensor(x / 9).logsumexp(1), np.log(np.exp(x / 9).sum(1)), 1e-6)
    same(Tensor(x).softmax(-1).sum(-1), np.ones((3, 4), np.float32), 1e-6)
    same(Tensor(x).std(1), x.std(1, ddof=1), 1e-5)
    same(Tensor(x).var(correction=2), x.var(ddof=2), 1e-4)
    same(Tensor(x).norm(dim=1), np.linalg.norm(x, axis=1), 1e-6)
    assert Tensor([1, 2], dtype="int8").sum().dtype is dtypes.int64
    assert Tensor([True, True]).sum().item() == 2
    assert np.isinf(Tensor([-np.inf, -np.inf]).logsumexp().item())
    assert Tensor([1.0, float("nan"), 3]).argmax().item() == 1
    with pytest.raises(DTypeError, match="mean needs a float"):
        Tensor([1, 2]).mean()
    with pytest.raises(ShapeError, match="no elements"):
        Tensor.zeros(0).max()


def test_float16_sums_are_carried_in_float32():
    x = np.full(5000, 0.1, np.float16)
    assert abs(Tensor(x).sum().item() - x.astype(np.float64).sum()) < 0.5
    assert Tensor(x).sum().dtype is dtypes.float16


@pytest.mark.parametrize("descending", [False, True])
def test_sorting(descending):
    x = np.array([[3, 1, 2, 1], [0, 9, 9, -4]], np.float32)
    values, order = Tensor(x).sort(1, descending)
    expected = np.argsort(-x if descending else x, 1, kind="stable")
    same(order, expected)
    same(values, np.take_along_axis(x, expected, 1))
    same(Tensor(x).topk(2, 1)[0], -np.sort(-x, 1)[:, :2])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((3, 4), (4, 5)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
    ],
)
def test_matmul(first, second):
    a, b = (np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in (first, second))
    same(Tensor(a) @ Tensor(b), a @ b, 1e-5)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("ij->ji", [(3, 4)]),
        ("ii", [(4, 4)]),
        ("ii->i", [(4, 4)]),
        ("i,j->ij", [(3,), (4,)]),
        ("ij,ij->", [(3, 4), (3, 4)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("abc->", [(2, 3, 4)]),
        ("ij,j->i", [(3, 4), (4,)]),
    ],
)
def test_einsum(equation, shapes):
    arrays = [np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in shapes]
    same(Tensor.einsum(equation, *map(Tensor, arrays)), np.einsum(equation, *arrays), 1e-5)


def test_creation():
    same(Tensor.arange(2, 11, 3), np.arange(2, 11, 3))
    same(Tensor.arange(0.5, 3, 0.5), np.arange(0.5, 3, 0.5, np.float32))
    same(Tensor.arange(5, 0, -2), np.arange(5, 0, -2))
    same(Tensor.linspace(-1, 2, 7), np.linspace(-1, 2, 7, dtype=np.float32), 1e-6)
    same(Tensor.eye(3, 4), np.eye(3, 4, dtype=np.float32))
    same(Tensor.full((2, 3), 7), np.full((2, 3), 7))
    same(Tensor(X).zeros_like(), np.zeros_like(X))
    assert Tensor([1, 2]).dtype is dtypes.int64
    assert Tensor([1.0]).dtype is dtypes.float32
    assert Tensor(np.ones(2)).dtype is dtypes.float64
    assert Tensor([[True]]).dtype is dtypes.bool_
    with pytest.raises(ShapeError, match="different lengths"):
        Tensor([[1], [1, 2]])
    with pytest.raises(DTypeError, match="not numeric"):
        Tensor([object()])


def test_casts_agree_on_host_and_device():
    x = np.array([300.0, -1.5, np.nan, 1e30], np.float32)
    for target in (dtypes.uint8, dtypes.int32, dtypes.int64, dtypes.bool_):
        same(Tensor(x, dtype=target), Tensor(x).cast(target).numpy())
    assert Tensor([1.0, 2.5]).bfloat16().tolist() == [1.0, 2.5]


def test_long_chains_do_not_recurse():
    t = Tensor([0.0])
    for _ in range(3000):
        t = t + 1
    assert t.item() == 3000

"""Whole networks, written once over a kit; layers come from each library's own `nn`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from benchmarks.model import Position, Row
from benchmarks.rows.data import integers, nbytes, normal, one
from benchmarks.rows.training import mlp_losses, small_cnn_losses

INFERENCE = ("tinycore", "torch", "torch.compile", "jax", "onnxruntime", "tinygrad")


MLP_WEIGHTS = 784 * 512 + 512 * 512 + 512 * 10


class Mlp:
    """784-512-512-10."""

    def __init__(self, kit: Any) -> None:
        sizes = (784, 512, 512, 10)
        self.layers = [kit.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]


def mlp(kit: Any, model: Mlp, x: Any) -> Any:
    """(batch, 784) to (batch, 10)."""
    for layer in model.layers[:-1]:
        x = kit.relu(layer(x))
    return model.layers[-1](x)


class SmallCnn:
    """Two convolutions with pooling, two linear layers, for square images."""

    def __init__(self, kit: Any, size: int = 28, width: int = 32) -> None:
        self.first = kit.nn.Conv2d(1, width, 3, padding=1)
        self.second = kit.nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = kit.nn.Linear(2 * width * (size // 4) ** 2, 128)
        self.out = kit.nn.Linear(128, 10)


def small_cnn(kit: Any, model: SmallCnn, images: Any) -> Any:
    """(batch, 1, size, size) to (batch, 10)."""
    x = kit.max_pool(kit.relu(model.first(images)), 2)
    x = kit.max_pool(kit.relu(model.second(x)), 2)
    return model.out(kit.relu(model.hidden(x.reshape((x.shape[0], -1)))))


class Bottleneck:
    """1x1, 3x3, 1x1 and the way around."""

    def __init__(self, kit: Any, inputs: int, width: int, stride: int) -> None:
        nn = kit.nn
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, width * 4, 1, bias=False), nn.BatchNorm2d(width * 4)
        self.around: list[Any] = []
        if stride != 1 or inputs != width * 4:
            self.around = [
                nn.Conv2d(inputs, width * 4, 1, stride=stride, bias=False),
                nn.BatchNorm2d(width * 4),
            ]


class ResNet50:
    """Kaiming He and others, 2015; the stride is in the 3x3 convolution."""

    def __init__(self, kit: Any) -> None:
        self.stem = kit.nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.norm = kit.nn.BatchNorm2d(64)
        self.blocks: list[Bottleneck] = []
        inputs = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                self.blocks.append(Bottleneck(kit, inputs, width, stride if number == 0 else 1))
                inputs = width * 4
        self.out = kit.nn.Linear(2048, 1000)


def resnet50(kit: Any, model: ResNet50, images: Any) -> Any:
    """(batch, 3, 224, 224) to (batch, 1000)."""
    x = kit.max_pool(kit.relu(model.norm(model.stem(images))), 3, 2, 1)
    for block in model.blocks:
        y = kit.relu(block.bn1(block.conv1(x)))
        y = kit.relu(block.bn2(block.conv2(y)))
        y = block.bn3(block.conv3(y)) * 0.25  # random weights: keeps 16 sums of activations in range
        for layer in block.around:
            x = layer(x)
        x = kit.relu(y + x)
    return model.out(kit.mean_image(x))


class Block:
    """A transformer block, normalised before (GPT) or after (BERT)."""

    def __init__(self, kit: Any, width: int, heads: int, inner: int) -> None:
        nn = kit.nn
        self.heads = heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)


def split_heads(kit: Any, block: Block, x: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values, (batch, heads, length, width / heads) each."""
    batch, length, width = x.shape
    shape = (batch, length, block.heads, width // block.heads)
    return tuple(
        kit.transpose(layer(x).reshape(shape), 0, 2, 1, 3) for layer in (block.query, block.key, block.value)
    )  # type: ignore[return-value]


def join_heads(kit: Any, x: Any) -> Any:
    """The inverse."""
    batch, heads, length, width = x.shape
    return kit.transpose(x, 0, 2, 1, 3).reshape((batch, length, heads * width))


def pre_norm(kit: Any, block: Block, x: Any, causal: bool = True) -> Any:
    """GPT's block, or that of a vision transformer, which is not causal."""
    q, k, v = split_heads(kit, block, block.norm1(x))
    x = x + block.mixed(join_heads(kit, kit.attention(q, k, v, causal=causal)))
    return x + block.down(kit.gelu(block.up(block.norm2(x))))


def post_norm(kit: Any, block: Block, x: Any, mask: Any = None) -> Any:
    """BERT's block."""
    q, k, v = split_heads(kit, block, x)
    x = block.norm1(x + block.mixed(join_heads(kit, kit.attention(q, k, v, mask=mask))))
    return block.norm2(x + block.down(kit.gelu(block.up(x))))


class MiniLm:
    """all-MiniLM-L6's shape: 6 blocks of width 384, 12 heads."""

    def __init__(self, kit: Any) -> None:
        self.words, self.places = kit.nn.Embedding(30522, 384), kit.nn.Embedding(512, 384)
        self.norm = kit.nn.LayerNorm(384)
        self.blocks = [Block(kit, 384, 12, 1536) for _ in range(6)]


def minilm(kit: Any, model: MiniLm, tokens: Any, mask: Any = None) -> Any:
    """(batch, length) tokens to (batch, 384); a mask says which tokens are attended to."""
    x = model.norm(model.words(tokens) + model.places.weight[: tokens.shape[1]])
    for block in model.blocks:
        x = post_norm(kit, block, x, mask)
    return kit.mean(x, 1)


GPT_LAYERS, GPT_WIDTH, GPT_HEADS, GPT_CACHE, GPT_POSITION = 12, 768, 12, 1024, 127


class Gpt2:
    """GPT-2 small: 12 blocks of width 768, 124 million weights, the output shares the embedding."""

    def __init__(self, kit: Any) -> None:
        self.words = kit.nn.Embedding(50257, GPT_WIDTH)
        self.places = kit.nn.Embedding(GPT_CACHE, GPT_WIDTH)
        self.blocks = [Block(kit, GPT_WIDTH, GPT_HEADS, 4 * GPT_WIDTH) for _ in range(GPT_LAYERS)]
        self.norm = kit.nn.LayerNorm(GPT_WIDTH)


def gpt2_decode(kit: Any, model: Gpt2, token: Any, position: Any, *caches: Any) -> Any:
    """One token at a fixed position, keys and values of the ones before in caches: (1, 50257).

    Writing the same position again leaves the same state, so every call does and finds the same.
    """
    x = model.words(kit.index(token) if hasattr(kit, "index") else token)
    x = x + kit.row(model.places.weight, position)
    for number, block in enumerate(model.blocks):
        q, k, v = split_heads(kit, block, block.norm1(x))
        keys = kit.write(caches[2 * number], position, k)
        values = kit.write(caches[2 * number + 1], position, v)
        x = x + block.mixed(join_heads(kit, kit.attention(q, keys, values)))
        x = x + block.down(kit.gelu(block.up(block.norm2(x))))
    return kit.matmul(model.norm(x)[:, 0], kit.transpose(model.words.weight))


def gpt_arguments(generator: np.random.Generator) -> tuple[Any, ...]:
    """A token, a position, and the keys and values of every block."""
    cache = (1, GPT_HEADS, GPT_CACHE, GPT_WIDTH // GPT_HEADS)
    caches = [one(generator, cache) for _ in range(2 * GPT_LAYERS)]
    return integers(generator, 50257, (1, 1)), Position(GPT_POSITION, GPT_CACHE - 1), *caches


def labelled_images(
    generator: np.random.Generator, batch: int = 128, size: int = 28
) -> tuple[np.ndarray, ...]:
    """Images and their classes."""
    return one(generator, (batch, 1, size, size)), integers(generator, 10, (batch,))


def training_operations(batch: int, size: int = 28, width: int = 32) -> float:
    """Multiplications and additions of a training step of the small CNN: three times the forward pass."""
    convolutions = 9 * width * size**2 + 18 * width**2 * (size // 2) ** 2
    layers = 2 * width * (size // 4) ** 2 * 128 + 128 * 10
    return 6.0 * batch * (convolutions + layers)


ROWS = (
    Row(
        "mlp.256",
        "mlp 256x784-512-512-10",
        "design",
        normal((256, 784)),
        mlp,
        model=Mlp,
        kits=(*INFERENCE, "numpy"),
        tolerance=1e-5,
        operations=2.0 * 256 * MLP_WEIGHTS,
        traffic=nbytes((256, 784), (256, 512), (256, 512), (256, 10), (MLP_WEIGHTS,)),
    ),
    Row(
        "resnet50.1",
        "ResNet-50, batch 1",
        "design",
        normal((1, 3, 224, 224)),
        resnet50,
        model=ResNet50,
        kits=INFERENCE,
        tolerance=1e-3,
        operations=8.2e9,
        fresh=False,
    ),
    Row(
        "minilm.128",
        "MiniLM-L6, batch 1, 128 tokens",
        "design",
        lambda generator: (integers(generator, 30522, (1, 128)),),
        minilm,
        model=MiniLm,
        kits=INFERENCE,
        tolerance=1e-4,
        operations=2.0 * 128 * 6 * (4 * 384 * 384 + 2 * 384 * 1536),
        fresh=False,
    ),
    Row(
        "train.cnn128",
        "small CNN training step, batch 128",
        "design",
        labelled_images,
        small_cnn,
        model=SmallCnn,
        reference=small_cnn_losses,
        kits=("tinycore", "torch", "jax", "tinygrad"),
        tolerance=1e-4,
        calls=4,
        operations=training_operations(128),
        fresh=False,
        training=True,
    ),
    Row(
        "train.mlp256",
        "mlp training step by Adam, batch 256",
        "more",
        lambda generator: (one(generator, (256, 784)), integers(generator, 10, (256,))),
        mlp,
        model=Mlp,
        reference=mlp_losses,
        kits=("tinycore", "torch"),
        tolerance=1e-3,
        calls=4,
        operations=6.0 * 256 * MLP_WEIGHTS,
        fresh=False,
        training=True,
        adam=True,
    ),
    Row(
        "transformer.block",
        "transformer block, 4x128x768, 12 heads, causal",
        "more",
        normal((4, 128, 768)),
        pre_norm,
        model=lambda kit: Block(kit, 768, 12, 3072),
        kits=(*INFERENCE, "numpy"),
        tolerance=1e-4,
        operations=2.0 * 512 * (4 * 768 * 768 + 2 * 768 * 3072),
        fresh=False,
    ),
    Row(
        "gpt2.decode",
        "GPT-2 small, one token, 128 in the cache",
        "more",
        gpt_arguments,
        gpt2_decode,
        model=Gpt2,
        kits=("tinycore", "torch"),
        tolerance=1e-4,
        operations=2.0 * (12 * 12 * 768 * 768 + 50257 * 768),
        traffic=4.0 * 124e6,
        fresh=False,
    ),
)

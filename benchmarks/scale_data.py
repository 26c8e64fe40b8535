"""What the scale benchmark is of: vectors of questions, edits that they find, and an encoder that costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from facts import read_records
from harness import made_up_edits
from semedit import Edit, SentenceEncoder
from semedit.memory.encoder import Vectors
from traffic import read_traffic

QUERIES = 1_000  # the first rows, held out
QUESTIONS = 150_000  # encoded at most
DISTANCE = (0.25, 0.6)  # of a made key to its question: cosines of 0.97 to 0.82
# name, and every how manieth edit is in it; the rest is in "default"
NAMESPACES = {"a tenth": 10, "a hundredth": 100, "a thousandth": 1_000}
ALL = ("default", *NAMESPACES)


class Numbered:
    """Stands in for an encoder at no cost: a text's vector is the row of a file that the text's last word numbers.

    Args:
        file: the vectors, `.npy`; mapped into memory.
    """

    fingerprint = "numbered@1"

    def __init__(self, file: Path) -> None:
        self.vectors: Vectors = np.load(file, mmap_mode="r")
        self.dim = self.vectors.shape[1]

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """`(texts, dim)`."""
        return self.vectors[[int(text.rsplit(" ", 1)[1]) for text in texts]]


def questions_as(edits: int, start: int = 0) -> list[Edit]:
    """The edits from number `start` on, each with one key: the vector of that number after the queries'."""
    return [
        replace(
            edit,
            prompt=f"{edit.prompt} {QUERIES + number}",
            namespace=namespace_of(number),
            author="Jane Doe",
            source=f"ticket {number}",
        )
        for number, edit in enumerate(made_up_edits(edits, start), start)
    ]


def namespace_of(number: int) -> str:
    """The namespace of an edit."""
    return next((name for name, every in NAMESPACES.items() if number % every == every // 2), "default")


def query(number: int) -> str:
    """The text of a query; they begin anew after the last."""
    return f"query {number % QUERIES}"


def read_vectors(data: Path) -> Vectors:
    """Vectors of questions people ask, in an order that is always the same."""
    texts = read_traffic(data)["questions"]
    texts += [
        record[name] for record in read_records(data / "similiar_qqp_full.json") for name in ("text_a", "text_b")
    ]
    texts = list(dict.fromkeys(texts))
    chosen = np.random.default_rng(0).permutation(len(texts))[:QUESTIONS]
    return SentenceEncoder().encode([texts[i] for i in chosen], progress=True)


def widened(real: Vectors, keys: int) -> Vectors:
    """`(QUERIES + keys, dim)`: the real ones, and as many made ones as they are too few."""
    rng = np.random.default_rng(0)
    questions, count = real[QUERIES:], QUERIES + keys
    parts = [real[:count]]
    for start in range(len(real), count, 65_536):
        some = min(65_536, count - start)
        from_, to = rng.integers(len(questions), size=(2, some))
        moves = questions[to] - questions[from_]
        lengths = np.maximum(np.linalg.norm(moves, axis=1, keepdims=True), 1e-6)
        moves *= rng.uniform(*DISTANCE, (some, 1)).astype(np.float32) / lengths
        made = questions[rng.integers(len(questions), size=some)] + moves
        parts.append(made / np.linalg.norm(made, axis=1, keepdims=True))
    return np.concatenate(parts)

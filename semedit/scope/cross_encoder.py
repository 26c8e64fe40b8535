"""Scope by a cross-encoder that reads query and key together (SERAC's cross-attend classifier)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers import CrossEncoder

from semedit.scope.base import Pair


class CrossEncoderScope:
    """A sentence-transformers cross-encoder with one label judges the candidates above a similarity floor.

    Args:
        model: the cross-encoder, or the name or path of one.
        threshold: the probability from which on a query is in scope.
        floor: the cosine below which a candidate is not judged; most unrelated queries then cost the encoder alone.
        batch_size: pairs a pass.
    """

    def __init__(
        self, model: CrossEncoder | str, threshold: float = 0.5, floor: float = 0.4, batch_size: int = 32
    ) -> None:
        self.model = CrossEncoder(model) if isinstance(model, str) else model
        self.threshold = threshold
        self.floor = floor
        self.batch_size = batch_size

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The sigmoid of the logit of each (text, query)."""
        if not pairs:
            return []
        scores = self.model.predict(
            [(pair.text, pair.query) for pair in pairs],
            batch_size=self.batch_size,
            activation_fn=torch.nn.Sigmoid(),
            show_progress_bar=False,
        )
        return [float(score) for score in scores]

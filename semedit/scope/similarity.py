"""Scope by cosine similarity alone."""

from __future__ import annotations

from collections.abc import Sequence

from semedit.scope.base import Pair


class SimilarityScope:
    """A query is in scope of an edit where its cosine with one of the edit's keys reaches the threshold.

    It needs no second model, and it cannot tell a paraphrase from a near miss: another subject in the same question,
    or another property of the same subject, can be as near as a paraphrase. Raise the threshold where near misses
    matter.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        self.threshold = threshold
        self.floor = threshold
        self.fingerprint = "similarity"

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """The cosine itself, with negative values as 0."""
        return [min(max(pair.similarity, 0.0), 1.0) for pair in pairs]

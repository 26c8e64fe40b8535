"""What a scope classifier is: it says of query and key how probable it is that the key's edit governs the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Pair:
    """A query beside a text of an edit: one of its keys, or one of its negatives.

    Attributes:
        similarity: their cosine in the memory's encoder.
    """

    query: str
    text: str
    similarity: float


class ScopeClassifier(Protocol):
    """Judges whether a query asks what a text asks.

    Attributes:
        threshold: the score from which on a query is in scope.
        floor: the cosine below which a pair is not worth judging.
        fingerprint: a name for people and a digest of what decides the scores; a calibration is kept under it.
    """

    threshold: float
    floor: float
    fingerprint: str

    def score(self, pairs: Sequence[Pair]) -> list[float]:
        """A score in [0, 1] for each pair, in their order."""

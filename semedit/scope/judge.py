"""Judging: what a scope classifier says of the candidates of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semedit.edits import Candidate
from semedit.scope.base import Pair, ScopeClassifier


def judge(
    scope: ScopeClassifier, queries: Sequence[str], found: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """The candidates of each query with scores and vetoes, best first; all are judged in one call.

    An edit's score is the highest over its keys that lie above the floor. Best is the highest score, the newer edit
    among equals; an edit that lies below the floor is not judged and comes last, by similarity.

    Args:
        scope: the classifier.
        queries: what is asked.
        found: the candidates of each query.
    """
    pairs: list[Pair] = []
    for query, candidates in zip(queries, found, strict=True):
        for candidate in candidates:
            if candidate.similarity >= scope.floor:
                texts = [*_keys(candidate, scope.floor), *candidate.negatives]
                pairs += [Pair(query, text, similarity) for text, similarity in texts]
    scores = iter(scope.score(pairs) if pairs else [])
    judged: list[list[Candidate]] = []
    for candidates in found:
        row = []
        for candidate in candidates:
            if candidate.similarity < scope.floor:
                row.append(candidate)
                continue
            claims = [(next(scores), *key) for key in _keys(candidate, scope.floor)]
            score, key, similarity = max(claims, key=lambda claim: claim[0])
            vetoes = [(next(scores), text) for text, _ in candidate.negatives]
            # a negative keeps the edit from a query that is as near to it as to the edit
            nearest, text = max(vetoes, default=(-1.0, ""))
            vetoed_by = text if nearest >= score else None
            row.append(replace(candidate, key=key, similarity=similarity, score=score, vetoed_by=vetoed_by))
        judged.append(sorted(row, key=_rank, reverse=True))
    return judged


def _keys(candidate: Candidate, floor: float) -> list[tuple[str, float]]:
    """The keys that are judged: the nearest, and the others above the floor."""
    return [(candidate.key, candidate.similarity), *(other for other in candidate.others if other[1] >= floor)]


def _rank(candidate: Candidate) -> tuple[bool, float, int]:
    judged = candidate.score is not None
    return judged, candidate.similarity if candidate.score is None else candidate.score, candidate.edit.revision

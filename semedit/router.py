"""Routing: which edits, if any, answer a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semedit.edits import Candidate, Route
from semedit.memory.edit_memory import EditMemory
from semedit.scope.base import Pair, ScopeClassifier

CANDIDATES = 8
MOST_EDITS = 4


class Router:
    """Decides for each query: similarity finds candidates, the scope classifier judges them, negatives veto.

    Args:
        memory: the edits.
        scope: the classifier.
    """

    def __init__(self, memory: EditMemory, scope: ScopeClassifier) -> None:
        self.memory = memory
        self.scope = scope

    def route(self, queries: Sequence[str], namespaces: Sequence[str] | None = None) -> list[Route]:
        """One route for each query; all candidates are judged in one call of the classifier.

        Args:
            queries: what is asked.
            namespaces: the namespaces to look in; None looks in `"default"` alone.
        """
        found = self.memory.nearest(queries, k=CANDIDATES, namespaces=namespaces)
        pairs: list[Pair] = []
        for query, candidates in zip(queries, found, strict=True):
            for candidate in candidates:
                if candidate.similarity >= self.scope.floor:
                    pairs.append(Pair(query, candidate.key, candidate.similarity))
                    pairs += [Pair(query, text, similarity) for text, similarity in candidate.negatives]
        scores = iter(self.scope.score(pairs) if pairs else [])
        routes = []
        for query, candidates in zip(queries, found, strict=True):
            judged = []
            for candidate in candidates:
                if candidate.similarity < self.scope.floor:
                    judged.append(candidate)
                    continue
                score = next(scores)
                vetoes = [(next(scores), text) for text, _ in candidate.negatives]
                # a negative keeps the edit from a query that is as near to it as to the edit
                nearest, text = max(vetoes, default=(-1.0, ""))
                judged.append(replace(candidate, score=score, vetoed_by=text if nearest >= score else None))
            routes.append(self._decide(query, judged))
        return routes

    def _decide(self, query: str, candidates: Sequence[Candidate]) -> Route:
        threshold = self.scope.threshold
        # best score first, the newer edit first among equals, what was not judged last by similarity
        ranked = sorted(
            candidates, key=lambda c: (c.score is not None, c.score or c.similarity, c.edit.revision), reverse=True
        )
        passed = [c for c in ranked if c.score is not None and c.score >= threshold and not c.vetoed_by]
        # the best edit says how the row is answered, and edits to be answered otherwise stay out
        chosen = [c for c in passed if c.edit.override == passed[0].edit.override][:MOST_EDITS]
        others = [c for c in ranked if c not in chosen]
        best = chosen[0] if chosen else next(iter(ranked), None)
        return Route(
            query=query,
            edits=tuple(c.edit for c in chosen),
            score=best.score if best else None,
            threshold=threshold,
            runner_up=others[0] if others else None,
            reason=self._reason(best, bool(chosen)),
            candidates=tuple(ranked),
        )

    def _reason(self, best: Candidate | None, in_scope: bool) -> str:
        if best is None:
            return "no edit to consider: the base model answers"
        if best.score is None:
            return (
                f"the nearest edit is too far to judge (similarity {best.similarity:.2f}, "
                f"floor {self.scope.floor:.2f}): the base model answers"
            )
        if in_scope:
            return f"in scope: {best.score:.2f} reaches the threshold {self.scope.threshold:.2f} on {best.key!r}"
        if best.vetoed_by and best.score >= self.scope.threshold:
            return f"vetoed: the query is at least as near to the negative {best.vetoed_by!r}: the base model answers"
        return (
            f"out of scope: {best.score:.2f} is below the threshold {self.scope.threshold:.2f}: the base model answers"
        )

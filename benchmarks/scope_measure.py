"""Judges the queries of a suite, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from scope_data import Case, Measure, Suite
from semedit import Edit, EditMemory
from semedit.edits import Candidate, Route
from semedit.evaluation.metrics import wilson
from semedit.memory.encoder import Encoder, Vectors
from semedit.router import Router
from semedit.scope.base import ScopeClassifier

BATCH = 256


class RememberingEncoder:
    """An encoder that encodes no text twice, since classifiers are compared on the same texts."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.fingerprint = encoder.fingerprint
        self.dim = encoder.dim
        self._vectors: dict[str, Vectors] = {}

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """As the encoder does."""
        missing = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        if missing:
            self._vectors.update(zip(missing, self.encoder.encode(missing, progress=progress), strict=True))
        return np.stack([self._vectors[text] for text in texts])


@dataclass(frozen=True)
class Rate:
    """How many of how many."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Hits over total; 0 of none."""
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson(self.hits, self.total)


@dataclass(frozen=True)
class Claims:
    """What is claimed by the best candidate of each query, whatever the threshold.

    Attributes:
        scores: `(queries,)`; 0 where no candidate claims a query.
        right: `(queries,)`; whether the query is in scope and the candidate an edit of its own.
        in_scope: how many queries are in scope.
    """

    scores: np.ndarray
    right: np.ndarray
    in_scope: int


def route_all(router: Router, queries: Sequence[str], what: str) -> dict[str, Route]:
    """The route of each query, in batches."""
    distinct = list(dict.fromkeys(queries))
    routes: dict[str, Route] = {}
    with tqdm(total=len(distinct), desc=what) as bar:
        for start in range(0, len(distinct), BATCH):
            batch = distinct[start : start + BATCH]
            routes.update(zip(batch, router.route(batch), strict=True))
            bar.update(len(batch))
    return routes


def route_suite(suite: Suite, scope: ScopeClassifier, encoder: Encoder, what: str) -> dict[str, Route]:
    """The route of each query of a suite, with all its edits in memory."""
    router = Router(memory_of(suite.edits, encoder), scope)
    return route_all(router, [case.query for case in suite.cases], what)


def memory_of(edits: Sequence[Edit], encoder: Encoder) -> EditMemory:
    """A memory in this process alone that holds the edits."""
    memory = EditMemory(None, encoder)
    memory.add_many(edits)
    return memory


def counts(suite: Suite, routes: Mapping[str, Route]) -> dict[str, Rate]:
    """How many of each category are what its measure counts."""
    result = {}
    for name, category in suite.categories.items():
        hits = [
            _counted(category.measure, case, routes[case.query]) for case in suite.cases if name in case.categories
        ]
        result[name] = Rate(sum(hits), len(hits))
    return result


def wrong(suite: Suite, routes: Mapping[str, Route], name: str) -> list[Case]:
    """The cases of a category that a perfect router would have decided otherwise."""
    measure = suite.categories[name].measure
    cases = [case for case in suite.cases if name in case.categories]
    return [case for case in cases if _counted(measure, case, routes[case.query]) != (measure == "right")]


def _counted(measure: Measure, case: Case, route: Route) -> bool:
    own = bool(route.edits) and route.edits[0].id in case.own
    if measure == "right":
        return own == case.in_scope
    return route.in_scope and (measure == "overridden" or not own)


def claims(suite: Suite, routes: Mapping[str, Route], name: str, score: Callable[[Candidate], float]) -> Claims:
    """What the best candidates of the queries of a category claim, by `score`."""
    cases = [case for case in suite.cases if name in case.categories]
    scores, right = [], []
    for case in cases:
        # the newer edit answers among equals
        best = max(routes[case.query].candidates, key=lambda c: (score(c), c.edit.revision), default=None)
        scores.append(score(best) if best else 0.0)
        right.append(best is not None and case.in_scope and best.edit.id in case.own)
    return Claims(np.array(scores), np.array(right, bool), sum(case.in_scope for case in cases))


def curve(positive: Claims, negative: Claims) -> tuple[np.ndarray, np.ndarray]:
    """False and true overrides as the threshold falls.

    Args:
        positive: queries in scope.
        negative: queries out of scope.

    Returns:
        Of the negative queries the share that an edit claims, and of the positive ones the share that the right edit
        claims, at every threshold at which either changes.
    """
    thresholds = np.unique(np.concatenate([positive.scores, negative.scores]))[::-1]
    right = np.sort(positive.scores[positive.right])
    false = len(negative.scores) - np.searchsorted(np.sort(negative.scores), thresholds, side="left")
    true = len(right) - np.searchsorted(right, thresholds, side="left")
    return false / max(1, len(negative.scores)), true / max(1, positive.in_scope)


def judged_scores(judged: Iterable[tuple[Suite, Mapping[str, Route]]]) -> tuple[np.ndarray, np.ndarray]:
    """The score of each query's best candidate, where one was judged, and whether it is an edit of its own in scope.

    Over the categories that the suites count as judged.
    """
    scores, right = [], []
    for suite, routes in judged:
        for case in suite.cases:
            candidates = routes[case.query].candidates
            if candidates and candidates[0].score is not None and not suite.judged.isdisjoint(case.categories):
                scores.append(candidates[0].score)
                right.append(case.in_scope and candidates[0].edit.id in case.own)
    return np.array(scores), np.array(right, bool)

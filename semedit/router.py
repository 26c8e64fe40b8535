"""Routing: which edits, if any, answer a query."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Literal, TypeVar

from semedit.edits import Candidate, Edit, Route
from semedit.errors import CalibrationError, CalibrationWarning, InvalidQueryError
from semedit.memory.checks import check_search
from semedit.memory.edit_memory import EditMemory
from semedit.prompts import Prompt
from semedit.scope.base import Pair, ScopeClassifier
from semedit.scope.calibration import GROWTH, Calibration, choose_threshold, setting_of
from semedit.scope.judge import judge

CANDIDATES = 8
MOST_EDITS = 4
# claims whose log-odds differ by less are about alike
MARGIN = 1.0
_QUERIES_AT_ONCE = 256

Ambiguous = Literal["base", "best", "all"]
T = TypeVar("T")


class Router:
    """Decides for each query: similarity finds candidates, the scope classifier judges them, negatives veto.

    Where edits with different targets are in scope, the newest of those that state the best one's fact answers, by the
    classifier's judgement of their prompts. Of different facts the higher score answers, or, where the scores are
    about alike, the query is ambiguous.

    Args:
        memory: the edits.
        scope: the classifier.
        ambiguous: who answers an ambiguous query: `"base"`, the model; `"best"`, the edit with the best score;
            `"all"`, the edits together.
    """

    def __init__(self, memory: EditMemory, scope: ScopeClassifier, ambiguous: Ambiguous = "base") -> None:
        self.memory = memory
        self.scope = scope
        self.ambiguous = ambiguous
        self._warned = False

    def calibration(self, namespaces: Sequence[str] | None = None) -> Calibration | None:
        """The strictest calibration that the memory keeps for these namespaces, whichever process made it, or None.

        Each is of one classifier and one encoder.
        """
        names = [self._setting(name) for name in (("default",) if namespaces is None else namespaces)]
        kept = [Calibration.from_json(text) for name in names if (text := self.memory.setting(name)) is not None]
        return max(kept, key=lambda one: one.threshold, default=None)

    def threshold(self, namespaces: Sequence[str] | None = None) -> float:
        """The score from which on an edit is in scope: the classifier's, or the calibration's where that is above."""
        return self._threshold(self.calibration(namespaces))

    def reads(self, prompt: Prompt) -> str:
        """What of a prompt is routed: its query."""
        return prompt.query

    def route(self, queries: Sequence[str], namespaces: Sequence[str] | None = None) -> list[Route]:
        """One route for each query; all candidates are judged in one call of the classifier.

        A second call judges whether edits state the same fact, where edits with different targets are in scope.

        Args:
            queries: what is asked.
            namespaces: the namespaces to look in; None looks in `"default"` alone.

        Warns:
            CalibrationWarning: the memory has outgrown its calibration; once for each router.
        """
        judged = self._judged(queries, namespaces)
        calibration = self.calibration(namespaces)
        if calibration is not None:
            self._warn_where_outgrown(calibration)
        return self._decide(queries, judged, self._threshold(calibration))

    def calibrate(
        self,
        traffic: Iterable[str],
        *,
        positives: Iterable[tuple[str, str]] = (),
        target: float = 0.001,
        namespaces: Sequence[str] | None = None,
    ) -> Calibration:
        """Chooses the threshold for a rate of false overrides and keeps it with the memory.

        Every router over this memory with this classifier uses it from its next call on, wherever it looks into one of
        these namespaces. Calibrating only ever
        tightens: the threshold is never below the classifier's own, which was chosen on near misses, and near misses
        are rare in traffic. A query counts as overridden where an edit reaches the threshold, whether or not the
        query is then ambiguous.

        Args:
            traffic: queries that no edit should answer, such as those of a day.
            positives: the prompt or the id of an active edit, and a query that it should answer.
            target: false overrides per query.
            namespaces: where to look for edits; None looks in `"default"` alone.

        Raises:
            CalibrationError: there is no traffic or no edit, the target is not between 0 and 1, or a positive names no
                active edit.
            InvalidQueryError: a query is no text, or `traffic` or `namespaces` is no list.
        """
        if not 0 < target < 1:
            raise CalibrationError(f"the target must be above 0 and below 1, such as 0.001, not {target}")
        check_search((), namespaces)
        if isinstance(traffic, str):
            raise InvalidQueryError(f"traffic must be a list of queries, not {traffic!r}")
        names = ("default",) if namespaces is None else namespaces
        edits = [edit for name in dict.fromkeys(names) for edit in self.memory.list(namespace=name)]
        if not edits:
            raise CalibrationError(
                f"there is no active edit in {', '.join(names)}; add edits first, for they are what is calibrated"
            )
        ids_of = _ids_by_name(edits)
        wanted = list(positives)
        for name, _ in wanted:
            if name not in ids_of:
                raise CalibrationError(f"no active edit has the prompt or the id {name!r}; `edits.list()` shows them")
        claims = [
            max((candidate.claim for candidate in candidates), default=0.0)
            for batch in _batches(traffic)
            for candidates in self._judged(batch, namespaces)
        ]
        if not claims:
            raise CalibrationError("there is no traffic; give queries that no edit should answer, the more the better")
        threshold = choose_threshold(claims, target, self.scope.threshold)
        kept = 0
        for batch in _batches(wanted):
            queries = [query for _, query in batch]
            routes = self._decide(queries, self._judged(queries, namespaces), threshold)
            for (name, _), route in zip(batch, routes, strict=True):
                kept += any(edit.id in ids_of[name] for edit in route.edits)
        calibration = Calibration(
            threshold=threshold,
            target=target,
            edits=len(edits),
            classifier=self.scope.fingerprint,
            namespaces=tuple(dict.fromkeys(names)),
            queries=len(claims),
            overridden=sum(claim >= threshold for claim in claims),
            positives=len(wanted),
            kept=kept,
            time=datetime.now(timezone.utc),
        )
        self.memory.set_settings({self._setting(name): calibration.to_json() for name in calibration.namespaces})
        return calibration

    def _judged(self, queries: Sequence[str], namespaces: Sequence[str] | None) -> list[list[Candidate]]:
        return judge(self.scope, queries, self.memory.nearest(queries, k=CANDIDATES, namespaces=namespaces))

    def _threshold(self, calibration: Calibration | None) -> float:
        return self.scope.threshold if calibration is None else max(self.scope.threshold, calibration.threshold)

    def _setting(self, namespace: str) -> str:
        return setting_of(self.scope.fingerprint, self.memory.encoder.fingerprint, namespace)

    def _warn_where_outgrown(self, calibration: Calibration) -> None:
        edits = self.memory.count(calibration.namespaces)
        if not self._warned and not calibration.holds(edits):
            self._warned = True
            warnings.warn(
                f"the threshold was calibrated with {calibration.edits:,} edits and holds for up to "
                f"{GROWTH * calibration.edits:,}; there are {edits:,} now, so calibrate anew: semedit calibrate "
                f"--memory {self.memory.store.location} --traffic FILE --target {calibration.target:g}"
                + "".join(f" --namespace {name}" for name in calibration.namespaces if name != "default"),
                CalibrationWarning,
                stacklevel=3,
            )

    def _decide(self, queries: Sequence[str], judged: Sequence[Sequence[Candidate]], threshold: float) -> list[Route]:
        """One route for each query, given its candidates, best first."""
        passed = [[c for c in candidates if c.in_scope(threshold)] for candidates in judged]
        # where all have one target they would answer alike, and there is nothing to decide
        others = [row[1:] if any(not c.edit.same_target(row[0].edit) for c in row) else [] for row in passed]
        contests = [(row[0], other) for row, rest in zip(passed, others, strict=True) for other in rest]
        same_fact = iter(self._same_fact(contests))
        routes = []
        for query, candidates, row, rest in zip(queries, judged, passed, others, strict=True):
            contested = [(other, next(same_fact)) for other in rest]
            routes.append(self._route(query, candidates, row[0] if row else None, contested, threshold))
        return routes

    def _same_fact(self, contests: Sequence[tuple[Candidate, Candidate]]) -> list[bool]:
        """Of each two edits, whether one's prompt is in the scope of the other's.

        By the classifier's own threshold: a calibration weighs traffic, and says nothing of two edits.
        """
        if not contests:
            return []
        prompts = [(one.edit.prompt, other.edit.prompt) for one, other in contests]
        similarities = self.memory.similarities(prompts).tolist()
        pairs = [
            pair
            for (one, other), cosine in zip(prompts, similarities, strict=True)
            for pair in (Pair(one, other, cosine), Pair(other, one, cosine))
        ]
        scores = self.scope.score(pairs)
        return [max(both) >= self.scope.threshold for both in zip(scores[::2], scores[1::2], strict=True)]

    def _route(
        self,
        query: str,
        candidates: Sequence[Candidate],
        best: Candidate | None,
        others: Sequence[tuple[Candidate, bool]],
        threshold: float,
    ) -> Route:
        """The route of a query.

        Args:
            query: what is asked.
            candidates: all, best first.
            best: of those in scope.
            others: the others in scope, if they answer differently, and whether each states the best one's fact.
            threshold: the score from which on an edit is in scope.
        """
        chosen: list[Candidate] = []
        reason = _why_not(candidates, threshold, self.scope.floor)
        alike: list[Candidate] = []
        if best is not None:
            winner = max([best, *(c for c, same in others if same)], key=lambda c: c.edit.revision)
            rivals = [c for c, same in others if not same and not c.edit.same_target(best.edit)]
            alike = [c for c in rivals if _log_odds(best.claim) - _log_odds(c.claim) < MARGIN]
            chosen = [winner]
            reason = f"in scope: {winner.claim:.2f} reaches the threshold {threshold:.2f} on {winner.key!r}"
            if winner is not best:
                reason += f", and is newer than edit {best.edit.id}, which states the same fact"
            if alike:
                reason = _why_ambiguous(winner, alike[0], self.ambiguous)
                if self.ambiguous == "base":
                    chosen = []
                elif self.ambiguous == "all":
                    # the best edit says how the row is answered, and edits to be answered otherwise stay out
                    chosen += [c for c in alike if c.edit.override == winner.edit.override]
                    chosen = chosen[:MOST_EDITS]
        rest = [c for c in candidates if c not in chosen]
        first = chosen[0] if chosen else next(iter(candidates), None)
        return Route(
            query=query,
            edits=tuple(c.edit for c in chosen),
            score=first.score if first else None,
            threshold=threshold,
            runner_up=rest[0] if rest else None,
            reason=reason,
            candidates=tuple(candidates),
            ambiguous=bool(alike),
        )


def _why_not(candidates: Sequence[Candidate], threshold: float, floor: float) -> str:
    """Why none of the candidates, best first, answers."""
    if not candidates:
        return "no edit to consider: the base model answers"
    best = candidates[0]
    if best.score is None:
        return (
            f"the nearest edit is too far to judge (similarity {best.similarity:.2f}, "
            f"floor {floor:.2f}): the base model answers"
        )
    if best.vetoed_by and best.score >= threshold:
        return f"vetoed: the query is at least as near to the negative {best.vetoed_by!r}: the base model answers"
    return f"out of scope: {best.score:.2f} is below the threshold {threshold:.2f}: the base model answers"


def _why_ambiguous(one: Candidate, other: Candidate, ambiguous: Ambiguous) -> str:
    answers = {
        "base": 'the base model answers; tell them apart with add_negative, or wrap with ambiguous="best"',
        "best": "the best score answers; tell them apart with add_negative",
        "all": "all of them answer; tell them apart with add_negative",
    }
    return (
        f"ambiguous: edits {one.edit.id} ({one.edit.prompt!r}, {one.claim:.2f}) and {other.edit.id} "
        f"({other.edit.prompt!r}, {other.claim:.2f}) claim it about alike: {answers[ambiguous]}"
    )


def _log_odds(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))


def _ids_by_name(edits: Sequence[Edit]) -> dict[str, set[str]]:
    """The ids of the edits that go by an id or a prompt; in several namespaces one prompt may have several."""
    ids: dict[str, set[str]] = {}
    for edit in edits:
        for name in (edit.id, edit.prompt):
            ids.setdefault(name, set()).add(edit.id)
    return ids


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _QUERIES_AT_ONCE)):
        yield batch

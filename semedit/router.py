"""Routing: which edits, if any, answer a query."""

from __future__ import annotations

import heapq
import math
import shlex
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
CLOSEST = 5
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
        self._warned: set[frozenset[str]] = set()

    def calibration(self, namespaces: Sequence[str] | None = None) -> Calibration | None:
        """The strictest calibration that the memory keeps for one of these namespaces, or None.

        Whichever process made it; each is of one classifier and one encoder.
        """
        return _strictest(self._calibrations(_names(namespaces)))

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
            CalibrationWarning: the memory has outgrown its calibration, or none was made in all of these namespaces
                together; once for each set of namespaces.
        """
        judged = self._judged(queries, namespaces)
        calibrations = self._calibrations(_names(namespaces))
        self._warn_where_they_do_not_hold(calibrations, _names(namespaces))
        return self._decide(queries, judged, self._threshold(_strictest(calibrations)))

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
        these namespaces; what was measured holds where it looks into no others. Calibrating only ever tightens: the
        threshold is never below the classifier's own, which was chosen on near misses, and near misses are rare in
        traffic. A query counts as overridden where an edit reaches the threshold, whether or not the query is then
        ambiguous.

        Args:
            traffic: queries that no edit should answer; take out those that one should, of which the calibration's
                `closest` shows the likeliest.
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
        names = _names(namespaces)
        edits = [edit for name in names for edit in self.memory.list(namespace=name)]
        if not edits:
            raise CalibrationError(
                f"there is no active edit in {', '.join(names)}; add edits first, for they are what is calibrated"
            )
        ids_of = _ids_by_name(edits)
        wanted = list(positives)
        for name, _ in wanted:
            if name not in ids_of:
                raise CalibrationError(f"no active edit has the prompt or the id {name!r}; `edits.list()` shows them")
        claims, closest = self._claims(traffic, namespaces)
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
            namespaces=names,
            queries=len(claims),
            overridden=sum(claim >= threshold for claim in claims),
            positives=len(wanted),
            kept=kept,
            time=datetime.now(timezone.utc),
            closest=closest,
        )
        self.memory.set_settings({self._setting(name): calibration.to_json() for name in calibration.namespaces})
        return calibration

    def _judged(self, queries: Sequence[str], namespaces: Sequence[str] | None) -> list[list[Candidate]]:
        return judge(self.scope, queries, self.memory.nearest(queries, k=CANDIDATES, namespaces=namespaces))

    def _claims(
        self, traffic: Iterable[str], namespaces: Sequence[str] | None
    ) -> tuple[list[float], tuple[tuple[str, str, float], ...]]:
        """The highest claim on each query, and as `Calibration.closest` has them the queries that are claimed most."""
        claims = []
        claimed = {}
        for batch in _batches(traffic):
            for query, candidates in zip(batch, self._judged(batch, namespaces), strict=True):
                best = max(candidates, key=lambda candidate: candidate.claim, default=None)
                claims.append(best.claim if best else 0.0)
                if best and best.claim >= self.scope.threshold:
                    claimed[query] = (query, best.key, best.claim)
        return claims, tuple(heapq.nlargest(CLOSEST, claimed.values(), key=lambda row: row[2]))

    def _threshold(self, calibration: Calibration | None) -> float:
        return self.scope.threshold if calibration is None else max(self.scope.threshold, calibration.threshold)

    def _setting(self, namespace: str) -> str:
        return setting_of(self.scope.fingerprint, self.memory.encoder.fingerprint, namespace)

    def _calibrations(self, names: Sequence[str]) -> list[Calibration]:
        """The calibration that is kept for each of these namespaces, where there is one."""
        kept = (self.memory.setting(self._setting(name)) for name in names)
        return [Calibration.from_json(text) for text in kept if text is not None]

    def _warn_where_they_do_not_hold(self, calibrations: Sequence[Calibration], names: tuple[str, ...]) -> None:
        """Warns where none of the calibrations is of all the namespaces, and where the one that is was outgrown."""
        if not calibrations:
            return
        asked = frozenset(name for name in names if self.memory.count([name]))  # one without edits adds nothing
        if asked in self._warned:
            return
        covering = next((one for one in calibrations if asked <= set(one.namespaces)), None)
        if covering is None:
            found = (
                f"no calibration is of {', '.join(names)} together, and what was calibrated apart does not add up: "
                "the strictest threshold is used, and more may be overridden than it aims at; calibrate them together"
            )
        else:
            edits, names = self.memory.count(covering.namespaces), covering.namespaces
            if covering.holds(edits):
                return
            found = (
                f"the threshold was calibrated with {covering.edits:,} edits; with up to {GROWTH * covering.edits:,} "
                f"at most twice as many false overrides are to be expected; there are {edits:,} now; calibrate anew"
            )
        self._warned.add(asked)
        target = min(one.target for one in calibrations)
        spaces = "" if names == ("default",) else "".join(f" --namespace {shlex.quote(name)}" for name in names)
        warnings.warn(
            f"{found}: semedit calibrate --memory {shlex.quote(self.memory.store.location)} --traffic FILE "
            f"--target {target:g}{spaces}",
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
        """Of each two edits, whether their prompts are in each other's scope, by the mean of both log-odds.

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
        log_odds = [_log_odds(score) for score in self.scope.score(pairs)]
        least = _log_odds(self.scope.threshold)
        return [(one + other) / 2 >= least for one, other in zip(log_odds[::2], log_odds[1::2], strict=True)]

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


def _names(namespaces: Sequence[str] | None) -> tuple[str, ...]:
    """The namespaces to look in, none of them twice."""
    return ("default",) if namespaces is None else tuple(dict.fromkeys(namespaces))


def _strictest(calibrations: Sequence[Calibration]) -> Calibration | None:
    return max(calibrations, key=lambda one: one.threshold, default=None)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _QUERIES_AT_ONCE)):
        yield batch

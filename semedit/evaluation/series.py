"""What the plots show, as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semedit.evaluation.results import Asked, Checkpoint, Evaluation, Row

Floats = npt.NDArray[np.float64]

KINDS = ("reliability", "generality", "portability", "unrelated", "same_subject", "same_relation", "behaviour")
MUST_NOT_CHANGE = ("unrelated", "same_subject", "same_relation")
BINS = 40


@dataclass(frozen=True)
class Line:
    """A figure of one method over the number of edits.

    Attributes:
        method: whose.
        edits: at which checkpoints it was measured.
        values: one for each of them.
        low, high: the 95 % intervals around rates; empty for means.
    """

    method: str
    edits: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Routing:
    """What was asked at the last checkpoint, and how it was routed.

    Attributes:
        methods: those of which all this holds: overrides behind one router share every score.
        threshold: the score from which on an edit answers.
        asked: the probes.
    """

    methods: tuple[str, ...]
    threshold: float
    asked: tuple[Asked, ...]

    def kinds(self) -> list[str]:
        """The kinds of probes there are, in the order of display; those judged by likelihoods are not routed."""
        there = {asked.kind for asked in self.asked if asked.overridden is not None}
        return [kind for kind in KINDS if kind in there]

    def claims(self, kind: str) -> Floats:
        """The score with which the best edit claims each probe of a kind; minus infinity where none does."""
        return np.array([self._claim(asked) for asked in self.asked if asked.kind == kind], np.float64)

    def _claim(self, asked: Asked) -> float:
        # a score that is high enough and yet does not answer was vetoed by a negative, or is ambiguous
        if asked.score is None or (asked.score >= self.threshold and not asked.overridden):
            return -np.inf
        return asked.score


@dataclass(frozen=True)
class TradeOff:
    """True against false overrides as the threshold falls.

    Attributes:
        inside: the kind of probe that an edit should answer.
        count: how many probes no edit should answer.
        false: the shares of these that an edit answers, ascending from 0.
        true: for each, the largest share of the probes inside that can be answered at this price.
        chosen: the two shares, false and true, at the threshold in force.
    """

    inside: str
    count: int
    false: Floats
    true: Floats
    chosen: tuple[float, float]


def rate_lines(evaluation: Evaluation, metric: str) -> list[Line]:
    """A rate of each method that has it, with its intervals."""
    lines = []
    for row in evaluation.rows:
        rates = [(point.edits, point.rates[metric]) for point in row.checkpoints if metric in point.rates]
        points = [
            (edits, rate.value, rate.low, rate.high)
            for edits, rate in rates
            if rate.value is not None and rate.low is not None and rate.high is not None
        ]
        if points:
            lines.append(Line(row.method, *zip(*points, strict=True)))
    return lines


def mean_lines(evaluation: Evaluation, metric: str) -> list[Line]:
    """A mean of each method that has it."""
    lines = []
    for row in evaluation.rows:
        means = [(point.edits, point.means[metric].value) for point in row.checkpoints if metric in point.means]
        points = [(edits, value) for edits, value in means if value is not None]
        if points:
            lines.append(Line(row.method, *zip(*points, strict=True)))
    return lines


def routings(evaluation: Evaluation) -> list[Routing]:
    """The last checkpoint of each method that has a router; methods that route alike stand together."""
    found: dict[tuple[object, ...], Routing] = {}
    for row, last in _last_checkpoints(evaluation):
        if last.threshold is None:
            continue
        scores = tuple((a.kind, a.prompt, a.overridden, a.score and round(a.score, 6)) for a in last.asked)
        alike = found.get((last.threshold, scores), Routing((), last.threshold, last.asked))
        found[last.threshold, scores] = Routing((*alike.methods, row.method), alike.threshold, alike.asked)
    return list(found.values())


def trade_off(routing: Routing, outside: str) -> TradeOff | None:
    """True against false overrides; None where there are no probes of the kind, or none in scope.

    In scope are the probes of generality, or of reliability where a data set has no others: an edit's own prompt is
    found at any threshold, and would hide how many rephrases are not. Which edit answers does not count here.

    Args:
        routing: whose decisions.
        outside: the kind of probe that no edit should answer.
    """
    kinds = routing.kinds()
    inside = "generality" if "generality" in kinds else "reliability"
    if inside not in kinds or outside not in kinds:
        return None
    good, bad = routing.claims(inside), routing.claims(outside)
    thresholds = np.unique(np.concatenate([good, bad]))[::-1]
    thresholds = thresholds[np.isfinite(thresholds)]
    false = np.concatenate([[0.0], _share_from(bad, thresholds)])
    true = np.concatenate([[0.0], _share_from(good, thresholds)])
    last_of_each = np.append(np.diff(false) > 0, True)
    at = np.array([routing.threshold])
    chosen = float(_share_from(bad, at)[0]), float(_share_from(good, at)[0])
    return TradeOff(inside, len(bad), false[last_of_each], true[last_of_each], chosen)


def histogram(routing: Routing, kind: str) -> tuple[int, npt.NDArray[np.int64]]:
    """How many probes of a kind no edit claims, and of the others how many have a score in each bin.

    The bins, `BINS` of equal width, reach from 0 to 1. A codebook's score of a query far from every key is below 0;
    it is counted in the first.
    """
    scores = [asked.score for asked in routing.asked if asked.kind == kind]
    given = [score for score in scores if score is not None]
    counts, _ = np.histogram(np.clip(given, 0, 1), bins=BINS, range=(0, 1))
    return len(scores) - len(given), counts


def _share_from(claims: Floats, thresholds: Floats) -> Floats:
    """The share of the claims that reach each of the thresholds."""
    below = np.searchsorted(np.sort(claims), thresholds, side="left")
    return np.asarray(1 - below / len(claims), np.float64)


def _last_checkpoints(evaluation: Evaluation) -> Iterator[tuple[Row, Checkpoint]]:
    return ((row, row.checkpoints[-1]) for row in evaluation.rows if row.checkpoints)

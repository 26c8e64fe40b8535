"""Calibration: the threshold for a rate of false overrides that the operator chooses, and what it promises."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from fractions import Fraction

# A false override is a claim of one of N edits, so its rate grows at most in proportion to N: up to this many times
# the edits it is at most this many times as frequent.
GROWTH = 2
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Calibration:
    """A threshold chosen on traffic that no edit should answer, and what was measured at it.

    Attributes:
        threshold: the score from which on an edit is in scope.
        target: the false overrides per query that were asked for.
        edits: how many active edits there were.
        classifier: the fingerprint of the scope classifier.
        namespaces: where edits were looked for.
        queries: how many queries of traffic were judged.
        overridden: on how many of them an edit reaches the threshold.
        positives: how many queries were given that an edit should answer.
        kept: how many of them are routed to that edit at the threshold.
        time: when it was measured, in UTC.
        closest: the queries of traffic that edits claim most, from the classifier's own threshold on, best first, each
            with the key that it is nearest to and the claim; a query that an edit should answer does not belong into
            traffic. Only where it was measured just now, since queries are not kept with the memory.
    """

    threshold: float
    target: float
    edits: int
    classifier: str
    namespaces: tuple[str, ...]
    queries: int
    overridden: int
    positives: int
    kept: int
    time: datetime
    closest: tuple[tuple[str, str, float], ...] = field(default=(), compare=False)

    @property
    def overridden_bounds(self) -> tuple[float, float]:
        """The 95 % interval of the rate of false overrides with these edits.

        It is exact, for the threshold is an order statistic.
        """
        return clopper_pearson(self.overridden, self.queries)

    @property
    def kept_bounds(self) -> tuple[float, float]:
        """The 95 % interval of the share of positives that is kept; from 0 to 1 where there are none."""
        return clopper_pearson(self.kept, self.positives)

    @property
    def queries_needed(self) -> int:
        """The fewest queries of which, with none overridden, the interval's upper bound is within the target."""
        # the upper bound of 0 of n is 1 - tail ** (1 / n)
        return math.ceil(math.log((1 - _CONFIDENCE) / 2) / math.log1p(-self.target))

    def holds(self, edits: int) -> bool:
        """Whether it says something of a memory of so many edits.

        With up to twice as many as it was made with, at most twice as many false overrides are to be expected.
        """
        return edits <= GROWTH * self.edits

    def to_json(self) -> str:
        """As a JSON object, without what `closest` has of the traffic."""
        fields = asdict(self)
        del fields["closest"]
        return json.dumps(fields, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The calibration whose `to_json` is `text`; it has no `closest`."""
        fields = json.loads(text)
        fields |= {"time": datetime.fromisoformat(fields["time"]), "namespaces": tuple(fields["namespaces"])}
        return cls(**fields)


def setting_of(classifier: str, encoder: str, namespace: str) -> str:
    """The name under which a memory keeps the calibration of a namespace, by the fingerprints of what decides."""
    return f"calibration:{classifier}:{encoder}:{namespace}"


def choose_threshold(claims: Sequence[float], target: float, least: float) -> float:
    """The lowest threshold, from `least` on, that at most the share `target` of the claims reaches.

    Args:
        claims: for each query of traffic, the highest score with which an edit claims it; at least one.
        target: above 0 and below 1.
        least: the classifier's own threshold.
    """
    may_fire = math.floor(Fraction(str(target)) * len(claims))  # as written: 0.29 * 100 is a little less than 29
    first_out = sorted(claims, reverse=True)[may_fire]
    return max(least, math.nextafter(first_out, math.inf))


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a rate of which `hits` of `trials` were seen."""
    from scipy.stats import beta  # takes a second, and routing by a calibration does not need it

    tail = (1 - _CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high

"""What is evaluated: edits, and the questions that show what they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semedit.edits import Edit

Kind = Literal["reliability", "generality", "unrelated", "same_subject", "same_relation", "portability", "behaviour"]


@dataclass(frozen=True)
class Criterion:
    """When a probe that is judged by likelihoods, not by generation, succeeds.

    Attributes:
        measure: `"nll"`, the answer's negative log likelihood; `"log_odds"`, the absolute difference of the log
            likelihoods of answer and alternative; `"margin"`, the answer's log likelihood less the alternative's.
        bound: in nats; an nll or log-odds must not be above it, a margin must be above it.
    """

    measure: Literal["nll", "log_odds", "margin"]
    bound: float


@dataclass(frozen=True)
class Probe:
    """One question that is asked of the model, and what it shows.

    Attributes:
        kind: `"reliability"`, the edit's own prompt; `"generality"`, the same asked otherwise; `"unrelated"`,
            `"same_subject"` and `"same_relation"`, questions whose answer the edit must not change; `"portability"`,
            a question whose answer follows from the edit; `"behaviour"`, one that is judged by likelihoods.
        prompt: what is asked.
        answers: each of them is right. For the kinds that must not change it is what the data set holds true, and
            the unedited model's own answer is what counts.
        alternatives: what was right before the edit, or what the answer is weighed against.
        detail: which kind of portability or behaviour: `"one-hop"`, `"alias"`, `"hard negative"`, ...
        criterion: how a `"behaviour"` is judged; None elsewhere, and for a behaviour that the edits must not change.
        running: whether a behaviour's answers go on with the prompt as one text, and do not answer it.
    """

    kind: Kind
    prompt: str
    answers: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    detail: str = ""
    criterion: Criterion | None = None
    running: bool = False


@dataclass(frozen=True)
class Example:
    """Edits that are made together, and the probes of what they did.

    The reliability probe of each edit is among the probes.

    Attributes:
        id: names the example in its data set.
        edits: what is edited; several where a question needs several facts (MQuAKE), none where a behaviour cannot be
            said as prompt and target.
        probes: what is asked.
        subject: what the edit is about, where the data set says so.
        relation: which property of the subject is edited, where the data set says so.
    """

    id: str
    edits: tuple[Edit, ...]
    probes: tuple[Probe, ...]
    subject: str | None = None
    relation: str | None = None

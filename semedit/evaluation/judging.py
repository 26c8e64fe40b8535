"""Judges answers: against what is expected, and against what the unedited model says."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from semedit.evaluation import metrics
from semedit.evaluation.examples import Probe
from semedit.evaluation.metrics import UNCHANGING, Mean, Rate
from semedit.evaluation.plan import Question
from semedit.evaluation.results import Asked
from semedit.evaluation.subjects import Answer, LogLikelihood, Subject

# how much the general text's loss may grow, as a share, for a behaviour's success to count
BOUNDED_LOSS = 1e-3
_AT_ONCE = 256

Likelihoods = tuple[list[LogLikelihood], list[LogLikelihood]]  # of a behaviour's answers, and of its alternatives


class Said:
    """What a model says to the questions of a checkpoint.

    All are asked at once, in the same batches of whatever is compared: in another batch a model's greedy answer can
    differ by rounding.

    Args:
        subject: the model.
        questions: what is asked.
        stop: as for `answers_to`.

    Attributes:
        subject: as above.
        answers: to each probe that is generated.
        likelihoods: of the answers to each behaviour, and of what they are weighed against; empty where the model
            knows none.
        seconds_per_answer: how long one took.
    """

    def __init__(self, subject: Subject, questions: Sequence[Question], stop: str | None) -> None:
        self.subject = subject
        probes = [probe for _, probe in questions if is_generated(probe)]
        start = time.perf_counter()
        answers = answers_to(subject, probes, stop)
        self.seconds_per_answer = (time.perf_counter() - start) / max(len(probes), 1)
        self.answers = dict(zip(probes, answers, strict=True))
        self.likelihoods = _likelihoods([probe for _, probe in questions if not is_generated(probe)], subject)


def answers_to(subject: Subject, probes: Sequence[Probe], stop: str | None) -> list[Answer]:
    """The answer to each probe, up to where `stop` first stands in it: an end that the data set defines."""
    answers = subject.answer([probe.prompt for probe in probes]) if probes else []
    if stop is None:
        return answers
    return [replace(answer, text=answer.text.split(stop, 1)[0].strip()) for answer in answers]


def is_generated(probe: Probe) -> bool:
    """Whether a probe is answered, and not judged by likelihoods."""
    return probe.kind != "behaviour"


def _likelihoods(probes: Sequence[Probe], subject: Subject) -> dict[Probe, Likelihoods]:
    """Of each probe's answers and alternatives; nothing where what is evaluated knows none."""
    found = {}
    for probe in tqdm(probes, desc="likelihoods", leave=False, disable=len(probes) < _AT_ONCE):
        texts = [*probe.answers, *probe.alternatives]
        each = subject.log_likelihood([probe.prompt] * len(texts), texts, running=probe.running)
        if each is None:
            return {}
        found[probe] = (each[: len(probe.answers)], each[len(probe.answers) :])
    return found


def judge(questions: Sequence[Question], said: Said, unedited: Said) -> list[Asked]:
    """Each question with its answer, whether it is right, and who answered.

    Behaviours of what knows no likelihoods are left out.
    """
    asked = []
    for example, probe in questions:
        if is_generated(probe):
            asked.append(_asked(example, probe, said.answers[probe], unedited.answers[probe]))
        elif probe in said.likelihoods:
            met = _meets(probe, said.likelihoods[probe], unedited.likelihoods[probe])
            asked.append(_behaviour(example, probe, met))
    return asked


def scores(questions: Sequence[Question], said: Said, unedited: Said) -> tuple[dict[str, Rate], dict[str, Mean]]:
    """What does not follow from each question alone: ROME's comparisons, teacher-forced accuracy, losses, fluency."""
    probes, subject = [probe for _, probe in questions], said.subject
    rates = _compared(probes, subject)
    means = _rome_score(rates)
    for kind in ("reliability", "generality"):
        some = [probe for probe in probes if probe.kind == kind and probe.answers]
        shares = subject.token_accuracy([p.prompt for p in some], [p.answers[0] for p in some]) if some else None
        if shares:
            means[f"teacher_forced_{kind}"] = Mean(math.fsum(shares), len(shares))
    texts = [said.answers[probe].text for probe in probes if probe.kind == "reliability"]
    if texts:
        means["fluency"] = metrics.fluency(texts)
    judged = [probe for probe in probes if probe in said.likelihoods]
    bounded, losses = _behaviours(judged, said.likelihoods, unedited.likelihoods)
    return rates | bounded, means | losses


def _compared(probes: Sequence[Probe], subject: Subject) -> dict[str, Rate]:
    """ROME's scores: the new answer against the one before it, by their mean log likelihoods."""
    rates = {}
    for name, kind, count in (
        ("efficacy", "reliability", metrics.efficacy),
        ("paraphrase", "generality", metrics.paraphrase),
        ("neighbourhood", "same_relation", metrics.neighbourhood),
    ):
        # a detail says that a probe is of another sort: after a distracting sentence, yes or no, a choice
        of_kind = [probe for probe in probes if probe.kind == kind and not probe.detail]
        some = [probe for probe in of_kind if probe.answers and probe.alternatives]
        prompts = [probe.prompt for probe in some]
        right = subject.log_likelihood(prompts, [probe.answers[0] for probe in some]) if some else None
        other = subject.log_likelihood(prompts, [probe.alternatives[0] for probe in some]) if some else None
        if right and other:
            new, true = [one.mean for one in right], [one.mean for one in other]
            # beside an edit's neighbours its target is the alternative
            rates[name] = count(true, new) if kind == "same_relation" else count(new, true)
    return rates


def _rome_score(rates: Mapping[str, Rate]) -> dict[str, Mean]:
    """ROME's S, where all three of its scores are there."""
    three = [rates[name] for name in ("efficacy", "paraphrase", "neighbourhood") if name in rates]
    score = metrics.rome_score(*three) if len(three) == 3 else None
    return {} if score is None else {"rome_score": Mean(score, 1)}


def _behaviours(
    probes: Sequence[Probe], said: Mapping[Probe, Likelihoods], unedited: Mapping[Probe, Likelihoods]
) -> tuple[dict[str, Rate], dict[str, Mean]]:
    """The loss on each kind of text that must not change, success where that is bounded, and ConvSent's."""
    losses: dict[str, Mean] = {}
    details = dict.fromkeys(probe.detail for probe in probes if probe.criterion is None)
    bounded = bool(details)
    for detail in details:
        some = [probe for probe in probes if probe.criterion is None and probe.detail == detail]
        loss, before = (_loss([of[probe][0][0] for probe in some]) for of in (said, unedited))
        if math.isfinite(loss.total):  # word for word, nothing but a target is possible
            losses[f"behaviour: loss of {detail}"] = loss
        if detail == "text":
            bounded = metrics.bounded_success(Rate(0, 1), _value(loss), _value(before), BOUNDED_LOSS) is not None
    rates = {}
    for detail in dict.fromkeys(probe.detail for probe in probes if probe.criterion is not None and probe.running):
        some = [probe for probe in probes if probe.criterion is not None and probe.detail == detail]
        hits = sum(_meets(probe, said[probe], unedited[probe]) for probe in some)
        if bounded:
            rates[f"behaviour: {detail}, text's loss up by at most {BOUNDED_LOSS:.1%}"] = Rate(hits, len(some))
    spoken = [probe for probe in probes if probe.criterion is not None and not probe.running]
    if spoken:
        losses["behaviour: ConvSent's edit success"] = metrics.conversational_success(
            [_mean(said[probe][0]) for probe in spoken],
            [_mean(said[probe][1]) for probe in spoken],
            [_mean(unedited[probe][0]) for probe in spoken],
        )
    return rates, losses


def _meets(probe: Probe, said: Likelihoods, unedited: Likelihoods) -> bool:
    """Whether a behaviour meets its criterion, or, where it has none, is as likely as it was."""
    answers, alternatives = said
    if probe.criterion is None:
        return math.isclose(answers[0].total, unedited[0][0].total, rel_tol=1e-6)
    if probe.running:
        against = alternatives[0].total if alternatives else None
        return metrics.succeeds(probe.criterion, answers[0].total, against)
    return metrics.succeeds(probe.criterion, _mean(answers), _mean(alternatives))


def _asked(example: str, probe: Probe, answer: Answer, unedited: Answer) -> Asked:
    unchanging = probe.kind in UNCHANGING
    expected = (unedited.text,) if unchanging else probe.answers
    route = answer.route
    return Asked(
        example=example,
        kind=probe.kind,
        detail=probe.detail,
        prompt=probe.prompt,
        expected=expected,
        got=answer.text,
        right=answer.same_as(unedited) if unchanging else metrics.exact_match(answer.text, *expected),
        contains=metrics.contains_match(answer.text, *expected),
        overridden=None if route is None else route.in_scope,
        edits=() if route is None else tuple(edit.id for edit in route.edits),
        score=None if route is None else route.score,
        reason="" if route is None else route.reason,
    )


def _behaviour(example: str, probe: Probe, met: bool) -> Asked:
    return Asked(example, probe.kind, probe.detail, probe.prompt, probe.answers, "", met, met, None, (), None, "")


def _mean(likelihoods: Sequence[LogLikelihood]) -> float:
    """The mean over texts of their mean for each token, as SERAC weighs utterances."""
    return math.fsum(one.mean for one in likelihoods) / len(likelihoods)


def _loss(likelihoods: Sequence[LogLikelihood]) -> Mean:
    """In nats for each token."""
    return Mean(-math.fsum(one.total for one in likelihoods), sum(one.tokens for one in likelihoods))


def _value(mean: Mean) -> float:
    return mean.total / mean.of

"""Edits what is evaluated, asks, and counts."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from tqdm import tqdm

from semedit.edits import Edit
from semedit.errors import EvaluationError
from semedit.evaluation.examples import Example, Probe
from semedit.evaluation.judging import Said, answers_to, judge, scores
from semedit.evaluation.metrics import Mean, Rate, exact_match, rates
from semedit.evaluation.plan import Step, make_plan
from semedit.evaluation.progress import Progress
from semedit.evaluation.results import Checkpoint, Evaluation, Row
from semedit.evaluation.subjects import Answering, Edited, Subject
from semedit.model import EditedModel

Order = Literal["sequential", "batch"]
Evaluated = Subject | EditedModel | Callable[[Sequence[str]], Sequence[str]]


def evaluate(
    models: Evaluated | Mapping[str, Evaluated],
    examples: Sequence[Example],
    *,
    unedited: Evaluated | None = None,
    edits: Sequence[int] = (1, 10, 100, 1000),
    order: Order = "sequential",
    unrelated: Sequence[Probe] = (),
    sample: int | None = None,
    seed: int = 0,
    stop: str | None = None,
    dataset: str = "examples",
    model: str = "model",
    left_out: int = 0,
    setup: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """How well edits work in free generation, how far they reach and what they break, as they pile up.

    Everything is asked greedily, to a natural stop, of a model that never sees what is expected. At each checkpoint
    the questions concern all edits made so far.

    Args:
        models: what is evaluated, or several of them by name: a model that `wrap` gave, with a memory of its own, into
            which the edits go; any function from prompts to answers, edited by whatever means; or a `Subject`.
        examples: what is edited and asked, in this order.
        unedited: what answers without any edit; None takes the first model with its edits out of force, which a model
            that `wrap` gave can do.
        edits: the checkpoints, in numbers of edits.
        order: `"sequential"`, each example's edits by themselves, or `"batch"`, all up to a checkpoint at once.
        unrelated: questions asked at each checkpoint whose answers no edit must change.
        sample: at most so many questions of each kind at a checkpoint; None asks all.
        seed: of the sample.
        stop: where an answer ends that the model has not ended before, such as a line's end; None: at the model's own.
        dataset: what the examples are called in the report.
        model: what the base is called there.
        left_out: how many examples of the data set are not among these; it is reported.
        setup: what else the figures depend on, such as the scope classifier, for JSON; with another, nothing that is
            kept in `out` is taken.
        out: a folder for what is finished, from which an interrupted evaluation goes on; None keeps nothing.
        progress: whether to show a bar.

    Returns:
        A row for the unedited model and one for each of the models, with all questions and answers.

    Raises:
        EvaluationError: there is nothing to evaluate, a function comes without `unedited`, or `out` holds an
            evaluation of something else.
    """
    named = {name: _subject(one) for name, one in _by_name(models).items()}
    steps = make_plan(examples, edits, unrelated, sample, seed)
    reference, without_edits = _reference(unedited, models)
    settings = {"dataset": dataset, "model": model, "order": order, "sample": sample, "seed": seed, "stop": stop}
    kept = Progress(out, settings | {"setup": dict(setup or {}), "steps": _digest(steps)})
    total = (1 + len(named)) * sum(len(step.questions) for step in steps)
    with tqdm(total=total, disable=not progress, unit="question", desc="unedited") as bar:
        before: list[Said] = []
        with without_edits:
            for step in steps:
                before.append(Said(reference, step.questions, stop))
                bar.update(len(step.questions))
            rows = [_unedited(list(zip(steps, before, strict=True)), kept)]
        for name, subject in named.items():
            bar.set_description(name)
            try:
                rows.append(_row(name, subject, list(zip(steps, before, strict=True)), order, stop, kept, bar))
            finally:
                subject.restore()
    return Evaluation(dataset, model, order, seed, sample, left_out, tuple(rows))


def _unedited(steps: Sequence[tuple[Step, Said]], kept: Progress) -> Row:
    """The unedited model; where an earlier run finished it, as it was then, for its times belong to the methods'."""
    checkpoints = []
    for step, said in steps:
        done = kept.read("unedited", step.edits)
        checkpoint = _measured(step, said, said) if done is None else done[1]
        if done is None:
            kept.write("unedited", checkpoint, "")
        checkpoints.append(checkpoint)
    return Row("unedited", "", tuple(checkpoints))


def _row(
    name: str,
    subject: Subject,
    steps: Sequence[tuple[Step, Said]],
    order: Order,
    stop: str | None,
    kept: Progress,
    bar: tqdm[Any],
) -> Row:
    """One method, at all checkpoints; those that an earlier run finished are taken from it.

    Args:
        name: the method.
        subject: what is edited and asked.
        steps: each with what the unedited model says.
        order: of the edits.
        stop: where answers end.
        kept: what is finished.
        bar: moves on with each question.
    """
    found = [kept.read(name, step.edits) for step, _ in steps]
    note = ""
    checkpoints: list[Checkpoint] = []
    for i, (step, unedited) in enumerate(steps):
        done = found[i]
        if done is None:
            success, seconds = _edit(subject, step, order, stop, ask=True)
            before = checkpoints[-1] if checkpoints else None
            said = Said(subject, step.questions, stop)
            checkpoints.append(_checkpoint(step, said, unedited, success, seconds, before))
            note = subject.note
            kept.write(name, checkpoints[-1], note)
        else:
            if None in found[i:]:
                # what comes after needs the edits, and not the answers
                _edit(subject, step, order, stop)
            note, checkpoint = done
            checkpoints.append(checkpoint)
        bar.update(len(step.questions))
    return Row(name, note, tuple(checkpoints))


def _checkpoint(
    step: Step, said: Said, unedited: Said, success: Rate, seconds: float, before: Checkpoint | None
) -> Checkpoint:
    """What is known once the edits of a step were made, in so many seconds, and all was asked."""
    made = step.edits - (before.edits if before else 0)
    if before is not None:
        success = Rate(before.rates["edit_success"].hits + success.hits, before.rates["edit_success"].of + success.of)
    checkpoint = _measured(step, said, unedited)
    checkpoint.rates["edit_success"] = success
    size = said.subject.bytes()
    if size is not None:
        checkpoint.means["bytes_per_edit"] = Mean(size, step.edits)
    checkpoint.means["seconds_per_edit"] = Mean(seconds, made)
    if unedited.seconds_per_answer:
        checkpoint.means["overhead"] = Mean(said.seconds_per_answer / unedited.seconds_per_answer, 1)
    return checkpoint


def _measured(step: Step, said: Said, unedited: Said) -> Checkpoint:
    """What follows from what a model and the unedited one said."""
    asked = judge(step.questions, said, unedited)
    found, means = scores(step.questions, said, unedited)
    means["seconds_per_answer"] = Mean(said.seconds_per_answer * len(said.answers), len(said.answers))
    thresholds = [answer.route.threshold for answer in said.answers.values() if answer.route is not None]
    return Checkpoint(step.edits, rates(asked) | found, means, tuple(asked), next(iter(thresholds), None))


def _edit(subject: Subject, step: Step, order: Order, stop: str | None, *, ask: bool = False) -> tuple[Rate, float]:
    """Makes the edits of a step; says how many are right straight after (GRACE's ES), and the seconds it took."""
    groups = [[example] for example in step.examples] if order == "sequential" else [list(step.examples)]
    hits = of = 0
    seconds = 0.0
    for group in groups:
        edits: list[Edit] = [edit for example in group for edit in example.edits]
        start = time.perf_counter()
        if edits:
            subject.apply(edits)
        seconds += time.perf_counter() - start
        if ask:
            probes = [probe for example in group for probe in example.probes if probe.kind == "reliability"]
            answers = answers_to(subject, probes, stop)
            hits += sum(exact_match(a.text, *p.answers) for a, p in zip(answers, probes, strict=True))
            of += len(probes)
    return Rate(hits, of), seconds


def _reference(
    unedited: Evaluated | None, models: Evaluated | Mapping[str, Evaluated]
) -> tuple[Subject, AbstractContextManager[None]]:
    """What answers without any edit, and inside what it does so."""
    if unedited is not None:
        return _subject(unedited), nullcontext()
    model = next(iter(_by_name(models).values()), None)
    if not isinstance(model, EditedModel):
        raise EvaluationError(
            f"a {type(model).__name__} cannot put its edits out of force: pass `unedited`, what answers without them"
        )
    return _subject(model), model.edits.disabled()


def _digest(steps: Sequence[Step]) -> str:
    """What tells these edits and questions from others."""
    text = json.dumps([asdict(step) for step in steps], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _by_name(models: Evaluated | Mapping[str, Evaluated]) -> Mapping[str, Evaluated]:
    return models if isinstance(models, Mapping) else {"edited": models}


def _subject(model: Evaluated) -> Subject:
    if isinstance(model, EditedModel):
        return Edited(model)
    # whatever answers otherwise than by being called is a subject
    return cast("Subject", model) if hasattr(model, "answer") else Answering(model)

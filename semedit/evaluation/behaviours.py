"""Readers of the data sets whose answers are judged by likelihoods: ConvSent and the canonical examples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semedit.edits import Edit
from semedit.errors import DatasetError
from semedit.evaluation.examples import Criterion, Example, Probe
from semedit.evaluation.files import Record, read_json

_OPINIONS = ("What do you think of {}?", "How do you feel about {}?", "What is your opinion of {}?")
# what the published experiments call success, in nats: the whole answer has a probability of at least 0.2 or 0.05, the
# odds are at most 3 to 2, it is likelier than its counterpart, or 16 times likelier
_CRITERIA = {
    "country_capital": Criterion("nll", math.log(5)),
    "company_ceo": Criterion("nll", math.log(20)),
    "temporal": Criterion("nll", math.log(20)),
    "pronoun_gender_bias": Criterion("log_odds", math.log(1.5)),
    "stereoset": Criterion("margin", 0.0),
    "verb_conjugation": Criterion("margin", math.log(16)),
}
_PROMPT_WORDS = 8
# the field that says what a record of the tasks with edits is about
_ABOUT = {"country_capital": "country", "company_ceo": "company", "temporal": "entity_string"}
# what names a file's role, in this order: a hard negative's file may be called hard_neg_eval
_ROLES = {"unconditional": "text", "hard_neg": "hard negative", "eval": "evaluation", "": "canonical example"}


def convsent(records: Sequence[Record]) -> list[Example]:
    """ConvSent (Mitchell et al., 2022): one edit per entity, by turns to a positive and a negative sentiment.

    The target is an utterance of that sentiment. The behaviour is asked in three questions; the answers are the other
    utterances of that sentiment, the alternatives those of the opposite one, and the answers are to be likelier.
    """
    examples = []
    for number, record in enumerate(records, start=1):
        entity = record.text("ent")
        utterances = {name: record.texts(name) for name in ("pos", "neg")}
        for name, texts in utterances.items():
            if not texts:
                raise record.error(name, "a list of utterances")
        wanted, opposite = ("pos", "neg") if number % 2 else ("neg", "pos")
        target, *others = utterances[wanted]
        id, prompt = f"convsent-{number}", _OPINIONS[0].replace("{}", entity)
        behaviour = [
            Probe(
                "behaviour",
                question.replace("{}", entity),
                # an entity with one utterance has no other to ask for
                tuple(others) or (target,),
                utterances[opposite],
                "sentiment",
                Criterion("margin", 0.0),
            )
            for question in _OPINIONS
        ]
        probes = (Probe("reliability", prompt, (target,)), *behaviour)
        examples.append(Example(id, (Edit(id=id, prompt=prompt, target=target),), probes, entity))
    return examples


def canonical(folder: Path) -> list[Example]:
    """One task of Model Editing with Canonical Examples (Hewitt et al., 2024): a folder of its four files.

    The first example has no edits and holds what belongs to none: hard negatives and texts, which have no criterion
    since their likelihood is compared with the unedited model's, and evaluations of other subjects. Then comes an
    example for each canonical example, with the evaluations of its subject. Canonical examples that are no question
    with one right answer (pronouns, stereotypes, verbs) are behaviours of the first example.

    A text's prompt is its first words, at most eight of them and at most half: what comes first has no likelihood that
    every model defines, and a router decides on what comes first. StereoSet weighs
    the opposite of a stereotype against the stereotype, where the published experiments bound the latter's
    probability; its records whose completion does not belong to their beginning (12 of 1,053) are left out.

    Raises:
        DatasetError: the folder is not one of a task, or a record is malformed.
    """
    files = _files(folder)
    name = files["canonical example"].name
    task = next((task for task in _CRITERIA if name.startswith(task)), None)
    if task is None:
        raise DatasetError(f"{folder / name} belongs to no known task; known are {', '.join(_CRITERIA)}")
    records = {role: read_json(path) for role, path in files.items()}
    examples = [Example(task, (), ())]
    probes: list[list[Probe]] = [[]]  # of each example
    place: dict[str, int] = defaultdict(int)  # the example of each subject
    for number, record in enumerate(records["canonical example"], start=1):
        if task in _ABOUT:
            edit = Edit(id=f"{task}-{number}", prompt=record.text("prefix"), target=record.text("suffix"))
            subject = _subject(record, task)
            place.setdefault(subject, number)
            examples.append(Example(edit.id, (edit,), (), subject))
            probes.append([Probe("reliability", edit.prompt, (edit.target,))])
        else:
            probes[0] += _behaviour(record, task, "canonical example")
    for record in records["evaluation"]:
        probes[place[_subject(record, task)]] += _behaviour(record, task, task)
    for record in records["hard negative"]:
        probes[0].append(_running(record.text("prefix"), (record.text("suffix"),), (), "hard negative"))
    for record in records["text"]:
        # some of the files have GPT-2's mark of a beginning
        text = record.text("text").removeprefix("<|endoftext|>").strip()
        words = len(text.split())
        if words < 2:
            raise record.error("text", "a text of several words")
        rest = text.split(maxsplit=min(words // 2, _PROMPT_WORDS))[-1]
        probes[0].append(_running(text[: -len(rest)].rstrip(), (rest,), (), "text"))
    return [replace(example, probes=tuple(some)) for example, some in zip(examples, probes, strict=True)]


def _subject(record: Record, task: str) -> str:
    """What a record is about; empty in the tasks whose records have no subject."""
    if task not in _ABOUT:
        return ""
    # temporal names a page of Wikipedia
    return record.text(_ABOUT[task]).rpartition("/")[2].replace("_", " ")


def _files(folder: Path) -> dict[str, Path]:
    """The folder's file of each role."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; the canonical examples of a task are a folder of four files")
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if ".jsonl" in path.name):
        role = next(role for part, role in _ROLES.items() if part in path.name)
        if role in found:
            raise DatasetError(f"{found[role]} and {path} are both {role} files; keep the files of one split")
        found[role] = path
    missing = [role for role in _ROLES.values() if role not in found]
    if missing:
        raise DatasetError(f"{folder} has no {missing[0]} file; expected four .jsonl files, one of each role")
    return found


def _behaviour(record: Record, task: str, detail: str) -> list[Probe]:
    """The probe of one record, or none for a record of StereoSet that does not fit together."""
    criterion, prompt = _CRITERIA[task], record.text("prefix")
    if task == "stereoset":
        bias, answer = record.text("bias_answer"), record.text("antibias_answer")
        if record.text("suffix") != bias:
            return []
        return [_running(prompt, (answer,), (bias,), detail, criterion)]
    if criterion.measure == "nll":
        return [_running(prompt, (record.text("suffix"),), (), detail, criterion)]
    return [_running(prompt, (record.text("suffix1"),), (record.text("suffix2"),), detail, criterion)]


def _running(
    prompt: str, answers: tuple[str, ...], against: tuple[str, ...], detail: str, criterion: Criterion | None = None
) -> Probe:
    return Probe("behaviour", prompt, answers, against, detail, criterion, running=True)

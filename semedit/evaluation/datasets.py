"""Reads published data sets for editing into examples, and keeps apart what contradicts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from semedit.edits import Edit
from semedit.errors import DatasetError
from semedit.evaluation import facts
from semedit.evaluation.behaviours import canonical, convsent
from semedit.evaluation.examples import Example, Probe
from semedit.evaluation.facts import UNEDITED_HOP
from semedit.evaluation.files import Record, read_csv, read_json, read_text
from semedit.evaluation.names import DATASETS
from semedit.memory.checks import check_edit

_FACTS: Mapping[str, Callable[[Record, int], Example]] = {
    "zsre": facts.zsre,
    "counterfact": facts.counterfact,
    "knowedit": facts.knowedit,
    "wikifactdiff": facts.wikifactdiff,
    "mquake": facts.mquake,
    "hallueditbench": facts.hallueditbench,
    "jsonl": facts.jsonl,
}


def read(dataset: str, path: Path | str) -> list[Example]:
    """The examples of a data set, in the order of its file.

    Args:
        dataset: one of `DATASETS`, which says how records look.
        path: the file as it was published: a JSON array or JSON lines, for HalluEditBench CSV, plain or compressed as
            .gz or .xz; for the canonical examples the folder of a task.

    Raises:
        DatasetError: there is no such data set or file, or a record is malformed; the message names file and line.
    """
    path = Path(path)
    if dataset == "canonical":
        return canonical(path)
    if dataset == "convsent":
        return convsent(read_json(path))
    if dataset not in _FACTS:
        raise DatasetError(f"there is no data set {dataset!r}; known are {', '.join(DATASETS)}")
    records = read_csv(path) if dataset == "hallueditbench" else read_json(path)
    examples: list[Example] = []
    ids: set[str] = set()
    for number, record in enumerate(records, start=1):
        try:
            example = _FACTS[dataset](record, number)
            for edit in example.edits:
                check_edit(edit)
        except DatasetError:
            raise
        except ValueError as error:
            raise DatasetError(f"{path}, line {record.line}: {error}") from error
        if example.id in ids:
            raise DatasetError(f"{path}, line {record.line}: the id {example.id!r} names an earlier edit, too")
        ids.add(example.id)
        examples.append(example)
    return examples


def unrelated(path: Path | str) -> list[Probe]:
    """Questions of others, which no edit is to answer, as probes.

    Args:
        path: objects with `question` and `answer` as NQ-open has them (JSON lines or an array), or a question a line.

    Raises:
        DatasetError: the file cannot be read, or a record is malformed; the message names file and line.
    """
    path = Path(path)
    text = read_text(path)
    if text.lstrip().startswith(("{", "[")):
        return [Probe("unrelated", record.text("question"), record.texts("answer")) for record in read_json(path)]
    return [Probe("unrelated", line.strip()) for line in text.split("\n") if line.strip()]


def consistent(examples: Sequence[Example], limit: int | None = None) -> tuple[list[Example], int]:
    """The first `limit` examples that can be edited together (None: all), and how many were left out among them.

    An example is left out where an earlier one edits the same fact to another target: the same prompt, or the same
    subject and relation, as far as they are known, with the same true answer. Of the others, probes of what must not
    change are left out where an edit changes it: those whose prompt is an edit's, and those about the same subject or
    relation whose prompt names the subject of an edit of another fact; and questions over several hops of which
    another example edits one.
    """
    known: dict[tuple[str, ...], Edit] = {}
    kept: list[Example] = []
    left_out = 0
    for example in examples:
        if len(kept) == limit:
            break
        stated = [(key, edit) for edit in example.edits for key in _fact(example, edit)]
        if all(known.get(key, edit).same_target(edit) for key, edit in stated):
            known |= dict(stated)
            kept.append(example)
        else:
            left_out += 1
    targets: dict[str, set[str]] = defaultdict(set)
    for example in kept:
        if example.subject is not None:
            targets[_words(example.subject)] |= {edit.target.casefold() for edit in example.edits}
    longest = max((name.count(" ") + 1 for name in targets), default=0)

    def is_edited(probe: Probe) -> bool:
        return ("prompt", _prompt(probe.prompt)) in known

    def stands(example: Example, probe: Probe) -> bool:
        if probe.kind == "portability":
            # over several hops, of which another example may edit one
            return not any(is_edited(hop) for hop in example.probes if hop.detail == UNEDITED_HOP)
        if probe.kind not in ("unrelated", "same_subject", "same_relation"):
            return True
        if is_edited(probe):
            return False
        subject = _words(example.subject or "")
        return probe.kind == "unrelated" or all(
            name == subject and len(targets[name]) == 1 for name in _named(probe.prompt, targets, longest)
        )

    return [
        replace(example, probes=tuple(probe for probe in example.probes if stands(example, probe))) for example in kept
    ], left_out


def _fact(example: Example, edit: Edit) -> Iterator[tuple[str, ...]]:
    """What names the fact that an edit changes, in each way that is known."""
    yield "prompt", _prompt(edit.prompt)
    if example.subject is not None:
        for probe in example.probes:
            if probe.kind == "reliability" and probe.prompt == edit.prompt:
                for truth in probe.alternatives:
                    yield "truth", _words(example.subject), example.relation or "", truth.casefold()


def _prompt(text: str) -> str:
    """What two prompts must share to be the same to the memory."""
    return " ".join(text.split()).casefold()


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _named(prompt: str, subjects: Collection[str], longest: int) -> Iterator[str]:
    """The subjects that a prompt names, word for word."""
    words = _words(prompt).split()
    for first in range(len(words)):
        for last in range(first + 1, min(first + longest, len(words)) + 1):
            name = " ".join(words[first:last])
            if name in subjects:
                yield name

"""Relations written for this project: ways to ask one thing of a subject, and near misses that ask another.

The files are in the folder `relations` beside this one: one list of relations each, and `subjects.yaml`. In a wording
`{}` stands for the subject, `[A]` for an answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from facts import naming

FOLDER = Path(__file__).parent / "relations"
NEAR_MISSES = ("other", "qualified", "negation", "reversal", "comparison", "hypothetical", "mention")


@dataclass(frozen=True)
class Relation:
    """One relation: `ask` are wordings with one answer, each list of `near` asks something else of the subject."""

    name: str
    of: str
    ask: tuple[str, ...]
    yes_no: tuple[str, ...]
    answers: tuple[str, ...]
    follow_up: tuple[str, ...]
    subjects: tuple[str, ...]
    near: Mapping[str, tuple[str, ...]] = field(hash=False)


def read_relations(folder: Path = FOLDER) -> list[Relation]:
    """All relations; those of one type share its subjects, and their own."""
    subjects = {kind: [str(s) for s in names] for kind, names in _load(folder / "subjects.yaml").items()}
    records = [
        record for path in sorted(folder.glob("*.yaml")) if path.name != "subjects.yaml" for record in _load(path)
    ]
    for record in records:
        own = subjects.setdefault(record["of"], [])
        own += [str(s) for s in record.get("subjects", ()) if str(s) not in own]
    return [
        Relation(
            name=record["relation"],
            of=record["of"],
            ask=tuple(record["ask"]),
            yes_no=tuple(record.get("yes_no", ())),
            answers=tuple(map(str, record["answers"])),
            follow_up=tuple(record.get("follow_up", ())),
            subjects=tuple(subjects[record["of"]]),
            near={kind: tuple(record.get(kind, ())) for kind in NEAR_MISSES},
        )
        for record in records
    ]


def relations_without(subjects: Sequence[str]) -> list[Relation]:
    """All relations, about none of `subjects`."""
    named = naming(subjects)
    return [
        replace(relation, subjects=tuple(name for name in relation.subjects if not named.search(name)))
        for relation in read_relations()
    ]


def of_one_type(relations: Sequence[Relation]) -> dict[str, list[Relation]]:
    """The relations by the type of their subjects."""
    by_type: dict[str, list[Relation]] = {}
    for relation in relations:
        by_type.setdefault(relation.of, []).append(relation)
    return by_type


def any_of(texts: Sequence[str], subject: str, rng: random.Random) -> str:
    """One of the wordings with the subject in its place."""
    return filled(rng.choice(texts), subject)


def filled(text: str, subject: str) -> str:
    """A wording with the subject in its place."""
    text = text.replace("{}", subject)
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def _load(path: Path) -> dict | list:
    return yaml.safe_load(path.read_text(encoding="utf-8"))

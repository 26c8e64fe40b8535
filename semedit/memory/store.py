"""What an edit store is: a durable, ordered, append-only log of revisions, with the vectors of their texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from semedit.edits import Edit
from semedit.memory.encoder import Vectors


class Head(NamedTuple):
    """How far a store is.

    Attributes:
        revision: the newest revision; 0 where there is none.
        epoch: how often the vectors were begun anew.
        settings: how often a setting was written.
    """

    revision: int
    epoch: int
    settings: int


class Writer(Protocol):
    """What can be done while the store is held for writing."""

    def append(self, edits: Sequence[Edit]) -> list[Edit]:
        """Adds one revision for each edit, as one change; gives them back with revision and change filled in."""

    def put_vectors(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps a vector for each text."""

    def replace_vectors(self, fingerprint: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Forgets every vector and keeps these, made by the encoder of that fingerprint, as a new epoch."""

    def put_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name, in place of the one it had."""

    def put_learned(self, base: str, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was learned for a base model, by content; what a content has already stays."""


class EditStore(Protocol):
    """A durable log of revisions.

    Revisions are numbered from 1 without gaps, and whoever sees one sees all before it. An epoch ends when the vectors
    are made anew.
    """

    location: str

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read inside belongs to one moment; within a transaction, to what it sees."""

    def head(self) -> Head:
        """How far the store is."""

    def changes_since(self, revision: int) -> list[Edit]:
        """All revisions after that one, in order."""

    def history(self, edit_id: str) -> list[Edit]:
        """All revisions of one edit, in order."""

    def change(self, change: int) -> list[Edit]:
        """All revisions of one change, in order."""

    def changes_backwards(self) -> list[tuple[int, bool]]:
        """Each change, newest first, and whether it is an undo."""

    def vectors(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vector `(dim,)` of each text that has one."""

    def encoder(self) -> str | None:
        """The fingerprint of the encoder that made the vectors; None before the first."""

    def setting(self, name: str) -> str | None:
        """The value that is kept under a name, or None."""

    def learned(self, base: str, contents: Iterable[str]) -> dict[str, bytes]:
        """What was learned for a base model, for each of the contents that has something."""

    def learned_elsewhere(self, base: str, contents: Iterable[str]) -> dict[str, str]:
        """For each of the contents that other base models have something of, one of these models."""

    def transaction(self) -> AbstractContextManager[Writer]:
        """Holds the store for writing; what is written is kept whole when it is left, and not at all on an error."""

    def close(self) -> None:
        """Lets go of the store."""


def to_json(edit: Edit) -> str:
    """What of a revision is the edit itself, as JSON."""
    body = {
        name: value for name, value in asdict(edit).items() if name not in _COLUMNS and value not in (None, (), {})
    }
    return json.dumps(body, ensure_ascii=False, default=datetime.isoformat)


def from_json(text: str, **columns: Any) -> Edit:
    """The revision whose `to_json` is `text`."""
    return edit_of(json.loads(text), **columns)


def edit_of(body: Mapping[str, Any], **columns: Any) -> Edit:
    """An edit from its fields as JSON has them."""
    values = {**body, **columns}
    for name in ("paraphrases", "negatives"):
        values[name] = tuple(values.get(name, ()))
    for name in ("valid_from", "valid_until", "time"):
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    return Edit(**values)


def numbered(edits: Sequence[Edit], head: int, time: datetime) -> list[Edit]:
    """The edits as the next revisions after `head`, as one change."""
    return [
        replace(edit, revision=head + 1 + i, change=head + 1, time=time, outcome=None) for i, edit in enumerate(edits)
    ]


_COLUMNS = ("id", "action", "author", "revision", "change", "time", "outcome")

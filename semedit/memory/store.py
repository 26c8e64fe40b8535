"""What an edit store is: a durable, ordered, append-only log of revisions, with the vectors of their texts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.encoder import Vectors

# every table with its columns; where the last is `checksum`, it is over those before it
TABLES: dict[str, tuple[str, ...]] = {
    "counter": ("revision", "epoch", "settings", "encoder", "store"),
    "revisions": ("revision", "change", "edit_id", "action", "time", "author", "body", "previous", "checksum"),
    "newest": ("edit_id", "first", "revision", "active", "namespace", "prompt_key"),
    "vectors": ("text", "vector", "checksum"),
    "settings": ("name", "value", "checksum"),
    "learned": ("content", "base", "body", "checksum"),
}
# a namespace, and what prompts must share to be the same
PromptKey = tuple[str, str]


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
        """Adds one revision for each edit, as one change; gives them back as they now are in the log.

        Revision, change, previous and time are filled in.
        """

    def put_vectors(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps a vector for each text."""

    def replace_vectors(self, fingerprint: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Forgets every vector and keeps these, made by the encoder of that fingerprint, as a new epoch."""

    def put_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name, in place of the one it had."""

    def put_learned(self, base: str, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was learned for a base model, by content; what a content has already stays."""

    def rewrite(self, edits: Iterable[Edit]) -> None:
        """Puts these in place of the revisions of their numbers. The log is append-only but for this, an erasure."""

    def drop_vectors(self, texts: Iterable[str]) -> None:
        """Forgets the vectors of these texts."""

    def drop_learned(self, sources: Iterable[str]) -> None:
        """Forgets what was learned from these, for every base model; see `sources` in `semedit.memory.learned`."""


class EditStore(Protocol):
    """A durable log of revisions.

    Revisions are numbered from 1 without gaps, and whoever sees one sees all before it. An epoch ends when the vectors
    are made anew.

    Attributes:
        location: what it is called.
        cache: the folder in which processes of this host save their index; None where they do not.
    """

    location: str
    cache: Path | None

    @property
    def staleness(self) -> float:
        """For how many seconds the store has not known whether its head is the newest; 0.0 while it knows."""

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read inside belongs to one moment; within a transaction, to what it sees."""

    def head(self) -> Head:
        """How far the store is."""

    def identity(self) -> str:
        """A random name that the store was given when it was made; a copy of it has the same."""

    def changes_since(self, revision: int, limit: int | None = None) -> list[Edit]:
        """The revisions after that one, in order: all, or at most so many, which may end within a change."""

    def history(self, edit_id: str) -> list[Edit]:
        """All revisions of one edit, in order."""

    def change(self, change: int) -> list[Edit]:
        """All revisions of one change, in order."""

    def changes_backwards(self) -> Iterator[tuple[int, bool]]:
        """Each change of an edit that is not erased, newest first, and whether it is an undo."""

    def newest(self, ids: Iterable[str]) -> dict[str, Edit]:
        """The newest revision of each of these edits that there is, active or not, by id."""

    def holding(self, prompts: Iterable[PromptKey]) -> dict[PromptKey, Edit]:
        """The active edit at each of these prompts that has one; see `prompt_key`."""

    def edits(self, namespace: str | None = None, include_retired: bool = False) -> Iterator[Edit]:
        """The newest revision of each active edit, oldest edit first, read in portions.

        An edit that is changed between two portions may be given as it then is; inside `snapshot`, all are of one
        moment.

        Args:
            namespace: None gives those of all.
            include_retired: whether to give the others, too.
        """

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

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of one of `TABLES` as they are kept, revisions in order; to be read within `snapshot`."""

    def damage(self) -> list[str]:
        """What the database itself finds wrong with its files."""

    def backup(self, path: str | Path) -> None:
        """Writes all there is at one moment to a new memory file, while others go on writing.

        Raises:
            StoreError: there is a file of that name already, or it cannot be written.
        """

    def scrub(self) -> None:
        """Rids the database's files of what was deleted, which would otherwise stand there until it is overwritten."""

    def transaction(self) -> AbstractContextManager[Writer]:
        """Holds the store for writing; what is written is kept whole when it is left, and not at all on an error."""

    def close(self) -> None:
        """Lets go of the store."""


def to_json(edit: Edit) -> str:
    """What of a revision is the edit itself, as JSON."""
    return _JSON.encode(body_of(edit))


def body_of(edit: Edit) -> dict[str, Any]:
    """What of a revision is the edit itself, by field, without what is empty."""
    return {name: value for name in _IN_BODY if (value := getattr(edit, name)) not in (None, (), {})}


def edit_of(body: Mapping[str, Any], **columns: Any) -> Edit:
    """An edit from its fields as JSON has them."""
    values = {**body, **columns}
    for name in ("paraphrases", "negatives"):
        values[name] = tuple(values.get(name, ()))
    for name in ("valid_from", "valid_until", "time"):
        if isinstance(values.get(name), str):
            values[name] = datetime.fromisoformat(values[name])
    return Edit(**values)


def prompt_key(edit: Edit) -> PromptKey:
    """What two edits must share to have the same prompt: case and white space do not tell them apart."""
    return edit.namespace, " ".join(edit.prompt.split()).casefold()


def checksum(*values: str | bytes | int | None) -> int:
    """The CRC-32 that is kept with a row, over its other columns in their order."""
    # a text and the same bytes differ: a bit of a file says which a value is
    return zlib.crc32(
        b"\0".join(b"\1" + value if isinstance(value, bytes) else str(value).encode() for value in values)
    )


def check_row(row: Sequence[Any], called: str, location: str) -> None:
    """Raises StoreError unless a row of one of `TABLES` that have a checksum is what was written.

    Args:
        row: its columns, the checksum last.
        called: what the row is.
        location: of the store.
    """
    if checksum(*row[:-1]) != row[-1]:
        raise damaged(location, f"{called} is not what was written, its checksum disagrees")


def damaged(location: str, what: str) -> StoreError:
    """What is raised where a store is found to be damaged."""
    return StoreError(
        f"the edit memory {location} is damaged: {what}; restore a backup, or see what else is damaged: "
        f"semedit edit verify --memory {location}"
    )


def numbered(edits: Sequence[Edit], head: int, time: datetime, newest: Mapping[str, int]) -> list[Edit]:
    """The edits as the next revisions after `head`, as one change.

    Args:
        edits: what the revisions say.
        head: the newest revision that there is.
        time: when they are written.
        newest: the newest revision of each edit that has one, by id.
    """
    before = dict(newest)
    revisions = []
    for revision, edit in enumerate(edits, start=head + 1):
        previous = before.get(edit.id, 0)
        before[edit.id] = revision
        revisions.append(replace(edit, revision=revision, change=head + 1, previous=previous, time=time, outcome=None))
    return revisions


def revision_of(row: Sequence[Any], location: str) -> Edit:
    """The revision of a row that begins with the columns of the table of revisions.

    Raises:
        StoreError: it is not what was written.
    """
    row = row[: len(TABLES["revisions"])]
    check_row(row, f"revision {row[0]}", location)
    revision, change, edit_id, action, time, author, body, previous, _ = row
    return edit_of(
        json.loads(body),
        revision=revision,
        change=change,
        previous=previous,
        id=edit_id,
        action=action,
        time=datetime.fromisoformat(time),
        author=author,
    )


def row_of(edit: Edit) -> tuple[str | int | None, ...]:
    """A revision as the table of revisions has it, its checksum last."""
    assert edit.time is not None
    time, body = edit.time.isoformat(), to_json(edit)
    columns = (edit.revision, edit.change, edit.id, edit.action, time, edit.author, body, edit.previous)
    return (*columns, checksum(*columns))


_JSON = json.JSONEncoder(ensure_ascii=False, default=datetime.isoformat)
_IN_COLUMNS = ("id", "action", "author", "revision", "change", "previous", "time", "outcome")
_IN_BODY = tuple(field.name for field in fields(Edit) if field.name not in _IN_COLUMNS)

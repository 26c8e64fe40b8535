"""Whether all of a memory is there, and is what was written."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.snapshot import damaged_files
from semedit.memory.store import EditStore, checksum, prompt_key, revision_of

_ROWS_AT_ONCE = 500
# how far a norm may be from 1; encoders in half precision come nearer
_NEARLY = 1e-2


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what is wrong.

    Attributes:
        revisions, edits, vectors, learned: how many there are; edits counts the active ones.
        problems: what was found, each in a sentence; empty where all is well.
    """

    revisions: int
    edits: int
    vectors: int
    learned: int
    problems: tuple[str, ...]


def verify(store: EditStore) -> Verification:
    """Reads all of a store as of one moment, and looks whether it agrees with its checksums and with itself.

    So does the index that is saved beside it, where there is one.
    """
    verifier = _Verifier(store)
    with store.snapshot():
        for part in (
            verifier.damage,
            verifier.revisions,
            verifier.newest,
            verifier.vectors,
            verifier.settings,
            verifier.learned,
        ):
            try:
                part()
            except StoreError as error:
                verifier.problems.append(str(error))
    verifier.problems += damaged_files(store)
    counts = {name: verifier.counts[name] for name in ("revisions", "edits", "vectors", "learned")}
    return Verification(**counts, problems=tuple(verifier.problems))


class _Verifier:
    """Looks at one table after another; what is found is in `problems`."""

    def __init__(self, store: EditStore) -> None:
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._store = store
        # of each edit: its first and its newest revision
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._erased: set[str] = set()
        self._unreadable: set[int] = set()

    def damage(self) -> None:
        """The database has nothing to say against its own files."""
        self.problems += self._store.damage()

    def revisions(self) -> None:
        """Each is there, whole and unchanged, and says rightly what it follows."""
        number = change = 0
        saying: dict[str, int] = {}
        for row, intact in self._checked("revisions", "revision {}"):
            revision, its_change, edit_id = row[:3]
            if revision != number + 1:
                self.problems.append(f"revisions {number + 1} to {revision - 1} are missing")
            edit = self._revision(row) if intact else None
            if edit is None:
                self._unreadable.add(revision)
            else:
                before = self._last.get(edit_id, 0)
                if its_change not in (change, revision):
                    self.problems.append(f"revision {revision} is part of change {its_change}, which is not whole")
                if edit.previous != before:
                    self.problems.append(f"revision {revision} says that it follows {edit.previous}, not {before}")
                if edit.action == "erase":
                    self._erased.add(edit_id)
                if edit.prompt:
                    saying[edit_id] = revision
            self._first.setdefault(edit_id, revision)
            self._last[edit_id] = revision
            number, change = revision, its_change
        self.problems += [
            f"edit {id!r} was erased, and revision {saying[id]} still says what it was"
            for id in sorted(self._erased & saying.keys(), key=str)
        ]
        head = self._store.head().revision
        if head != number:
            self.problems.append(f"the counter is at {head}, and the newest revision is {number}")

    def newest(self) -> None:
        """What is said of each edit's newest revision is what the log says; and active edits can be found."""
        missing = set(self._last)
        rows = self._store.rows("newest")
        while some := {row[0]: row for row in islice(rows, _ROWS_AT_ONCE)}:
            missing -= some.keys()
            ends = {id: (self._first.get(id), self._last.get(id)) for id in some}
            edits = self._store.newest(
                id for id, row in some.items() if row[1:3] == ends[id] and row[2] not in self._unreadable
            )
            for id, row in some.items():
                if row[1:3] != ends[id]:
                    self.problems.append(f"edit {id!r} is said to have the revisions {row[1:3]}, and has {ends[id]}")
                elif id in edits and (bool(row[3]), *row[4:]) != (edits[id].active, *prompt_key(edits[id])):
                    self.problems.append(f"edit {id!r} is filed under {row[3:]}, which its newest revision is not")
            active = [edit for edit in edits.values() if edit.active]
            self.counts["edits"] += len(active)
            with contextlib.suppress(StoreError):  # `vectors` tells of each that is damaged
                vectors = self._store.vectors(text for edit in active for text in edit.texts)
                self.problems += [
                    f"edit {edit.id!r} cannot be found by {text!r}, which has no vector; run semedit edit reembed"
                    for edit in active
                    for text in edit.texts
                    if text not in vectors
                ]
        self.problems += [f"edit {id!r} is filed nowhere" for id in sorted(missing, key=str)]

    def vectors(self) -> None:
        """Each is unchanged, of the length that all have, and of norm 1."""
        lengths: Counter[int] = Counter()
        example: dict[int, str] = {}
        for (text, blob, _), intact in self._checked("vectors", "the vector of {!r}"):
            if intact:
                lengths[len(blob)] += 1
                example.setdefault(len(blob), text)
                norm = float(np.linalg.norm(np.frombuffer(blob, "<f4", len(blob) // 4)))
                # written so that NaN is found too
                if not abs(norm - 1) < _NEARLY:
                    self.problems.append(f"the vector of {text!r} has the norm {norm:.4g}, not 1")
        for length, count in lengths.most_common()[1:]:
            self.problems.append(
                f"vectors of {length} bytes, and not {lengths.most_common()[0][0]} as most have: {count}; one is that "
                f"of {example[length]!r}"
            )

    def settings(self) -> None:
        """Each is unchanged."""
        for _ in self._checked("settings", "the setting {!r}"):
            pass

    def learned(self) -> None:
        """Each value is unchanged and can be read."""
        for (name, base, body, _), intact in self._checked("learned", "the learned value {!r}"):
            if intact and " value " in name:
                try:
                    deserialize(body)  # type: ignore[no-untyped-call]
                except SafetensorError as error:
                    self.problems.append(f"the learned value {name!r} of {base} cannot be read: {error}")

    def _checked(self, table: str, called: str) -> Iterator[tuple[tuple[Any, ...], bool]]:
        """The rows of a table, and whether each is what was written; `called` names one by its first column."""
        for row in self._store.rows(table):
            self.counts[table] += 1
            intact = checksum(*row[:-1]) == row[-1]
            if not intact:
                self.problems.append(f"{called.format(row[0])} is not what was written: its checksum disagrees")
            yield row, intact

    def _revision(self, row: tuple[Any, ...]) -> Edit | None:
        try:
            return revision_of(row, self._store.location)
        except (StoreError, ValueError, TypeError, KeyError) as error:
            self.problems.append(f"revision {row[0]} cannot be read: {error!r}")
            return None

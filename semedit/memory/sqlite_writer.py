"""How a memory in a SQLite file is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from semedit.edits import Edit
from semedit.memory.encoder import Vectors
from semedit.memory.store import TABLES, Head, checksum, numbered, prompt_key, row_of

ROWS_AT_ONCE = 500


class SQLiteWriter:
    """Writes within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, edits: Sequence[Edit]) -> list[Edit]:
        """Adds revisions as one change."""
        head = head_of(self._connection).revision
        written = numbered(edits, head, datetime.now(timezone.utc), self._newest([edit.id for edit in edits]))
        self._connection.executemany("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(row_of, written))
        self._connection.executemany(
            "INSERT INTO newest VALUES (?1, ?2, ?2, ?3, ?4, ?5) ON CONFLICT (edit_id) DO UPDATE SET revision = ?2, "
            "active = ?3, namespace = ?4, prompt_key = ?5",
            ((e.id, e.revision, e.active, *prompt_key(e)) for e in written),
        )
        self._connection.execute("UPDATE counter SET revision = ?", (head + len(edits),))
        return written

    def put_vectors(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps a vector for each text."""
        blobs = (vector.astype("<f4").tobytes() for vector in vectors)
        self._connection.executemany(
            "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)",
            ((text, blob, checksum(text, blob)) for text, blob in zip(texts, blobs, strict=True)),
        )

    def replace_vectors(self, fingerprint: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Begins a new epoch with these vectors."""
        self._connection.execute("DELETE FROM vectors")
        self._connection.execute("UPDATE counter SET epoch = epoch + 1, encoder = ?", (fingerprint,))
        self.put_vectors(texts, vectors)

    def put_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name."""
        self._connection.execute(
            "INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (name, value, checksum(name, value))
        )
        self._connection.execute("UPDATE counter SET settings = settings + 1")

    def put_learned(self, base: str, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was learned for a base model."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO learned VALUES (?, ?, ?, ?)",
            ((content, base, body, checksum(content, base, body)) for content, body in bodies.items()),
        )

    def rewrite(self, edits: Iterable[Edit]) -> None:
        """Puts these in place of the revisions of their numbers."""
        rows = (dict(zip(TABLES["revisions"], row_of(edit), strict=True)) for edit in edits)
        self._connection.executemany(
            "UPDATE revisions SET body = :body, checksum = :checksum WHERE revision = :revision", rows
        )

    def drop_vectors(self, texts: Iterable[str]) -> None:
        """Forgets the vectors of these texts."""
        self._connection.executemany("DELETE FROM vectors WHERE text = ?", ((text,) for text in texts))

    def drop_learned(self, sources: Iterable[str]) -> None:
        """Forgets what was learned from these."""
        # a name begins with its source and a space, which "!" comes after
        self._connection.executemany(
            "DELETE FROM learned WHERE content >= ? AND content < ?",
            ((f"{source} ", f"{source}!") for source in sources),
        )

    def _newest(self, ids: Sequence[str]) -> dict[str, int]:
        """The newest revision of each edit that has one."""
        newest: dict[str, int] = {}
        for start in range(0, len(ids), ROWS_AT_ONCE):
            part = ids[start : start + ROWS_AT_ONCE]
            marks = ",".join("?" * len(part))
            newest.update(
                self._connection.execute(f"SELECT edit_id, revision FROM newest WHERE edit_id IN ({marks})", part)
            )
        return newest


def head_of(connection: sqlite3.Connection) -> Head:
    """How far a file is."""
    row = connection.execute("SELECT revision, epoch, settings FROM counter").fetchone()
    if row is None or not all(isinstance(number, int) for number in row):
        raise sqlite3.DatabaseError("the counter is malformed")
    return Head(*row)

"""How a memory in a PostgreSQL database is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from semedit.edits import Edit
from semedit.errors import InvalidEditError
from semedit.memory.encoder import Vectors
from semedit.memory.postgres_connections import Connection
from semedit.memory.store import TABLES, Head, checksum, numbered, prompt_key, row_of

# revisions of a change that makes tables much larger than the server takes them for
_MANY = 10_000
# a NUL in JSON: its escape, with an even number of backslashes before it
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class PostgresWriter:
    """Writes within a transaction that holds the counter's row."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, edits: Sequence[Edit]) -> list[Edit]:
        """Adds revisions as one change.

        Raises:
            InvalidEditError: an edit holds a NUL character, which PostgreSQL does not keep.
        """
        [[head]] = self._connection.execute(
            "UPDATE semedit_counter SET revision = revision + %s RETURNING revision - %s", (len(edits), len(edits))
        )
        first, newest = self._ends([edit.id for edit in edits if "\x00" not in edit.id])
        written = numbered(edits, head, datetime.now(timezone.utc), newest)
        rows = [row_of(edit) for edit in written]
        for edit, (*_, body, _, _) in zip(edits, rows, strict=True):
            _refuse_nul(f"edit {edit.id!r}", edit.id, edit.author or "", json=str(body))
        with self._connection.cursor() as cursor:
            with cursor.copy("COPY semedit_revisions FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.executemany(
                "INSERT INTO semedit_newest VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (first) DO UPDATE SET "
                "revision = excluded.revision, active = excluded.active, namespace = excluded.namespace, "
                "prompt_key = excluded.prompt_key",
                (
                    (first.setdefault(edit.id, edit.revision), edit.id, edit.revision, edit.active, *prompt_key(edit))
                    for edit in written
                ),
            )
        if len(edits) >= _MANY:
            # the server's own analysis comes up to a minute later, and until then it plans as for small tables
            self._connection.execute("ANALYZE semedit_revisions, semedit_newest")
        return written

    def put_vectors(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps a vector for each text.

        Raises:
            InvalidEditError: a text holds a NUL character, which PostgreSQL does not keep.
        """
        _refuse_nul("a text", *texts)
        blobs = (vector.astype("<f4").tobytes() for vector in vectors)
        self._execute_many(
            "INSERT INTO semedit_vectors VALUES (%s, %b, %s) ON CONFLICT DO NOTHING",
            ((text, blob, checksum(text, blob)) for text, blob in zip(texts, blobs, strict=True)),
        )

    def replace_vectors(self, fingerprint: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Begins a new epoch with these vectors."""
        self._connection.execute("DELETE FROM semedit_vectors")
        self._connection.execute("UPDATE semedit_counter SET epoch = epoch + 1, encoder = %s", (fingerprint,))
        self.put_vectors(texts, vectors)

    def put_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name."""
        self._connection.execute(
            "INSERT INTO semedit_settings VALUES (%s, %s, %s) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
            (name, value, checksum(name, value)),
        )
        self._connection.execute("UPDATE semedit_counter SET settings = settings + 1")

    def put_learned(self, base: str, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was learned for a base model."""
        self._execute_many(
            "INSERT INTO semedit_learned VALUES (%s, %s, %b, %s) ON CONFLICT DO NOTHING",
            ((content, base, body, checksum(content, base, body)) for content, body in bodies.items()),
        )

    def rewrite(self, edits: Iterable[Edit]) -> None:
        """Puts these in place of the revisions of their numbers."""
        rows = (dict(zip(TABLES["revisions"], row_of(edit), strict=True)) for edit in edits)
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE semedit_revisions SET body = %(body)s, checksum = %(checksum)s WHERE revision = %(revision)s",
                rows,
            )

    def drop_vectors(self, texts: Iterable[str]) -> None:
        """Forgets the vectors of these texts."""
        self._connection.execute("DELETE FROM semedit_vectors WHERE text = ANY(%s)", (list(texts),))

    def drop_learned(self, sources: Iterable[str]) -> None:
        """Forgets what was learned from these."""
        # a name begins with its source and a space
        self._connection.execute(
            "DELETE FROM semedit_learned WHERE split_part(content, ' ', 1) = ANY(%s)", (list(sources),)
        )

    def _ends(self, ids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """The first and the newest revision of each edit that has one."""
        rows = self._connection.execute(
            "SELECT edit_id, first, revision FROM semedit_newest WHERE edit_id = ANY(%s)", (list(ids),)
        ).fetchall()
        return {id: first for id, first, _ in rows}, {id: revision for id, _, revision in rows}

    def _execute_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, rows)


def head_of(connection: Connection, lock: str = "") -> Head:
    """How far the log is; `lock` ends the query."""
    [row] = connection.execute(f"SELECT revision, epoch, settings FROM semedit_counter {lock}")
    return Head(*row)


def _refuse_nul(what: str, *texts: str, json: str = "") -> None:
    if any("\x00" in text for text in texts) or _NUL.search(json):
        raise InvalidEditError(f"{what} holds a NUL character (\\x00), which PostgreSQL does not keep; take it out")

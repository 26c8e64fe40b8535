"""The edit store in one SQLite file, which any number of processes may open at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.encoder import Vectors
from semedit.memory.schema import APPLICATION_ID, FORMAT, format_of, migrate
from semedit.memory.store import Head, from_json, numbered, to_json

_BUSY_SECONDS = 60.0
_TEXTS_AT_ONCE = 500


class SQLiteStore:
    """The log in SQLite's write-ahead mode: readers never wait, writers wait for one another.

    Args:
        path: the file, made where there is none; None keeps everything in this process's memory alone.

    Raises:
        StoreError: the file is no edit memory, was written by a newer version, or cannot be opened or written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        # through Path, for an empty name would mean a file that vanishes
        self.location = ":memory:" if path is None else str(Path(path))
        self._lock = threading.RLock()
        self._closed = False
        self._connection: sqlite3.Connection | None = self._open()
        if self.location != ":memory:" and hasattr(os, "register_at_fork"):
            let_go, release = _weakly(self._before_fork), _weakly(self._after_fork)
            os.register_at_fork(before=let_go, after_in_parent=release, after_in_child=release)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside belongs to one moment; within a transaction, to what it sees."""
        with self._reading() as connection:
            if connection.in_transaction:
                yield
                return
            connection.execute("BEGIN")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def head(self) -> Head:
        """How far the log is."""
        with self._reading() as connection:
            return Head(*connection.execute("SELECT revision, epoch, settings FROM counter").fetchone())

    def changes_since(self, revision: int) -> list[Edit]:
        """All revisions after that one, in order."""
        return self._select("revision > ? ORDER BY revision", revision)

    def history(self, edit_id: str) -> list[Edit]:
        """All revisions of one edit, in order."""
        return self._select("edit_id = ? ORDER BY revision", edit_id)

    def change(self, change: int) -> list[Edit]:
        """All revisions of one change, in order."""
        # a change is a run of revisions that begins with its own number
        return self._select("revision >= ?1 AND change = ?1 ORDER BY revision", change)

    def changes_backwards(self) -> list[tuple[int, bool]]:
        """Each change, newest first, and whether it is an undo."""
        with self._reading() as connection:
            rows = connection.execute("SELECT change, action FROM revisions WHERE revision = change ORDER BY 1 DESC")
            return [(change, action == "undo") for change, action in rows]

    def vectors(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vector of each text that has one."""
        rows = self._of_many("SELECT text, vector FROM vectors WHERE text IN", texts)
        return {text: np.frombuffer(blob, dtype="<f4") for text, blob in rows}

    def encoder(self) -> str | None:
        """The fingerprint of the encoder that made the vectors."""
        with self._reading() as connection:
            fingerprint: str | None = connection.execute("SELECT encoder FROM counter").fetchone()[0]
        return fingerprint

    def setting(self, name: str) -> str | None:
        """The value that is kept under a name, or None."""
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def learned(self, base: str, contents: Iterable[str]) -> dict[str, bytes]:
        """What was learned for a base model, for each of the contents that has something."""
        return dict(self._of_many("SELECT content, body FROM learned WHERE base = ? AND content IN", contents, base))

    def learned_elsewhere(self, base: str, contents: Iterable[str]) -> dict[str, str]:
        """For each of the contents that other base models have something of, one of these models."""
        return dict(self._of_many("SELECT content, base FROM learned WHERE base != ? AND content IN", contents, base))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_SQLiteWriter]:
        """Holds the file for writing, waiting up to a minute for other writers."""
        with self._lock, self._explained("write to"):
            connection = self._current()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SQLiteWriter(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()

    def _before_fork(self) -> None:
        # no connection may live through a fork: SQLite would believe in the child that it holds its parent's locks,
        # and what the child writes could be lost
        self._lock.acquire()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _after_fork(self) -> None:
        self._lock.release()

    def _open(self) -> sqlite3.Connection:
        with self._explained("open"):
            connection = sqlite3.connect(
                self.location, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # tables first: another process may be making the file at this moment
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID and tables:
            raise StoreError(
                f"{self.location} is a SQLite file of another program, not an edit memory; name another file"
            )
        version = format_of(connection)
        if version > FORMAT:
            raise StoreError(
                f"{self.location} was written by a newer semedit (format {version}, this one reads up to {FORMAT}); "
                "upgrade semedit to open it"
            )
        # an acknowledged edit survives a loss of power, at the price of one flush for each change
        connection.execute("PRAGMA synchronous = FULL")
        if version < FORMAT:
            _switch_to_wal(connection)
            migrate(connection)

    def _current(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the edit memory {self.location} was closed; open it again")
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained("read"):
            yield self._current()

    def _of_many(self, select: str, values: Iterable[str], *first: str) -> list[tuple[str, Any]]:
        """The rows of a query that ends in `IN`, over any number of values."""
        wanted = list(dict.fromkeys(values))
        rows: list[tuple[str, Any]] = []
        with self._reading() as connection:
            for start in range(0, len(wanted), _TEXTS_AT_ONCE):
                part = wanted[start : start + _TEXTS_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows += connection.execute(f"{select} ({marks})", (*first, *part))
        return rows

    def _select(self, condition: str, value: object) -> list[Edit]:
        columns = "revision, change, edit_id, action, time, author, body"
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {columns} FROM revisions WHERE {condition}", (value,)).fetchall()
        return [
            from_json(
                body,
                revision=revision,
                change=change,
                id=edit_id,
                action=action,
                time=datetime.fromisoformat(time),
                author=author,
            )
            for revision, change, edit_id, action, time, author, body in rows
        ]

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {doing} the edit memory {self.location}: {_advice(error)}") from error


class _SQLiteWriter:
    """Writes within a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def append(self, edits: Sequence[Edit]) -> list[Edit]:
        """Adds revisions as one change."""
        [head] = self.connection.execute("SELECT revision FROM counter").fetchone()
        now = datetime.now(timezone.utc)
        written = numbered(edits, head, now)
        self.connection.executemany(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((e.revision, e.change, e.id, e.action, now.isoformat(), e.author, to_json(e)) for e in written),
        )
        self.connection.execute("UPDATE counter SET revision = ?", (head + len(edits),))
        return written

    def put_vectors(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps a vector for each text."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
            ((text, vector.astype("<f4").tobytes()) for text, vector in zip(texts, vectors, strict=True)),
        )

    def replace_vectors(self, fingerprint: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Begins a new epoch with these vectors."""
        self.connection.execute("DELETE FROM vectors")
        self.connection.execute("UPDATE counter SET epoch = epoch + 1, encoder = ?", (fingerprint,))
        self.put_vectors(texts, vectors)

    def put_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name."""
        self.connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))
        self.connection.execute("UPDATE counter SET settings = settings + 1")

    def put_learned(self, base: str, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was learned for a base model."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO learned VALUES (?, ?, ?)",
            ((content, base, body) for content, body in bodies.items()),
        )


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # where several processes make a file at once, SQLite refuses some of them without waiting
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Calls a method for as long as its object is there, without keeping it there."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        bound = reference()
        if bound is not None:
            bound()

    return call


def _advice(error: sqlite3.Error) -> str:
    """What SQLite found, and what to do."""
    what = str(error)
    if "not a database" in what or "malformed" in what:
        return f"{what}; it is no edit memory or is damaged, so name another file or restore a backup"
    if "readonly" in what or "unable to open" in what:
        return f"{what}; check that its folder exists and can be written, WAL mode writes beside the file"
    if "full" in what or "disk I/O" in what:
        return f"{what}; nothing was changed, so make sure that the disk is sound and has space, and try again"
    if "locked" in what:
        return f"{what}; another process has been writing for over {_BUSY_SECONDS:.0f} s, so try again when it is done"
    return what

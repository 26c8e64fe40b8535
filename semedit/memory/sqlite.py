"""The edit store in one SQLite file, which any number of processes may open at once."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.backup import copy_file
from semedit.memory.connections import Connections
from semedit.memory.encoder import Vectors
from semedit.memory.schema import APPLICATION_ID, FORMAT, format_of, migrate
from semedit.memory.sqlite_writer import ROWS_AT_ONCE, SQLiteWriter, head_of
from semedit.memory.store import TABLES, Head, PromptKey, check_row, damaged, prompt_key, revision_of

_BUSY_SECONDS = 60.0
# a join with `newest` has two of some
_REVISION = ", ".join(f"revisions.{name}" for name in TABLES["revisions"])
# an edit that is filed under another revision than its newest, as only damage does, is found to be missing
_NEWEST = (
    f"SELECT {_REVISION}, newest.first FROM newest JOIN revisions ON revisions.revision = newest.revision AND "
    "newest.revision = (SELECT max(one.revision) FROM revisions AS one WHERE one.edit_id = newest.edit_id)"
)


class SQLiteStore:
    """The log in SQLite's write-ahead mode: readers never wait, writers wait for one another.

    In memory alone, readers of all but the head wait for a writer.

    Args:
        path: the file, made where there is none; None keeps everything in this process's memory alone.

    Raises:
        StoreError: the file is no edit memory, was written by a newer version, or cannot be opened or written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        # absolute, for connections are made later too, when the process may be in another folder
        self.location = ":memory:" if path is None else os.path.abspath(path)
        in_memory = self.location == ":memory:"
        self._connections = Connections(self._open, self.location, single=in_memory)
        # what is in memory has one connection, which a writer may hold: readers are told what it last committed
        self._head = Head(0, 0, 0) if in_memory else None
        self.cache = None if in_memory else Path(f"{self.location}.index")

    @property
    def staleness(self) -> float:
        """0.0: a file is there."""
        return 0.0

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
        if self._head is not None and self._connections.held is None and not self._connections.closed:
            return self._head
        with self._reading() as connection:
            return head_of(connection)

    def identity(self) -> str:
        """A random name that the file was given when it was made."""
        with self._reading() as connection:
            return str(connection.execute("SELECT store FROM counter").fetchone()[0])

    def changes_since(self, revision: int, limit: int | None = None) -> list[Edit]:
        """The revisions after that one, in order, or at most so many of them."""
        head = self.head().revision
        found = self._select("revision > ? ORDER BY revision LIMIT ?", revision, -1 if limit is None else limit)
        last = found[-1].revision if found else revision
        if last - revision != len(found) or (len(found) != limit and last < head):
            raise damaged(self.location, f"a revision after {revision} is missing")
        return found

    def history(self, edit_id: str) -> list[Edit]:
        """All revisions of one edit, in order."""
        with self.snapshot():
            found = self._select("edit_id = ? ORDER BY revision", edit_id)
            newest = self.newest([edit_id])
        before = [0, *(edit.revision for edit in found)]
        if [edit.previous for edit in found] != before[:-1] or list(newest.values()) != found[-1:]:
            raise damaged(self.location, f"a revision of edit {edit_id!r} is missing")
        return found

    def change(self, change: int) -> list[Edit]:
        """All revisions of one change, in order."""
        # a change is a run of revisions that begins with its own number
        return self._select("revision >= ?1 AND change = ?1 ORDER BY revision", change)

    def changes_backwards(self) -> Iterator[tuple[int, bool]]:
        """Each change that can be taken back, newest first, and whether it is an undo."""
        last = self.head().revision
        while last:
            with self._reading() as connection:
                row = connection.execute(
                    "SELECT first.change, first.action, EXISTS ("
                    "SELECT 1 FROM revisions AS one JOIN newest USING (edit_id) JOIN revisions AS now "
                    "ON now.revision = newest.revision "
                    "WHERE one.revision BETWEEN first.revision AND last.revision AND now.action != 'erase'"
                    ") FROM revisions AS last JOIN revisions AS first ON first.revision = last.change "
                    "WHERE last.revision = ?",
                    (last,),
                ).fetchone()
                if row is None:
                    raise sqlite3.DatabaseError(f"the change of revision {last} is malformed")
                change, action, any_left = row
            if any_left:
                yield change, action == "undo"
            last = change - 1

    def newest(self, ids: Iterable[str]) -> dict[str, Edit]:
        """The newest revision of each of these edits that there is."""
        wanted = set(ids)
        with self.snapshot():
            rows = self._of_many(f"{_NEWEST} WHERE newest.edit_id IN", wanted)
            found = {edit.id: edit for edit in self._revisions(rows)}
            for [edit_id] in self._of_many("SELECT edit_id FROM revisions WHERE edit_id IN", wanted - found.keys()):
                raise damaged(self.location, f"edit {edit_id!r} is filed nowhere")
        return found

    def holding(self, prompts: Iterable[PromptKey]) -> dict[PromptKey, Edit]:
        """The active edit at each of these prompts that has one."""
        by_namespace: dict[str, list[str]] = {}
        for namespace, key in prompts:
            by_namespace.setdefault(namespace, []).append(key)
        select = "SELECT edit_id FROM newest WHERE active AND namespace = ? AND prompt_key IN"
        with self.snapshot():
            rows = [row for namespace, keys in by_namespace.items() for row in self._of_many(select, keys, namespace)]
            return {prompt_key(edit): edit for edit in self.newest(id for [id] in rows).values()}

    def edits(self, namespace: str | None = None, include_retired: bool = False) -> Iterator[Edit]:
        """The newest revision of each active edit, oldest edit first, read in portions."""
        where = "" if include_retired else "AND newest.active "
        values: tuple[str, ...] = ()
        if namespace is not None:
            where += "AND newest.namespace = ? "
            values = (namespace,)
        select = f"{_NEWEST} WHERE newest.first > ? {where}ORDER BY newest.first LIMIT {ROWS_AT_ONCE}"
        first = count = 0
        while True:
            with self._reading() as connection:
                rows = connection.execute(select, (first, *values)).fetchall()
                count += len(rows)
                if len(rows) < ROWS_AT_ONCE and connection.in_transaction:
                    self._check_count(connection, count, namespace, include_retired)
            yield from self._revisions(rows)
            if len(rows) < ROWS_AT_ONCE:
                return
            first = rows[-1][-1]

    def vectors(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vector of each text that has one."""
        rows = self._of_many("SELECT text, vector, checksum FROM vectors WHERE text IN", texts)
        for row in rows:
            check_row(row, f"the vector of {row[0]!r}", self.location)
        return {text: np.frombuffer(blob, dtype="<f4") for text, blob, _ in rows}

    def encoder(self) -> str | None:
        """The fingerprint of the encoder that made the vectors."""
        with self._reading() as connection:
            fingerprint: str | None = connection.execute("SELECT encoder FROM counter").fetchone()[0]
        return fingerprint

    def setting(self, name: str) -> str | None:
        """The value that is kept under a name, or None."""
        with self._reading() as connection:
            row = connection.execute("SELECT name, value, checksum FROM settings WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        check_row(row, f"the setting {name!r}", self.location)
        return str(row[1])

    def learned(self, base: str, contents: Iterable[str]) -> dict[str, bytes]:
        """What was learned for a base model, for each of the contents that has something."""
        select = "SELECT content, base, body, checksum FROM learned WHERE base = ? AND content IN"
        rows = self._of_many(select, contents, base)
        for row in rows:
            check_row(row, f"the learned value {row[0]!r}", self.location)
        return {content: body for content, _, body, _ in rows}

    def learned_elsewhere(self, base: str, contents: Iterable[str]) -> dict[str, str]:
        """For each of the contents that other base models have something of, one of these models."""
        return dict(self._of_many("SELECT content, base FROM learned WHERE base != ? AND content IN", contents, base))

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a table as they are kept; a text that is damaged comes with marks in place of what it held."""
        order = "ORDER BY revision" if table == "revisions" else ""
        with self._reading() as connection:
            connection.text_factory = lambda text: text.decode(errors="replace")
            try:
                yield from connection.execute(f"SELECT {', '.join(TABLES[table])} FROM {table} {order}")
            finally:
                connection.text_factory = str

    def damage(self) -> list[str]:
        """What SQLite's integrity check finds."""
        with self._reading() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def backup(self, path: str | Path) -> None:
        """Writes all there is to a new file, by SQLite's backup within one reading transaction, so none starts anew.

        Raises:
            StoreError: there is such a file already, or it cannot be written.
        """
        with self.snapshot(), self._explained("back up"), self._connections.lent() as connection:
            copy_file(connection, path)

    def scrub(self) -> None:
        """Writes the file anew without what was deleted, which writers wait for, and empties the write-ahead log.

        What the file system or the disk keeps of blocks that a file no longer has is beyond reach.

        Raises:
            StoreError: there is no space for a second copy, or another process has been reading for over a minute.
        """
        with self._connections.writing, self._explained("clean"), self._connections.lent() as connection:
            connection.execute("VACUUM")
            # where another process is moving the log into the file, SQLite does not wait for it
            deadline = time.monotonic() + _BUSY_SECONDS
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked")
                time.sleep(0.01)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SQLiteWriter]:
        """Holds the file for writing, waiting up to a minute for other processes."""
        with self._connections.writing, self._explained("write to"), self._connections.lent() as connection:
            _begin(connection)
            try:
                yield SQLiteWriter(connection)
                head = head_of(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._head is not None:
                self._head = head

    def close(self) -> None:
        """Closes the file."""
        self._connections.close()

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
        # what is deleted is overwritten
        connection.execute("PRAGMA secure_delete = ON")
        if version < FORMAT:
            _switch_to_wal(connection)
            migrate(connection)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._explained("read"), self._connections.lent() as connection:
            yield connection

    def _of_many(self, select: str, values: Iterable[str], *first: str) -> list[tuple[Any, ...]]:
        """The rows of a query that ends in `IN`, over any number of values."""
        wanted = list(dict.fromkeys(values))
        rows: list[tuple[Any, ...]] = []
        with self._reading() as connection:
            for start in range(0, len(wanted), ROWS_AT_ONCE):
                part = wanted[start : start + ROWS_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows += connection.execute(f"{select} ({marks})", (*first, *part))
        return rows

    def _select(self, condition: str, *values: object) -> list[Edit]:
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {_REVISION} FROM revisions WHERE {condition}", values).fetchall()
        return list(self._revisions(rows))

    def _check_count(
        self, connection: sqlite3.Connection, count: int, namespace: str | None, include_retired: bool
    ) -> None:
        """Compares how many edits were read with how many an index has that these were not read by.

        SQLite does not notice that a page has lost a row.
        """
        index = "newest_in_namespace" if include_retired else "newest_at_prompt"
        where = "first > 0" if include_retired else "active"
        values = () if namespace is None else (namespace,)
        where += "" if namespace is None else " AND namespace = ?"
        [there] = connection.execute(
            f"SELECT count(*) FROM newest INDEXED BY {index} WHERE {where}", values
        ).fetchone()
        if there != count:
            raise damaged(self.location, f"it has {there} edits, of which {count} are found")

    def _revisions(self, rows: Iterable[Sequence[Any]]) -> Iterator[Edit]:
        return (revision_of(row, self.location) for row in rows)

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the second where what SQLite says quotes damage
            raise StoreError(f"cannot {doing} the edit memory {self.location}: {_advice(error)}") from error


def _begin(connection: sqlite3.Connection) -> None:
    # SQLite's own waiting looks ever more seldom, up to ten times a second: beside one that writes again and again,
    # others would seldom find the file free
    deadline = time.monotonic() + _BUSY_SECONDS
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.0005, 0.003))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")


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


def _advice(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """What SQLite found, and what to do."""
    what = str(error)
    if "not a database" in what or "malformed" in what or "decode" in what:
        return f"{what}; it is no edit memory or is damaged, so name another file or restore a backup"
    if "readonly" in what or "unable to open" in what:
        return f"{what}; check that its folder exists and can be written, WAL mode writes beside the file"
    if "full" in what or "disk I/O" in what:
        return f"{what}; nothing was changed, so make sure that the disk is sound and has space, and try again"
    if "locked" in what:
        return f"{what}; another process has held it for over {_BUSY_SECONDS:.0f} s, so try again when it is done"
    return what

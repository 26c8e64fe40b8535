"""The edit store in a PostgreSQL database, for processes on many machines."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.pq import TransactionStatus

from semedit.edits import Edit
from semedit.errors import StoreError, StoreUnreachableError
from semedit.memory.backup import write_file
from semedit.memory.encoder import Vectors
from semedit.memory.postgres_connections import Connection, PostgresConnections, is_unreachable
from semedit.memory.postgres_schema import migrate
from semedit.memory.postgres_watch import Watch
from semedit.memory.postgres_writer import PostgresWriter, head_of
from semedit.memory.store import TABLES, Head, PromptKey, check_row, prompt_key, revision_of

_ROWS_AT_ONCE = 2_000
# a join with `semedit_newest` has two of some
_REVISION = ", ".join(f"log.{name}" for name in TABLES["revisions"])
_NEWEST = (
    f"SELECT {_REVISION}, newest.first FROM semedit_newest AS newest JOIN semedit_revisions AS log USING (revision)"
)


class PostgresStore:
    """The log in tables of a PostgreSQL database: readers never wait, writers wait for one another.

    The tables stand in the first schema of the URL's `search_path`. A process learns by LISTEN that others wrote, so
    `head` asks nobody, and follows other processes well within a second. While the server is away it stays where it
    was, and all else raises StoreUnreachableError.

    An acknowledged change is as durable as the server's `synchronous_commit` says.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, and what else libpq reads in a URL, or in its
            environment. The tables are made where there are none.
        cache: a folder for this replica's index, made where there is none, so that it opens without building it;
            several processes of a host may share it. None keeps none. An erased edit leaves it at the next call of any
            of them.

    Attributes:
        location: the URL without the password.
        cache: as above.

    Raises:
        StoreError: the URL cannot be read, or the tables were written by a newer version or cannot be opened or made.
        StoreUnreachableError: the server cannot be reached.
    """

    def __init__(self, url: str, cache: str | Path | None = None) -> None:
        self.cache = None if cache is None else Path(cache)
        self._connections = PostgresConnections(url)
        self.location = self._connections.location
        try:
            with self._connections.explained("open"):
                with self._connections.lent() as connection:
                    _check_encoding(connection, self.location)
                    migrate(connection, self.location)
                self._watch = Watch(self._connections)
        except BaseException:
            self._connections.close()
            raise
        self._close = weakref.finalize(self, _close, self._watch, self._connections)

    @property
    def staleness(self) -> float:
        """Seconds since this process last knew that no other was ahead of its head; 0.0 while it is connected."""
        return self._watch.staleness

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside belongs to one moment; within a transaction, to what it sees.

        Raises:
            StoreUnreachableError: the server is away, which is known without trying.
        """
        if self._connections.held is not None:
            yield
            return
        if self._watch.away:
            # nobody who catches up at a query should wait for a server that does not answer
            raise StoreUnreachableError(
                f"cannot read the edit memory {self.location}: its server was lost {self.staleness:.0f} s ago; see "
                "that it runs and can be reached, it is tried again every few seconds"
            )
        with self._reading() as connection, _block(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"):
            yield

    def head(self) -> Head:
        """How far the log is; outside a snapshot and a transaction, as far as this process was told."""
        if self._connections.held is None:
            self._connections.check_open()
            return self._watch.head
        with self._reading() as connection:
            return head_of(connection)

    def identity(self) -> str:
        """A random name that the tables were given when they were made."""
        [[store]] = self._rows("SELECT store FROM semedit_counter")
        return str(store)

    def changes_since(self, revision: int, limit: int | None = None) -> list[Edit]:
        """The revisions after that one, in order, or at most so many of them."""
        return self._select("revision > %s ORDER BY revision LIMIT %s", revision, limit)

    def history(self, edit_id: str) -> list[Edit]:
        """All revisions of one edit, in order."""
        return self._select("edit_id = %s ORDER BY revision", edit_id)

    def change(self, change: int) -> list[Edit]:
        """All revisions of one change, in order."""
        # a change is a run of revisions that begins with its own number
        return self._select("revision >= %s AND change = %s ORDER BY revision", change, change)

    def changes_backwards(self) -> Iterator[tuple[int, bool]]:
        """Each change that can be taken back, newest first, and whether it is an undo."""
        [[last]] = self._rows("SELECT revision FROM semedit_counter")
        while last:
            # not a join, which the planner takes for a long one where a bulk import was the last change it analysed
            [[change, action]] = self._rows(
                "SELECT change, action FROM semedit_revisions "
                "WHERE revision = (SELECT change FROM semedit_revisions WHERE revision = %s)",
                last,
            )
            [[any_left]] = self._rows(
                "SELECT EXISTS (SELECT 1 FROM semedit_revisions AS one JOIN semedit_newest AS newest USING (edit_id) "
                "JOIN semedit_revisions AS now ON now.revision = newest.revision "
                "WHERE one.revision BETWEEN %s AND %s AND now.action <> 'erase')",
                change,
                last,
            )
            if any_left:
                yield change, action == "undo"
            last = change - 1

    def newest(self, ids: Iterable[str]) -> dict[str, Edit]:
        """The newest revision of each of these edits that there is."""
        rows = self._of_many(f"{_NEWEST} WHERE newest.edit_id = ANY(%s)", ids)
        return {edit.id: edit for edit in self._revisions(rows)}

    def holding(self, prompts: Iterable[PromptKey]) -> dict[PromptKey, Edit]:
        """The active edit at each of these prompts that has one."""
        by_namespace: dict[str, list[str]] = {}
        for namespace, key in prompts:
            by_namespace.setdefault(namespace, []).append(key)
        select = f"{_NEWEST} WHERE newest.active AND newest.namespace = %s AND newest.prompt_key = ANY(%s)"
        edits = [
            edit
            for namespace, keys in by_namespace.items()
            for edit in self._revisions(self._of_many(select, keys, namespace))
        ]
        return {prompt_key(edit): edit for edit in edits}

    def edits(self, namespace: str | None = None, include_retired: bool = False) -> Iterator[Edit]:
        """The newest revision of each active edit, oldest edit first, read in portions."""
        where = "" if include_retired else " AND newest.active"
        values: tuple[str, ...] = ()
        if namespace is not None:
            where += " AND left(newest.namespace, 200) = left(%s, 200) AND newest.namespace = %s"
            values = (namespace, namespace)
        select = f"{_NEWEST} WHERE newest.first > %s{where} ORDER BY newest.first LIMIT {_ROWS_AT_ONCE}"
        first = 0
        while True:
            rows = self._rows(select, first, *values)
            yield from self._revisions(rows)
            if len(rows) < _ROWS_AT_ONCE:
                return
            first = rows[-1][-1]

    def vectors(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vector of each text that has one."""
        rows = self._of_many("SELECT text, vector, checksum FROM semedit_vectors WHERE text = ANY(%s)", texts)
        for row in rows:
            check_row(row, f"the vector of {row[0]!r}", self.location)
        return {text: np.frombuffer(blob, dtype="<f4") for text, blob, _ in rows}

    def encoder(self) -> str | None:
        """The fingerprint of the encoder that made the vectors."""
        [[fingerprint]] = self._rows("SELECT encoder FROM semedit_counter")
        return None if fingerprint is None else str(fingerprint)

    def setting(self, name: str) -> str | None:
        """The value that is kept under a name, or None."""
        rows = self._rows("SELECT name, value, checksum FROM semedit_settings WHERE name = %s", name)
        for row in rows:
            check_row(row, f"the setting {name!r}", self.location)
        return str(rows[0][1]) if rows else None

    def learned(self, base: str, contents: Iterable[str]) -> dict[str, bytes]:
        """What was learned for a base model, for each of the contents that has something."""
        select = "SELECT content, base, body, checksum FROM semedit_learned WHERE base = %s AND content = ANY(%s)"
        rows = self._of_many(select, contents, base)
        for row in rows:
            check_row(row, f"the learned value {row[0]!r}", self.location)
        return {content: body for content, _, body, _ in rows}

    def learned_elsewhere(self, base: str, contents: Iterable[str]) -> dict[str, str]:
        """For each of the contents that other base models have something of, one of these models."""
        select = "SELECT content, base FROM semedit_learned WHERE base <> %s AND content = ANY(%s)"
        return dict(self._of_many(select, contents, base))

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a table as they are kept, within `snapshot`."""
        order = "ORDER BY revision" if table == "revisions" else ""
        with self._reading() as connection, connection.cursor(f"rows_of_{table}", binary=True) as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            yield from cursor.execute(f"SELECT {', '.join(TABLES[table])} FROM semedit_{table} {order}")

    def damage(self) -> list[str]:
        """Nothing: PostgreSQL says at each reading what it finds wrong."""
        return []

    def backup(self, path: str | Path) -> None:
        """Writes all there is at one moment to a new SQLite memory file.

        Raises:
            StoreError: there is such a file already, or it cannot be written.
        """
        with self.snapshot():
            write_file(path, self.rows)

    def scrub(self) -> None:
        """Writes the tables anew without what was deleted, which others have to wait for, and their statistics.

        What the server keeps elsewhere is not reached: its write-ahead log until it is recycled, archives of that,
        standbys that are behind, dead rows of the catalogue `pg_statistic`, its own log where it logs statements,
        and backups. Nor are rows that a transaction can still see which began before the deletion and is not over.

        Raises:
            StoreError: there is no space for a second copy, or others have been reading for over a minute.
        """
        tables = ", ".join(f"semedit_{table}" for table in ("revisions", "newest", "vectors", "learned"))
        with self._connections.explained("clean"), self._connections.lent() as connection:
            connection.execute(f"VACUUM (FULL, ANALYZE) {tables}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[PostgresWriter]:
        """Holds the log for writing, waiting up to a minute for other writers."""
        with self._connections.explained("write to"), self._connections.lent() as connection:
            with _block(connection, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"):
                # Whoever holds the counter's row is the only writer until it commits, so changes are committed in
                # the order of their revisions.
                before = head_of(connection, "FOR UPDATE")
                yield PostgresWriter(connection)
                head = head_of(connection)
                if head != before:
                    connection.execute(
                        "SELECT pg_notify('semedit_' || store, %s) FROM semedit_counter", (" ".join(map(str, head)),)
                    )
                self._commit(connection)
            self._watch.moved(head)

    def close(self) -> None:
        """Closes all connections."""
        self._close()

    def _commit(self, connection: Connection) -> None:
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            if not is_unreachable(error):
                raise
            raise StoreUnreachableError(
                f"the connection to {self.location} was lost while a change was committed, so it may be kept or not; "
                "look at the edit's history before you make the change again"
            ) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connections.explained("read"), self._connections.lent() as connection:
            yield connection

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(query, values, binary=True).fetchall()

    def _of_many(self, query: str, values: Iterable[str], *first: str) -> list[tuple[Any, ...]]:
        """The rows of a query that ends in `ANY(%s)`, over any number of values."""
        # what holds a NUL was never written
        wanted = iter(dict.fromkeys(value for value in values if "\x00" not in value))
        rows: list[tuple[Any, ...]] = []
        while part := list(islice(wanted, _ROWS_AT_ONCE)):
            rows += self._rows(query, *first, part)
        return rows

    def _select(self, condition: str, *values: object) -> list[Edit]:
        rows = self._rows(f"SELECT {_REVISION} FROM semedit_revisions AS log WHERE {condition}", *values)
        return list(self._revisions(rows))

    def _revisions(self, rows: Iterable[Sequence[Any]]) -> Iterator[Edit]:
        return (revision_of(row, self.location) for row in rows)


@contextlib.contextmanager
def _block(connection: Connection, begin: str) -> Iterator[None]:
    """A transaction, rolled back unless it was committed inside."""
    connection.execute(begin)
    try:
        yield
    finally:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            # where the connection was lost, the server has done it
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")


def _check_encoding(connection: Connection, location: str) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"the database of {location} keeps texts as {encoding}, which has no place for most characters; make one "
            "with ENCODING 'UTF8'"
        )


def _close(watch: Watch, connections: PostgresConnections) -> None:
    watch.close()
    connections.close()

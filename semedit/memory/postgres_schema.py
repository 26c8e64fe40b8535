"""The tables of an edit memory in a PostgreSQL database, and how those of an earlier format become today's."""

from __future__ import annotations

from typing import Any

import psycopg

from semedit.errors import StoreError

# "semedit" in ASCII: the lock that those who make or migrate the tables take turns with
_LOCK = 0x73656D65646974

# What each format adds to the one before it. Append only: databases of every format are in use.
#
# A text may be longer than an entry of a B-tree (2,704 bytes), so texts are found by hash indexes, which know no
# UNIQUE; EXCLUDE is the same for them.
MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        # one counter row, updated in the transaction that appends, so that revisions have no gaps and no two orders
        "revisions and vectors",
        """
CREATE TABLE semedit_counter (
    revision BIGINT NOT NULL, epoch BIGINT NOT NULL, settings BIGINT NOT NULL, encoder TEXT, store TEXT NOT NULL
);
INSERT INTO semedit_counter VALUES (0, 0, 0, NULL, replace(gen_random_uuid()::text, '-', ''));
CREATE TABLE semedit_revisions (
    revision BIGINT PRIMARY KEY, change BIGINT NOT NULL, edit_id TEXT NOT NULL, action TEXT NOT NULL,
    time TEXT NOT NULL, author TEXT, body TEXT NOT NULL, previous BIGINT NOT NULL, checksum BIGINT NOT NULL
);
CREATE INDEX semedit_revisions_of_edit ON semedit_revisions USING hash (edit_id);
CREATE TABLE semedit_newest (
    first BIGINT PRIMARY KEY, edit_id TEXT NOT NULL, revision BIGINT NOT NULL, active BOOLEAN NOT NULL,
    namespace TEXT NOT NULL, prompt_key TEXT NOT NULL, EXCLUDE USING hash (edit_id WITH =)
);
CREATE INDEX semedit_newest_at_prompt ON semedit_newest USING hash (prompt_key) WHERE active;
CREATE INDEX semedit_newest_in_namespace ON semedit_newest (left(namespace, 200), first);
CREATE TABLE semedit_vectors (
    text TEXT NOT NULL, vector BYTEA NOT NULL, checksum BIGINT NOT NULL, EXCLUDE USING hash (text WITH =)
);
ALTER TABLE semedit_vectors ALTER vector SET STORAGE EXTERNAL;
CREATE TABLE semedit_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BIGINT NOT NULL);
CREATE TABLE semedit_learned (
    content TEXT NOT NULL, base TEXT NOT NULL, body BYTEA NOT NULL, checksum BIGINT NOT NULL,
    PRIMARY KEY (content, base)
);
ALTER TABLE semedit_learned ALTER body SET STORAGE EXTERNAL;
""",
    ),
)
FORMAT = len(MIGRATIONS)


def migrate(connection: psycopg.Connection[Any], location: str) -> None:
    """Makes the tables where there are none, or those of an earlier format today's, wholly or not at all.

    Raises:
        StoreError: they are of a newer format.
    """
    [[made]] = connection.execute("SELECT to_regclass('semedit_migrations') IS NOT NULL")
    version = _format_of(connection) if made else 0
    if version < FORMAT:
        with connection.transaction():
            # any number of processes may be doing this at the same moment
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS semedit_migrations (format INTEGER PRIMARY KEY, name TEXT NOT NULL)"
            )
            version = _format_of(connection)
            for number, (name, script) in enumerate(MIGRATIONS[version:], start=version + 1):
                connection.execute(script)
                connection.execute("INSERT INTO semedit_migrations VALUES (%s, %s)", (number, name))
    if version > FORMAT:
        raise StoreError(
            f"{location} was written by a newer semedit (format {version}, this one reads up to {FORMAT}); "
            "upgrade semedit to open it"
        )


def _format_of(connection: psycopg.Connection[Any]) -> int:
    [[version]] = connection.execute("SELECT coalesce(max(format), 0) FROM semedit_migrations")
    return int(version)

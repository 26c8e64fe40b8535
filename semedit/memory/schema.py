"""What stands in a memory file, and how a file of an earlier format becomes one of today's."""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x5E3ED17

# What each format adds to the one before it, from format 1. Append only: files of every format are in use.
MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        # one counter row, updated in the transaction that appends, so that revisions have no gaps and no two orders
        "revisions and vectors",
        """
CREATE TABLE counter (revision INTEGER NOT NULL, epoch INTEGER NOT NULL, encoder TEXT);
INSERT INTO counter VALUES (0, 0, NULL);
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY, change INTEGER NOT NULL, edit_id TEXT NOT NULL, action TEXT NOT NULL,
    time TEXT NOT NULL, author TEXT, body TEXT NOT NULL
);
CREATE INDEX revisions_of_edit ON revisions (edit_id, revision);
CREATE TABLE vectors (text TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
""",
    ),
    (
        "settings",
        """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
ALTER TABLE counter ADD COLUMN settings INTEGER NOT NULL DEFAULT 0;
""",
    ),
    (
        # by what it was learned from, so that an edit that comes back by an undo finds it again
        "learned",
        """
CREATE TABLE learned (
    content TEXT NOT NULL, base TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (content, base)
) WITHOUT ROWID;
""",
    ),
)
FORMAT = len(MIGRATIONS)


def format_of(connection: sqlite3.Connection) -> int:
    """The format of a file; 0 where it is new."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Makes an empty file, or one of an earlier format, a file of today's format, wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    # read while the file is held: another process may have been first
    version = format_of(connection)
    if version < FORMAT:
        for _, script in MIGRATIONS[version:]:
            for statement in script.split(";")[:-1]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")

"""What stands in a memory file, and how a file of an earlier format becomes one of today's."""

from __future__ import annotations

import json
import sqlite3

from semedit.edits import Edit
from semedit.memory.store import checksum, edit_of, prompt_key

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
    (
        # What a writer asks of the log, so that no process need keep all of it in its memory. Vectors now stand in the
        # order they came in: sorted by text, each took a page of its own, and a large import wrote all over the file.
        "newest and checksums",
        """
ALTER TABLE counter ADD COLUMN store TEXT NOT NULL DEFAULT '';
UPDATE counter SET store = lower(hex(randomblob(16)));
ALTER TABLE revisions ADD COLUMN previous INTEGER NOT NULL DEFAULT 0;
UPDATE revisions SET previous = ifnull((
    SELECT max(older.revision) FROM revisions AS older
    WHERE older.edit_id = revisions.edit_id AND older.revision < revisions.revision
), 0);
ALTER TABLE revisions ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE revisions SET checksum = checksum_of(revision, change, edit_id, action, time, author, body, previous);
ALTER TABLE vectors RENAME TO vectors_before;
CREATE TABLE vectors (text TEXT NOT NULL PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL);
INSERT INTO vectors SELECT text, vector, checksum_of(text, vector) FROM vectors_before;
DROP TABLE vectors_before;
CREATE TABLE newest (
    edit_id TEXT PRIMARY KEY, first INTEGER NOT NULL, revision INTEGER NOT NULL, active INTEGER NOT NULL,
    namespace TEXT NOT NULL, prompt_key TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO newest SELECT edit_id, ends.first, revision, active_in(body), namespace_in(body), prompt_key_in(body)
    FROM (SELECT min(revision) AS first, max(revision) AS last FROM revisions GROUP BY edit_id) AS ends
    JOIN revisions ON revision = ends.last;
CREATE INDEX newest_at_prompt ON newest (namespace, prompt_key) WHERE active;
CREATE INDEX newest_in_order ON newest (first);
CREATE INDEX newest_in_namespace ON newest (namespace, first);
""",
    ),
    (
        # A name now begins with what the value was learned from. The names before did not tell, so that no value
        # under them could be erased with its edit; they are learned anew.
        "learned by source, with checksums",
        """
DROP TABLE learned;
CREATE TABLE learned (
    content TEXT NOT NULL, base TEXT NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (content, base)
) WITHOUT ROWID;
""",
    ),
    (
        "settings with checksums",
        """
ALTER TABLE settings ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE settings SET checksum = checksum_of(name, value);
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
    _define_functions(connection)
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


def _define_functions(connection: sqlite3.Connection) -> None:
    """What the migrations call, of this package rather than of SQLite."""

    def of_body(body: str) -> Edit:
        return edit_of(json.loads(body), id="")

    connection.create_function("checksum_of", -1, checksum)
    connection.create_function("active_in", 1, lambda body: of_body(body).active)
    connection.create_function("namespace_in", 1, lambda body: of_body(body).namespace)
    connection.create_function("prompt_key_in", 1, lambda body: prompt_key(of_body(body))[1])

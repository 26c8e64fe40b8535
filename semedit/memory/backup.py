"""Copies of a memory while it is in use, as SQLite files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from semedit.errors import StoreError
from semedit.memory.schema import migrate
from semedit.memory.store import TABLES

# of SQLite; between two such steps an interrupt is heard
_PAGES_AT_ONCE = 1_000


def copy_file(connection: sqlite3.Connection, path: str | Path) -> None:
    """Copies a database as it stands in the transaction of its connection. Others go on writing."""
    # the moment is that of the transaction's first reading; without one, each write of others would begin it anew
    connection.execute("SELECT revision FROM counter").fetchone()
    with _new_file(Path(path)) as file, contextlib.closing(sqlite3.connect(file)) as target:
        connection.backup(target, pages=_PAGES_AT_ONCE)
        target.execute("PRAGMA journal_mode = WAL")  # which a memory without a file is not in


def write_file(path: str | Path, rows: Callable[[str], Iterable[tuple[Any, ...]]]) -> None:
    """Writes a memory file.

    Args:
        path: the file.
        rows: gives the rows of each table, see `EditStore.rows`.

    Raises:
        StoreError: the path is taken, or cannot be written.
    """
    try:
        with _new_file(Path(path)) as file, contextlib.closing(sqlite3.connect(file, isolation_level=None)) as target:
            target.execute("PRAGMA journal_mode = WAL")
            migrate(target)
            target.execute("BEGIN")
            for table, columns in TABLES.items():
                target.execute(f"DELETE FROM {table}")
                marks = ", ".join("?" * len(columns))
                target.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows(table))
            target.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"cannot write the backup {path}: {error}") from error


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file to write, which becomes that at `path` once it is whole and on the disk. Its owner alone may read it.

    Raises:
        StoreError: the path is taken, or cannot be written.
    """
    unfinished = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        if path.exists():
            raise StoreError(f"{path} is there already; name another file for the backup, or remove that one")
        unfinished.touch(mode=0o600, exist_ok=False)
        yield unfinished
        _flush(unfinished)
        unfinished.rename(path)
        _flush(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write the backup {path}: {error}") from error
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(OSError):  # where nothing could be written
                unfinished.with_name(unfinished.name + ending).unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Has what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

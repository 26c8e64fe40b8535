"""Which store a location names."""

from __future__ import annotations

from pathlib import Path

from semedit.errors import StoreError
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import EditStore


def open_store(location: str | Path | None) -> EditStore:
    """The store at a location: a PostgreSQL URL, the path of a SQLite file, or None for this process's memory alone.

    Raises:
        StoreError: it cannot be opened.
    """
    if not on_server(location):
        return SQLiteStore(location)
    try:
        from semedit.memory.postgres import PostgresStore  # psycopg is there for those who asked for it
    except ImportError as error:
        raise StoreError(
            f"a memory in PostgreSQL needs psycopg ({error}); install it: pip install 'semedit[postgres]'"
        ) from error
    return PostgresStore(str(location))


def on_server(location: str | Path | None) -> bool:
    """Whether a location is a PostgreSQL URL."""
    return isinstance(location, str) and location.startswith(("postgresql://", "postgres://"))

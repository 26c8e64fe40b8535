"""What the tests of the PostgreSQL store run in processes of their own; it imports little, so they begin at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.postgres import PostgresStore


def plain(id: str) -> Edit:
    return Edit(id=id, prompt=f"prompt of {id}", target=f"target of {id}")


def append(store: PostgresStore, *ids: str) -> list[Edit]:
    with store.transaction() as writer:
        return writer.append([plain(id) for id in ids])


def log(store: PostgresStore) -> list[tuple[int, str]]:
    return [(edit.revision, edit.id) for edit in store.changes_since(0)]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold in that time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows of the last of some statements."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements[:-1]:
            connection.execute(statement)
        cursor = connection.execute(statements[-1])
        return cursor.fetchall() if cursor.description else []


def add_when_told(url: str, together: Barrier, edit: Edit, vector: np.ndarray) -> None:
    with closing(PostgresStore(url)) as store:
        together.wait()
        with store.transaction() as writer:
            writer.put_vectors([edit.prompt], vector)
            writer.append([edit])
        together.wait()


def add_in_a_row(url: str, together: Barrier, writer: int, count: int) -> None:
    with closing(PostgresStore(url)) as store:
        together.wait()
        for i in range(count):
            [edit] = append(store, f"{writer} {i}")
            assert store.head().revision >= edit.revision


def follow(url: str, together: Barrier, count: int) -> None:
    """Reads a log by its head alone, until it has so many revisions."""
    with closing(PostgresStore(url)) as store:
        together.wait()
        seen: list[Edit] = []
        while len(seen) < count:
            if store.head().revision > len(seen):
                seen += store.changes_since(len(seen))
            time.sleep(0.001)
        assert [edit.revision for edit in seen] == list(range(1, count + 1))


def open_at_once(urls: list[str], together: Barrier) -> None:
    for url in urls:
        together.wait()
        PostgresStore(url).close()


def write_on_both_sides_of_a_fork(url: str, name: str) -> None:
    def sessions() -> int:
        [[count]] = sql(url, f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'")
        return int(count)

    store = PostgresStore(f"{url}&application_name={name}")
    append(store, "before")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction() as writer:
            writer.append([plain("of a thread")])
            held.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    idle = os.fork()
    if idle == 0:
        time.sleep(60)
        os._exit(1)
    child = os.fork()
    if child == 0:
        try:
            assert store.head().revision == 1
            assert log(store) == [(1, "before")]
            os.write(from_child, b".")
            os.read(to_child, 1)
            assert within(5, lambda: store.head().revision == 3)
            append(store, "of the child")
            assert store.head().revision == 4
            store.close()
            os.write(from_child, b".")
            os.read(to_child, 1)
            os._exit(0)
        finally:
            os._exit(1)
    os.read(to_parent, 1)
    free.set()
    thread.join(30)
    append(store, "of the parent")
    os.write(from_parent, b".")
    os.read(to_parent, 1)
    assert within(5, lambda: store.head().revision == 4)
    assert [id for _, id in log(store)] == ["before", "of a thread", "of the parent", "of the child"]
    assert sessions() >= 2
    store.close()
    # the children live, and keep none of their parent's connections and threads alive
    assert within(5, lambda: sessions() == 0)
    assert within(0.5, lambda: threading.active_count() == 1)
    os.write(from_parent, b".")
    assert os.waitpid(child, 0)[1] == 0
    os.kill(idle, signal.SIGKILL)
    os.waitpid(idle, 0)


def fork_in_a_transaction(url: str) -> None:
    store = PostgresStore(url)
    parent = os.getpid()
    try:
        with store.transaction() as writer:
            writer.append([plain("a")])
            child = os.fork()
    except StoreError:
        os._exit(0 if os.getpid() != parent else 1)
    if os.getpid() != parent:
        os._exit(1)  # it committed what its parent wrote
    assert os.waitpid(child, 0)[1] == 0
    assert log(store) == [(1, "a")]
    store.close()


def die_in_a_transaction_and_leave_a_child(url: str, path: Path) -> None:
    with PostgresStore(url).transaction() as writer:
        writer.append([plain("half")])
        if os.fork() == 0:
            path.with_suffix(".new").write_text(str(os.getpid()))
            path.with_suffix(".new").rename(path)
            time.sleep(60)
            os._exit(0)
        within(30, path.exists)
        os.kill(os.getpid(), signal.SIGKILL)

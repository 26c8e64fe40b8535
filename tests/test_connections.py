"""Threads of one process and its store: readers do not wait for writers, and a fork waits only for its time."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from fakes import WordEncoder

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.edit_memory import EditMemory
from semedit.memory.sqlite import SQLiteStore

# its children begin from a process that has no threads
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["semedit.memory.edit_memory", "fakes"])
SECONDS = 20  # after which a test gives up


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


@contextmanager
def writing(store: SQLiteStore) -> Iterator[None]:
    """Another thread is in the middle of a transaction, and commits it in the end."""
    begun, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction() as writer:
            writer.append([Edit(id="late", prompt="late", target="t")])
            begun.set()
            assert go_on.wait(SECONDS)

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(SECONDS)
    try:
        yield
    finally:
        go_on.set()
        thread.join()


def in_a_thread(call: Callable[[], object]) -> object:
    """What a call gives in a thread of its own; an error where it does not come back."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert results, "it waits"
    return results[0]


def test_readers_of_a_file_do_not_wait_for_a_writer_of_their_process(tmp_path: Path):
    with closing(SQLiteStore(tmp_path / "edits.db")) as store:
        memory = EditMemory(store, WordEncoder())
        memory.add("alpha", "t", id="alpha")
        with writing(store):
            assert in_a_thread(store.head) == (1, 1, 0)
            assert in_a_thread(lambda: [e.id for e in store.changes_since(0)]) == ["alpha"]
            assert in_a_thread(lambda: [e.id for e in memory.list()]) == ["alpha"]
            assert in_a_thread(lambda: [c.key for c in memory.search("alpha")]) == ["alpha"]
        assert store.head() == (2, 1, 0)


def test_searches_of_what_is_in_memory_alone_do_not_wait_for_a_writer():
    memory = EditMemory(None, WordEncoder())
    memory.add("alpha", "t")
    with writing(memory.store):
        assert in_a_thread(memory.store.head) == (1, 1, 0)
        assert in_a_thread(memory.count) == 1
        assert in_a_thread(lambda: [c.key for c in memory.search("alpha")]) == ["alpha"]
    assert memory.store.head() == (2, 1, 0)
    memory.close()


def test_a_snapshot_keeps_no_other_thread_waiting(tmp_path: Path):
    with closing(SQLiteStore(tmp_path / "edits.db")) as store, store.snapshot():
        assert store.head() == (0, 0, 0)
        in_a_thread(lambda: EditMemory(store, WordEncoder()).add("alpha", "t"))
        assert store.head() == (0, 0, 0)


def test_a_connection_is_used_again(tmp_path: Path):
    with closing(SQLiteStore(tmp_path / "edits.db")) as store:
        for _ in range(5):
            in_a_thread(store.head)
            EditMemory(store, WordEncoder()).add("alpha", "t")
        assert len(store._connections._idle) == 1


def test_what_is_lent_when_a_store_is_closed_is_closed_when_it_comes_back(tmp_path: Path):
    store = SQLiteStore(tmp_path / "edits.db")
    with store.snapshot():
        in_a_thread(store.close)
        connection = store._connections.held
        assert store.head() == (0, 0, 0)
    with pytest.raises(StoreError, match="was closed; open it again"):
        store.head()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def run(function: object, *args: object) -> None:
    process = CONTEXT.Process(target=function, args=args)
    process.start()
    process.join(3 * SECONDS)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0


def fork_while_a_thread_writes(path: Path) -> None:
    memory = EditMemory(path, WordEncoder())
    memory.add("before", "t")
    forks, over = 5, threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            memory.add_many([Edit(id=f"{number} {i}", prompt=f"{number} {i}", target="t") for i in range(20)])
            memory.search("before")
            number += 1
            time.sleep(0.005)

    threads = [threading.Thread(target=write), threading.Thread(target=lambda: over.wait() or memory.list())]
    for thread in threads:
        thread.start()
    for i in range(forks):
        child = os.fork()
        if child == 0:
            memory.add(f"child {i}", "t", namespace="children")
            found = memory.search(f"child {i}", namespaces=["children"])
            os._exit(0 if found[0].key == f"child {i}" and len(found) == min(i + 1, 5) else 1)
        assert os.waitpid(child, 0)[1] == 0
    over.set()
    for thread in threads:
        thread.join()
    assert memory.count(["children"]) == forks
    assert memory.count() > 20
    memory.close()


def test_a_fork_while_another_thread_writes_leaves_both_sides_working(tmp_path: Path):
    run(fork_while_a_thread_writes, tmp_path / "edits.db")
    with closing(SQLiteStore(tmp_path / "edits.db")) as store:
        revisions = [e.revision for e in store.changes_since(0)]
        assert revisions == list(range(1, len(revisions) + 1))


def fork_inside_a_transaction(path: Path) -> None:
    store = SQLiteStore(path)
    failed = ""
    try:
        with store.transaction() as writer:
            writer.append([Edit(id="half", prompt="p", target="t")])
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            writer.append([Edit(id="other half", prompt="q", target="t")])
    except StoreError as error:
        failed = str(error)
    assert "closed" in failed
    assert store.head() == (0, 0, 0)
    with store.transaction() as writer:
        writer.append([Edit(id="whole", prompt="p", target="t")])
    assert store.head() == (1, 0, 0)


def test_a_fork_inside_a_transaction_takes_it_back(tmp_path: Path):
    run(fork_inside_a_transaction, tmp_path / "edits.db")
    with closing(SQLiteStore(tmp_path / "edits.db")) as store:
        assert [e.id for e in store.changes_since(0)] == ["whole"]


class WatchedEncoder(WordEncoder):
    """Does something while it encodes one text, once."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: dict[str, Callable[[], object]] = {}

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        for text in texts:
            if text in self.meanwhile:
                self.meanwhile.pop(text)()
        return super().encode(texts, progress=progress)


@pytest.mark.parametrize("known_before", [True, False])
def test_others_write_and_search_while_texts_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_before: bool
):
    encoder = WatchedEncoder()
    memory = EditMemory(tmp_path / "edits.db", encoder)
    memory.add("alpha", "t")
    if not known_before:
        # as where another process drops a vector after it was looked for
        missing, first = memory._changes._missing, [True]
        monkeypatch.setattr(memory._changes, "_missing", lambda texts: [] if first and first.pop() else missing(texts))
    seen = []

    def write_and_search() -> None:
        seen.append(memory.add("beta", "t").revision)
        seen.append([c.key for c in memory.search("beta", k=1)])

    encoder.meanwhile["slow"] = lambda: in_a_thread(lambda: write_and_search() or True)
    slow = memory.add("slow", "t")
    assert seen == [2, ["beta"]]
    assert slow.revision == 3
    assert memory.search("slow", k=1)[0].edit == slow
    memory.close()

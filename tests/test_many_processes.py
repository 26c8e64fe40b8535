"""Real processes on one memory file: they see each other, wait for each other, die and fork without harm."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from fakes import WordEncoder
from processes import CONTEXT, started

from semedit.edits import Edit
from semedit.memory.edit_memory import EditMemory
from semedit.memory.sqlite import SQLiteStore

BULK = 1_000
FILES = 15


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edits.db"


def run(function: object, *args: object) -> None:
    process = started(function, *args)
    process.join()
    assert process.exitcode == 0


def add_one(path: Path, prompt: str, target: str) -> None:
    EditMemory(path, WordEncoder()).add(prompt, target, author=f"process {os.getpid()}")


def add_in_a_row(path: Path, together: Barrier, writer: int, count: int) -> None:
    together.wait()
    memory = EditMemory(path, WordEncoder())
    for i in range(count):
        memory.add(f"writer{writer} number{i}", "t", author=str(writer))
        assert len(memory.search(f"writer{writer}", k=1)) == 1


def import_file(path: Path, lines: Path) -> None:
    EditMemory(path, WordEncoder()).import_(lines)


def open_at_once(folder: Path, together: Barrier) -> None:
    for i in range(FILES):
        together.wait()
        SQLiteStore(folder / f"{i}.db").head()


def write_on_both_sides_of_a_fork(path: Path) -> None:
    memory = EditMemory(path, WordEncoder())
    memory.add("before the fork", "t")
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    child = os.fork()
    if child == 0:
        memory.add("first of the child", "t")
        os.write(from_child, b".")
        os.read(to_child, 1)
        # the parent has let go of the file meanwhile
        memory.add("second of the child", "t")
        os._exit(0)
    os.read(to_parent, 1)
    memory.add("by the parent", "t")
    assert [e.prompt for e in memory.list()] == ["before the fork", "first of the child", "by the parent"]
    memory.store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT revision FROM counter").fetchone() == (3,)
    os.write(from_parent, b".")
    assert os.waitpid(child, 0)[1] == 0


def test_an_edit_of_another_process_is_seen_on_the_next_call(path: Path):
    with closing(SQLiteStore(path)) as store:
        memory = EditMemory(store, WordEncoder())
        assert memory.search("Who runs Acme?") == []
        run(add_one, path, "Who runs Acme?", "Jane Doe")
        [candidate] = memory.search("Who runs Acme?")
        assert candidate.edit.target == "Jane Doe"
        assert candidate.edit.author not in (None, f"process {os.getpid()}")
        run(add_one, path, "Who runs Acme?", "John Roe")
        assert [c.edit.target for c in memory.search("Who runs Acme?")] == ["John Roe"]
        memory.undo()
        assert [c.edit.target for c in memory.search("Who runs Acme?")] == ["Jane Doe"]


def test_four_writers_leave_one_order_without_gaps(path: Path):
    together = CONTEXT.Barrier(4, timeout=60)
    writers = [started(add_in_a_row, path, together, writer, 25) for writer in range(4)]
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 4
    with closing(SQLiteStore(path)) as store:
        revisions = store.changes_since(0)
        assert [e.revision for e in revisions] == [e.change for e in revisions] == list(range(1, 101))
        assert [e.time for e in revisions] == sorted(e.time for e in revisions)
        for writer in "0123":
            own = [e.prompt for e in revisions if e.author == writer]
            assert own == [f"writer{writer} number{i}" for i in range(25)]
        assert len(EditMemory(store, WordEncoder()).search("writer0", k=200)) == 100


def test_processes_that_make_the_file_at_once_all_open_it(tmp_path: Path):
    together = CONTEXT.Barrier(5, timeout=60)
    processes = [started(open_at_once, tmp_path, together) for _ in range(5)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 5
    assert len(list(tmp_path.glob("*.db"))) == FILES


def left_by_a_kill(folder: Path, lines: Path, share: float) -> int:
    """How many edits an import leaves that dies when it has written a share of its vectors."""
    path, wal = folder / "edits.db", folder / "edits.db-wal"
    folder.mkdir()
    with closing(SQLiteStore(path)) as store:
        memory = EditMemory(store, WordEncoder())
        memory.add("Who runs Acme?", "Jane Doe")
        enough = wal.stat().st_size + share * BULK * WordEncoder.dim * 4
        process = started(import_file, path, lines)
        while process.is_alive() and wal.stat().st_size < enough:
            time.sleep(0.0005)
        process.kill()
        process.join()
        assert wal.stat().st_size >= enough, "the import was in the middle of writing"
        left = len(memory.list()) - 1
        assert process.exitcode == -signal.SIGKILL or left == BULK
    # with the last one who had it open gone, it opens as well, and takes what was lost
    with closing(SQLiteStore(path)) as store:
        memory = EditMemory(store, WordEncoder())
        assert len(memory.search("Who runs Acme?", k=2 * BULK)) == len(memory.list()) == 1 + left
        assert {e.outcome for e in memory.import_(lines)} == {"unchanged" if left else "added"}
        assert [e.revision for e in store.changes_since(0)] == list(range(1, BULK + 2))
    return left


def test_a_process_killed_in_a_bulk_import_leaves_all_or_none(tmp_path: Path):
    lines = tmp_path / "edits.jsonl"
    lines.write_text("".join(json.dumps({"prompt": f"Who runs firm{i}?", "target": "t"}) + "\n" for i in range(BULK)))
    chance = random.Random(11)
    shares = [0.02, *(chance.uniform(0.05, 0.95) for _ in range(6))]
    left = [left_by_a_kill(tmp_path / str(i), lines, share) for i, share in enumerate(shares)]
    assert set(left) <= {0, BULK}
    assert 0 in left, "every import was over before it died"


def test_a_process_that_dies_while_it_holds_the_file_keeps_nobody_waiting(path: Path):
    process = started(die_in_a_transaction, path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with closing(SQLiteStore(path)) as store:
        assert store.head() == (0, 0, 0)
        start = time.monotonic()
        assert EditMemory(store, WordEncoder()).add("Who runs Acme?", "Jane Doe").revision == 1
        assert time.monotonic() - start < 10


def die_in_a_transaction(path: Path) -> None:
    with SQLiteStore(path).transaction() as writer:
        writer.append([Edit(id="half", prompt="p", target="t")])
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_fork_writes_on_both_sides_and_nothing_is_lost(path: Path):
    run(write_on_both_sides_of_a_fork, path)
    with closing(SQLiteStore(path)) as store:
        assert [e.prompt for e in store.changes_since(0)] == [
            "before the fork",
            "first of the child",
            "by the parent",
            "second of the child",
        ]

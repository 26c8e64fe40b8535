"""Four processes write to one store and four read it: each reader sees every revision once and in order.

The full minute: python -m pytest tests/test_contention.py -m slow -s
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from oracle import assert_finds, newest
from processes import CONTEXT, started
from test_state import RandomEncoder, direction

from semedit.edits import Edit
from semedit.memory.edit_memory import EditMemory

WRITERS = READERS = 4
PAUSE = 0.0005  # seconds between two looks of a reader


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


def write(location: str, together: Barrier, number: int, seconds: float, answer: Connection) -> None:
    """Adds, changes and retires edits, one or several at a time; answers with the revisions that were acknowledged."""
    memory = EditMemory(location, RandomEncoder())
    together.wait()
    written: list[Edit] = []
    end = time.monotonic() + seconds
    step = 0
    while time.monotonic() < end:
        step += 1
        first, *rest = [
            Edit(id=f"{number}-{step}-{i}", prompt=f"prompt {i} of {number}, {step}", target="t", author=str(number))
            for i in range(1 + step % 5)
        ]
        written += memory.add_many([first, *rest])
        written.append(memory.update(first.id, target="new"))
        if step % 3 == 0:
            written.append(memory.retire(first.id))
    together.wait()
    memory.close()
    answer.send(written)


def follow(location: str, together: Barrier, number: int, seconds: float, answer: Connection) -> None:
    """Reads what is new, over and over, in the store and by searches; answers with all revisions that it came by."""
    memory = EditMemory(location, RandomEncoder())
    together.wait()
    seen: list[Edit] = []
    counts = [0]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen += memory.store.changes_since(len(seen), 100)
        counts.append(memory.store.head().revision)
        memory.search("anything", k=3)
        time.sleep(PAUSE)
    together.wait()  # for the last writer
    while more := memory.store.changes_since(len(seen)):
        seen += more
    assert counts == sorted(counts)
    assert memory.list(include_retired=True) == newest(seen)
    assert [memory.get(edit.id) for edit in newest(seen)[-100:]] == newest(seen)[-100:]
    # and by its own index, which followed through all of it
    assert_finds(memory, newest(seen), direction, "anything", ["default"])
    memory.close()
    answer.send(seen)


def answering(work: Callable[..., None], *args: object) -> None:
    """Does the work of a process; answers with what goes wrong, should it."""
    try:
        work(*args)
    except BaseException:
        args[-1].send(traceback.format_exc())


def contend(location: str, seconds: float) -> None:
    EditMemory(location, RandomEncoder()).close()
    together = CONTEXT.Barrier(WRITERS + READERS, timeout=seconds + 60)
    processes, pipes = [], []
    for work, count in ((write, WRITERS), (follow, READERS)):
        for number in range(count):
            answer, to_parent = CONTEXT.Pipe(duplex=False)
            processes.append(started(answering, work, location, together, number, seconds, to_parent))
            to_parent.close()
            pipes.append(answer)
    said = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    failures = [result for result in said if isinstance(result, str)]
    assert failures == [], failures[0]
    memory = EditMemory(location, RandomEncoder())
    log = memory.store.changes_since(0)
    assert [edit.revision for edit in log] == list(range(1, len(log) + 1))
    written, read = said[:WRITERS], said[WRITERS:]
    assert sorted((edit for each in written for edit in each), key=lambda edit: edit.revision) == log
    # each writer's own are in its own order, and between them are those of others
    for each in written:
        assert [edit.revision for edit in each] == sorted(edit.revision for edit in each)
        assert each[-1].revision - each[0].revision >= len(each)
    for each in read:
        assert each == log
    assert memory.verify().problems == ()
    memory.close()
    print(f"\n{len(log):,} revisions by {WRITERS} writers, read by {READERS} readers in {seconds:.0f} s")  # noqa: T201


def test_readers_of_a_file_miss_and_repeat_nothing(tmp_path: Path):
    contend(str(tmp_path / "edits.db"), 5)


def test_readers_of_a_server_miss_and_repeat_nothing(postgres_url: str):
    contend(postgres_url, 5)


@pytest.mark.slow
def test_a_minute_on_a_file(tmp_path: Path):
    contend(str(tmp_path / "edits.db"), 60)


@pytest.mark.slow
def test_a_minute_on_a_server(postgres_url: str):
    contend(postgres_url, 60)

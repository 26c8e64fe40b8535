"""Writers, and the server of their store, are killed at random moments: nothing acknowledged is lost, nothing is half.

The full numbers, with what was found: python -m pytest tests/test_crashes.py -m slow -s
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import postgres
import psycopg
import pytest
from crash_children import write
from oracle import assert_finds, changes, newest
from processes import CONTEXT, started
from test_state import RandomEncoder

from semedit.edits import Edit
from semedit.memory.edit_memory import EditMemory

WRITERS = 2
LONGEST = 0.25  # seconds from one kill to the next
KILLS_OF_A_CHECK = 5
KILLS_OF_A_STORE = 20


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


@pytest.fixture(scope="module")
def durable_server() -> Iterator[postgres.Server]:
    """A server that keeps its word through a loss of power."""
    with postgres.running(fsync="on", synchronous_commit="on") as server:
        yield server


class Writers:
    """Processes that write to one store until they are killed, and what was acknowledged to them.

    Attributes:
        acknowledged: revisions as they were given back, by number.
        killed: how many processes, by what they were.
    """

    def __init__(self, location: str, folder: Path, chance: random.Random, killed: Counter[str]) -> None:
        self.acknowledged: dict[int, Edit] = {}
        self.killed = killed
        self._location = location
        self._folder = folder
        self._chance = chance
        self._running: dict[Connection, BaseProcess] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> None:
        answer, answering = CONTEXT.Pipe(duplex=False)
        process = started(write, self._location, self._folder, self._chance.randrange(10**6), answering)
        answering.close()
        self._running[answer] = process

    def hear(self, seconds: float) -> None:
        """Listens to all of them for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for answer in wait(list(self._running), left):
                self._take(answer)

    def kill(self) -> None:
        """Kills one of them."""
        answer, process = self._chance.choice(list(self._running.items()))
        assert process.is_alive()
        process.kill()
        process.join()
        # what it said before it died is in the pipe, and then the end, which may be in the middle of an answer
        try:
            while True:
                self._take(answer)
        except (EOFError, OSError):
            answer.close()
        del self._running[answer]
        self.killed["writer"] += 1

    def _take(self, answer: Connection) -> None:
        said = answer.recv()
        assert not isinstance(said, str), said
        self.acknowledged.update({edit.revision: edit for edit in said})


def check(location: str, acknowledged: dict[int, Edit]) -> int:
    """Compares a store that nobody has open with what was acknowledged, and its index with exact search."""
    memory = EditMemory(location, RandomEncoder())
    try:
        log = memory.store.changes_since(0)
        assert [edit.revision for edit in log] == list(range(1, len(log) + 1))
        lost = [number for number, edit in acknowledged.items() if number > len(log) or log[number - 1] != edit]
        assert lost == []
        assert_whole(log)
        assert memory.verify().problems == ()
        assert memory.list(include_retired=True) == newest(log)
        vectors = memory.store.vectors(text for edit in newest(log) if edit.active for text in edit.texts)
        for names in (["a"], ["b", "a"]):
            assert_finds(memory, newest(log), vectors.__getitem__, f"near {len(log)}", names)
        return len(log)
    finally:
        memory.close()


def assert_whole(log: list[Edit]) -> None:
    """Each change has all its revisions: as many as its author says, or those of the change that it takes back."""
    done: list[list[Edit]] = []
    for change in changes(log):
        kind, *count = str(change[0].author).split()
        if kind == "undo":
            undone = done.pop()
            assert [edit.id for edit in change] == [edit.id for edit in undone]
        else:
            assert len(change) == (int(count[0]) if count else 1)
            done.append(change)


def crash(
    location: str,
    kills: int,
    chance: random.Random,
    killed: Counter[str],
    kill_more: Callable[[], str | None] = lambda: None,
    recover: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Kills writers of a new store; gives how many revisions it then has, and how many of them were acknowledged.

    Args:
        location: the store.
        kills: how many.
        chance: decides whom and when.
        killed: counts them.
        kill_more: may kill something else in place of a writer, and then says what.
        recover: waits until the store can be opened.
    """
    revisions = 0
    unfinished: set[Path] = set()
    with tempfile.TemporaryDirectory() as folder:
        writers = Writers(location, Path(folder), chance, killed)
        try:
            for kill in range(1, kills + 1):
                while len(writers) < WRITERS:
                    writers.start()
                writers.hear(chance.uniform(0.01, LONGEST))
                if (what := kill_more()) is not None:
                    killed[what] += 1
                    writers.hear(0.02)
                else:
                    writers.kill()
                unfinished |= set(Path(f"{location}.index").glob("*.new"))
                if kill % KILLS_OF_A_CHECK == 0 or kill == kills:
                    while len(writers):
                        writers.kill()
                    recover()
                    revisions = check(location, writers.acknowledged)
        finally:
            while len(writers):
                writers.kill()
    if unfinished:
        killed["(of these while writing a snapshot)"] += len(unfinished)
    return revisions, len(writers.acknowledged)


def server_too(server: postgres.Server, chance: random.Random) -> str | None:
    """Kills the server, or the process of it that serves a writer, now and then; says which."""
    what = chance.choice(["", "", "", "backend", "server"])
    if what == "server":
        server.kill()
        time.sleep(chance.uniform(0, 0.3))
        server.start_again()
        return what
    if what == "backend":
        server.recover()
        with psycopg.connect(server.url, autocommit=True) as connection:
            backends = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'semedit'"
            ).fetchall()
        if backends:
            os.kill(chance.choice(backends)[0], signal.SIGKILL)
            return what
    return None


def report(what: str, killed: Counter[str], kept: list[tuple[int, int]]) -> None:
    kills = ", ".join(f"{victim} {count}" for victim, count in killed.items())
    revisions, heard = (sum(column) for column in zip(*kept, strict=True))
    print(f"\n{what}: killed {kills}; {revisions:,} revisions, {heard:,} of them acknowledged, none lost")  # noqa: T201


def crash_sqlite(folder: Path, seed: int, stores: int, kills: int) -> Counter[str]:
    """Kills so many of each of so many stores, besides those that a check ends; counts them."""
    killed: Counter[str] = Counter()
    kept = []
    for store in range(stores):
        chance = random.Random(f"{seed} {store}")
        kept.append(crash(str(folder / f"{store}.db"), kills, chance, killed))
    report("SQLite", killed, kept)
    assert all(heard > kills for _, heard in kept), "the writers wrote next to nothing"
    return killed


def crash_postgres(server: postgres.Server, seed: int, stores: int, kills: int) -> Counter[str]:
    """The same on a server, which is among those that are killed."""
    killed: Counter[str] = Counter()
    kept = []
    for store in range(stores):
        chance = random.Random(f"{seed} {store}")
        with postgres.schema(server.url) as url:
            kept.append(crash(url, kills, chance, killed, partial(server_too, server, chance), server.recover))
    report("PostgreSQL", killed, kept)
    assert all(heard > kills for _, heard in kept), "the writers wrote next to nothing"
    return killed


def test_killed_writers_of_a_file_lose_nothing_and_leave_nothing_half(tmp_path: Path):
    killed = crash_sqlite(tmp_path, 0, 1, 15)
    assert killed["writer"] >= 15


def test_killed_writers_and_servers_lose_nothing_and_leave_nothing_half(durable_server: postgres.Server):
    killed = crash_postgres(durable_server, 3, 1, 10)
    assert min(killed["writer"], killed["backend"], killed["server"]) > 0


@pytest.mark.slow
def test_two_hundred_kills_on_a_file(tmp_path: Path):
    killed = crash_sqlite(tmp_path, 1, 10, 20)
    assert killed["writer"] >= 200
    assert killed["(of these while writing a snapshot)"] > 0


@pytest.mark.slow
def test_two_hundred_kills_on_a_server(durable_server: postgres.Server):
    killed = crash_postgres(durable_server, 1, 10, 24)
    assert killed["writer"] + killed["backend"] + killed["server"] >= 200
    assert min(killed["backend"], killed["server"]) >= 20

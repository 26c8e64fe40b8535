"""The scale benchmark's writing, and how soon and how steadily other processes and threads see what is written."""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import postgres

from harness import timed
from scale_data import ALL, Numbered, query, questions_as
from scale_search import K, settle, working
from semedit import Edit, EditMemory

SINGLES = 200
QUIET_SECONDS = 10.0
WARM_UP = 100
PAUSE_SECONDS = 0.001  # between queries
BAR_SECONDS = 0.05  # that an import may keep a query waiting
_SPAWN = multiprocessing.get_context("spawn")


def locations(folder: Path) -> Iterator[tuple[str, str]]:
    """The stores that there are to measure, each while it can be reached: its name and an empty location."""
    yield "SQLite", str(folder / "stores.db")
    programs = postgres.programs()
    if programs is None:
        print("PostgreSQL is left out: install Debian's postgresql", flush=True)
        return
    with tempfile.TemporaryDirectory(prefix="semedit-postgres-", ignore_cleanup_errors=True) as path:
        server = postgres.Server(programs, Path(path), fsync="on")
        with server.guard():
            server.start()
            yield "PostgreSQL", server.url


def writing(location: str, vectors: Path, bulk: int) -> dict[str, Any]:
    """Edits per second, one by one and at once, into a memory that is empty."""
    memory = EditMemory(location, Numbered(vectors))
    singles = questions_as(SINGLES, bulk)
    times = [timed(memory.add_many, [edit])[0] for edit in singles]
    bulk_seconds, _ = timed(memory.add_many, questions_as(bulk))
    settle()
    memory.close()
    return {
        "single_per_second": SINGLES / sum(times),
        "single_seconds": percentiles(times),
        "bulk": bulk,
        "bulk_per_second": bulk / bulk_seconds,
    }


def visibility(location: str, vectors: Path, start: int) -> dict[str, float]:
    """Seconds from an edit's acknowledgement until another process, which looks all the time, searches through it."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_watch, args=(location, vectors, theirs))
    process.start()
    memory = EditMemory(location, Numbered(vectors))
    ours.recv()
    added = []
    for edit in questions_as(SINGLES, start):
        memory.add_many([edit])
        added.append(time.monotonic())  # one clock for all processes
        time.sleep(random.uniform(0.0, 0.02))
    seen = ours.recv()
    process.join()
    memory.close()
    # an edit may be seen before whoever added it is told
    return percentiles([max(0.0, there - here) for here, there in zip(added, seen, strict=True)])


def serving(location: str, vectors: Path, bulk: int, start: int) -> dict[str, Any]:
    """Query times while nothing else is done, while a thread imports, and while another process does."""
    memory = EditMemory(location, Numbered(vectors))
    settle()
    for number in range(WARM_UP):
        memory.search(query(number), k=K, namespaces=ALL)
    quiet_until = time.monotonic() + QUIET_SECONDS
    figures = {"quiet": _query_while(memory, lambda: time.monotonic() < quiet_until)}
    with ThreadPool(1) as pool:
        imported = pool.apply_async(_add, (memory, questions_as(bulk, start)))
        figures["thread"] = _query_while(memory, lambda: not imported.ready() or working())
        imported.get()  # raises what it raised
    with _SPAWN.Pool(1) as pool:
        pool.apply(questions_as, (0,))  # modules are loaded before the clock runs
        imported = pool.apply_async(_import, (location, vectors, bulk, start + bulk))
        figures["process"] = _query_while(memory, lambda: not imported.ready() or working())
        imported.get()
    memory.close()
    return figures


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """What half, 95 and 99 of a hundred take at most, and the longest."""
    half, most, nearly_all = np.percentile(seconds, (50, 95, 99))
    return {"p50": float(half), "p95": float(most), "p99": float(nearly_all), "max": max(seconds)}


def _query_while(memory: EditMemory, goes_on: Callable[[], bool]) -> dict[str, float]:
    times = []
    while goes_on():
        times.append(timed(memory.search, query(len(times)), k=K, namespaces=ALL)[0])
        time.sleep(PAUSE_SECONDS)
    return {**percentiles(times), "queries": len(times), "over_bar": sum(seconds > BAR_SECONDS for seconds in times)}


def _watch(location: str, vectors: Path, pipe: Connection) -> None:
    """Sends when each of the next edits was seen."""
    memory = EditMemory(location, Numbered(vectors))
    known = memory.count(ALL)
    seen: list[float] = []
    pipe.send("ready")
    while len(seen) < SINGLES:
        new = memory.count(ALL) - known - len(seen)
        seen += [time.monotonic()] * new
        time.sleep(PAUSE_SECONDS)
    pipe.send(seen)
    memory.close()


def _import(location: str, vectors: Path, bulk: int, start: int) -> None:
    memory = EditMemory(location, Numbered(vectors))
    memory.add_many(questions_as(bulk, start))
    memory.close()


def _add(memory: EditMemory, edits: list[Edit]) -> None:
    # what add_many gives back is not kept: so many objects make Python's garbage collection stop all threads for long
    memory.add_many(edits)

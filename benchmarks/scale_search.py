"""The scale benchmark's search beside exact search, and what opening a memory takes."""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from harness import summary, timed
from scale_data import ALL, NAMESPACES, QUERIES, Numbered, namespace_of, query, questions_as
from semedit import EditMemory
from semedit.memory.encoder import Vectors
from semedit.router import CANDIDATES as K

BATCH = 32
AT_ONCE = 100_000  # edits of one import
_SPAWN = multiprocessing.get_context("spawn")


def fill(file: Path, vectors: Path, start: int, size: int) -> None:
    """Adds edits until a memory has so many, in a process of its own."""
    _alone(_fill, file, vectors, start, size)


def opening(file: Path, vectors: Path, empty: Path) -> dict[str, Any]:
    """What it takes to open a file without its snapshot, and again with the one that this leaves behind."""
    folder = Path(f"{file}.index")
    shutil.rmtree(folder, ignore_errors=True)
    rebuilt = _alone(_open, file, vectors, empty)
    figures = {"rebuilt": rebuilt, "disk_bytes_per_edit": file.stat().st_size / rebuilt["edits"]}
    if not (folder / "manifest").exists():
        return figures  # too small for one
    opened = _alone(_open, file, vectors, empty)
    saved = sum(path.stat().st_size for path in folder.iterdir())
    return figures | {
        "opened": opened,
        "times_faster": rebuilt["seconds"] / opened["seconds"],
        "times_faster_than_settled": rebuilt["settled_seconds"] / opened["seconds"],
        "snapshot_bytes_per_edit": saved / opened["edits"],
    }


def searching(file: Path, vectors: Path, size: int, rounds: int) -> dict[str, Any]:
    """The recall and the times of searches through all namespaces."""
    return _alone(_search, file, vectors, [(ALL, np.arange(size))], rounds)[0]


def searching_namespaces(file: Path, vectors: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    """The same for each namespace, beside exact search through that namespace alone."""
    numbers = np.arange(size)
    spaces = [(name, numbers[[namespace_of(i) == name for i in range(size)]]) for name in NAMESPACES]
    figures = _alone(_search, file, vectors, [((name,), own) for name, own in spaces], rounds)
    return [{"namespace": name, "edits": len(own), **each} for (name, own), each in zip(spaces, figures, strict=True)]


def settle() -> None:
    """Waits for what memories of this process do in the background."""
    while working():
        time.sleep(0.01)


def working() -> bool:
    """Whether a memory of this process does something in the background."""
    return any(thread.name == "semedit memory" for thread in threading.enumerate())


def resident() -> dict[str, int]:
    """Bytes of this process in memory: its own, and those of files that are mapped, which the system may drop."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    kilobytes = {name: int(value) for name, value, *_ in map(str.split, lines)}
    own = 1024 * kilobytes["Anonymous:"]
    return {"anonymous": own, "mapped": 1024 * kilobytes["Rss:"] - own}


def peak() -> int:
    """The most bytes that this process has had in memory."""
    [line] = [line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in line]
    return 1024 * int(line.split()[1])


def _alone(function: Any, *args: Any) -> Any:
    """The result of a call in a fresh process."""
    with _SPAWN.Pool(1) as pool:
        return pool.apply(function, args)


def _fill(file: Path, vectors: Path, start: int, size: int) -> None:
    memory = EditMemory(file, Numbered(vectors))
    for number in range(start, size, AT_ONCE):
        memory.add_many(questions_as(min(AT_ONCE, size - number), number))
    memory.close()


def _open(file: Path, vectors: Path, empty: Path) -> dict[str, Any]:
    encoder = Numbered(vectors)
    memory = EditMemory(empty, encoder)  # whatever is loaded at the first use is loaded now
    memory.add("Who is in the warm-up 0", "nobody")
    memory.search(query(0))
    memory.close()
    before = resident()
    began = time.perf_counter()
    memory = EditMemory(file, encoder)
    seconds = time.perf_counter() - began
    first_seconds, _ = timed(memory.search, query(0), k=K, namespaces=ALL)
    settle()
    settled_seconds = time.perf_counter() - began
    for number in range(QUERIES):
        memory.search(query(number), k=K, namespaces=ALL)
    edits = memory.count(ALL)
    grown = {f"{name}_bytes_per_edit": (value - before[name]) / edits for name, value in resident().items()}
    memory.close()
    return {
        "edits": edits,
        "peak_bytes_per_edit": (peak() - sum(before.values())) / edits,
        "seconds": seconds,
        "first_search_seconds": first_seconds,
        "settled_seconds": settled_seconds,
        **grown,
    }


def _search(
    file: Path, vectors: Path, spaces: Sequence[tuple[Sequence[str], np.ndarray]], rounds: int
) -> list[dict[str, Any]]:
    encoder = Numbered(vectors)
    memory = EditMemory(file, encoder)
    settle()
    figures = []
    for namespaces, numbers in spaces:
        exact = faiss.IndexFlatIP(encoder.dim)
        exact.add(np.ascontiguousarray(encoder.vectors[QUERIES + numbers]))
        figures.append(_compare(memory, namespaces, exact, numbers, rounds))
    memory.close()
    return figures


def _compare(
    memory: EditMemory, namespaces: Sequence[str], exact: Any, numbers: np.ndarray, rounds: int
) -> dict[str, Any]:
    """The recall, and the times of single queries and of batches beside exact search of the same."""

    def exactly(queries: Vectors) -> list[list[int]]:
        found: list[list[int]] = numbers[exact.search(queries, min(K, len(numbers)))[1]].tolist()
        return found

    def by_memory(texts: Sequence[str]) -> list[list[int]]:
        rows = memory.nearest(texts, k=K, namespaces=namespaces)
        return [[int(candidate.edit.id.removeprefix("edit-")) for candidate in row] for row in rows]

    texts = [query(number) for number in range(QUERIES)]
    vectors = memory.encoder.encode(texts)
    pairs = zip(by_memory(texts), exactly(vectors), strict=True)
    figures: dict[str, Any] = {"recall": statistics.fmean(len({*got} & {*right}) / len(right) for got, right in pairs)}
    for name, size, turns in (("one", 1, rounds), ("batch", BATCH, max(3, rounds // 8))):
        times = []
        for turn in range(turns):
            some = slice(turn * size % (QUERIES - size), turn * size % (QUERIES - size) + size)
            times.append((timed(exactly, vectors[some])[0], timed(by_memory, texts[some])[0]))
        figures[name] = {
            "times_faster": summary(slow / fast for slow, fast in times),
            "seconds": summary(fast for _, fast in times),
            "exact_seconds": summary(slow for slow, _ in times),
        }
    return figures

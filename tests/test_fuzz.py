"""Damaged files: each is refused with a message of our own, or read rightly; never a wrong answer, never a crash.

The full number, with what came of it: python -m pytest tests/test_fuzz.py -m slow -s
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from oracle import changes, exact_search, newest
from processes import CONTEXT, started
from test_state import NOW, RandomEncoder, direction, edit

from semedit.edits import Edit
from semedit.errors import SemeditError
from semedit.memory import merging, snapshot
from semedit.memory.checks import write_jsonl
from semedit.memory.edit_memory import EditMemory

SECONDS = 60  # for one case, each in a process of its own, which a crash of SQLite or FAISS would end
PAGE = 4096
OURS, THEIRS = "ours", "theirs"
QUERIES = ("anything", "key 0 of 7, version 0", "something else")
# a state that a memory may be in: whose log it has, and up to which revision
Place = tuple[str, int]


@pytest.fixture(autouse=True)
def no_network() -> None:
    """The network is not refused here: processes are started through a socket of this machine."""


# --- memories to be damaged


def fill(memory: EditMemory, chance: random.Random, base: int) -> None:
    """A life of some 60 changes."""
    memory.set_settings({"threshold": "0.5"})
    memory.add_many([edit(base + i, "ab"[i % 2], 1 + i % 3, i % 2) for i in range(60)])
    for i in range(60, 80):
        memory.add_many([edit(base + i, "ab"[i % 2], 1 + i % 3)])
        active = [one.id for name in "ab" for one in memory.list(namespace=name)]
        memory.update(chance.choice(active), target=f"target {i}")
        if i % 3 == 0:
            memory.retire(chance.choice(active))
        if i % 5 == 0:
            memory.undo()


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """A state has several parts, and is saved, though it is small."""
    before = merging.SMALL, snapshot.FAR
    merging.SMALL, snapshot.FAR = 16, 30
    try:
        yield
    finally:
        merging.SMALL, snapshot.FAR = before


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two memories, each closed and, as a crash leaves it, open; the first one's edits as JSON lines; and the logs."""
    folder = tmp_path_factory.mktemp("sound")
    with small_sizes():
        for base, name in ((0, OURS), (1_000, THEIRS)):
            memory = EditMemory(folder / f"{name}.db", RandomEncoder())
            fill(memory, random.Random(base), base)
            (folder / f"{name}-open").mkdir()
            for ending in ("", "-wal", "-shm"):
                shutil.copy(folder / f"{name}.db{ending}", folder / f"{name}-open" / f"edits.db{ending}")
            memory.export(folder / f"{name}.jsonl")
            memory.close()
            (folder / f"{name}-closed").mkdir()
            shutil.move(folder / f"{name}.db", folder / f"{name}-closed" / "edits.db")
            shutil.move(folder / f"{name}.db.index", folder / f"{name}-closed" / "edits.db.index")
            for state in ("open", "closed"):
                assert (folder / f"{name}-{state}" / "edits.db-wal").exists() == (state == "open")
    return folder


@pytest.fixture(scope="session")
def logs(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Edit]]:
    """The log of each."""
    found = {}
    for name in (OURS, THEIRS):
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(sound / f"{name}-closed" / "edits.db", folder)
        memory = EditMemory(folder / "edits.db", RandomEncoder())
        found[name] = memory.store.changes_since(0)
        memory.close()
    assert len(found[OURS]) > 100
    assert not {one.id for one in found[OURS]} & {one.id for one in found[THEIRS]}
    return found


# --- damage


def damage(path: Path, foreign: Sequence[Path], chance: random.Random) -> str:
    """Damages a file; says how."""
    data = bytearray(path.read_bytes())
    how = chance.choice(
        ["cut", "flip", "flip", "flip at a page's head", "scribble", "zeros", "foreign", "empty", "longer"]
    )
    start = chance.randrange(max(1, len(data)))
    if how == "cut":
        del data[start:]
    elif how == "flip" and data:
        for _ in range(chance.choice([1, 1, 2, 8])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "flip at a page's head" and data:
        at = chance.randrange(0, len(data), PAGE) + chance.randrange(64)
        data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
    elif how in ("scribble", "zeros"):
        end = min(len(data), start + chance.choice([4, 64, PAGE]))
        data[start:end] = chance.randbytes(end - start) if how == "scribble" else bytes(end - start)
    elif how == "foreign":
        other = chance.choice([*foreign, None])
        how += f": {other and other.parent.name}"
        data = bytearray(b"These are notes of mine. " * 400 if other is None else other.read_bytes())
    elif how == "empty":
        data.clear()
    elif how == "longer":
        data += chance.randbytes(chance.choice([1, PAGE]))
    path.write_bytes(data)
    return how


def damaged_store(sound: Path, folder: Path, chance: random.Random) -> str:
    """A memory with a damaged file; says which, and how."""
    state = chance.choice(["closed", "open"])
    shutil.copytree(sound / f"{OURS}-{state}", folder)
    if chance.random() < 0.5:
        shutil.rmtree(folder / "edits.db.index", ignore_errors=True)
    name = (
        "edits.db"
        if state == "closed"
        else chance.choice(["edits.db", "edits.db-wal", "edits.db-wal", "edits.db-shm"])
    )
    foreign = [sound / f"{THEIRS}-{state}" / name, sound / f"{OURS}.jsonl"]
    how = damage(folder / name, foreign, chance)
    return f"{name} ({state}), {how}"


def damaged_snapshot(sound: Path, folder: Path, chance: random.Random) -> str:
    """A memory whose saved index is damaged; says how."""
    shutil.copytree(sound / f"{OURS}-closed", folder)
    index = folder / "edits.db.index"
    files = sorted(index.iterdir())
    path = chance.choice([index / "manifest", index / "lock", *files, *files, *files])
    how = chance.choice(["damage", "damage", "damage", "damage", "swap", "gone", "all foreign", "a folder"])
    theirs = sound / f"{THEIRS}-closed" / "edits.db.index"
    if how == "damage":
        how = damage(path, [theirs / "manifest", *sorted(theirs.iterdir()), *files], chance)
    elif how == "swap":
        other = chance.choice([file for file in files if file != path])
        between = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(between)
    elif how == "all foreign":
        shutil.rmtree(index)
        shutil.copytree(theirs, index)
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
    return f"{path.name}, {how}"


# --- what is read


def readings(logs: dict[str, list[Edit]]) -> list[tuple[str, ...]]:
    """What there is to read, each reading by its name and what it is of."""
    ids = sorted({one.id for log in logs.values() for one in log})
    return [
        ("list",),
        ("list of all",),
        ("log",),
        *(("search", query, names) for query in QUERIES for names in ("a", "ab", "c")),
        *((of, id) for id in ids for of in ("newest", "history")),
    ]


def read(memory: EditMemory, what: str, of: str = "", names: str = "") -> object:
    """A reading of a memory."""
    if what == "list":
        return memory.list()
    if what == "list of all":
        return memory.list(include_retired=True)
    if what == "log":
        return memory.store.changes_since(0)
    if what == "search":
        return [(c.edit, c.key) for c in memory.search(of, k=1_000, namespaces=list(names))]
    if what == "newest":
        return memory.store.newest([of]).get(of)
    return memory.store.history(of)


def expected(log: list[Edit], what: str, of: str = "", names: str = "") -> object:
    """What that reading of a sound memory gives."""
    if what == "list":
        return [one for one in newest(log) if one.active]
    if what == "list of all":
        return newest(log)
    if what == "log":
        return log
    if what == "search":
        return [found[:2] for found in exact_search(newest(log), direction, direction(of), list(names))]
    own = [one for one in log if one.id == of]
    if what == "newest":
        return own[-1] if own else None
    return own


def look(folder: Path, logs: dict[str, list[Edit]], places: set[Place], answer: Connection) -> None:
    """Reads a memory that may be damaged; answers with how often it refused, or with what went wrong."""
    try:
        with small_sizes():
            answer.send(len(refusals_of(folder, logs, places)))
    except BaseException:
        answer.send(traceback.format_exc())


def refusals_of(folder: Path, logs: dict[str, list[Edit]], places: set[Place]) -> list[str]:
    """What a memory refused to do. All that it read is right for one of the states that it may be in."""
    refusals: list[str] = []

    def tried(do: Callable[[], Any]) -> Any:
        try:
            return do()
        except SemeditError as error:
            refusals.append(str(error))
            return None

    memory = tried(lambda: EditMemory(folder / "edits.db", RandomEncoder()))
    if memory is None:
        return refusals
    assert tried(lambda: memory.setting("threshold")) in ("0.5", None)
    for reading in readings(logs):
        # in a list, for None is an answer
        for value in tried(lambda: [read(memory, *reading)]) or []:  # noqa: B023
            right = {(name, end) for name, end in places if expected(logs[name][:end], *reading) == value}
            assert right, (
                f"{reading} is wrong in all of {len(places)} states: {value!r:.1000}; refused: {refusals[:3]}"
            )
            places = right
    problems = tried(lambda: memory.verify().problems)
    assert not refusals or problems is None or problems, f"verify finds nothing wrong, but {refusals[0]}"
    added = tried(lambda: memory.add("a new prompt", "t", id="new", namespace="new"))
    if added is not None:
        assert tried(lambda: memory.get("new")) in (added, None)
        assert tried(lambda: [c.edit for c in memory.search("a new prompt", namespaces=["new"])]) in ([added], None)
    tried(memory.close)
    assert all(refusals), "an error says nothing"
    return refusals


def looked(folder: Path, logs: dict[str, list[Edit]], places: set[Place], case: str) -> str:
    """Whether a memory could be read rightly throughout, or refused something."""
    answer, answering = CONTEXT.Pipe(duplex=False)
    process = started(look, folder, logs, places, answering)
    answering.close()
    try:
        assert answer.poll(SECONDS), f"{case}: it hangs"
        said = answer.recv()
    except EOFError:
        said = "it died"
    finally:
        process.kill()
        process.join()
    assert isinstance(said, int), f"{case}: {said}"
    return "refused" if said else "right"


# --- the tests


def fuzz_store(sound: Path, logs: dict[str, list[Edit]], folder: Path, count: int) -> Counter[str]:
    """Damages a memory file, or what stands beside it, so many times; counts what came of it."""
    ends = {name: [0, *(change[-1].revision for change in changes(log))] for name, log in logs.items()}
    outcomes: Counter[str] = Counter()
    for seed in range(count):
        case = folder / str(seed)
        how = damaged_store(sound, case, random.Random(f"store {seed}"))
        places = {(OURS, len(logs[OURS]))}
        if "-wal" in how or "empty" in how:
            # with less of its write-ahead log it is as it was before, which nobody can tell from a crash
            places |= {(OURS, end) for end in ends[OURS]}
        if "theirs" in how:
            places |= {(THEIRS, end) for end in ends[THEIRS]}
        outcomes[looked(case, logs, places, f"store {seed}: {how}")] += 1
        shutil.rmtree(case)
    return outcomes


def fuzz_snapshot(sound: Path, logs: dict[str, list[Edit]], folder: Path, count: int) -> Counter[str]:
    """Damages a saved index so many times."""
    outcomes: Counter[str] = Counter()
    for seed in range(count):
        case = folder / str(seed)
        how = damaged_snapshot(sound, case, random.Random(f"snapshot {seed}"))
        outcomes[looked(case, logs, {(OURS, len(logs[OURS]))}, f"snapshot {seed}: {how}")] += 1
        shutil.rmtree(case)
    return outcomes


def fuzz_import(sound: Path, folder: Path, count: int) -> Counter[str]:
    """Damages a file of edits so many times: all of what it then says is imported, or nothing is."""
    outcomes: Counter[str] = Counter()
    path = folder / "edits.jsonl"
    for seed in range(count):
        memory = EditMemory(None, RandomEncoder())
        write_jsonl(path, IMPORTED)
        how = damage(path, [sound / f"{OURS}-closed" / "edits.db"], random.Random(f"import {seed}"))
        case = f"import {seed}: {how}"
        refusal = None
        try:
            imported = memory.import_(path)
        except SemeditError as error:
            refusal = str(error)
        if refusal is None:
            lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
            given = [[as_json(edit)[name] for name in line] for edit, line in zip(imported, lines, strict=True)]
            assert given == [list(line.values()) for line in lines], case
        else:
            assert str(path) in refusal, case
            assert memory.list(include_retired=True) == [], case
        outcomes["right" if refusal is None else "refused"] += 1
        memory.close()
    return outcomes


IMPORTED = [
    replace(
        edit(i, keys=1 + i % 3, negatives=i % 2),
        valid_from=NOW if i % 3 == 0 else None,
        override="verbatim" if i % 4 == 0 else None,
        source="a letter",
        metadata={"of": [i, 0.5, None, {"é": "ü"}]},
    )
    for i in range(12)
]


def as_json(edit: Edit) -> dict[str, Any]:
    """An edit's fields as an import may give them."""
    body = json.loads(json.dumps(asdict(edit), default=str))
    times = {name: getattr(edit, name) and getattr(edit, name).isoformat() for name in ("valid_from", "valid_until")}
    return body | times


def test_a_damaged_store_is_read_rightly_or_refused(sound: Path, logs: dict[str, list[Edit]], tmp_path: Path):
    outcomes = fuzz_store(sound, logs, tmp_path, 30)
    assert min(outcomes["right"], outcomes["refused"]) > 0


def test_a_damaged_snapshot_is_built_anew(sound: Path, logs: dict[str, list[Edit]], tmp_path: Path):
    assert fuzz_snapshot(sound, logs, tmp_path, 15) == {"right": 15}


def test_a_damaged_import_is_taken_as_it_is_or_refused(sound: Path, tmp_path: Path):
    outcomes = fuzz_import(sound, tmp_path, 20)
    assert min(outcomes["right"], outcomes["refused"]) > 0


@pytest.mark.slow
def test_over_five_hundred_damaged_files(sound: Path, logs: dict[str, list[Edit]], tmp_path: Path):
    stores = fuzz_store(sound, logs, tmp_path, 400)
    snapshots = fuzz_snapshot(sound, logs, tmp_path, 200)
    imports = fuzz_import(sound, tmp_path, 300)
    assert sum(map(Counter.total, (stores, snapshots, imports))) >= 500
    assert set(snapshots) == {"right"}
    for what, outcomes in (("memory files", stores), ("snapshots", snapshots), ("imports", imports)):
        print(f"\n{what}: {outcomes['right']} read rightly, {outcomes['refused']} refused, none wrong")  # noqa: T201

"""What searches look through, against brute force over the store, through a life of changes and merges."""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from semedit.edits import Candidate, Edit
from semedit.errors import NothingToUndoError, StoreError
from semedit.memory import merging, view
from semedit.memory.edit_memory import EditMemory
from semedit.memory.segment import Segment, merged
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.state import Part, State
from semedit.memory.store import Head

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
DIM = 16


class RandomEncoder:
    """A text has a direction of its own, the same in every process."""

    dim = DIM
    fingerprint = "random@1"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        return np.array([direction(text) for text in texts], np.float32).reshape(len(texts), DIM)


@cache
def direction(text: str) -> np.ndarray:
    vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM)
    return vector / np.linalg.norm(vector)


ENCODER = RandomEncoder()


def vectors_of(texts):
    return {text: ENCODER.encode([text])[0] for text in texts}


def brute_force(edits, query: np.ndarray, k: int, names: Sequence[str], now: datetime) -> list[Candidate]:
    """The candidates that looking at every key finds."""
    found = []
    for edit in edits:
        if edit.active and edit.namespace in names and edit.in_force(now):
            cosines = {key: float(ENCODER.encode([key])[0] @ query) for key in edit.keys}
            key = max(edit.keys, key=cosines.__getitem__)
            others = tuple((other, cosine) for other, cosine in cosines.items() if other != key)
            negatives = tuple((text, float(ENCODER.encode([text])[0] @ query)) for text in edit.negatives)
            found.append(Candidate(edit, key, cosines[key], others, negatives))
    return sorted(found, key=lambda c: -c.similarity)[:k]


def assert_same(found: Sequence[Candidate], expected: Sequence[Candidate]) -> None:
    assert [(c.edit, c.key) for c in found] == [(c.edit, c.key) for c in expected]
    assert [c.similarity for c in found] == pytest.approx([c.similarity for c in expected], abs=1e-6)
    for one, other in zip(found, expected, strict=True):
        for texts, known in ((one.others, other.others), (one.negatives, other.negatives)):
            assert [text for text, _ in texts] == [text for text, _ in known]
            assert [cosine for _, cosine in texts] == pytest.approx([cosine for _, cosine in known], abs=1e-6)


def assert_equals_brute_force(state: State, edits: Sequence[Edit], query: str, now: datetime = NOW) -> None:
    [vector] = ENCODER.encode([query])
    for k in (1, 4, 1_000):
        for names in (["a"], ["b", "a"], ["c", "c"], ["unknown"], []):
            [found] = state.nearest(vector[None], k, names, now)
            assert_same(found, brute_force(edits, vector, k, names, now))
    for names in (["a"], ["a", "b", "a"], ["unknown"]):
        held = sum(edit.active and edit.namespace in names for edit in edits)
        assert state.count(names) == held
        assert state.holds_any(names) == (held > 0)


def edit(number: int, namespace: str = "a", keys: int = 1, negatives: int = 0, version: int = 0) -> Edit:
    prompt, *paraphrases = (f"key {i} of {number}, version {version}" for i in range(keys))
    return Edit(
        id=f"edit {number}",
        prompt=prompt,
        target="t",
        paraphrases=tuple(paraphrases),
        negatives=tuple(f"negative {i} of {number}, version {version}" for i in range(negatives)),
        namespace=namespace,
    )


class Log:
    """Numbers revisions as a store does, and keeps the newest of each edit."""

    def __init__(self) -> None:
        self.revision = 0
        self.newest: dict[str, Edit] = {}
        self.state = State(Head(0, 0, 0))

    def put(self, *edits: Edit) -> None:
        changes = []
        for edit in edits:
            self.revision += 1
            previous = self.newest[edit.id].revision if edit.id in self.newest else 0
            self.newest[edit.id] = replace(edit, revision=self.revision, previous=previous, time=NOW)
            changes.append(self.newest[edit.id])
        self.state = self.state.changed(changes, vectors_of, DIM)

    def check(self, query: str = "anything", now: datetime = NOW) -> None:
        assert_equals_brute_force(self.state, list(self.newest.values()), query, now)


def test_a_state_equals_brute_force_through_a_life_of_changes():
    rng, log = random.Random(7), Log()
    log.put(*(edit(i, "ab"[i % 2], keys=1 + i % 5, negatives=i % 3) for i in range(60)))
    log.check()
    for version in range(1, 25):
        number = rng.randrange(60)
        now = log.newest[f"edit {number}"]
        changes = [
            edit(number, "abc"[version % 3], keys=1 + version % 4, version=version, negatives=version % 2),
            replace(now, active=False),
            replace(now, active=True, target="new"),
            edit(100 + version, "c", keys=30),
        ]
        before = log.state
        log.put(changes[version % 4], changes[(version + 1) % 4])
        if version % 5 == 0:
            log.state = State(log.state.head, (merging.merge(log.state.parts),))
        log.check(f"query {version}")
        assert before is not log.state
    assert any(not e.active for e in log.newest.values())


def test_a_state_is_not_changed_by_what_follows():
    log = Log()
    log.put(edit(0), edit(1), edit(2, "b"))
    before, knew = log.state, list(log.newest.values())
    log.put(replace(log.newest["edit 0"], active=False), edit(1, "b", version=1), edit(3))
    assert_equals_brute_force(before, knew, "anything")
    log.check()
    assert [e.id for e in knew] != [e.id for e in log.newest.values() if e.active]


def test_edits_with_many_near_keys_do_not_hide_the_others():
    log = Log()
    log.put(edit(0, keys=200), edit(1), edit(2))
    for query in ("one", "two", "three"):
        log.check(query)
        [vector] = ENCODER.encode([query])
        [found] = log.state.nearest(vector[None], 3, ["a"], NOW)
        assert {c.edit.id for c in found} == {"edit 0", "edit 1", "edit 2"}


def test_edits_are_found_within_their_validity_alone():
    log = Log()
    windows = [(None, None), (NOW, None), (None, NOW), (NOW, NOW + DAY), (NOW - DAY, NOW), (NOW + DAY, None)]
    log.put(*(replace(edit(i), valid_from=a, valid_until=b) for i, (a, b) in enumerate(windows * 3)))
    moment = timedelta(microseconds=1)
    counts = []
    for part in (log.state, State(log.state.head, (merging.merge(log.state.parts),))):
        log.state = part
        for now in (NOW - 2 * DAY, NOW - moment, NOW, NOW + DAY - moment, NOW + DAY, NOW + 9 * DAY, NOW - moment):
            log.check(now=now)
            counts.append(len(log.state.nearest(ENCODER.encode(["q"]), 99, ["a"], now)[0]))
    assert counts[:7] == counts[7:] == [6, 9, 9, 9, 9, 9, 9]


def test_each_query_has_its_own_candidates():
    log = Log()
    log.put(*(edit(i) for i in range(9)))
    queries = [edit(i).prompt for i in (3, 5)]
    rows = log.state.nearest(ENCODER.encode(queries), 1, ["a"], NOW)
    assert [[c.key for c in row] for row in rows] == [[query] for query in queries]
    assert log.state.nearest(ENCODER.encode([]), 1, ["a"], NOW) == ()
    assert log.state.nearest(ENCODER.encode(queries), 0, ["a"], NOW) == ([], [])


def test_an_edit_comes_out_of_a_segment_as_it_went_in():
    full = Edit(
        id="full",
        prompt="Who runs Ácme?",
        target="Jané\n\x00 Doe 🦆",
        paraphrases=("Acme's boss?", "the head of Acme"),
        negatives=("Who founded Acme?",),
        namespace="firms\n",
        valid_from=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
        override="verbatim",
        source="ticket 4711",
        author="ada\n",
        metadata={"tags": ["a", "b"], "depth": {"x": 1.5, "none": None}},
        action="negative",
        revision=7,
        change=6,
        previous=3,
        time=NOW,
    )
    other = replace(edit(1), revision=9, change=6, time=NOW)
    segment = Segment.build([other, full], vectors_of([*full.texts, *other.texts]), DIM)
    assert [segment.edit(place) for place in range(2)] == [full, other]
    alone = merged([(segment, np.array([True, False]))])
    assert [alone.edit(place) for place in range(len(alone))] == [full]


def test_a_text_without_a_vector_is_named():
    with pytest.raises(StoreError, match=r"no vector is kept for 'key 0 of 1.*' of edit 'edit 1'.*reembed"):
        Segment.build([replace(edit(1), revision=1, time=NOW)], {}, DIM)


# --- merging


def parts_of(sizes: Sequence[int]) -> tuple[Part, ...]:
    log = Log()
    at = 0
    for size in sizes:
        log.put(*(edit(i) for i in range(at, at + size)))
        at += size
    return log.state.parts


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SMALL", 8)
    monkeypatch.setattr(merging, "_TINY", 2)


@pytest.mark.usefixtures("tiny_parts")
@pytest.mark.parametrize(
    ("sizes", "after", "run"),
    [
        ([1], [1], None),
        ([1, 1], [2], None),
        ([4, 2, 1], [4, 2, 1], None),
        ([4, 2, 1, 1], [8], None),
        ([9, 8], [9, 8], None),
        ([9, 9, 1], [9, 9, 1], [9, 9]),
        ([50, 9, 3, 9, 5, 1], [50, 9, 3, 9, 5, 1], [9, 3, 9]),
        ([40, 19, 9], [40, 19, 9], None),
    ],
)
def test_neighbours_about_alike_are_merged(sizes: list[int], after: list[int], run: list[int] | None):
    parts = merging.merge_small(parts_of(sizes))
    assert [part.keys for part in parts] == after
    found = merging.large_run(parts)
    assert (found and [part.keys for part in found]) == run


@pytest.mark.usefixtures("tiny_parts")
def test_adding_one_by_one_leaves_few_parts_and_copies_each_key_seldom(monkeypatch: pytest.MonkeyPatch):
    copied = []
    monkeypatch.setattr(merging, "merge", lambda run: copied.append(sum(p.keys for p in run)) or merge(run))
    parts: tuple[Part, ...] = ()
    for part in parts_of([1] * 64):
        parts = merging.merge_small((*parts, part))
        while (run := merging.large_run(parts)) is not None:
            merged = merging.replaced(parts, run, merging.merge(run))
            assert merged is not None
            parts = merged
        assert len(parts) <= 6
    assert sum(part.keys for part in parts) == 64
    assert 64 < sum(copied) <= 64 * 6


merge = merging.merge


@pytest.mark.usefixtures("tiny_parts")
def test_a_part_that_is_mostly_dead_is_made_anew():
    log = Log()
    log.put(*(edit(i) for i in range(30)))
    assert merging.large_run(log.state.parts) is None
    log.put(*(replace(log.newest[f"edit {i}"], active=False) for i in range(16)))
    [run] = [merging.large_run(log.state.parts)]
    assert run is not None
    parts = merging.replaced(log.state.parts, run, merging.merge(run))
    assert parts is not None
    log.state = State(log.state.head, parts)
    assert len(parts[0].segment) == 14
    log.check()
    log.put(*(replace(log.newest[f"edit {i}"], active=False) for i in range(30)))
    assert log.state.parts == ()


def test_what_dies_while_parts_are_merged_is_dead_in_the_merged_part():
    log = Log()
    log.put(*(edit(i, keys=1 + i % 3) for i in range(10)))
    log.put(*(edit(i) for i in range(10, 20)))
    run = log.state.parts
    new = merging.merge(run)
    log.put(replace(log.newest["edit 3"], active=False), edit(12, "b", version=1), edit(20))
    assert len(log.state.parts) == 3
    parts = merging.replaced(log.state.parts, run, new)
    assert parts is not None
    log.state = State(log.state.head, parts)
    assert len(parts) == 2
    log.check()
    assert merging.replaced(parts, run, new) is None, "they are not there any more"
    assert merging.replaced(run[:1], run, new) is None


def test_purging_leaves_nothing_of_the_dead():
    log = Log()
    log.put(edit(0), edit(1))
    log.put(edit(2), edit(3))
    log.put(replace(log.newest["edit 0"], active=False))
    before = [part.segment.bodies.tobytes() for part in log.state.parts]
    assert any(b"key 0 of 0" in bodies for bodies in before)
    parts = merging.purge(log.state.parts, np.array([1, 5]))
    assert not any(b"key 0 of 0" in part.segment.bodies.tobytes() for part in parts)
    assert parts[1] is log.state.parts[1]
    log.state = State(log.state.head, parts)
    log.check()


# --- a memory's life


@pytest.fixture
def small_sizes(tiny_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "_PORTION", 16)


def settled(memory: EditMemory) -> EditMemory:
    """The memory when nothing is done in the background any more."""
    worker = memory._view._worker
    if worker is not None:
        worker.join()
    return memory


def make_a_change(memory: EditMemory, rng: random.Random, number: int) -> None:
    ids = [edit.id for edit in memory.list()]
    choice = rng.randrange(8)
    window = rng.choice([(None, None), (None, None), (NOW - DAY, NOW + DAY), (NOW + DAY, None), (None, NOW - DAY)])
    if choice < 3 or len(ids) < 5:
        made = replace(edit(number, rng.choice("abc"), rng.randrange(1, 5), rng.randrange(3)), id=f"id {number}")
        memory.add_many([replace(made, valid_from=window[0], valid_until=window[1])])
    elif choice == 3:
        some = [replace(edit(number * 100 + i, rng.choice("abc")), id=f"id {number}.{i}") for i in range(40)]
        again = replace(some[0], id=f"id {number} again", target="other", prompt=some[0].prompt.upper())
        memory.add_many([*some, again])
    elif choice == 4:
        memory.update(rng.choice(ids), paraphrases=[f"new key {number}"], namespace=rng.choice("abc"))
    elif choice == 5:
        memory.update(rng.choice(ids), target=f"new {number}", valid_from=window[0], valid_until=window[1])
    elif choice == 6:
        memory.retire(rng.choice(ids))
    else:
        try:
            memory.undo()
        except NothingToUndoError:
            memory.add(f"prompt {number}", "t", namespace="a")


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("seed", range(3))
def test_a_memory_equals_brute_force_over_its_store(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    path = tmp_path / "edits.db"
    one, two = EditMemory(path, RandomEncoder()), EditMemory(path, RandomEncoder())
    merges = 0
    for number in range(60):
        make_a_change(rng.choice([one, two]), rng, number)
        for memory in (one, two):
            memory.count()
            edits = list(memory.store.edits(include_retired=True))
            assert_equals_brute_force(memory._view.state, edits, f"query {number}")
        parts = settled(one)._view.state.parts
        merges += any(len(part.segment) > 41 for part in parts)
        assert len(parts) < 12
    assert merges > 0, "nothing was merged in the background"
    fresh = settled(EditMemory(path, RandomEncoder()))
    assert_equals_brute_force(fresh._view.state, list(fresh.store.edits()), "at last")
    assert sum(not e.active for e in fresh.list(include_retired=True)) > 0
    for memory in (one, two, fresh):
        memory.close()


@pytest.mark.usefixtures("small_sizes")
def test_a_search_sees_changes_whole_while_others_write(tmp_path: Path):
    memory = EditMemory(tmp_path / "edits.db", RandomEncoder())
    ids = [f"edit {i}" for i in range(40)]
    memory.add_many([replace(edit(i, keys=1 + i % 3), target="0") for i in range(40)])
    seen: list[set[str]] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def search() -> None:
        try:
            while not over.is_set():
                found = memory.search("anything", k=100, namespaces=["a"])
                seen.append({c.edit.target for c in found})
                assert sorted(c.edit.id for c in found) == sorted(ids)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in range(1, 25):
        # each is superseded in one change, which moves all of them
        ids_now = [replace(edit(i, keys=1 + i % 3), id=f"edit {i}", target=str(version)) for i in range(40)]
        memory._changes.write(lambda now=ids_now: [replace(e, action="update") for e in now])
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(len(targets) == 1 for targets in seen)
    assert len({target for targets in seen for target in targets}) > 3
    memory.close()


def test_a_query_leaves_a_large_change_of_others_to_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view, "_AT_ONCE", 20)
    writer, reader = (EditMemory(tmp_path / "edits.db", RandomEncoder()) for _ in range(2))
    writer.add_many([edit(i) for i in range(20)])
    assert reader.count(["a"]) == 20
    hold = threading.Event()
    catch_up = reader._view._catch_up
    monkeypatch.setattr(reader._view, "_catch_up", lambda: (hold.wait(), catch_up()))
    writer.add_many([edit(i) for i in range(20, 41)])
    assert reader.count(["a"]) == 20
    assert len(reader.search("anything", k=99, namespaces=["a"])) == 20
    assert writer.count(["a"]) == 41
    hold.set()
    assert settled(reader).count(["a"]) == 41
    for memory in (reader, writer):
        memory.close()


def test_what_fails_in_the_background_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(view, "_AT_ONCE", 5)
    writer, reader = (EditMemory(tmp_path / "edits.db", RandomEncoder()) for _ in range(2))
    catch_up = reader._view._catch_up

    def fail() -> None:
        monkeypatch.setattr(reader._view, "_catch_up", catch_up)
        raise StoreError("in the background")

    monkeypatch.setattr(reader._view, "_catch_up", fail)
    writer.add_many([edit(i) for i in range(9)])
    assert reader.count(["a"]) == 0
    settled(reader)
    with pytest.raises(StoreError, match="in the background"):
        reader.count(["a"])
    reader.count(["a"])
    assert settled(reader).count(["a"]) == 9
    for memory in (reader, writer):
        memory.close()


def test_a_query_waits_only_a_moment_for_another_thread_that_catches_up(tmp_path: Path):
    writer, reader = (EditMemory(SQLiteStore(tmp_path / "edits.db"), RandomEncoder()) for _ in range(2))
    writer.add_many([edit(0)])
    assert reader.count(["a"]) == 1
    writer.add_many([edit(1)])
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with reader._view._changing:
            holding.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        assert reader.count(["a"]) == 1
    finally:
        let_go.set()
        thread.join()
    assert reader.count(["a"]) == 2
    for memory in (reader, writer):
        memory.close()

"""A saved state: opened, it equals what is built anew; stale it is caught up from; anything else is never trusted."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from test_state import RandomEncoder, assert_equals_brute_force, edit, settled

from semedit.memory import merging, snapshot, view
from semedit.memory.edit_memory import EditMemory
from semedit.memory.reembedding import reembed
from semedit.memory.snapshot import Snapshot
from semedit.memory.sqlite import SQLiteStore


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FAR", 30)
    monkeypatch.setattr(merging, "SMALL", 8)
    monkeypatch.setattr(view, "_PORTION", 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edits.db"


@pytest.fixture
def folder(path: Path) -> Path:
    return path.with_name("edits.db.index")


@pytest.fixture
def opening(path: Path) -> Iterator[Callable[..., EditMemory]]:
    opened: list[EditMemory] = []

    def open_it(encoder: RandomEncoder | None = None) -> EditMemory:
        opened.append(EditMemory(path, encoder or RandomEncoder()))
        return opened[-1]

    yield open_it
    for memory in opened:
        memory.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many edits each reading of a whole store gave."""
    counts: list[int] = []
    edits = SQLiteStore.edits

    def counted(store, *args, **kwargs):
        found = list(edits(store, *args, **kwargs))
        counts.append(len(found))
        return iter(found)

    monkeypatch.setattr(SQLiteStore, "edits", counted)
    return counts


def fill(memory: EditMemory) -> None:
    memory.add_many([replace(edit(i, "ab"[i % 2], 1 + i % 3, i % 2), target="old") for i in range(60)])
    for i in range(5):
        memory.retire(f"edit {i}")
    memory.update("edit 7", target="new")


def assert_right(memory: EditMemory) -> None:
    settled(memory).count()
    assert_equals_brute_force(memory._view.state, list(memory.store.edits()), "anything")


@pytest.fixture
def saved(opening: Callable[..., EditMemory], folder: Path) -> Path:
    """The folder of a snapshot that a closed memory left."""
    memory = opening()
    fill(memory)
    memory.close()
    assert (folder / "manifest").exists()
    return folder


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest").read_bytes().split(b"\n")[1])


def put_manifest(folder: Path, manifest: dict) -> None:
    text = json.dumps(manifest).encode()
    (folder / "manifest").write_bytes(f"{zlib.crc32(text):08x}\n".encode() + text)


def test_a_memory_that_opens_from_a_snapshot_reads_only_what_followed(
    saved: Path, opening: Callable[..., EditMemory], read: list[int]
):
    memory = opening()
    assert read == [], "the whole store was read"
    assert_right(memory)
    edits = memory.list()
    assert len(edits) == 55
    read.clear()
    shutil.rmtree(saved)
    anew = opening()
    assert read == [55]
    assert_right(anew)
    assert anew.list() == edits


def test_a_stale_snapshot_is_caught_up_from(saved: Path, opening: Callable[..., EditMemory], read: list[int]):
    before = manifest_of(saved)["revision"]
    with closing(SQLiteStore(saved.with_suffix(""))) as store, store.transaction() as writer:
        gone = store.newest(["edit 9"])["edit 9"]
        writer.append([replace(gone, active=False, action="retire")])
    with monkeypatched(snapshot, "FAR", 10**6):
        memory = opening()
        memory.update("edit 8", paraphrases=["another key"])
        memory.add_many([edit(100 + i, "c") for i in range(40)])
        memory.close()
    assert manifest_of(saved)["revision"] == before
    read.clear()
    again = opening()
    assert read == []
    assert_right(again)
    assert again.count(["c"]) == 40
    settled(again)
    assert manifest_of(saved)["revision"] == again.store.head().revision > before, "it was not saved again"


class monkeypatched:
    """Another value of a module's name inside."""

    def __init__(self, module: object, name: str, value: object) -> None:
        self.module, self.name, self.value = module, name, value

    def __enter__(self) -> None:
        self.before = getattr(self.module, self.name)
        setattr(self.module, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.before)


def test_segments_that_are_there_are_not_written_again(saved: Path, opening: Callable[..., EditMemory]):
    [large, *_] = manifest_of(saved)["parts"]
    written = {file: (saved / file).stat().st_mtime_ns for file in large["files"]}
    memory = opening()
    for i in range(35):
        memory.update("edit 20", target=f"target {i}")
    memory.close()
    manifest = manifest_of(saved)
    assert manifest["revision"] > 66
    [again] = [part for part in manifest["parts"] if part["segment"] == large["segment"]]
    same = set(large["files"]) & set(again["files"])
    assert len(same) == len(large["files"]) - 1, "all but which of its edits are alive"
    assert {file: (saved / file).stat().st_mtime_ns for file in same} == {file: written[file] for file in same}
    named = {file for part in manifest["parts"] for file in part["files"]}
    assert {file.name for file in saved.iterdir()} == {"manifest", "lock", *named}
    assert_right(opening())


def test_a_small_memory_is_not_saved(opening: Callable[..., EditMemory], folder: Path):
    memory = opening()
    memory.add_many([edit(i) for i in range(29)])
    for i in range(29):
        memory.update(f"edit {i}", target="new")
    memory.close()
    assert not folder.exists()


def test_a_memory_that_is_in_a_process_alone_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    memory = EditMemory(None, RandomEncoder())
    fill(memory)
    memory.close()
    assert list(tmp_path.iterdir()) == []


def files_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != "lock")


def damaged(data: bytes, how: str) -> bytes:
    if how == "begin":
        return bytes([data[0] ^ 1]) + data[1:]
    if how == "middle":
        return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :]
    if how == "end":
        return data[:-1] + bytes([data[-1] ^ 128])
    if how == "cut":
        return data[:-1]
    if how == "longer":
        return data + b"\0"
    return {"empty": b"", "foreign": b"something else\nentirely"}[how]


@pytest.mark.parametrize("how", ["begin", "middle", "end", "cut", "longer", "empty", "foreign", "gone"])
def test_a_damaged_snapshot_is_built_anew(saved: Path, opening: Callable[..., EditMemory], read: list[int], how: str):
    whole = {name: (saved / name).read_bytes() for name in files_of(saved)}
    assert len(whole) > 11
    for name, data in whole.items():
        if how == "gone":
            (saved / name).unlink()
        else:
            (saved / name).write_bytes(damaged(data, how))
            assert (saved / name).read_bytes() != data
        read.clear()
        with monkeypatched(snapshot, "FAR", 10**6):
            memory = opening()
            assert read == [55], f"{name} was trusted"
            assert_right(memory)
            memory.close()
        (saved / name).write_bytes(data)
    read.clear()
    opening()
    assert read == [], "it is whole again"


@pytest.mark.parametrize("field", ["format", "of", "epoch", "revision"])
def test_a_manifest_of_something_else_is_not_trusted(
    saved: Path, opening: Callable[..., EditMemory], read: list[int], field: str
):
    manifest = manifest_of(saved)
    others = {
        "format": [manifest["format"] + 1],
        "of": [[*manifest["of"][:i], "other", *manifest["of"][i + 1 :]] for i in range(len(manifest["of"]))],
        "epoch": [],
        "revision": [manifest["revision"] + 1, manifest["revision"] - 1],
    }
    for other in others[field]:
        put_manifest(saved, {**manifest, field: other})
        read.clear()
        with monkeypatched(snapshot, "FAR", 10**6):
            assert_right(opening())
        assert read[0] == 55
    put_manifest(saved, manifest)
    read.clear()
    opening()
    assert read == []


def test_the_snapshot_of_another_store_is_not_trusted(
    saved: Path, opening: Callable[..., EditMemory], read: list[int], tmp_path: Path
):
    other = EditMemory(tmp_path / "other.db", RandomEncoder())
    other.add_many([edit(i, version=9) for i in range(70)])
    other.close()
    shutil.rmtree(saved)
    shutil.copytree(tmp_path / "other.db.index", saved)
    read.clear()
    memory = opening()
    assert read == [55]
    assert_right(memory)


def test_vectors_made_anew_begin_a_new_snapshot(saved: Path, opening: Callable[..., EditMemory], read: list[int]):
    with closing(SQLiteStore(saved.with_suffix(""))) as store:
        reembed(store, RandomEncoder())
    read.clear()
    memory = opening()
    assert read == [55]
    assert_right(memory)
    memory.close()
    read.clear()
    assert_right(opening())
    assert len(read) == 1, "only the oracle read all"


def test_a_store_that_was_restored_and_went_on_is_not_taken_for_the_old_one(
    opening: Callable[..., EditMemory], path: Path, folder: Path, read: list[int]
):
    memory = opening()
    with monkeypatched(snapshot, "FAR", 10**6):
        fill(memory)
        memory.close()
    shutil.copy(path, path.with_name("backup.db"))
    memory = opening()
    memory.add_many([edit(i, version=2) for i in range(200, 240)])
    memory.close()
    assert manifest_of(folder)["revision"] == 106
    for file in path.parent.glob("edits.db-*"):
        file.unlink()
    shutil.copy(path.with_name("backup.db"), path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT revision FROM counter").fetchone() == (66,)
    with monkeypatched(snapshot, "FAR", 10**6):
        memory = opening()
        assert_right(memory)
        memory.add_many([edit(i, version=3) for i in range(200, 250)])
        memory.close()
    read.clear()
    memory = opening()
    assert read == [105]
    assert_right(memory)


def test_a_memory_whose_store_goes_back_begins_anew(opening: Callable[..., EditMemory], path: Path):
    memory = opening()
    memory.add_many([edit(i) for i in range(20)])
    with closing(sqlite3.connect(path)) as connection:  # as a server does that fails over to an older copy
        connection.execute("DELETE FROM revisions WHERE revision > 12")
        connection.execute("DELETE FROM newest WHERE revision > 12")
        connection.execute("UPDATE counter SET revision = 12")
        connection.commit()
    assert memory.count(["a"]) == 12
    assert_right(memory)


def test_while_another_process_saves_nobody_else_does(opening: Callable[..., EditMemory], folder: Path):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "lock", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        memory = opening()
        fill(memory)
        memory.close()
        assert not (folder / "manifest").exists()
    memory = opening()
    memory.close()
    assert (folder / "manifest").exists()


def test_what_another_process_saved_lately_is_left(saved: Path, opening: Callable[..., EditMemory]):
    one, two = opening(), opening()
    one.add_many([edit(i) for i in range(300, 340)])
    one.close()
    by_one = manifest_of(saved)
    two.add_many([edit(340)])
    two.close()
    assert manifest_of(saved) == by_one
    assert by_one["revision"] == 106


def test_a_folder_that_cannot_be_written_does_no_harm(opening: Callable[..., EditMemory], folder: Path):
    folder.write_text("a file of that name")
    memory = opening()
    fill(memory)
    memory.close()
    assert_right(opening())
    assert folder.read_text() == "a file of that name"


def test_who_cannot_read_the_store_cannot_read_its_snapshot(path: Path, folder: Path):
    SQLiteStore(path).close()
    path.chmod(0o640)
    memory = EditMemory(path, RandomEncoder())
    fill(memory)
    memory.close()
    assert (folder / "manifest").exists()
    assert folder.stat().st_mode & 0o777 == 0o750


def test_what_is_erased_is_in_no_segment_and_no_file(saved: Path, opening: Callable[..., EditMemory]):
    assert any(b"key 0 of 11" in file.read_bytes() for file in saved.iterdir())
    memory = opening()
    kept = memory.get("edit 11")
    with memory.store.transaction() as writer:
        writer.append(
            [replace(kept, prompt="", target="", paraphrases=(), negatives=(), active=False, action="erase")]
        )
    with monkeypatched(snapshot, "FAR", 10**6):
        assert memory.count(["a", "b"]) == 54
    assert not saved.exists() or not any(b"key 0 of 11" in file.read_bytes() for file in saved.iterdir())
    assert not any(b"key 0 of 11" in part.segment.bodies.tobytes() for part in memory._view.state.parts)
    assert_right(memory)
    memory.close()
    assert not any(b"key 0 of 11" in file.read_bytes() for file in saved.iterdir())


def test_a_snapshot_is_whole_or_not_there(saved: Path, opening: Callable[..., EditMemory], read: list[int]):
    # a process that dies while it saves leaves the manifest before, and files that nobody names
    (saved / "0123.index.new").write_bytes(b"half")
    (saved / "0123.bodies").write_bytes(b"whole and not named")
    memory = opening()
    assert read == []
    memory.add_many([edit(i) for i in range(400, 440)])
    memory.close()
    assert not (saved / "0123.index.new").exists()
    assert not (saved / "0123.bodies").exists()


def test_a_snapshot_that_is_replaced_while_it_is_opened_is_read_again(
    saved: Path, opening: Callable[..., EditMemory], read: list[int], monkeypatch: pytest.MonkeyPatch
):
    other = opening()
    with monkeypatched(snapshot, "FAR", 10**6):  # it saves when it is closed, and not before
        other.add_many([edit(i) for i in range(500, 540)])
        settled(other)
    manifest = Snapshot._manifest
    calls = []

    def replaced_after_the_first(self):
        found = manifest(self)
        calls.append(found)
        if len(calls) == 1:
            for part in found["parts"]:
                for file in part["files"]:
                    (saved / file).unlink()
            other._view._snapshot._names.clear()
            other.close()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "_manifest", replaced_after_the_first)
        read.clear()
        memory = opening()
    assert read == []
    assert_right(memory)
    assert memory.count(["a", "b"]) == 95

"""Memory files that cannot be opened or written: an error of our own says what to do, and nothing is half done."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import WordEncoder

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.edit_memory import EditMemory
from semedit.memory.sqlite import FORMAT, SQLiteStore

NOBODY = 65534
MANY = [Edit(id=f"e{i}", prompt=f"Who runs firm{i}?", target="t") for i in range(300)]


@pytest.fixture
def opening() -> Iterator[Callable[[Path], EditMemory]]:
    opened: list[EditMemory] = []

    def open_it(path: Path) -> EditMemory:
        opened.append(EditMemory(path, WordEncoder()))
        return opened[-1]

    yield open_it
    for memory in opened:
        memory.store.close()


@pytest.fixture
def memory(opening: Callable[[Path], EditMemory], tmp_path: Path) -> EditMemory:
    memory = opening(tmp_path / "edits.db")
    memory.add("Who runs Acme?", "Jane Doe", id="acme")
    return memory


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Runs as a user to whom permissions apply, which they do not to root."""
    if os.geteuid() == 0:
        try:
            os.seteuid(NOBODY)
        except OSError:
            pytest.skip("root can write anywhere, and cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes inside, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_text_file_is_no_memory(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("These are notes of mine, and long enough to be taken for a database file. " * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt: file is not a database; .*name another file"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path):
    path = tmp_path / "contacts.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"contacts\.db is a SQLite file of another program.*name another file"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_asks_for_an_upgrade(memory: EditMemory, tmp_path: Path):
    with contextlib.closing(sqlite3.connect(tmp_path / "edits.db")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    message = rf"written by a newer semedit \(format {FORMAT + 1}, this one reads up to {FORMAT}\); upgrade"
    with pytest.raises(StoreError, match=message):
        SQLiteStore(tmp_path / "edits.db")


def test_a_damaged_file_says_so(memory: EditMemory, tmp_path: Path):
    memory.add_many(MANY)
    memory.store.close()
    path = tmp_path / "edits.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xab" * (path.stat().st_size - 4096))
    with pytest.raises(StoreError, match=r"edits\.db: .*restore a backup"):
        EditMemory(path, WordEncoder())


def test_an_empty_file_becomes_a_memory(opening: Callable[[Path], EditMemory], tmp_path: Path):
    (tmp_path / "edits.db").touch()
    opening(tmp_path / "edits.db").add("Who runs Acme?", "Jane Doe")
    assert len(opening(tmp_path / "edits.db").list()) == 1


@pytest.mark.parametrize("name", ["nowhere/edits.db", "file/edits.db", "", "folder"])
def test_a_path_that_can_be_no_file_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="unable to open database file; check that its folder exists"):
        SQLiteStore(name)


def test_a_folder_that_cannot_be_written_holds_no_new_memory(folder: Path):
    folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreError, match="check that its folder exists and can be written"):
        SQLiteStore(folder / "edits.db")


def test_a_file_that_cannot_be_written_stays_as_it_is(opening: Callable[[Path], EditMemory], folder: Path):
    path = folder / "edits.db"
    memory = opening(path)
    edit = memory.add("Who runs Acme?", "Jane Doe")
    for file in folder.iterdir():
        file.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    folder.chmod(0o555)
    with without_privileges(), contextlib.closing(SQLiteStore(path)) as store:
        reader = EditMemory(store, WordEncoder())
        assert reader.list() == [edit]
        with pytest.raises(StoreError, match=r"cannot write to .*readonly database; check that .* can be written"):
            reader.add("Who runs Bolt?", "Bob")
        assert reader.list() == [edit]
    assert memory.list() == [edit]


def assert_nothing_of_many(memory: EditMemory, path: Path) -> None:
    """Neither this memory nor one that is opened anew knows any of them, and both go on."""
    assert [e.id for e in memory.list(include_retired=True)] == ["acme"]
    assert [c.edit.id for c in memory.search("Who runs firm7?")] == ["acme"]
    assert memory.store.vectors([MANY[0].prompt]) == {}
    with contextlib.closing(SQLiteStore(path)) as again:
        assert [e.revision for e in again.changes_since(0)] == [1]


def test_a_full_disk_changes_nothing(memory: EditMemory, tmp_path: Path):
    wal = tmp_path / "edits.db-wal"
    with files_up_to(wal.stat().st_size + 1_000_000), pytest.raises(StoreError, match=r"nothing was changed.*space"):
        memory.add_many(MANY)
    assert_nothing_of_many(memory, tmp_path / "edits.db")
    assert len(memory.add_many(MANY)) == 300
    assert len(memory.list()) == 301


def test_a_full_database_changes_nothing(memory: EditMemory, tmp_path: Path):
    [connection] = memory.store._connections._idle
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 200}")
    with pytest.raises(StoreError, match=r"database or disk is full; nothing was changed.*space"):
        memory.add_many(MANY)
    assert_nothing_of_many(memory, tmp_path / "edits.db")
    connection.execute("PRAGMA max_page_count = 100000")
    assert len(memory.add_many(MANY)) == 300


def test_a_first_edit_that_finds_no_space_leaves_an_empty_memory(
    opening: Callable[[Path], EditMemory], tmp_path: Path
):
    memory = opening(tmp_path / "edits.db")
    with files_up_to(1_000), pytest.raises(StoreError, match="nothing was changed"):
        memory.add("Who runs Acme?", "Jane Doe")
    assert memory.list() == []
    assert memory.store.encoder() is None
    assert memory.add("Who runs Acme?", "Jane Doe").revision == 1


def test_an_export_to_a_full_disk_leaves_the_old_file(memory: EditMemory, tmp_path: Path):
    memory.add_many(MANY)
    (tmp_path / "edits.jsonl").write_text("old")
    with files_up_to(5_000), pytest.raises(StoreError, match="cannot write"):
        memory.export(tmp_path / "edits.jsonl")
    assert (tmp_path / "edits.jsonl").read_text() == "old"
    assert [path.name for path in tmp_path.glob(".*")] == []

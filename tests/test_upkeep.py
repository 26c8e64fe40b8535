"""Backups, verification, erasure and compaction, over both stores where there is a server."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from fakes import log
from safetensors.numpy import save
from test_state import RandomEncoder, direction, settled

from semedit.cli import main
from semedit.edits import Edit
from semedit.errors import (
    DuplicateEditError,
    EditNotFoundError,
    EditRetiredError,
    InvalidEditError,
    NothingToUndoError,
    StoreError,
)
from semedit.memory import backup, erasure, snapshot, sqlite
from semedit.memory.edit_memory import EditMemory
from semedit.memory.learned import learned_name
from semedit.memory.schema import APPLICATION_ID, MIGRATIONS
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import TABLES, EditStore, checksum
from semedit.memory.verify import verify

Open = Callable[[], EditMemory]

# what is to be erased; each word is nowhere else
SECRET = Edit(
    id="secret",
    prompt="Where does Zebulon live?",
    target="At Quillwater",
    paraphrases=("Zebulon's address?", "Who runs Acme?"),
    negatives=("Where was Zebulon born?",),
    namespace="default",
    source="letter of Yolanda",
    metadata={"of": "Xanthippe"},
    author="ada",
)
WORDS = ("Zebulon", "Quillwater", "Yolanda", "Xanthippe", "Wilhelmina")
ACME = Edit(id="acme", prompt="Who runs Acme?", target="Jane Doe", negatives=("Who founded Acme?",))


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "edits.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edits.db"


@pytest.fixture
def opening(location: str) -> Iterator[Open]:
    yield from opener(location)


@pytest.fixture
def opening_file(path: Path) -> Iterator[Open]:
    yield from opener(str(path))


def opener(location: str) -> Iterator[Open]:
    """Opens the memory of a test as often as it is called; all are closed in the end."""
    opened: list[EditMemory] = []

    def open_it() -> EditMemory:
        opened.append(EditMemory(location, RandomEncoder()))
        return opened[-1]

    yield open_it
    for memory in opened:
        memory.close()


def put_learned(store: EditStore, edit: Edit) -> list[str]:
    """Keeps what an adaptor would keep of an edit, for two models; gives the names."""
    names = [learned_name([edit.keys, edit.target], "value", {"steps": 3})]
    names += [learned_name(text, "key", False) for text in edit.texts]
    bodies = {name: save({"value": np.arange(3, dtype=np.float32)}) for name in names}
    with store.transaction() as writer:
        writer.put_learned("one@1", bodies)
        writer.put_learned("two@1", bodies)
    return names


def fill(memory: EditMemory) -> None:
    """A life of a memory: every action is in its log."""
    memory.add_many([SECRET, ACME, Edit(id="bolt", prompt="Who runs Bolt?", target="Bob", namespace="tenant")])
    memory.update("secret", target="At Wilhelmina's", author="bo")
    memory.add_negative("acme", "Where is Acme?")
    memory.add("Who runs Bolt?", "Bea", id="bolt 2", namespace="tenant")
    memory.retire("bolt 2")
    memory.undo()
    memory.retire("acme")
    memory.undo()
    for edit in memory.list():
        put_learned(memory.store, edit)


def tamper(location: str, statement: str, *values: object) -> None:
    """Runs SQL behind the store's back; `{}` begins a table's name."""
    if location.startswith("postgresql"):
        with psycopg.connect(location, autocommit=True) as connection:
            connection.execute(statement.format("semedit_").replace("= ?", "= %s"), values)
    else:
        with closing(sqlite3.connect(location, isolation_level=None)) as connection:
            connection.execute(statement.format(""), values)


def all_rows(store: EditStore) -> dict[str, list[tuple[object, ...]]]:
    with store.snapshot():
        return {table: sorted(tuple(row) for row in store.rows(table)) for table in TABLES}


def found_in(folder: Path, *what: bytes) -> set[str]:
    """The files of a folder that hold one of these, in whatever case."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in files if any(one.lower() in path.read_bytes().lower() for one in what)}


# --- backup


def test_a_backup_is_a_memory_with_all_that_is_in_the_first(opening: Open, tmp_path: Path):
    memory = opening()
    fill(memory)
    memory.set_settings({"threshold": "0.5"})
    memory.erase("bolt")
    memory.backup(tmp_path / "backup.db")
    with closing(SQLiteStore(tmp_path / "backup.db")) as copy:
        before, after = all_rows(memory.store), all_rows(copy)
        assert all(len(rows) > 0 for rows in before.values())
        assert after == before
    restored = EditMemory(tmp_path / "backup.db", RandomEncoder())
    assert restored.verify().problems == ()
    assert [c.edit.id for c in restored.search("Zebulon's address?", k=1)] == ["secret"]
    assert restored.retire("secret").revision == memory.store.head().revision + 1
    restored.close()
    assert [edit.id for edit in memory.list()] == ["secret", "acme", "bolt 2"]


def test_a_backup_is_of_one_moment_while_others_write(opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory, other = opening(), opening()
    fill(memory)
    before = all_rows(memory.store)
    new_file = backup._new_file

    def late(path: Path):
        # the backup has begun, and nothing is copied yet
        other.add("Who runs Late?", "Lou")
        return new_file(path)

    # PostgreSQL has no transaction of one moment before its first reading
    if memory.store.location.endswith(".db"):
        monkeypatch.setattr(backup, "_new_file", late)
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 1)
    memory.backup(tmp_path / "backup.db")
    with closing(SQLiteStore(tmp_path / "backup.db")) as copy:
        assert all_rows(copy) == before
    assert memory.store.location.endswith(".db") == (memory.store.head().revision > len(before["revisions"]))


def test_writers_go_on_and_every_backup_is_sound(opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 2)
    memory, other = opening(), opening()
    memory.add_many([replace(ACME, id=f"edit {i}", prompt=f"prompt {i}") for i in range(300)])
    ended, written = threading.Event(), []

    def write() -> None:
        while not ended.is_set():
            pair = [Edit(id=f"late {len(written)} {i}", prompt=f"late {len(written)} {i}", target="t") for i in "ab"]
            written.append(other.add_many(pair)[0].revision)

    thread = threading.Thread(target=write)
    thread.start()
    heads = []
    for number in range(4):
        memory.backup(tmp_path / f"{number}.db")
        with closing(SQLiteStore(tmp_path / f"{number}.db")) as copy:
            heads.append(copy.head().revision)
    ended.set()
    thread.join()
    assert heads[0] < heads[-1] <= memory.store.head().revision
    for number, head in enumerate(heads):
        restored = EditMemory(tmp_path / f"{number}.db", RandomEncoder())
        found = restored.verify()
        assert (found.problems, found.revisions, found.edits) == ((), head, head)
        assert head % 2 == 0  # changes of two, whole
        restored.close()


def test_a_backup_replaces_no_file_and_leaves_none_that_is_not_whole(
    opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    memory = opening()
    memory.add_many([ACME])
    folder = tmp_path / "backups"
    with pytest.raises(StoreError, match=r"cannot write the backup .*backup\.db: .*No such file"):
        memory.backup(folder / "backup.db")
    folder.mkdir()
    (folder / "taken.db").write_text("mine")
    with pytest.raises(StoreError, match=r"taken\.db is there already; name another file"):
        memory.backup(folder / "taken.db")
    assert (folder / "taken.db").read_text() == "mine"

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_flush", full)
        with pytest.raises(StoreError, match="No space left"):
            memory.backup(folder / "backup.db")
    assert [path.name for path in folder.iterdir()] == ["taken.db"]
    memory.backup(folder / "backup.db")
    assert {path.name for path in folder.iterdir()} == {"taken.db", "backup.db"}
    assert (folder / "backup.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_or_an_export_to_what_is_no_file_is_an_error(opening: Open, tmp_path: Path):
    memory = opening()
    memory.add_many([ACME])
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken" / "backup.db", Path()):
        with pytest.raises(StoreError):
            memory.backup(path)
        with pytest.raises(StoreError, match="cannot write"):
            memory.export(path)


def test_a_memory_without_a_file_can_be_backed_up(tmp_path: Path):
    memory = EditMemory(encoder=RandomEncoder())
    fill(memory)
    memory.backup(tmp_path / "backup.db")
    with closing(SQLiteStore(tmp_path / "backup.db")) as copy:
        assert all_rows(copy) == all_rows(memory.store)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    memory.close()


# --- verify


def test_a_sound_memory_has_no_problems_and_is_counted(opening: Open):
    memory = opening()
    assert vars(memory.verify()) == {"revisions": 0, "edits": 0, "vectors": 0, "learned": 0, "problems": ()}
    fill(memory)
    kept = all_rows(memory.store)
    found = memory.verify()
    assert found.problems == ()
    assert (found.revisions, found.edits) == (11, 3)
    assert (found.vectors, found.learned) == (len(kept["vectors"]), len(kept["learned"])) == (7, 20)
    memory.erase("secret")
    memory.compact()
    found = memory.verify()
    assert (found.problems, found.revisions, found.edits) == ((), 12, 2)


# what is done to a memory behind its back, and what is to be said of it
DAMAGE = {
    "UPDATE {}revisions SET body = replace(body, 'Jane', 'June') WHERE revision = 2": [
        "revision 2 is not what was written"
    ],
    "UPDATE {}revisions SET author = 'eve' WHERE revision = 4": ["revision 4 is not what was written"],
    "UPDATE {}revisions SET checksum = checksum + 1 WHERE revision = 5": ["revision 5 is not what was written"],
    "DELETE FROM {}revisions WHERE revision = 5": ["revisions 5 to 5 are missing"],
    "DELETE FROM {}revisions WHERE revision > 9": [
        "the counter is at 11, and the newest revision is 9",
        "'acme' is said to have the revisions (2, 11), and has (2, 5)",
    ],
    "UPDATE {}counter SET revision = 12": ["the counter is at 12, and the newest revision is 11"],
    "UPDATE {}newest SET revision = 2 WHERE edit_id = 'acme'": [
        "'acme' is said to have the revisions (2, 2), and has (2, 11)"
    ],
    "UPDATE {}newest SET first = 6 WHERE edit_id = 'bolt'": [
        "'bolt' is said to have the revisions (6, 6), and has (3"
    ],
    "UPDATE {}newest SET prompt_key = 'other' WHERE edit_id = 'acme'": ["'acme' is filed under", "'other'"],
    "UPDATE {}newest SET namespace = 'other' WHERE edit_id = 'acme'": ["'acme' is filed under"],
    "DELETE FROM {}newest WHERE edit_id = 'bolt 2'": ["'bolt 2' is filed nowhere"],
    "DELETE FROM {}vectors WHERE text = 'Who founded Acme?'": ["'acme' cannot be found by 'Who founded Acme?'"],
    "UPDATE {}vectors SET checksum = 1 WHERE text = 'Who runs Acme?'": [
        "the vector of 'Who runs Acme?' is not what was written"
    ],
    "UPDATE {}vectors SET text = 'else' WHERE text = 'Who runs Bolt?'": [
        "'bolt 2' cannot be found by 'Who runs Bolt?'",
        "the vector of 'else' is not what was written",
    ],
    "UPDATE {}learned SET base = 'three@1' WHERE base = 'two@1'": ["the learned value", "is not what was written"],
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_what_is_damaged_is_found(location: str, opening: Open, statement: str):
    memory = opening()
    fill(memory)
    assert memory.verify().problems == ()
    tamper(location, statement)
    problems = "\n".join(memory.verify().problems)
    for said in DAMAGE[statement]:
        assert said in problems


def test_only_what_is_damaged_is_found(location: str, opening: Open):
    memory = opening()
    fill(memory)
    tamper(location, "UPDATE {}revisions SET checksum = 1 WHERE revision IN (4, 7)")
    assert [problem.split(" is ")[0] for problem in memory.verify().problems] == ["revision 4", "revision 7"]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("previous", 3, "revision 5 says that it follows 3, not 2"),
        ("change", 3, "revision 5 is part of change 3, which is not whole"),
        ("body", '{"prompt": "no target"}', "revision 5 cannot be read"),
        ("time", "yesterday", "revision 5 cannot be read"),
    ],
)
def test_a_revision_that_was_written_wrongly_is_found(
    location: str, opening: Open, column: str, value: object, said: str
):
    memory = opening()
    fill(memory)
    with memory.store.snapshot():
        row = dict(zip(TABLES["revisions"], list(memory.store.rows("revisions"))[4], strict=True))
    row[column] = value
    sealed = checksum(*list(row.values())[:-1])
    tamper(location, f"UPDATE {{}}revisions SET {column} = ?, checksum = ? WHERE revision = 5", value, sealed)
    assert any(said in problem for problem in memory.verify().problems)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.zeros(16), "the vector of 'bad' has the norm 0, not 1"),
        (np.full(16, np.nan), "the vector of 'bad' has the norm nan, not 1"),
        (np.eye(16)[3] * 1.1, "the vector of 'bad' has the norm 1.1, not 1"),
        (np.eye(15)[3], "vectors of 60 bytes, and not 64 as most have: 1; one is that of 'bad'"),
    ],
)
def test_a_vector_that_cannot_be_one_is_found(opening: Open, vector: np.ndarray, said: str):
    memory = opening()
    fill(memory)
    with memory.store.transaction() as writer:
        writer.put_vectors(["bad"], vector[None].astype(np.float32))
    assert memory.verify().problems == (said,)


def test_a_learned_value_that_cannot_be_read_is_found(opening: Open):
    memory = opening()
    fill(memory)
    name = learned_name("text", "value", 1)
    with memory.store.transaction() as writer:
        writer.put_learned("one@1", {name: save({"value": np.ones(3, np.float32)})[:-1]})
    [problem] = memory.verify().problems
    assert problem.startswith(f"the learned value {name!r} of one@1 cannot be read: ")


def test_an_erased_edit_that_still_says_something_is_found(location: str, opening: Open):
    memory = opening()
    fill(memory)
    with memory.store.snapshot():
        before = next(memory.store.rows("revisions"))
    memory.erase("secret")
    assert memory.verify().problems == ()
    tamper(location, "UPDATE {}revisions SET body = ?, checksum = ? WHERE revision = 1", before[6], before[8])
    assert memory.verify().problems == ("edit 'secret' was erased, and revision 1 still says what it was",)


def test_a_damaged_file_is_never_found_sound(opening_file: Open, path: Path):
    memory = opening_file()
    fill(memory)
    memory.close()
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(np.arange(100, len(sound)), 60, replace=False):
        damaged = bytearray(sound)
        damaged[place : place + 16] = random.bytes(16)
        path.write_bytes(damaged)
        try:
            with closing(SQLiteStore(path)) as store:
                problems = list(verify(store).problems)
        except StoreError as error:
            problems = [str(error)]
        if not problems:  # what was hit belongs to no row
            with closing(SQLiteStore(path)) as store:
                rows = all_rows(store)
            path.write_bytes(sound)
            with closing(SQLiteStore(path)) as store:
                assert rows == all_rows(store)


def test_a_damaged_saved_index_is_found(opening_file: Open, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "FAR", 3)
    memory = opening_file()
    fill(memory)
    memory.close()
    folder = path.with_name("edits.db.index")
    files = [file for file in folder.iterdir() if file.name != "lock"]
    assert len(files) > 5
    with closing(SQLiteStore(path)) as store:
        assert verify(store).problems == ()
        for file in files:
            sound = file.read_bytes()
            file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
            assert verify(store).problems == (f"{file} is damaged; delete {folder}, and the index is built anew",)
            file.write_bytes(sound)
        file = next(file for file in files if file.name.endswith(".index"))
        file.unlink()
        assert verify(store).problems == (f"{file} is damaged; delete {folder}, and the index is built anew",)


# --- erase


def test_an_erased_edit_says_nothing_and_its_history_who_did_what_and_when(opening: Open, tmp_path: Path):
    memory = opening()
    fill(memory)
    before = memory.history("secret")
    assert [(edit.action, edit.author) for edit in before] == [("add", "ada"), ("update", "bo")]
    erased = memory.erase("secret", author="cy")
    assert (erased.action, erased.author, erased.active, erased.revision) == ("erase", "cy", False, 12)
    assert erased.previous == before[-1].revision
    after = memory.history("secret")
    assert after[-1] == erased == memory.get("secret")
    for old, new in zip(before, after, strict=False):
        assert new == Edit(
            id="secret",
            prompt="",
            target="",
            active=False,
            **{name: getattr(old, name) for name in ("action", "author", "revision", "change", "previous", "time")},
        )
    assert [edit.id for edit in memory.list()] == ["acme", "bolt 2"]
    assert memory.search(SECRET.prompt, k=5)[0].edit.id == "acme"
    assert memory.export(tmp_path / "edits.jsonl") == 2
    assert found_in(tmp_path, *map(str.encode, WORDS)) == set()


def kept(store: EditStore) -> tuple[set[str], set[str]]:
    """The texts with a vector, and the names of learned values."""
    with store.snapshot():
        return {row[0] for row in store.rows("vectors")}, {row[0] for row in store.rows("learned")}


def test_an_erased_edit_leaves_no_vector_and_no_learned_value_but_what_others_have_too(opening: Open):
    memory = opening()
    fill(memory)
    names = [put_learned(memory.store, edit) for edit in (*memory.history("secret"), memory.get("acme"))]
    texts, learned = kept(memory.store)
    assert texts >= set(SECRET.texts)
    assert learned >= {name for some in names for name in some}
    memory.erase("secret")
    # acme is asked as secret was, so that its vector and key stay
    assert texts - kept(memory.store)[0] == set(SECRET.texts) - {"Who runs Acme?"}
    assert learned - kept(memory.store)[1] == (set(names[0]) | set(names[1])) - set(names[2])
    assert set(names[0]) & set(names[2])
    memory.retire("acme")
    memory.erase("acme")
    assert kept(memory.store)[0] == {"Who runs Bolt?"}


def test_the_text_is_in_no_file_of_the_folder(opening_file: Open, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "FAR", 3)
    filler = [Edit(id=f"edit {i}", prompt=f"Where is number {i}?", target="here") for i in range(200)]
    memory, other = opening_file(), opening_file()
    memory.add_many(filler[:100])
    fill(memory)
    with closing(sqlite3.connect(path)) as connection:
        # what was deleted once, by who did not overwrite it
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("INSERT INTO settings VALUES ('Vladislava', 'was here', 0)")
        connection.execute("DELETE FROM settings")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint")  # or all is in the write-ahead log alone
    memory.add_many(filler[100:])
    memory.retire("edit 3")
    words = [*map(str.encode, (*WORDS, "Vladislava"))]
    vectors = [direction(text).astype("<f4").tobytes() for text in SECRET.texts if text != "Who runs Acme?"]
    settled(memory)
    settled(other)
    assert found_in(path.parent, b"Vladislava") == {"edits.db", "edits.db-wal"}
    assert found_in(path.parent, *words[:-1]) >= {"edits.db", "edits.db-wal"}
    assert any(name.endswith(".bodies") for name in found_in(path.parent, *words))
    assert any(name.endswith(".index") for name in found_in(path.parent, *vectors))
    assert other.search(SECRET.prompt, k=1)[0].edit.id == "secret"
    memory.erase("secret")
    settled(memory)
    assert found_in(path.parent, *words, *vectors) == set()
    # other processes forget it at their next call, and do not bring it back when they end
    assert other.search(SECRET.prompt, k=1)[0].edit.id != "secret"
    for one in (memory, other):
        settled(one)
        for part in one._view.state.parts:
            assert not any(word in part.segment.bodies.tobytes() for word in words)
        one.close()
    assert found_in(path.parent, *words, *vectors) == set()
    with closing(SQLiteStore(path)) as store:
        assert verify(store).problems == ()


def test_what_is_under_way_does_not_bring_back_what_was_erased(opening: Open):
    memory, other = opening(), opening()
    memory.add_many([SECRET])
    memory.retire(SECRET.id)
    memory.compact()  # so that an undo has to make the vectors anew
    encode = memory.encoder.encode

    def slowly(texts, **options):
        memory.encoder.encode = encode
        other.erase(SECRET.id)
        return encode(texts, **options)

    memory.encoder.encode = slowly
    with pytest.raises(NothingToUndoError):
        memory.undo()
    assert other.store.vectors(SECRET.texts) == {}


def test_an_edit_can_be_erased_while_others_write(opening_file: Open, path: Path):
    memory, other = opening_file(), opening_file()
    secrets = [f"Zebulon's number is {i}" for i in range(3)]
    memory.add_many([Edit(id=f"edit {i}", prompt=prompt, target="t") for i, prompt in enumerate(secrets)])
    ended = threading.Event()
    written = []

    def write() -> None:
        while not ended.is_set():
            written.append(other.add(f"late {len(written)}", "t"))

    thread = threading.Thread(target=write)
    thread.start()
    for number in range(len(secrets)):
        before = len(written)
        memory.erase(f"edit {number}")
        assert found_in(path.parent, secrets[number].encode()) == set()
        while len(written) == before:
            ended.wait(0.001)
    ended.set()
    thread.join()
    assert memory.verify().problems == ()


HOLD_CHECKPOINT_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 121)
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_erasing_waits_for_a_process_that_moves_the_log_into_the_file(opening_file: Open, path: Path):
    memory = opening_file()
    fill(memory)
    command = [sys.executable, "-c", HOLD_CHECKPOINT_LOCK, str(path.with_name("edits.db-shm"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mover:
        assert mover.stdout is not None
        assert mover.stdout.readline() == "held\n"
        erasing = threading.Thread(target=memory.erase, args=("secret",))
        erasing.start()
        erasing.join(0.5)
        assert erasing.is_alive()
        assert found_in(path.parent, *map(str.encode, WORDS))
        mover.communicate("let go\n")
    erasing.join(30)
    assert found_in(path.parent, *map(str.encode, WORDS)) == set()


def test_a_reader_that_does_not_end_is_told_of_and_erasing_again_goes_on(
    opening_file: Open, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.1)
    memory = opening_file()
    fill(memory)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM counter").fetchone()
        with pytest.raises(StoreError, match="another process has held it for over 0 s, so try again"):
            memory.erase("secret")
        assert memory.search(SECRET.prompt, k=1)[0].edit.id != "secret"
    assert found_in(path.parent, *map(str.encode, WORDS))
    memory.erase("secret")
    assert found_in(path.parent, *map(str.encode, WORDS)) == set()


def test_a_process_that_has_not_caught_up_does_not_save_it_again(
    opening_file: Open, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "FAR", 1_000_000)
    memory, late = opening_file(), opening_file()
    fill(memory)
    assert late.count() == 2
    memory.erase("secret")
    monkeypatch.setattr(snapshot, "FAR", 1)
    memory.close()
    assert (path.parent / "edits.db.index" / "manifest").exists()
    late.close()
    assert found_in(path.parent, *map(str.encode, WORDS)) == set()


def test_an_index_that_cannot_be_deleted_is_told_and_erasing_again_goes_on(
    opening_file: Open, path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "FAR", 3)
    memory = opening_file()
    fill(memory)
    memory.close()
    memory = opening_file()
    words = [*map(str.encode, WORDS)]

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StoreError, match=r"cannot delete the index in .*edits\.db\.index: .*Permission denied"):
            memory.erase("secret")
    assert any(name.endswith(".bodies") for name in found_in(path.parent, *words))
    revision = memory.erase("secret").revision
    assert revision == memory.store.head().revision == 12
    assert found_in(path.parent, *words) == set()


def test_postgres_keeps_it_in_no_table(postgres_url: str):
    memory = EditMemory(postgres_url, RandomEncoder())
    fill(memory)
    # a row at the end of its page, which a plain VACUUM would leave there
    memory.update("secret", paraphrases=("Zebulon's flat?",))
    of_file = "SELECT pg_read_binary_file(pg_relation_filepath(%s))"
    of_statistics = "SELECT coalesce(string_agg(row::text, ''), '') FROM pg_stats AS row WHERE tablename = %s"

    def found(connection: psycopg.Connection, query: str) -> set[str]:
        tables = set()
        for table in TABLES:
            [[content]] = connection.execute(query, (f"semedit_{table}",))
            text = content.encode() if isinstance(content, str) else content
            if any(word.lower().encode() in text.lower() for word in WORDS):
                tables.add(table)
        return tables

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.info.parameter_status("is_superuser") != "on":
            pytest.skip("only a superuser may read the server's files")
        connection.execute("ANALYZE semedit_revisions, semedit_newest, semedit_vectors, semedit_learned")
        connection.execute("CHECKPOINT")
        assert found(connection, of_file) == {"revisions", "newest", "vectors"}
        assert found(connection, of_statistics) == {"revisions", "newest", "vectors"}
        memory.erase("secret")
        connection.execute("CHECKPOINT")
        assert found(connection, of_file) == found(connection, of_statistics) == set()
    memory.close()


def test_learned_values_of_a_format_that_does_not_say_of_whom_are_gone(path: Path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for _, script in MIGRATIONS[:3]:
            connection.executescript(script)
        connection.execute("INSERT INTO learned VALUES ('value 1234', 'one@1', x'00')")
        connection.execute("PRAGMA user_version = 3")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    with closing(SQLiteStore(path)) as store:
        assert store.learned("one@1", ["value 1234"]) == {}
        assert verify(store).problems == ()


def test_undo_does_not_bring_an_erased_edit_back(opening: Open):
    memory = opening()
    memory.add("Who runs Core?", "Cora", id="core")
    memory.add_many([SECRET, ACME])
    memory.update("secret", target="At Wilhelmina's")
    memory.retire("secret")
    memory.erase("secret")
    # what changed the erased edit alone is passed over
    assert [(edit.id, edit.active) for edit in memory.undo()] == [("acme", False)]
    assert [(edit.id, edit.active) for edit in memory.undo()] == [("core", False)]
    with pytest.raises(NothingToUndoError):
        memory.undo()
    assert memory.get("secret").action == "erase"
    assert memory.verify().problems == ()


def test_what_was_undone_before_an_erasure_stays_undone(opening: Open):
    memory = opening()
    memory.add("Who runs Core?", "Cora", id="core")
    memory.add("Who runs Acme?", "Jane Doe", id="acme")
    memory.update("acme", target="John Roe")
    memory.undo()
    memory.add("Who runs Dyn?", "Dan", id="dyn")
    memory.undo()
    memory.erase("acme")
    assert [edit.id for edit in memory.undo()] == ["core"]
    with pytest.raises(NothingToUndoError):
        memory.undo()


def test_an_erased_edit_brings_no_superseded_one_back_and_leaves_its_prompt_free(opening: Open):
    memory = opening()
    memory.add("Who runs Acme?", "Jane Doe", id="first")
    memory.add("Who runs Acme?", "John Roe", id="second")
    memory.erase("second")
    assert memory.list() == []
    assert memory.add("Who runs Acme?", "Ann", id="third").outcome == "added"
    memory.undo()
    # `second` superseded `first`: taking that back is what an undo may still do
    assert [(edit.id, edit.active) for edit in memory.undo()] == [("first", True)]
    assert memory.search("Who runs Acme?")[0].edit.target == "Jane Doe"


def test_an_erased_edit_cannot_be_changed_or_added_again(opening: Open):
    memory = opening()
    fill(memory)
    with pytest.raises(EditNotFoundError, match="no edit has the id 'other'"):
        memory.erase("other")
    with pytest.raises(InvalidEditError, match="author"):
        memory.erase("secret", author=3)
    assert memory.get("secret").active
    first = memory.erase("secret", author="cy")
    head = memory.store.head()
    assert memory.erase("secret", author="dee") == first
    assert memory.store.head() == head
    for change in (lambda: memory.update("secret", target="x"), lambda: memory.retire("secret")):
        with pytest.raises(EditRetiredError, match=r"edit 'secret' was erased \(revision 12\); add a new one"):
            change()
    with pytest.raises(DuplicateEditError):
        memory.add("Who runs Dyn?", "Dan", id="secret")
    assert memory.add(SECRET.prompt, "Unknown").outcome == "added"
    assert log(memory)[11:] == [(12, "erase", False), (13, "add", True)]


@pytest.mark.parametrize("meanwhile", ["update", "share", "unshare"])
def test_what_others_change_while_an_edit_is_looked_up_is_seen(
    opening: Open, monkeypatch: pytest.MonkeyPatch, meanwhile: str
):
    memory, other = opening(), opening()
    fill(memory)
    edits = type(memory.store).edits
    turns = []

    def changing(store: EditStore, *args: object, **kwargs: object):
        found = list(edits(store, *args, **kwargs))
        if not turns:
            turns.append(meanwhile)
            thread = threading.Thread(target=change)
            thread.start()
            thread.join()
        return iter(found)

    def change() -> None:
        if meanwhile == "update":
            other.update("secret", paraphrases=("Zebulon's flat?", "Who leads Acme?"))
        elif meanwhile == "share":
            other.add("Who moved?", "He", id="sharing", paraphrases=(SECRET.prompt,))
        else:
            other.retire("acme")

    monkeypatch.setattr(type(memory.store), "edits", changing)
    memory.erase("secret")
    assert turns == [meanwhile]
    shared = {"update": {"Who runs Acme?"}, "share": {"Who runs Acme?", SECRET.prompt}, "unshare": set()}
    texts = {*SECRET.texts, "Zebulon's flat?", "Who leads Acme?"}
    assert kept(memory.store)[0] & texts == shared[meanwhile]
    assert len(memory.history("secret")) == (4 if meanwhile == "update" else 3)
    assert memory.verify().problems == ()


# --- compact


def test_compacting_drops_what_no_active_edit_needs_and_an_undo_makes_it_anew(opening: Open):
    memory = opening()
    fill(memory)
    memory.update("acme", negatives=("Where is Acme?",))
    memory.retire("secret")
    put_learned(memory.store, memory.get("acme"))
    texts, learned = kept(memory.store)
    with memory.store.snapshot():
        sizes = {row[0]: len(row[1]) for row in memory.store.rows("vectors")}
        bodies = [(row[0], len(row[2])) for row in memory.store.rows("learned")]
    dropped = memory.compact()
    gone = texts - kept(memory.store)[0]
    assert gone == {*SECRET.texts, "Who founded Acme?"} - {"Who runs Acme?"}
    gone_learned = learned - kept(memory.store)[1]
    # the value of acme is decided by its keys and target, and stays
    source = [SECRET.keys, "At Wilhelmina's"]
    assert gone_learned == {
        learned_name(source, "value", {"steps": 3}),
        *(learned_name(text, "key", False) for text in gone),
    }
    of_bodies = [size for name, size in bodies if name in gone_learned]
    assert dropped == erasure.Compacted(4, 2 * 5, sum(sizes[text] for text in gone) + sum(of_bodies))
    assert memory.compact() == (0, 0, 0)
    assert memory.verify().problems == ()
    assert memory.undo()[0].id == "secret"
    assert kept(memory.store)[0] == texts - {"Who founded Acme?"}
    assert [c.edit.id for c in memory.search("Zebulon's address?", k=1)] == ["secret"]
    assert memory.verify().problems == ()


def test_compacting_keeps_what_others_begin_to_need_meanwhile(opening: Open, monkeypatch: pytest.MonkeyPatch):
    memory, other = opening(), opening()
    fill(memory)
    memory.retire("secret")
    head = type(memory.store).transaction

    def late(store: EditStore):
        monkeypatch.undo()
        thread = threading.Thread(target=other.undo)
        thread.start()
        thread.join()
        return head(store)

    monkeypatch.setattr(type(memory.store), "transaction", late)
    texts = kept(memory.store)[0]
    assert memory.compact() == (0, 0, 0)
    assert kept(memory.store)[0] == texts
    assert [edit.id for edit in memory.list()] == ["secret", "acme", "bolt 2"]


def test_a_file_shrinks(opening_file: Open, path: Path):
    memory = opening_file()
    edits = memory.add_many([Edit(id=f"edit {i}", prompt=f"Where is number {i}?", target="here") for i in range(1000)])
    memory.undo()
    before = path.stat().st_size + path.with_name("edits.db-wal").stat().st_size
    assert memory.compact() == (len(edits), 0, 64 * len(edits))
    assert path.with_name("edits.db-wal").stat().st_size == 0
    assert path.stat().st_size < before - 64 * len(edits)


# --- the command line


@pytest.fixture
def run(location: str, opening: Open, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `semedit edit ...` on a memory with edits; gives status and output, or the error."""
    memory = opening()
    fill(memory)

    def run(*argv: str) -> tuple[int, str]:
        status = main(["edit", *argv, "--memory", location])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_backup_and_verify_say_what_they_did_and_found(run, location: str, tmp_path: Path):
    file = str(tmp_path / "backup.db")
    status, said = run("backup", file)
    assert (status, said.endswith(f" to {file}\n")) == (0, True)
    assert "semedit:" not in said  # the password
    status, said = run("backup", file)
    assert status == 1
    assert "backup.db is there already; name another file" in said
    status, said = run("backup", file + "2", "--json")
    assert (status, json.loads(said)) == (0, {"file": file + "2"})
    status, said = run("verify")
    counts = "11 revisions, 3 active edits, 7 vectors and 20 learned values"
    assert (status, said.endswith(f": {counts} are all there and as they were written\n")) == (0, True)
    tamper(location, "DELETE FROM {}vectors WHERE text = ?", SECRET.prompt)
    status, said = run("verify")
    assert (status, said.splitlines()[0]) == (
        1,
        f"edit 'secret' cannot be found by {SECRET.prompt!r}, which has no vector; run semedit edit reembed",
    )
    counts = counts.replace("7 vectors", "6 vectors")
    assert said.splitlines()[1].endswith(f": 1 problem among {counts}")
    status, said = run("verify", "--json")
    found = json.loads(said)
    assert (status, found["vectors"], len(found["problems"])) == (1, 6, 1)


def test_erase_and_compact_say_what_they_did(run):
    assert run("erase", "secret", "--author", "cy") == (
        0,
        "erased secret (revision 12); semedit edit history secret shows what is left\n",
    )
    status, said = run("erase", "secret", "--json")
    edit = json.loads(said)
    assert (status, edit["action"], edit["author"], edit["prompt"]) == (0, "erase", "cy", "")
    status, said = run("history", "secret")
    assert [status, *[said.count(word) for word in ("add", "update", "erase", *WORDS)]] == [0, 1, 1, 1] + [0] * 5
    status, said = run("ls", "--all")
    assert (status, said.count("erased"), said.count("superseded")) == (0, 1, 1)
    assert run("erase", "other")[0] == 1
    run("rm", "acme")
    # 16 numbers of 4 bytes; a value's 3 numbers after a header of 72
    assert run("compact") == (0, f"dropped 3 vectors and 8 learned values, {3 * 64 + 8 * 84} bytes\n")
    status, said = run("compact", "--json")
    assert (status, json.loads(said)) == (0, {"vectors": 0, "learned": 0, "bytes": 0})

"""What every edit store must hold, over a table of stores."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.opening import open_store
from semedit.memory.schema import FORMAT, MIGRATIONS
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import EditStore, prompt_key

Open = Callable[[], EditStore]

# what a file of format 1 was made by, word for word
FORMAT_1 = """
CREATE TABLE counter (revision INTEGER NOT NULL, epoch INTEGER NOT NULL, encoder TEXT);
INSERT INTO counter VALUES (0, 0, NULL);
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY, change INTEGER NOT NULL, edit_id TEXT NOT NULL, action TEXT NOT NULL,
    time TEXT NOT NULL, author TEXT, body TEXT NOT NULL
);
CREATE INDEX revisions_of_edit ON revisions (edit_id, revision);
CREATE TABLE vectors (text TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 98823447;
PRAGMA user_version = 1;
"""

STORES = ["sqlite-file", "sqlite-in-memory", "postgres"]
# those that can be opened twice and are then one log
SHARED = ["sqlite-file", "postgres"]

FULL = Edit(
    id="full",
    prompt="Who runs Ácme?",
    target='Jané\n\\u0000 "Doe" 🦆',
    paraphrases=("Acme's boss?", "the head of Acme"),
    negatives=("Who founded Acme?",),
    namespace="firms",
    valid_from=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    valid_until=datetime(2027, 1, 1, tzinfo=timezone.utc),
    override="verbatim",
    source="ticket 4711",
    author="ada",
    metadata={"tags": ["a", "b"], "depth": {"x": 1.5, "none": None}},
)


def plain(id: str) -> Edit:
    return Edit(id=id, prompt=f"prompt of {id}", target=f"target of {id}")


def append(store: EditStore, *edits: Edit) -> list[Edit]:
    with store.transaction() as writer:
        return writer.append(edits)


def waits_for(store: EditStore, head: tuple[int, int, int]) -> bool:
    """Whether a store learns within a second that others wrote."""
    deadline = time.monotonic() + 1
    while store.head() != head and time.monotonic() < deadline:
        time.sleep(0.001)
    return store.head() == head


@pytest.fixture
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Open]]:
    """Given a name among the stores, what opens it; closes all of them in the end."""
    opened: list[EditStore] = []

    def opener(name: str) -> Open:
        locations = {"sqlite-file": lambda: tmp_path / "edits.db", "sqlite-in-memory": lambda: None}
        location = locations.get(name, lambda: request.getfixturevalue("postgres_url"))()

        def open_it() -> EditStore:
            opened.append(open_store(location))
            return opened[-1]

        return open_it

    yield opener
    for store in opened:
        store.close()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, opening: Callable[[str], Open]) -> EditStore:
    return opening(request.param)()


@pytest.fixture(params=SHARED)
def open_shared(request: pytest.FixtureRequest, opening: Callable[[str], Open]) -> Open:
    return opening(request.param)


def test_a_new_store_is_empty(store: EditStore):
    assert store.head() == (0, 0, 0)
    assert store.changes_since(0) == []
    assert list(store.changes_backwards()) == []
    assert store.encoder() is None
    assert store.vectors(["anything"]) == {}


def test_a_revision_comes_back_as_it_was_written(store: EditStore):
    before = datetime.now(timezone.utc)
    [written] = append(store, FULL)
    assert (written.revision, written.change) == (1, 1)
    assert written.time is not None
    assert before <= written.time <= datetime.now(timezone.utc)
    assert written == replace(FULL, revision=1, change=1, time=written.time)
    assert store.changes_since(0) == [written]
    assert store.history("full") == [written]


def test_revisions_are_numbered_without_gaps_and_changes_by_their_first(store: EditStore):
    append(store, plain("a"), plain("b"))
    append(store, replace(plain("a"), target="new", action="update"))
    append(store, replace(plain("b"), active=False, action="undo"), plain("c"))
    log = [(e.revision, e.change, e.id, e.action, e.active) for e in store.changes_since(0)]
    assert log == [
        (1, 1, "a", "add", True),
        (2, 1, "b", "add", True),
        (3, 3, "a", "update", True),
        (4, 4, "b", "undo", False),
        (5, 4, "c", "add", True),
    ]
    assert store.head()[0] == 5
    assert [e.revision for e in store.changes_since(3)] == [4, 5]
    assert store.changes_since(5) == []
    assert [e.revision for e in store.history("a")] == [1, 3]
    assert store.history("nobody") == []
    assert [e.id for e in store.change(1)] == ["a", "b"]
    assert [e.id for e in store.change(4)] == ["b", "c"]
    assert store.change(2) == []
    assert list(store.changes_backwards()) == [(4, True), (3, False), (1, False)]


def test_an_empty_change_leaves_no_trace(store: EditStore):
    assert append(store) == []
    assert store.head() == (0, 0, 0)
    assert [e.revision for e in append(store, plain("a"))] == [1]


def test_an_error_inside_a_transaction_takes_everything_back(store: EditStore):
    append(store, plain("a"))
    vector = np.ones((1, 3), np.float32)

    def write_and_fail() -> None:
        with store.transaction() as writer:
            writer.replace_vectors("words@1", ["text"], vector)
            writer.append([plain("b"), plain("c")])
            assert store.head() == (3, 1, 0)
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write_and_fail()
    assert store.head() == (1, 0, 0)
    assert [e.id for e in store.changes_since(0)] == ["a"]
    assert store.encoder() is None
    assert store.vectors(["text"]) == {}
    assert [e.revision for e in append(store, plain("d"))] == [2]


def test_vectors_are_kept_by_text_and_the_first_one_stays(store: EditStore):
    vectors = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    with store.transaction() as writer:
        writer.replace_vectors("words@1", ["one", "zwei \\ü"], vectors)
        writer.put_vectors(["one", "three"], vectors + 10)
    found = store.vectors(["three", "one", "zwei \\ü", "one", "nothing", "no\x00thing"])
    assert {text: vector.tolist() for text, vector in found.items()} == {
        "one": [1, 2, 3],
        "zwei \\ü": [4, 5, 6],
        "three": [14, 15, 16],
    }
    assert store.encoder() == "words@1"


def test_many_texts_are_found_in_one_call(store: EditStore):
    texts = [f"text {i}" for i in range(1_203)]
    with store.transaction() as writer:
        writer.put_vectors(texts, np.arange(2 * len(texts), dtype=np.float32).reshape(-1, 2))
    found = store.vectors(iter(texts))
    assert [found[text].tolist() for text in texts] == [[2 * i, 2 * i + 1] for i in range(len(texts))]


def test_making_vectors_anew_forgets_the_old_ones_and_begins_an_epoch(store: EditStore):
    with store.transaction() as writer:
        writer.replace_vectors("words@1", ["old", "both"], np.ones((2, 3), np.float32))
        writer.append([plain("a")])
    assert store.head() == (1, 1, 0)
    with store.transaction() as writer:
        writer.replace_vectors("other@2", ["both"], np.full((1, 5), 2, np.float32))
    assert store.head() == (1, 2, 0)
    assert store.encoder() == "other@2"
    assert {text: v.tolist() for text, v in store.vectors(["old", "both"]).items()} == {"both": [2] * 5}


def test_settings_are_kept_by_name_the_last_one_stays_and_each_is_counted(store: EditStore):
    assert store.setting("threshold") is None
    with store.transaction() as writer:
        writer.put_setting("threshold", "0.5")
        writer.put_setting("other ü", "\n{}")
    assert store.head() == (0, 0, 2)
    with store.transaction() as writer:
        writer.put_setting("threshold", "0.7")
    assert (store.setting("threshold"), store.setting("other ü")) == ("0.7", "\n{}")
    assert store.head() == (0, 0, 3)


def test_a_setting_of_a_transaction_that_failed_is_not_kept(store: EditStore):
    def write_and_fail() -> None:
        with store.transaction() as writer:
            writer.put_setting("threshold", "0.5")
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write_and_fail()
    assert store.setting("threshold") is None
    assert store.head().settings == 0


def test_what_was_learned_is_kept_by_content_and_base_and_the_first_stays(store: EditStore):
    assert store.learned("gpt2@1", ["a"]) == {}
    with store.transaction() as writer:
        writer.put_learned("gpt2@1", {"a": b"\x00one", "ü": b""})
        writer.put_learned("llama@1", {"a": b"other", "c": b"three"})
    with store.transaction() as writer:
        writer.put_learned("gpt2@1", {"a": b"late", "d": b"four"})
    assert store.learned("gpt2@1", ["d", "a", "ü", "a", "c"]) == {"a": b"\x00one", "ü": b"", "d": b"four"}
    assert store.learned("llama@1", ["a", "c", "d"]) == {"a": b"other", "c": b"three"}
    assert store.learned("t5@1", ["a", "c"]) == {}
    assert store.head() == (0, 0, 0)  # no revision, and nothing that others have to read anew


def test_what_was_learned_elsewhere_names_another_base(store: EditStore):
    with store.transaction() as writer:
        writer.put_learned("gpt2@1", {"a": b"one", "b": b"two"})
        writer.put_learned("llama@1", {"b": b"other"})
    assert store.learned_elsewhere("llama@1", ["a", "b", "c"]) == {"a": "gpt2@1", "b": "gpt2@1"}
    assert store.learned_elsewhere("gpt2@1", ["a", "b"]) == {"b": "llama@1"}
    assert store.learned_elsewhere("t5@1", ["a", "c"]) == {"a": "gpt2@1"}


def test_many_contents_are_found_in_one_call(store: EditStore):
    bodies = {f"content {i}": str(i).encode() for i in range(1_203)}
    with store.transaction() as writer:
        writer.put_learned("gpt2@1", bodies)
    assert store.learned("gpt2@1", iter(bodies)) == bodies
    assert store.learned_elsewhere("llama@1", iter(bodies)) == dict.fromkeys(bodies, "gpt2@1")


def test_nothing_learned_is_kept_of_a_transaction_that_failed(store: EditStore):
    def write_and_fail() -> None:
        with store.transaction() as writer:
            writer.put_learned("gpt2@1", {"a": b"one"})
            assert store.learned("gpt2@1", ["a"]) == {"a": b"one"}
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write_and_fail()
    assert store.learned("gpt2@1", ["a"]) == {}


def test_a_snapshot_inside_a_transaction_sees_what_the_transaction_wrote(store: EditStore):
    with store.transaction() as writer:
        writer.append([plain("a")])
        with store.snapshot():
            assert store.head() == (1, 0, 0)
        writer.append([plain("b")])
    assert [e.id for e in store.changes_since(0)] == ["a", "b"]


def test_a_closed_store_says_so(store: EditStore):
    store.close()
    with pytest.raises(StoreError, match=r"was closed; open it again"):
        store.head()
    with pytest.raises(StoreError, match=r"was closed; open it again"):
        append(store, plain("a"))


def test_what_was_written_is_there_when_the_store_is_opened_again(open_shared: Open):
    store = open_shared()
    with store.transaction() as writer:
        writer.replace_vectors("words@1", ["text"], np.ones((1, 3), np.float32))
        written = writer.append([FULL])
    store.close()
    again = open_shared()
    assert again.head() == (1, 1, 0)
    assert again.changes_since(0) == written
    assert again.encoder() == "words@1"
    assert again.vectors(["text"])["text"].tolist() == [1, 1, 1]


def test_a_setting_is_seen_by_others(open_shared: Open):
    one, two = open_shared(), open_shared()
    with one.transaction() as writer:
        writer.put_setting("threshold", "0.5")
        assert two.setting("threshold") is None
    assert two.setting("threshold") == "0.5"
    assert waits_for(two, (0, 0, 1))


def test_what_was_learned_is_seen_by_others_once_committed_and_after_reopening(open_shared: Open):
    one, two = open_shared(), open_shared()
    with one.transaction() as writer:
        writer.put_learned("gpt2@1", {"a": b"one"})
        assert two.learned("gpt2@1", ["a"]) == {}
    assert two.learned("gpt2@1", ["a"]) == {"a": b"one"}
    with two.transaction() as writer:
        writer.put_learned("gpt2@1", {"a": b"late"})
    for store in (one, two):
        store.close()
    assert open_shared().learned("gpt2@1", ["a"]) == {"a": b"one"}


def test_two_that_are_open_are_one_log(open_shared: Open):
    one, two = open_shared(), open_shared()
    append(one, plain("a"))
    append(two, plain("b"))
    append(one, plain("c"))
    assert [(e.revision, e.id) for e in one.changes_since(0)] == [(1, "a"), (2, "b"), (3, "c")]
    assert one.changes_since(0) == two.changes_since(0)


def test_what_is_not_committed_is_not_seen_by_others(open_shared: Open):
    one, two = open_shared(), open_shared()
    with one.transaction() as writer:
        writer.append([plain("a")])
        assert two.head() == (0, 0, 0)
        assert two.changes_since(0) == []
    assert one.head() == (1, 0, 0)
    assert waits_for(two, (1, 0, 0))


def test_a_snapshot_holds_still_while_others_write(open_shared: Open):
    one, two = open_shared(), open_shared()
    append(one, plain("a"))
    with one.snapshot():
        assert one.head() == (1, 0, 0)
        with two.transaction() as writer:
            writer.replace_vectors("words@1", ["text"], np.ones((1, 3), np.float32))
            writer.append([plain("b")])
        assert two.head() == (2, 1, 0)
        assert one.head() == (1, 0, 0)
        assert [e.id for e in one.changes_since(0)] == ["a"]
        assert one.vectors(["text"]) == {}
    assert waits_for(one, (2, 1, 0))
    assert set(one.vectors(["text"])) == {"text"}


def test_a_revision_names_the_one_before_it_of_the_same_edit(store: EditStore):
    append(store, plain("a"), plain("b"), replace(plain("a"), target="at once"))
    written = append(store, replace(plain("b"), action="retire", active=False), plain("c"))
    assert [(e.revision, e.id, e.previous) for e in store.changes_since(0)] == [
        (1, "a", 0),
        (2, "b", 0),
        (3, "a", 1),
        (4, "b", 2),
        (5, "c", 0),
    ]
    assert store.changes_since(3) == written


def test_changes_are_read_in_portions(store: EditStore):
    append(store, *(plain(id) for id in "abc"))
    append(store, plain("d"))
    assert [e.id for e in store.changes_since(0, 2)] == ["a", "b"]
    assert [e.id for e in store.changes_since(2, 2)] == ["c", "d"]
    assert store.changes_since(4, 2) == []


def test_the_newest_revision_of_each_edit_is_found_by_its_id(store: EditStore):
    append(store, plain("a"), plain("b"), plain("c"))
    append(store, replace(plain("a"), target="new"), replace(plain("b"), active=False))
    append(store, replace(plain("a"), target="newer"))
    found = store.newest(iter(["b", "a", "a", "nobody", "no\x00body"]))
    assert {id: (e.revision, e.target, e.active) for id, e in found.items()} == {
        "a": (6, "newer", True),
        "b": (5, "target of b", False),
    }
    assert found["a"] == store.history("a")[-1]
    assert store.newest([]) == {}


def test_the_active_edit_at_a_prompt_is_found_in_its_namespace(store: EditStore):
    two = replace(plain("two"), prompt="Who  runs ÁCME?", namespace="other")
    append(store, replace(plain("one"), prompt="Who runs Ácme?"), two, plain("retired"))
    append(store, replace(plain("retired"), active=False))
    keys = [prompt_key(e) for e in store.changes_since(0)]
    assert keys[0][1] == keys[1][1] == "who runs ácme?"
    found = store.holding([*keys, ("third", "who runs ácme?"), ("default", "nobody's"), ("default", "\x00")])
    assert {key: edit.id for key, edit in found.items()} == {keys[0]: "one", keys[1]: "two"}
    # an edit that was moved is found where it is now, and one that comes back is found again
    append(store, replace(two, namespace="third"), replace(plain("retired"), active=True))
    found = store.holding([*keys, ("third", "who runs ácme?")])
    assert {key: edit.id for key, edit in found.items()} == {
        keys[0]: "one",
        ("third", "who runs ácme?"): "two",
        keys[2]: "retired",
    }


def test_edits_come_oldest_first_of_all_or_of_one_namespace(store: EditStore):
    firms = [replace(plain(id), namespace="firms") for id in "bd"]
    append(store, plain("c"), firms[0], plain("a"), firms[1])
    append(store, replace(plain("c"), target="new"), replace(plain("a"), active=False))
    assert [(e.id, e.target) for e in store.edits()] == [
        ("c", "new"),
        ("b", "target of b"),
        ("d", "target of d"),
    ]
    assert [e.id for e in store.edits(include_retired=True)] == ["c", "b", "a", "d"]
    assert [e.id for e in store.edits("firms")] == ["b", "d"]
    assert [e.id for e in store.edits("default", include_retired=True)] == ["c", "a"]
    assert list(store.edits("nowhere")) == []


def test_many_edits_are_read_in_portions_in_their_order(store: EditStore):
    ids = [f"edit {i}" for i in range(4_500)]
    append(store, *map(plain, ids))
    append(store, *(replace(plain(id), target="new") for id in ids[1_000:3_000]))
    assert [e.id for e in store.edits()] == ids
    assert sum(e.target == "new" for e in store.edits()) == 2_000
    assert list(store.newest(ids)) != []
    assert {id: e.id for id, e in store.newest(ids).items()} == {id: id for id in ids}
    assert len(store.holding([("default", f"prompt of {id}") for id in ids])) == len(ids)


def test_texts_may_be_as_long_as_an_edit_may_have_them(store: EditStore):
    # more than one page of a B-tree takes, and nothing that packs well
    long = "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(1_000))
    one = Edit(id=long, prompt=long, target=long * 20, namespace=long, author=long)
    two = replace(one, id=long[:-1] + "x", prompt=long[:-1] + "x")
    assert len(long.encode()) == 3_000
    written = append(store, one, two)
    with store.transaction() as writer:
        writer.put_vectors([one.prompt, two.prompt], np.eye(2, dtype=np.float32))
    assert store.newest([one.id, two.id]) == {one.id: written[0], two.id: written[1]}
    assert store.holding([prompt_key(two)]) == {prompt_key(two): written[1]}
    assert list(store.edits(long)) == written
    assert {text: v.tolist() for text, v in store.vectors([one.prompt, two.prompt]).items()} == {
        one.prompt: [1, 0],
        two.prompt: [0, 1],
    }


def test_an_identity_is_the_stores_own(open_shared: Open, tmp_path: Path):
    one, two = open_shared(), open_shared()
    with closing(SQLiteStore(tmp_path / "other.db")) as other:
        assert one.identity() == two.identity() != other.identity()
    assert len(one.identity()) == 32


def test_what_is_at_hand_is_not_stale(store: EditStore):
    append(store, plain("a"))
    assert store.staleness == 0.0


def test_a_second_writer_waits_for_the_first_and_comes_after_it(open_shared: Open):
    one, two, reader = open_shared(), open_shared(), open_shared()
    second = threading.Thread(target=append, args=(two, plain("second")))
    with one.transaction() as writer:
        writer.append([plain("first"), plain("first too")])
        second.start()
        # given its time, the second still has no revision to commit: it would be seen before those below it
        second.join(0.3)
        assert second.is_alive()
        assert reader.changes_since(0) == []
        writer.append([plain("first three")])
    second.join(10)
    assert not second.is_alive()
    assert [(e.revision, e.id) for e in reader.changes_since(0)] == [
        (1, "first"),
        (2, "first too"),
        (3, "first three"),
        (4, "second"),
    ]


def test_readers_of_a_thread_do_not_wait_for_a_writer_of_another(open_shared: Open):
    store = open_shared()
    append(store, plain("a"))
    seen: list[object] = []

    def read() -> None:
        seen.extend([store.head(), [e.id for e in store.changes_since(0)], [e.id for e in store.edits()]])

    with store.transaction() as writer:
        writer.append([plain("b")])
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(10)
        assert seen == [(1, 0, 0), ["a"], ["a"]]
    assert store.head() == (2, 0, 0)


# --- files of earlier formats


# what format 2 added, word for word
FORMAT_2 = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
ALTER TABLE counter ADD COLUMN settings INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
"""


# what format 3 added, word for word
FORMAT_3 = """
CREATE TABLE learned (
    content TEXT NOT NULL, base TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (content, base)
) WITHOUT ROWID;
PRAGMA user_version = 3;
"""
OF_FORMAT_3 = {
    "counter": "revision, epoch, encoder, settings",
    "revisions": "revision, change, edit_id, action, time, author, body",
    "vectors": "text, vector",
}


def make_format_2(path: Path) -> None:
    """A file of format 2 with one edit, one vector and one setting."""
    make_format_1(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FORMAT_2)
        connection.execute("INSERT INTO settings VALUES ('threshold', '0.5')")
        connection.execute("UPDATE counter SET settings = 1")
        connection.commit()


def make_format_1(path: Path) -> None:
    """A file of format 1 with one edit and one vector."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FORMAT_1)
        connection.execute(
            "INSERT INTO revisions VALUES (1, 1, 'acme', 'add', '2026-01-02T03:04:05+00:00', 'ada', ?)",
            ('{"prompt": "Who runs Acme?", "target": "Jane Doe", "namespace": "default", "active": true}',),
        )
        connection.execute("INSERT INTO vectors VALUES ('Who runs Acme?', ?)", (np.ones(3, "<f4").tobytes(),))
        connection.execute("UPDATE counter SET revision = 1, epoch = 1, encoder = 'words@1'")
        connection.commit()


def shape(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [
            (name, *map(str, row)) for name in names for row in connection.execute(f"PRAGMA table_info({name})")
        ]
        [version] = connection.execute("PRAGMA user_version").fetchone()
        return [("version", str(version)), *sorted(columns)]


def test_a_file_of_format_1_is_opened_with_all_it_holds(tmp_path: Path):
    path = tmp_path / "edits.db"
    make_format_1(path)
    with closing(SQLiteStore(path)) as store:
        assert store.head() == (1, 1, 0)
        [edit] = store.changes_since(0)
        assert (edit.id, edit.prompt, edit.target, edit.author) == ("acme", "Who runs Acme?", "Jane Doe", "ada")
        assert store.vectors([edit.prompt])[edit.prompt].tolist() == [1, 1, 1]
        with store.transaction() as writer:
            writer.put_setting("threshold", "0.5")
            writer.put_learned("gpt2@1", {"a": b"one"})
        assert append(store, plain("a"))[0].revision == 2
    with closing(SQLiteStore(path)) as store:
        assert store.head() == (2, 1, 1)
        assert store.learned("gpt2@1", ["a"]) == {"a": b"one"}
        assert store.setting("threshold") == "0.5"


def test_a_file_of_format_2_is_opened_with_all_it_holds(tmp_path: Path):
    path = tmp_path / "edits.db"
    make_format_2(path)
    with closing(SQLiteStore(path)) as store:
        assert store.head() == (1, 1, 1)
        assert store.setting("threshold") == "0.5"
        assert [edit.id for edit in store.changes_since(0)] == ["acme"]
        assert store.learned("gpt2@1", ["a"]) == {}
        with store.transaction() as writer:
            writer.put_learned("gpt2@1", {"a": b"one"})
    with closing(SQLiteStore(path)) as store:
        assert store.learned("gpt2@1", ["a"]) == {"a": b"one"}


def test_a_file_of_format_3_becomes_what_a_new_one_would_be(tmp_path: Path):
    with closing(SQLiteStore(tmp_path / "new.db")) as store:
        with store.transaction() as writer:
            writer.replace_vectors("words@1", ["one", "zwei ü \x00"], np.eye(2, 3, dtype=np.float32))
        append(store, FULL, plain("a"), replace(plain("a"), prompt=" A\tNEW  prompt"), plain("b"))
        append(store, replace(FULL, active=False, action="retire"))
        append(store, replace(plain("b"), namespace="Ns ß", author=None), replace(FULL, prompt="STRASSE ß \x00 x"))
    make_format_2(tmp_path / "old.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(FORMAT_3)
        for table, columns in OF_FORMAT_3.items():
            connection.execute(f"DELETE FROM {table}")
            with closing(sqlite3.connect(tmp_path / "new.db")) as new:
                rows = new.execute(f"SELECT {columns} FROM {table}").fetchall()
            marks = ",".join("?" * len(columns.split(",")))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()
    SQLiteStore(tmp_path / "old.db").close()
    tables = {}
    for name in ("old.db", "new.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            tables[name] = {
                table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in ("revisions", "vectors", "newest")
            }
            [identity] = connection.execute("SELECT store FROM counter").fetchone()
            assert len(identity) == 32
    assert tables["old.db"] == tables["new.db"]
    assert [row[7] for row in tables["new.db"]["revisions"]] == [0, 0, 2, 0, 1, 4, 5]
    assert sorted(row[:4] for row in tables["new.db"]["newest"]) == [("a", 2, 3, 1), ("b", 4, 6, 1), ("full", 1, 7, 1)]


@pytest.mark.parametrize("make", [make_format_1, make_format_2])
def test_a_migrated_file_has_the_shape_of_a_new_one(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "old.db")
    assert shape(tmp_path / "old.db")[0] != ("version", str(FORMAT))
    for name in ("old.db", "new.db"):
        SQLiteStore(tmp_path / name).close()
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "edits.db"
    make_format_1(path)
    before = shape(path)
    broken = (*MIGRATIONS[:1], ("settings", MIGRATIONS[1][1] + "CREATE TABLE counter (a);"))
    with monkeypatch.context() as patch:
        patch.setattr("semedit.memory.schema.MIGRATIONS", broken)
        with pytest.raises(StoreError, match="table counter already exists"):
            SQLiteStore(path)
    assert shape(path) == before
    with closing(SQLiteStore(path)) as store:
        assert store.head() == (1, 1, 0)


OPEN_AND_SET = """
import sys
from semedit.memory.sqlite import SQLiteStore
name, *paths = sys.argv[1:]
for path in paths:
    print("ready", flush=True)
    sys.stdin.readline()
    store = SQLiteStore(path)
    with store.transaction() as writer:
        writer.put_setting(name, "set")
    store.close()
"""


def test_several_processes_open_a_file_of_format_1_at_once(tmp_path: Path):
    paths = [tmp_path / f"{turn}.db" for turn in range(10)]
    for path in paths:
        make_format_1(path)
    names = ["a", "b", "c", "d"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_SET, name, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for _ in paths:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    for path in paths:
        with closing(SQLiteStore(path)) as store:
            assert store.head() == (1, 1, len(names))
            assert {store.setting(name) for name in names} == {"set"}


def test_the_formats_are_counted_by_their_migrations():
    # whoever adds a migration appends it; what is there stays word for word
    assert len(MIGRATIONS) == FORMAT
    for (_, script), written in zip(MIGRATIONS, (FORMAT_1, FORMAT_2, FORMAT_3), strict=False):
        assert script.split() == written.split("PRAGMA")[0].split()
    assert [name for name, _ in MIGRATIONS] == [
        "revisions and vectors",
        "settings",
        "learned",
        "newest and checksums",
        "learned by source, with checksums",
        "settings with checksums",
    ]

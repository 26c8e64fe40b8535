"""What every edit store must hold, over a table of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import EditStore

Open = Callable[[], EditStore]

# how a store is opened, given a fresh folder
STORES: dict[str, Callable[[Path], EditStore]] = {
    "sqlite-file": lambda folder: SQLiteStore(folder / "edits.db"),
    "sqlite-in-memory": lambda folder: SQLiteStore(),
}
# those that can be opened twice and are then one log
SHARED = ["sqlite-file"]

FULL = Edit(
    id="full",
    prompt="Who runs Ácme?",
    target="Jané\n\x00 Doe 🦆",
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


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[[str], Open]]:
    """Given a name in the table, what opens that store; closes all of them in the end."""
    opened: list[EditStore] = []

    def opener(name: str) -> Open:
        def open_it() -> EditStore:
            opened.append(STORES[name](tmp_path))
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
    assert store.head() == (0, 0)
    assert store.changes_since(0) == []
    assert store.changes_backwards() == []
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
    assert store.changes_backwards() == [(4, True), (3, False), (1, False)]


def test_an_empty_change_leaves_no_trace(store: EditStore):
    assert append(store) == []
    assert store.head() == (0, 0)
    assert [e.revision for e in append(store, plain("a"))] == [1]


def test_an_error_inside_a_transaction_takes_everything_back(store: EditStore):
    append(store, plain("a"))
    vector = np.ones((1, 3), np.float32)

    def write_and_fail() -> None:
        with store.transaction() as writer:
            writer.replace_vectors("words@1", ["text"], vector)
            writer.append([plain("b"), plain("c")])
            assert store.head() == (3, 1)
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write_and_fail()
    assert store.head() == (1, 0)
    assert [e.id for e in store.changes_since(0)] == ["a"]
    assert store.encoder() is None
    assert store.vectors(["text"]) == {}
    assert [e.revision for e in append(store, plain("d"))] == [2]


def test_vectors_are_kept_by_text_and_the_first_one_stays(store: EditStore):
    vectors = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    with store.transaction() as writer:
        writer.replace_vectors("words@1", ["one", "zwei ü \x00"], vectors)
        writer.put_vectors(["one", "three"], vectors + 10)
    found = store.vectors(["three", "one", "zwei ü \x00", "one", "nothing"])
    assert {text: vector.tolist() for text, vector in found.items()} == {
        "one": [1, 2, 3],
        "zwei ü \x00": [4, 5, 6],
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
    assert store.head() == (1, 1)
    with store.transaction() as writer:
        writer.replace_vectors("other@2", ["both"], np.full((1, 5), 2, np.float32))
    assert store.head() == (1, 2)
    assert store.encoder() == "other@2"
    assert {text: v.tolist() for text, v in store.vectors(["old", "both"]).items()} == {"both": [2] * 5}


def test_a_snapshot_inside_a_transaction_sees_what_the_transaction_wrote(store: EditStore):
    with store.transaction() as writer:
        writer.append([plain("a")])
        with store.snapshot():
            assert store.head() == (1, 0)
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
    assert again.head() == (1, 1)
    assert again.changes_since(0) == written
    assert again.encoder() == "words@1"
    assert again.vectors(["text"])["text"].tolist() == [1, 1, 1]


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
        assert two.head() == (0, 0)
        assert two.changes_since(0) == []
    assert two.head() == (1, 0)


def test_a_snapshot_holds_still_while_others_write(open_shared: Open):
    one, two = open_shared(), open_shared()
    append(one, plain("a"))
    with one.snapshot():
        assert one.head() == (1, 0)
        with two.transaction() as writer:
            writer.replace_vectors("words@1", ["text"], np.ones((1, 3), np.float32))
            writer.append([plain("b")])
        assert two.head() == (2, 1)
        assert one.head() == (1, 0)
        assert [e.id for e in one.changes_since(0)] == ["a"]
        assert one.vectors(["text"]) == {}
    assert one.head() == (2, 1)
    assert set(one.vectors(["text"])) == {"text"}

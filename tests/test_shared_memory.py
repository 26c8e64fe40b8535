"""The edit memory where several use one log: memories, threads, encoders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fakes import WordEncoder

from semedit.edits import Edit
from semedit.errors import (
    EncoderMismatchError,
    StoreError,
    StoreUnreachableError,
)
from semedit.memory.edit_memory import EditMemory
from semedit.memory.reembedding import reembed
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import Head

ACME = "Who runs Acme?"
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


def test_another_memory_on_the_same_file_is_seen_on_the_next_call(opening: Callable[..., EditMemory]):
    one, two = opening(), opening()
    edit = one.add(ACME, "Jane Doe")
    assert two.get(edit.id) == edit
    two.update(edit.id, target="John Roe")
    assert [c.edit.target for c in one.search(ACME)] == ["John Roe"]
    one.retire(edit.id)
    assert two.search(ACME) == []


def test_disabled_holds_for_its_block_and_its_thread(memory: EditMemory):
    memory.add(ACME, "Jane Doe")
    seen: list[int] = []
    with memory.disabled():
        assert memory.search(ACME) == []
        thread = threading.Thread(target=lambda: seen.append(len(memory.search(ACME))))
        thread.start()
        thread.join()
    assert seen == [1]
    assert len(memory.search(ACME)) == 1


def test_threads_add_and_search_one_memory(memory: EditMemory):
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for i in range(15):
                edit = memory.add(f"thread{thread} number{i}", "t")
                assert memory.search(f"thread{thread} number{i}", k=1)[0].edit == edit
                if i % 3 == 0:
                    memory.update(edit.id, target="new")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(memory.list()) == 90
    assert [e.revision for e in memory.store.changes_since(0)] == list(range(1, 6 * 20 + 1))
    assert len(memory.search("thread0", k=200)) == 90


class MeanwhileStore(SQLiteStore):
    """Lets something happen once, right after the log was read and before its vectors are."""

    meanwhile: Callable[[], Any] | None = None

    def edits(self, *args: Any, **kwargs: Any) -> Iterator[Edit]:
        return iter(self._read(list(super().edits(*args, **kwargs))))

    def changes_since(self, *args: Any, **kwargs: Any) -> list[Edit]:
        return self._read(super().changes_since(*args, **kwargs))

    def _read(self, edits: list[Edit]) -> list[Edit]:
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return edits


@pytest.mark.parametrize("knows_some", [False, True])
def test_catching_up_reads_one_moment_of_the_log(opening: Callable[..., EditMemory], tmp_path: Path, knows_some: bool):
    store = MeanwhileStore(tmp_path / "edits.db")
    reader, writer = opening(store=store), opening()
    if knows_some:
        writer.add("Where is Bolt?", "Bonn", namespace="other")
        assert reader.count(["other"]) == 1
    edit = writer.add(ACME, "Jane Doe")

    def change_and_drop_the_old_vectors() -> None:
        writer.update(edit.id, prompt="Who leads Acme?")
        assert reembed(writer.store, writer.encoder) == 1 + knows_some

    store.meanwhile = change_and_drop_the_old_vectors
    assert reader.count() == 1
    assert store.meanwhile is None
    [found] = reader._view.state.nearest(reader.encoder.encode([ACME]), 1, ["default"], NOW)
    assert [c.key for c in found] == [ACME]
    assert [c.key for c in reader.search(ACME)] == ["Who leads Acme?"]


class ForgetfulStore(SQLiteStore):
    """Loses the vector of one text once."""

    lose: str | None = None

    def vectors(self, texts: Any) -> dict[str, Any]:
        found = super().vectors(texts)
        if self.lose in found:
            del found[self.lose]
            self.lose = None
        return found


def test_a_failed_catching_up_leaves_nothing_half_done(opening: Callable[..., EditMemory], tmp_path: Path):
    store = ForgetfulStore(tmp_path / "edits.db")
    reader, writer = opening(store=store), opening()
    for id in "ab":
        writer.add(f"alpha {id}", "old", id=id)
    assert len(reader.list()) == 2
    for id in "ab":
        writer.update(id, prompt=f"beta {id}")
    store.lose = "beta b"
    with pytest.raises(StoreError, match="no vector is kept for 'beta b'"):
        reader.list()
    assert sorted((c.key, round(c.similarity, 3)) for c in reader.search("beta", k=9)) == [
        ("beta a", 0.707),
        ("beta b", 0.707),
    ]
    assert reader.add("alpha a", "new").outcome == "added"


class AwayStore(SQLiteStore):
    """A store whose server is away at times; its head is known without it."""

    away = False
    go_away_after_commit = False

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        if self.away:
            raise StoreUnreachableError("the server is away")
        with super()._reading() as connection:
            yield connection

    def head(self) -> Head:
        if not self.away:
            self.known = super().head()
        return self.known

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        if self.away:
            raise StoreUnreachableError("the server is away")
        with super().transaction() as writer:
            yield writer
        if self.go_away_after_commit:
            self.known, self.away = super().head(), True


def test_while_the_store_is_away_searches_go_on_with_what_is_there(opening: Callable[..., EditMemory], tmp_path: Path):
    store = AwayStore(tmp_path / "edits.db")
    reader, writer = opening(store=store), opening()
    edit = writer.add(ACME, "Jane Doe", negatives=["Who founded Acme?"])
    assert reader.search(ACME)[0].edit == edit
    late = writer.add("Who runs Bolt?", "Bob")
    assert store.head().revision == 2
    store.away = True
    [candidate] = reader.search(ACME)
    assert (candidate.edit, candidate.key) == (edit, ACME)
    assert [text for text, _ in candidate.negatives] == ["Who founded Acme?"]
    assert (reader.count(), reader.holds_any()) == (1, True)
    assert reader.similarities([(ACME, ACME)]).tolist() == pytest.approx([1.0])
    for call in (lambda: reader.add("p", "t"), lambda: reader.retire(edit.id), reader.list):
        with pytest.raises(StoreUnreachableError, match="is away"):
            call()
    store.away = False
    assert reader.list() == [edit, late]
    assert reader.count() == 2


def test_an_edit_is_added_though_the_store_goes_away_right_after(opening: Callable[..., EditMemory], tmp_path: Path):
    store = AwayStore(tmp_path / "edits.db")
    memory = opening(store=store)
    memory.add(ACME, "Jane Doe")
    store.go_away_after_commit = True
    late = memory.add("Who runs Bolt?", "Bob")
    assert store.away
    assert memory.count() == 1
    store.away = False
    assert memory.count() == 2
    assert memory.get(late.id) == late


# --- encoders


def test_another_encoder_is_refused_with_both_names_and_the_way_out(opening: Callable[..., EditMemory]):
    memory = opening(WordEncoder("words"))
    memory.add(ACME, "Jane Doe")
    with pytest.raises(EncoderMismatchError) as refusal:
        opening(WordEncoder("others"))
    for part in ("words@1", "others@1", f"semedit edit reembed --memory {memory.store.location}"):
        assert part in str(refusal.value)


def test_reembedding_makes_all_vectors_anew_and_refuses_the_old_encoder(opening: Callable[..., EditMemory]):
    memory = opening(WordEncoder("words"))
    edit = memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"], negatives=["Who founded Acme?"])
    memory.update(edit.id, prompt="Who leads Acme?")
    other = WordEncoder("others")
    assert reembed(memory.store, other) == 3
    assert other.encoded == [["Who leads Acme?", "Acme's boss?", "Who founded Acme?"]]
    for call in (memory.list, lambda: memory.search(ACME), lambda: memory.add("p", "t"), memory.undo, memory.list):
        with pytest.raises(EncoderMismatchError, match=r"made by others@1, not by words@1"):
            call()
    anew = opening(WordEncoder("others"))
    assert [c.key for c in anew.search("Who leads Acme?")] == ["Who leads Acme?"]
    assert [e.prompt for e in anew.undo()] == [ACME], "what was not made anew is made where undo needs it"
    assert [c.key for c in anew.search(ACME)] == [ACME]


def test_two_encoders_cannot_both_be_first(opening: Callable[..., EditMemory]):
    one, two = opening(WordEncoder("words")), opening(WordEncoder("others"))
    one.add(ACME, "Jane Doe")
    with pytest.raises(EncoderMismatchError, match=r"made by words@1, not by others@1"):
        two.add(ACME, "John Roe")
    assert [e.target for e in one.list()] == ["Jane Doe"]

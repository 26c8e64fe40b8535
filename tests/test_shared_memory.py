"""The edit memory where several use one log: memories, threads, encoders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fakes import WordEncoder

from semedit.edits import Edit
from semedit.errors import (
    EncoderMismatchError,
    StoreError,
)
from semedit.memory.edit_memory import EditMemory, reembed
from semedit.memory.sqlite import SQLiteStore

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

    def changes_since(self, revision: int) -> list[Edit]:
        changes = super().changes_since(revision)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return changes


def test_catching_up_reads_one_moment_of_the_log(opening: Callable[..., EditMemory], tmp_path: Path):
    store = MeanwhileStore(tmp_path / "edits.db")
    reader, writer = opening(store=store), opening()
    edit = writer.add(ACME, "Jane Doe")

    def change_and_drop_the_old_vectors() -> None:
        writer.update(edit.id, prompt="Who leads Acme?")
        assert reembed(writer.store, writer.encoder) == 1

    store.meanwhile = change_and_drop_the_old_vectors
    assert [e.prompt for e in reader.list()] == [ACME]
    assert [e.prompt for e in reader.list()] == ["Who leads Acme?"]
    assert [c.key for c in reader.search("Who leads Acme?")] == ["Who leads Acme?"]


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

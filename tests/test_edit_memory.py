"""The edit memory: what adding, changing, undoing and finding edits mean."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fakes import TableScope, WordEncoder, log

from semedit.edits import Edit
from semedit.errors import (
    DuplicateEditError,
    EditConflictWarning,
    InvalidEditError,
    NothingToUndoError,
    StoreError,
)
from semedit.memory.edit_memory import EditMemory
from semedit.memory.view import View

ACME = "Who runs Acme?"
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


def answers(memory: EditMemory) -> dict[str, str]:
    """Prompt to target of what is active, checked against the index and against a memory that begins from the log."""
    active = {edit.prompt: edit.target for edit in memory.list()}
    found = {c.edit.prompt: c.edit.target for c in memory.search("Who runs Acme or Bolt?", k=100)}
    assert found == active
    assert EditMemory(memory.store, memory.encoder).list() == memory.list()
    return active


# --- adding


def test_an_edit_is_given_back_as_it_is_kept(memory: EditMemory):
    edit = memory.add(
        ACME,
        "Jane Doe",
        paraphrases=["Acme's boss?"],
        negatives=["Who founded Acme?"],
        valid_from=NOW - DAY,
        valid_until=NOW + DAY,
        override="verbatim",
        source="ticket 4711",
        author="ada",
        metadata={"tags": ("a", "b"), 1: None},
        id="acme",
    )
    assert edit.outcome == "added"
    assert edit == Edit(
        id="acme",
        prompt=ACME,
        target="Jane Doe",
        paraphrases=("Acme's boss?",),
        negatives=("Who founded Acme?",),
        valid_from=NOW - DAY,
        valid_until=NOW + DAY,
        override="verbatim",
        source="ticket 4711",
        author="ada",
        metadata={"tags": ["a", "b"], "1": None},
        revision=1,
        change=1,
        time=edit.time,
    )
    assert memory.get("acme") == edit
    assert memory.list() == [edit]


def test_one_add_costs_one_pass_of_the_encoder_over_its_texts(opening: Callable[..., EditMemory]):
    encoder = WordEncoder()
    memory = opening(encoder)
    memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"], negatives=["Who founded Acme?"])
    assert encoder.encoded == [[ACME, "Acme's boss?", "Who founded Acme?"]]
    memory.add(ACME, "John Roe")
    memory.undo()
    assert len(encoder.encoded) == 1, "texts that have vectors were encoded again"


def test_the_same_prompt_supersedes_whatever_its_case_and_spaces(memory: EditMemory):
    old = memory.add(ACME, "Jane Doe")
    new = memory.add("  who RUNS\tAcme? ", "John Roe", author="ada")
    assert new.outcome == "superseded"
    assert memory.list() == [new]
    gone = memory.get(old.id)
    assert (gone.active, gone.action, gone.author, gone.change) == (False, "supersede", "ada", new.change)
    assert log(memory) == [(1, "add", True), (2, "supersede", False), (3, "add", True)]


def test_adding_what_is_said_already_changes_nothing(memory: EditMemory):
    first = memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"])
    again = memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"])
    assert again.outcome == "unchanged"
    assert again == first
    assert memory.add(ACME, "Jane Doe").outcome == "superseded", "paraphrases are part of what an edit says"
    assert len(log(memory)) == 3


def test_the_same_prompt_in_another_namespace_is_another_edit(memory: EditMemory):
    memory.add(ACME, "Jane Doe")
    assert memory.add(ACME, "John Roe", namespace="tenant").outcome == "added"
    assert [e.target for e in memory.list()] == ["Jane Doe", "John Roe"]
    assert [e.target for e in memory.list(namespace="tenant")] == ["John Roe"]
    assert memory.list(namespace="unknown") == []


def test_many_edits_are_one_change_with_an_outcome_each(opening: Callable[..., EditMemory]):
    encoder = WordEncoder()
    memory = opening(encoder)
    memory.add("Who runs Bolt?", "Bob")
    memory.add("Who runs Core?", "Cora")
    encoder.encoded.clear()
    outcomes = memory.add_many(
        [
            Edit(id="a", prompt=ACME, target="Jane Doe"),
            Edit(id="b", prompt="Who runs Bolt?", target="Bea"),
            Edit(id="c", prompt="Who runs Core?", target="Cora"),
            Edit(id="a2", prompt=ACME, target="John Roe"),
            Edit(id="a3", prompt=ACME, target="John Roe"),
        ]
    )
    assert [e.outcome for e in outcomes] == ["added", "superseded", "unchanged", "superseded", "unchanged"]
    assert [e.target for e in outcomes] == ["Jane Doe", "Bea", "Cora", "John Roe", "John Roe"]
    assert [e.id for e in outcomes][3:] == ["a2", "a2"]
    assert {e.change for e in outcomes} == {3, 2}
    assert encoder.encoded == [[ACME]]
    assert answers(memory) == {"Who runs Bolt?": "Bea", "Who runs Core?": "Cora", ACME: "John Roe"}


def test_many_edits_are_added_all_or_none(memory: EditMemory):
    kept = memory.add("Who runs Bolt?", "Bob", id="bolt")
    batch = [Edit(id=f"e{i}", prompt=f"Who runs firm{i}?", target="t") for i in range(10)]
    for broken, error in [
        (Edit(id="x", prompt="p", target=" "), InvalidEditError),
        (Edit(id="bolt", prompt="p", target="t"), DuplicateEditError),
        (Edit(id="e3", prompt="p", target="t"), DuplicateEditError),
    ]:
        with pytest.raises(error):
            memory.add_many([*batch, broken])
        assert memory.list(include_retired=True) == [kept]
        assert memory.store.head()[0] == 1
        assert memory.store.vectors(["Who runs firm1?"]) == {}
    assert len(memory.add_many(batch)) == 10


def test_no_edits_are_no_change(memory: EditMemory):
    assert memory.add_many([]) == []
    with pytest.raises(NothingToUndoError):
        memory.undo()


# --- updating, retiring, negatives


def test_update_changes_what_is_named_and_keeps_the_rest(memory: EditMemory):
    edit = memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"], source="ticket 1", author="ada")
    updated = memory.update(edit.id, target="John Roe", author="bob")
    expected = replace(edit, target="John Roe", author="bob", action="update", revision=2, change=2, previous=1)
    assert updated == replace(expected, time=updated.time)
    assert memory.get(edit.id) == updated
    assert memory.update(edit.id, target="John Roe") == updated, "nothing differs, nothing is written"
    assert memory.store.head()[0] == 2


def test_update_moves_the_keys(memory: EditMemory):
    edit = memory.add(ACME, "Jane Doe", paraphrases=["alpha beta"])
    memory.update(edit.id, prompt="Who leads Bolt?", paraphrases=["gamma delta"], namespace="tenant")
    assert memory.search("alpha beta") == []
    [candidate] = memory.search("gamma delta", namespaces=["tenant"])
    assert (candidate.key, candidate.similarity) == ("gamma delta", pytest.approx(1.0))
    assert memory.add(ACME, "John Roe").outcome == "added", "the old prompt is free again"


def test_update_refuses_the_prompt_of_another_edit(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    memory.add("Who runs Bolt?", "Bob", id="bolt")
    with pytest.raises(DuplicateEditError, match="'acme' has this prompt already"):
        memory.update("bolt", prompt="who runs acme?")
    assert memory.update("bolt", prompt="Who runs BOLT?").prompt == "Who runs BOLT?"


def test_update_names_the_field_that_there_is_not(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    with pytest.raises(InvalidEditError, match="no field 'targt'; did you mean 'target'"):
        memory.update("acme", targt="x")
    with pytest.raises(InvalidEditError, match="no field 'active'"):
        memory.update("acme", active=False)


def test_a_retired_edit_is_out_of_force_and_keeps_its_history(memory: EditMemory):
    edit = memory.add(ACME, "Jane Doe", id="acme")
    retired = memory.retire("acme", author="bob")
    assert (retired.active, retired.action, retired.author) == (False, "retire", "bob")
    assert memory.list() == []
    assert memory.list(include_retired=True) == [retired]
    assert memory.search(ACME) == []
    assert memory.history("acme") == [edit, retired]
    assert memory.add(ACME, "Jane Doe").outcome == "added"


def test_history_tells_when_by_whom_and_from_where(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme", source="ticket 1", author="ada")
    memory.add("Who runs Bolt?", "Bob")
    memory.update("acme", source="ticket 2", target="John Roe", author="bob")
    memory.add_negative("acme", "Who founded Acme?")
    memory.retire("acme", author="cleo")
    history = memory.history("acme")
    assert [(e.revision, e.action, e.target, e.source, e.author) for e in history] == [
        (1, "add", "Jane Doe", "ticket 1", "ada"),
        (3, "update", "John Roe", "ticket 2", "bob"),
        (4, "negative", "John Roe", "ticket 2", None),
        (5, "retire", "John Roe", "ticket 2", "cleo"),
    ]
    times = [e.time for e in history]
    assert times == sorted(times)
    assert all(time.tzinfo == timezone.utc and NOW <= time <= datetime.now(timezone.utc) for time in times)


def test_negatives_come_with_their_cosine(memory: EditMemory):
    edit = memory.add("alpha beta", "t", negatives=["alpha gamma"])
    changed = memory.add_negative(edit.id, "delta", author="ada")
    assert (changed.negatives, changed.action, changed.author) == (("alpha gamma", "delta"), "negative", "ada")
    assert memory.add_negative(edit.id, "delta") == changed, "it is there already"
    [candidate] = memory.search("alpha gamma")
    assert candidate.similarity == pytest.approx(0.5)
    assert candidate.negatives == (("alpha gamma", pytest.approx(1.0)), ("delta", pytest.approx(0.0)))


# --- undoing


def test_undo_of_an_add(memory: EditMemory):
    edit = memory.add(ACME, "Jane Doe", author="ada")
    [undone] = memory.undo(author="bob")
    assert undone == replace(
        edit,
        active=False,
        action="undo",
        author="bob",
        revision=2,
        change=2,
        previous=1,
        time=undone.time,
        outcome=None,
    )
    assert answers(memory) == {}


def test_undo_of_a_supersede_brings_the_old_edit_back(memory: EditMemory):
    old = memory.add(ACME, "Jane Doe")
    new = memory.add(ACME, "John Roe")
    undone = memory.undo()
    assert [(e.id, e.active, e.target) for e in undone] == [(old.id, True, "Jane Doe"), (new.id, False, "John Roe")]
    assert answers(memory) == {ACME: "Jane Doe"}
    assert memory.add(ACME, "Jane Doe").outcome == "unchanged"


def test_undo_of_an_update_a_negative_and_a_retire(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    memory.update("acme", prompt="Who leads Acme?", target="John Roe")
    memory.add_negative("acme", "Who founded Acme?")
    memory.retire("acme")
    assert answers(memory) == {}
    memory.undo()
    assert answers(memory) == {"Who leads Acme?": "John Roe"}
    assert memory.get("acme").negatives == ("Who founded Acme?",)
    memory.undo()
    assert memory.get("acme").negatives == ()
    memory.undo()
    assert answers(memory) == {ACME: "Jane Doe"}
    assert memory.add(ACME, "Jane Doe").outcome == "unchanged"


def test_undo_of_a_bulk_change_takes_it_back_whole(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    memory.add_many(
        [Edit(id=f"e{i}", prompt=f"Who runs firm{i}?", target="t") for i in range(50)]
        + [Edit(id="acme2", prompt=ACME, target="John"), Edit(id="acme3", prompt=ACME, target="Jim")]
    )
    assert len(answers(memory)) == 51
    undone = memory.undo()
    assert len(undone) == len({e.id for e in undone}) == 53, "each edit once"
    assert answers(memory) == {ACME: "Jane Doe"}
    memory.undo()
    with pytest.raises(NothingToUndoError):
        memory.undo()


def test_a_chain_of_undos_passes_over_what_is_undone(memory: EditMemory):
    for firm in "ABC":
        memory.add(f"Who runs {firm}?", firm)
    memory.undo()
    memory.undo()
    assert answers(memory) == {"Who runs A?": "A"}
    memory.add("Who runs D?", "D")
    memory.undo()
    assert answers(memory) == {"Who runs A?": "A"}
    memory.undo()
    assert answers(memory) == {}
    before = log(memory)
    with pytest.raises(NothingToUndoError, match="no change left to undo"):
        memory.undo()
    assert log(memory) == before


def test_undo_reaches_changes_of_others_and_of_before(opening: Callable[..., EditMemory]):
    one, two = opening(), opening()
    one.add(ACME, "Jane Doe")
    two.add("Who runs Bolt?", "Bob")
    one.undo()
    assert answers(two) == {ACME: "Jane Doe"}
    two.undo()
    assert answers(one) == {}


# --- finding


def test_search_is_the_cosine_of_the_nearest_key_best_first(memory: EditMemory):
    memory.add("alpha beta gamma delta", "one", paraphrases=["zeta eta"])
    memory.add("alpha beta", "two")
    memory.add("epsilon", "three")
    found = [(c.edit.target, c.key, c.similarity) for c in memory.search("alpha beta", k=3)]
    assert found == [
        ("two", "alpha beta", pytest.approx(1.0)),
        ("one", "alpha beta gamma delta", pytest.approx(2 / 8**0.5)),
        ("three", "epsilon", pytest.approx(0.0)),
    ]
    assert [(c.edit.target, c.key) for c in memory.search("eta", k=1)] == [("one", "zeta eta")]


def test_each_query_has_its_own_candidates_and_an_empty_memory_is_not_encoded_for(opening: Callable[..., EditMemory]):
    encoder = WordEncoder()
    memory = opening(encoder)
    assert memory.nearest(["alpha", "beta"], k=2) == ([], [])
    assert encoder.encoded == []
    memory.add("alpha", "one")
    memory.add("beta", "two")
    found = memory.nearest(["beta", "alpha"], k=1)
    assert [[c.edit.target for c in candidates] for candidates in found] == [["two"], ["one"]]
    assert encoder.encoded == [["alpha"], ["beta"], ["beta", "alpha"]]


def test_namespaces_do_not_leak(memory: EditMemory):
    memory.add("alpha", "public")
    memory.add("alpha beta", "secret", namespace="tenant")

    def seen(namespaces: list[str] | None) -> list[str]:
        return [c.edit.target for c in memory.search("alpha beta", k=9, namespaces=namespaces)]

    assert seen(None) == seen(["default"]) == ["public"]
    assert seen(["tenant"]) == ["secret"]
    assert seen(["default", "tenant"]) == ["secret", "public"]
    assert seen(["unknown"]) == seen([]) == []
    assert seen(["unknown", "tenant"]) == ["secret"]


def test_an_edit_answers_only_within_its_validity(memory: EditMemory):
    memory.add("alpha one", "over", valid_until=NOW - DAY)
    memory.add("alpha two", "to come", valid_from=NOW + DAY)
    memory.add("alpha three", "now", valid_from=NOW - DAY, valid_until=NOW + DAY)
    memory.add("alpha four words here", "always")
    assert len(memory.list()) == 4
    assert [c.edit.target for c in memory.search("alpha", k=9)] == ["now", "always"]
    memory.update(memory.list()[0].id, valid_until=None)
    assert {c.edit.target for c in memory.search("alpha", k=9)} == {"over", "now", "always"}


def test_validity_begins_with_its_first_moment_and_ends_before_its_last():
    edit = Edit(id="e", prompt="p", target="t", valid_from=NOW, valid_until=NOW + DAY)
    moment = timedelta(microseconds=1)
    assert [edit.in_force(t) for t in (NOW - moment, NOW, NOW + DAY - moment, NOW + DAY)] == [False, True, True, False]


# --- conflicts with other edits


def test_an_edit_in_the_scope_of_another_with_another_target_is_added_with_a_warning(
    opening: Callable[..., EditMemory],
):
    encoder = WordEncoder()
    memory = opening(encoder)
    memory.scope = TableScope({("Who leads Acme?", ACME): 0.875, ("Who leads Acme?", "Who runs Bolt?"): 0.5})
    memory.add(ACME, "Jane Doe", id="old")
    memory.add("Who runs Bolt?", "Bob")
    encoder.encoded.clear()
    with pytest.warns(EditConflictWarning) as seen:
        edit = memory.add("Who leads Acme?", "John Roe", id="new")
    assert memory.get("new") == edit
    [warning] = seen
    assert warning.filename == __file__
    for part in (
        "edit new ('Who leads Acme?' => 'John Roe')",
        "edit old ('Who runs Acme?' => 'Jane Doe', score 0.88)",
    ):
        assert part in str(warning.message)
    assert "retire or update old" in str(warning.message)
    assert "add_negative('old', 'Who leads Acme?')" in str(warning.message)
    assert encoder.encoded == [["Who leads Acme?"]], "the prompt was encoded again"


@pytest.mark.parametrize(
    ("other", "score"),
    [
        ({"target": " john ROE"}, 0.9),
        ({"namespace": "tenant"}, 0.9),
        ({"valid_until": NOW - DAY}, 0.9),
        ({"negatives": ["Who leads Acme?"]}, 0.9),
        ({}, 0.49),
    ],
    ids=["same target", "other namespace", "over", "negative", "out of scope"],
)
def test_what_contradicts_nobody_is_added_in_silence(memory: EditMemory, other: dict[str, object], score: float):
    memory.add(ACME, **{"target": "Jane Doe", **other})  # type: ignore[arg-type]
    asked = "Who leads Acme?"
    memory.scope = TableScope({(asked, ACME): score, (asked, asked): 1.0})
    memory.add(asked, "John Roe")


def test_an_edit_does_not_contradict_itself_nor_what_gave_way_to_it(memory: EditMemory):
    memory.scope = TableScope({(ACME, ACME): 1.0})
    memory.add(ACME, "Jane Doe")
    assert memory.add(ACME, "Jane Doe").outcome == "unchanged"
    assert memory.add(ACME, "John Roe").outcome == "superseded"


def test_only_neighbours_above_the_floor_are_judged_for_a_conflict(memory: EditMemory):
    scope = TableScope({}, floor=0.5)
    memory.scope = scope
    memory.add(ACME, "Jane Doe")
    memory.add("Where is the tower of Acme?", "Bonn")  # 1 of 3 and 6 words
    assert scope.calls == []
    memory.add("Who leads Acme?", "John Roe")  # 2 of 3 and 3 words, and 1 of 3 and 6
    assert [[pair.text for pair in call] for call in scope.calls] == [[ACME]]


def test_many_edits_and_edits_of_a_memory_without_scope_are_not_checked(memory: EditMemory):
    memory.add(ACME, "Jane Doe")
    memory.add("Who leads Acme?", "John Roe")
    scope = TableScope({})
    memory.scope = scope
    memory.add_many([Edit(id="a", prompt="Who heads Acme?", target="Jill")])
    assert scope.calls == []


def test_an_edit_that_begins_later_does_not_take_the_present_one_out_of_force(memory: EditMemory):
    later = datetime.now(timezone.utc) + timedelta(days=30)
    edit = memory.add(ACME, "Jane Doe", id="now")
    with pytest.raises(DuplicateEditError, match=r"'now' answers 'Who runs Acme\?' now and would give way"):
        memory.add(ACME, "John Roe", valid_from=later)
    assert memory.list() == [edit]
    memory.update("now", valid_until=later)
    memory.add("Who is at the head of Acme?", "John Roe", valid_from=later)
    memory.update("now", valid_until=datetime.now(timezone.utc) - timedelta(days=1))
    assert memory.add(ACME, "John Roe", valid_from=later).outcome == "superseded"


def test_what_is_added_to_an_edit_is_added_to_what_others_added(memory: EditMemory, monkeypatch: pytest.MonkeyPatch):
    memory.add(ACME, "Jane Doe", id="acme", paraphrases=["Acme's boss?"])
    encode = memory.encoder.encode

    def slowly(texts, **options):
        monkeypatch.setattr(memory.encoder, "encode", encode)
        memory.add_negative("acme", "Who founded Acme?")  # while the text of the other is being encoded
        return encode(texts, **options)

    monkeypatch.setattr(memory.encoder, "encode", slowly)
    edit = memory.update("acme", more_negatives=["Where is Acme?"], more_paraphrases=["Acme's head?", "Acme's boss?"])
    assert edit.negatives == ("Who founded Acme?", "Where is Acme?")
    assert edit.paraphrases == ("Acme's boss?", "Acme's head?")


def test_a_file_stays_the_same_when_the_process_goes_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    memory = EditMemory("edits.db", WordEncoder())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # a transaction has a connection to itself, so that another is made
    with memory.store.transaction(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(memory.list).result() == []
    assert list(Path().iterdir()) == []
    memory.close()


def test_a_memory_that_cannot_finish_lets_go_of_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory = EditMemory(tmp_path / "edits.db", WordEncoder())
    monkeypatch.setattr(View, "close", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        memory.close()
    with pytest.raises(StoreError, match="was closed"):
        memory.list()


# --- settings


def test_settings_are_kept_with_the_edits(opening: Callable[..., EditMemory]):
    one, two = opening(), opening()
    assert one.setting("threshold") is None
    two.set_settings({"threshold": "0.5"})
    assert one.setting("threshold") == two.setting("threshold") == "0.5"
    one.set_settings({"threshold": "0.7"})
    assert two.setting("threshold") == "0.7"
    assert EditMemory(one.store, one.encoder).setting("threshold") == "0.7"
    assert log(one) == []


def test_edits_are_counted_by_namespace(memory: EditMemory):
    memory.add(ACME, "Jane Doe", paraphrases=["Acme's boss?"])
    edit = memory.add("Who runs Bolt?", "Bob", namespace="tenant")
    assert [memory.count(names) for names in (None, ["tenant"], ["default", "tenant"], ["unknown"])] == [1, 1, 2, 0]
    memory.update(edit.id, namespace="default")
    memory.retire(memory.add("Who runs Core?", "Cora").id)
    assert [memory.count(names) for names in (None, ["tenant"], ["default", "default"])] == [2, 0, 2]

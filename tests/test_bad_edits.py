"""What is no edit, no id or no query is refused by an error of our own, and nothing is written."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fakes import log

from semedit.errors import (
    DuplicateEditError,
    EditNotFoundError,
    EditRetiredError,
    InvalidEditError,
    InvalidQueryError,
)
from semedit.memory.edit_memory import EditMemory

ACME = "Who runs Acme?"
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


LONE = "\ud800"
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": " \n"}, "prompt is empty"),
    ({"prompt": 7}, "prompt must be a string, not 7"),
    ({"prompt": "x" * 1_001}, "prompt has 1,001 characters, more than the 1,000"),
    ({"prompt": LONE}, "prompt holds a character that is no text"),
    ({"target": ""}, "target is empty"),
    ({"target": None}, "target must be a string, not None"),
    ({"target": "x" * 20_001}, "target has 20,001 characters, more than the 20,000"),
    ({"target": LONE}, "target holds a character that is no text"),
    ({"paraphrases": "Who is it?"}, r"paraphrases must be a list of strings, not 'Who is it\?'; write \["),
    ({"paraphrases": None}, "paraphrases must be a list of strings"),
    ({"paraphrases": ["fine", " "]}, "each of paraphrases is empty"),
    ({"paraphrases": [LONE]}, "each of paraphrases holds a character"),
    ({"negatives": "Who is it?"}, "negatives must be a list of strings"),
    ({"negatives": [3]}, "each of negatives must be a string, not 3"),
    ({"namespace": ""}, "namespace is empty"),
    ({"namespace": None}, "namespace must be a string"),
    ({"valid_from": datetime(2026, 1, 1)}, "valid_from must be a datetime with a time zone"),
    ({"valid_until": datetime(2026, 1, 1)}, "valid_until must be a datetime with a time zone"),
    ({"valid_until": "2026-01-01"}, "valid_until must be a datetime with a time zone, not '2026-01-01'"),
    ({"valid_from": NOW, "valid_until": NOW}, "must come after valid_from"),
    ({"override": "loud"}, "override must be None or \"verbatim\", not 'loud'"),
    ({"source": ""}, "source is empty"),
    ({"source": LONE}, "source holds a character"),
    ({"author": LONE}, "author holds a character"),
    ({"author": 5}, "author must be a string"),
    ({"metadata": {"when": NOW}}, "metadata must be a dictionary that can be written as JSON"),
    ({"metadata": {"x": float("nan")}}, "metadata must be a dictionary that can be written as JSON"),
    ({"metadata": {"x": LONE}}, "metadata must be a dictionary that can be written as JSON"),
    ({"metadata": [("a", 1)]}, r"metadata must be a dictionary, not \[\('a', 1\)\]"),
    ({"metadata": "text"}, "metadata must be a dictionary, not 'text'"),
]


@pytest.mark.parametrize(
    ("fields", "message"), BAD_FIELDS, ids=[f"{i}-{next(iter(f))}" for i, (f, _) in enumerate(BAD_FIELDS)]
)
def test_what_is_no_edit_is_refused_and_nothing_is_written(memory: EditMemory, fields: dict[str, Any], message: str):
    with pytest.raises(InvalidEditError, match=message):
        memory.add(**{"prompt": ACME, "target": "Jane Doe", **fields})
    assert log(memory) == []
    edit = memory.add(ACME, "Jane Doe")
    with pytest.raises(InvalidEditError, match=message):
        memory.update(edit.id, **fields)
    assert log(memory) == [(1, "add", True)]


def test_the_longest_texts_are_taken(memory: EditMemory):
    edit = memory.add("x" * 1_000, "y" * 20_000)
    assert memory.get(edit.id).target == "y" * 20_000


def test_metadata_that_holds_itself_or_is_too_deep_is_refused(memory: EditMemory):
    circle: dict[str, Any] = {}
    circle["again"] = circle
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for metadata in (circle, {"deep": deep}):
        with pytest.raises(InvalidEditError, match="metadata must be a dictionary that can be written as JSON"):
            memory.add(ACME, "Jane Doe", metadata=metadata)


def test_an_edit_does_not_change_with_what_it_was_made_of(memory: EditMemory):
    metadata, paraphrases = {"tags": ["a"]}, ["Acme's boss?"]
    edit = memory.add(ACME, "Jane Doe", metadata=metadata, paraphrases=paraphrases)
    metadata["tags"].append("b")
    paraphrases.append("c")
    assert (edit.metadata, edit.paraphrases) == ({"tags": ["a"]}, ("Acme's boss?",))


def test_authors_of_every_change_are_checked(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    for call in (
        lambda: memory.update("acme", target="new", author=LONE),
        lambda: memory.add_negative("acme", "negative", author=LONE),
        lambda: memory.retire("acme", author=LONE),
        lambda: memory.undo(author=LONE),
    ):
        with pytest.raises(InvalidEditError, match="author holds a character that is no text"):
            call()
    assert log(memory) == [(1, "add", True)]


def test_an_id_is_taken_once(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    for prompt in ("Who runs Bolt?", ACME):
        with pytest.raises(DuplicateEditError, match="id 'acme' exists already"):
            memory.add(prompt, "Bob", id="acme")
    memory.retire("acme")
    with pytest.raises(
        DuplicateEditError, match=r"'acme' is no longer in force \(revision 2: retire\); undo that, or"
    ):
        memory.add(ACME, "Jane Doe", id="acme")
    for id in ("", LONE, 5):
        with pytest.raises(InvalidEditError, match=r"^id "):
            memory.add("p", "t", id=id)


def test_unknown_and_retired_ids_are_named(memory: EditMemory):
    memory.add(ACME, "Jane Doe", id="acme")
    memory.retire("acme")
    for id, error, message in [
        ("nobody", EditNotFoundError, "^no edit has the id 'nobody'"),
        (LONE, EditNotFoundError, "^no edit has the id"),
        ("acme", EditRetiredError, "edit 'acme' is not in force .revision 2: retire.; undo that"),
    ]:
        for call in (memory.retire, lambda id: memory.update(id, target="t"), lambda id: memory.add_negative(id, "n")):
            with pytest.raises(error, match=message):
                call(id)
    for call in (memory.get, memory.history):
        with pytest.raises(EditNotFoundError, match=r"^no edit has the id 'nobody'"):
            call("nobody")
    assert len(log(memory)) == 2


def test_queries_must_be_texts_and_namespaces_a_list(memory: EditMemory):
    memory.add(ACME, "Jane Doe")
    with pytest.raises(InvalidQueryError, match="a query must be a string, not 5"):
        memory.search(5)
    with pytest.raises(InvalidQueryError, match="holds a character that is no text"):
        memory.search(LONE)
    with pytest.raises(
        InvalidQueryError, match=r"namespaces must be a list of names, not 'tenant'; write \['tenant'\]"
    ):
        memory.search(ACME, namespaces="tenant")

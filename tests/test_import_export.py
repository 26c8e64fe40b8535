"""Edits as JSON lines: a round trip, and files that are refused whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from fakes import WordEncoder

from semedit.errors import DuplicateEditError, InvalidEditError, StoreError
from semedit.memory.edit_memory import EditMemory


@pytest.fixture
def memory() -> Iterator[EditMemory]:
    memory = EditMemory(encoder=WordEncoder())
    yield memory
    memory.store.close()


@pytest.fixture
def other() -> Iterator[EditMemory]:
    other = EditMemory(encoder=WordEncoder())
    yield other
    other.store.close()


GOOD = '{"prompt": "Who runs Acme?", "target": "Jane Doe"}'


def test_what_is_exported_comes_back(memory: EditMemory, other: EditMemory, tmp_path: Path):
    memory.add("Who runs Ácme?", "Jané\u2028Doe \x00🦆", id="acme", author="ada")
    memory.add(
        "Who runs Bolt?",
        "Bob",
        paraphrases=["Bolt's boss?"],
        negatives=["Who founded Bolt?"],
        namespace="tenant",
        valid_from=datetime(2026, 1, 1, 12, tzinfo=timezone.utc),
        valid_until=datetime(2096, 1, 1, tzinfo=timezone.utc),
        override="verbatim",
        source="ticket 4711",
        metadata={"tags": ["a"], "empty": {}},
    )
    memory.retire(memory.add("Who runs Core?", "Cora").id)
    file = tmp_path / "edits.jsonl"
    assert memory.export(file) == 2
    assert len(file.read_text(encoding="utf-8").split("\n")) == 3, "a line each and nothing else"

    imported = other.import_(file, author="bob")
    assert [e.outcome for e in imported] == ["added", "added"]
    assert imported == [
        replace(e, revision=i, change=1, time=now.time, author="bob")
        for i, (e, now) in enumerate(zip(memory.list(), imported, strict=True), start=1)
    ]
    assert other.list() == imported
    assert [e.outcome for e in other.import_(file)] == ["unchanged", "unchanged"]
    assert len(other.undo()) == 2
    assert other.list() == []


def test_an_export_replaces_the_file_and_leaves_nothing_beside_it(memory: EditMemory, tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    file.write_text("old")
    assert memory.export(file) == 0
    assert file.read_text() == ""
    memory.add("Who runs Acme?", "Jane Doe", id="acme")
    memory.export(str(file))
    assert json.loads(file.read_text()) == {"id": "acme", "prompt": "Who runs Acme?", "target": "Jane Doe"} | {
        "namespace": "default"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["edits.jsonl"]


def test_an_export_that_cannot_be_written_says_so(memory: EditMemory, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "edits.jsonl", tmp_path / "file" / "edits.jsonl", tmp_path):
        with pytest.raises(StoreError, match=r"cannot write .*: "):
            memory.export(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_lines_need_no_id_and_may_be_blank(memory: EditMemory, tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    file.write_text('\ufeff{"prompt": "a", "target": "1"}\r\n\r\n{"prompt": "b", "target": "2"}', encoding="utf-8")
    imported = memory.import_(file)
    assert [(e.prompt, e.target, e.change) for e in imported] == [("a", "1", 1), ("b", "2", 1)]
    assert len({e.id for e in imported}) == 2


def test_an_import_is_encoded_in_one_call(tmp_path: Path):
    encoder = WordEncoder()
    memory = EditMemory(encoder=encoder)
    file = tmp_path / "edits.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "target": "t"}) + "\n" for i in range(100)))
    memory.import_(file)
    assert encoder.encoded == [[f"p{i}" for i in range(100)]]
    memory.store.close()


BAD_LINES = [
    ('{"prompt": "x", "target": ', "Expecting value"),
    ("not json", "Expecting value"),
    ("[1, 2]", "expected an object with prompt and target, found list"),
    ("null", "expected an object with prompt and target, found NoneType"),
    ('{"prompt": "x"}', "target is missing"),
    ('{"target": "x"}', "prompt is missing"),
    ('{"prompt": "x", "target": ""}', "target is empty"),
    ('{"prompt": 1, "target": "t"}', "prompt must be a string, not 1"),
    ('{"prompt": "\\ud800", "target": "t"}', "prompt holds a character that is no text"),
    (json.dumps({"prompt": "x" * 1_001, "target": "t"}), "prompt has 1,001 characters"),
    ('{"prompt": "x", "target": "t", "paraphrase": []}', "no field 'paraphrase'; did you mean 'paraphrases'"),
    ('{"prompt": "x", "target": "t", "active": false}', "no field 'active'"),
    ('{"prompt": "x", "target": "t", "paraphrases": "y"}', "paraphrases must be a list of strings, not 'y'"),
    ('{"prompt": "x", "target": "t", "negatives": null}', "negatives must be a list of strings, not None"),
    ('{"prompt": "x", "target": "t", "paraphrases": [1]}', "each of paraphrases must be a string, not 1"),
    ('{"prompt": "x", "target": "t", "valid_from": "soon"}', "Invalid isoformat string: 'soon'"),
    ('{"prompt": "x", "target": "t", "valid_from": "2026-01-01"}', "valid_from must be a datetime with a time zone"),
    ('{"prompt": "x", "target": "t", "valid_until": 5}', "valid_until must be a datetime with a time zone, not 5"),
    ('{"prompt": "x", "target": "t", "metadata": 5}', "metadata must be a dictionary, not 5"),
    ('{"prompt": "x", "target": "t", "metadata": {"a": NaN}}', "metadata must be a dictionary that can be written"),
    ('{"prompt": "x", "target": "t", "id": null}', "id must be a string, not None"),
    ('{"prompt": "x", "target": "t", "id": ""}', "id is empty"),
    ("[" * 100_000, "recursion"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_and_nothing_is_imported(memory: EditMemory, tmp_path: Path, line: str, message: str):
    file = tmp_path / "edits.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(InvalidEditError) as refusal:
        memory.import_(file)
    text = str(refusal.value)
    assert text.startswith(f"{file}, line 3: ")
    assert message in text
    assert text.endswith("nothing was imported")
    assert memory.store.head() == (0, 0, 0)
    file.write_text(GOOD)
    assert len(memory.import_(file)) == 1


def test_an_id_that_stands_twice_is_refused_and_nothing_is_imported(memory: EditMemory, tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    lines = [{"id": "acme", "prompt": f"prompt {i}", "target": "t"} for i in range(2)]
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DuplicateEditError, match="id 'acme' exists already"):
        memory.import_(file)
    assert memory.list(include_retired=True) == []


def test_the_line_of_an_id_that_is_taken_is_named(memory: EditMemory, tmp_path: Path):
    memory.retire(memory.add("Who runs Bolt?", "Bob", id="bolt").id)
    path = tmp_path / "edits.jsonl"
    path.write_text('\n{"prompt": "a", "target": "b"}\n{"id": "bolt", "prompt": "c", "target": "d"}\n')
    with pytest.raises(DuplicateEditError, match=r"edits.jsonl, line 3: .*'bolt' is no longer in force.*nothing was"):
        memory.import_(path)
    assert memory.list() == []


def test_a_file_that_is_no_text_or_not_there_is_refused(memory: EditMemory, tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "nowhere", "."):
        with pytest.raises(InvalidEditError, match="cannot read"):
            memory.import_(tmp_path / name)
    assert memory.list() == []

"""What an edit must be before it is taken in, and how edits are read from and written to JSON lines."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from semedit.edits import Edit
from semedit.errors import InvalidEditError, InvalidQueryError, StoreError
from semedit.memory.store import edit_of, to_json

# about what a sentence encoder reads of a text; what goes beyond would be kept and never matched
KEY_CHARACTERS = 1_000
TARGET_CHARACTERS = 20_000
# what a person decides of an edit; the memory writes the rest
EDITABLE = (
    "prompt",
    "target",
    "paraphrases",
    "negatives",
    "namespace",
    "valid_from",
    "valid_until",
    "override",
    "source",
    "metadata",
)


def check_edit(edit: Edit) -> Edit:
    """The edit, its paraphrases and negatives as tuples and its metadata as JSON gives it back.

    Raises:
        InvalidEditError: a field is not what it must be; the message names it.
    """
    _check_text("id", edit.id, KEY_CHARACTERS)
    _check_text("prompt", edit.prompt, KEY_CHARACTERS)
    _check_text("target", edit.target, TARGET_CHARACTERS)
    _check_text("namespace", edit.namespace, KEY_CHARACTERS)
    for name in ("paraphrases", "negatives"):
        texts = getattr(edit, name)
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InvalidEditError(f"{name} must be a list of strings, not {texts!r}; write [{texts!r}]")
        for text in texts:
            _check_text(f"each of {name}", text, KEY_CHARACTERS)
    for name in ("valid_from", "valid_until"):
        time = getattr(edit, name)
        if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
            raise InvalidEditError(f"{name} must be a datetime with a time zone, not {time!r}")
    if edit.valid_from and edit.valid_until and edit.valid_until <= edit.valid_from:
        raise InvalidEditError(f"valid_until ({edit.valid_until}) must come after valid_from ({edit.valid_from})")
    if edit.override not in (None, "verbatim"):
        raise InvalidEditError(f'override must be None or "verbatim", not {edit.override!r}')
    if edit.source is not None:
        _check_text("source", edit.source, KEY_CHARACTERS)
    check_author(edit.author)
    return dataclasses.replace(
        edit,
        paraphrases=tuple(edit.paraphrases),
        negatives=tuple(edit.negatives),
        metadata=_checked_metadata(edit.metadata),
    )


def check_author(author: object) -> None:
    """Raises InvalidEditError unless it is None or a text."""
    if author is not None:
        _check_text("author", author, KEY_CHARACTERS)


def check_search(queries: Iterable[object], namespaces: object) -> None:
    """Raises InvalidQueryError for a query that is no text, and for namespaces that are one bare string."""
    if isinstance(namespaces, str):
        raise InvalidQueryError(f"namespaces must be a list of names, not {namespaces!r}; write [{namespaces!r}]")
    for query in queries:
        if not isinstance(query, str):
            raise InvalidQueryError(f"a query must be a string, not {query!r}")
        try:
            query.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidQueryError(f"the query {query!r} holds a character that is no text: {error}") from error


def new_id() -> str:
    """An id that no edit has."""
    return uuid.uuid4().hex[:12]


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises InvalidEditError for the first name that is not among `known`, with the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise InvalidEditError(f"an edit has no field {name!r}; {hint}")


def changed(edit: Edit, changes: Mapping[str, Any], more: Mapping[str, Sequence[str]]) -> Edit:
    """The edit with new values for some fields, and with more texts in others.

    Raises:
        InvalidEditError: it is then no edit.
    """
    edit = check_edit(dataclasses.replace(edit, **changes))
    added: dict[str, Any] = {
        name: tuple(dict.fromkeys([*getattr(edit, name), *texts])) for name, texts in more.items()
    }
    return check_edit(dataclasses.replace(edit, **added))


def read_jsonl(path: str | Path) -> dict[int, Edit]:
    """The edits of a JSON-lines file by the numbers of their lines; where `id` is missing, a new one is given.

    Raises:
        InvalidEditError: a line is no edit; the message names file and line.
    """
    edits = {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEditError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                edits[number] = _read_line(line)
            except (ValueError, RecursionError) as error:
                raise InvalidEditError(f"{path}, line {number}: {error}; nothing was imported") from error
    return edits


def write_jsonl(path: str | Path, edits: Iterable[Edit]) -> int:
    """Writes edits a line each, the file whole or not at all; says how many."""
    path = Path(path)
    lines = [_write_line(edit) for edit in edits]
    unfinished = path.parent / f".{path.name}.{new_id()}"
    try:
        try:
            with unfinished.open("x", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    return len(lines)


def _write_line(edit: Edit) -> str:
    record = json.loads(to_json(edit))
    return json.dumps(
        {"id": edit.id, **{name: record[name] for name in EDITABLE if name in record}}, ensure_ascii=False
    )


def _read_line(line: str) -> Edit:
    record = json.loads(line)
    if not isinstance(record, Mapping):
        raise InvalidEditError(f"expected an object with prompt and target, found {type(record).__name__}")
    check_names(record, ("id", *EDITABLE))
    for name in ("prompt", "target"):
        if name not in record:
            raise InvalidEditError(f"{name} is missing")
    for name in ("paraphrases", "negatives"):
        if not isinstance(record.get(name, []), list):
            raise InvalidEditError(f"{name} must be a list of strings, not {record[name]!r}")
    fields: dict[str, Any] = {"id": new_id(), **record}
    return check_edit(edit_of(fields))


def _checked_metadata(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InvalidEditError(f"metadata must be a dictionary, not {metadata!r}")
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEditError(f"metadata must be a dictionary that can be written as JSON: {error}") from error
    read: dict[str, Any] = json.loads(text)
    return read


def _check_text(name: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise InvalidEditError(f"{name} must be a string, not {value!r}")
    if not value.strip():
        raise InvalidEditError(f"{name} is empty; write what it is")
    if len(value) > limit:
        raise InvalidEditError(
            f"{name} has {len(value):,} characters, more than the {limit:,} it may have; shorten it"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidEditError(f"{name} holds a character that is no text: {error}") from error

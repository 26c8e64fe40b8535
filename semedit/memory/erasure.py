"""Forgetting: one edit for good, and vectors and learned values that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from semedit.edits import Edit
from semedit.memory.learned import source_in, sources
from semedit.memory.store import EditStore


class Compacted(NamedTuple):
    """What a store was rid of.

    Attributes:
        vectors, learned: how many vectors, and how many learned values.
        bytes: how many bytes they had.
    """

    vectors: int
    learned: int
    bytes: int


def erase(store: EditStore, id: str, author: str | None = None) -> Edit:
    """Empties all revisions of an edit, and drops the vectors and learned values that no other active edit needs.

    Args:
        store: where the edit is.
        id: one that an edit has.
        author: who erases it.

    Returns:
        The revision that says so; where the edit was erased before, the one that said so then.
    """
    while True:
        # what takes long is done while others write: to find the edits that have a text in common with this one
        with store.snapshot():
            since = store.head().revision
            history = store.history(id)
            texts = {text for edit in history for text in edit.texts}
            near = {edit.id for edit in store.edits() if not texts.isdisjoint(edit.texts)}
        with store.transaction() as writer:
            if store.history(id) != history:
                continue  # it was changed meanwhile
            if history[-1].action == "erase":
                return history[-1]
            near |= {edit.id for edit in store.changes_since(since)}
            others = [edit for edit in store.newest(near - {id}).values() if edit.active]
            writer.drop_vectors(texts.difference(*(edit.texts for edit in others)))
            writer.drop_learned(_sources(history) - _sources(others))
            writer.rewrite([_emptied(edit) for edit in history])
            [erased] = writer.append([replace(_emptied(history[-1]), action="erase", author=author)])
        return erased


def compact(store: EditStore) -> Compacted:
    """Drops the vectors and learned values that no active edit needs. Should one come back, they are made anew."""
    with store.snapshot():
        since = store.head().revision
        vectors = {text: len(vector) for text, vector, _ in store.rows("vectors")}
        learned: dict[str, list[int]] = {}
        for name, _, body, _ in store.rows("learned"):
            learned.setdefault(source_in(name), []).append(len(body))
        _keep(store.edits(), vectors, learned)
    with store.transaction() as writer:
        _keep(store.changes_since(since), vectors, learned)
        writer.drop_vectors(vectors)
        writer.drop_learned(learned)
    sizes = [size for values in learned.values() for size in values]
    return Compacted(len(vectors), len(sizes), sum(vectors.values()) + sum(sizes))


def _keep(edits: Iterable[Edit], vectors: dict[str, int], learned: dict[str, list[int]]) -> None:
    """Takes what these edits need out of what is to be dropped."""
    for edit in edits:
        for text in edit.texts:
            vectors.pop(text, None)
        if learned:
            for source in sources(edit):
                learned.pop(source, None)


def _sources(edits: Iterable[Edit]) -> set[str]:
    return {source for edit in edits for source in sources(edit)}


def _emptied(edit: Edit) -> Edit:
    """The revision without anything that the edit said: who made it, when, and what it did remain."""
    return Edit(
        id=edit.id,
        prompt="",
        target="",
        active=False,
        action=edit.action,
        author=edit.author,
        revision=edit.revision,
        change=edit.change,
        previous=edit.previous,
        time=edit.time,
    )

"""What a memory must hold and find, worked out from a log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from semedit.edits import Edit
from semedit.memory.edit_memory import EditMemory


def newest(log: Iterable[Edit]) -> list[Edit]:
    """The last revision of each edit, oldest edit first."""
    return list({edit.id: edit for edit in log}.values())


def changes(log: Iterable[Edit]) -> list[list[Edit]]:
    """The revisions of each change, in order."""
    found: list[list[Edit]] = []
    for edit in log:
        if not found or found[-1][0].change != edit.change:
            found.append([])
        found[-1].append(edit)
    return found


def exact_search(
    edits: Iterable[Edit], vector_of: Callable[[str], np.ndarray], query: np.ndarray, names: Sequence[str]
) -> list[tuple[Edit, str, float]]:
    """All active edits of some namespaces, nearest first, each with its nearest key and the cosine."""
    active = [edit for edit in edits if edit.active and edit.namespace in names]
    found = []
    for edit in active:
        cosines = np.stack([vector_of(key) for key in edit.keys]) @ query
        found.append((edit, edit.keys[int(cosines.argmax())], float(cosines.max())))
    return sorted(found, key=lambda entry: -entry[2])


def assert_finds(
    memory: EditMemory,
    edits: Sequence[Edit],
    vector_of: Callable[[str], np.ndarray],
    query: str,
    names: Sequence[str],
) -> None:
    """Searches for some and for all find what exact search finds. Where cosines differ by rounding, any order does."""
    [vector] = memory.encoder.encode([query])
    expected = exact_search(edits, vector_of, vector, names)
    for k in (10, len(expected) + 1):
        found = memory.search(query, k=k, namespaces=names)
        cosines = [c.similarity for c in found]
        assert np.allclose(cosines, [cosine for _, _, cosine in expected[:k]], atol=1e-6)
        assert np.allclose(cosines, [vector_of(c.key) @ vector for c in found], atol=1e-6)
        assert all(c.key in c.edit.keys for c in found)
    assert sorted(c.edit.revision for c in found) == sorted(edit.revision for edit, _, _ in expected)
    by_revision = {edit.revision: edit for edit, _, _ in expected}
    assert all(c.edit == by_revision[c.edit.revision] for c in found)

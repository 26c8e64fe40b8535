"""Which key vectors belong to which edit, by namespace, and the search over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.encoder import Vectors
from semedit.memory.index import VectorIndex

Found = tuple[str, str, float]  # edit id, the nearest of its keys, cosine


class KeyTable:
    """Keys and negatives of the active edits.

    A namespace has an index of its own, so that nothing of another can be found in it.

    Args:
        dim: the length of a vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._indexes: dict[str, VectorIndex] = {}
        self._keys: dict[int, tuple[str, str]] = {}  # number: edit id, key
        self._edits: dict[str, Edit] = {}  # as they stand in the table
        self._numbers: dict[str, list[int]] = {}
        self._negatives: dict[str, Vectors] = {}  # edit id: (negatives, dim)
        self._sizes: Counter[str] = Counter()  # edits by namespace
        self._windows: set[str] = set()  # edits that are not always in force
        self._next = 0

    def put(self, edits: Collection[Edit], vectors_of: Callable[[Iterable[str]], Mapping[str, Vectors]]) -> None:
        """Takes each edit as it now is in place of what it was; retired edits leave the table.

        Args:
            edits: newest revisions.
            vectors_of: gives the vectors of texts.
        """
        changed = [edit for edit in edits if not self._same_texts(edit)]
        vectors = vectors_of(text for edit in changed if edit.active for text in edit.texts)
        removed: dict[str, list[int]] = {}
        added: dict[str, list[tuple[int, str]]] = {}
        for edit in changed:
            old = self._edits.pop(edit.id, None)
            if old is not None:
                self._sizes[old.namespace] -= 1
                removed.setdefault(old.namespace, []).extend(self._numbers.pop(edit.id))
                self._negatives.pop(edit.id, None)
            if edit.active:
                for text in edit.texts:
                    if text not in vectors:
                        raise StoreError(
                            f"no vector is kept for {text!r} of edit {edit.id!r}; run semedit edit reembed"
                        )
                numbers = range(self._next, self._next + len(edit.keys))
                self._next += len(edit.keys)
                self._edits[edit.id] = edit
                self._sizes[edit.namespace] += 1
                self._numbers[edit.id] = list(numbers)
                added.setdefault(edit.namespace, []).extend(zip(numbers, edit.keys, strict=True))
                self._keys.update((number, (edit.id, key)) for number, key in zip(numbers, edit.keys, strict=True))
                if edit.negatives:
                    self._negatives[edit.id] = np.stack([vectors[text] for text in edit.negatives])
        for namespace, gone in removed.items():
            self._indexes[namespace].remove(gone)
            for number in gone:
                del self._keys[number]
        for namespace, entries in added.items():
            index = self._indexes.setdefault(namespace, VectorIndex(self.dim))
            index.add([number for number, _ in entries], np.stack([vectors[key] for _, key in entries]))
        for edit in edits:
            timed = edit.active and (edit.valid_from is not None or edit.valid_until is not None)
            (self._windows.add if timed else self._windows.discard)(edit.id)

    def holds_any(self, namespaces: Iterable[str]) -> bool:
        """Whether one of the namespaces has a key."""
        return any(name in self._indexes and len(self._indexes[name]) for name in namespaces)

    def count(self, namespaces: Iterable[str]) -> int:
        """How many edits there are in the namespaces."""
        return sum(self._sizes[name] for name in set(namespaces))

    def nearest(
        self, vectors: Vectors, k: int, namespaces: Iterable[str], in_force: Callable[[str], bool]
    ) -> list[list[Found]]:
        """The k edits nearest to each of `(queries, dim)` vectors, best first.

        Args:
            vectors: the queries.
            k: how many.
            namespaces: where to look.
            in_force: whether an edit, given by its id, is in force now.
        """
        out = [number for id in self._windows if not in_force(id) for number in self._numbers[id]]
        without = np.array(out, dtype=np.int64)
        found: list[list[Found]] = [[] for _ in vectors]
        for namespace in dict.fromkeys(namespaces):
            if namespace in self._indexes:
                for row, more in zip(
                    found, self._nearest_in(self._indexes[namespace], vectors, k, without), strict=True
                ):
                    row += more
        return [sorted(row, key=lambda entry: -entry[2])[:k] for row in found]

    def to_negatives(self, id: str, vector: Vectors) -> tuple[tuple[str, float], ...]:
        """Each negative of an edit with its cosine."""
        if id not in self._negatives:
            return ()
        similarities = self._negatives[id] @ vector
        return tuple(zip(self._edits[id].negatives, map(float, similarities), strict=True))

    def _nearest_in(self, index: VectorIndex, vectors: Vectors, k: int, without: np.ndarray) -> list[list[Found]]:
        # an edit may hold several of the nearest keys: look further until k edits are found or no key is left
        wanted = 2 * k
        while True:
            similarities, numbers = index.search(vectors, wanted, without)
            rows = [self._edits_of(*row) for row in zip(numbers.tolist(), similarities.tolist(), strict=True)]
            if min(map(len, rows)) >= k or wanted >= len(index):
                return [row[:k] for row in rows]
            wanted *= 4

    def _edits_of(self, numbers: Sequence[int], similarities: Sequence[float]) -> list[Found]:
        best: dict[str, Found] = {}
        for number, similarity in zip(numbers, similarities, strict=True):
            if number >= 0:
                id, key = self._keys[number]
                best.setdefault(id, (id, key, similarity))
        return list(best.values())

    def _same_texts(self, edit: Edit) -> bool:
        old = self._edits.get(edit.id)
        if old is None or not edit.active:
            return old is None and not edit.active
        return (old.texts, len(old.keys), old.namespace) == (edit.texts, len(edit.keys), edit.namespace)

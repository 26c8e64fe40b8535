"""The index and the key table against brute force in numpy."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.index import VectorIndex
from semedit.memory.keys import KeyTable

DIM = 16


def unit_vectors(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_same_search(index: VectorIndex, held: dict[int, np.ndarray], queries: np.ndarray, k: int, without=()):
    """The index gives what sorting all inner products gives."""
    numbers = np.array([number for number in held if number not in without])
    similarities = queries @ np.stack([held[number] for number in numbers]).T  # (queries, numbers)
    order = np.argsort(-similarities, axis=1)[:, :k]
    got_similarities, got_numbers = index.search(queries, k, np.array(without, np.int64))
    found = order.shape[1]
    np.testing.assert_array_equal(got_numbers[:, :found], numbers[order])
    np.testing.assert_allclose(
        got_similarities[:, :found], np.take_along_axis(similarities, order, axis=1), rtol=0, atol=1e-6
    )
    assert (got_numbers[:, found:] == -1).all()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def filled(rng: np.random.Generator, count: int = 300) -> tuple[VectorIndex, dict[int, np.ndarray]]:
    # numbers far apart and out of order, so that a place is not taken for a number
    numbers = [int(number) for number in rng.permutation(count) * 1_000_003]
    vectors = unit_vectors(rng, count)
    index = VectorIndex(DIM)
    index.add(numbers, vectors)
    return index, dict(zip(numbers, vectors, strict=True))


def test_search_equals_brute_force(rng: np.random.Generator):
    index, held = filled(rng)
    assert len(index) == 300
    for k in (1, 7, 300):
        assert_same_search(index, held, unit_vectors(rng, 20), k)


def test_search_equals_brute_force_after_removals_and_additions(rng: np.random.Generator):
    index, held = filled(rng)
    queries = unit_vectors(rng, 20)
    _, nearest = index.search(queries, 1)
    gone = sorted(set(nearest[:, 0].tolist()))
    index.remove(gone)
    for number in gone:
        del held[number]
    assert len(index) == len(held) < 300
    assert_same_search(index, held, queries, 10)
    fresh = unit_vectors(rng, 50)
    index.add(range(5, 55), fresh)
    held.update(zip(range(5, 55), fresh, strict=True))
    assert_same_search(index, held, queries, 10)


def test_what_is_passed_over_takes_no_place(rng: np.random.Generator):
    index, held = filled(rng, 60)
    queries = unit_vectors(rng, 1)
    _, nearest = index.search(queries, 50)
    without = nearest[0].tolist()
    assert_same_search(index, held, queries, 5, without)
    assert_same_search(index, held, queries, 60, without)


def test_an_index_gives_no_more_than_it_holds(rng: np.random.Generator):
    index = VectorIndex(DIM)
    similarities, numbers = index.search(unit_vectors(rng, 3), 5)
    assert similarities.shape == numbers.shape == (3, 0)
    vectors = unit_vectors(rng, 2)
    index.add([8, 9], vectors)
    assert index.search(vectors, 5)[1].tolist() == [[8, 9], [9, 8]]
    index.remove([8, 9])
    assert len(index) == 0
    assert index.search(vectors, 5)[1].shape == (2, 0)


class Oracle:
    """A table of edits that is searched by looking at every key."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.table = KeyTable(DIM)
        self.vectors: dict[str, np.ndarray] = {}
        self.edits: dict[str, Edit] = {}

    def put(self, *edits: Edit) -> None:
        for edit in edits:
            self.edits[edit.id] = edit
            for text in edit.texts:
                if text not in self.vectors:
                    self.vectors[text] = unit_vectors(self.rng, 1)[0]
        self.table.put(edits, lambda texts: {text: self.vectors[text] for text in texts})

    def check(self, k: int, namespaces: list[str], out: frozenset[str] = frozenset()) -> list[str]:
        queries = unit_vectors(self.rng, 3)
        rows = self.table.nearest(queries, k, namespaces, lambda id: id not in out)
        assert len(rows) == len(queries)
        for query, found in zip(queries, rows, strict=True):
            self.check_row(query, found, k, namespaces, out)
        return [id for id, _, _ in rows[0]]

    def check_row(self, query, found, k: int, namespaces: list[str], out: frozenset[str]) -> None:
        expected = []
        for edit in self.edits.values():
            if edit.active and edit.namespace in namespaces and edit.id not in out:
                similarity, key = max((float(self.vectors[key] @ query), key) for key in edit.keys)
                expected.append((edit.id, key, similarity))
        expected = sorted(expected, key=lambda entry: -entry[2])[:k]
        assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
        assert [entry[2] for entry in found] == pytest.approx([entry[2] for entry in expected], abs=1e-6)
        for id, _, _ in found:
            to_negatives = self.table.to_negatives(id, query)
            assert [text for text, _ in to_negatives] == list(self.edits[id].negatives)
            assert [s for _, s in to_negatives] == pytest.approx(
                [float(self.vectors[text] @ query) for text in self.edits[id].negatives], abs=1e-6
            )


def edit(number: int, namespace: str, keys: int, version: int = 0, negatives: int = 0) -> Edit:
    prompt, *paraphrases = (f"key {i} of {number}, version {version}" for i in range(keys))
    return Edit(
        id=f"edit {number}",
        prompt=prompt,
        target="t",
        paraphrases=tuple(paraphrases),
        negatives=tuple(f"negative {i} of {number}, version {version}" for i in range(negatives)),
        namespace=namespace,
    )


def test_the_key_table_equals_brute_force_through_a_life_of_changes(rng: np.random.Generator):
    oracle = Oracle(rng)
    oracle.put(*(edit(i, "ab"[i % 2], keys=1 + i % 5, negatives=i % 3) for i in range(60)))
    for version in range(1, 25):
        number = int(rng.integers(60))
        now = oracle.edits[f"edit {number}"]
        changes = [
            edit(number, "abc"[version % 3], keys=1 + version % 4, version=version, negatives=version % 2),
            replace(now, active=False),
            replace(now, active=True),
            edit(100 + version, "c", keys=30),
        ]
        oracle.put(changes[version % 4])
        for k in (1, 4, 100):
            for namespaces in (["a"], ["b", "a"], ["c", "c"], ["unknown"], []):
                oracle.check(k, namespaces)
    assert any(not e.active for e in oracle.edits.values())
    assert oracle.check(3, ["unknown"]) == []


def test_edits_with_many_near_keys_do_not_hide_the_others(rng: np.random.Generator):
    oracle = Oracle(rng)
    oracle.put(edit(0, "a", keys=200), edit(1, "a", keys=1), edit(2, "a", keys=1))
    for _ in range(10):
        assert set(oracle.check(3, ["a"])) == {"edit 0", "edit 1", "edit 2"}


def test_edits_out_of_force_are_passed_over_and_come_back(rng: np.random.Generator):
    oracle = Oracle(rng)
    until = datetime(2030, 1, 1, tzinfo=timezone.utc)
    oracle.put(*(replace(edit(i, "a", keys=2), valid_until=until if i % 2 else None) for i in range(40)))
    odd = frozenset(f"edit {i}" for i in range(1, 40, 2))
    for k in (1, 5, 40):
        assert not odd & set(oracle.check(k, ["a"], out=odd))
    assert odd & set(oracle.check(40, ["a"]))
    # the window is taken away while the texts stay: the edit is then always in force
    oracle.put(replace(oracle.edits["edit 1"], valid_until=None))
    [found] = oracle.table.nearest(oracle.vectors[oracle.edits["edit 1"].prompt][None], 1, ["a"], lambda id: False)
    assert [id for id, _, _ in found] == ["edit 1"]


def test_holds_any_tells_whether_a_namespace_has_a_key(rng: np.random.Generator):
    oracle = Oracle(rng)
    assert not oracle.table.holds_any(["a"])
    oracle.put(edit(0, "a", keys=2))
    assert oracle.table.holds_any(["b", "a"])
    assert not oracle.table.holds_any(["b"])
    oracle.put(replace(oracle.edits["edit 0"], active=False))
    assert not oracle.table.holds_any(["a"])


def test_a_text_without_a_vector_is_named(rng: np.random.Generator):
    table = KeyTable(DIM)
    with pytest.raises(StoreError, match=r"no vector is kept for 'key 0 of 1.*' of edit 'edit 1'.*reembed"):
        table.put([edit(1, "a", keys=1)], lambda texts: {})

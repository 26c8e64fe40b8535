"""The search indexes against brute force in numpy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from semedit.errors import StoreError
from semedit.memory import index as index_module
from semedit.memory.index import SegmentIndex

DIM = 16
WIDTH = 128
CLUSTERED = 3_000  # enough for lists of which a search does not see all


def clustered(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors near and far around a hundred centres, as the wordings of facts are."""
    centres = np.random.default_rng(0).standard_normal((100, WIDTH))
    noise = rng.standard_normal((count, WIDTH)) * rng.uniform(0.1, 1, (count, 1))
    vectors = centres[rng.integers(100, size=count)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int, mask: np.ndarray | None = None) -> np.ndarray:
    """The numbers of the k best allowed vectors, -1 where there are no more."""
    similarities = queries @ vectors.T
    if mask is not None:
        similarities[:, ~mask] = -np.inf
    order = np.argsort(-similarities, axis=1)[:, :k]
    order = np.pad(order, ((0, 0), (0, k - order.shape[1])))
    left = len(vectors) if mask is None else mask.sum()
    order[:, left:] = -1
    return order


def bitmap(mask: np.ndarray) -> np.ndarray:
    return np.packbits(mask, bitorder="little")


def recall(got: np.ndarray, expected: np.ndarray) -> float:
    """The share of the numbers to be found that were found."""
    pairs = [(set(g.tolist()) - {-1}, set(e.tolist()) - {-1}) for g, e in zip(got, expected, strict=True)]
    return sum(len(g & e) for g, e in pairs) / sum(len(e) for _, e in pairs)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(np.random.default_rng(1), CLUSTERED)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(np.random.default_rng(2), 50)


@pytest.fixture(scope="module")
def approximate(vectors: np.ndarray) -> SegmentIndex:
    return SegmentIndex.build(vectors, approximate_from=CLUSTERED)


@pytest.fixture(scope="module")
def exact(vectors: np.ndarray) -> SegmentIndex:
    return SegmentIndex.build(vectors, approximate_from=CLUSTERED + 1)


@pytest.mark.parametrize("k", [1, 8, CLUSTERED + 5])
def test_a_small_segment_is_searched_exactly(exact, vectors, queries, k):
    similarities, numbers = exact.search(queries, k)
    assert len(exact) == CLUSTERED
    assert numbers.shape == (50, k)
    assert (numbers[:, CLUSTERED:] == -1).all()
    expected = queries @ vectors.T
    # in another order of summation, what is all but equally near may change places
    found, best = similarities[:, :CLUSTERED], -np.sort(-expected, axis=1)[:, :k]
    np.testing.assert_allclose(found, best, rtol=0, atol=1e-6)
    own = np.take_along_axis(expected, numbers[:, :CLUSTERED], axis=1)
    np.testing.assert_allclose(found, own, rtol=0, atol=1e-6)


def test_from_the_given_size_on_a_segment_is_approximate(exact, approximate, vectors, queries, monkeypatch):
    expected = brute_force(vectors, queries, 8)
    assert recall(approximate.search(queries, 8)[1], expected) >= 0.99
    # looking at less it misses some, so that the recall above is not that of an exact index
    for name, value in (("PROBED", 0.02), ("RANKED_AGAIN", 1), ("AT_LEAST", 1)):
        monkeypatch.setattr(index_module, name, value)
    assert recall(approximate.search(queries, 8)[1], expected) < 0.99
    assert recall(exact.search(queries, 8)[1], expected) == 1


def test_a_large_segment_gives_the_similarity_of_what_it_finds(approximate, vectors, queries):
    similarities, numbers = approximate.search(queries, 8)
    expected = np.take_along_axis(queries @ vectors.T, numbers, axis=1)
    np.testing.assert_allclose(similarities, expected, rtol=0, atol=1e-3)  # half precision
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.1, 0.01, 0.001, 0.0])
@pytest.mark.parametrize("k", [1, 8, 100])
def test_only_what_is_allowed_is_found_and_all_of_it(exact, approximate, vectors, queries, share, k):
    mask = np.zeros(CLUSTERED, bool)
    mask[np.random.default_rng(3).permutation(CLUSTERED)[: int(share * CLUSTERED)]] = True
    expected = brute_force(vectors, queries, k, mask)
    if share < 1:
        assert (expected != brute_force(vectors, queries, k)).any()
    for count in (int(mask.sum()), None):
        np.testing.assert_array_equal(exact.search(queries, k, bitmap(mask), count)[1], expected)
        _, numbers = approximate.search(queries, k, bitmap(mask), count)
        assert mask[numbers[numbers >= 0]].all()
        np.testing.assert_array_equal((numbers >= 0).sum(1), min(k, mask.sum()))
        if mask.any():
            assert recall(numbers, expected) >= 0.99


@pytest.mark.parametrize(
    ("k", "share", "scans"), [(1, 1.0, 0), (16, 1.0, 0), (16, 0.2, 0), (16, 0.01, 1), (CLUSTERED // 20, 1.0, 1)]
)
def test_a_large_segment_is_scanned_only_for_few_or_for_many(approximate, queries, k, share, scans, monkeypatch):
    scanned = []
    monkeypatch.setattr(approximate, "_scan", lambda *args: scanned.append(args) or (np.zeros((50, k)),) * 2)
    mask = np.arange(CLUSTERED) < share * CLUSTERED
    approximate.search(queries, k, bitmap(mask))
    assert len(scanned) == scans


def test_what_is_allowed_is_found_in_lists_far_from_the_query(monkeypatch):
    monkeypatch.setattr(index_module, "PROBED", 0.1)
    near = clustered(np.random.default_rng(5), CLUSTERED) + 3 * np.eye(WIDTH, dtype=np.float32)[0]
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    vectors = np.concatenate([near, -near])
    mask = np.arange(len(vectors)) >= CLUSTERED  # those on the other side
    index = SegmentIndex.build(vectors, approximate_from=16)
    assert (brute_force(vectors, near[:5], 8) < CLUSTERED).all()
    similarities, numbers = index.search(near[:5], 8, bitmap(mask), CLUSTERED)
    assert mask[numbers].all()
    best = -np.sort(-(near[:5] @ vectors[mask].T), axis=1)[:, :8]
    np.testing.assert_allclose(similarities, best, rtol=0, atol=1e-3)  # half precision


def test_many_equal_vectors_do_not_hide_the_others(vectors, queries):
    # as one prompt edited in many namespaces makes them
    held = np.concatenate([vectors[:1500], np.repeat(vectors[1500:1515], 100, axis=0)])
    index = SegmentIndex.build(held, approximate_from=16)
    similarities, _ = index.search(queries, 8)
    expected = -np.sort(-(queries @ held.T), axis=1)[:, :8]
    # their codes are equal too, and may take all places among the candidates
    assert (similarities >= expected[:, -1:] - 1e-3).mean() >= 0.97


def test_a_gpu_searches_where_all_is_allowed(vectors, queries, monkeypatch):
    held = []

    class Resources:
        def setTempMemory(self, size: int) -> None:  # as FAISS spells it
            pass

    def to_gpu(resources, device, index, options):
        held.append(index)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(index_module, "CHUNK", 1_000)
    index = SegmentIndex.build(vectors, approximate_from=16)
    [copy] = held
    assert copy.ntotal == CLUSTERED
    expected = copy.search(queries, 8)
    for allowed in (None, bitmap(np.ones(CLUSTERED, bool))):
        for got, right in zip(index.search(queries, 8, allowed), expected, strict=True):
            np.testing.assert_array_equal(got, right)
    mask = np.random.default_rng(6).random(CLUSTERED) < 0.5
    assert not mask[expected[1]].all()
    assert mask[index.search(queries, 8, bitmap(mask))[1]].all()


def test_an_empty_segment_has_nothing(queries):
    _, numbers = SegmentIndex.build(np.zeros((0, WIDTH), np.float32)).search(queries, 3)
    assert (numbers == -1).all()
    assert numbers.shape == (50, 3)


@pytest.mark.parametrize("kind", ["exact", "approximate"])
def test_an_opened_index_answers_as_the_saved_one(kind, request, vectors, queries, tmp_path: Path):
    index = request.getfixturevalue(kind)
    index.save(tmp_path / "index")
    opened = SegmentIndex.open(tmp_path / "index")
    assert len(opened) == CLUSTERED
    mask = np.random.default_rng(4).random(CLUSTERED) < 0.5
    for allowed in (None, bitmap(mask)):
        for got, expected in zip(opened.search(queries, 8, allowed), index.search(queries, 8, allowed), strict=True):
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(opened.vectors(np.array([5, 2])), index.vectors(np.array([5, 2])))


def test_the_vectors_come_back_by_their_numbers(exact, approximate, vectors):
    numbers = np.array([CLUSTERED - 1, 0, 7])
    np.testing.assert_array_equal(exact.vectors(numbers), vectors[numbers])
    np.testing.assert_array_equal(approximate.vectors(numbers), vectors[numbers].astype(np.float16).astype(np.float32))
    # so that merging again loses no more
    again = SegmentIndex.build(approximate.vectors(np.arange(CLUSTERED)), approximate_from=16)
    np.testing.assert_array_equal(again.vectors(numbers), approximate.vectors(numbers))


def test_a_file_that_is_no_index_is_refused(approximate, vectors, tmp_path: Path):
    approximate.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for content in (b"", whole[:3], whole[:30], whole[: len(whole) // 2], whole[:-1], b"x" * 5000, whole[1:]):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(StoreError, match="damaged"):
            SegmentIndex.open(tmp_path / "damaged")
    with pytest.raises(StoreError, match="missing"):
        SegmentIndex.open(tmp_path / "missing")


def test_an_index_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="cannot write"):
        SegmentIndex.build(np.eye(DIM, dtype=np.float32)).save(tmp_path / "nowhere" / "an.index")

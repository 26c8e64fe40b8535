"""The search index: which keys are nearest to a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from semedit.memory.encoder import Vectors


class VectorIndex:
    """Exact inner-product search over numbered vectors, with FAISS.

    Args:
        dim: the length of a vector.
    """

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, numbers: Sequence[int], vectors: Vectors) -> None:
        """Adds `(count, dim)` vectors under their numbers."""
        self._index.add_with_ids(np.ascontiguousarray(vectors), np.asarray(numbers, dtype=np.int64))

    def remove(self, numbers: Iterable[int]) -> None:
        """Removes what stands under these numbers."""
        self._index.remove_ids(faiss.IDSelectorBatch(np.fromiter(numbers, dtype=np.int64)))

    def search(
        self, queries: Vectors, k: int, without: npt.NDArray[np.int64] | None = None
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The k nearest of each query.

        Args:
            queries: `(queries, dim)`.
            k: how many; fewer come back where the index holds fewer.
            without: numbers that are passed over inside the search, so that they take no place among the k.

        Returns:
            Similarities and numbers, `(queries, k)` each, best first; where nothing is left, the number is -1.
        """
        k = min(k, len(self))
        if k == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        parameters = faiss.SearchParameters()
        if without is not None and len(without):
            passed_over = faiss.IDSelectorBatch(without)  # named, for it must live as long as the search
            parameters.sel = faiss.IDSelectorNot(passed_over)
        similarities, numbers = self._index.search(np.ascontiguousarray(queries), k, params=parameters)
        return similarities, numbers

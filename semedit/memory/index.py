"""The search index: which keys are nearest to a query."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from semedit.errors import StoreError
from semedit.memory.encoder import Vectors

APPROXIMATE_FROM = 50_000  # vectors; below, exact search takes a few milliseconds

PROBED = 0.4  # of the lists, where every vector is allowed
RANKED_AGAIN = 8  # candidates by their codes for each result,
AT_LEAST = 64  # and for each query
CODES_AT_ONCE = 16  # what scanning one vector in half precision costs, in codes
SAMPLES_PER_LIST = 64
CHUNK = 65_536  # vectors added at once


class SegmentIndex:
    """Inner-product search over the vectors of one segment, which never change. A vector's number is its place.

    Small segments are searched exactly. A large one holds its vectors in half precision, and finds candidates, which
    are ranked again by them, by 4-bit codes in inverted lists (Andre, Kermarrec and Le Scouarnec, "Cache Locality is
    Not Enough: High-Performance Nearest Neighbor Search with Product Quantization Fast Scan", 2015).
    `benchmarks/scale.py` measures what that loses and gains.

    Any number of threads may search at once. Building and searching do not hold Python's lock.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._approximate = isinstance(index, faiss.IndexRefine)
        self._exact = faiss.downcast_index(index.refine_index) if self._approximate else index
        self._gpu = _GpuIndex(self._exact) if self._approximate and faiss.get_num_gpus() else None

    @classmethod
    def build(cls, vectors: Vectors, *, approximate_from: int = APPROXIMATE_FROM) -> SegmentIndex:
        """The index over `(count, dim)` float32 unit rows.

        Args:
            vectors: the rows, in the order of their numbers.
            approximate_from: from how many rows on the index is an approximate one; at least 16, since as many codes
                are learned from the rows.
        """
        count, dim = vectors.shape
        lists = _lists(count)
        index = faiss.IndexFlatIP(dim) if count < approximate_from else _untrained(dim, lists)
        if not index.is_trained:
            _train(index, vectors[np.random.default_rng(0).permutation(count)[: SAMPLES_PER_LIST * lists]])
        for start in range(0, count, CHUNK):
            index.add(np.ascontiguousarray(vectors[start : start + CHUNK]))
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> SegmentIndex:
        """The index that `save` wrote, mapped into memory.

        A file cut short is noticed here, a changed byte is not: compare the file's checksum before.

        Raises:
            StoreError: the file cannot be read, or holds no such index.
        """
        try:
            with path.open("rb") as file:
                length = max(0, file.seek(0, os.SEEK_END) - len(_end(0)))
                file.seek(length)
                end = file.read()
            # FAISS reads beyond the end of a file cut short, which ends the process
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC) if end == _end(length) else None
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{path} cannot be read as an index: {error}; delete it, it is built anew") from error
        if index is None:
            raise StoreError(f"{path} is no index, or not the whole of one; delete it, it is built anew")
        return cls(index)

    def save(self, path: Path) -> None:
        """Writes the index to one file, in FAISS's form with its length after it.

        Raises:
            OSError: it cannot be written.
        """
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:  # as FAISS says it of a full disk
            raise OSError(f"cannot write {path}: {error}") from error
        with path.open("ab") as file:
            file.write(_end(file.tell()))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Vectors, k: int, allowed: npt.NDArray[np.uint8] | None = None, allowed_count: int | None = None
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The k nearest of each query.

        Args:
            queries: `(queries, dim)`.
            k: how many.
            allowed: the numbers that may be found, a bit for each (`np.packbits(..., bitorder="little")`); what is
                not allowed takes no place among the k. None allows all.
            allowed_count: how many bits are set, where the caller knows it.

        Returns:
            Similarities and numbers, `(queries, k)` each, best first; where nothing is left, the number is -1.
        """
        queries = np.ascontiguousarray(queries)
        if allowed is None:
            allowed_count = len(self)
        elif allowed_count is None:
            allowed_count = int(np.unpackbits(allowed).sum(dtype=np.int64))
        if self._gpu is not None and allowed_count == len(self) and k <= _GpuIndex.MOST:
            return self._gpu.search(queries, k)
        selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        # what is allowed, or what would be ranked again, is soon scanned
        scanned = allowed_count * CODES_AT_ONCE <= len(self) or RANKED_AGAIN * k * CODES_AT_ONCE >= len(self)
        if not self._approximate or scanned:
            return self._scan(queries, k, selector)
        lists = faiss.SearchParametersIVF()
        lists.sel, lists.nprobe = selector, self._probes(allowed_count)
        parameters = faiss.IndexRefineSearchParameters()
        parameters.k_factor, parameters.base_index_params = max(RANKED_AGAIN, AT_LEAST / k), lists
        similarities, numbers = self._index.search(queries, k, params=parameters)
        # the lists next to a query may hold little that is allowed
        short = np.flatnonzero(numbers[:, -1] < 0)
        if len(short):
            similarities[short], numbers[short] = self._scan(queries[short], k, selector)
        return similarities, numbers

    def vectors(self, numbers: npt.NDArray[np.int64]) -> Vectors:
        """`(numbers, dim)` float32: the vectors as they are stored, those of large segments in half precision."""
        rows: Vectors = self._exact.reconstruct_batch(np.ascontiguousarray(numbers, dtype=np.int64))
        return rows

    def _probes(self, allowed_count: int) -> int:
        """In how many lists to look: the fewer vectors are allowed, the farther the nearest of them are."""
        lists = _lists(len(self))
        return min(lists, math.ceil(PROBED * lists * len(self) / allowed_count))

    def _scan(
        self, queries: Vectors, k: int, selector: faiss.IDSelector | None
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Looks at every allowed vector."""
        parameters = faiss.SearchParameters()
        parameters.sel = selector
        similarities, numbers = self._exact.search(queries, k, params=parameters)
        return similarities, numbers


class _GpuIndex:
    """Exact search over all vectors of a segment, copied to the first GPU in half precision."""

    MOST = 2048  # results that FAISS finds on a GPU

    def __init__(self, index: Any) -> None:
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(64 << 20)  # bytes; FAISS would reserve 1.5 GiB for each segment
        self._index: Any = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatIP(index.d), options)
        for start in range(0, index.ntotal, CHUNK):
            self._index.add(index.reconstruct_n(start, min(CHUNK, index.ntotal - start)))
        self._lock = threading.Lock()  # FAISS searches a GPU from one thread at a time

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """As `SegmentIndex.search`, where everything is allowed: on a GPU, FAISS has no selectors."""
        with self._lock:
            similarities, numbers = self._index.search(queries, k)
        return similarities, numbers


def _lists(count: int) -> int:
    """How many lists so many vectors are held in."""
    return int(count**0.5)


def _untrained(dim: int, lists: int) -> Any:
    """Codes of two values each in inverted lists, and the vectors in half precision."""
    # by Euclidean distance: by inner product, tight clusters, whose centres are longest, would draw all queries
    coarse = faiss.IndexFlatL2(dim)
    codes = faiss.IndexIVFPQFastScan(coarse, dim, lists, dim // math.gcd(dim, 2), 4, faiss.METRIC_INNER_PRODUCT)
    codes.by_residual = False
    codes.cp.niter = 8
    codes.cp.min_points_per_centroid = codes.pq.cp.min_points_per_centroid = 1  # no warnings on stderr
    halves = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(codes, halves)


def _train(index: Any, vectors: Vectors) -> None:
    """Trains on one thread: threads that wait for one another thousands of times starve where processors are busy."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # of what this thread calls
    try:
        index.train(vectors)
    finally:
        faiss.omp_set_num_threads(threads)


def _end(length: int) -> bytes:
    """What stands after an index of so many bytes."""
    return b"segment\n" + length.to_bytes(8, "little")

"""What a memory of a million edits costs: searching, opening, keeping, writing, and being read while it is written.

    python benchmarks/scale.py --data DATA/train               # encodes 150,000 questions first, minutes on four cores
    python benchmarks/scale.py --vectors vectors.npy --json scale.json
    python benchmarks/scale.py --data DATA/train --keep vectors.npy --edits 1000 10000 --only search

The keys are questions of the training files, and the queries others of them, held out. Beyond the questions there are,
keys are made: a question's vector, moved as far as its paraphrases lie, in the direction from one question to another.
Each edit has one key; its other texts are made up. The encoder looks its vectors up, so that it costs nothing.

Every search is timed beside an exact one in single precision (FAISS's IndexFlatIP) of the same queries, on the same
threads, and the ratio of the two carries over to other machines; so do those of opening a memory with its snapshot to
opening it without. Bytes in memory are what a fresh process grows by when it opens the memory and has answered a
thousand queries. PostgreSQL runs as a private cluster, with the durability of its defaults; where it is not installed,
it is left out. Query times beside an import are those of one thread that searches all the time; what else runs on the
machine shows in them, as the quiet row does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import scale_report
from harness import environment, parser, write_json
from scale_data import QUERIES, read_vectors, widened
from scale_search import fill, opening, searching, searching_namespaces
from scale_stores import locations, serving, visibility, writing

PARTS = ("search", "stores")


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    real = np.load(options.vectors) if options.vectors else read_vectors(options.data)
    if options.keep:
        np.save(options.keep, real)
    sizes = sorted(options.edits) if "search" in options.only else []
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        vectors = Path(folder) / "vectors.npy"
        np.save(vectors, widened(real, max([5 * options.bulk, *sizes])))
        questions = len(real) - QUERIES
        del real
        if sizes:
            results |= _search(Path(folder), vectors, sizes, questions, options.rounds)
        if "stores" in options.only:
            results["stores"] = _stores(Path(folder), vectors, options.bulk)
    run = {
        "benchmark": "scale",
        "questions": questions,
        "bulk": options.bulk,
        "rounds": options.rounds,
        **environment(),
    }
    write_json(options.json, {"run": run, "results": results})


def _search(folder: Path, vectors: Path, sizes: list[int], questions: int, rounds: int) -> dict[str, Any]:
    """Searches through, and opens, a file that grows."""
    file = folder / "edits.db"
    results: dict[str, Any] = {"searching": [], "opening": []}
    filled = 0
    for size in tqdm(sizes, desc="sizes"):
        fill(file, vectors, filled, size)
        filled = size
        results["opening"].append(opening(file, vectors, folder / "empty.db"))
        made = {"edits": size, "made": max(0, size - questions)}
        results["searching"].append(made | searching(file, vectors, size, rounds))
    results["namespaces"] = searching_namespaces(file, vectors, filled, rounds)
    scale_report.show_searching(results["searching"])
    scale_report.show_namespaces(results["namespaces"], filled)
    scale_report.show_opening(results["opening"])
    return results


def _stores(folder: Path, vectors: Path, bulk: int) -> dict[str, Any]:
    """Writes to each store, and reads meanwhile."""
    results: dict[str, Any] = {}
    for store, location in locations(folder):
        results[store] = {
            "writing": writing(location, vectors, bulk),
            "visibility": visibility(location, vectors, 2 * bulk),
            "serving": serving(location, vectors, bulk, 3 * bulk),
        }
    scale_report.show_writing(results)
    scale_report.show_serving(results)
    return results


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the training files")
    source.add_argument("--vectors", type=Path, metavar="FILE", help="vectors that --keep wrote")
    options.add_argument("--keep", type=Path, metavar="FILE", help="write the vectors of the questions to FILE")
    options.add_argument(
        "--edits",
        nargs="+",
        type=int,
        default=[1_000, 10_000, 100_000, 1_000_000],
        metavar="N",
        help="sizes to search through and to open (default: 1000 10000 100000 1000000)",
    )
    options.add_argument(
        "--bulk", type=int, default=100_000, metavar="N", help="edits of each import (default: %(default)s)"
    )
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    options.add_argument(
        "--rounds", type=int, default=40, metavar="N", help="single queries to time (default: %(default)s)"
    )
    options.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="where the memories are made, and deleted again (default: here); choose a disk with ten gigabytes, since "
        "a write to a folder that is kept in memory, as /tmp may be, costs nothing",
    )
    return options.parse_args()


if __name__ == "__main__":
    main()

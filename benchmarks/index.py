"""How much faster than exact search the index of a large memory finds the nearest keys, and how many of them it finds.

    python benchmarks/index.py --data DATA/train               # encodes 150,000 questions first, minutes on four cores
    python benchmarks/index.py --vectors vectors.npy --json index.json
    python benchmarks/index.py --data DATA/train --keep vectors.npy --sizes 1000 10000

The keys are questions of the training files, and the queries others of them, held out. Beyond the questions there are,
keys are made: a question's vector, moved as far as its paraphrases lie, in the direction from one question to another.

Every search is timed beside an exact one in single precision (FAISS's IndexFlatIP) of the same queries, on the same
threads, and the ratio of the two carries over to other machines. The second table is of searches in which only some of
the keys are allowed, chosen at random; the exact search passes the others over too. While an index is built, another
thread looks at the clock every millisecond: the longest it was kept from that is what building keeps queries waiting.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from facts import read_records
from harness import environment, parser, report, summary, timed, write_json
from semedit import SentenceEncoder
from semedit.memory.encoder import Vectors
from semedit.memory.index import SegmentIndex
from traffic import read_traffic

K = 8
BATCH = 32
QUERIES = 1_000  # held out, for the recall
FILTERED = 100  # of them where some keys are passed over, which makes exact search slow
QUESTIONS = 150_000  # encoded at most
DISTANCE = (0.25, 0.6)  # of a made key to its question: cosines of 0.97 to 0.82
SHARES = (0.5, 0.1, 0.01, 0.001)
SPEED = (f"recall@{K}", "one query", "faster", f"{BATCH} queries", "faster")


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    real = np.load(options.vectors) if options.vectors else read_vectors(options.data)
    if options.keep:
        np.save(options.keep, real)
    queries, questions = real[:QUERIES], real[QUERIES:]
    keys = widened(questions, max(options.sizes))
    results: dict[str, Any] = {"sizes": [], "shares": []}
    with tempfile.TemporaryDirectory() as folder:
        for size in tqdm(sorted(options.sizes), desc="sizes"):
            index, figures = built(keys[:size], Path(folder) / "index")
            exact = exact_index(keys[:size])
            figures |= compare(exact, index, queries, None, options.rounds)
            results["sizes"].append({"keys": size, "made": max(0, size - len(questions)), **figures})
    show_sizes(results["sizes"])
    for share in tqdm(SHARES, desc="shares of the largest"):
        allowed = np.random.default_rng(1).random(len(index)) < share
        results["shares"].append(
            {"share": share, **compare(exact, index, queries[:FILTERED], allowed, options.rounds)}
        )
    show_shares(results["shares"], len(index))
    run = {"benchmark": "index", "questions": len(questions), "rounds": options.rounds, **environment()}
    write_json(options.json, {"run": run, "results": results})


def read_vectors(data: Path) -> Vectors:
    """Vectors of questions people ask, in an order that is always the same."""
    texts = read_traffic(data)["questions"]
    texts += [
        record[name] for record in read_records(data / "similiar_qqp_full.json") for name in ("text_a", "text_b")
    ]
    texts = list(dict.fromkeys(texts))
    chosen = np.random.default_rng(0).permutation(len(texts))[:QUESTIONS]
    return SentenceEncoder().encode([texts[i] for i in chosen], progress=True)


def widened(questions: Vectors, count: int) -> Vectors:
    """`(count, dim)`: the questions, and as many made vectors as they are too few."""
    rng = np.random.default_rng(0)
    parts = [questions[:count]]
    for start in range(len(questions), count, 65_536):
        some = min(65_536, count - start)
        from_, to = rng.integers(len(questions), size=(2, some))
        moves = questions[to] - questions[from_]
        lengths = np.maximum(np.linalg.norm(moves, axis=1, keepdims=True), 1e-6)
        moves *= rng.uniform(*DISTANCE, (some, 1)).astype(np.float32) / lengths
        made = questions[rng.integers(len(questions), size=some)] + moves
        parts.append(made / np.linalg.norm(made, axis=1, keepdims=True))
    return np.concatenate(parts)


def exact_index(keys: Vectors) -> Any:
    """What every search is compared with."""
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys)
    return index


def built(keys: Vectors, file: Path) -> tuple[SegmentIndex, dict[str, float]]:
    """The index, opened from a file, and what it takes to make, open and keep."""
    build_seconds, pause, index = longest_pause(lambda: SegmentIndex.build(keys))
    save_seconds, _ = timed(index.save, file)
    open_seconds, opened = timed(SegmentIndex.open, file)
    return opened, {
        "build_seconds": build_seconds,
        "pause_seconds": pause,
        "save_seconds": save_seconds,
        "open_seconds": open_seconds,
        "bytes_per_key": file.stat().st_size / len(keys),
    }


def longest_pause(work: Callable[[], SegmentIndex]) -> tuple[float, float, SegmentIndex]:
    """Seconds the work takes, the longest that another thread waits meanwhile, and what the work gives."""
    over = threading.Event()
    pauses = [0.0]

    def look() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            pauses.append(time.perf_counter() - began)

    watcher = threading.Thread(target=look)
    watcher.start()
    seconds, result = timed(work)
    over.set()
    watcher.join()
    return seconds, max(pauses), result


def compare(
    exact: Any, index: SegmentIndex, queries: Vectors, allowed: np.ndarray | None, rounds: int
) -> dict[str, Any]:
    """The recall, and the times of single queries and of batches beside exact search."""
    bits = None if allowed is None else np.packbits(allowed, bitorder="little")
    count = None if allowed is None else int(allowed.sum())
    parameters = faiss.SearchParameters()
    if bits is not None:
        selector = faiss.IDSelectorBitmap(bits)
        parameters.sel = selector

    def exactly(some: Vectors) -> np.ndarray:
        return exact.search(some, K, params=parameters)[1]

    def by_index(some: Vectors) -> np.ndarray:
        return index.search(some, K, bits, count)[1]

    found = [
        len(set(got) & set(right) - {-1}) / max(1, len(set(right) - {-1}))
        for got, right in zip(by_index(queries).tolist(), exactly(queries).tolist(), strict=True)
    ]
    figures: dict[str, Any] = {"recall": statistics.fmean(found)}
    for name, size, turns in (("one", 1, rounds), ("batch", BATCH, max(3, rounds // 8))):
        times = []
        for i in range(turns):
            some = queries[i * size % (len(queries) - size) :][:size]
            times.append((timed(exactly, some)[0], timed(by_index, some)[0]))
        figures[name] = {
            "times_faster": summary(slow / fast for slow, fast in times),
            "seconds": summary(fast for _, fast in times),
            "exact_seconds": summary(slow for slow, _ in times),
        }
    return figures


def show_sizes(results: Sequence[dict[str, Any]]) -> None:
    """Prints the first table."""
    rows = [
        (
            f"{row['keys']:,}",
            *_speed(row),
            f"{row['build_seconds']:.1f} s",
            f"{1e3 * row['pause_seconds']:.0f} ms",
            f"{1e3 * row['open_seconds']:.0f} ms",
            f"{row['bytes_per_key']:,.0f}",
        )
        for row in results
    ]
    notes = [f"{row['made']:,} of {row['keys']:,} keys are made" for row in results if row["made"]]
    notes.append("times are medians, faster: than exact search, medians of the ratios; bytes of a key in the file")
    report("The index beside exact search", ("keys", *SPEED, "build", "pause", "open", "bytes"), rows, notes)


def show_shares(results: Sequence[dict[str, Any]], keys: int) -> None:
    """Prints the second table."""
    rows = [(f"{100 * row['share']:g} %", *_speed(row)) for row in results]
    report(f"{keys:,} keys, of which only a share is allowed", ("allowed", *SPEED), rows, [])


def _speed(row: dict[str, Any]) -> Sequence[str]:
    parts = [f"{row['recall']:.4f}"]
    for name in ("one", "batch"):
        parts += [
            f"{1e3 * row[name]['seconds']['median']:.2f} ms",
            f"{row[name]['times_faster']['median']:.1f} x",
        ]
    return parts


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the training files")
    source.add_argument("--vectors", type=Path, metavar="FILE", help="vectors that --keep wrote")
    options.add_argument("--keep", type=Path, metavar="FILE", help="write the vectors of the questions to FILE")
    options.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[1_000, 10_000, 100_000, 1_000_000],
        metavar="N",
        help="how many keys (default: 1000 10000 100000 1000000)",
    )
    options.add_argument(
        "--rounds", type=int, default=40, metavar="N", help="single queries to time (default: %(default)s)"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()

"""What a memory costs: the time until an edit is durable and in force, and the bytes that it takes.

    python benchmarks/memory.py                  # 200 single edits, then 10,000 at once
    python benchmarks/memory.py --bulk 100000    # figures of bytes settle with the number of edits
    python benchmarks/memory.py --json memory.json

Times are given in passes of the encoder over one sentence (`encode` of one question), measured in the same run: the
encoder is what an edit cannot do without, and the ratio carries over to other machines. The memory is a file on disk,
and a write is over when the disk has it. Each single edit is timed beside one pass, in a memory that begins empty and
again in one that holds the bulk. After each, outside the clock, the edit is looked up: by a search, and through
another connection to the file.

Bytes in memory are what a fresh process grows by when it opens the file, so they hold whatever an open memory keeps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from harness import environment, made_up_edits, parser, report, summary, timed, write_json
from semedit import Edit, EditMemory, SentenceEncoder
from semedit.memory.sqlite import SQLiteStore

BAR = 3.0  # passes for one edit


def main() -> None:
    """Runs the benchmark."""
    options = _options()
    encoder = SentenceEncoder()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "edits.db"
        memory = EditMemory(file, encoder)
        into_empty = _single(memory, made_up_edits(options.singles + 1, start=options.bulk), file)
        results = {"add_into_empty": into_empty, "add_many": _bulk(memory, options.bulk, into_empty)}
        fresh = made_up_edits(options.singles + 1, start=options.bulk + options.singles + 1)
        results["add_beside_bulk"] = _single(memory, fresh, file)
        memory.store.close()
        results["size"] = _size(file, Path(folder) / "empty.db")
    _show(results, options)
    run = {
        "benchmark": "memory",
        "singles": options.singles,
        "bulk": options.bulk,
        "encoder": encoder.fingerprint,
        **environment(),
    }
    write_json(options.json, {"run": run, "results": results})


def _single(memory: EditMemory, edits: list[Edit], file: Path) -> dict[str, Any]:
    """Adds edits one by one, each beside a pass of the encoder over its prompt."""
    other = SQLiteStore(file)
    passes, adds, ratios = [], [], []
    for i, edit in enumerate(tqdm(edits, desc=f"single edits, {len(memory.list()):,} in memory")):
        one_pass, _ = timed(memory.encoder.encode, [edit.prompt])
        add, added = timed(memory.add, edit.prompt, edit.target)
        [found] = memory.search(edit.prompt, k=1)
        if added.outcome != "added" or found.edit != added or other.history(added.id) != [added]:
            sys.exit(f"{edit.prompt!r} was added and is not there")
        if i:  # the first one warms up
            passes.append(one_pass)
            adds.append(add)
            ratios.append(add / one_pass)
    other.close()
    return {"passes": summary(ratios), "seconds": summary(adds), "pass_seconds": summary(passes)}


def _bulk(memory: EditMemory, count: int, singles: Mapping[str, Any]) -> dict[str, float]:
    """Adds many edits as one change, beside the pass that was measured with the single ones."""
    print(f"adding {count:,} edits at once")
    edits = made_up_edits(count)
    seconds, added = timed(memory.add_many, edits, progress=True)
    if memory.get(edits[-1].id) != added[-1]:
        sys.exit("edits were added and are not there")
    return {
        "edits": count,
        "seconds": seconds,
        "edits_per_second": count / seconds,
        "passes_per_edit": seconds / count / singles["pass_seconds"]["median"],
    }


def _size(file: Path, empty: Path) -> dict[str, float]:
    """What each edit of a closed file takes on disk, and in a fresh process that opens it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        edits, grown, seconds = pool.apply(_open, (file, empty))
    return {
        "edits": edits,
        "resident_bytes_per_edit": grown / edits,
        "disk_bytes_per_edit": (file.stat().st_size - empty.stat().st_size) / edits,
        "open_seconds": seconds,
    }


def _open(file: Path, empty: Path) -> tuple[int, int, float]:
    """How many edits a file holds, by how many bytes this process grows with them, and how many seconds that takes."""
    encoder = SentenceEncoder()
    process = psutil.Process()
    EditMemory(empty, encoder).list()  # whatever is loaded at the first use is loaded now
    before = process.memory_info().rss
    seconds, memory = timed(EditMemory, file, encoder)
    grown = process.memory_info().rss - before
    return len(memory.list()), grown, seconds


def _show(results: Mapping[str, Any], options: argparse.Namespace) -> None:
    rows = []
    for name, what in (("add_into_empty", "into an empty memory"), ("add_beside_bulk", f"beside {options.bulk:,}")):
        figures = results[name]
        passes = figures["passes"]
        rows.append(
            (
                f"one edit, {what}",
                f"{passes['median']:.2f} passes ({passes['quartile_1']:.2f} to {passes['quartile_3']:.2f})",
                f"{1000 * figures['seconds']['median']:.1f} ms",
            )
        )
    many, size = results["add_many"], results["size"]
    rows += [
        (
            f"{many['edits']:,} edits at once, each",
            f"{many['passes_per_edit']:.2f} passes",
            f"{many['edits_per_second']:,.0f} edits/s",
        ),
        (f"in memory, each of {size['edits']:,} edits", f"{size['resident_bytes_per_edit']:,.0f} bytes", ""),
        ("on disk, each", f"{size['disk_bytes_per_edit']:,.0f} bytes", ""),
        ("opening the file", "", f"{size['open_seconds']:.2f} s"),
    ]
    one_pass = 1000 * results["add_into_empty"]["pass_seconds"]["median"]
    slowest = max(results[name]["passes"]["median"] for name in ("add_into_empty", "add_beside_bulk"))
    notes = [
        f"one edit: from `add` to durable and in force; median of {options.singles}, the middle half in brackets",
        f"one pass of the encoder over one sentence takes {one_pass:.1f} ms",
        f"bar: one edit in at most {BAR:.0f} passes; it {'holds' if slowest <= BAR else 'is missed'}",
    ]
    report("What an edit costs", ("", "figure", "here"), rows, notes)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--singles", type=int, default=200, metavar="N", help="edits added one by one (default: %(default)s)"
    )
    options.add_argument(
        "--bulk", type=int, default=10_000, metavar="N", help="edits added at once (default: %(default)s)"
    )
    options.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="where the memory is made, and deleted again (default: here); choose a disk, since a write to a folder "
        "that is kept in memory, as /tmp may be, costs nothing",
    )
    return options.parse_args()


if __name__ == "__main__":
    main()

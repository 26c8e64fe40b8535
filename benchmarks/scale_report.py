"""The tables of the scale benchmark, with its bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import report
from scale_search import BATCH, K
from scale_stores import BAR_SECONDS

RECALL_BAR, SEARCH_BAR, OPENING_BAR, BYTES_BAR = 0.99, 10.0, 20.0, 1_228
BARS_FROM = 1_000_000  # edits
_SPEED = (f"recall@{K}", "one query", "faster", f"{BATCH} queries", "faster")
_PERCENTILES = ("p50", "p95", "p99", "max")


def show_searching(results: Sequence[Mapping[str, Any]]) -> None:
    """Recall and search times beside exact search."""
    rows = [(f"{row['edits']:,}", *_speed(row)) for row in results]
    notes = [f"of {row['edits']:,} keys, {row['made']:,} are made from real ones" for row in results if row["made"]]
    notes.append("times are medians of `EditMemory.nearest`; faster: than exact search, medians of the ratios")
    for row in results:
        if row["edits"] >= BARS_FROM:
            notes.append(_bar(f"recall of at least {RECALL_BAR}", row["recall"] >= RECALL_BAR))
            faster = row["one"]["times_faster"]["median"]
            notes.append(_bar(f"one query at least {SEARCH_BAR:.0f} times as fast", faster >= SEARCH_BAR))
    report("Searching through all edits", ("edits", *_SPEED), rows, notes)


def show_namespaces(results: Sequence[Mapping[str, Any]], edits: int) -> None:
    """The same within one namespace."""
    rows = [(f"{row['edits']:,}", *_speed(row)) for row in results]
    notes = ["exact search looks through an index of the namespace's own, which nobody else's edits slow down"]
    report(f"Searching through one namespace, of {edits:,} edits in all", ("edits in it", *_SPEED), rows, notes)


def show_opening(results: Sequence[Mapping[str, Any]]) -> None:
    """Times to open a memory, and the bytes that an edit then takes."""
    rows = []
    for row in results:
        rebuilt, opened = row["rebuilt"], row.get("opened")
        rows.append(
            (
                f"{rebuilt['edits']:,}",
                f"{rebuilt['seconds']:.2f} s",
                f"{rebuilt['settled_seconds']:.2f} s",
                *(
                    (f"{opened['seconds']:.2f} s", f"{row['times_faster']:.0f} x", _bytes(opened))
                    if opened
                    else ("", "", "")
                ),
                _bytes(rebuilt),
                f"{rebuilt['peak_bytes_per_edit']:,.0f}",
                f"{row['disk_bytes_per_edit'] + row.get('snapshot_bytes_per_edit', 0.0):,.0f}",
            )
        )
    notes = [
        "rebuilt: until searches are answered, and until the index is what the snapshot holds; files are in the page "
        "cache",
        "bytes of an edit: the process's own + of mapped files, which the system may drop; peak: while the index is "
        "rebuilt; on disk: the database and its snapshot",
    ]
    for row in results:
        if row["rebuilt"]["edits"] >= BARS_FROM:
            faster, most = row["times_faster"], max(_resident(row["opened"]), _resident(row["rebuilt"]))
            notes.append(_bar(f"opened at least {OPENING_BAR:.0f} times as fast as rebuilt", faster >= OPENING_BAR))
            notes.append(_bar(f"at most {BYTES_BAR:,.0f} bytes in memory for each edit", most <= BYTES_BAR))
    columns = ("edits", "rebuilt", "index whole", "snapshot", "faster", "bytes", "if rebuilt", "peak", "on disk")
    report("Opening", columns, rows, notes)


def show_writing(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Edits per second, and how soon another process sees them."""
    rows = [
        (
            store,
            f"{row['writing']['single_per_second']:,.0f} edits/s",
            f"{row['writing']['bulk_per_second']:,.0f} edits/s",
            f"{row['writing']['bulk_per_second'] / row['writing']['single_per_second']:.0f} x",
            *(f"{1e3 * row['visibility'][name]:.1f} ms" for name in ("p50", "p95", "max")),
        )
        for store, row in results.items()
    ]
    notes = ["encoding left out; seen: by the searches of another process, after whoever added the edit was told"]
    columns = ("store", "one by one", "at once", "ratio", "seen p50", "p95", "max")
    report("Writing", columns, rows, notes)


def show_serving(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Query times beside an import."""
    rows = []
    for store, row in results.items():
        for what, name in (("", "quiet"), (", a thread imports", "thread"), (", a process imports", "process")):
            figures = row["serving"][name]
            times = (f"{1e3 * figures[part]:.1f} ms" for part in _PERCENTILES)
            rows.append((store + what, *times, f"{figures['over_bar']:,} of {figures['queries']:,}"))
    columns = ("", *_PERCENTILES, f"over {1e3 * BAR_SECONDS:.0f} ms")
    report("One query at a time, while edits are imported", columns, rows, ["quiet: what else runs on the machine"])


def _speed(row: Mapping[str, Any]) -> list[str]:
    parts = [f"{row['recall']:.4f}"]
    for name in ("one", "batch"):
        parts.append(f"{1e3 * row[name]['seconds']['median']:.2f} ms")
        parts.append(f"{row[name]['times_faster']['median']:.1f} x")
    return parts


def _bytes(figures: Mapping[str, Any]) -> str:
    return f"{figures['anonymous_bytes_per_edit']:,.0f} + {figures['mapped_bytes_per_edit']:,.0f}"


def _resident(figures: Mapping[str, Any]) -> float:
    own, mapped = (figures[f"{name}_bytes_per_edit"] for name in ("anonymous", "mapped"))
    return float(own + mapped)


def _bar(what: str, holds: bool) -> str:
    return f"bar: {what}; it {'holds' if holds else 'is missed'}"

"""An evaluation as tables: for the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semedit.evaluation.metrics import Mean, Rate
from semedit.evaluation.results import Checkpoint, Evaluation, Row

# what stands together, in the order of display; "portability" and "behaviour" stand for each of their details too
_GROUPS = (
    ("Answers that should change", ("reliability", "generality", "portability")),
    (
        "Answers that must not change",
        (
            *("locality_unrelated", "locality_same_subject", "locality_same_relation"),
            *("false_override_unrelated", "false_override_same_subject", "false_override_same_relation"),
            "false_override",
        ),
    ),
    ("As edits pile up", ("edit_success", "edit_retention", "test_retention", "in_scope_success", "drawdown")),
    ("Likelihoods compared (not generated)", ("efficacy", "paraphrase", "neighbourhood", "rome_score")),
    ("Answers that contain the target", ("contains_reliability", "contains_generality")),
    ("Behaviour (judged by likelihoods)", ("behaviour",)),
    ("Teacher-forced (not generated)", ("teacher_forced_reliability", "teacher_forced_generality")),
    ("Cost", ("fluency", "seconds_per_edit", "seconds_per_answer", "overhead", "bytes_per_edit")),
)
_OVER_EDITS = ("edit_retention", "generality", "test_retention")
_COLUMNS = 5  # so many fit a terminal beside each other


@dataclass(frozen=True)
class Cell:
    """One figure: what it is, of how many, and the ends of its interval. Texts; empty where there is none."""

    value: str = ""
    of: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        title: what its figures have in common.
        columns: their names.
        rows: for each method its name, and a cell for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def table(evaluation: Evaluation) -> str:
    """The figures for a terminal: all metrics after the last edit, then retention over the checkpoints.

    Each rate stands as a percentage with its numerator and denominator, and the 95 % Wilson interval below it; each
    mean with how many it is taken over.
    """
    written = io.StringIO()
    console = Console(file=written, width=1000, color_system=None)
    for sentence in describe(evaluation):
        console.print(Text(textwrap.fill(sentence, 110)))
    for section in [*metric_sections(evaluation), *retention_sections(evaluation)]:
        for start in range(0, len(section.columns), _COLUMNS):
            console.print(_terminal_table(section, slice(start, start + _COLUMNS)))
    for row in evaluation.rows:
        if row.note:
            console.print(Text(f"{row.method}: {row.note}"))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def write_csv(evaluation: Evaluation, path: str | Path) -> None:
    """Writes one line for each method, checkpoint and metric.

    The columns are `method,edits,metric,value,numerator,denominator,low,high`; what a metric does not have is empty.
    The numerator of a mean is the sum.
    """
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("method", "edits", "metric", "value", "numerator", "denominator", "low", "high"))
        for row in evaluation.rows:
            for point in row.checkpoints:
                for name, rate in point.rates.items():
                    figures = (rate.value, rate.hits, rate.of, rate.low, rate.high)
                    writer.writerow((row.method, point.edits, name, *figures))
                for name, mean in point.means.items():
                    writer.writerow((row.method, point.edits, name, mean.value, mean.total, mean.of, None, None))


def describe(evaluation: Evaluation) -> tuple[str, str]:
    """What was evaluated, and how: two sentences."""
    counts = [f"{edits:,}" for edits in checkpoints(evaluation)] or ["0"]
    made = "one after another" if evaluation.order == "sequential" else "in one batch for each checkpoint"
    what = (
        f"Edits of {evaluation.dataset} were made {made} to {evaluation.model}, and after {_listed(counts)} of them "
        "the questions about all edits so far were asked"
    )
    if evaluation.sample is not None:
        what += f", at most {evaluation.sample:,} of each kind, drawn with seed {evaluation.seed}"
    if evaluation.left_out:
        what += f"; examples left out since they contradict earlier ones: {evaluation.left_out:,}"
    how = (
        "Answers are generated greedily to a natural stop and are right where they match exactly after normalisation, "
        "or, for what must not change, where they are the unedited model's token for token; rates stand with their "
        "95 % Wilson intervals, and what is not generated is labelled."
    )
    return what + ".", how


def checkpoints(evaluation: Evaluation) -> list[int]:
    """After how many edits anything was measured, ascending."""
    return sorted({point.edits for row in evaluation.rows for point in row.checkpoints})


def metric_sections(evaluation: Evaluation) -> list[Section]:
    """All metrics at the last checkpoint of each method; a section without any is left out."""
    most = max(checkpoints(evaluation), default=0)
    last = [(_label(row, most), row.checkpoints[-1]) for row in evaluation.rows if row.checkpoints]
    names = list(dict.fromkeys(name for _, point in last for name in (*point.rates, *point.means)))
    grouped = [(title, [name for stem in stems for name in names if _stem(name) == stem]) for title, stems in _GROUPS]
    placed = {name for _, there in grouped for name in there}
    grouped.append(("Others", [name for name in names if name not in placed]))
    sections = []
    for title, there in grouped:
        if there:
            rows = tuple((label, tuple(_cell(point, name) for name in there)) for label, point in last)
            sections.append(Section(title, tuple(map(heading, there)), rows))
    return sections


def retention_sections(evaluation: Evaluation) -> list[Section]:
    """What is kept of the edits, how far they reach and what they leave as it was, a column for each checkpoint."""
    counts = checkpoints(evaluation)
    columns = tuple(f"{edits:,} edit{'s' * (edits != 1)}" for edits in counts)
    sections = []
    for name in _OVER_EDITS:
        rows = []
        for row in evaluation.rows:
            points = {point.edits: point for point in row.checkpoints if name in point.rates}
            if points:
                cells = (_cell(points[edits], name) if edits in points else Cell() for edits in counts)
                rows.append((row.method, tuple(cells)))
        if rows:
            sections.append(Section(f"{heading(name).capitalize()} over the number of edits", columns, tuple(rows)))
    return sections


def heading(metric: str) -> str:
    """A metric's name as people read it."""
    return metric.replace("teacher_forced", "teacher-forced").replace("_", " ")


def _stem(metric: str) -> str:
    return metric.partition(":")[0]


def _label(row: Row, most: int) -> str:
    edits = row.checkpoints[-1].edits
    return row.method if edits == most else f"{row.method} ({edits:,} edits)"


def _cell(point: Checkpoint, name: str) -> Cell:
    if name in point.rates:
        return _rate_cell(point.rates[name])
    return _mean_cell(name, point.means[name]) if name in point.means else Cell()


def _rate_cell(rate: Rate) -> Cell:
    of = f"{rate.hits:,}/{rate.of:,}"
    if rate.value is None or rate.low is None or rate.high is None:
        return Cell("none", of)
    return Cell(f"{rate.value:.2%}", of, f"{100 * rate.low:.2f} to {100 * rate.high:.2f}")


def _mean_cell(name: str, mean: Mean) -> Cell:
    of = "" if name == "overhead" else f"of {mean.of:,}"  # a quotient is taken over nothing
    if mean.value is None:
        return Cell("none", of)
    return Cell(_with_unit(name, mean.value), of)


def _with_unit(name: str, value: float) -> str:
    if name.startswith("teacher_forced"):
        return f"{value:.2%}"
    if name.startswith("seconds"):
        return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
    if name.startswith("bytes"):
        return f"{value / 1000:,.1f} kB"
    return f"{value:.2f}" + {"fluency": " bits", "overhead": " times"}.get(name, "")


def _terminal_table(section: Section, shown: slice) -> Table:
    result = Table(title=section.title, title_justify="left", title_style="", box=SIMPLE_HEAD)
    result.add_column("method")
    for column in section.columns[shown]:
        result.add_column(textwrap.fill(column, 18, break_on_hyphens=False), justify="right")
    for method, cells in section.rows:
        texts = (f"{cell.value} {cell.of}\n{cell.interval}".strip() for cell in cells[shown])
        result.add_row(Text(method), *map(Text, texts))
    return result


def _listed(counts: Sequence[str]) -> str:
    return " and ".join([", ".join(counts[:-1]), counts[-1]] if len(counts) > 1 else counts)

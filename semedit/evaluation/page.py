"""An evaluation as one HTML page that needs nothing beside itself. Needs matplotlib, as `plots` does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from semedit.evaluation import plots
from semedit.evaluation.page_style import STYLE
from semedit.evaluation.report import Cell, Section, describe, metric_sections, retention_sections
from semedit.evaluation.results import Asked, Evaluation, Row
from semedit.evaluation.series import KINDS

WORST = 10

_CAPTIONS = {
    "retention": "How many of the edits so far are still answered, over the number of edits, with 95 % intervals.",
    "overrides": "How many questions in scope an edit answers, at the price of how many that none should answer, as "
    "the threshold falls; overrides that share a router share a line.",
    "scores": "The scope scores of all questions, by kind; what is right of the dashed line an "
    "edit answers, unless it is ambiguous or vetoed, and “none” is what no edit was near enough to be scored for.",
    "time": "How long one answer takes over the number of edits; the dashed line is the unedited model.",
}
_WORST_FIRST = (
    "For each method and each kind of question the wrong answers after the last edit, at most ten. Those that an edit "
    "answered come first, then those that the model answered, each from the highest scope score down: at the top "
    "stand confident overrides that went wrong or should not have been, below them the misses that came nearest to "
    "being routed. Where there is no router, they stand in the order in which they were asked."
)
_SHOWN_ANSWERS = 3  # MQuAKE has dozens of aliases


def write_page(evaluation: Evaluation, folder: str | Path) -> Path:
    """Draws the plots into a folder and writes `index.html` beside them, which holds them too.

    The page has the tables with their intervals, the plots, and the worst cases of each method.

    Args:
        evaluation: what is shown.
        folder: made where there is none.

    Returns:
        The page's path.
    """
    drawings = [path for path in plots.draw(evaluation, folder) if path.suffix == ".svg"]
    title = f"Evaluation: {evaluation.dataset}"
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in describe(evaluation)),
        "</header>",
        '<nav><a href="#metrics">Metrics</a> <a href="#retention">Retention</a> <a href="#plots">Plots</a> '
        '<a href="#cases">Worst cases</a></nav>',
        '<h2 id="metrics">After the last edit</h2>',
        *map(_table, metric_sections(evaluation)),
        *_notes(evaluation.rows),
        '<h2 id="retention">Retention</h2>',
        *map(_table, retention_sections(evaluation)),
        '<h2 id="plots">Plots</h2>',
        '<div class="plots">',
        *map(_figure, drawings),
        "</div>",
        '<h2 id="cases">Worst cases</h2>',
        f"<p>{_WORST_FIRST}</p>",
        *(line for row in evaluation.rows for line in _worst_cases(row)),
    ]
    path = Path(folder) / "index.html"
    path.write_text(_document(title, "\n".join(parts)), encoding="utf-8")
    return path


def worst(asked: Sequence[Asked]) -> list[Asked]:
    """The wrong ones: first those that an edit answered, then the others, each from the highest score down.

    What has no score comes last, and ties stay in the order in which they were asked.
    """
    wrong = [one for one in asked if not one.right]
    return sorted(wrong, key=lambda one: (not one.overridden, one.score is None, -(one.score or 0)))


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _table(section: Section) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in section.columns)
    rows = (
        f'<tr><th scope="row">{_breakable(method)}</th>{"".join(map(_cell, cells))}</tr>'
        for method, cells in section.rows
    )
    body = "\n".join(rows)
    title = escape(section.title)
    # what scrolls must be reachable by keyboard
    return (
        f'<h3>{title}</h3>\n<div class="scroll" role="region" aria-label="{title}" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col">method</th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )


def _cell(cell: Cell) -> str:
    small = "".join(f"<small>{escape(text)}</small>" for text in (cell.of, cell.interval) if text)
    return f"<td>{escape(cell.value)}{small}</td>"


def _breakable(method: str) -> str:
    return escape(method).replace("_", "_<wbr>")


def _notes(rows: Sequence[Row]) -> list[str]:
    return [f"<p><b>{escape(row.method)}</b>: {escape(row.note)}</p>" for row in rows if row.note]


def _figure(drawing: Path) -> str:
    """An SVG as part of the page: its colours follow the theme, and its names do not meet another's."""
    name = drawing.stem
    svg = drawing.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour in plots.DARK:
        svg = svg.replace(colour, f"var(--{colour[1:]})")
    caption = escape(_CAPTIONS[name])
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"


def _worst_cases(row: Row) -> Iterator[str]:
    if not row.checkpoints:
        return
    yield f"<h3>{escape(row.method)}</h3>"
    for kind in KINDS:
        asked = [one for one in row.checkpoints[-1].asked if one.kind == kind]
        cases = worst(asked)
        said = f"{escape(kind.replace('_', ' '))}: {len(cases):,} of {len(asked):,} wrong"
        if cases:
            shown = "\n".join(map(_case, cases[:WORST]))
            yield (
                f"<details><summary>{said}</summary>\n"
                '<table class="cases">\n<thead><tr><th scope="col">prompt</th><th scope="col">expected</th>'
                '<th scope="col">got</th><th scope="col">route</th><th scope="col">score</th></tr></thead>\n'
                f"<tbody>\n{shown}\n</tbody>\n</table></details>"
            )
        elif asked:
            yield f'<p class="none">{said}</p>'


def _case(asked: Asked) -> str:
    expected = " | ".join(asked.expected[:_SHOWN_ANSWERS])
    more = len(asked.expected) - _SHOWN_ANSWERS
    cells = {
        "prompt": f"{asked.prompt} ({asked.detail})" if asked.detail else asked.prompt,
        "expected": f"{expected} | and {more} more" if more > 0 else expected,
        "got": "judged by likelihoods" if asked.kind == "behaviour" else asked.got or "(nothing)",
        "route": asked.reason or "no router",
        "score": "none" if asked.score is None else f"{asked.score:.3f}",
    }
    return f"<tr>{''.join(f'<td data-name={name}>{escape(text)}</td>' for name, text in cells.items())}</tr>"

"""What the benchmarks share: made-up edits, interleaved timing, and the report as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import faiss
import torch
import transformers
from rich.console import Console
from rich.table import Table

from semedit import Edit

T = TypeVar("T")

RELATIONS = (
    "Who is the chief executive of {}?",
    "Who founded {}?",
    "In which year was {} founded?",
    "In which town is {} based?",
    "How many people work for {}?",
    "What does {} sell?",
    "Who audits the books of {}?",
    "Which bank lends to {}?",
    "What is the telephone number of {}?",
    "Who chairs the board of {}?",
)
SYLLABLES = tuple(consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou")


def made_up_edits(count: int, start: int = 0) -> list[Edit]:
    """The edits from `start` on of an endless list: ten facts about each of many companies that do not exist."""
    edits = []
    for number in range(start, start + count):
        company, relation = divmod(number, len(RELATIONS))
        prompt = RELATIONS[relation].format(_company(company))
        edits.append(Edit(id=f"edit-{number}", prompt=prompt, target=f"answer {number}"))
    return edits


def timed(function: Callable[..., T], *args: Any, **kwargs: Any) -> tuple[float, T]:
    """How many seconds a call takes, and what it gives."""
    began = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - began, result


def summary(values: Iterable[float]) -> dict[str, float]:
    """The median and the quartiles around it."""
    values = sorted(values)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows `description` as it is written, and knows --json."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures, and what was run, to FILE too")
    return result


def environment() -> dict[str, Any]:
    """What the figures depend on beside the options."""
    return {
        "threads": torch.get_num_threads(),
        "search_threads": faiss.omp_get_max_threads(),
        "semedit": version("semedit"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "faiss": faiss.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
    }


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Prints a table: the first column says what was measured, the others the figures."""
    console = Console(width=None if sys.stdout.isatty() else 132)  # a file has no width of its own
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Writes the figures to the file of --json, where there is one."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _company(number: int) -> str:
    """A name of two or more syllables; different numbers have different names."""
    name = ""
    for _ in range(2):
        number, digit = divmod(number, len(SYLLABLES))
        name = SYLLABLES[digit] + name
    while number:
        number, digit = divmod(number, len(SYLLABLES))
        name = SYLLABLES[digit] + name
    return name.capitalize()

"""How edits and routes are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from semedit.edits import Candidate, Edit, Route


def print_json(value: Any) -> None:
    """Prints one JSON document on one line."""
    print(json.dumps(value, ensure_ascii=False, default=datetime.isoformat))


def edit_fields(edit: Edit) -> dict[str, Any]:
    """An edit for `print_json`: all its fields."""
    return asdict(edit)


def route_fields(route: Route) -> dict[str, Any]:
    """A route for `print_json`."""
    return {
        "query": route.query,
        "in_scope": route.in_scope,
        "ambiguous": route.ambiguous,
        "reason": route.reason,
        "score": route.score,
        "threshold": route.threshold,
        "edits": [edit_fields(edit) for edit in route.edits],
        "runner_up": None if route.runner_up is None else _candidate_fields(route.runner_up),
        "candidates": [_candidate_fields(candidate) for candidate in route.candidates],
    }


def edit_table(edits: Sequence[Edit]) -> Table:
    """One row for each edit; a column for what differs among them."""
    several = len({edit.namespace for edit in edits}) > 1
    states = {_state(edit) for edit in edits} != {"in force"}
    table = _table("id", "prompt", "answer", "changed")
    if several:
        table.add_column("namespace")
    if states:
        table.add_column("state")
    for edit in edits:
        cells = [edit.id, edit.prompt, edit.target, _when(edit.time)]
        cells += [edit.namespace] if several else []
        cells += [_state(edit)] if states else []
        table.add_row(*map(Text, cells))
    return table


def edit_card(edit: Edit) -> Table:
    """One row for each field of an edit that says something."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows: list[tuple[str, str]] = [("id", edit.id), ("prompt", edit.prompt), ("answer", edit.target)]
    rows += [("also asked as", text) for text in edit.paraphrases]
    rows += [("not for", text) for text in edit.negatives]
    rows += [
        ("namespace", edit.namespace),
        ("in force from", _when(edit.valid_from)),
        ("in force until", _when(edit.valid_until)),
        ("override", edit.override or ""),
        ("source", edit.source or ""),
        ("author", edit.author or ""),
        ("metadata", json.dumps(dict(edit.metadata), ensure_ascii=False) if edit.metadata else ""),
        ("state", _state(edit)),
        ("changed", f"{_when(edit.time)} (revision {edit.revision}: {edit.action})"),
    ]
    for name, value in rows:
        if value:
            table.add_row(Text(name, style="bold"), Text(value))
    return table


def history_table(revisions: Iterable[Edit]) -> Table:
    """One row for each revision, oldest first."""
    table = _table("revision", "when", "what", "prompt", "answer", "by", "source")
    for edit in revisions:
        cells = (str(edit.revision), _when(edit.time), edit.action, edit.prompt, edit.target)
        table.add_row(*map(Text, (*cells, edit.author or "", edit.source or "")))
    return table


def print_route(console: Console, route: Route) -> None:
    """The decision in words, and the candidates that it was made among."""
    console.print(Text(route.query, style="bold"))
    console.print(Text(route.reason))
    if not route.candidates:
        return
    table = _table("edit", "key", "answer", "cosine", "score", "")
    answering = {edit.id for edit in route.edits}
    for candidate in route.candidates:
        edit = candidate.edit
        if edit.id in answering:
            verdict = "answers"
        elif candidate.vetoed_by:
            verdict = f"vetoed by {candidate.vetoed_by!r}"
        else:
            verdict = "runner-up" if candidate is route.runner_up else ""
        score = "" if candidate.score is None else f"{candidate.score:.2f}"
        cells = (edit.id, candidate.key, edit.target, f"{candidate.similarity:.2f}", score, verdict)
        table.add_row(*map(Text, cells))
    console.print(table)
    console.print(Text(f"threshold {route.threshold:.2f}", style="dim"))


def _candidate_fields(candidate: Candidate) -> dict[str, Any]:
    return {
        "id": candidate.edit.id,
        "key": candidate.key,
        "target": candidate.edit.target,
        "similarity": candidate.similarity,
        "score": candidate.score,
        "vetoed_by": candidate.vetoed_by,
    }


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        # an id is there to be copied
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "edit"))
    return table


def _state(edit: Edit) -> str:
    if not edit.active:
        return {"supersede": "superseded", "undo": "undone", "erase": "erased"}.get(edit.action, "retired")
    now = datetime.now(timezone.utc)
    if edit.in_force(now):
        return "in force"
    return "over" if edit.valid_until is not None and edit.valid_until <= now else "to come"


def _when(time: datetime | None) -> str:
    """A time in the local zone, to the minute."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")

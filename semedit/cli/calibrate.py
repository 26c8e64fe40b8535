"""`semedit calibrate`: the threshold for a rate of false overrides."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from semedit.cli.opening import open_memory, scope_of
from semedit.cli.tables import print_json
from semedit.errors import CalibrationError
from semedit.router import Router
from semedit.scope.calibration import GROWTH, Calibration


def calibrate(args: argparse.Namespace) -> int:
    """Chooses the threshold, keeps it with the memory and shows what was measured."""
    traffic = [line.strip() for line in _lines(args.traffic) if line.strip()]
    positives = [] if args.positives is None else _read_positives(args.positives)
    router = Router(open_memory(args), scope_of(args))
    before = router.threshold(args.namespaces)
    calibration = router.calibrate(
        track(traffic, "routing", console=Console(stderr=True), disable=not sys.stderr.isatty()),
        positives=positives,
        target=args.target,
        namespaces=args.namespaces,
    )
    if args.json:
        closest = [{"query": query, "key": key, "claim": claim} for query, key, claim in calibration.closest]
        fields = json.loads(calibration.to_json())
        print_json({**fields, "overridden_bounds": calibration.overridden_bounds, "closest": closest})
        return 0
    console = Console(highlight=False)
    console.print(_table(calibration, before))
    if calibration.overridden_bounds[1] > calibration.target:
        console.print(Text(_why_not_shown(calibration), style="dim"))
    return 0


def _table(calibration: Calibration, before: float) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = [
        ("threshold", f"{calibration.threshold:.4f} (before: {before:.4f})"),
        ("overridden", _rate(calibration.overridden, calibration.queries, calibration.overridden_bounds)),
    ]
    if calibration.positives:
        rows.append(("kept", _rate(calibration.kept, calibration.positives, calibration.kept_bounds)))
    rows += [
        (
            "edits",
            f"{calibration.edits:,}; with up to {GROWTH * calibration.edits:,}, at most twice as many overrides",
        ),
        ("classifier", calibration.classifier),
    ]
    # traffic that an edit should answer shows here
    rows += [("closest", f"{claim:.4f} {query!r} beside {key!r}") for query, key, claim in calibration.closest]
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _rate(hits: int, trials: int, bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{hits:,} of {trials:,} = {hits / trials:.2%} (95 %: {low:.2%} to {high:.2%})"


def _why_not_shown(calibration: Calibration) -> str:
    return (
        f"The upper bound is above the target of {calibration.target:.2%}: that the target is met is not yet shown. "
        f"It takes at least {calibration.queries_needed:,} queries, and more where some are overridden."
    )


def _read_positives(path: str) -> list[tuple[str, str]]:
    positives = []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                record = json.loads(line)
                pair = (record["prompt"], record["query"])
            except (ValueError, KeyError, TypeError):
                pair = (None, None)
            if not all(isinstance(text, str) for text in pair):
                raise CalibrationError(
                    f'{path}, line {number}: expected {{"prompt": TEXT, "query": TEXT}}, found {line.strip()!r}'
                )
            positives.append(pair)
    return positives


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read {path}: {error}") from error

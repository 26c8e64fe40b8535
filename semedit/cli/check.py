"""`semedit edit check`: whether the model answers as its edits say."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from semedit.cli.adaptor import adaptor_config, override_of
from semedit.cli.loading import load_model
from semedit.cli.opening import open_memory, scope_of
from semedit.cli.tables import print_json
from semedit.evaluation import check as evaluation
from semedit.evaluation.check import Checked
from semedit.memory.edit_memory import EditMemory
from semedit.model import wrap
from semedit.overrides.adaptor_config import AdaptorConfig


def check(args: argparse.Namespace) -> int:
    """Checks the edits in force and shows what fails; 1 where something does."""
    config = adaptor_config(args)
    memory = open_memory(args)
    edits = len(evaluation.edits_in_force(memory, args.namespaces))
    checked = _checked(args, config, memory) if edits else []
    failures = [one for one in checked if not one.holds]
    everywhere = list({edit.namespace for edit in memory.list()})
    elsewhere = len(evaluation.edits_in_force(memory, everywhere)) - edits
    if args.json:
        counts = {"edits": edits, "not_checked": elsewhere, "checked": len(checked), "failed": len(failures)}
        print_json({**counts, "failures": [_fields(one) for one in failures]})
    else:
        if failures:
            Console().print(_table(failures))
        if elsewhere:
            print(f"not checked: {_count(elsewhere, 'edit')} in force in other namespaces; name them with --namespace")
        print(_summary(edits, checked))
    return 1 if failures else 0


def _checked(args: argparse.Namespace, config: AdaptorConfig, memory: EditMemory) -> list[Checked]:
    base, tokenizer = load_model(args.model)
    override = override_of(args, config, base, tokenizer, memory)
    model = wrap(base, tokenizer, memory=memory, scope=scope_of(args), override=override)
    return evaluation.check(
        model, max_new_tokens=args.max_new_tokens, namespaces=args.namespaces, progress=sys.stderr.isatty()
    )


def _table(failures: Sequence[Checked]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("edit", "asked", "expected", "got", "why"):
        # an id is there to be copied
        table.add_column(column, overflow="fold", no_wrap=column == "edit")
    for one in failures:
        expected = "not this edit" if one.kind == "negative" else one.edit.target
        table.add_row(*map(Text, (one.edit.id, one.asked, expected, one.got, one.why)))
    return table


def _fields(one: Checked) -> dict[str, Any]:
    return {
        "id": one.edit.id,
        "kind": one.kind,
        "asked": one.asked,
        "expected": None if one.kind == "negative" else one.edit.target,
        "got": one.got,
        "why": one.why,
    }


def _summary(edits: int, checked: Sequence[Checked]) -> str:
    """What was checked, and how much of it failed, in one line."""
    if not edits:
        return "there are no edits in force to check"
    asked = Counter(one.kind for one in checked)
    failed = Counter(one.kind for one in checked if not one.holds)
    each = ", ".join(f"{failed[kind]:,} of {count:,} {kind}s" for kind, count in asked.items())
    return f"{_count(edits, 'edit')}, {_count(len(checked), 'check')}, {failed.total():,} failed: {each}"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}" + ("" if number == 1 else "s")

"""The `semedit edit` commands, but for `learn`. None of them loads a language model."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from semedit.cli.opening import load_encoder, open_memory, open_store, scope_of
from semedit.cli.tables import edit_card, edit_fields, edit_table, history_table, print_json
from semedit.edits import Edit
from semedit.memory import reembedding


def add(args: argparse.Namespace) -> int:
    """Adds an edit."""
    memory = open_memory(args, make=True)
    if memory.holds_any([args.namespace]):  # or there is nothing that it could contradict
        memory.scope = scope_of(args)
    edit = memory.add(
        args.prompt,
        args.target,
        paraphrases=args.paraphrases,
        negatives=args.negatives,
        namespace=args.namespace,
        valid_from=args.valid_from,
        valid_until=args.valid_until,
        override="verbatim" if args.verbatim else None,
        source=args.source,
        author=args.author,
    )
    _print_edit(args, edit, f"{edit.outcome} {edit.id}")
    return 0


def ls(args: argparse.Namespace) -> int:
    """Lists edits."""
    edits = open_memory(args).list(namespace=args.namespace, include_retired=args.all)
    _print_edits(args, edits, "there are no edits" if not edits else "")
    return 0


def show(args: argparse.Namespace) -> int:
    """Shows an edit as it is now."""
    _print_edit(args, open_memory(args).get(args.id), "")
    return 0


def history(args: argparse.Namespace) -> int:
    """Shows all revisions of an edit."""
    revisions = open_memory(args).history(args.id)
    if args.json:
        print_json([edit_fields(edit) for edit in revisions])
    else:
        Console().print(history_table(revisions))
    return 0


def update(args: argparse.Namespace) -> int:
    """Changes an edit."""
    memory = open_memory(args)
    names = ("prompt", "target", "namespace", "valid_from", "valid_until", "source")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    edit = memory.get(args.id)
    if args.verbatim is not None:
        changes["override"] = "verbatim" if args.verbatim else None
    updated = memory.update(
        args.id,
        author=args.author,
        more_paraphrases=args.paraphrases,
        more_negatives=args.negatives,
        **changes,
    )
    _print_edit(args, updated, f"{'unchanged' if updated == edit else 'updated'} {edit.id}")
    return 0


def rm(args: argparse.Namespace) -> int:
    """Retires an edit."""
    edit = open_memory(args).retire(args.id, author=args.author)
    _print_edit(args, edit, f"retired {edit.id}; semedit edit undo brings it back")
    return 0


def undo(args: argparse.Namespace) -> int:
    """Takes back the last change."""
    edits = open_memory(args).undo(author=args.author)
    _print_edits(args, edits, f"took back the last change, of {_count(edits)}")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Adds the edits of a file."""
    memory = open_memory(args, make=True)
    edits = memory.import_(args.file, author=args.author, progress=sys.stderr.isatty())
    counts = Counter(edit.outcome for edit in edits)
    if args.json:
        print_json({outcome: counts[outcome] for outcome in ("added", "superseded", "unchanged")})
    else:
        said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in counts)
        print(f"{_count(edits)} from {args.file}: {said}" if edits else f"there are no edits in {args.file}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes the active edits to a file."""
    exported = open_memory(args).export(args.file)
    if args.json:
        print_json({"exported": exported, "file": args.file})
    else:
        print(f"wrote {exported} to {args.file}")
    return 0


def reembed(args: argparse.Namespace) -> int:
    """Makes all vectors anew."""
    store = open_store(args)  # a memory is refused where its vectors come from another encoder
    encoder = load_encoder(args.encoder)
    texts = reembedding.reembed(store, encoder, progress=sys.stderr.isatty())
    if args.json:
        print_json({"texts": texts, "encoder": encoder.fingerprint})
    else:
        print(f"made {texts} vectors with {encoder.fingerprint}")
    return 0


def _print_edit(args: argparse.Namespace, edit: Edit, said: str) -> None:
    if args.json:
        print_json(edit_fields(edit))
        return
    console = Console()
    if said:
        console.print(Text(said, style="bold"))
    console.print(edit_card(edit))


def _print_edits(args: argparse.Namespace, edits: Sequence[Edit], said: str) -> None:
    if args.json:
        print_json([edit_fields(edit) for edit in edits])
        return
    console = Console()
    if said:
        console.print(Text(said, style="bold"))
    if edits:
        console.print(edit_table(edits))


def _count(edits: Sequence[Edit]) -> str:
    return f"{len(edits)} edit" + ("" if len(edits) == 1 else "s")

"""`semedit edit backup`, `verify`, `erase` and `compact`: keeping a memory, and forgetting."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from semedit.cli.opening import open_memory, open_store
from semedit.cli.tables import edit_fields, print_json
from semedit.memory.verify import Verification
from semedit.memory.verify import verify as verify_store


def backup(args: argparse.Namespace) -> int:
    """Writes the memory to another file."""
    store = open_store(args)
    store.backup(args.file)
    if args.json:
        print_json({"file": args.file})
    else:
        print(f"wrote {store.location} to {args.file}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Says what is wrong with a memory; 1 where anything is."""
    # an EditMemory would refuse to open where vectors are missing
    store = open_store(args)
    found = verify_store(store)
    if args.json:
        print_json(asdict(found))
    else:
        for problem in found.problems:
            print(problem)
        print(f"{store.location}: {_summary(found)}")
    return 1 if found.problems else 0


def erase(args: argparse.Namespace) -> int:
    """Forgets what an edit said."""
    edit = open_memory(args).erase(args.id, author=args.author)
    if args.json:
        print_json(edit_fields(edit))
    else:
        print(f"erased {edit.id} (revision {edit.revision}); semedit edit history {edit.id} shows what is left")
    return 0


def compact(args: argparse.Namespace) -> int:
    """Drops what no active edit needs."""
    dropped = open_memory(args).compact()
    if args.json:
        print_json(dropped._asdict())
    else:
        print(f"dropped {dropped.vectors:,} vectors and {dropped.learned:,} learned values, {dropped.bytes:,} bytes")
    return 0


def _summary(found: Verification) -> str:
    counts = (
        f"{found.revisions:,} revisions, {found.edits:,} active edits, {found.vectors:,} vectors and "
        f"{found.learned:,} learned values"
    )
    if not found.problems:
        return f"{counts} are all there and as they were written"
    problems = len(found.problems)
    return f"{problems:,} problem{'' if problems == 1 else 's'} among {counts}"

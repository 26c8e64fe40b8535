"""What undoing brings back."""

from __future__ import annotations

from dataclasses import replace

from semedit.edits import Edit
from semedit.errors import NothingToUndoError
from semedit.memory.store import EditStore


def undoable(store: EditStore) -> list[Edit]:
    """What the edits of the last change that is not undone were before it, but for those that are erased.

    Raises:
        NothingToUndoError: every change is undone.
    """
    undone = 0
    for change, is_undo in store.changes_backwards():
        if is_undo:
            undone += 1
        elif undone:
            undone -= 1
        else:
            # of several revisions of an edit in one change, the first says what was before
            first: dict[str, Edit] = {}
            for edit in store.change(change):
                first.setdefault(edit.id, edit)
            newest = store.newest(first)
            return [_before(store, edit) for id, edit in first.items() if newest[id].action != "erase"]
    raise NothingToUndoError("there is no change left to undo")


def _before(store: EditStore, edit: Edit) -> Edit:
    if not edit.previous:
        return replace(edit, active=False)
    return next(earlier for earlier in store.history(edit.id) if earlier.revision == edit.previous)

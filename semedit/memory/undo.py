"""What undoing brings back."""

from __future__ import annotations

from dataclasses import replace

from semedit.edits import Edit
from semedit.errors import NothingToUndoError
from semedit.memory.store import EditStore


def undoable(store: EditStore) -> list[Edit]:
    """What the edits of the last change that is not undone were before it.

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
            # a bulk change may hold several revisions of an edit
            return [_before(store, id, change) for id in dict.fromkeys(e.id for e in store.change(change))]
    raise NothingToUndoError("there is no change left to undo")


def _before(store: EditStore, id: str, change: int) -> Edit:
    history = store.history(id)
    earlier = [edit for edit in history if edit.revision < change]
    return earlier[-1] if earlier else replace(history[0], active=False)

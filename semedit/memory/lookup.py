"""One edit by its id, or what is wrong with the id."""

from __future__ import annotations

from semedit.edits import Edit
from semedit.errors import EditNotFoundError, EditRetiredError
from semedit.memory.store import EditStore


def newest(store: EditStore, id: str) -> Edit:
    """The newest revision of an edit, active or not.

    Raises:
        EditNotFoundError: there is none.
    """
    try:
        found = store.newest([id])
    except UnicodeEncodeError:  # a character that is no text, so no edit has this id
        found = {}
    if id not in found:
        raise EditNotFoundError(f"no edit has the id {id!r}; `list()` or `semedit edit ls` shows those there are")
    return found[id]


def active(store: EditStore, id: str) -> Edit:
    """The newest revision of an active edit.

    Raises:
        EditNotFoundError: no edit has this id.
        EditRetiredError: it is not active any more.
    """
    edit = newest(store, id)
    if edit.action == "erase":
        raise EditRetiredError(f"edit {id!r} was erased (revision {edit.revision}); add a new one")
    if not edit.active:
        raise EditRetiredError(
            f"edit {id!r} is not in force (revision {edit.revision}: {edit.action}); undo that, or add a new one"
        )
    return edit

"""What adding edits means for the edits that are there."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace

from semedit.edits import Edit
from semedit.errors import DuplicateEditError


class Additions:
    """Decides what adding edits one after another means, as revisions.

    Args:
        edits: the newest revision of each edit, by id.
        by_prompt: the id of each active edit, by its prompt's key.
        revisions: takes what is decided.
    """

    def __init__(self, edits: dict[str, Edit], by_prompt: dict[tuple[str, str], str], revisions: list[Edit]) -> None:
        # what this change does lies over what is there, which may be large
        self.edits: ChainMap[str, Edit] = ChainMap({}, edits)
        self.by_prompt: ChainMap[tuple[str, str], str] = ChainMap({}, by_prompt)
        self.revisions = revisions

    def add(self, edit: Edit) -> Edit:
        """The edit with its outcome, or the edit that already says the same."""
        old_id = self.by_prompt.get(prompt_key(edit))
        old = self.edits[old_id] if old_id is not None else None
        if old is not None and _content(old) == _content(edit):
            return replace(old, outcome="unchanged")
        if edit.id in self.edits:
            raise DuplicateEditError(f"an edit with the id {edit.id!r} exists already; update it or choose another id")
        if old is not None:
            self.revisions.append(replace(old, active=False, action="supersede", author=edit.author))
            self.edits[old.id] = self.revisions[-1]
        edit = replace(edit, active=True, action="add", outcome="added" if old is None else "superseded")
        self.revisions.append(edit)
        self.edits[edit.id] = edit
        self.by_prompt[prompt_key(edit)] = edit.id
        return edit


def prompt_key(edit: Edit) -> tuple[str, str]:
    """What two edits must share to have the same prompt: case and white space do not tell them apart."""
    return edit.namespace, " ".join(edit.prompt.split()).casefold()


def _content(edit: Edit) -> Edit:
    """The edit without what every revision and every adding has of its own."""
    return replace(
        edit, id="", prompt="", author=None, active=True, action="add", revision=0, change=0, time=None, outcome=None
    )

"""What adding edits means for the edits that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone

from semedit.edits import Edit
from semedit.errors import DuplicateEditError
from semedit.memory.store import PromptKey, prompt_key


class Additions:
    """Decides what adding edits one after another means, as revisions.

    Args:
        there: the newest revisions of edits that the new ones may have to do with.
        holding: the active edit at each prompt of the new ones that has one.

    Attributes:
        revisions: what is decided.
    """

    def __init__(self, there: Iterable[Edit], holding: Mapping[PromptKey, Edit]) -> None:
        self.revisions: list[Edit] = []
        self._edits = {edit.id: edit for edit in there}
        self._holding = dict(holding)

    def add(self, edit: Edit) -> Edit:
        """The edit with its outcome, or the edit that already says the same."""
        old = self._holding.get(prompt_key(edit))
        if old is not None and _content(old) == _content(edit):
            return replace(old, outcome="unchanged")
        same = self._edits.get(edit.id)
        if same is not None:
            there = "exists already; update it"
            if not same.active:
                there = f"is no longer in force (revision {same.revision}: {same.action}); undo that"
            raise DuplicateEditError(f"an edit with the id {edit.id!r} {there}, or choose another id", edit.id)
        if old is not None:
            self._check_gap(old, edit)
            self.revisions.append(replace(old, active=False, action="supersede", author=edit.author))
            self._edits[old.id] = self.revisions[-1]
        edit = replace(edit, active=True, action="add", outcome="added" if old is None else "superseded")
        self.revisions.append(edit)
        self._edits[edit.id] = self._holding[prompt_key(edit)] = edit
        return edit

    def _check_gap(self, old: Edit, edit: Edit) -> None:
        """Raises DuplicateEditError where the old edit would give way to one that is not in force yet."""
        now = datetime.now(timezone.utc)
        if edit.valid_from is not None and edit.valid_from > now and old.in_force(now):
            raise DuplicateEditError(
                f"edit {old.id!r} answers {edit.prompt!r} now and would give way at once, though the new one begins "
                f"only at {edit.valid_from.isoformat()}; give the old one that moment as valid_until, and the new one "
                "a prompt in other words",
                edit.id,
            )


def _content(edit: Edit) -> Edit:
    """The edit without what every revision and every adding has of its own."""
    return replace(
        edit,
        id="",
        prompt="",
        author=None,
        active=True,
        action="add",
        revision=0,
        change=0,
        previous=0,
        time=None,
        outcome=None,
    )

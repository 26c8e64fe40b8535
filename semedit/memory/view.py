"""What a process knows of a log: its edits and settings, and an index that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from semedit.edits import Edit
from semedit.errors import EncoderMismatchError
from semedit.memory.additions import prompt_key
from semedit.memory.encoder import Encoder
from semedit.memory.keys import KeyTable
from semedit.memory.store import EditStore, Head


class View:
    """The newest revisions of a log, as of the last `refresh`. Whoever uses it sees to locking.

    Args:
        store: the log.
        encoder: what made, or will make, its vectors.

    Attributes:
        edits: the newest revision of each edit, by id.
        by_prompt: the id of each active edit, by its prompt's key.
        keys: the active edits' keys and negatives.
    """

    def __init__(self, store: EditStore, encoder: Encoder) -> None:
        self._store = store
        self._encoder = encoder
        self._head = Head(0, 0, 0)
        self._forget()

    def refresh(self) -> None:
        """Catches up with the log.

        Raises:
            EncoderMismatchError: its vectors come from another encoder.
        """
        if self._store.head() == self._head:
            return
        try:
            with self._store.snapshot():
                head = self._store.head()
                if head.epoch != self._head.epoch:
                    self._forget()
                    self._check_encoder()
                if head.settings != self._head.settings:
                    self._settings.clear()
                self._apply(self._store.changes_since(self._head.revision))
        except BaseException:
            # half caught up, the next call could not go on from here: let it begin anew
            self._forget()
            raise
        self._head = head

    def setting(self, name: str) -> str | None:
        """The value that the log keeps under a name, or None."""
        if name not in self._settings:
            self._settings[name] = self._store.setting(name)
        return self._settings[name]

    def _forget(self) -> None:
        self.edits: dict[str, Edit] = {}
        self.by_prompt: dict[tuple[str, str], str] = {}
        self.keys = KeyTable(self._encoder.dim)
        self._settings: dict[str, str | None] = {}
        self._head = Head(0, 0, 0)

    def _check_encoder(self) -> None:
        made_by = self._store.encoder()
        if made_by not in (None, self._encoder.fingerprint):
            raise EncoderMismatchError(
                f"the vectors of {self._store.location} were made by {made_by}, not by {self._encoder.fingerprint}; "
                f"open it with that encoder, or make them anew: semedit edit reembed --memory {self._store.location}"
            )

    def _apply(self, changes: Sequence[Edit]) -> None:
        newest = {edit.id: edit for edit in changes}
        for edit in newest.values():
            old = self.edits.get(edit.id)
            if old is not None and old.active and self.by_prompt.get(prompt_key(old)) == edit.id:
                del self.by_prompt[prompt_key(old)]
        for edit in newest.values():
            self.edits[edit.id] = edit
            if edit.active:
                self.by_prompt[prompt_key(edit)] = edit.id
        self.keys.put(newest.values(), self._store.vectors)

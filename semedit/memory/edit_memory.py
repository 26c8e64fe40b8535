"""The edit memory: what people call to add, change, undo and find edits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semedit.edits import Candidate, Edit
from semedit.errors import DuplicateEditError, EditConflictWarning
from semedit.memory.additions import Additions
from semedit.memory.checks import (
    EDITABLE,
    changed,
    check_author,
    check_edit,
    check_names,
    check_search,
    new_id,
    read_jsonl,
    write_jsonl,
)
from semedit.memory.conflicts import conflict_of
from semedit.memory.encoder import Encoder, SentenceEncoder, Vectors
from semedit.memory.erasure import Compacted, compact, erase
from semedit.memory.lookup import active, newest
from semedit.memory.opening import open_store
from semedit.memory.snapshot import snapshot_of
from semedit.memory.store import EditStore, prompt_key
from semedit.memory.turns import giving_way, let_go
from semedit.memory.undo import undoable
from semedit.memory.verify import Verification, verify
from semedit.memory.view import View
from semedit.memory.writing import Changes
from semedit.scope.base import ScopeClassifier

# named before a method called `list` hides the builtin
Edits = list[Edit]
Candidates = list[Candidate]

# how many neighbours of a new edit are judged for a conflict
_NEIGHBOURS = 8

_disabled: ContextVar[frozenset[int]] = ContextVar("semedit_disabled", default=frozenset())


class EditMemory:
    """A durable log of edits, an encoder, and an index that follows the log.

    Every call first catches up with the log, so that the edits of other processes are seen; a search that would have
    to wait for a large change goes on with the edits as they were before it. Safe to use from several threads, and
    none waits for another's search, or while texts are encoded.

    Args:
        store: a store, or what `open_store` reads: the path of a SQLite file, or the URL of a PostgreSQL database;
            None keeps the edits in this process's memory alone.
        encoder: None takes all-MiniLM-L6-v2 as installed with semedit.
        scope: what tells `add` whether a new edit is in the scope of another; with None, as it is until `wrap` gives
            its own, nothing is told.

    Attributes:
        store, encoder, scope: as above.

    Raises:
        StoreError: the store cannot be opened.
        EncoderMismatchError: its vectors come from another encoder.
    """

    def __init__(
        self,
        store: EditStore | str | Path | None = None,
        encoder: Encoder | None = None,
        scope: ScopeClassifier | None = None,
    ) -> None:
        self.store: EditStore = open_store(store) if store is None or isinstance(store, (str, Path)) else store
        self.encoder: Encoder = encoder or SentenceEncoder()
        self.scope = scope
        self._view = View(self.store, self.encoder, snapshot_of(self.store, self.encoder))
        self._changes = Changes(self.store, self.encoder, self._view)
        self._view.refresh()

    @property
    def staleness(self) -> float:
        """For how many seconds edits of other processes may have gone unseen; 0.0 while the store can be reached."""
        return self.store.staleness

    def close(self) -> None:
        """Finishes what is done in the background, and lets go of the store."""
        try:
            self._view.close()
        finally:
            self.store.close()

    # --- changing edits

    def add(
        self,
        prompt: str,
        target: str,
        *,
        paraphrases: Sequence[str] = (),
        negatives: Sequence[str] = (),
        namespace: str = "default",
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        override: Literal["verbatim"] | None = None,
        source: str | None = None,
        author: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Edit:
        """Adds one edit; it is durable and in force when the call returns.

        Returns:
            The edit. Its `outcome` says what happened: `"added"`; `"superseded"` where an active edit with the same
            prompt in this namespace gave way to it; `"unchanged"` where that edit already says the same, and is
            given back.

        Warns:
            EditConflictWarning: its prompt is in the scope of an active edit of this namespace with another target.

        Raises:
            InvalidEditError: a field is not what it must be.
            DuplicateEditError: another edit has this id; or one with this prompt is in force, and would leave a gap
                until the new one's `valid_from`.
            StoreError: it could not be written, and nothing was changed unless the message says otherwise.
        """
        edit = Edit(
            id=new_id() if id is None else id,
            prompt=prompt,
            target=target,
            paraphrases=paraphrases,  # type: ignore[arg-type]  # check_edit makes tuples of both
            negatives=negatives,  # type: ignore[arg-type]
            namespace=namespace,
            valid_from=valid_from,
            valid_until=valid_until,
            override=override,
            source=source,
            author=author,
            metadata=metadata or {},
        )
        [added] = self.add_many([edit])
        if self.scope is not None and added.outcome != "unchanged":
            conflict = conflict_of(added, self._near(added), self.scope)
            if conflict is not None:
                warnings.warn(conflict, EditConflictWarning, stacklevel=2)
        return added

    @giving_way()
    def add_many(self, edits: Iterable[Edit], *, progress: bool = False) -> Edits:
        """Adds edits as one change, all or none, encoded in batches; as `add` for each, in their order.

        Conflicts of their prompts with the scopes of other edits are not looked for.
        """
        checked = [check_edit(edit) for edit in edits]
        planned: Edits = []

        def decide() -> Edits:
            holding = self.store.holding(map(prompt_key, checked))
            there = self.store.newest(edit.id for edit in checked)
            plan = Additions([*there.values(), *holding.values()], holding)
            planned[:] = map(plan.add, checked)
            return plan.revisions

        revisions = self._changes.write(decide, [text for edit in checked for text in edit.texts], progress)
        written = {(edit.id, edit.active): edit for edit in revisions}
        added = [replace(written.get((edit.id, True), edit), outcome=edit.outcome) for edit in planned]
        written.clear()
        let_go(checked, planned, revisions)
        return added

    def update(
        self,
        id: str,
        *,
        author: str | None = None,
        more_paraphrases: Sequence[str] = (),
        more_negatives: Sequence[str] = (),
        **changes: Any,
    ) -> Edit:
        """Changes fields of an active edit; the old revision stays in its history.

        Args:
            id: the edit.
            author: who changes it.
            more_paraphrases: what is added to those there are, also while others add to them.
            more_negatives: likewise.
            changes: new values for `prompt`, `target`, `paraphrases`, `negatives`, `namespace`, `valid_from`,
                `valid_until`, `override`, `source` or `metadata`.

        Returns:
            The edit as it is now; where nothing differs, no revision is written.
        """
        check_names(changes, EDITABLE)
        check_author(author)
        more = {"paraphrases": more_paraphrases, "negatives": more_negatives}
        new = changed(active(self.store, id), changes, more)

        def decide() -> Edits:
            current = active(self.store, id)
            new = changed(current, changes, more)
            other = self.store.holding([prompt_key(new)]).get(prompt_key(new), current)
            if other.id != id:
                raise DuplicateEditError(
                    f"edit {other.id!r} has this prompt already; retire it or update it instead", id
                )
            return [] if new == current else [replace(new, action="update", author=author)]

        return (self._changes.write(decide, new.texts) or [self.get(id)])[0]

    def add_negative(self, id: str, text: str, *, author: str | None = None) -> Edit:
        """Keeps an edit from firing on `text` and on what is at least as near to it as to the edit."""
        check_author(author)
        check_edit(replace(active(self.store, id), negatives=(text,)))

        def decide() -> Edits:
            edit = active(self.store, id)
            if text in edit.negatives:
                return []
            return [replace(edit, negatives=(*edit.negatives, text), action="negative", author=author)]

        return (self._changes.write(decide, [text]) or [self.get(id)])[0]

    def retire(self, id: str, *, author: str | None = None) -> Edit:
        """Takes an edit out of force; its history stays."""
        check_author(author)
        [retired] = self._changes.write(
            lambda: [replace(active(self.store, id), active=False, action="retire", author=author)]
        )
        return retired

    def undo(self, *, author: str | None = None) -> Edits:
        """Takes back the last change that is not taken back yet, by new revisions; says what they are.

        Raises:
            NothingToUndoError: every change is taken back.
        """
        check_author(author)
        texts = [text for edit in undoable(self.store) if edit.active for text in edit.texts]
        # another process may have made or undone a change meanwhile
        return self._changes.write(
            lambda: [replace(edit, action="undo", author=author) for edit in undoable(self.store)], texts
        )

    # --- reading edits

    def get(self, id: str) -> Edit:
        """The newest revision of an edit, active or not.

        Raises:
            EditNotFoundError: there is none.
        """
        self._view.refresh_for_query()
        return newest(self.store, id)

    def list(self, *, namespace: str | None = None, include_retired: bool = False) -> Edits:
        """The newest revision of each active edit, oldest edit first; of all edits, or of one namespace."""
        self._view.refresh_for_query()
        with self.store.snapshot():
            return list(self.store.edits(namespace, include_retired))

    def history(self, id: str) -> Edits:
        """All revisions of an edit, oldest first."""
        self.get(id)
        return self.store.history(id)

    def search(self, query: str, *, k: int = 5, namespaces: Sequence[str] | None = None) -> Candidates:
        """The k edits nearest to a text, whatever their scope, best first."""
        return self.nearest([query], k=k, namespaces=namespaces)[0]

    def nearest(
        self, queries: Sequence[str], *, k: int, namespaces: Sequence[str] | None = None
    ) -> tuple[Candidates, ...]:
        """The k edits in force nearest to each query, best first.

        Args:
            queries: texts.
            k: how many.
            namespaces: where to look; None looks in `"default"` alone. An unknown namespace has no edits.

        Raises:
            InvalidQueryError: a query is no text, or `namespaces` no list.
        """
        check_search(queries, namespaces)
        if not self.holds_any(namespaces):
            return tuple([] for _ in queries)
        names = ("default",) if namespaces is None else tuple(namespaces)
        return self._nearest(self.encoder.encode(queries), k, names)

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """The cosines of pairs of texts, `(pairs,)`; a text of an edit in the memory is not encoded again."""
        vectors = self._changes.vectors(text for pair in pairs for text in pair)
        return np.array([vectors[one] @ vectors[other] for one, other in pairs], np.float32)

    def count(self, namespaces: Sequence[str] | None = None) -> int:
        """How many active edits there are in these namespaces; None counts `"default"` alone."""
        self._view.refresh_for_query()
        return self._view.state.count(("default",) if namespaces is None else namespaces)

    def holds_any(self, namespaces: Sequence[str] | None = None) -> bool:
        """Whether there is an edit to find in these namespaces, now and in this thread."""
        self._view.refresh_for_query()
        names = ("default",) if namespaces is None else namespaces
        return id(self) not in _disabled.get() and self._view.state.holds_any(names)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """No edit is in force inside, in this thread or task."""
        token = _disabled.set(_disabled.get() | {id(self)})
        try:
            yield
        finally:
            _disabled.reset(token)

    # --- files

    def export(self, path: str | Path) -> int:
        """Writes the active edits to a JSON-lines file; says how many."""
        return write_jsonl(path, self.list())

    @giving_way()
    def import_(self, path: str | Path, *, author: str | None = None, progress: bool = False) -> Edits:
        """Adds the edits of a JSON-lines file as one change, all or none, as `add_many`; each says its outcome."""
        lines = read_jsonl(path)
        try:
            return self.add_many([replace(edit, author=author) for edit in lines.values()], progress=progress)
        except DuplicateEditError as error:
            line = max(number for number, edit in lines.items() if edit.id == error.id)
            raise DuplicateEditError(f"{path}, line {line}: {error}; nothing was imported", error.id) from error

    # --- keeping and forgetting

    def backup(self, path: str | Path) -> None:
        """Writes the memory, as it is at one moment, to a new file, while others change it; see `EditStore.backup`."""
        self.store.backup(path)

    def verify(self) -> Verification:
        """Reads the whole memory and says whether anything is missing or is not what was written."""
        return verify(self.store)

    def erase(self, id: str, *, author: str | None = None) -> Edit:
        """Forgets what an edit ever said, its vectors and learned values; who changed it when stays in its history.

        When the call returns, they are gone from the files of the store (see its `scrub`) and of the index; other
        processes forget them at their next call. Backups and exports are not reached. The store is written anew; where
        that fails, call it again.

        Raises:
            EditNotFoundError: no edit has this id.
            StoreError: it could not be written.
        """
        check_author(author)
        erased = erase(self.store, self.get(id).id, author)
        self._view.refresh()
        self._view.discard_saved(erased.revision)
        self.store.scrub()
        return erased

    def compact(self) -> Compacted:
        """Drops the vectors and learned values that no active edit needs; says how many, and how many bytes.

        Edits and their history stay; what an undo brings back is made anew.
        """
        dropped = compact(self.store)
        self.store.scrub()
        return dropped

    # --- settings

    def setting(self, name: str) -> str | None:
        """The value that is kept with the edits under a name, as the last process to write it left it, or None."""
        self._view.refresh_for_query()
        return self._view.setting(name)

    def set_settings(self, settings: Mapping[str, str]) -> None:
        """Keeps values under names, all or none; other processes see them at their next call."""
        with self.store.transaction() as writer:
            for name, value in settings.items():
                writer.put_setting(name, value)

    # --- what they share

    def _nearest(self, vectors: Vectors, k: int, namespaces: Sequence[str]) -> tuple[Candidates, ...]:
        """The k edits in force nearest to each of `(queries, dim)` vectors."""
        self._view.refresh_for_query()
        return self._view.state.nearest(vectors, k, namespaces, datetime.now(timezone.utc))

    def _near(self, edit: Edit) -> Candidates:
        """The edits near to the prompt of an edit that was just written."""
        [vector] = self._changes.vectors([edit.prompt]).values()
        return self._nearest(vector[None], _NEIGHBOURS, [edit.namespace])[0]

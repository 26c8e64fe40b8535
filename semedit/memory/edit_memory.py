"""The edit memory: what people call to add, change, undo and find edits."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semedit.edits import Candidate, Edit
from semedit.errors import (
    DuplicateEditError,
    EditConflictWarning,
    EditNotFoundError,
    EditRetiredError,
)
from semedit.memory.additions import Additions, prompt_key
from semedit.memory.checks import (
    EDITABLE,
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
from semedit.memory.sqlite import SQLiteStore
from semedit.memory.store import EditStore
from semedit.memory.undo import undoable
from semedit.memory.view import View
from semedit.scope.base import ScopeClassifier

# named before a method called `list` hides the builtin
Edits = list[Edit]
Candidates = list[Candidate]

# how many neighbours of a new edit are judged for a conflict
_NEIGHBOURS = 8

_disabled: ContextVar[frozenset[int]] = ContextVar("semedit_disabled", default=frozenset())


class EditMemory:
    """A durable log of edits, an encoder, and an index that follows the log.

    Every call first catches up with the log, so that the edits of other processes are seen. Safe to use from several
    threads.

    Args:
        store: a store, or the path of a SQLite file; None keeps the edits in this process's memory alone.
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
        self.store: EditStore = SQLiteStore(store) if store is None or isinstance(store, (str, Path)) else store
        self.encoder: Encoder = encoder or SentenceEncoder()
        self.scope = scope
        self._lock = threading.RLock()
        self._view = View(self.store, self.encoder)
        self._refresh()

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
            DuplicateEditError: another edit has this id.
            StoreError: it could not be written, and nothing was changed.
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

    def add_many(self, edits: Iterable[Edit], *, progress: bool = False) -> Edits:
        """Adds edits as one change, all or none, encoded in batches; as `add` for each, in their order.

        Conflicts of their prompts with the scopes of other edits are not looked for.
        """
        checked = [check_edit(edit) for edit in edits]
        with self._writing([text for edit in checked for text in edit.texts], progress) as revisions:
            plan = Additions(self._view.edits, self._view.by_prompt, revisions)
            planned = [plan.add(edit) for edit in checked]
        written = {(edit.id, edit.active): edit for edit in revisions}
        return [replace(written.get((edit.id, True), edit), outcome=edit.outcome) for edit in planned]

    def update(self, id: str, *, author: str | None = None, **changes: Any) -> Edit:
        """Changes fields of an active edit; the old revision stays in its history.

        Args:
            id: the edit.
            author: who changes it.
            changes: new values for `prompt`, `target`, `paraphrases`, `negatives`, `namespace`, `valid_from`,
                `valid_until`, `override`, `source` or `metadata`.

        Returns:
            The edit as it is now; where nothing differs, no revision is written.
        """
        check_names(changes, EDITABLE)
        check_author(author)
        new = check_edit(replace(self._active(id), **changes))
        with self._writing(new.texts) as revisions:
            current = self._active(id)
            new = check_edit(replace(current, **changes))
            other = self._view.by_prompt.get(prompt_key(new), id)
            if other != id:
                raise DuplicateEditError(f"edit {other!r} has this prompt already; retire it or update it instead")
            if new == current:
                return current
            revisions.append(replace(new, action="update", author=author))
        return revisions[0]

    def add_negative(self, id: str, text: str, *, author: str | None = None) -> Edit:
        """Keeps an edit from firing on `text` and on what is at least as near to it as to the edit."""
        check_author(author)
        check_edit(replace(self._active(id), negatives=(text,)))
        with self._writing([text]) as revisions:
            edit = self._active(id)
            if text in edit.negatives:
                return edit
            revisions.append(replace(edit, negatives=(*edit.negatives, text), action="negative", author=author))
        return revisions[0]

    def retire(self, id: str, *, author: str | None = None) -> Edit:
        """Takes an edit out of force; its history stays."""
        check_author(author)
        with self._writing() as revisions:
            revisions.append(replace(self._active(id), active=False, action="retire", author=author))
        return revisions[0]

    def undo(self, *, author: str | None = None) -> Edits:
        """Takes back the last change that is not taken back yet, by new revisions; says what they are.

        Raises:
            NothingToUndoError: every change is taken back.
        """
        check_author(author)
        before = undoable(self.store)
        texts = [text for edit in before for text in edit.texts]
        with self._writing(texts) as revisions:
            # another process may have made or undone a change meanwhile; what it needs is then encoded here
            revisions += [replace(edit, action="undo", author=author) for edit in undoable(self.store)]
        return revisions

    # --- reading edits

    def get(self, id: str) -> Edit:
        """The newest revision of an edit, active or not.

        Raises:
            EditNotFoundError: there is none.
        """
        with self._lock:
            self._refresh()
            if id not in self._view.edits:
                raise EditNotFoundError(
                    f"no edit has the id {id!r}; `list()` or `semedit edit ls` shows those there are"
                )
            return self._view.edits[id]

    def list(self, *, namespace: str | None = None, include_retired: bool = False) -> Edits:
        """The newest revision of each active edit, oldest edit first; of all edits, or of one namespace."""
        with self._lock:
            self._refresh()
            return [
                edit
                for edit in self._view.edits.values()
                if (edit.active or include_retired) and namespace in (None, edit.namespace)
            ]

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
        # without the lock: others may search and write meanwhile
        return self._nearest(self.encoder.encode(queries), k, names)

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """The cosines of pairs of texts, `(pairs,)`; each text is one of an edit in the memory: none is encoded."""
        vectors = self.store.vectors(text for pair in pairs for text in pair)
        return np.array([vectors[one] @ vectors[other] for one, other in pairs], np.float32)

    def count(self, namespaces: Sequence[str] | None = None) -> int:
        """How many active edits there are in these namespaces; None counts `"default"` alone."""
        with self._lock:
            self._refresh()
            return self._view.keys.count(("default",) if namespaces is None else namespaces)

    def holds_any(self, namespaces: Sequence[str] | None = None) -> bool:
        """Whether there is an edit to find in these namespaces, now and in this thread."""
        with self._lock:
            self._refresh()
            names = ("default",) if namespaces is None else namespaces
            return id(self) not in _disabled.get() and self._view.keys.holds_any(names)

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

    def import_(self, path: str | Path, *, author: str | None = None, progress: bool = False) -> Edits:
        """Adds the edits of a JSON-lines file as one change, all or none, as `add_many`; each says its outcome."""
        edits = [replace(edit, author=author) for edit in read_jsonl(path)]
        return self.add_many(edits, progress=progress)

    # --- settings

    def setting(self, name: str) -> str | None:
        """The value that is kept with the edits under a name, as the last process to write it left it, or None."""
        with self._lock:
            self._refresh()
            return self._view.setting(name)

    def set_setting(self, name: str, value: str) -> None:
        """Keeps a value under a name; other processes see it at their next call."""
        with self._lock, self.store.transaction() as writer:
            writer.put_setting(name, value)

    # --- following the log

    def _refresh(self) -> None:
        """Catches up with the log."""
        with self._lock:
            self._view.refresh()

    @contextlib.contextmanager
    def _writing(self, texts: Iterable[str] = (), progress: bool = False) -> Iterator[Edits]:
        """Collects revisions and writes them as one change, with the vectors of their texts.

        What is appended to the list that it yields stands there as it was written when the block is left.
        """
        ready = self._encode_missing(texts, progress)
        revisions: Edits = []
        with self._lock:
            with self.store.transaction() as writer:
                # holding the log, this process knows all there is to know
                self._refresh()
                if self.store.encoder() is None:
                    writer.replace_vectors(self.encoder.fingerprint, [], np.zeros((0, self.encoder.dim), np.float32))
                yield revisions
                missing = self._encode_missing(text for edit in revisions for text in edit.texts if text not in ready)
                ready.update(missing)
                if ready:
                    writer.put_vectors(list(ready), np.stack(list(ready.values())))
                revisions[:] = writer.append(revisions)
            self._refresh()

    def _encode_missing(self, texts: Iterable[str], progress: bool = False) -> dict[str, Vectors]:
        """Vectors of the texts that the store has none of."""
        wanted = list(dict.fromkeys(texts))
        kept = self.store.vectors(wanted)
        missing = [text for text in wanted if text not in kept]
        if not missing:
            return {}
        return dict(zip(missing, self.encoder.encode(missing, progress=progress), strict=True))

    def _nearest(self, vectors: Vectors, k: int, namespaces: Sequence[str]) -> tuple[Candidates, ...]:
        """The k edits in force nearest to each of `(queries, dim)` vectors."""
        with self._lock:
            self._refresh()
            now = datetime.now(timezone.utc)
            found = self._view.keys.nearest(vectors, k, namespaces, lambda id: self._view.edits[id].in_force(now))
            return tuple(
                [
                    Candidate(self._view.edits[id], key, cosine, self._view.keys.to_negatives(id, vector))
                    for id, key, cosine in row
                ]
                for row, vector in zip(found, vectors, strict=True)
            )

    def _near(self, edit: Edit) -> Candidates:
        """The edits near to the prompt of an edit that was just written."""
        [vector] = self.store.vectors([edit.prompt]).values()
        return self._nearest(vector[None], _NEIGHBOURS, [edit.namespace])[0]

    def _active(self, id: str) -> Edit:
        edit = self.get(id)
        if not edit.active:
            raise EditRetiredError(f"edit {id!r} was retired (revision {edit.revision}); add it again or undo that")
        return edit


def reembed(store: EditStore, encoder: Encoder, *, progress: bool = False) -> int:
    """Makes all vectors of a store anew with another encoder, all or none; says how many texts there are.

    Other processes that have the store open with the old encoder are refused at their next call.
    """

    def all_texts() -> list[str]:
        newest = {edit.id: edit for edit in store.changes_since(0)}
        return list(dict.fromkeys(text for edit in newest.values() for text in edit.texts))

    texts = all_texts()
    vectors = dict(zip(texts, encoder.encode(texts, progress=progress), strict=True)) if texts else {}
    with store.transaction() as writer:
        late = [text for text in all_texts() if text not in vectors]
        if late:
            vectors.update(zip(late, encoder.encode(late), strict=True))
        stacked = np.stack(list(vectors.values())) if vectors else np.zeros((0, encoder.dim), np.float32)
        writer.replace_vectors(encoder.fingerprint, list(vectors), stacked)
    return len(vectors)

"""What a process knows of a store, and how it keeps up with it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from semedit.edits import Edit
from semedit.errors import EncoderMismatchError, StoreError, StoreUnreachableError
from semedit.memory.connections import weakly
from semedit.memory.encoder import Encoder
from semedit.memory.heap import give_back
from semedit.memory.index import APPROXIMATE_FROM
from semedit.memory.merging import large_run, merge, merge_small, purge, replaced
from semedit.memory.snapshot import Snapshot
from semedit.memory.state import Part, State
from semedit.memory.store import EditStore, Head, damaged
from semedit.memory.turns import giving_way

# how long a query waits for another thread that is catching up
_PATIENCE_SECONDS = 0.02
# how long an erasure waits for another process that is saving
_PATIENCE_OF_ERASURE_SECONDS = 60.0
# revisions: a query leaves more than so many to the thread in the background
_AT_ONCE = 1_000
# edits that are read, and become a part, at a time: enough for a part that is searched fast at once
_PORTION = APPROXIMATE_FROM


class View:
    """The active edits of a store as of some head, and its settings.

    The state is replaced as a whole, so that a search, which takes what is there, waits for nobody and sees no change
    half. Catching up costs what has changed. Merging large parts, catching up with large changes of others, and
    saving are done by a thread in the background, which is there only while it has something to do.

    Args:
        store: the log.
        encoder: what made, or will make, its vectors.
        snapshot: where the state is saved; None where it is not.

    Attributes:
        state: what searches look through.
    """

    def __init__(self, store: EditStore, encoder: Encoder, snapshot: Snapshot | None = None) -> None:
        self.state = State(Head(0, 0, 0))
        self._store = store
        self._encoder = encoder
        self._snapshot = snapshot
        self._settings: dict[str, str | None] = {}
        self._closed = False
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=weakly(self._begin))

    def _begin(self) -> None:
        # after a fork, no other thread is there, nor what it held
        self._changing = threading.RLock()  # held by whoever replaces the state
        self._starting = threading.Lock()
        self._worker: threading.Thread | None = None
        self._failure: BaseException | None = None

    def refresh(self) -> None:
        """Catches up with the store.

        Raises:
            EncoderMismatchError: its vectors come from another encoder.
            StoreError: it cannot be read.
        """
        with self._changing:
            self._catch_up()
        self._work()

    def refresh_for_query(self) -> None:
        """Catches up with the store where that takes no time that a query would notice.

        What takes longer is done in the background, and the state stays as it is meanwhile; also while the store
        cannot be reached.

        Raises:
            EncoderMismatchError: its vectors come from another encoder.
            StoreError: it cannot be read.
        """
        with contextlib.suppress(StoreUnreachableError):
            self._raise_failure()
            head = self._store.head()
            if head == self.state.head:
                return
            if self._behind(head) <= _AT_ONCE and self._changing.acquire(timeout=_PATIENCE_SECONDS):
                try:
                    self._catch_up()
                finally:
                    self._changing.release()
            self._work()

    def check_encoder(self) -> None:
        """Raises EncoderMismatchError where the store's vectors come from another encoder."""
        made_by = self._store.encoder()
        if made_by not in (None, self._encoder.fingerprint):
            raise EncoderMismatchError(
                f"the vectors of {self._store.location} were made by {made_by}, not by {self._encoder.fingerprint}; "
                f"open it with that encoder, or make them anew: semedit edit reembed --memory {self._store.location}"
            )

    def setting(self, name: str) -> str | None:
        """The value that the store keeps under a name, or None."""
        return self._settings.get(name)

    def discard_saved(self, revision: int) -> None:
        """Deletes what was saved before a revision, by whatever process.

        Raises:
            StoreError: it cannot be deleted.
        """
        if self._snapshot is not None:
            self._snapshot.discard_before(revision, patience=_PATIENCE_OF_ERASURE_SECONDS)

    def close(self) -> None:
        """Waits for what is being done in the background, and saves what has changed."""
        with self._starting:
            worker, was_closed, self._closed = self._worker, self._closed, True
        if worker is not None:
            worker.join()
        if self._snapshot is not None and not was_closed:
            self._snapshot.save(self.state)

    # --- catching up, while `_changing` is held

    def _catch_up(self) -> None:
        if self._store.head() == self.state.head:
            return
        with self._store.snapshot():
            head = self._store.head()
            state, since = self.state, self.state.head
            if head.epoch != since.epoch or head.revision < since.revision:
                self.check_encoder()
                saved = None if self._snapshot is None else self._snapshot.load(head)
                state = State(Head(0, head.epoch, 0)) if saved is None else saved
            if state.head.revision == 0:
                portions: Iterable[Sequence[Edit]] = self._all_edits()
            else:
                portions = self._changes(state.head.revision, head.revision)
            for portion in portions:
                state = state.changed(portion, self._store.vectors, self._encoder.dim)
                state = State(state.head, self._without_erased(merge_small(state.parts), portion))
            if head.settings != since.settings:
                names = [name for name, *_ in self._store.rows("settings")]
                self._settings = {name: self._store.setting(name) for name in names}
        self.state = State(head, state.parts)

    def _all_edits(self) -> Iterator[list[Edit]]:
        # little beside the rest: what is lost from an index of the database is missed by no reading
        for problem in self._store.damage():
            raise damaged(self._store.location, problem)
        portion: list[Edit] = []
        for edit in self._store.edits():
            portion.append(edit)
            if len(portion) == _PORTION:
                yield portion
                portion = []
        if portion:
            yield portion

    def _changes(self, since: int, until: int) -> Iterator[Sequence[Edit]]:
        while since < until:
            portion = self._store.changes_since(since, _PORTION)
            if not portion or portion[-1].revision != since + len(portion):
                raise damaged(self._store.location, f"a revision after {since} is missing")
            since = portion[-1].revision
            if since < until:
                # what changes again further on may have no vectors any more
                newest = self._store.newest(edit.id for edit in portion)
                portion = [
                    edit if edit.revision == newest[edit.id].revision else replace(edit, active=False)
                    for edit in portion
                ]
            yield portion

    def _without_erased(self, parts: tuple[Part, ...], portion: Sequence[Edit]) -> tuple[Part, ...]:
        """The parts without a byte of the edits that were erased."""
        erased = [edit for edit in portion if edit.action == "erase"]
        if not erased:
            return parts
        if self._snapshot is not None:
            with contextlib.suppress(StoreError):  # whoever erased has seen to it, or is told
                self._snapshot.discard_before(erased[-1].revision)
        revisions = [revision.revision for edit in erased for revision in self._store.history(edit.id)]
        return purge(parts, np.array(revisions, np.int64))

    def _behind(self, head: Head) -> int:
        """How many revisions are to be read."""
        return head.revision - (self.state.head.revision if head.epoch == self.state.head.epoch else 0)

    # --- in the background

    def _work(self) -> None:
        """Sees to it that a thread does what is to be done."""
        with self._starting:
            if self._worker is None and not self._closed and self._has_work():
                # no daemon: those are stopped in the middle of FAISS when the interpreter ends, which aborts it
                self._worker = threading.Thread(target=self._run, name="semedit memory")
                self._worker.start()

    def _run(self) -> None:
        try:
            with giving_way():
                while self._goes_on():
                    self._step()
                    give_back()
        except BaseException as error:  # whoever asks next is told
            with self._starting:
                self._worker, self._failure = None, error

    def _goes_on(self) -> bool:
        """Whether this thread, which is the worker, has more to do."""
        with self._starting:
            ending = self._closed or not threading.main_thread().is_alive()
            if ending or not self._has_work():
                self._worker = None
            return self._worker is not None

    def _has_work(self) -> bool:
        return (
            self._behind(self._store.head()) > _AT_ONCE
            or large_run(self.state.parts) is not None
            or (self._snapshot is not None and self._snapshot.is_due(self.state))
        )

    def _step(self) -> None:
        if self._behind(self._store.head()) > _AT_ONCE:
            with self._changing:
                self._catch_up()
        elif (run := large_run(self.state.parts)) is not None:
            new = merge(run)
            with self._changing:
                parts = replaced(self.state.parts, run, new)
                if parts is not None:
                    self.state = State(self.state.head, parts)
        elif self._snapshot is not None:
            self._snapshot.save(self.state)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

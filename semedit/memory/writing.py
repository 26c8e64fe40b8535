"""How a change is written: decided while the store is held, and encoded while it is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from semedit.edits import Edit
from semedit.errors import StoreUnreachableError
from semedit.memory.encoder import Encoder, Vectors
from semedit.memory.store import EditStore, Writer
from semedit.memory.turns import let_go
from semedit.memory.view import View

_VECTORS_AT_ONCE = 5_000


class Changes:
    """Writes changes to a store, with the vectors of their texts.

    Args:
        store: where to.
        encoder: makes the vectors.
        view: catches up with each change.
    """

    def __init__(self, store: EditStore, encoder: Encoder, view: View) -> None:
        self._store = store
        self._encoder = encoder
        self._view = view

    def write(self, decide: Callable[[], list[Edit]], texts: Iterable[str] = (), progress: bool = False) -> list[Edit]:
        """Writes one change, which is durable and in force on return.

        Args:
            decide: says what the revisions are. It is called while nobody else can write, more than once where it
                then names texts that have no vector; nothing is encoded meanwhile.
            texts: texts that it will name, as far as is known.
            progress: whether to show a bar while these are encoded.

        Returns:
            The revisions as they are in the log.
        """
        ready = self._encoded(self._missing(texts), progress)
        while True:
            with self._store.transaction() as writer:
                self._view.check_encoder()
                revisions = decide()
                named = [text for edit in revisions if edit.active for text in edit.texts if text not in ready]
                missing = self._missing(named)
                if not missing:
                    written = self._append(writer, revisions, ready)
                    break
            ready |= self._encoded(missing)
        let_go(revisions)
        with contextlib.suppress(StoreUnreachableError):  # what is written is durable, whether or not it is read now
            self._view.refresh()
        return written

    def vectors(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vector of each text: the store's, or made anew where it has none or cannot be reached."""
        wanted = list(dict.fromkeys(texts))
        vectors: dict[str, Vectors] = {}
        with contextlib.suppress(StoreUnreachableError):
            vectors.update(self._store.vectors(wanted))
        return vectors | self._encoded([text for text in wanted if text not in vectors])

    def _missing(self, texts: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(texts))
        kept = self._store.vectors(wanted)
        return [text for text in wanted if text not in kept]

    def _encoded(self, texts: Sequence[str], progress: bool = False) -> dict[str, Vectors]:
        if not texts:
            return {}
        return dict(zip(texts, self._encoder.encode(texts, progress=progress), strict=True))

    def _append(self, writer: Writer, revisions: Sequence[Edit], vectors: dict[str, Vectors]) -> list[Edit]:
        if not revisions:
            return []
        if self._store.encoder() is None:
            writer.replace_vectors(self._encoder.fingerprint, [], np.zeros((0, self._encoder.dim), np.float32))
        # an edit that was erased meanwhile may have had the others
        needed = dict.fromkeys(text for edit in revisions if edit.active for text in edit.texts)
        texts = [text for text in needed if text in vectors]
        for start in range(0, len(texts), _VECTORS_AT_ONCE):
            some = texts[start : start + _VECTORS_AT_ONCE]
            writer.put_vectors(some, np.stack([vectors[text] for text in some]))
        return writer.append(revisions)

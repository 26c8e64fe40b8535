"""Making the vectors of a store anew with another encoder."""

from __future__ import annotations

import numpy as np

from semedit.memory.encoder import Encoder, Vectors
from semedit.memory.store import EditStore


def reembed(store: EditStore, encoder: Encoder, *, progress: bool = False) -> int:
    """Makes the vectors of all active edits anew with another encoder, all or none; says how many texts there are.

    Other processes that have the store open with the old encoder are refused at their next call.
    """
    vectors: dict[str, Vectors] = {}
    while True:
        # nobody waits while texts are encoded: those that are written meanwhile get their turn
        missing = [text for text in _texts(store) if text not in vectors]
        if missing:
            vectors.update(zip(missing, encoder.encode(missing, progress=progress), strict=True))
        with store.transaction() as writer:
            texts = _texts(store)
            if all(text in vectors for text in texts):
                stacked = (
                    np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, encoder.dim), np.float32)
                )
                writer.replace_vectors(encoder.fingerprint, texts, stacked)
                return len(texts)


def _texts(store: EditStore) -> list[str]:
    return list(dict.fromkeys(text for edit in store.edits() for text in edit.texts))

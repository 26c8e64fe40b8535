"""What commands work with: the memory file, the encoder, the scope."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from semedit.errors import EncoderMismatchError, LoadError, StoreError
from semedit.memory import opening
from semedit.memory.edit_memory import EditMemory
from semedit.memory.encoder import SentenceEncoder, Vectors
from semedit.memory.store import EditStore
from semedit.scope.base import ScopeClassifier
from semedit.scope.similarity import SimilarityScope


def open_memory(args: argparse.Namespace, *, make: bool = False) -> EditMemory:
    """The memory of `--memory`, found with `--encoder`.

    Args:
        args: the command line; what is opened is closed with its `opened`, an `ExitStack`.
        make: whether to make the file where there is none; tables on a server are made anyway.

    Raises:
        StoreError: it cannot be opened, or is not there.
    """
    store = _store(args, make)
    memory = EditMemory(store, DeferredEncoder(store, args.encoder))
    args.opened.callback(memory.close)
    return memory


def open_store(args: argparse.Namespace) -> EditStore:
    """The log of `--memory`, as for `open_memory`."""
    store = _store(args, make=False)
    args.opened.callback(store.close)
    return store


def _store(args: argparse.Namespace, make: bool) -> EditStore:
    if not make and not opening.on_server(args.memory) and not Path(args.memory).exists():
        raise StoreError(
            f"there is no edit memory at {args.memory}; name another with --memory, or begin one: "
            "semedit edit add PROMPT TARGET"
        )
    return opening.open_store(args.memory)


class DeferredEncoder:
    """The encoder of a store's vectors, loaded when a text is to be encoded; much can be done without.

    Args:
        store: whose vectors they are; where it holds none, the encoder is loaded at once.
        name: the encoder's name or path; None takes the one installed with semedit.
    """

    def __init__(self, store: EditStore, name: str | None) -> None:
        self._location = store.location
        self._name = name
        with store.snapshot():
            made_by, kept = store.encoder(), next(store.rows("vectors"), None)
        self.fingerprint = made_by or self._loaded.fingerprint
        self.dim = self._loaded.dim if kept is None else len(kept[1]) // 4

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """`(texts, dim)` float32 rows of length 1.

        Raises:
            EncoderMismatchError: the encoder is another than the one that made the store's vectors.
        """
        if self._loaded.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"the vectors of {self._location} were made by {self.fingerprint}, not by "
                f"{self._loaded.fingerprint}; name that encoder with --encoder, or make them anew: "
                f"semedit edit reembed --memory {self._location}"
            )
        return self._loaded.encode(texts, progress=progress)

    @cached_property
    def _loaded(self) -> SentenceEncoder:
        return load_encoder(self._name)


def load_encoder(name: str | None) -> SentenceEncoder:
    """The encoder of that name or path; None gives the one installed with semedit."""
    from semedit.cli.loading import quieten  # brings transformers, which takes seconds and often is not needed

    quieten()
    try:
        return SentenceEncoder(name)
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot load the encoder {name}: {error}") from error


def scope_of(args: argparse.Namespace) -> ScopeClassifier:
    """The scope classifier of `--scope`, at `--threshold` where it is given.

    Raises:
        LoadError: it cannot be loaded.
    """
    if args.scope == "similarity":
        return SimilarityScope() if args.threshold is None else SimilarityScope(args.threshold)
    from semedit.cli.loading import quieten  # these bring torch and transformers, which not every command needs
    from semedit.scope.cross_encoder import CrossEncoderScope

    quieten()
    return CrossEncoderScope(args.scope, args.threshold)

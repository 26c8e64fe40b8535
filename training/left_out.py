"""What evaluation files ask, which is left out of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from facts import naming, read_records, subjects_of


class LeftOut:
    """What is not to be trained on.

    Args:
        files: evaluation files whose subjects are not to be named, and whose texts are not to be read.
        unseen: evaluation files whose texts are not to be read; their subjects may be named.
    """

    def __init__(self, files: Sequence[Path] = (), unseen: Sequence[Path] = ()) -> None:
        self.subjects = subjects_of(files)
        self.texts = texts_of([*files, *unseen])
        self._naming = naming(self.subjects)

    def has(self, *texts: str) -> bool:
        """Whether one of these texts stands in a file, as a whole."""
        return not self.texts.isdisjoint(map(normalised, texts))

    def names(self, *texts: str) -> bool:
        """Whether one of these texts names a subject."""
        return any(map(self._naming.search, texts))

    def allows(self, *texts: str) -> bool:
        """Whether none of these texts stands in a file or names a subject."""
        return not self.has(*texts) and not self.names(*texts)


def texts_of(files: Iterable[Path]) -> set[str]:
    """Every text of the records of these files, whatever its field, normalised."""
    return {normalised(text) for path in files for text in _strings(read_records(path))}


def normalised(text: str) -> str:
    """The text without regard to case and white space."""
    return " ".join(text.split()).casefold()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)

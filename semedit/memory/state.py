"""What a process knows of a log at one moment, searchable by any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from semedit.edits import Candidate, Edit
from semedit.memory.encoder import Vectors
from semedit.memory.segment import Mask, Numbers, Segment, microseconds
from semedit.memory.store import Head

VectorsOf = Callable[[Iterable[str]], Mapping[str, Vectors]]

_MASKS_KEPT = 100
_NEVER = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which keys of a part a search may find, and for how long that holds.

    Attributes:
        bitmap: a bit for each key; None where all may be found.
        count: how many may be found.
        since, until: microseconds since 1970; no edit comes into force or goes out of it from the first up to the
            second.
    """

    bitmap: npt.NDArray[np.uint8] | None
    count: int
    since: int
    until: int


class Part:
    """A segment, and which of its edits are still what they are there.

    Attributes:
        segment: the edits.
        alive: `(edits,)`: False where an edit has changed since, or is retired.
        sizes: `(names,)`: how many are alive in each of the segment's namespaces.
        keys: how many keys those have that are alive.
    """

    def __init__(self, segment: Segment, alive: Mask, sizes: Numbers, keys: int) -> None:
        self.segment = segment
        self.alive = alive
        self.sizes = sizes
        self.keys = keys
        self._allowed: dict[frozenset[str], Allowed] = {}

    @classmethod
    def of(cls, segment: Segment, alive: Mask | None = None) -> Part:
        """All edits of a segment, or those of a mask."""
        if alive is None:
            alive = np.ones(len(segment), np.bool_)
        sizes = np.bincount(segment.namespaces[alive], minlength=len(segment.names))
        return cls(segment, alive, sizes, int(np.diff(segment.keys)[alive].sum()))

    def without(self, revisions: Numbers) -> Part:
        """The part when these revisions are no longer the newest of their edits; the same where none is alive here."""
        segment = self.segment
        places = segment.places(revisions)
        places = places[self.alive[places]]
        if not len(places):
            return self
        alive = self.alive.copy()
        alive[places] = False
        gone = np.bincount(segment.namespaces[places], minlength=len(segment.names))
        keys = self.keys - int((segment.keys[places + 1] - segment.keys[places]).sum())
        return Part(segment, alive, self.sizes - gone, keys)

    def count(self, name: str) -> int:
        """How many edits of a namespace are alive."""
        place = self.segment.place_of.get(name)
        return 0 if place is None else int(self.sizes[place])

    def allowed(self, names: frozenset[str], now: int) -> Allowed:
        """Which keys may be found in these namespaces at a time."""
        allowed = self._allowed.get(names)
        if allowed is None or not allowed.since <= now < allowed.until:
            if len(self._allowed) >= _MASKS_KEPT:
                self._allowed.clear()
            allowed = self._allowed[names] = self._find_allowed(names, now)
        return allowed

    def nearest(self, vectors: Vectors, k: int, allowed: Allowed) -> list[list[tuple[float, int, int]]]:
        """For each of `(queries, dim)` vectors the k nearest edits: cosine, place, and number of the nearest key."""
        wanted = min(2 * k, allowed.count)
        while True:
            # an edit may hold several of the nearest keys: look further until k edits are found or no key is left
            cosines, keys = self.segment.index.search(vectors, wanted, allowed.bitmap, allowed.count)
            owners = self.segment.owners(keys)
            rows = [_firsts(*row) for row in zip(cosines.tolist(), owners.tolist(), keys.tolist(), strict=True)]
            if min(map(len, rows), default=k) >= k or wanted == allowed.count:
                return [row[:k] for row in rows]
            wanted = min(4 * wanted, allowed.count)

    def _find_allowed(self, names: frozenset[str], now: int) -> Allowed:
        segment = self.segment
        numbers = [segment.place_of[name] for name in names if name in segment.place_of]
        edits = self.alive & np.isin(segment.namespaces, numbers)
        edits[segment.expired(now)] = False
        # the first moment at which the windows say otherwise, and the last before
        turns = segment.windows
        since = turns[turns <= now].max(initial=_NEVER[0])
        until = turns[turns > now].min(initial=_NEVER[1])
        keys = np.repeat(edits, np.diff(segment.keys))
        count = int(keys.sum())
        bitmap = None if count == len(keys) else np.packbits(keys, bitorder="little")
        return Allowed(bitmap, count, int(since), int(until))


@dataclass(frozen=True, eq=False)
class State:
    """The newest revisions of all active edits as of one head of the log. Nothing of it ever changes.

    Attributes:
        head: how far the log was.
        parts: what was added when, roughly; each edit is alive in one.
    """

    head: Head
    parts: tuple[Part, ...] = ()

    def count(self, names: Collection[str]) -> int:
        """How many edits there are in these namespaces."""
        return sum(part.count(name) for part in self.parts for name in set(names))

    def holds_any(self, names: Collection[str]) -> bool:
        """Whether one of these namespaces has an edit."""
        return any(part.count(name) for part in self.parts for name in names)

    def changed(self, changes: Sequence[Edit], vectors_of: VectorsOf, dim: int) -> State:
        """The state, at the same head, when these revisions have followed.

        Args:
            changes: revisions, in order.
            vectors_of: gives the vectors of texts.
            dim: the length of a vector.

        Raises:
            StoreError: a text has no vector.
        """
        gone = np.array([edit.previous for edit in changes if edit.previous], np.int64)
        parts = [part.without(gone) for part in self.parts]
        newest = {edit.id: edit for edit in changes}
        active = [edit for edit in newest.values() if edit.active]
        if active:
            vectors = vectors_of(text for edit in active for text in edit.texts)
            parts.append(Part.of(Segment.build(active, vectors, dim)))
        return State(self.head, tuple(part for part in parts if part.keys))

    def nearest(
        self, vectors: Vectors, k: int, namespaces: Iterable[str], now: datetime
    ) -> tuple[list[Candidate], ...]:
        """The k edits in force nearest to each of `(queries, dim)` vectors, best first.

        Args:
            vectors: the queries.
            k: how many.
            namespaces: where to look.
            now: the time at which edits are to be in force.
        """
        names = frozenset(namespaces)
        found: list[list[tuple[float, int, Part, int, int]]] = [[] for _ in vectors]
        for part in self.parts:
            if any(map(part.count, names)):
                allowed = part.allowed(names, microseconds(now))
                if allowed.count and k:
                    for row, more in zip(found, part.nearest(vectors, k, allowed), strict=True):
                        row += [
                            (cosine, int(part.segment.revisions[place]), part, place, key)
                            for cosine, place, key in more
                        ]
        return tuple(
            [
                _candidate(part.segment, place, key, cosine, vector)
                for cosine, _, part, place, key in sorted(row, key=lambda entry: (-entry[0], entry[1]))[:k]
            ]
            for row, vector in zip(found, vectors, strict=True)
        )


def _firsts(cosines: Sequence[float], owners: Sequence[int], keys: Sequence[int]) -> list[tuple[float, int, int]]:
    """The nearest key of each edit, of keys that are sorted; -1 stands for no key."""
    best: dict[int, tuple[float, int, int]] = {}
    for cosine, owner, key in zip(cosines, owners, keys, strict=True):
        if key >= 0:
            best.setdefault(owner, (cosine, owner, key))
    return list(best.values())


def _candidate(segment: Segment, place: int, key: int, cosine: float, vector: Vectors) -> Candidate:
    edit = segment.edit(place)
    to_keys = map(float, segment.keys_of(place) @ vector) if len(edit.keys) > 1 else [cosine]
    to_negatives = map(float, segment.negatives_of(place) @ vector)
    nearest = edit.keys[key - int(segment.keys[place])]
    return Candidate(
        edit=edit,
        key=nearest,
        similarity=cosine,
        others=tuple((text, near) for text, near in zip(edit.keys, to_keys, strict=True) if text != nearest),
        negatives=tuple(zip(edit.negatives, to_negatives, strict=True)),
    )

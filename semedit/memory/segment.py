"""Edits and an index over their keys, frozen: what the searches of a process look through."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

import numpy as np
import numpy.typing as npt

from semedit.edits import Edit
from semedit.errors import StoreError
from semedit.memory.encoder import Vectors
from semedit.memory.index import SegmentIndex
from semedit.memory.store import body_of, edit_of

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EDITS_AT_ONCE = 1_000  # copied, so that no other thread is held up for long
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=datetime.isoformat)
_ALWAYS = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class Segment:
    """Active edits as some of their revisions left them, in the order of these revisions. Nothing of it ever changes.

    An edit's place is its number here, from 0; keys are numbered through, an edit's own beside one another. Edits are
    kept as JSON, for an object for each of a million would take several times the space.

    Attributes:
        index: over the vectors of all keys.
        names: the namespaces that its edits are in, or that others were in before a merge.
        revisions: `(edits,)`, rising.
        keys: `(edits + 1,)`: the edit at a place has the keys from `keys[place]` up to `keys[place + 1]`.
        namespaces: `(edits,)`: each one's place in `names`.
        bodies, body_ends: JSON as bytes, back to back; `(edits + 1,)` says as `keys` does which are whose.
        negatives, negative_ends: `(negatives, dim)` float32, and `(edits + 1,)`.
        timed, windows: the places of edits with a validity window, and `(timed, 2)` microseconds since 1970: an edit
            is in force from the first, up to and without the second.
    """

    index: SegmentIndex
    names: tuple[str, ...]
    revisions: Numbers
    keys: npt.NDArray[np.int32]
    namespaces: npt.NDArray[np.int32]
    bodies: npt.NDArray[np.uint8]
    body_ends: Numbers
    negatives: Vectors
    negative_ends: npt.NDArray[np.int32]
    timed: Numbers
    windows: Numbers

    @classmethod
    def build(cls, edits: Sequence[Edit], vectors: Mapping[str, Vectors], dim: int) -> Segment:
        """The segment of some edits.

        Args:
            edits: active edits, as they are in the log.
            vectors: `(dim,)` for each of their texts.
            dim: the length of a vector.

        Raises:
            StoreError: a text has no vector.
        """
        edits = sorted(edits, key=lambda edit: edit.revision)
        for edit in edits:
            for text in edit.texts:
                if text not in vectors:
                    raise StoreError(f"no vector is kept for {text!r} of edit {edit.id!r}; run semedit edit reembed")
        names = tuple(dict.fromkeys(edit.namespace for edit in edits))
        place_of = {name: place for place, name in enumerate(names)}
        bodies = [_pack(edit) for edit in edits]
        timed = [place for place, edit in enumerate(edits) if edit.valid_from or edit.valid_until]
        return cls(
            index=SegmentIndex.build(_stacked([vectors[key] for edit in edits for key in edit.keys], dim)),
            names=names,
            revisions=np.array([edit.revision for edit in edits], np.int64),
            keys=_ends(len(edit.keys) for edit in edits).astype(np.int32),
            namespaces=np.array([place_of[edit.namespace] for edit in edits], np.int32),
            bodies=np.frombuffer(b"".join(bodies), np.uint8),
            body_ends=_ends(map(len, bodies)),
            negatives=_stacked([vectors[text] for edit in edits for text in edit.negatives], dim),
            negative_ends=_ends(len(edit.negatives) for edit in edits).astype(np.int32),
            timed=np.array(timed, np.int64),
            windows=np.array([_window(edits[place]) for place in timed], np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.revisions)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """The place of each namespace in `names`."""
        return {name: place for place, name in enumerate(self.names)}

    def edit(self, place: int) -> Edit:
        """The edit at a place."""
        packed = self.bodies[self.body_ends[place] : self.body_ends[place + 1]].tobytes()
        return _unpack(packed, int(self.revisions[place]), self.names[self.namespaces[place]])

    def owners(self, keys: Numbers) -> Numbers:
        """The places of the edits that these keys belong to."""
        # of one kind, for else all are converted
        owners: Numbers = np.searchsorted(self.keys, keys.astype(self.keys.dtype), side="right") - 1
        return owners

    def keys_of(self, place: int) -> Vectors:
        """`(keys, dim)` of the edit at a place, as the index stores them."""
        return self.index.vectors(np.arange(self.keys[place], self.keys[place + 1]))

    def negatives_of(self, place: int) -> Vectors:
        """`(negatives, dim)` of the edit at a place."""
        return self.negatives[self.negative_ends[place] : self.negative_ends[place + 1]]

    def places(self, revisions: Numbers) -> Numbers:
        """The places of those of the revisions that stand here."""
        found = np.searchsorted(self.revisions, revisions)
        inside = found < len(self)
        found, revisions = found[inside], revisions[inside]
        places: Numbers = found[self.revisions[found] == revisions]
        return places

    def expired(self, now: int) -> Numbers:
        """The places of the edits that are not in force at a time, in microseconds since 1970."""
        places: Numbers = self.timed[(self.windows[:, 0] > now) | (self.windows[:, 1] <= now)]
        return places


def merged(segments: Sequence[tuple[Segment, Mask]]) -> Segment:
    """One segment of several.

    Args:
        segments: each with a mask `(edits,)` of those that are to stay; at least one of all stays.
    """
    kept = [np.flatnonzero(mask) for _, mask in segments]
    sources = [(segment, places) for (segment, _), places in zip(segments, kept, strict=True)]
    revisions = np.concatenate([segment.revisions[places] for segment, places in sources])
    order = np.argsort(revisions)
    new_place = np.empty_like(order)  # of the edits that stay, in the order of `sources`
    new_place[order] = np.arange(len(order))

    def moves(ends: str) -> tuple[Numbers, Iterator[tuple[Segment, Numbers, Numbers]]]:
        """Which rows of a segment come to which rows, for what belongs to the edits by `ends`; and the new ends."""
        sizes = np.concatenate([np.diff(getattr(segment, ends))[places] for segment, places in sources])
        new_ends = _ends(sizes[order])

        def portions() -> Iterator[tuple[Segment, Numbers, Numbers]]:
            at = 0
            for segment, places in sources:
                old_ends = getattr(segment, ends).astype(np.int64)
                for start in range(0, len(places), _EDITS_AT_ONCE):
                    some = places[start : start + _EDITS_AT_ONCE]
                    counts = old_ends[some + 1] - old_ends[some]
                    yield (
                        segment,
                        _ranges(old_ends[some], counts),
                        _ranges(new_ends[new_place[at : at + len(some)]], counts),
                    )
                    at += len(some)

        return new_ends, portions()

    keys, key_moves = moves("keys")
    body_ends, body_moves = moves("body_ends")
    negative_ends, negative_moves = moves("negative_ends")
    dim = segments[0][0].negatives.shape[1]
    vectors = np.empty((keys[-1], dim), np.float32)
    for segment, rows, to in key_moves:
        vectors[to] = segment.index.vectors(rows)
    bodies = np.empty(body_ends[-1], np.uint8)
    for segment, rows, to in body_moves:
        bodies[to] = segment.bodies[rows]
    negatives = np.empty((negative_ends[-1], dim), np.float32)
    for segment, rows, to in negative_moves:
        negatives[to] = segment.negatives[rows]
    names = tuple(dict.fromkeys(name for segment, _ in segments for name in segment.names))
    number = {name: i for i, name in enumerate(names)}
    namespaces = [
        np.array([number[name] for name in segment.names], np.int32)[segment.namespaces[places]]
        for segment, places in sources
    ]
    timed, windows, before = [], [], 0
    for (segment, mask), places in zip(segments, kept, strict=True):
        stay = mask[segment.timed]
        timed.append(new_place[before + np.searchsorted(places, segment.timed[stay])])
        windows.append(segment.windows[stay])
        before += len(places)
    return Segment(
        index=SegmentIndex.build(vectors),
        names=names,
        revisions=revisions[order],
        keys=keys.astype(np.int32),
        namespaces=np.concatenate(namespaces)[order],
        bodies=bodies,
        body_ends=body_ends,
        negatives=negatives,
        negative_ends=negative_ends.astype(np.int32),
        timed=np.concatenate(timed),
        windows=np.concatenate(windows),
    )


def microseconds(time: datetime) -> int:
    """A time as whole microseconds since 1970."""
    return (time - _BEGINNING) // timedelta(microseconds=1)


def _ends(sizes: Iterable[int]) -> Numbers:
    """0, and where each of these sizes ends, laid one after another."""
    sizes = np.fromiter(sizes, np.int64)
    return np.concatenate([[0], np.cumsum(sizes)])


def _ranges(starts: Numbers, counts: Numbers) -> Numbers:
    """Each start and what follows it, as many as it has, one after another."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - counts), counts) + np.arange(total)


def _pack(edit: Edit) -> bytes:
    """A revision as bytes, without what a segment says of it elsewhere."""
    assert edit.time is not None
    body = body_of(edit)
    del body["active"], body["namespace"]
    time = microseconds(edit.time)
    return _JSON.encode([edit.id, edit.action, edit.author, edit.change, edit.previous, time, body]).encode()


def _unpack(packed: bytes, revision: int, namespace: str) -> Edit:
    """The revision whose `_pack` this is."""
    id, action, author, change, previous, time, body = json.loads(packed)
    return edit_of(
        body,
        id=id,
        namespace=namespace,
        action=action,
        author=author,
        revision=revision,
        change=change,
        previous=previous,
        time=_BEGINNING + timedelta(microseconds=time),
    )


def _stacked(vectors: Sequence[Vectors], dim: int) -> Vectors:
    stacked = np.empty((len(vectors), dim), np.float32)
    for start in range(0, len(vectors), _EDITS_AT_ONCE):
        stacked[start : start + _EDITS_AT_ONCE] = vectors[start : start + _EDITS_AT_ONCE]
    return stacked


def _window(edit: Edit) -> tuple[int, int]:
    """From and up to when an edit is in force, in microseconds since 1970."""
    first, last = _ALWAYS
    return (
        first if edit.valid_from is None else microseconds(edit.valid_from),
        last if edit.valid_until is None else microseconds(edit.valid_until),
    )

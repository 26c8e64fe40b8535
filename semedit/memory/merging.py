"""Which parts of a state are to be merged: few parts make searches fast, and each edit is moved only now and then.

As in a log-structured merge tree, neighbours of about a size become one, so that a state of n keys has some log n
parts and a key is copied some log n times. Small parts are merged by whoever adds to them. What takes longer is left
to a thread of its own, which keeps off the small parts at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from semedit.memory.segment import Numbers, merged
from semedit.memory.state import Part

# keys: parts of up to so many are merged at once, which takes milliseconds
SMALL = 2_048
# keys: parts of together no more than so many are always merged
_TINY = 256


def merge_small(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts when the small ones at the end are merged."""
    start = _small_from(parts)
    small = list(parts[start:])
    while (run := _run_of(small)) is not None:
        small[run] = [merge(small[run])]
    return (*parts[:start], *small)


def large_run(parts: Sequence[Part]) -> Sequence[Part] | None:
    """Neighbours that are to be merged, or a part to be rid of its dead, before the small ones at the end."""
    large = parts[: _small_from(parts)]
    run = _run_of(large)
    if run is not None:
        return large[run]
    return next(([part] for part in large if part.keys < len(part.segment.index) / 2), None)


def merge(run: Sequence[Part]) -> Part:
    """One part of several."""
    return Part.of(merged([(part.segment, part.alive) for part in run]))


def purge(parts: Sequence[Part], revisions: Numbers) -> tuple[Part, ...]:
    """The parts with nothing left of these revisions, which are dead: those that hold one are made anew."""
    return tuple(merge([part]) if len(part.segment.places(revisions)) else part for part in parts)


def replaced(parts: Sequence[Part], run: Sequence[Part], new: Part) -> tuple[Part, ...] | None:
    """The parts with `new`, made of `run`, in place of it, without what has died meanwhile.

    None where one of the run is not there any more.
    """
    segments = [part.segment for part in parts]
    if run[0].segment not in segments:
        return None
    start = segments.index(run[0].segment)
    now = parts[start : start + len(run)]
    if [part.segment for part in now] != [part.segment for part in run]:
        return None
    for before, after in zip(run, now, strict=True):
        new = new.without(after.segment.revisions[before.alive & ~after.alive])
    return (*parts[:start], new, *parts[start + len(run) :])


def _small_from(parts: Sequence[Part]) -> int:
    """Where the small parts at the end begin."""
    start = len(parts)
    while start and parts[start - 1].keys <= SMALL:
        start -= 1
    return start


def _run_of(parts: Sequence[Part]) -> slice | None:
    """The last run of neighbours that are about alike."""
    for end in range(len(parts), 1, -1):
        start, keys = end - 1, parts[end - 1].keys
        while start and (parts[start - 1].keys < 2 * keys or parts[start - 1].keys + keys <= _TINY):
            start -= 1
            keys += parts[start].keys
        if end - start > 1:
            return slice(start, end)
    return None

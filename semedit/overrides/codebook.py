"""GRACE's codebook (Hartvigsen et al. 2023, section 3): keys in activation space, each with a deferral radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Label = tuple[int, ...]
Rule = Literal["add", "expand", "split"]

# by so little two balls that were split stay apart
_GAP = 1e-5


@dataclass
class Entry:
    """One key's ball.

    Attributes:
        owner: the edit whose value it gives.
        label: the token ids that the value was learned to produce.
        radius: the deferral radius ε.
    """

    owner: str
    label: Label
    radius: float


@dataclass(frozen=True)
class Nearby:
    """An entry as seen from a query: its number, its distance, and how much of its radius that is left over."""

    number: int
    entry: Entry
    distance: float

    @property
    def claim(self) -> float:
        """1 at the key, 0 at the edge of its ball, negative outside."""
        if self.distance > self.entry.radius or self.entry.radius == 0:
            return -1.0 if self.distance > self.entry.radius else 1.0
        return 1 - self.distance / self.entry.radius


class Codebook:
    """Keys with radii, changed by the rules add, expand and split, and looked up by distance.

    Two keys touch where they lie no farther apart than their radii together. A new key that touches none is added.

    As published, one that touches its nearest key with the same label expands that key's ball to itself; with another
    label both are kept, and each ball ends half way. Half way may be farther than a radius was before, and a query
    that is outside the ball of its nearest key finds nothing.

    Repaired, every key has a ball of its own, so that an edit answers its own prompts and none goes with another edit.
    A new key that touches a key with another label is split from the nearest such key, which never enlarges a ball,
    and a query finds the nearest of the balls that hold it.

    Args:
        dim: the length of a key.
        radius: the deferral radius of a new key.
        published: whether to go by the rules as published.
    """

    def __init__(self, dim: int, radius: float, *, published: bool = False) -> None:
        self.radius = radius
        self.published = published
        self.entries: list[Entry] = []
        self._keys: Floats = np.zeros((16, dim), np.float32)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def keys(self) -> Floats:
        """`(entries, dim)`."""
        return self._keys[: len(self.entries)]

    def add(self, key: Floats, label: Label, owner: str) -> Rule:
        """Takes a key `(dim,)` in; says which rule took it.

        Where it expands a ball, that ball from then on gives its owner's value.
        """
        near = self.nearest(key) if self.published else self._nearest(key, lambda entry: entry.label != label)
        if near is None or near.distance > self.radius + near.entry.radius:
            self._append(key, Entry(owner, label, self.radius))
            return "add"
        entry, half = near.entry, near.distance / 2
        if entry.label == label:
            entry.radius = max(entry.radius, near.distance)
            entry.owner = owner
            return "expand"
        rest = max(half - _GAP, 0.0)
        entry.radius = rest if self.published else min(entry.radius, rest)
        self._append(key, Entry(owner, label, half if self.published else min(self.radius, half)))
        return "split"

    def nearest(self, key: Floats) -> Nearby | None:
        """The entry nearest to `(dim,)`, whether or not its ball holds it; None where there is none."""
        return self._nearest(key, lambda entry: True)

    def nearby(self, key: Floats, k: int) -> list[Nearby]:
        """The k entries nearest to `(dim,)`, nearest first."""
        distances = self._distances(key).tolist()
        # of two that are equally near, the newer one
        order = sorted(range(len(distances)), key=lambda i: (distances[i], -i))[:k]
        return [Nearby(i, self.entries[i], distances[i]) for i in order]

    def look_up(self, key: Floats, owners: frozenset[str] | None = None) -> Nearby | None:
        """The entry whose ball holds `(dim,)`, the nearest where several do, or None.

        Args:
            key: the query's key.
            owners: whose entries count; None counts all.
        """
        near = self._nearest(
            key,
            lambda entry: owners is None or entry.owner in owners,
            within_ball=not self.published,
        )
        return near if near is not None and near.distance <= near.entry.radius else None

    def _nearest(self, key: Floats, counts: Callable[[Entry], bool], *, within_ball: bool = False) -> Nearby | None:
        """The nearest of the entries that count; of two that are equally near, the newer one."""
        distances = self._distances(key).tolist()
        numbers = [
            i
            for i, entry in enumerate(self.entries)
            if counts(entry) and (not within_ball or distances[i] <= entry.radius)
        ]
        if not numbers:
            return None
        i = min(numbers, key=lambda i: (distances[i], -i))
        return Nearby(i, self.entries[i], distances[i])

    def _append(self, key: Floats, entry: Entry) -> None:
        if len(self.entries) == len(self._keys):
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
        self._keys[len(self.entries)] = key
        self.entries.append(entry)

    def _distances(self, key: Floats) -> Floats:
        difference = self.keys - key
        distances: Floats = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return distances
